"""A sample in which every cluster of sessions has its place, with the weights that undo the distortion."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clickintent.errors import DataError, EmptyInputError

_FIT_ROWS = 30_000  # enough to find some dozens of centres; the rest are only assigned


@dataclass(frozen=True)
class Sample:
    """``rows`` of a table (ascending), how many sessions each stands for, and the cluster of each."""

    rows: np.ndarray  # (m,) int64
    weights: np.ndarray  # (m,) float64; they sum to the number of sessions
    clusters: np.ndarray  # (m,) int64


def cluster(embeddings: np.ndarray, k: int, *, seed: int) -> np.ndarray:
    """K-means clusters of embeddings (n, dim): an int64 array (n,) of 0…, at most ``k`` of them, none empty.

    Raises:
        EmptyInputError: if there is no row.
        DataError: if an embedding is not finite.
    """
    from sklearn.cluster import MiniBatchKMeans  # here, because it is slow to import
    from sklearn.exceptions import ConvergenceWarning

    embeddings = np.asarray(embeddings, dtype=np.float32)
    if embeddings.ndim != 2 or len(embeddings) == 0:
        raise EmptyInputError("no session to cluster; the taxonomy needs at least one embedded session.")
    if not np.isfinite(embeddings).all():
        raise DataError("embeddings hold NaN or infinite values; run 'clickintent embed' again.")
    rng = np.random.default_rng(seed)
    n = len(embeddings)
    fitted = embeddings if n <= _FIT_ROWS else embeddings[rng.choice(n, _FIT_ROWS, replace=False)]
    k = min(k, len(np.unique(fitted, axis=0)))
    model = MiniBatchKMeans(k, random_state=seed, n_init=3, batch_size=2048, reassignment_ratio=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct centres than k: renumbered below
        model.fit(fitted)
    numbered: np.ndarray = np.unique(model.predict(embeddings), return_inverse=True)[1].astype(np.int64)
    return numbered


def stratified(clusters: np.ndarray, size: int, *, seed: int) -> Sample:
    """Draw ``size`` sessions, at random within each cluster, every cluster represented.

    Small clusters get more than their share (allocation by the square root of the size), because a
    taxonomy must also know the long tail. Statistics of the sample weighted by ``weights`` (cluster size over
    number drawn: the Horvitz–Thompson estimator of a stratified sample) are unbiased. If there are more
    clusters than ``size``, one session of each is drawn.

    Args:
        clusters: (n,) cluster of each session.
    """
    n = len(clusters)
    _, index, counts = np.unique(clusters, return_inverse=True, return_counts=True)
    quota = _allocate(counts, min(size, n))
    rng = np.random.default_rng(seed)
    drawn = [
        np.sort(rng.choice(np.flatnonzero(index == c), quota[c], replace=False)) for c in range(len(counts))
    ]
    rows = np.concatenate(drawn) if drawn else np.empty(0, np.int64)
    weights = np.repeat(counts / np.maximum(quota, 1), quota)
    order = np.argsort(rows)
    return Sample(rows[order], weights[order], np.asarray(clusters)[rows[order]])


def within_budget(
    clusters: np.ndarray, size: int, budget: float, cost: Callable[[np.ndarray], np.ndarray], *, seed: int
) -> Sample:
    """Draw at most ``size`` sessions as ``stratified`` does, as many as ``budget`` allows.

    A cluster is never left out, so the sample may cost more if the budget does not reach for one session
    each.

    Args:
        clusters: (n,) cluster of each session.
        cost: what the sessions of these rows cost, such as their tokens.
    """
    least = len(np.unique(clusters))
    while True:
        sample = stratified(clusters, size, seed=seed)
        spent = float(cost(sample.rows).sum())
        if spent <= budget or len(sample.rows) <= least:
            return sample
        size = max(least, min(len(sample.rows) - 1, int(len(sample.rows) * budget / spent)))


def _allocate(counts: np.ndarray, size: int) -> np.ndarray:
    """At least one and at most all of each cluster, otherwise by the square root of its size."""
    quota = np.ones(len(counts), np.int64)
    while (left := size - int(quota.sum())) > 0:
        room = quota < counts
        if not room.any():
            break
        wanted = np.where(room, np.sqrt(counts), 0.0)
        share = left * wanted / wanted.sum()
        add = np.minimum(np.floor(share).astype(np.int64), counts - quota)
        if add.sum() == 0:  # less than one each: the largest remainders, the larger cluster first
            best = np.lexsort((-counts, -share))[:left]
            add[best] = 1
            add = np.minimum(add, counts - quota)
        quota += add
    return quota
