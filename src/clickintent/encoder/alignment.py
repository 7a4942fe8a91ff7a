"""From one encoder's space to another's: so that a model trained on old embeddings goes on working.

Two trainings, on other days or with another seed, put the same session at different places. An affine map
fitted by ridge regression on sessions that both have embedded takes the new vectors to where the old were.
Measured against an orthogonal map (Procrustes) in benchmarks/quality.py.
"""

from __future__ import annotations

import numpy as np

from clickintent.encoder.features import Floats
from clickintent.errors import DataError

_RIDGE = 1e-3  # of the mean squared deviation of the inputs
_MIN_ROWS_PER_DIM = 4


def rows_needed(dim: int) -> int:
    """Sessions for a map from ``dim`` numbers that is measured on a fifth of them, at least."""
    return -(-_MIN_ROWS_PER_DIM * dim * 5 // 4)


def fit_alignment(source: Floats, target: Floats) -> Floats:
    """The map that takes ``source`` to ``target``.

    Args:
        source: (n, d) embeddings of n sessions by the new encoder. target: (n, e) by the old one.

    Returns:
        (d + 1, e) float32; the last row is the shift.

    Raises:
        DataError: if the rows do not pair up or are too few for a map.
    """
    if len(source) != len(target):
        raise DataError(f"alignment: {len(source):,} new and {len(target):,} old embeddings do not pair up.")
    needed = _MIN_ROWS_PER_DIM * source.shape[1]
    if len(source) < needed:
        raise DataError(f"alignment: {len(source):,} sessions; at least {needed:,} are needed for a map.")
    x, y = source.astype(np.float64), target.astype(np.float64)
    center, shift = x.mean(axis=0), y.mean(axis=0)
    x, y = x - center, y - shift
    ridge = _RIDGE * (x**2).mean() * len(x)
    weights = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y)
    return np.vstack([weights, shift - center @ weights]).astype(np.float32)


def apply_alignment(embeddings: Floats, alignment: Floats) -> Floats:
    """(n, d) → (n, e) float32; zero vectors, of sessions without events, stay zero."""
    # In float64, so that a row comes out the same however many others are mapped with it.
    mapped: Floats = (embeddings.astype(np.float64) @ alignment[:-1] + alignment[-1]).astype(np.float32)
    mapped[~embeddings.any(axis=1)] = 0.0
    return mapped


def compose(first: Floats, then: Floats) -> Floats:
    """The map that does one after the other."""
    return np.vstack([first[:-1] @ then[:-1], first[-1] @ then[:-1] + then[-1]]).astype(np.float32)


def explained(source: Floats, target: Floats, alignment: Floats) -> float:
    """Share of the variance of ``target`` (n, e) that the mapped ``source`` has; 1 is all."""
    error = ((apply_alignment(source, alignment) - target) ** 2).sum()
    variance = ((target - target.mean(axis=0)) ** 2).sum()
    return float(1 - error / max(float(variance), 1e-12))
