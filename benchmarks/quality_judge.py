"""How ``quality.py`` judges a representation: two heads, several metrics, paired bootstrap."""

from __future__ import annotations

import numpy as np

from clickintent.downstream import metrics
from clickintent.downstream.features import Matrix
from clickintent.downstream.head import Task as HeadTask
from clickintent.downstream.head import fit_and_predict
from clickintent.downstream.linear import fit_linear
from clickintent.downstream.metrics import Estimate
from quality_data import Task

HEADS = {"linear": fit_linear, "lightgbm": fit_and_predict}
RESAMPLES = 500
#: Metrics of which less is better.
LESS = ("log_loss",)


def judge(task: Task, matrix: Matrix, head: str, seed: int) -> dict[str, Estimate]:
    """Train the head on the task's training rows and measure it on the test rows.

    Args:
        matrix: features of ``task.seen``'s sessions.
    """
    features = matrix[task.row]
    given = HeadTask(task.target, task.offset, task.train, seed)
    return measure(task, HEADS[head](features, given, task.test).test)


def measure(task: Task, probabilities: np.ndarray) -> dict[str, Estimate]:
    """The task's metrics of probabilities (test rows, classes)."""
    truth = task.target[task.test]
    resamples = metrics.Resamples.draw(len(task.test), RESAMPLES, task.draw, task.cluster[task.test])
    best = probabilities.argmax(axis=1)
    found = {}
    for name in task.metrics:
        if name == "accuracy":
            found[name] = metrics.accuracy(truth, best, resamples)
        elif name == "macro_recall":
            found[name] = metrics.macro_recall(truth, best, probabilities.shape[1], resamples)
        elif name == "log_loss":
            found[name] = metrics.log_loss(truth, probabilities, resamples)
        elif probabilities.shape[1] == 2:
            found[name] = metrics.auc(truth == 1, probabilities[:, 1], resamples)
        else:
            found[name] = metrics.macro_auc(truth, probabilities, resamples)
    return found


def oracle(task: Task) -> dict[str, Estimate] | None:
    """What the simulator's own probabilities would get; rows that it does not know get the offset's."""
    if task.oracle is None:
        return None
    true = task.oracle[task.test]
    shown = task.offset[task.test] > -29
    known = np.isfinite(true).any(axis=1)
    start = np.exp(task.offset[task.test]) * shown
    true = np.where(known[:, None], np.nan_to_num(true) * shown, start)
    return measure(task, true / np.maximum(true.sum(axis=1, keepdims=True), 1e-12))


def mean(estimates: list[Estimate]) -> Estimate:
    """Of seeds: the mean of the values, and of the resamples."""
    return Estimate(
        float(np.mean([e.value for e in estimates])), np.mean([e.replicates for e in estimates], axis=0)
    )
