"""Metrics with bootstrap intervals.

A metric is an ``Estimate``: its value on the test rows and on every bootstrap resample of them. All
methods are measured on the same resamples, so differences between estimates are paired.
Rows of one account resemble each other, so whole clusters of rows are drawn, not rows (cluster
bootstrap: Field & Welsh 2007); intervals are the 2.5 and 97.5 percentiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

_BLOCK = 500_000  # numbers at a time: what stays in a core's cache is several times as fast
_FLOOR = 1e-7  # probabilities are clipped here, so that one miss cannot cost infinitely much

Interval = dict[str, float | None]
_Metric = Callable[[np.ndarray], np.ndarray]  # sums (m, k) → values (m,)


@dataclass(frozen=True)
class Estimate:
    """A metric's value, and its value on each of the resamples (NaN where it is undefined)."""

    value: float
    replicates: np.ndarray  # (replicates,)

    def interval(self) -> Interval:
        """``{"value", "low", "high"}``, 95 %; None for what is undefined."""
        kept = self.replicates[np.isfinite(self.replicates)]
        if not np.isfinite(self.value) or len(kept) < max(len(self.replicates) / 2, 1):
            return {"value": _plain(self.value), "low": None, "high": None}
        low, high = np.percentile(kept, [2.5, 97.5])
        return {"value": float(self.value), "low": float(low), "high": float(high)}

    def minus(self, other: Estimate) -> Estimate:
        """The paired difference."""
        return Estimate(self.value - other.value, self.replicates - other.replicates)

    def percent_over(self, other: Estimate) -> Estimate:
        """The paired relative change against ``other``, in per cent."""
        change = self.minus(other)
        return Estimate(
            float(100 * _ratio(change.value, abs(other.value))),
            100 * _ratio(change.replicates, np.abs(other.replicates)),
        )

    def share_of_gain(self, floor: Estimate, ceiling: Estimate) -> Estimate:
        """(this − floor) / (ceiling − floor). Undefined unless ceiling and floor differ for certain,
        that is, unless the interval of their difference leaves out zero.
        """
        gain, possible = self.minus(floor), ceiling.minus(floor)
        span = possible.interval()
        if span["low"] is None or span["high"] is None or span["low"] <= 0 <= span["high"]:
            return Estimate(float("nan"), np.full(len(self.replicates), np.nan))
        return Estimate(
            float(_ratio(gain.value, possible.value)), _ratio(gain.replicates, possible.replicates)
        )


