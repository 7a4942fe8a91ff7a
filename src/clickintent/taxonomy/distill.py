"""Training the student on a teacher's confidences as soft targets (Hinton et al. 2015, multi-label)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clickintent.config import StudentConfig
from clickintent.errors import require
from clickintent.progress import progress
from clickintent.taxonomy.student import Arrays, forward

if TYPE_CHECKING:
    import torch

_BATCHES = 32  # an epoch, so that little data is not seen in two or three steps
_BATCH = 32, 1024  # least and most rows in one
_WEIGHT_DECAY = 1e-4
_DROPOUT = 0.1
_PATIENCE = 6  # epochs without a better held-out loss
_HELD_OUT = 0.15  # of the rows to stop and to choose thresholds by, and as many again to measure on
_ENOUGH = 40  # rows from which on some can be held out
_PRESENT = 0.5  # the teacher's confidence from which on an intent counts as present
_FEW = 5  # held-out sessions of an intent below which it takes the common threshold


@dataclass(frozen=True)
class Trained:
    """Weights, thresholds (k,) and metrics."""

    arrays: Arrays
    thresholds: np.ndarray
    metrics: dict[str, Any]


def train(
    embeddings: np.ndarray,
    targets: np.ndarray,
    intent_ids: tuple[str, ...],
    config: StudentConfig,
    seed: int,
) -> Trained:
    """Train on 70 % of the rows, stop and choose thresholds on 15 %, measure on the last 15 %.

    With fewer than 40 rows all of them train and choose, and nothing is measured.

    Args:
        embeddings: (n, dim) float32.
        targets: (n, k) float32 in [0, 1].

    Returns:
        metrics: ``n_train``, ``n_test``, and on the test rows ``micro_f1_vs_teacher`` (the student's
        thresholded intents against the teacher's), ``kept`` (the same, as the share of the teacher's
        agreement with itself, which is 1), ``top1_agreement`` (same best intent), ``brier``, ``bce``, and
        ``intents``: per id ``f1`` and ``support``. None where there is nothing to measure on.
    """
    torch = require("torch", "train")
    rng = np.random.default_rng(seed)
    train_rows, choose_rows, test_rows = _split(len(embeddings), rng)
    mean = embeddings[train_rows].mean(axis=0)
    std = embeddings[train_rows].std(axis=0)
    std = np.where(std > 1e-6, std, 1.0).astype(np.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a network this small only loses time by sharing its work
    try:
        arrays, epochs = _fit(
            torch, (embeddings - mean) / std, targets, train_rows, choose_rows, config, seed
        )
    finally:
        torch.set_num_threads(threads)
    arrays = {"mean": mean.astype(np.float32), "std": std, **arrays}
    chosen = forward(arrays, embeddings[choose_rows])
    thresholds = _thresholds(chosen, teacher_labels(targets[choose_rows]))
    metrics = {
        "n_train": len(train_rows),
        "n_test": len(test_rows),
        "epochs": epochs,
        **_measure(forward(arrays, embeddings[test_rows]), targets[test_rows], thresholds, intent_ids),
    }
    return Trained(arrays, thresholds, metrics)


def teacher_labels(targets: np.ndarray) -> np.ndarray:
    """What the teacher's confidences (n, k) say is present: all of at least 0.5, and the best above 0."""
    present: np.ndarray = targets >= _PRESENT
    present |= (targets == targets.max(axis=1, keepdims=True)) & (targets > 0)
    return present


