"""Has what people do moved away from what the models were trained on?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clickintent.config import DriftConfig
from clickintent.monitor.features import Bools, Feature, Ints, channels, inputs, labels
from clickintent.monitor.hours import HOUR_US, Floats, Hours
from clickintent.monitor.levels import Contrast, Population, Side, contrasts, levels, stretches
from clickintent.monitor.measures import Fourier, Measure, contributions, distance, jensen_shannon, mmd2
from clickintent.monitor.pages import Pages
from clickintent.monitor.result import Compared, Detail, Drift, Week, Window

_WEEK, _FREQUENCIES, _DETAILS = 168, 256, 6
#: Columns of the tables that are compared.
COLUMNS = ("visitor_id", "start", "end", "n_events", "referrer", "device", "country", "events")
TRAFFIC = ("channel", "visitor_id", "start", "end")
#: Twice the share of events that the pages of one stretch alone had in the training window is no alarm.
_MARGIN = 2.0


@dataclass(frozen=True)
class Intents:
    """What the student says of n sessions: probabilities (n, k) of k named intents.

    Below ``cutoff`` a session has no label; None: every session has one. ``learned`` (n,) are those that the
    student learned from; it is surer of them than of any others, so its confidence there is no measure.
    """

    probability: npt.NDArray[np.float32]
    names: tuple[str, ...]
    cutoff: float | None = None
    learned: Bools | None = None


def find_drift(
    sessions: pa.Table,
    at: int,
    config: DriftConfig,
    *,
    embeddings: npt.NDArray[np.float32] | None = None,
    intents: Intents | None = None,
    traffic: pa.Table | None = None,
    seed: int = 7,
) -> Drift:
    """Compare the sessions of the last days with those that ended before the split.

    Args:
        sessions: n sessions, those that models see: the columns in ``COLUMNS``.
        at: the split, in µs.
        embeddings: (n, dim)
        traffic: sessions of all channels: the columns in ``TRAFFIC``.
    """
    start = sessions["start"].to_numpy()
    is_before, is_after = sessions["end"].to_numpy() < at, start >= at
    times = _Times.of(start, is_before, at, config.days)
    is_now = is_after & (start >= times.after.us(times.window[0]))
    reference = Window(int(start[is_before].min(initial=at)), at, int(is_before.sum()))
    current = Window(max(at, times.after.us(times.window[0])), int(start.max(initial=at)), int(is_now.sum()))
    if _comparable(_population(sessions, at, ()), times) < config.min_sessions:
        return Drift(reference, current, "too_few")

    features = inputs(sessions, is_before)
    if intents is not None:
        features += labels(intents.probability, intents.names, is_before, intents.cutoff, intents.learned)
    known = np.flatnonzero(is_before)
    features = [feature for feature in features if feature.x[known].sum()]
    populations = [_population(sessions, at, features)]
    if traffic is not None:
        populations += _traffic(traffic, at, times)
    if embeddings is not None:
        populations.append(_embedded(populations[0], is_now, embeddings, config.embeddings, seed))
    n_measures = 1 + sum(len(population.features) for population in populations)
    rate = config.false_alarms / n_measures

    measures: list[Compared] = []
    weeks = _Weeks(times, is_before, is_after, start, config.min_sessions)
    for population in populations:
        before = Side.of(population, times.before, population.is_before)
        after = Side.of(population, times.after, population.is_after)
        limits = levels(
            population, before, after, times.window, false_alarms=rate, draws=config.draws, seed=seed
        )
        now = contrasts(before, after, [times.window])[0]
        for feature, contrast, limit in zip(population.features, now, limits, strict=True):
            measures.append(_compared(feature, contrast, limit, config))
        weeks.compare(population, before, after)
    pages = Pages.of(sessions, is_before)
    found, values = _new_pages(pages, times, is_before, is_after, weeks, config.floor_new_pages)
    weeks.add(found.name, values)
    measures.append(found)
    return Drift(
        reference,
        current,
        "drift" if any(measure.is_alarm for measure in measures) else "none",
        tuple(measures),
        weeks.found(),
        tuple(pages.new(is_after, is_now)),
        found.detail[0].now,
    )


@dataclass(frozen=True)
class _Times:
    """The split, and the hours on both sides of it."""

    before: Hours
    after: Hours
    window: tuple[int, int]  # of ``after``: the current one

    @classmethod
    def of(cls, start: Ints, is_before: Bools, at: int, days: float) -> _Times:
        # Exports begin and end with the hour, or nearly; where they do not, one hour is short of sessions.
        first, last = int(start[is_before].min(initial=at - 1)), int(start.max(initial=at))
        before = Hours.of(first - first % HOUR_US, at)
        after = Hours.of(at, last - last % HOUR_US + HOUR_US)
        hours = round(days * 24) or len(after)
        return cls(before, after, (max(0, len(after) - hours), len(after)))

    @property
    def weeks_before(self) -> list[tuple[int, int]]:
        n = len(self.before)
        return [(max(0, end - _WEEK), end) for end in range(n, 0, -_WEEK)][::-1]

    @property
    def weeks_after(self) -> list[tuple[int, int]]:
        n = len(self.after)
        return [(begin, min(begin + _WEEK, n)) for begin in range(0, n, _WEEK)]


class _Weeks:
    """Collects the values of every week that has enough sessions."""

    def __init__(
        self, times: _Times, is_before: Bools, is_after: Bools, start: Ints, min_sessions: int
    ) -> None:
        self.before: list[tuple[int, int]] = []
        self.after: list[tuple[int, int]] = []
        self._found: list[Week] = []
        for hours, rows, windows, kept in (
            (times.before, is_before, times.weeks_before, self.before),
            (times.after, is_after, times.weeks_after, self.after),
        ):
            slot = hours.slot(start[rows])
            for begin, end in windows:
                sessions = int(((slot >= begin) & (slot < end)).sum())
                if sessions >= min_sessions:
                    kept.append((begin, end))
                    self._found.append(Week(Window(hours.us(begin), hours.us(end), sessions), {}))

    def add(self, name: str, values: Floats) -> None:
        for value, week in zip(values, self._found, strict=True):
            if np.isfinite(value):
                week.values[name] = float(value)

    def compare(self, population: Population, before: Side, after: Side) -> None:
        earlier, sizes = contrasts(before, before, self.before)
        later, more_sizes = contrasts(before, after, self.after)
        is_empty = np.concatenate([sizes, more_sizes]).min(axis=1) < 1
        for feature, *both in zip(population.features, earlier, later, strict=True):
            values = np.concatenate([_value(feature.measure, contrast) for contrast in both])
            self.add(feature.name, np.where(is_empty, np.nan, values))

    def found(self) -> tuple[Week, ...]:
        return tuple(self._found)


def _population(sessions: pa.Table, at: int, features: Sequence[Feature]) -> Population:
    start = sessions["start"].to_numpy()
    visitor = sessions["visitor_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    is_before = sessions["end"].to_numpy() < at
    return Population(start, visitor.astype(np.int64), is_before, start >= at, tuple(features))


def _comparable(population: Population, times: _Times) -> float:
    """Sessions of the smaller side at hours of the week that both sides have."""
    before = Side.of(population, times.before, population.is_before)
    after = Side.of(population, times.after, population.is_after)
    return float(contrasts(before, after, [times.window])[1].min())


def _traffic(traffic: pa.Table, at: int, times: _Times) -> list[Population]:
    """Nothing, if there is but one channel."""
    start = traffic["start"].to_numpy()
    inside = (start >= times.before.us(0)) & (start < times.after.us(len(times.after)))
    traffic = traffic.filter(pa.array(inside))
    feature = channels(traffic, traffic["end"].to_numpy() < at)
    return [_population(traffic, at, [feature])] if len(traffic["channel"].unique()) > 1 else []


def _embedded(
    population: Population, is_now: Bools, embeddings: npt.NDArray[np.float32], most: int, seed: int
) -> Population:
    """At most so many sessions before the split, in the current window, and between, as Fourier features."""
    rng = np.random.default_rng(seed)
    parts = (population.is_before, is_now, population.is_after & ~is_now)
    chosen = [np.sort(rng.permutation(np.flatnonzero(part))[:most]) for part in parts]
    rows = np.concatenate(chosen)
    fourier = Fourier.fit(embeddings[chosen[0]], _FREQUENCIES, seed=seed)
    feature = Feature("embedding", "embedding", "mmd", (), fourier(embeddings[rows]))
    start, visitor = population.start[rows], population.visitor[rows]
    return Population(start, visitor, population.is_before[rows], population.is_after[rows], (feature,))


def _value(measure: Measure, contrast: Contrast) -> Floats:
    if measure == "mmd":
        return np.maximum(mmd2(contrast.before, contrast.now), 0.0)
    return distance(measure, contrast.before, contrast.now)


def _compared(feature: Feature, contrast: Contrast, limit: float, config: DriftConfig) -> Compared:
    """``limit`` is one of ``distance``, whose MMD is above the unbiased one by what chance adds."""
    value = float(_value(feature.measure, contrast)[0])
    if feature.measure == "mmd":
        sums = contrast.before, contrast.now
        limit -= float((mmd2(*sums, unbiased=False) - mmd2(*sums))[0])
    floor = {"psi": config.floor_psi, "js": config.floor_js, "mmd": config.floor_mmd}[feature.measure]
    alarm = max(float(limit), floor)
    return Compared(feature.group, feature.name, feature.measure, value, alarm, _detail(feature, contrast))


def _detail(feature: Feature, contrast: Contrast) -> tuple[Detail, ...]:
    if not feature.values:
        return ()
    before, now = contrast.before[0], contrast.now[0]
    parts = contributions(feature.measure, before, now)
    p, q = before / max(before.sum(), 1e-9), now / max(now.sum(), 1e-9)
    order = [i for i in np.argsort(-parts, kind="stable")[:_DETAILS] if before[i] or now[i]]
    return tuple(Detail(feature.values[i], float(p[i]), float(q[i])) for i in order)


def _new_pages(
    pages: Pages, times: _Times, is_before: Bools, is_after: Bools, weeks: _Weeks, floor: float
) -> tuple[Compared, Floats]:
    """The measure of new pages, and its values by week."""

    def value(counts: Floats) -> Floats:
        return jensen_shannon(counts.sum(axis=1, keepdims=True) * [1.0, 0.0], counts)

    def share(counts: Floats) -> Floats:
        return np.asarray(counts[:, 1] / np.maximum(counts.sum(axis=1), 1))

    alone = pages.alone(times.before, is_before, stretches(len(times.before), times.window))
    usual = share(alone).max(initial=0.0)
    limit = max(floor, _MARGIN * float(usual))
    now = pages.counts(times.after, is_after, [times.window])
    found = Compared(
        "input",
        "new_pages",
        "js",
        float(value(now)[0]),
        float(value(np.array([[1 - limit, limit]]))[0]),
        (Detail("not seen in training", 0.0, float(share(now)[0])),),
    )
    by_week = [
        pages.alone(times.before, is_before, weeks.before),
        pages.counts(times.after, is_after, weeks.after),
    ]
    return found, np.concatenate([value(counts) for counts in by_week])
