"""Charts of sessions and intents."""

from __future__ import annotations

from collections.abc import Sequence

from clickintent.report import vega
from clickintent.report.lifts import Grid
from clickintent.report.vega import Rows, Spec
from clickintent.report.views import OTHER, Intent, Mover
from clickintent.report.words import number, percent, shorten, signed

_LIFT_STEPS = (0.5, 0.8, 1.25, 2.0, 4.0)
_TIME_UNITS = {"hour": "utcyearmonthdatehours", "day": "utcyearmonthdate", "week": "utcyearweek"}
_FEW_BINS = 24  # drawn as bars
_NARRATIVE = 260  # characters


def over_time(rows: Rows, found: Sequence[Intent], unit: str) -> Spec:
    """Sessions per hour, day or week, stacked by intent. Signal ``focus``: the group to stress."""
    alt = vega.altair()
    shown = {row["i"] for row in rows}
    coloured = {i.id: i for i in found if i.colour != "cx" and i.id in shown}
    ids = [*coloured, *([OTHER] if OTHER in shown else [])]
    table = [
        row
        | {
            "intent": coloured[row["i"]].name if row["i"] in coloured else "Other intents",
            "o": ids.index(row["i"]),
        }
        for row in rows
    ]
    x = {"type": "temporal", "title": None, "axis": alt.Axis(grid=False, tickCount=8, labelOverlap=True)}
    if len(table) > _FEW_BINS * len(ids):
        mark = vega.chart().mark_area(interpolate="monotone")
        time = alt.X("t", scale=alt.Scale(type="utc"), **x)
    else:
        mark = vega.chart().mark_bar(binSpacing=1)
        time = alt.X("t", timeUnit=_TIME_UNITS[unit], **x)
    form = "%H:%M, %-d %b" if unit == "hour" else "%-d %b %Y"
    counts = alt.Axis(format=",d", tickMinStep=1, tickCount=5)
    when = {"day": "Day", "hour": "From", "week": "Week from"}[unit]
    chart = mark.encode(
        x=time,
        y=alt.Y("n", type="quantitative", stack="zero", title=f"Sessions per {unit}", axis=counts),
        color=vega.colours("i", _intent_colours(list(coloured.values()), ids)),
        order=alt.Order("o", type="quantitative"),
        opacity=vega.focus("datum.i === focus", on=1.0, off=0.15),
        tooltip=[
            alt.Tooltip("t", type="temporal", timeUnit=_TIME_UNITS[unit], format=form, title=when),
            alt.Tooltip("intent", type="nominal", title="Intent"),
            alt.Tooltip("n", type="quantitative", format=",d", title="Sessions"),
        ],
    )
    return vega.specify(chart.add_params(vega.signal("focus", "")), table, height=300)


def movers(found: Sequence[Mover]) -> Spec:
    """Share of sessions in the first half of the period (hollow) and the second (filled)."""
    alt = vega.altair()
    table: Rows = [
        {
            "intent": m.intent.name,
            "early": m.early,
            "late": m.late,
            "direction": m.direction,
            "change": f"{_points(m.change.value)} percentage points "
            f"({_points(m.change.low)} to {_points(m.change.high)})",
            "first": percent(m.early, 2),
            "second": percent(m.late, 2),
        }
        for m in found
    ]
    by_direction = {"rises": "accent", "falls": "warm", "unclear": "quiet"}
    colour = vega.colours("direction", by_direction)
    tips = vega.tooltip(intent="Intent", first="First half", second="Second half", change="Change")
    base = vega.chart().encode(y=vega.names("intent", [m.intent.name for m in found]), tooltip=tips)
    x = {
        "type": "quantitative",
        "title": "Share of sessions",
        "scale": alt.Scale(zero=False, padding=24),
        "axis": alt.Axis(format="~%", tickCount=6),
    }
    hollow = base.mark_point(size=70, filled=True, fill="var(--card)", strokeWidth=2, opacity=1)
    chart = alt.layer(
        base.mark_rule(strokeWidth=2.5).encode(x=alt.X("early", **x), x2="late", color=colour),
        hollow.encode(x=alt.X("early", **x), stroke=vega.colours("direction", by_direction, "Stroke")),
        base.mark_point(size=80, filled=True, opacity=1).encode(x=alt.X("late", **x), color=colour),
    )
    return vega.specify(chart, table, height=28 * len(table))


def session_map(points: Rows, found: Sequence[Intent], groups: dict[str, str]) -> Spec:
    """Every point a session; neighbours are alike. Signal ``focus``: an intent or a group to stress."""
    alt = vega.altair()
    named = {i.id: i.name for i in found}
    table: Rows = [
        {
            "x": round(p["x"], 4),
            "y": round(p["y"], 4),
            "i": p["intent_id"] or "",
            "g": groups.get(p["intent_id"] or "", OTHER),
            "intent": named.get(p["intent_id"] or "", p["intent_id"] or "none"),
            "c": percent(p["confidence"]),
            "s": shorten(p["narrative"] or "", _NARRATIVE),
        }
        for p in points
    ]
    table.sort(key=lambda row: row["g"] != OTHER)  # grey below, colours above
    coloured = [i for i in found if i.colour != "cx"]
    axis = {"type": "quantitative", "axis": None, "scale": alt.Scale(zero=False, nice=False, padding=10)}
    chart = (
        vega.chart()
        .mark_circle(size=13 if len(table) > 2000 else 32, stroke=None)
        .encode(
            x=alt.X("x", **axis),
            y=alt.Y("y", **axis),
            color=vega.colours("g", _intent_colours(coloured, [*(i.id for i in coloured), OTHER])),
            opacity=vega.focus("datum.i === focus || datum.g === focus", on=0.8, off=0.06),
            tooltip=vega.tooltip(intent="Intent", c="Confidence", s="Session"),
        )
    )
    return vega.specify(chart.add_params(vega.signal("focus", "")), table, height="container")


