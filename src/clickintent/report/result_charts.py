"""Charts of the two downstream results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clickintent.report import vega
from clickintent.report.results import Interval, Result
from clickintent.report.vega import Rows, Spec
from clickintent.report.words import METRICS, metric_name, score, signed

_ROLES = {
    "page_counts": "baseline",
    "embedding": "ours",
    "embedding_page_counts": "ours",
    "prior": "reference",
    "popularity": "reference",
    "oracle": "reference",
}
_ROLE_COLOURS = {"baseline": "ink", "ours": "accent", "other": "second", "reference": "quiet"}
_VERDICT_COLOURS = {"better": "accent", "worse": "warm", "unclear": "quiet"}
_ROW = 30  # pixels


def scores(result: Result) -> Spec:
    """Every method's value with its interval; the signal ``metric`` chooses the metric."""
    alt = vega.altair()
    table: Rows = [
        {
            "metric": metric,
            "method": method.label,
            "role": _ROLES.get(method.name, "other"),
            "label": score(value.value),
            "range": f"{score(value.low)} to {score(value.high)}",
            **_ends(value),
        }
        for metric in result.metrics
        for method in result.methods
        if (value := method.scores.get(metric))
    ]
    base = vega.chart().transform_filter("datum.metric === metric")
    x = {
        "type": "quantitative",
        "title": None,
        "scale": alt.Scale(zero=False, padding=46),
        "axis": alt.Axis(tickCount=5),
    }
    y = vega.names("method", [m.label for m in result.methods])
    tips = vega.tooltip(method="Method", label="Value", range="95 % interval")
    baseline = base.transform_filter("datum.role === 'baseline'").mark_rule(strokeDash=[3, 3], opacity=0.6)
    chart = alt.layer(
        baseline.encode(x=alt.X("value", **x)),
        *vega.intervals(base, y=y, x=x, colour=vega.colours("role", _ROLE_COLOURS), tips=tips),
        _beside(base).encode(y=y, x=alt.X("high", **x), text=vega.text("label")),
    ).add_params(vega.signal("metric", result.main))
    return vega.specify(chart, table, height=_ROW * len(result.methods))


def differences(result: Result) -> Spec | None:
    """Every method's difference to page counts with its interval; signal ``metric`` as in ``scores``.

    None if no difference is known.
    """
    alt = vega.altair()
    table: Rows = [
        {
            "metric": metric,
            "method": method.label,
            "verdict": method.verdict(metric),
            "label": signed(found.value),
            "range": f"{signed(found.low)} to {signed(found.high)}",
            **_ends(found),
        }
        for metric in result.metrics
        for method in result.methods
        if _ROLES.get(method.name) != "reference" and (found := method.difference.get(metric))
    ]
    if not table:
        return None
    base = vega.chart().transform_filter("datum.metric === metric")
    x = {
        "type": "quantitative",
        "title": None,
        "scale": alt.Scale(padding=46),
        "axis": alt.Axis(tickCount=5, format="+.3~f", grid=True),
    }
    shown = [m.label for m in result.methods if m.label in {row["method"] for row in table}]
    y = vega.names("method", shown)
    tips = vega.tooltip(method="Method", label="Difference", range="95 % interval")
    chart = alt.layer(
        base.mark_rule(strokeWidth=1, color="var(--ink)").encode(x=alt.XDatum(0, **x)),
        *vega.intervals(base, y=y, x=x, colour=vega.colours("verdict", _VERDICT_COLOURS), tips=tips),
        _beside(base).encode(y=y, x=alt.X("high", **x), text=vega.text("label")),
    ).add_params(vega.signal("metric", result.main))
    return vega.specify(chart, table, height=_ROW * len(shown))


def by_prefix(prefixes: Sequence[tuple[int, Result]], methods: Sequence[str]) -> Spec:
    """AUC from the first k events, a line for each method with its intervals. Signal ``focus``: a method."""
    alt = vega.altair()
    table: Rows = [
        {
            "k": k,
            "m": method.name,
            "method": method.label,
            "label": f"{score(value.value)} ({score(value.low)} to {score(value.high)})",
            **_ends(value),
        }
        for k, result in prefixes
        for method in result.methods
        if method.name in methods and (value := method.scores.get("auc"))
    ]
    beside = alt.Scale(domain=list(methods), paddingInner=0.7, paddingOuter=0.8)
    y = {
        "type": "quantitative",
        "title": "AUC",
        "scale": alt.Scale(zero=False, padding=12),
        "axis": alt.Axis(tickCount=6),
    }
    tips = vega.tooltip(method="Method", k="Events seen", label="AUC")
    base = vega.chart().encode(
        x=alt.X(
            "k",
            type="ordinal",
            title="Events seen",
            axis=alt.Axis(labelAngle=0, grid=False),
            scale=alt.Scale(padding=0.3),
        ),
        xOffset=alt.XOffset("m", type="nominal", scale=beside),
        color=vega.colours("m", {m: method_colour(m, i) for i, m in enumerate(methods)}),
        opacity=vega.focus("datum.m === focus", on=1.0, off=0.12),
    )
    rule = base.mark_rule(strokeWidth=2.5, strokeCap="round")
    chart = alt.layer(
        base.mark_line(strokeWidth=1.5).encode(y=alt.Y("value", **y)),
        rule.encode(y=alt.Y("low", **y), y2="high", tooltip=tips),
        base.mark_point(size=60, filled=True).encode(y=alt.Y("value", **y), tooltip=tips),
    ).add_params(vega.signal("focus", ""))
    return vega.specify(chart, table, height=360)


def method_colour(name: str, place: int) -> str:
    """A method's colour among others: a CSS variable, and a class of the page."""
    return {"page_counts": "ink", "embedding": "accent"}.get(name, f"c{place % 10}")


def metric_choices(result: Result) -> list[dict[str, str]]:
    """For the buttons beside a chart of scores."""
    return [{"id": m, "name": metric_name(m), "what": METRICS[m][1]} for m in result.metrics]


def _beside(base: Any) -> Any:
    """Numbers to the right of their interval."""
    return base.mark_text(align="left", dx=9, fontSize=11.5)


def _ends(found: Interval) -> dict[str, float]:
    low = found.value if found.low is None else found.low
    high = found.value if found.high is None else found.high
    return {"value": found.value, "low": low, "high": high}
