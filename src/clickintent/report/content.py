"""Everything that the template needs, computed from ``ReportData``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

import numpy as np

from clickintent.report import charts, lifts, made, summary, tasks, trust, views, words
from clickintent.report.data import ReportData
from clickintent.report.results import Interval, Task, read_task
from clickintent.report.vega import Spec

_EXAMPLES = 4  # sessions shown for an intent whose taxonomy has none


@dataclass(frozen=True)
class Figure:
    """A key figure."""

    label: str
    value: str
    note: str = ""
    verdict: str = ""  # better, worse or unclear


@dataclass(frozen=True)
class Step:
    """A step of the funnel."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Area:
    name: str
    share: float
    intents: tuple[tuple[views.Intent, tuple[str, ...]], ...]  # with example sessions


@dataclass
class Page:
    """The template's context."""

    title: str
    made_at: str
    period: str
    lede: str
    summary: list[tuple[str, list[str]]]  # heading, sentences
    figures: list[Figure]
    banners: list[str]
    teacher: str
    #: name, read, events, duplicates, quarantined
    sources: list[tuple[str, int, int, int, int]] = field(default_factory=list)
    funnel: list[Step] = field(default_factory=list)
    n_sessions: int = 0
    unit: str = "day"
    intents: list[views.Intent] = field(default_factory=list)
    legend: list[views.Intent] = field(default_factory=list)
    other: float = 0.0  # share of the sessions without a colour of their own
    movers: list[views.Mover] = field(default_factory=list)
    chance: int = 0
    n_points: int = 0
    areas: list[Area] = field(default_factory=list)
    largest: float = 0.0  # share of the most frequent intent
    has_rates: bool = False
    taxonomy: Mapping[str, Any] = field(default_factory=dict)
    trust: trust.Trust | None = None
    tasks: list[tasks.TaskView] = field(default_factory=list)
    grid: lifts.Grid | None = None
    overall: Interval | None = None
    outcome: str = ""
    made: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    versions: Mapping[str, str] = field(default_factory=dict)
    specs: dict[str, Spec] = field(default_factory=dict)


def assemble(data: ReportData) -> Page:
    """Compute the page; nothing of it needs to be there but the tables."""
    metrics = {k: v for k, v in data.metrics.items() if isinstance(v, Mapping)}
    sessions = views.join(data)
    found = views.intents(data, sessions)
    teacher = _teacher(metrics, data)
    read = {
        "conversion": read_task(metrics.get("conversion"), default_main="micro_f1", teacher=teacher),
        "tiles": read_task(metrics.get("tiles"), default_main="macro_recall_at_1", teacher=teacher),
    }
    findings = {name: item for name, task in read.items() if (item := summary.finding(task, name))}
    linked = int(np.isin(sessions.link, ("in_session", "before", "after")).sum())
    period = words.days(int(sessions.start.min()), int(sessions.start.max())) if sessions.n else ""
    page = Page(
        title=data.title,
        made_at=f"{data.made_at.astimezone(UTC):%d %B %Y, %H:%M} UTC".lstrip("0"),
        period=period,
        lede=next((f"{f.plain} {f.numbers}" for f in findings.values()), "")
        or _plain_lede(sessions.n, found),
        summary=[
            ("Who came", summary.who_came(sessions.n, linked, period, found)),
            *((tasks.TITLES[name], [f.plain, f"{f.numbers} {f.more}"]) for name, f in findings.items()),
        ],
        figures=_figures(sessions.n, linked, found, findings, metrics),
        banners=_banners(metrics, data),
        teacher=teacher,
        intents=found,
        n_sessions=sessions.n,
        versions=data.versions,
    )
    _what_went_in(page, metrics, sessions, linked)
    _in_time(page, sessions, found)
    _map(page, data, found)
    _taxonomy(page, metrics, data, found)
    page.trust = trust.view(metrics.get("student"), {i.id: i.name for i in found})
    page.specs |= page.trust.charts if page.trust else {}
    page.tasks = [tasks.view(task, name, findings.get(name)) for name, task in read.items()]
    page.specs |= {f"{t.id}-{part}": spec for t in page.tasks for part, spec in t.charts.items()}
    _conversion_by_intent(page, sessions, found, read["conversion"])
    page.made = made.facts(metrics)
    return page


