"""How far two annotators agree on which intents sessions show, beyond chance.

Cohen's κ (1960) of each intent, present or absent, by session; κ over all intents pooled; and
Krippendorff's α (2011) over whole sets of intents with the MASI distance (Passonneau 2006), which counts a
set that lacks one intent as nearer than one that shares none. Intervals are percentiles of a bootstrap over
sessions, drawn within the strata of the sample. With the sample's weights, all of them estimate what holds
for all sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from clickintent.errors import DataError, EmptyInputError


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval; all None where the number is not defined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class OfIntent:
    """Agreement on one intent. κ is undefined if neither, or both always, saw it."""

    kappa: Interval
    both: int  # sessions that both gave it
    first: int
    second: int


@dataclass(frozen=True)
class Agreement:
    """Agreement of two annotators on ``sessions`` sessions."""

    sessions: int
    pooled: Interval  # κ over all (session, intent)
    mean: float | None  # of the intents' κ, where it is defined
    alpha: Interval  # Krippendorff's, of whole sets
    intents: dict[str, OfIntent]

    def as_dict(self) -> dict[str, Any]:
        """For ``metrics.json``."""
        return asdict(self)


def compare(
    first: np.ndarray,
    second: np.ndarray,
    intent_ids: Sequence[str],
    *,
    weights: np.ndarray | None = None,
    strata: np.ndarray | None = None,
    bootstrap: int = 500,
    seed: int = 7,
) -> Agreement:
    """Agreement of two annotators.

    Args:
        first, second: (n, k) bool, which intents each saw in each session.
        intent_ids: k ids.
        weights: (n,) how many sessions each stands for; one each by default.
        strata: (n,) what the sample was drawn within, for the bootstrap.

    Raises:
        EmptyInputError: without a session that both annotated.
        DataError: if the shapes do not fit together.
    """
    n = len(first)
    if n == 0:
        raise EmptyInputError("no session was annotated by both; agreement needs some.")
    if first.shape != second.shape or first.shape[1] != len(intent_ids):
        raise DataError(
            f"annotations of shapes {first.shape} and {second.shape} of {len(intent_ids)} intents."
        )
    weights = np.ones(n) if weights is None else np.asarray(weights, float)
    strata = np.zeros(n, np.int64) if strata is None else strata
    drawn = _resamples(strata, bootstrap, seed) * weights  # (b, n)
    every = np.concatenate([weights[None], drawn])
    by_intent = kappa(first, second, every)
    pooled = _pooled(first, second, every)
    alpha = krippendorff(first, second, every)
    found = by_intent[0][np.isfinite(by_intent[0])]
    return Agreement(
        sessions=n,
        pooled=_interval(pooled),
        mean=float(found.mean()) if len(found) else None,
        alpha=_interval(alpha),
        intents={
            id_: OfIntent(
                kappa=_interval(by_intent[:, j]),
                both=int((first[:, j] & second[:, j]).sum()),
                first=int(first[:, j].sum()),
                second=int(second[:, j].sum()),
            )
            for j, id_ in enumerate(intent_ids)
        },
    )


def kappa(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Cohen's κ of each column: (b, k), NaN where undefined.

    Args:
        first, second: (n, k) bool.
        weights: (b, n), each row a weighting of the sessions.
    """
    share = weights / weights.sum(axis=1, keepdims=True)
    return _kappa(share @ (first == second), share @ first, share @ second)


def _pooled(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    share = weights / weights.sum(axis=1, keepdims=True)
    return _kappa(
        share @ (first == second).mean(axis=1), share @ first.mean(axis=1), share @ second.mean(axis=1)
    )


def _kappa(agree: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    chance = first * second + (1 - first) * (1 - second)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = np.where(1 - chance > 1e-12, (agree - chance) / (1 - chance), np.nan)
    return found


def krippendorff(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Krippendorff's α of two annotators' sets under the MASI distance: (b,), NaN where undefined.

    Weighted: the observed distance is the weighted mean over sessions, the expected one that of two values
    drawn from the weighted distribution of all values.
    """
    n = len(first)
    sets, code = np.unique(np.concatenate([first, second]), axis=0, return_inverse=True)
    code = code.ravel()
    distance = masi(sets)
    share = weights / weights.sum(axis=1, keepdims=True)
    observed = share @ distance[code[:n], code[n:]]
    one_hot = np.zeros((2 * n, len(sets)))
    one_hot[np.arange(2 * n), code] = 0.5
    values = share @ (one_hot[:n] + one_hot[n:])  # (b, sets)
    expected = np.einsum("bi,ij,bj->b", values, distance, values) * (2 * n) / (2 * n - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = np.where(expected > 1e-12, 1 - observed / expected, np.nan)
    return found


def masi(sets: np.ndarray) -> np.ndarray:
    """MASI distances (m, m) of sets (m, k).

    1 - Jaccard · (1 if equal, 2/3 if one holds the other, 1/3 if they meet). Two empty sets are equal.
    """
    size = sets.sum(axis=1)
    common = sets.astype(np.int64) @ sets.T.astype(np.int64)
    union = size[:, None] + size - common
    jaccard = np.where(union > 0, common / np.maximum(union, 1), 1.0)
    equal = (common == size[:, None]) & (common == size)
    holds = (common == size[:, None]) | (common == size)
    likeness = np.where(equal, 1.0, np.where(holds, 2 / 3, 1 / 3))
    distance: np.ndarray = 1 - jaccard * likeness
    return distance


def _resamples(strata: np.ndarray, b: int, seed: int) -> np.ndarray:
    """How often each session is drawn in each resample, within its stratum: (b, n)."""
    rng = np.random.default_rng(seed)
    times = np.zeros((b, len(strata)))
    for stratum in np.unique(strata):
        mine = np.flatnonzero(strata == stratum)
        times[:, mine] = rng.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), size=b)
    return times


def _interval(values: np.ndarray) -> Interval:
    """The first is the estimate, the others its bootstrap."""
    if not np.isfinite(values[0]):
        return Interval(None, None, None)
    defined = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(defined, [0.025, 0.975]) if len(defined) else (np.nan, np.nan)
    low, high = (float(x) if np.isfinite(x) else None for x in (low, high))
    return Interval(float(values[0]), low, high)
