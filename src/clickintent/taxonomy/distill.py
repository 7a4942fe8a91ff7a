"""Training the student on a teacher's confidences as soft targets (Hinton et al. 2015, multi-label)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clickintent.config import StudentConfig
from clickintent.errors import require
from clickintent.progress import progress
from clickintent.taxonomy import calibration
from clickintent.taxonomy.student import Arrays, IntentLabeler, forward, logits

if TYPE_CHECKING:
    import torch

_BATCHES = 32  # an epoch, so that little data is not seen in two or three steps
_BATCH = 32, 512  # least and most rows in one
_WEIGHT_DECAY = 1e-4
_DROPOUT = 0.2
_WARM_UP = 0.05  # of the steps
_HELD_OUT = 0.15, 4_000  # of the rows, at most so many: to choose by, and as many again to measure on
_ENOUGH = 40  # rows from which on some can be held out
_PRESENT = 0.5  # the teacher's confidence from which on an intent counts as present
_SHARES = (1 / 8, 1 / 4, 1 / 2)  # of the training rows, for the learning curve
_PRECISIONS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Rows:
    """Disjoint rows to train on, to choose by (epoch, calibration, thresholds), and to measure on."""

    train: np.ndarray
    choose: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Trained:
    """Weights, the common threshold, cutoffs by precision (101,), and metrics."""

    arrays: Arrays
    threshold: float
    cutoffs: np.ndarray
    metrics: dict[str, Any]


def train(
    embeddings: np.ndarray,
    targets: np.ndarray,
    intent_ids: Sequence[str],
    config: StudentConfig,
    seed: int,
) -> Trained:
    """Train on 70 % of the rows; choose epoch, calibration and thresholds on 15 %, measure on the last 15 %.

    Of the two held-out parts, none is larger than 4,000 rows. With fewer than 40 rows all of them train and
    choose, and nothing is measured.

    Args:
        embeddings: (n, dim) float32.
        targets: (n, k) float32 in [0, 1].

    Returns:
        metrics: ``n_train``, ``n_test``, ``epochs`` (of the weights that were kept), ``calibration``
        (see ``calibration.calibrated``), ``threshold``, and what ``measure`` finds on the test rows.
    """
    rows = split(len(embeddings), seed)
    arrays, epoch = _fit(embeddings, targets, rows, config, seed)
    chosen = forward(arrays, embeddings[rows.choose])
    threshold = calibration.best_threshold(chosen, targets[rows.choose])
    cutoffs = calibration.cutoffs(chosen, targets[rows.choose])
    found = forward(arrays, embeddings[rows.test])
    metrics = {
        "n_train": len(rows.train),
        "n_test": len(rows.test),
        "epochs": epoch,
        "calibration": arrays["calibration"].tolist(),
        "threshold": threshold,
        **measure(found, targets[rows.test], threshold, cutoffs, intent_ids),
    }
    return Trained(arrays, threshold, cutoffs, metrics)


def learning_curve(
    embeddings: np.ndarray, targets: np.ndarray, student: IntentLabeler
) -> list[dict[str, float]]:
    """Micro F1 against the teacher by the number of training rows: an eighth, a quarter, half, all.

    Args:
        embeddings, targets: what ``student`` was fitted on; its own figure is the last one, and all are
            measured on the same test rows.

    Returns:
        ``n_train`` and ``micro_f1_vs_teacher``, from few rows to many; empty if nothing could be held out.
    """
    rows = split(len(embeddings), student.seed)
    if not len(rows.test):
        return []
    curve = []
    for share in _SHARES:
        part = Rows(rows.train[: max(int(share * len(rows.train)), 1)], rows.choose, rows.test)
        arrays, _ = _fit(embeddings, targets, part, student.config, student.seed)
        chosen = forward(arrays, embeddings[rows.choose])
        threshold = calibration.best_threshold(chosen, targets[rows.choose])
        found = forward(arrays, embeddings[rows.test]) >= threshold
        f1 = micro_f1(found, teacher_labels(targets[rows.test]))
        curve.append({"n_train": len(part.train), "micro_f1_vs_teacher": f1 or 0.0})
    whole = student.metrics["micro_f1_vs_teacher"] or 0.0
    return [*curve, {"n_train": len(rows.train), "micro_f1_vs_teacher": whole}]


def teacher_labels(targets: np.ndarray) -> np.ndarray:
    """What the teacher's confidences (n, k) say is present: all of at least 0.5, and the best above 0."""
    present: np.ndarray = targets >= _PRESENT
    present |= (targets == targets.max(axis=1, keepdims=True)) & (targets > 0)
    return present


