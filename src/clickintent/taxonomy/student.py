"""The student: a small MLP that reads intents off a session embedding, so that no language model runs online.

Training is in ``distill`` and needs torch; predicting is numpy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from clickintent.config import StudentConfig
from clickintent.errors import ArtifactError, DataError, EmptyInputError
from clickintent.taxonomy.calibration import PRECISIONS, calibrated
from clickintent.workspace import atomically, write_json

_WEIGHTS, _META = "student.safetensors", "student.json"
_ROWS = 4_096  # predicted at a time: what fits into the cache is twice as fast
_FORMAT = 3

Arrays = dict[str, np.ndarray]


class IntentLabeler:
    """Embedding (n, dim) → probability of every intent (n, k).

    Attributes:
        intent_ids: the intents, in the order of the columns.
        threshold: from there on an intent counts as present; chosen for the best micro F1.
        metrics: agreement with the teacher on sessions used for nothing else; see ``distill.train``.

    Probabilities are calibrated on held-out sessions of those that it was fitted on (see ``calibration``), so
    that of the labels of about 0.8 about 80 % are right, as the teacher sees it.
    """

    def __init__(self, config: StudentConfig | None = None, *, seed: int = 7) -> None:
        self.config = config or StudentConfig()
        self.seed = seed
        self.intent_ids: tuple[str, ...] = ()
        self.threshold = 0.5
        self.metrics: dict[str, Any] = {}
        self._arrays: Arrays = {}
        self._cutoffs: np.ndarray = np.empty(0, np.float32)

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
        self.intent_ids, self.metrics = tuple(intent_ids), trained.metrics
        self._arrays, self.threshold, self._cutoffs = trained.arrays, trained.threshold, trained.cutoffs
        return self

    def predict_proba(self, embeddings: np.ndarray) -> np.ndarray:
        """Probability of each intent: (n, k) float32, for embeddings (n, dim).

        Raises:
            DataError: if the embeddings have another width than those it was trained on.
        """
        self._fitted()
        embeddings = np.asarray(embeddings, np.float32)
        dim = self._arrays["hidden.weight"].shape[1]
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
        """Which intents are present: (n, k) bool, by the threshold."""
        present: np.ndarray = self.predict_proba(embeddings) >= self.threshold
        return present

    def cutoff(self, precision: float) -> float:
        """The least probability from which on labels were right so often, on held-out sessions.

        "Right" is what the teacher says. Labels below it are better not given, and a session without any is
        left without. Infinite if no probability is high enough, or too few sessions could be held out to
        tell.

        Args:
            precision: from 0 to 1, taken up to full per cents.
        """
        self._fitted()
        if not 0.0 <= precision <= 1.0:
            raise ValueError(f"precision is {precision}; it must be from 0 to 1")
        return float(self._cutoffs[math.ceil(round(100 * precision, 6))])

    @property
    def arrays(self) -> Arrays:
        """The weights: ``hidden.weight`` (hidden, dim), ``out.weight`` (k, hidden), a bias each, and
        ``calibration`` (3,).

        Raises:
            DataError: if it has not been trained.
        """
        self._fitted()
        return dict(self._arrays)

    def save(self, folder: Path | str) -> None:
        """Write ``student.safetensors`` and ``student.json`` into ``folder``, atomically."""
        self._fitted()
        with atomically(Path(folder)) as temporary:
            temporary.mkdir()
            save_file({**self._arrays, "cutoffs": self._cutoffs}, temporary / _WEIGHTS)
            meta = {
                "format": _FORMAT,
                "intent_ids": list(self.intent_ids),
                "threshold": self.threshold,
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
            labeler.threshold = float(meta["threshold"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise ArtifactError(
                f"{folder}: not a readable student ({error}). Run 'clickintent distill' again."
            ) from error
        labeler.intent_ids, labeler.metrics = ids, meta["metrics"]
        labeler._cutoffs = arrays.pop("cutoffs")
        labeler._arrays = arrays
        return labeler

    def _fitted(self) -> None:
        if not self._arrays:
            raise DataError("this student has not been trained; call fit or IntentLabeler.load first.")


def logits(arrays: Arrays, embeddings: np.ndarray) -> np.ndarray:
    """The network in numpy: hidden layer with ReLU, linear output."""
    x = embeddings @ arrays["hidden.weight"].T
    x += arrays["hidden.bias"]
    np.maximum(x, 0, out=x)
    x = x @ arrays["out.weight"].T
    x += arrays["out.bias"]
    found: np.ndarray = x
    return found


def forward(arrays: Arrays, embeddings: np.ndarray) -> np.ndarray:
    """Probabilities: the logistic function of calibrated logits, as a tangent, which does not overflow."""
    x = calibrated(logits(arrays, embeddings), arrays["calibration"])
    x *= 0.5
    np.tanh(x, out=x)
    x *= 0.5
    x += 0.5
    return x


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
    hidden, dim = arrays["hidden.weight"].shape
    shapes = {
        "hidden.weight": (hidden, dim),
        "hidden.bias": (hidden,),
        "out.weight": (k, hidden),
        "out.bias": (k,),
        "calibration": (3,),
        "cutoffs": (len(PRECISIONS),),
    }
    for name, shape in shapes.items():
        values = arrays[name]
        sound = not np.isnan(values).any() if name == "cutoffs" else np.isfinite(values).all()
        if values.shape != shape or not sound:
            raise ValueError(f"{name} is of shape {values.shape} instead of {shape}, or not finite")
