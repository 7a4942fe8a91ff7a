"""How far apart two windows of a site are when nothing has changed: asked of the training window itself.

Textbook levels (PSI above 0.2) know nothing of the number of sessions, and tests for independent rows
believe in more evidence than there is: a visitor's sessions resemble each other, and weeks have events of
their own. So two things are measured.

* **Chance**: visitors' stretches of the training window, each as long as the current window, are drawn with
  replacement until there are as many sessions as now, again and again. That keeps together what belongs
  together (a block bootstrap: H. Künsch, The jackknife and the bootstrap for general stationary
  observations, Annals of Statistics 17, 1989).
* **Weeks that differ**: every stretch of the training window as long as the current one is compared with the
  rest of it. By how much they are further apart than chance says, on average, is the over-dispersion.

A measure is distributed about as a multiple of χ² / ν. Multiple and ν follow from the mean and the variance
of the draws, and the over-dispersion multiplies them (J. Rao and A. Scott, The analysis of categorical data
from complex sample surveys, JASA 76, 1981). Because it is estimated from few stretches, the quantile is one
of F, not of χ².
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from clickintent.monitor.features import Bools, Feature, Ints
from clickintent.monitor.hours import Floats, Hours, like_with_like
from clickintent.monitor.measures import distance

_BLOCKS, _MOST_BLOCKS = 20_000, 60_000  # drawn at a time, and in all
_DAY = 24


@dataclass(frozen=True)
class Population:
    """n sessions before the split and after it, with what is compared of them."""

    start: Ints  # (n,) µs
    visitor: Ints  # (n,)
    is_before: Bools
    is_after: Bools
    features: tuple[Feature, ...]


@dataclass(frozen=True)
class Contrast:
    """Sums of features (k,) on both sides of a comparison, and sessions on both sides."""

    before: Floats
    now: Floats


@dataclass(frozen=True)
class Side:
    """Hours of one side of the split, sessions in each of them, and of every feature the sums by hour."""

    hours: Hours
    sessions: Floats  # (h,)
    sums: tuple[Floats, ...]  # (h, k) each

    @classmethod
    def of(cls, population: Population, hours: Hours, rows: Bools) -> Side:
        index = np.flatnonzero(rows)
        slot = hours.slot(population.start[index])
        add = sparse.csr_matrix((np.ones(len(index)), (slot, index)), shape=(len(hours), len(rows)))
        sums = tuple(_dense(add @ feature.x) for feature in population.features)
        return cls(hours, np.bincount(slot, minlength=len(hours)).astype(float), sums)


def contrasts(before: Side, now: Side, windows: Sequence[tuple[int, int]]) -> tuple[list[Contrast], Floats]:
    """Windows of ``now`` against ``before``, or against the rest of it if both are the same.

    Args:
        windows: w pairs of hours, the second one exclusive.

    Returns:
        For each feature the sums, (w, k) on both sides; and (w, 2) how many sessions they are worth.
    """
    weights_b, weights_n = (
        np.zeros((len(windows), len(before.hours))),
        np.zeros((len(windows), len(now.hours))),
    )
    for i, (begin, end) in enumerate(windows):
        rest = before.hours.without(begin, end) if before is now else before.hours
        weights_b[i], weights_n[i] = like_with_like(rest, now.hours.only(begin, end))
    weights_b *= _even(weights_b, before.sessions)[:, None]
    sizes = np.stack([weights_b @ before.sessions, weights_n @ now.sessions], axis=1)
    pairs = zip(before.sums, now.sums, strict=True)
    return [Contrast(weights_b @ b, weights_n @ n) for b, n in pairs], sizes


def stretches(n_hours: int, window: tuple[int, int]) -> list[tuple[int, int]]:
    """Parts of the training window as long as the current one, or a third of it; one ends on each day."""
    length = max(1, min(window[1] - window[0], n_hours // 3))
    return [(end - length, end) for end in range(n_hours, length - 1, -_DAY)]


def levels(
    population: Population,
    before: Side,
    now: Side,
    window: tuple[int, int],
    *,
    false_alarms: float,
    draws: int,
    seed: int,
) -> Floats:
    """The level of each feature's ``distance`` that chance passes with a probability of ``false_alarms``."""
    chance = _chance(population, before, now, window, draws=draws, seed=seed)
    sizes = contrasts(before, now, [window])[1][0]
    parts = stretches(len(before.hours), window)
    others, their_sizes = contrasts(before, before, parts)
    usable = (their_sizes > 1).all(axis=1)
    expected = (1 / np.maximum(their_sizes, 1)).sum(axis=1) / (1 / np.maximum(sizes, 1)).sum()
    independent = max(1.0, len(before.hours) / (parts[0][1] - parts[0][0]))
    found = []
    for feature, drawn, seen in zip(population.features, chance, others, strict=True):
        apart = distance(feature.measure, seen.before[usable], seen.now[usable]) / expected[usable]
        found.append(level(drawn, apart, independent, false_alarms))
    return np.array(found)


