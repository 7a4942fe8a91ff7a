"""The student: a small MLP that reads intents off a session embedding, so that no language model runs online.

Training is in ``distill`` and needs torch; predicting is numpy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from clickintent.config import StudentConfig
from clickintent.errors import ArtifactError, DataError, EmptyInputError
from clickintent.workspace import atomically, write_json

_WEIGHTS, _META = "student.safetensors", "student.json"
_ROWS = 8_192  # predicted at a time: what fits into the cache is twice as fast
_FORMAT = 1

Arrays = dict[str, np.ndarray]


class IntentLabeler:
    """Embedding (n, dim) → probability of every intent (n, k).

    Attributes:
        intent_ids: the intents, in the order of the columns.
        thresholds: (k,) float32; from there on an intent counts as present. Chosen for the best F1 on
            held-out sessions.
        metrics: agreement with the teacher on sessions used for nothing else; see ``distill.train``.
    """

    def __init__(self, config: StudentConfig | None = None, *, seed: int = 7) -> None:
        self.config = config or StudentConfig()
        self.seed = seed
        self.intent_ids: tuple[str, ...] = ()
        self.thresholds: np.ndarray = np.empty(0, np.float32)
        self.metrics: dict[str, Any] = {}
        self._arrays: Arrays = {}

    def fit(self, embeddings: np.ndarray, targets: np.ndarray, intent_ids: Sequence[str]) -> IntentLabeler:
        """Learn the teacher's confidences.

        Args:
            embeddings: (n, dim), finite.
            targets: (n, k), soft labels in [0, 1].
            intent_ids: k ids.

        Raises:
            EmptyInputError: without rows or intents.
            DataError: if shapes or values do not fit.
            MissingDependencyError: without torch.
        """
        embeddings, targets = _checked(embeddings, targets, intent_ids)
        from clickintent.taxonomy import distill

        trained = distill.train(embeddings, targets, tuple(intent_ids), self.config, self.seed)
        self.intent_ids = tuple(intent_ids)
        self._arrays, self.thresholds, self.metrics = trained.arrays, trained.thresholds, trained.metrics
        return self

    def predict_proba(self, embeddings: np.ndarray) -> np.ndarray:
        """Probability of each intent: (n, k) float32, for embeddings (n, dim).

        Raises:
            DataError: if the embeddings have another width than those it was trained on.
        """
        self._fitted()
        embeddings = np.asarray(embeddings, np.float32)
        dim = len(self._arrays["mean"])
        if embeddings.ndim != 2 or embeddings.shape[1] != dim:
            raise DataError(
                f"the student was trained on embeddings of width {dim}, not of shape {embeddings.shape}. Run "
                "'clickintent distill' again after a change of the encoder."
            )
        out = np.empty((len(embeddings), len(self.intent_ids)), np.float32)
        for at in range(0, len(embeddings), _ROWS):
            out[at : at + _ROWS] = forward(self._arrays, embeddings[at : at + _ROWS])
        return out

    def predict(self, embeddings: np.ndarray) -> np.ndarray:
        """Which intents are present: (n, k) bool, by the thresholds."""
        present: np.ndarray = self.predict_proba(embeddings) >= self.thresholds
        return present

    def save(self, folder: Path | str) -> None:
        """Write ``student.safetensors`` and ``student.json`` into ``folder``, atomically."""
        self._fitted()
        with atomically(Path(folder)) as temporary:
            temporary.mkdir()
            save_file({**self._arrays, "thresholds": self.thresholds}, temporary / _WEIGHTS)
            meta = {
                "format": _FORMAT,
                "intent_ids": list(self.intent_ids),
                "seed": self.seed,
                "config": self.config.model_dump(mode="json"),
                "metrics": self.metrics,
            }
            write_json(meta, temporary / _META)

    @classmethod
    def load(cls, folder: Path | str) -> IntentLabeler:
        """Read a saved student.

        Raises:
            ArtifactError: if it is missing, damaged, or of another format.
        """
        folder = Path(folder)
        try:
            meta = json.loads((folder / _META).read_text(encoding="utf-8"))
            arrays = load_file(folder / _WEIGHTS)
            labeler = cls(StudentConfig.model_validate(meta["config"]), seed=int(meta["seed"]))
            ids = tuple(str(id_) for id_ in meta["intent_ids"])
            _check_arrays(arrays, len(ids), meta["format"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise ArtifactError(
                f"{folder}: not a readable student ({error}). Run 'clickintent distill' again."
            ) from error
        labeler.intent_ids, labeler.metrics = ids, meta["metrics"]
        labeler.thresholds = arrays.pop("thresholds")
        labeler._arrays = arrays
        return labeler

    def _fitted(self) -> None:
        if not self._arrays:
            raise DataError("this student has not been trained; call fit or IntentLabeler.load first.")


def forward(arrays: Arrays, embeddings: np.ndarray) -> np.ndarray:
    """The network in numpy: standardise, hidden layer with GELU (tanh form), logistic output."""
    x = (embeddings - arrays["mean"]) / arrays["std"]
    x = x @ arrays["hidden.weight"].T + arrays["hidden.bias"]
    x = 0.5 * x * (1 + np.tanh(np.float32(0.79788456) * (x + np.float32(0.044715) * x * x * x)))
    logits = x @ arrays["out.weight"].T + arrays["out.bias"]
    probability: np.ndarray = 0.5 * (1 + np.tanh(0.5 * logits))  # the logistic function, without overflow
    return probability


def _checked(
    embeddings: np.ndarray, targets: np.ndarray, intent_ids: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    embeddings, targets = np.asarray(embeddings, np.float32), np.asarray(targets, np.float32)
    if embeddings.ndim != 2 or targets.shape != (len(embeddings), len(intent_ids)):
        raise DataError(
            f"embeddings {embeddings.shape} and targets {targets.shape} do not fit together: "
            f"wanted (n, dim) and (n, {len(intent_ids)}), one column per intent."
        )
    if len(embeddings) == 0 or len(intent_ids) == 0:
        raise EmptyInputError(
            "nothing to learn from: no labelled session, or no intent. Run 'clickintent label'."
        )
    if not np.isfinite(embeddings).all():
        raise DataError("embeddings hold NaN or infinite values; run 'clickintent embed' again.")
    if not ((targets >= 0) & (targets <= 1)).all():
        raise DataError("targets must be confidences from 0 to 1.")
    return embeddings, targets


def _check_arrays(arrays: Arrays, k: int, version: int) -> None:
    if version != _FORMAT:
        raise ValueError(f"its format is {version}, this version reads {_FORMAT}")
    dim, hidden = len(arrays["mean"]), len(arrays["hidden.bias"])
    shapes = {
        "mean": (dim,),
        "std": (dim,),
        "hidden.weight": (hidden, dim),
        "hidden.bias": (hidden,),
        "out.weight": (k, hidden),
        "out.bias": (k,),
        "thresholds": (k,),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} is of shape {arrays[name].shape} instead of {shape}, or not finite")