def _split(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    order = rng.permutation(n)
    if n < _ENOUGH:
        return order, order, order[:0]
    held = int(n * _HELD_OUT)
    return order[2 * held :], order[:held], order[held : 2 * held]


def _fit(
    torch: Any,
    inputs: np.ndarray,
    targets: np.ndarray,
    train_rows: np.ndarray,
    choose_rows: np.ndarray,
    config: StudentConfig,
    seed: int,
) -> tuple[Arrays, int]:
    """The plain loop. Returns the weights of the best epoch and how many epochs ran."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(targets)
    hidden = torch.nn.Linear(x.shape[1], config.hidden)
    out = torch.nn.Linear(config.hidden, y.shape[1])
    _initialise(torch, hidden, out, targets[train_rows], generator)
    parameters = [*hidden.parameters(), *out.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=_WEIGHT_DECAY)
    loss_of = torch.nn.functional.binary_cross_entropy_with_logits
    gelu = torch.nn.functional.gelu

    def held_out_loss() -> float:
        with torch.no_grad():
            return float(loss_of(out(gelu(hidden(x[choose_rows]), approximate="tanh")), y[choose_rows]))

    best, best_loss, since = _arrays(hidden, out), held_out_loss(), 0
    rows = torch.from_numpy(train_rows)
    size = min(max(len(rows) // _BATCHES, _BATCH[0]), _BATCH[1])
    with progress("distill", config.epochs, "epochs") as advance:
        epoch = 0
        for epoch in range(1, config.epochs + 1):
            for batch in rows[torch.randperm(len(rows), generator=generator)].split(size):
                h = gelu(hidden(x[batch]), approximate="tanh")
                kept = torch.rand(h.shape, generator=generator) >= _DROPOUT
                loss = loss_of(out(h * kept / (1 - _DROPOUT)), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            current = held_out_loss()
            advance(epoch, f"(held-out loss {current:.4f})")
            if current < best_loss - 1e-6:
                best, best_loss, since = _arrays(hidden, out), current, 0
            else:
                since += 1
                if since >= _PATIENCE:
                    break
    return best, epoch


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


def _thresholds(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Per intent the threshold of the best F1; the best common one where there are few examples."""
    common = _best_threshold(probability.ravel(), truth.ravel(), 0.5)
    return np.asarray(
        [
            _best_threshold(probability[:, j], truth[:, j], common) if truth[:, j].sum() >= _FEW else common
            for j in range(truth.shape[1])
        ],
        np.float32,
    )


def _best_threshold(probability: np.ndarray, truth: np.ndarray, otherwise: float) -> float:
    if not truth.any():
        return otherwise
    order = np.argsort(-probability, kind="stable")
    hits = np.cumsum(truth[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + truth.sum())
    last_of_tie = np.append(np.diff(probability[order]) != 0, True)
    at = int(np.where(last_of_tie, f1, -1).argmax())
    return float(probability[order[at]])


def _measure(
    probability: np.ndarray, targets: np.ndarray, thresholds: np.ndarray, intent_ids: tuple[str, ...]
) -> dict[str, Any]:
    names = ("micro_f1_vs_teacher", "kept", "top1_agreement", "brier", "bce")
    if len(targets) == 0:
        return {**dict.fromkeys(names), "intents": {}}
    student, teacher = probability >= thresholds, teacher_labels(targets)
    labelled = targets.max(axis=1) > 0
    same = probability.argmax(axis=1)[labelled] == targets.argmax(axis=1)[labelled]
    clipped = np.clip(probability.astype(float), 1e-7, 1 - 1e-7)
    bce = -(targets * np.log(clipped) + (1 - targets) * np.log(1 - clipped))
    micro = _f1(student, teacher)
    return {
        "micro_f1_vs_teacher": micro,
        "kept": micro,
        "top1_agreement": float(same.mean()) if labelled.any() else None,
        "brier": float(np.mean((probability - targets) ** 2)),
        "bce": float(bce.mean()),
        "intents": {
            id_: {"f1": _f1(student[:, j], teacher[:, j]), "support": int(teacher[:, j].sum())}
            for j, id_ in enumerate(intent_ids)
        },
    }


def _f1(student: np.ndarray, teacher: np.ndarray) -> float | None:
    """F1; None where neither finds anything."""
    together = int(student.sum() + teacher.sum())
    return 2 * int((student & teacher).sum()) / together if together else None
