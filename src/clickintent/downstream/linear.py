"""A linear head: multinomial logistic regression on top of an offset, the other judge beside LightGBM.

It asks what can be read off a representation in a straight line. Dense columns are standardised, counts go
through log(1 + x) and are scaled to unit second moment (they stay sparse); missing numbers become the mean,
and a row without features keeps its offset. The strength of L2 is chosen on the last fifth of the training
window, then the head is trained again on all of it.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.optimize import minimize

from clickintent.downstream.features import Matrix
from clickintent.downstream.head import Prediction, Task, softmax

_STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4)  # of L2 per row, from strong to weak; each starts from the one before
_ITERATIONS = 60


def fit_linear(matrix: Matrix, task: Task, test: np.ndarray) -> Prediction:
    """As ``head.fit_and_predict``, with a linear head; ``rounds`` is the index of the strength chosen."""
    if matrix.shape[1] == 0 or len(np.unique(task.target[task.train])) < 2:
        return Prediction(softmax(task.offset[task.validation]), softmax(task.offset[test]), 0)
    scaled = _scaled(matrix, task.train)
    strengths, validation = _STRENGTHS[1:2], softmax(task.offset[task.validation])
    if len(task.validation):
        best, weights = np.inf, _zeros(scaled, task)
        for strength in _STRENGTHS:
            weights = _fit(scaled, task, task.fitted, strength, weights)
            probabilities = _probabilities(scaled, task, task.validation, weights)
            truth = task.target[task.validation]
            own = probabilities[np.arange(len(truth)), truth]
            loss = float(-np.log(np.clip(own, 1e-12, 1)).mean())
            if loss < best:
                best, strengths, validation = loss, (strength,), probabilities
    weights = _fit(scaled, task, task.train, strengths[0], _zeros(scaled, task))
    chosen = _STRENGTHS.index(strengths[0])
    return Prediction(validation, _probabilities(scaled, task, test, weights), chosen)


def _scaled(matrix: Matrix, train: np.ndarray) -> Matrix:
    """Columns on one scale, learned from the training rows, and a column of ones."""
    if not isinstance(matrix, np.ndarray):
        logs = matrix.log1p().tocsr()
        moment = np.sqrt(np.asarray(logs[train].power(2).mean(axis=0)).ravel())
        scale = np.divide(1.0, moment, out=np.zeros_like(moment), where=moment > 0)
        ones = np.ones((matrix.shape[0], 1))
        return sparse.hstack([logs @ sparse.diags(np.minimum(scale, 20.0)), ones], format="csr")
    values = matrix.astype(np.float64)
    absent = np.asarray(np.isnan(values).all(axis=1))
    known = np.isfinite(values)
    seen = known[train].sum(axis=0)
    filled = np.where(known, values, 0.0)
    mean = filled[train].sum(axis=0) / np.maximum(seen, 1)
    square = (np.where(known, values - mean, 0.0)[train] ** 2).sum(axis=0)
    deviation = np.sqrt(square / np.maximum(seen, 1))
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 1e-9)
    standard = np.clip(np.where(known, values - mean, 0.0) * scale, -10, 10)
    return np.hstack([standard, ~absent[:, None]])


def _zeros(matrix: Matrix, task: Task) -> np.ndarray:
    return np.zeros((matrix.shape[1], task.offset.shape[1]))


def _fit(matrix: Matrix, task: Task, rows: np.ndarray, strength: float, start: np.ndarray) -> np.ndarray:
    x, offset, target = matrix[rows], task.offset[rows], task.target[rows]
    each, n = np.arange(len(rows)), len(rows)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(start.shape)
        p = softmax(offset + x @ weights)
        value = -np.log(np.clip(p[each, target], 1e-12, 1)).mean() + strength / 2 * (weights**2).sum()
        p[each, target] -= 1.0
        return float(value), (x.T @ p / n + strength * weights).ravel()

    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS})
    weights: np.ndarray = found.x.reshape(start.shape)
    return weights


def _probabilities(matrix: Matrix, task: Task, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return softmax(task.offset[rows] + matrix[rows] @ weights)