def split(n: int, seed: int) -> Rows:
    """Which of n rows train, choose and test."""
    order = np.random.default_rng(seed).permutation(n)
    if n < _ENOUGH:
        return Rows(order, order, order[:0])
    held = min(int(n * _HELD_OUT[0]), _HELD_OUT[1])
    return Rows(order[2 * held :], order[:held], order[held : 2 * held])


def _fit(
    embeddings: np.ndarray, targets: np.ndarray, rows: Rows, config: StudentConfig, seed: int
) -> tuple[Arrays, int]:
    """Calibrated weights for embeddings as they are, and the epoch they are of."""
    torch = require("torch", "train")
    mean = embeddings[rows.train].mean(axis=0)
    std = embeddings[rows.train].std(axis=0)
    std = np.where(std > 1e-6, std, 1.0).astype(np.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a network this small only loses time by sharing its work
    try:
        arrays, epoch = _loop(torch, (embeddings - mean) / std, targets, rows, config, seed)
    finally:
        torch.set_num_threads(threads)
    weight = arrays["hidden.weight"] / std
    arrays["hidden.bias"] = arrays["hidden.bias"] - weight @ mean
    arrays["hidden.weight"] = weight
    found = logits(arrays, embeddings[rows.choose])
    arrays["calibration"] = calibration.fit(found, targets[rows.choose])
    return {name: value.astype(np.float32) for name, value in arrays.items()}, epoch


def _loop(
    torch: Any, inputs: np.ndarray, targets: np.ndarray, rows: Rows, config: StudentConfig, seed: int
) -> tuple[Arrays, int]:
    """The plain loop. Returns the weights of the epoch with the least loss on the rows to choose by."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(targets)
    hidden = torch.nn.Linear(x.shape[1], config.hidden)
    out = torch.nn.Linear(config.hidden, y.shape[1])
    _initialise(torch, hidden, out, targets[rows.train], generator)
    train_rows = torch.from_numpy(rows.train)
    size = min(max(len(train_rows) // _BATCHES, _BATCH[0]), _BATCH[1])
    steps = config.epochs * -(-len(train_rows) // size)
    parameters = [*hidden.parameters(), *out.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=_WEIGHT_DECAY)
    warm_up = max(int(_WARM_UP * steps), 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(step / warm_up, 0.5 + 0.5 * np.cos(np.pi * min(step / steps, 1.0)))
    )
    loss_of = torch.nn.functional.binary_cross_entropy_with_logits

    def held_out_loss() -> float:
        with torch.no_grad():
            return float(loss_of(out(hidden(x[rows.choose]).relu()), y[rows.choose]))

    best, best_loss, best_epoch = _arrays(hidden, out), held_out_loss(), 0
    with progress("distill", config.epochs, "epochs") as advance:
        for epoch in range(1, config.epochs + 1):
            for batch in train_rows[torch.randperm(len(train_rows), generator=generator)].split(size):
                h = hidden(x[batch]).relu()
                kept = torch.rand(h.shape, generator=generator) >= _DROPOUT
                loss = loss_of(out(h * kept / (1 - _DROPOUT)), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            current = held_out_loss()
            advance(epoch, f"(held-out loss {current:.4f})")
            if current < best_loss:
                best, best_loss, best_epoch = _arrays(hidden, out), current, epoch
    return best, best_epoch


def _initialise(
    torch: Any, hidden: torch.nn.Linear, out: torch.nn.Linear, targets: np.ndarray, generator: torch.Generator
) -> None:
    """Seeded weights; the output starts at each intent's mean confidence, so that rare ones start rare."""
    mean = np.clip(targets.mean(axis=0), 1e-4, 1 - 1e-4)
    with torch.no_grad():
        for layer in (hidden, out):
            torch.nn.init.xavier_uniform_(layer.weight, generator=generator)
            layer.bias.zero_()
        out.bias.copy_(torch.from_numpy(np.log(mean / (1 - mean)).astype(np.float32)))


def _arrays(hidden: torch.nn.Linear, out: torch.nn.Linear) -> Arrays:
    return {
        f"{name}.{key}": value.detach().numpy().copy()
        for name, layer in (("hidden", hidden), ("out", out))
        for key, value in layer.state_dict().items()
    }


def measure(
    probability: np.ndarray,
    targets: np.ndarray,
    threshold: float,
    cutoffs: np.ndarray,
    intent_ids: Sequence[str],
) -> dict[str, Any]:
    """How a student's probabilities (n, k) agree with its teacher's confidences (n, k).

    Returns:
        ``micro_f1_vs_teacher`` (the student's thresholded intents against the teacher's), ``top1_agreement``
        (same best intent), ``brier``, ``bce``; ``ece``, ``ece_all`` and ``reliability`` against the teacher's
        confidences (``calibration.summary``); ``abstention``: for some precisions the cutoff, and with it
        how sure the teacher is of the labels and the share of sessions that keep one; ``intents``: per id
        ``precision``, ``recall``, ``f1``, ``average_precision`` and ``support``. None where there is
        nothing to measure on.
    """
    names = ("micro_f1_vs_teacher", "top1_agreement", "brier", "bce", "ece", "ece_all")
    if len(targets) == 0:
        return {**dict.fromkeys(names), "reliability": [], "abstention": [], "intents": {}}
    student, teacher = probability >= threshold, teacher_labels(targets)
    labelled = targets.max(axis=1) > 0
    same = probability.argmax(axis=1)[labelled] == targets.argmax(axis=1)[labelled]
    clipped = np.clip(probability.astype(float), 1e-7, 1 - 1e-7)
    bce = -(targets * np.log(clipped) + (1 - targets) * np.log(1 - clipped))
    return {
        "micro_f1_vs_teacher": micro_f1(student, teacher),
        "top1_agreement": float(same.mean()) if labelled.any() else None,
        "brier": float(np.mean((probability - targets) ** 2)),
        "bce": float(bce.mean()),
        **calibration.summary(probability, targets),
        "abstention": [
            _abstention(probability, targets, wanted, float(cutoffs[round(100 * wanted)]))
            for wanted in _PRECISIONS
        ],
        "intents": {
            id_: _one_intent(probability[:, j], student[:, j], teacher[:, j])
            for j, id_ in enumerate(intent_ids)
        },
    }


def _abstention(
    probability: np.ndarray, targets: np.ndarray, wanted: float, cutoff: float
) -> dict[str, float | None]:
    given = probability >= cutoff
    return {
        "wanted": wanted,
        "cutoff": cutoff if np.isfinite(cutoff) else None,
        "precision": float(targets[given].mean()) if given.any() else None,
        "sessions_labelled": float(given.any(axis=1).mean()),
    }


def _one_intent(probability: np.ndarray, student: np.ndarray, teacher: np.ndarray) -> dict[str, Any]:
    from sklearn.metrics import average_precision_score  # here, because it is slow to import

    right, given, there = int((student & teacher).sum()), int(student.sum()), int(teacher.sum())
    return {
        "precision": right / given if given else None,
        "recall": right / there if there else None,
        "f1": micro_f1(student, teacher),
        "average_precision": float(average_precision_score(teacher, probability)) if there else None,
        "support": there,
    }


def micro_f1(student: np.ndarray, teacher: np.ndarray) -> float | None:
    """F1 over all pairs of session and intent; None where neither finds anything."""
    together = int(student.sum() + teacher.sum())
    return 2 * int((student & teacher).sum()) / together if together else None
