"""Sessions on a plane: t-SNE of some, and all others beside those that they are most like.

t-SNE of 100,000 points takes minutes, and its picture is no better to look at than that of some thousand: its
shape is that of the data's density, which a random sample has. A point that is not in the sample takes its
place among its nearest landmarks. Their weighted mean, the usual answer, lies between two groups where they
are of both, and their median, with which openTSNE begins (Poličar, Stražar, Zupan 2023, "Embedding to
reference t-SNE space addresses batch effects in single-cell classification"), puts points on a grid. So the
mean is taken of those that lie beside the nearest one: as trustworthy as the median, without the grid.
``benchmarks/explorer.py`` measures it.
"""

from __future__ import annotations

import numpy as np

from clickintent.report.projection import project

_NEAREST = 5  # landmarks that are asked
_BESIDE = 12.0  # what is beside the nearest of them, in distances between neighbouring landmarks
_JITTER = 0.35  # of the distance between neighbouring landmarks


def lay_out(embeddings: np.ndarray, landmarks: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of sessions.

    Args:
        embeddings: (n, dim), finite.
        landmarks: sessions, drawn at random, that are laid out by t-SNE.

    Returns:
        (n, 2) float32 within [−1, 1]; (n,) bool: the landmarks.
    """
    n = len(embeddings)
    rng = np.random.default_rng(seed)
    is_landmark = np.ones(n, bool)
    if n > landmarks:
        is_landmark = np.zeros(n, bool)
        is_landmark[rng.choice(n, landmarks, replace=False)] = True
    fixed = project(embeddings[is_landmark], seed=seed)
    xy = np.zeros((n, 2), np.float32)
    xy[is_landmark] = fixed
    if n > landmarks:
        xy[~is_landmark] = _placed(embeddings[~is_landmark], embeddings[is_landmark], fixed)
    xy += _spread(xy, is_landmark, fixed, rng)
    return np.clip(xy, -1, 1), is_landmark


def _placed(embeddings: np.ndarray, landmarks: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    from sklearn.neighbors import NearestNeighbors  # here, because it is slow to import

    index = NearestNeighbors(n_neighbors=min(_NEAREST, len(landmarks)), algorithm="brute").fit(landmarks)
    distance, nearest = index.kneighbors(embeddings)
    places = fixed[nearest]
    away = np.linalg.norm(places - places[:, :1], axis=2)
    weight = (away <= _BESIDE * _apart(fixed)) / np.maximum(distance, 1e-6) ** 2
    weight /= weight.sum(axis=1, keepdims=True)
    found: np.ndarray = (places * weight[:, :, None]).sum(axis=1).astype(np.float32)
    return found


def _spread(
    xy: np.ndarray, is_landmark: np.ndarray, fixed: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A small move at random of what would stack: placed points, and landmarks that share a place."""
    _, which, times = np.unique(xy, axis=0, return_inverse=True, return_counts=True)
    moves = ~is_landmark | (times[which.ravel()] > 1)
    scale = _JITTER * _apart(fixed)
    noise = rng.normal(0.0, 1.0, xy.shape) * np.where(moves, scale, 0.0)[:, None]
    return np.clip(noise, -3 * scale, 3 * scale).astype(np.float32)


def _apart(fixed: np.ndarray) -> float:
    """The median distance from a landmark to the nearest other one."""
    different = np.unique(fixed, axis=0)
    if len(different) < 2:
        return 0.01
    from sklearn.neighbors import NearestNeighbors

    distance, _ = NearestNeighbors(n_neighbors=2).fit(different).kneighbors(different)
    return float(np.median(distance[:, 1]))
