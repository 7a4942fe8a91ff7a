"""The two downstream results as the report shows them, from ``metrics.json``, whatever it lacks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from clickintent.report.words import LOWER_IS_BETTER, METHOD_ORDER, METRICS, method_name

BASELINE = "page_counts"
Verdict = Literal["better", "worse", "unclear"]


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; None for what is not known."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def read(cls, raw: Any) -> Interval | None:
        """From ``{"value", "low", "high"}`` or a plain number; None if there is no value."""
        if not isinstance(raw, Mapping):
            raw = {"value": raw}
        value = _finite(raw.get("value"))
        low, high = _finite(raw.get("low")), _finite(raw.get("high"))
        if low is None or high is None:
            low = high = None
        return None if value is None else cls(value, low, high)


@dataclass(frozen=True)
class Method:
    name: str
    label: str
    scores: dict[str, Interval]
    difference: dict[str, Interval]  # to page counts, on the same test rows
    share_of_gain: dict[str, Interval]
    coverage: float | None

    def verdict(self, metric: str) -> Verdict | None:
        """Against page counts; None for page counts itself or where no interval is known."""
        found = self.difference.get(metric)
        return verdict(found, metric) if found else None


@dataclass(frozen=True)
class Result:
    """One task's methods, in the order in which they are shown."""

    main: str
    metrics: tuple[str, ...]  # the main one first
    methods: tuple[Method, ...]
    n_train: int | None
    n_test: int | None
    covered: Result | None  # the same on only the rows that every method covers

    def method(self, name: str) -> Method | None:
        return next((m for m in self.methods if m.name == name), None)


@dataclass(frozen=True)
class Task:
    """What ``metrics.json`` says of conversion or of tiles."""

    skipped: str | None  # why there is no result
    result: Result | None
    kind: str | None = None
    outcome: str | None = None
    prefixes: tuple[tuple[int, Result], ...] = ()

    @property
    def headline(self) -> Result | None:
        """The result to put into one sentence: of the longest prefix, if prefixes were asked for."""
        return self.prefixes[-1][1] if self.prefixes else self.result


def verdict(difference: Interval, metric: str) -> Verdict:
    """Better or worse only if the interval of the difference leaves out 0."""
    if difference.low is None or difference.high is None or difference.low <= 0 <= difference.high:
        return "unclear"
    return "better" if (difference.value < 0) == (metric in LOWER_IS_BETTER) else "worse"


def read_task(section: Any, *, default_main: str, teacher: str) -> Task:
    """Read the section ``conversion`` or ``tiles``.

    Args:
        default_main: the metric that counts if the section does not name its ``main_metric``.
        teacher: who labelled, for the names of methods.
    """
    if not isinstance(section, Mapping) or not section:
        return Task("not evaluated in this run", None)
    found = []
    for k, part in _mapping(section.get("prefixes")).items():
        result = _read_result(part, "auc", teacher)
        if result and str(k).isdigit():
            found.append((int(k), result))
    prefixes = tuple(sorted(found, key=lambda pair: pair[0]))
    result = _read_result(section, str(section.get("main_metric") or default_main), teacher)
    skipped = None
    if result is None and not prefixes:
        skipped = str(section.get("skipped") or "nothing could be measured")
    return Task(skipped, result, _text(section.get("kind")), _text(section.get("outcome")), prefixes)


def _read_result(section: Any, main: str, teacher: str) -> Result | None:
    section = _mapping(section)
    raw = {str(name): _mapping(values) for name, values in _mapping(section.get("methods")).items()}
    if "oracle" not in raw and _mapping(section.get("oracle")) and "skipped" not in section["oracle"]:
        raw["oracle"] = _mapping(section["oracle"])
    methods = []
    for name in sorted(raw, key=_rank):
        values = raw[name]
        scores = _intervals(values)
        if not scores:
            continue
        methods.append(
            Method(
                name,
                method_name(name, teacher=teacher),
                scores,
                _intervals(values.get("difference")),
                _intervals(values.get("share_of_gain")),
                _finite(values.get("coverage")),
            )
        )
    known = {metric for m in methods for metric in m.scores}
    if not known:
        return None
    main = main if main in known else next(metric for metric in METRICS if metric in known)
    return Result(
        main,
        (main, *(metric for metric in METRICS if metric in known and metric != main)),
        tuple(methods),
        _whole(section.get("n_train") or raw[methods[0].name].get("n_train")),
        _whole(section.get("n_test") or raw[methods[0].name].get("n_test")),
        _read_result(section.get("covered"), main, teacher),
    )


def _intervals(raw: Any) -> dict[str, Interval]:
    """By metric, for the metrics that the report knows."""
    raw = _mapping(raw)
    found = {metric: Interval.read(raw[metric]) for metric in METRICS if metric in raw}
    return {metric: interval for metric, interval in found.items() if interval}


def _rank(name: str) -> tuple[int, str]:
    order = METHOD_ORDER.index(name) if name in METHOD_ORDER else len(METHOD_ORDER) - 1.5
    return int(order * 2), name


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
