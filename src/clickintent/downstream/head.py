"""The head that turns features into class probabilities: LightGBM, the same for every method.

Parameters are fixed and small: shallow trees, many rows to a leaf, half of the columns to a tree, strong
L2. That regularises 64 dense columns and some hundred sparse ones alike. The number of rounds, the only
thing that is fitted to a method, is chosen by early stopping on the last fifth of the training window;
then the head is trained again on all of it. A head that does not beat its offset there (the class
frequencies) predicts the offset: features that say nothing gain nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from clickintent.downstream.features import Matrix
from clickintent.errors import require
from clickintent.progress import progress

VALIDATION_SHARE = 0.2  # of the training rows, the last in time
_MIN_VALIDATION = 20  # with fewer validation rows there is no early stopping
_ROUNDS = 100
_ROUNDS_UNCHECKED = 20
_PATIENCE = 8
_PARAMETERS: dict[str, Any] = {
    "learning_rate": 0.15,
    "num_leaves": 8,
    "min_data_in_leaf": 30,
    "min_sum_hessian_in_leaf": 0.5,
    "lambda_l2": 5.0,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "max_bin": 63,
    "feature_pre_filter": False,
    "deterministic": True,
    "force_col_wise": True,
    "boost_from_average": False,  # the offset does that
    "verbosity": -1,
}

Result = TypeVar("Result")


@dataclass(frozen=True)
class Task:
    """What to predict, the same for all methods: n rows, c classes."""

    target: np.ndarray  # (n,) int, class of each row; only those of training rows are looked at
    offset: np.ndarray  # (n, c) log-odds to start from; −30 or less excludes a class from a row
    train: np.ndarray  # indices of training rows, in the order of time
    seed: int

    @property
    def fitted(self) -> np.ndarray:
        """Training rows before the validation slice."""
        return self.train[: len(self.train) - len(self.validation)]

    @property
    def validation(self) -> np.ndarray:
        """The last training rows in time; empty if there are too few."""
        n = int(len(self.train) * VALIDATION_SHARE)
        return self.train[len(self.train) - n :] if n >= _MIN_VALIDATION else self.train[:0]


@dataclass(frozen=True)
class Prediction:
    """Class probabilities (rows, c)."""

    validation: np.ndarray  # of ``task.validation``, from the head that has not seen them
    test: np.ndarray
    rounds: int


def fit_and_predict(matrix: Matrix, task: Task, test: np.ndarray) -> Prediction:
    """Train on the task's training rows and predict its validation rows and the rows ``test`` (indices).

    Raises:
        MissingDependencyError: without lightgbm.
    """
    nothing = Prediction(softmax(task.offset[task.validation]), softmax(task.offset[test]), 0)
    if matrix.shape[1] == 0 or len(np.unique(task.target[task.train])) < 2:
        return nothing
    rounds = _ROUNDS_UNCHECKED
    validation = nothing.validation
    if len(task.validation):
        head, rounds, validation = _early_stopped(matrix, task)
        if rounds == 0:
            return nothing
    head = _train(matrix, task, task.train, rounds)
    return Prediction(validation, _predict(head, matrix, task, test, rounds), rounds)


def side_by_side(title: str, work: Mapping[str, Callable[[], Result]]) -> dict[str, Result]:
    """Do each method's work in a thread of its own, one per core; results in the order of ``work``.

    LightGBM lets go of the interpreter while it trains. Its own threads wait for each other after every
    small step: on two busy cores that was measured to take eight times as long.
    """
    require("lightgbm", "downstream")
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool, progress(title, len(work)) as advance:
        running = {pool.submit(do): name for name, do in work.items()}
        done = {}
        for future in as_completed(running):
            done[running[future]] = future.result()
            advance(len(done), running[future])
    return {name: done[name] for name in work}


def softmax(scores: np.ndarray) -> np.ndarray:
    """Row-wise softmax."""
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True)) if scores.size else scores
    probabilities: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities


def log_frequencies(target: np.ndarray, classes: int, rows: np.ndarray) -> np.ndarray:
    """Log class frequencies of some rows, half a row added to each class: (classes,)."""
    counts = np.bincount(target[rows], minlength=classes) + 0.5
    logs: np.ndarray = np.log(counts / counts.sum())
    return logs


def _early_stopped(matrix: Matrix, task: Task) -> tuple[Any, int, np.ndarray]:
    head = _train(matrix, task, task.fitted, _ROUNDS, stop_on=task.validation)
    rounds = int(head.best_iteration) or head.current_iteration()
    probabilities = _predict(head, matrix, task, task.validation, rounds)
    start = softmax(task.offset[task.validation])
    if _loss(probabilities, task) >= _loss(start, task):
        return head, 0, start
    return head, rounds, probabilities


def _train(
    matrix: Matrix, task: Task, rows: np.ndarray, rounds: int, stop_on: np.ndarray | None = None
) -> Any:
    lightgbm = require("lightgbm", "downstream")
    classes = task.offset.shape[1]
    objective = {"objective": "binary"} if classes == 2 else {"objective": "multiclass", "num_class": classes}
    parameters = {
        **_PARAMETERS,
        **objective,
        "metric": "binary_logloss" if classes == 2 else "multi_logloss",
        "seed": task.seed,
        "num_threads": 1,  # methods run beside each other instead, see ``side_by_side``
    }

    def dataset(rows: np.ndarray, reference: Any = None) -> Any:
        return lightgbm.Dataset(
            matrix[rows],
            task.target[rows],
            init_score=_offset(task, rows),
            reference=reference,
            params=parameters,
        )

    data = dataset(rows)
    if stop_on is None:
        return lightgbm.train(parameters, data, rounds)
    return lightgbm.train(
        parameters,
        data,
        rounds,
        valid_sets=[dataset(stop_on, data)],
        callbacks=[lightgbm.early_stopping(_PATIENCE, verbose=False)],
    )


def _predict(head: Any, matrix: Matrix, task: Task, rows: np.ndarray, rounds: int) -> np.ndarray:
    if len(rows) == 0:
        return np.zeros((0, task.offset.shape[1]))
    raw = head.predict(matrix[rows], raw_score=True, num_iteration=rounds)
    scores = task.offset[rows] + (np.column_stack([np.zeros(len(rows)), raw]) if raw.ndim == 1 else raw)
    return softmax(scores)


def _offset(task: Task, rows: np.ndarray) -> np.ndarray:
    """In the shape that LightGBM wants."""
    offset = task.offset[rows]
    binary: np.ndarray = offset[:, 1] - offset[:, 0]
    return binary if offset.shape[1] == 2 else offset


def _loss(probabilities: np.ndarray, task: Task) -> float:
    rows = task.validation
    p = probabilities[np.arange(len(rows)), task.target[rows]]
    return float(-np.log(np.clip(p, 1e-12, 1)).mean())