def _teacher(metrics: Mapping[str, Any], data: ReportData) -> str:
    sources = (
        metrics.get("labels", {}).get("source"),
        metrics.get("taxonomy", {}).get("source"),
        data.taxonomy.source if data.taxonomy else None,
    )
    source = next((s for s in sources if s in ("llm", "keywords")), None)
    return {"llm": "LLM", "keywords": "Keyword", None: "Teacher"}[source]


def _banners(metrics: Mapping[str, Any], data: ReportData) -> list[str]:
    banners = []
    named = data.taxonomy.source if data.taxonomy else metrics.get("taxonomy", {}).get("source")
    if named == "keywords":
        banners.append(
            "No language model was configured: names and definitions below were made from page titles, and "
            "sessions were labelled by matching keywords. They show the way, not what a language model or a "
            "person would have named."
        )
    elif metrics.get("labels", {}).get("source") == "keywords":
        banners.append(
            "No language model was configured: sessions were labelled by matching the keywords of the "
            "taxonomy, not by reading them."
        )
    if "simulate" in metrics:
        banners.append(
            "These are simulated visitors of an invented bank. What holds here need not hold for yours: "
            "run it on your own clickstream."
        )
    return banners


def _plain_lede(n: int, found: list[views.Intent]) -> str:
    used = [i for i in found if i.sessions]
    if not n:
        return "No session reached the models."
    noun = "session" if n == 1 else "sessions"
    if not used:
        return f"{words.number(n)} {noun}; none is labelled yet."
    return f"{words.number(n)} {noun}; the most frequent intent is “{used[0].name}”."


def _figures(
    n: int,
    linked: int,
    found: list[views.Intent],
    findings: Mapping[str, summary.Finding],
    metrics: Mapping[str, Any],
) -> list[Figure]:
    used = sum(1 for i in found if i.sessions)
    figures = [
        Figure("Sessions", words.number(n), "seen by the models: one channel, no bots"),
        Figure(
            "Tied to an account", words.percent(linked / n) if n else "—", f"{words.number(linked)} sessions"
        ),
        Figure(
            "Intents",
            words.number(used),
            f"of {len(found)} in the taxonomy" if used < len(found) else "in the taxonomy",
        ),
    ]
    for name, item in findings.items():
        note = f"{item.metric} of the embedding"
        if item.baseline:
            note += f"; page counts {words.score(item.baseline.value)}"
        figures.append(Figure(tasks.TITLES[name], words.score(item.value.value), note, item.verdict or ""))
    speed = metrics.get("embed", {}).get("sessions_per_second")
    if len(figures) == 3 and speed:
        figures.append(Figure("Embedded per second", words.number(speed), "sessions"))
    return figures


def _what_went_in(page: Page, metrics: Mapping[str, Any], sessions: views.Sessions, linked: int) -> None:
    events, of_sessions = metrics.get("events", {}), metrics.get("sessions", {})
    _, read, kept, duplicates, quarantined = _counts("All", events)
    if read:
        by_source = [(k, v) for k, v in _items(events.get("by_source")) if isinstance(v, Mapping)]
        page.sources = [_counts(str(name), counts) for name, counts in by_source]
        if len(page.sources) != 1:
            page.sources.append(_counts("All", events))
        left_out = f"{words.percent((duplicates + quarantined) / read)} left out"
        page.funnel += [
            Step("Rows read", words.number(read), _plural(len(by_source), "source")),
            Step("Events", words.number(kept), left_out),
        ]
    if of_sessions:
        mean = (of_sessions.get("events_per_session") or {}).get("mean")
        note = f"{mean:.1f} events each" if isinstance(mean, int | float) else ""
        page.funnel.append(Step("Sessions", words.number(of_sessions.get("sessions")), note))
    if sessions.n:
        bots = of_sessions.get("bots")
        note = f"{words.number(bots)} bot sessions left out" if bots else ""
        page.funnel += [
            Step("Seen by models", words.number(sessions.n), note),
            Step("Tied to an account", words.number(linked), words.percent(linked / sessions.n)),
        ]
    reasons = [(str(k), int(v)) for k, v in _items(events.get("quarantine_reasons")) if v]
    if reasons:
        page.specs["reasons"] = charts.bars(reasons[:10], "Reason", "warm")
    if sessions.n:
        names, counts = np.unique(sessions.link.astype(str), return_counts=True)
        by_link = dict(zip(names.tolist(), counts.tolist(), strict=True))
        order = [k for k in ("in_session", "before", "after", "ambiguous", "none") if k in by_link]
        order += [k for k in by_link if k not in order]
        page.specs["links"] = charts.bars([(words.link_name(k), by_link[k]) for k in order], "Account link")


