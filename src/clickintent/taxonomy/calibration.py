"""Whether a confidence means what it says, and how sure to be before a label is given.

The expected calibration error over bins is of Guo et al. 2017. Bins hold equally many rows, because most
confidences are near 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize

PRECISIONS = np.arange(101) / 100  # those that ``cutoffs`` answers for
_BINS = 15
_SLOPES, _SHIFTS = (-1.6, 1.6), (-2.0, 2.0)  # slopes as logarithms: from a fifth to five
_Z = 1.645  # of a one-sided interval of 95 %


def calibrated(logits: np.ndarray, how: np.ndarray) -> np.ndarray:
    """Logits, of any shape, calibrated: a·z + (b − a)·softplus(z) + c, with (a, b, c) = ``how``.

    Below 0 that is a line of slope a, above a line of slope b: beta calibration of the probability
    logistic(z) (Kull, Silva Filho, Flach 2017), written in logits.
    """
    a, b, c = how.astype(logits.dtype)
    soft = np.log1p(np.exp(-np.abs(logits)))
    soft += np.maximum(logits, 0)
    found: np.ndarray = a * logits
    found += (b - a) * soft
    found += c
    return found


def fit(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The (a, b, c) of ``calibrated`` that fit the targets best (cross-entropy).

    Half of the weight is on the best intent of each session, which is what is acted on, the rest on all
    others. A line fitted to the best alone gave a session two times its labels, learned from few labels of a
    language model (``benchmarks/labels_llm.py``).

    Args:
        logits: (n, k). targets: (n, k) in [0, 1].

    Returns:
        (3,) float32; (1, 1, 0), which changes nothing, without rows.
    """
    if targets.size == 0:
        return np.array([1.0, 1.0, 0.0], np.float32)
    z, y = logits.astype(np.float64), targets.astype(np.float64)
    weight = np.full(z.shape, 1.0 / max(z.shape[1] - 1, 1))
    weight[np.arange(len(z)), z.argmax(axis=1)] = 1.0
    weight /= weight.sum()

    def loss(numbers: np.ndarray) -> float:
        found = calibrated(z, np.array([*np.exp(numbers[:2]), numbers[2]]))
        return float(np.sum(weight * (np.logaddexp(0.0, found) - y * found)))

    bounds = [_SLOPES, _SLOPES, _SHIFTS]
    a, b, c = minimize(loss, np.zeros(3), method="L-BFGS-B", bounds=bounds).x
    return np.array([np.exp(a), np.exp(b), c], np.float32)


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = _BINS) -> list[dict[str, float]]:
    """Confidences (n,) in bins of equally many: how many, their mean, and the mean of ``right`` (n,).

    Args:
        right: 0 or 1, or how sure the teacher is.
    """
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, min(bins, len(order)) or 1) if len(part)]
    return [
        {
            "n": len(part),
            "confidence": float(confidence[part].mean()),
            "right": float(right[part].mean()),
        }
        for part in parts
    ]


def calibration_error(table: list[dict[str, float]]) -> float | None:
    """Expected calibration error: mean over rows of |confidence − right|, bin by bin; None without rows."""
    n = sum(row["n"] for row in table)
    return sum(row["n"] * abs(row["confidence"] - row["right"]) for row in table) / n if n else None


def best_of_session(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of confidences (n, k) the highest in each row, and ``right`` (n, k) there: what a reader acts on."""
    at = np.arange(len(confidence)), confidence.argmax(axis=1)
    return confidence[at], right[at]


def best_threshold(confidence: np.ndarray, right: np.ndarray, otherwise: float = 0.5) -> float:
    """The confidence from which on labels have the best micro F1, as it is to be expected.

    Args:
        confidence: (n, k). right: (n, k), 0 or 1, or how sure the teacher is.
    """
    if not right.any():
        return otherwise
    values, hits = _from_the_top(confidence, right)
    f1 = 2 * hits / (np.arange(1, len(values) + 1) + right.sum(dtype=np.float64))
    return float(values[int(np.where(_last_of_tie(values), f1, -1).argmax())])


def cutoffs(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """For each of ``PRECISIONS``: the least confidence from which on so many labels are right, (101,).

    With 95 % confidence: the lower end of the interval of Wilson 1927 counts, because of many cutoffs the one
    that just looks good enough is chosen. Infinite where it is never reached.

    Args:
        confidence: (n, k). right: (n, k), 0 or 1, or how sure the teacher is.
    """
    found = np.full(len(PRECISIONS), np.inf, np.float32)
    if confidence.size == 0:
        return found
    values, hits = _from_the_top(confidence, right)
    n = np.arange(1, len(values) + 1)
    share = hits / n
    spread = _Z * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    lower = np.maximum((share + _Z**2 / (2 * n) - spread) / (1 + _Z**2 / n), 0.0)
    lower = np.where(_last_of_tie(values), lower, -1.0)
    for i, wanted in enumerate(PRECISIONS):
        enough = np.flatnonzero(lower >= wanted)
        if len(enough):
            found[i] = values[enough[-1]]
    return found


def _from_the_top(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidences in descending order, and how many of the labels so far are right."""
    order = np.argsort(-confidence, axis=None, kind="stable")
    return confidence.ravel()[order], np.cumsum(right.ravel()[order], dtype=np.float64)


def _last_of_tie(values: np.ndarray) -> np.ndarray:
    return np.append(np.diff(values) != 0, True)


def summary(confidence: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """``ece`` and ``reliability`` of the best intent of each session, ``ece_all`` of all pairs."""
    table = reliability(*best_of_session(confidence, right))
    every = reliability(confidence.ravel(), right.ravel())
    return {"ece": calibration_error(table), "ece_all": calibration_error(every), "reliability": table}
