"""The public session encoder: fit, embed, save, load."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clickintent.config import EncoderConfig
from clickintent.encoder import storage
from clickintent.encoder.features import Floats, Ints, flatten
from clickintent.encoder.runtime import OnnxEncoder
from clickintent.errors import ArtifactError, EmptyInputError, MissingColumnsError, require

_HELD_OUT = 0.05


class SessionEncoder:
    """Sessions → embeddings of ``config.dim`` numbers, learned without labels.

    Example:
        encoder = SessionEncoder().fit(sessions)
        vectors = encoder.embed(sessions)  # (n, 64) float32
    """

    def __init__(self, config: EncoderConfig | None = None, *, seed: int = 7) -> None:
        self.config = config or EncoderConfig()
        self.seed = seed
        #: After fit: sizes, losses per epoch, next-page recall on held-out sessions, seconds.
        self.metrics: dict[str, Any] = {}
        self._saved: storage.Artifact | None = None
        self._runtime: OnnxEncoder | None = None

    def fit(self, sessions: pa.Table, *, checkpoints: Path | None = None) -> SessionEncoder:
        """Learn from a sessions table (schema.SESSIONS; needs ``events`` and ``start``).

        The last 5 % of the sessions by start are held out, to measure the prediction of the next page.

        Args:
            checkpoints: a folder; if given, a killed fit on the same data, configuration and seed goes on
                where it was, and ends with the same weights.

        Raises:
            EmptyInputError: if there is no session with an event.
            MissingColumnsError: if a column is missing.
            MissingDependencyError: if torch is not installed.
        """
        # Threads that spin while they wait make training many times slower on a machine that has other
        # work. Read when torch loads; has no effect where it was imported before.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        require("torch", "train")
        from clickintent.encoder.fitting import fit

        missing = [name for name in ("events", "start") if name not in sessions.column_names]
        if missing:
            raise MissingColumnsError("sessions", missing, sessions.column_names)
        flat = flatten(sessions)
        rows = np.flatnonzero(flat.lengths > 0)
        if not len(rows):
            raise EmptyInputError(
                "no session with an event to train the encoder on. Check what was ingested."
            )
        train_rows, test_rows = _by_time(sessions["start"].to_numpy()[rows], rows)
        self._saved, self.metrics = fit(flat, train_rows, test_rows, self.config, self.seed, checkpoints)
        self._runtime = self._saved.runtime("the encoder")
        return self

    def embed(self, sessions: pa.Table) -> Floats:
        """(n, dim) float32, in the order of the rows; a session's vector does not depend on the others.

        Raises:
            ArtifactError: if the encoder is neither fitted nor loaded.
            MissingColumnsError: if there is no column ``events``.
        """
        if self._runtime is None:
            raise ArtifactError(
                "this encoder is not trained. Call fit(sessions), or SessionEncoder.load(folder)."
            )
        return self._runtime.embed(flatten(sessions, last=self.config.max_events))

    def save(self, folder: Path) -> None:
        """Write the encoder into ``folder``, atomically (see storage for the files).

        Raises:
            ArtifactError: if the encoder is not trained.
        """
        if self._saved is None:
            raise ArtifactError(
                "this encoder is not trained, so there is nothing to save. Call fit(sessions)."
            )
        storage.save(self._saved, Path(folder))

    @classmethod
    def load(cls, folder: Path) -> SessionEncoder:
        """Read a saved encoder; needs no torch.

        Raises:
            ArtifactError: if a file is missing, damaged, or of another format; names the file.
        """
        saved = storage.load(Path(folder))
        encoder = cls(saved.config, seed=saved.seed)
        encoder.metrics = saved.metrics
        encoder._saved = saved
        encoder._runtime = saved.runtime(str(Path(folder) / storage.ONNX))
        return encoder


def _by_time(start: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """The earlier rows to train, the last ones to test; none to test if there are fewer than twenty."""
    held = int(len(rows) * _HELD_OUT)
    order = np.argsort(start, kind="stable")
    return np.sort(rows[order[: len(rows) - held]]), np.sort(rows[order[len(rows) - held :]])