@dataclass(frozen=True)
class Resamples:
    """Bootstrap resamples of n rows, drawn by cluster."""

    counts: np.ndarray  # (replicates, clusters) uint16: how often each cluster was drawn
    cluster: np.ndarray  # (n,) int: the cluster of each row

    @classmethod
    def draw(cls, n: int, replicates: int, seed: int, clusters: np.ndarray | None = None) -> Resamples:
        """``clusters`` (n,): rows with the same value are drawn together; each on its own if not given."""
        code = np.arange(n) if clusters is None else np.unique(clusters, return_inverse=True)[1].ravel()
        k = int(code.max(initial=-1)) + 1
        rng = np.random.default_rng(seed)
        counts = np.zeros((replicates, k), np.uint16)
        for i in range(replicates):
            counts[i] = np.bincount(rng.integers(0, k, k), minlength=k)
        return cls(counts, code)

    def sums(self, statistics: np.ndarray) -> np.ndarray:
        """Column sums (replicates, k) of ``statistics`` (n, k) over each resample."""
        n, k = len(self.cluster), self.counts.shape[1]
        grouped = sparse.csr_matrix((np.ones(n), (self.cluster, np.arange(n))), shape=(k, n)) @ statistics
        return np.vstack([block.astype(np.float64) @ grouped for block in self._blocks(k)])

    def rows(self) -> Iterator[np.ndarray]:
        """How often each row is in the resample, (some replicates, n) uint16, block after block."""
        for block in self._blocks(len(self.cluster)):
            yield block[:, self.cluster]

    def _blocks(self, width: int) -> Iterator[np.ndarray]:
        step = max(1, _BLOCK // max(width, 1))
        for i in range(0, len(self.counts), step):
            yield self.counts[i : i + step]


def accuracy(
    truth: np.ndarray, guess: np.ndarray, resamples: Resamples, weight: np.ndarray | None = None
) -> Estimate:
    """(Weighted) share of right guesses. With one label per row this is micro F1 over all classes."""
    return _mean((truth == guess).astype(np.float64), resamples, weight)


def micro_f1(truth: np.ndarray, guess: np.ndarray, leave_out: int, resamples: Resamples) -> Estimate:
    """Micro-averaged F1 of all classes but ``leave_out``; 0 where nothing is true or guessed."""
    hit = (truth == guess) & (truth != leave_out)
    both = (truth != leave_out).astype(np.float64) + (guess != leave_out)
    return _estimate(
        np.column_stack([2 * hit, both]), resamples, lambda s: s[:, 0] / np.maximum(s[:, 1], 1e-12)
    )


def macro_f1(truth: np.ndarray, guess: np.ndarray, classes: int, resamples: Resamples) -> Estimate:
    """Mean F1 of the classes that are true or guessed at least once."""
    hit = _one_hot(np.where(truth == guess, truth, -1), classes)
    both = _one_hot(truth, classes) + _one_hot(guess, classes)
    return _estimate(
        np.hstack([hit, both]), resamples, lambda s: _mean_ratio(2 * s[:, :classes], s[:, classes:])
    )


def macro_recall(truth: np.ndarray, guess: np.ndarray, classes: int, resamples: Resamples) -> Estimate:
    """Mean recall of the classes that are true at least once; of one guess per row: Recall@1."""
    hit = _one_hot(np.where(truth == guess, truth, -1), classes)
    return _estimate(
        np.hstack([hit, _one_hot(truth, classes)]),
        resamples,
        lambda s: _mean_ratio(s[:, :classes], s[:, classes:]),
    )


def log_loss(truth: np.ndarray, probabilities: np.ndarray, resamples: Resamples) -> Estimate:
    """Mean of −log p(true class), natural logarithm; ``probabilities`` (n, classes)."""
    p = probabilities[np.arange(len(truth)), truth]
    return _mean(-np.log(np.clip(p, _FLOOR, 1)), resamples)


def auc(positive: np.ndarray, scores: np.ndarray, resamples: Resamples) -> Estimate:
    """Area under the ROC curve; ties count half. Undefined where a resample has one class only."""
    n = len(scores)
    if 2 * np.count_nonzero(positive) > n:  # the same area from the other side, with less to add up
        positive, scores = ~positive, -scores
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    chosen = np.flatnonzero(positive[order])
    first = np.searchsorted(ranked, ranked[chosen], side="left")  # of the positive's tie group
    after = np.searchsorted(ranked, ranked[chosen], side="right")

    def area(counts: np.ndarray) -> np.ndarray:
        counts = counts[:, order]
        below = np.zeros((len(counts), n + 1), np.int32)
        np.cumsum(counts, axis=1, out=below[:, 1:])
        drawn = counts[:, chosen].astype(np.float64)
        # Half of the ties are beaten. Among themselves, the positives beat half of their pairs exactly.
        beaten = np.einsum("ij,ij->i", drawn, below[:, first] + below[:, after]) / 2
        p = drawn.sum(axis=1)
        return _ratio(beaten - p**2 / 2, p * (below[:, -1] - p))

    value = area(np.ones((1, n), np.uint16))[0]
    return Estimate(float(value), np.concatenate([area(counts) for counts in resamples.rows()]))


def macro_auc(truth: np.ndarray, probabilities: np.ndarray, resamples: Resamples) -> Estimate:
    """Mean one-against-rest AUC of the classes that are true at least once (as scikit-learn's ``ovr``)."""
    each = [
        auc(truth == c, probabilities[:, c], resamples)
        for c in range(probabilities.shape[1])
        if 0 < (truth == c).sum() < len(truth)
    ]
    if not each:
        return Estimate(float("nan"), np.full(len(resamples.counts), np.nan))
    stacked = np.stack([e.replicates for e in each])
    defined = np.isfinite(stacked)
    mean = _ratio(np.where(defined, stacked, 0).sum(axis=0), defined.sum(axis=0))
    return Estimate(float(np.mean([e.value for e in each])), mean)


def _mean(values: np.ndarray, resamples: Resamples, weight: np.ndarray | None = None) -> Estimate:
    weight = np.ones(len(values)) if weight is None else weight
    return _estimate(
        np.column_stack([values * weight, weight]), resamples, lambda s: _ratio(s[:, 0], s[:, 1])
    )


def _estimate(statistics: np.ndarray, resamples: Resamples, metric: _Metric) -> Estimate:
    value = metric(statistics.sum(axis=0, keepdims=True))[0]
    return Estimate(float(value), metric(resamples.sums(statistics)))


def _one_hot(index: np.ndarray, classes: int) -> np.ndarray:
    found: np.ndarray = index[:, None] == np.arange(classes)
    return found.astype(np.float64)


def _mean_ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Mean over columns of part / whole, columns with an empty whole left out."""
    defined = whole > 0
    ratio = np.divide(part, whole, out=np.zeros_like(part), where=defined)
    return _ratio(ratio.sum(axis=1), defined.sum(axis=1))


def _ratio(part: np.ndarray | float, whole: np.ndarray | float) -> np.ndarray:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    ratio: np.ndarray = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)
    return ratio


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