def _counts(name: str, counts: Mapping[str, Any]) -> tuple[str, int, int, int, int]:
    read, events, duplicates, quarantined = (
        int(counts[k]) if words.is_number(counts.get(k)) else 0
        for k in ("read", "events", "duplicates", "quarantined")
    )
    return name, read, events, duplicates, quarantined


def _in_time(page: Page, sessions: views.Sessions, found: list[views.Intent]) -> None:
    page.legend = [i for i in found if i.colour != "cx"]
    page.other = max(0.0, 1 - sum(i.share for i in page.legend))
    if any(i.colour == "cx" for i in found) and page.other < 1e-9:
        page.other = 0.0
    if sessions.n < 2:
        return
    page.unit = views.time_unit(sessions.start)[0]
    page.specs["time"] = charts.over_time(views.over_time(sessions, found), found, page.unit)
    page.movers = views.movers(sessions, found)
    page.chance = round(0.05 * len(sessions.intent_ids))
    if page.movers:
        page.specs["movers"] = charts.movers(page.movers)


def _map(page: Page, data: ReportData, found: list[views.Intent]) -> None:
    points = data.map_points.to_pylist()
    points = [p for p in points if words.is_number(p["x"]) and words.is_number(p["y"])]
    page.n_points = len(points)
    if len(points) >= 2:
        page.specs["map"] = charts.session_map(points, found, views.groups(found))


def _taxonomy(page: Page, metrics: Mapping[str, Any], data: ReportData, found: list[views.Intent]) -> None:
    nothing = dict.fromkeys(("source", "model", "version", "approved_by"))
    page.taxonomy = nothing | dict(metrics.get("taxonomy", {}))
    if data.taxonomy:
        page.taxonomy |= {
            "source": data.taxonomy.source,
            "model": data.taxonomy.model,
            "version": data.taxonomy.version,
            "approved_by": data.taxonomy.approved_by,
        }
    page.largest = max((i.share for i in found), default=0.0)
    page.has_rates = any(i.known for i in found)
    drawn = _examples(data)
    by_area: dict[str, list[views.Intent]] = {}
    for intent in found:
        by_area.setdefault(intent.area or "", []).append(intent)
    areas = [
        Area(
            name,
            sum(i.share for i in items),
            tuple((i, i.examples or tuple(drawn.get(i.id, ()))) for i in items),
        )
        for name, items in by_area.items()
    ]
    page.areas = sorted(areas, key=lambda a: -a.share)


def _examples(data: ReportData) -> dict[str, list[str]]:
    """The surest different sessions of the map for each intent."""
    found: dict[str, list[str]] = {}
    if not data.map_points.num_rows:
        return found
    rows = data.map_points.select(["intent_id", "confidence", "narrative"]).to_pylist()
    for row in sorted(rows, key=lambda r: -(r["confidence"] or 0)):
        taken = found.setdefault(row["intent_id"] or "", [])
        if len(taken) < _EXAMPLES and row["narrative"] and row["narrative"] not in taken:
            taken.append(row["narrative"])
    return found


def _conversion_by_intent(
    page: Page, sessions: views.Sessions, found: list[views.Intent], task: Task
) -> None:
    known = int((sessions.outcome != "").sum())
    taken = lifts.products_taken(sessions)
    converted = sum(taken.values())
    page.overall = views.wilson(converted, known)
    page.outcome = task.outcome or (next(iter(taken)) if len(taken) == 1 else "")
    if page.overall is None or not converted:
        return
    if len(taken) > 1:
        page.grid = lifts.grid(sessions, found)
        if page.grid:
            page.specs["lifts"] = charts.lift_grid(page.grid)
    what = (
        f"Share of sessions that reach “{page.outcome}”" if page.outcome else "Share of sessions that convert"
    )
    page.specs["rates"] = charts.rates(found, page.overall.value, what)


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}" if n else ""


def _items(value: Any) -> list[tuple[Any, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else []
