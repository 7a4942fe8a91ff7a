"""The public session encoder: fit, embed, save, load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickintent.config import EncoderConfig
from clickintent.encoder import files, storage
from clickintent.encoder.distributed import team
from clickintent.encoder.features import Floats, flatten
from clickintent.encoder.runtime import OnnxEncoder, cpu_workers
from clickintent.encoder.source import Sessions, open_source
from clickintent.errors import ArtifactError, require


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

    def fit(
        self,
        sessions: Sessions,
        *,
        filter: pc.Expression | None = None,
        checkpoints: Path | None = None,
    ) -> SessionEncoder:
        """Learn from sessions: a table, a Parquet file or a folder of them, or a dataset.

        Needed are the columns ``start`` and ``events`` of ``schema.SESSIONS``; with ``visitor_id`` it learns
        from what visitors come back for, too. The last 5 % of the sessions by start are held out, to measure
        the prediction of the next page. Files are streamed: memory does not grow with them.

        Under ``torchrun`` all processes call this with the same arguments, train together, each on pieces of
        its own, and all have the encoder in the end.

        Args:
            filter: which sessions; all if not given.
            checkpoints: a folder; if given, a killed fit on the same data, configuration and seed goes on
                where it was, and ends with the same weights.

        Raises:
            ConfigError: if the device or the sentence model of the configuration is not there.
            DataError: if a file cannot be read.
            EmptyInputError: if there is no session with an event.
            MissingColumnsError: if a column is missing.
            MissingDependencyError: if torch is not installed.
        """
        with team() as processes:
            require("torch", "train")
            from clickintent.encoder.fitting import fit

            source = open_source(sessions, filter, parts=processes.size)
            self._saved = fit(source, self.config, self.seed, checkpoints, processes)
        self.metrics = self._saved.metrics
        self._runtime = self._saved.runtime("the encoder")
        return self

    def embed(self, sessions: pa.Table, *, workers: int | None = None) -> Floats:
        """(n, dim) float32, in the order of the rows; a session's vector does not depend on the others.

        Args:
            workers: threads; the number of cores if not given. The result is the same with any number.

        Raises:
            ArtifactError: if the encoder is neither fitted nor loaded.
            MissingColumnsError: if there is no column ``events``.
        """
        self._ready()
        pieces = (sessions.slice(at, files.ROWS) for at in range(0, max(sessions.num_rows, 1), files.ROWS))
        some = 1 if sessions.num_rows <= files.ROWS else workers or cpu_workers()
        return np.concatenate(list(files.in_order(self._embed_piece, pieces, some)))

    def embed_one(self, events: Sequence[Mapping[str, Any]]) -> Floats:
        """(dim,) float32 of one session: what ``embed`` gives, without a table, in a fraction of the time.

        Args:
            events: in the order of time, with the keys of ``schema.SESSION_EVENT``; ``ts``, ``event_type``
                and ``page`` are required. Where ``dwell_s`` or ``gap_s`` is absent, it is taken from ``ts``;
                where it is None, it is not known. Without events the result is the zero vector.

        Raises:
            ArtifactError: if the encoder is neither fitted nor loaded.
            DataError: if an event lacks a key or has a value of another type; says which.
        """
        return self._ready().embed_one(events, last=self.config.max_events)

    def embed_parquet(
        self,
        source: Path,
        target: Path,
        *,
        filter: pc.Expression | None = None,
        workers: int | None = None,
    ) -> int:
        """Embed the sessions of Parquet files, and return how many they are.

        Memory does not grow with the files.

        Args:
            source: a file or a folder of ``schema.SESSIONS`` (``session_id`` and ``events`` are needed).
            target: the file of ``schema.embeddings`` to write, atomically, in the order of the rows read.
            filter: which sessions; all if not given.
            workers: threads; the number of cores if not given. The result is the same with any number.

        Raises:
            ArtifactError: if the encoder is neither fitted nor loaded.
            DataError: if a file cannot be read, lacks a column, or there is none.
        """
        self._ready()
        return files.embed_files(
            self._embed_piece,
            self.config.dim,
            Path(source),
            Path(target),
            keep=filter,
            workers=workers or cpu_workers(),
        )

    def _embed_piece(self, sessions: pa.Table) -> Floats:
        return self._ready().embed(flatten(sessions, last=self.config.max_events))

    def _ready(self) -> OnnxEncoder:
        if self._runtime is None:
            raise ArtifactError(
                "this encoder is not trained. Call fit(sessions), or SessionEncoder.load(folder)."
            )
        return self._runtime

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
    def load(cls, folder: Path, *, precision: storage.Precision = "float32") -> SessionEncoder:
        """Read a saved encoder; needs no torch.

        Args:
            precision: ``int8`` computes with integer weights: faster, with embeddings that differ a little
                (``metrics["int8"]``), so do not mix the two.

        Raises:
            ArtifactError: if a file is missing, damaged, or of another format, or if there is no int8 model;
                names the file.
        """
        saved = storage.load(Path(folder))
        encoder = cls(saved.config, seed=saved.seed)
        encoder.metrics = saved.metrics
        encoder._saved = saved
        name = storage.ONNX if precision == "float32" else storage.INT8
        encoder._runtime = saved.runtime(str(Path(folder) / name), precision)
        return encoder
