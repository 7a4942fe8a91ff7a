"""The downstream results as their sections show them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clickintent.report import result_charts, summary
from clickintent.report.results import BASELINE, Interval, Method, Result, Task
from clickintent.report.vega import Spec
from clickintent.report.words import metric_name, percent, score

TITLES = {"conversion": "Conversion", "tiles": "Homepage tiles"}
_LINES = ("page_counts", "evening", "embedding", "embedding_page_counts", "student_labels", "llm_labels")
_ALL_COVERED = 0.995


@dataclass(frozen=True)
class Cell:
    """A number in a table of results."""

    value: str
    range: str = ""
    verdict: str = ""  # against page counts


@dataclass(frozen=True)
class Row:
    method: str
    note: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class ResultTable:
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    has_gain: bool  # the last column is the share of the possible gain
    n_train: int | None
    n_test: int | None


@dataclass(frozen=True)
class TaskView:
    """A downstream task as its section shows it."""

    id: str
    title: str
    what: str
    skipped: str | None
    finding: summary.Finding | None
    charts: dict[str, Spec]  # scores, differences, prefixes: whichever there are
    table: ResultTable | None = None
    covered: ResultTable | None = None
    by_prefix: ResultTable | None = None
    metrics: tuple[dict[str, str], ...] = ()  # choices of the charts
    lines: tuple[tuple[str, str, str], ...] = ()  # name, label, colour of the methods in the chart by prefix


def view(task: Task, name: str, found: summary.Finding | None) -> TaskView:
    """Tables and charts of the task ``name``."""
    title, what = TITLES[name], summary.subject(task, name)
    if task.skipped:
        return TaskView(name, title, what, task.skipped, None, {})
    charts: dict[str, Spec | None] = {}
    lines: tuple[tuple[str, str, str], ...] = ()
    if task.prefixes:
        labels = {m.name: m.label for _, r in task.prefixes for m in r.methods}
        shown = [m for m in _LINES if m in labels]
        charts["prefixes"] = result_charts.by_prefix(task.prefixes, shown)
        lines = tuple((m, labels[m], result_charts.method_colour(m, i)) for i, m in enumerate(shown))
    result = task.result
    if result:
        charts["scores"] = result_charts.scores(result)
        charts["differences"] = result_charts.differences(result)
    return TaskView(
        id=name,
        title=title,
        what=what,
        skipped=None,
        finding=found,
        charts={part: spec for part, spec in charts.items() if spec},
        table=_table(result) if result else None,
        covered=_table(result.covered) if result and result.covered else None,
        by_prefix=_by_prefix(task.prefixes) if task.prefixes else None,
        metrics=tuple(result_charts.metric_choices(result)) if result else (),
        lines=lines,
    )


def _table(result: Result) -> ResultTable:
    """A row for each method, a column for each metric."""
    has_gain = any(result.main in m.share_of_gain for m in result.methods)
    columns = [metric_name(m) for m in result.metrics]
    rows = []
    for method in result.methods:
        cells = [_cell(method, metric) for metric in result.metrics]
        if has_gain:
            share = method.share_of_gain.get(result.main)
            cells.append(Cell(percent(share.value), _range(share, percent)) if share else Cell("—"))
        rows.append(Row(method.label, _coverage(method), tuple(cells)))
    if has_gain:
        columns.append("Share of possible gain")
    return ResultTable(tuple(columns), tuple(rows), has_gain, result.n_train, result.n_test)


def _by_prefix(prefixes: Sequence[tuple[int, Result]]) -> ResultTable:
    """A row for each method, a column for each number of events: AUC."""
    names = list(dict.fromkeys(m.name for _, result in prefixes for m in result.methods))
    rows = []
    for name in names:
        methods = [result.method(name) for _, result in prefixes]
        label = next(m.label for m in methods if m)
        rows.append(Row(label, "", tuple(_cell(m, "auc") if m else Cell("—") for m in methods)))
    columns = tuple(f"{k:,} event{'' if k == 1 else 's'}" for k, _ in prefixes)
    return ResultTable(columns, tuple(rows), False, prefixes[0][1].n_train, prefixes[0][1].n_test)


def _coverage(method: Method) -> str:
    if method.coverage is None or method.coverage >= _ALL_COVERED:
        return ""
    return f"knows {percent(method.coverage)} of the rows"


def _cell(method: Method, metric: str) -> Cell:
    value = method.scores.get(metric)
    if value is None:
        return Cell("—")
    verdict = "" if method.name == BASELINE else method.verdict(metric) or ""
    return Cell(score(value.value), _range(value, score), verdict)


def _range(value: Interval, form: Callable[[float | None], str]) -> str:
    return f"{form(value.low)} to {form(value.high)}" if value.low is not None else ""