def lift_grid(found: Grid) -> Spec:
    """How many times as often as usual an intent leads to a product."""
    alt = vega.altair()
    table: Rows = [
        {
            "intent": cell.intent.name,
            "product": cell.product.replace("_", " "),
            "step": "few" if cell.lift is None else f"h{sum(cell.lift >= s for s in _LIFT_STEPS)}",
            "text": "" if cell.lift is None else f"{cell.lift:.1f}×",
            "lift": "too few to tell" if cell.lift is None else f"{cell.lift:.2f} × the usual rate",
            "rate": f"{percent(cell.rate)} ({number(cell.taken)} of {number(cell.sessions)} sessions)",
        }
        for cell in found.cells
    ]
    products = list(dict.fromkeys(row["product"] for row in table))
    steps = [f"h{i}" for i in range(len(_LIFT_STEPS) + 1)]
    fill = vega.colours("step", {"few": "few"} | {s: s for s in steps}, "Fill")
    ink = vega.colours("step", {"few": "few"} | {s: s.replace("h", "t") for s in steps})
    slanted = len(products) > 4
    axis = alt.Axis(
        orient="top",
        labelAngle=-35 if slanted else 0,
        labelAlign="left" if slanted else "center",
        labelLimit=140,
        grid=False,
    )
    columns = alt.Scale(domain=products, paddingInner=0.04)
    base = vega.chart().encode(
        x=alt.X("product", type="nominal", title=None, scale=columns, axis=axis),
        y=vega.names("intent", [i.name for i in found.intents], padding=0.06),
        tooltip=vega.tooltip(intent="Intent", product="Product", lift="Lift", rate="Rate"),
    )
    chart = alt.layer(
        base.mark_rect(cornerRadius=2).encode(fill=fill),
        base.mark_text(fontSize=11).encode(text=vega.text("text"), color=ink),
    ).resolve_scale(color="independent")
    return vega.specify(chart, table, height=23 * len(found.intents))


def rates(found: Sequence[Intent], overall: float, what: str) -> Spec:
    """Conversion rate by intent with its interval, beside the rate of all sessions."""
    alt = vega.altair()
    table: Rows = [
        {
            "intent": intent.name,
            "value": rate.value,
            "low": rate.low,
            "high": rate.high,
            "side": "higher" if rate.low > overall else "lower" if rate.high < overall else "unclear",
            "rate": f"{percent(rate.value)} ({percent(rate.low)} to {percent(rate.high)})",
            "of": f"{number(intent.converted)} of {number(intent.known)}",
        }
        for intent in found
        if (rate := intent.rate) and rate.low is not None and rate.high is not None
    ]
    table.sort(key=lambda row: -row["value"])
    x = {"type": "quantitative", "title": what, "axis": alt.Axis(format="~%", tickCount=6, grid=True)}
    base = vega.chart()
    chart = alt.layer(
        base.mark_rule(strokeDash=[3, 3]).encode(x=alt.XDatum(overall, **x)),
        *vega.intervals(
            base,
            y=vega.names("intent", [row["intent"] for row in table]),
            x=x,
            colour=vega.colours("side", {"higher": "accent", "lower": "warm", "unclear": "quiet"}),
            tips=vega.tooltip(intent="Intent", rate="Rate", of="Sessions"),
        ),
    )
    return vega.specify(chart, table, height=24 * len(table))


def bars(values: Sequence[tuple[str, int]], title: str, colour: str = "accent") -> Spec:
    """Horizontal bars with their numbers."""
    alt = vega.altair()
    total = max(sum(n for _, n in values), 1)
    table: Rows = [
        {"name": name, "n": n, "text": f"{number(n)}  ·  {percent(n / total)}"} for name, n in values
    ]
    longest = max((n for _, n in values), default=1)
    room = alt.Scale(padding=0, domainMax=1.55 * max(longest, 1))  # for the numbers
    base = vega.chart().encode(
        y=vega.names("name", [name for name, _ in values], padding=0.35),
        x=alt.X("n", type="quantitative", title=None, axis=None, scale=room),
        tooltip=vega.tooltip(name=title, text="Count"),
    )
    chart = alt.layer(
        base.mark_bar(color=f"var(--{colour})", cornerRadiusEnd=2),
        base.mark_text(align="left", dx=6).encode(text=vega.text("text")),
    )
    return vega.specify(chart, table, height=30 * len(table))


def _intent_colours(coloured: Sequence[Intent], ids: Sequence[str]) -> dict[str, str]:
    classes = {i.id: i.colour for i in coloured}
    return {i: classes.get(i, "cx") for i in ids}


def _points(share: float | None) -> str:
    return signed(None if share is None else 100 * share, 2)