def level(chance: Floats, stretches: Floats, independent: float, false_alarms: float) -> float:
    """What the next stretch passes with a probability of ``false_alarms``; 0 if nothing ever differs.

    Args:
        chance: (d,) values by chance alone.
        stretches: (s,) values of stretches that did occur, as if they were as large; they may overlap.
        independent: how many of them do not.
    """
    mean, variance = float(chance.mean()), float(chance.var())
    if mean <= 0 or variance <= 0:
        return 0.0
    from scipy.stats import f as f_distribution  # here, because it is slow to import

    freedom = max(1.0, 2 * mean**2 / variance)  # as of every sum of squares
    dispersion = max(1.0, float(stretches.mean()) / mean) if len(stretches) else 1.0
    return mean * dispersion * float(f_distribution.isf(false_alarms, freedom, freedom * independent))


def _chance(
    population: Population, before: Side, now: Side, window: tuple[int, int], *, draws: int, seed: int
) -> list[Floats]:
    """``distance`` of two samples of the training window, (draws,) for each feature."""
    rng = np.random.default_rng(seed)
    weights, weights_now = like_with_like(before.hours, now.hours.only(*window))
    weights = weights * _even(weights[None], before.sessions)[0]
    rows = np.flatnonzero(population.is_before)
    slot = before.hours.slot(population.start[rows])
    rows, slot = rows[weights[slot] > 0], slot[weights[slot] > 0]
    stretch = (len(before.hours) - 1 - slot) // (window[1] - window[0])
    owner = population.visitor[rows] * (int(stretch.max(initial=0)) + 1) + stretch
    _, block = np.unique(owner, return_inverse=True)
    n_blocks = int(block.max(initial=-1)) + 1
    add = sparse.csr_matrix((weights[slot], (block, rows)), shape=(n_blocks, len(population.start)))
    rate = float(weights_now @ now.sessions) / max(float(weights[slot].sum()), 1.0)
    share = min(1.0, _MOST_BLOCKS / max(n_blocks, 1))
    if share < 1:
        add = add[np.sort(rng.permutation(n_blocks)[:_MOST_BLOCKS])]
    blocks = [add @ feature.x for feature in population.features]
    sums = [[np.zeros((draws, feature.x.shape[1])) for feature in population.features] for _ in range(2)]
    for first in range(0, add.shape[0], _BLOCKS):
        size = min(_BLOCKS, add.shape[0] - first)
        for side, per_block in zip(sums, (1.0, rate), strict=True):
            times = rng.poisson(per_block, (draws, size)).astype(np.float32)
            for total, some in zip(side, blocks, strict=True):
                total += times @ some[first : first + size]
    # What chance does shrinks with the number of blocks, so fewer of them tell as much.
    pairs = zip(population.features, *sums, strict=True)
    return [share * distance(feature.measure, b, n) for feature, b, n in pairs]


def _even(weights: Floats, sessions: Floats) -> Floats:
    """(w,) factors that make weighted sessions worth as many as independent ones (L. Kish)."""
    total, squares = weights @ sessions, weights**2 @ sessions
    return np.asarray(np.where(squares > 0, total / np.where(squares > 0, squares, 1.0), 0.0))


def _dense(sums: Any) -> Floats:
    return np.asarray(sums.toarray() if sparse.issparse(sums) else sums, dtype=np.float64)
