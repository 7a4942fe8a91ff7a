"""The public session encoder: fit, embed, save, load."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickintent import schema
from clickintent.config import EncoderConfig
from clickintent.encoder import files, storage
from clickintent.encoder.alignment import apply_alignment, compose, explained, fit_alignment, rows_needed
from clickintent.encoder.distributed import team
from clickintent.encoder.features import Floats, Inputs, Ints, flatten
from clickintent.encoder.runtime import OnnxEncoder, cpu_workers
from clickintent.encoder.source import Sessions, open_source
from clickintent.errors import ArtifactError, DataError, require

_NOT_TRAINED = "this encoder is not trained. Call fit(sessions), or SessionEncoder.load(folder)."


class SessionEncoder:
    """Sessions → embeddings of ``config.dim`` numbers, learned without labels.

    Example:
        encoder = SessionEncoder().fit(sessions)
        vectors = encoder.embed(sessions)  # (n, 64) float32
        encoder.save(Path("encoder"))  # with a model card, README.md
    """

    def __init__(self, config: EncoderConfig | None = None, *, seed: int = 7) -> None:
        self.config = config or EncoderConfig()
        self.seed = seed
        #: After fit: sizes, losses per epoch, next-page recall on held-out sessions, seconds.
        self.metrics: dict[str, Any] = {}
        self._saved: storage.Artifact | None = None
        self._runtime: OnnxEncoder | None = None
        self._precision: storage.Precision = "float32"

    def fit(
        self,
        sessions: Sessions,
        *,
        filter: pc.Expression | None = None,
        checkpoints: Path | None = None,
        previous: SessionEncoder | None = None,
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
            previous: the encoder in use so far, into whose space the new one shall be able to embed, too: see
                :meth:`align_to`, which is called with up to 20,000 training sessions. With too few for a map
                (five for each number of an embedding), none is made, and ``spaces`` lacks it.

        Raises:
            ArtifactError: if ``previous`` is neither fitted nor loaded.
            ConfigError: if the device or the sentence model of the configuration is not there.
            DataError: if a file cannot be read, or a column is of a type that cannot be used.
            EmptyInputError: if there is no session with an event.
            MissingColumnsError: if a column is missing.
            MissingDependencyError: if torch is not installed.
        """
        if previous is not None:
            previous._artifact()
            previous = copy(previous)  # which may be this one
        with team() as processes:
            require("torch", "train")
            from clickintent.encoder.fitting import fit

            source = open_source(sessions, filter, parts=processes.size)
            folder = Path(checkpoints) if checkpoints else None
            self._saved, sample = fit(source, self.config, self.seed, folder, processes)
        self.metrics = self._saved.metrics
        self._runtime, self._precision = self._saved.runtime("the encoder"), "float32"
        if previous and sample.num_rows >= rows_needed(self.config.dim):
            self.align_to(previous, sample)
        return self

    @property
    def version(self) -> str:
        """12 hexadecimal digits, and ``-int8`` if it is loaded so; equal encoders have equal ones.

        Raises:
            ArtifactError: if the encoder is neither fitted nor loaded.
        """
        version = self._artifact().version
        return version if self._precision == "float32" else f"{version}-{self._precision}"

    @property
    def spaces(self) -> tuple[str, ...]:
        """Versions in whose space it can embed: its own, and those it was aligned to."""
        return (self.version, *self._artifact().alignments)

    def align_to(self, previous: SessionEncoder, sessions: pa.Table) -> SessionEncoder:
        """Learn to embed into the space of an earlier encoder, and of those that one was aligned to.

        A model trained on the earlier encoder's embeddings then goes on working, at some loss, on
        ``embed(sessions, space=previous.version)``, until it is trained anew. See ``alignment`` for the
        method; ``metrics["alignments"]`` says how much of the variance (0 to 1) of the earlier embeddings the
        mapped ones explain, on a fifth of the sessions that the map was not fitted on; of encoders before
        that, through which one the map goes.

        Args:
            sessions: n typical sessions, some thousand; both encoders embed them. Column ``events``.

        Raises:
            ArtifactError: if one of the two is neither fitted nor loaded.
            DataError: if there are fewer than five sessions for each number of an embedding.
        """
        saved, before = self._artifact(), previous._artifact()
        found, figures = before.alignments, dict(before.metrics.get("alignments") or {})
        if previous.version != self.version:
            if sessions.num_rows < (needed := rows_needed(self.config.dim)):
                raise DataError(
                    f"{sessions.num_rows:,} sessions to align with; at least {needed:,} are needed."
                )
            new, old = self.embed(sessions), previous.embed(sessions)
            test = np.arange(len(new)) % 5 == 0
            part = fit_alignment(new[~test], old[~test])
            step = fit_alignment(new, old)
            found = {version: compose(step, then) for version, then in found.items()}
            # Errors add up on the way, and nothing here embeds into the earlier spaces to measure them.
            figures = {version: {"through": previous.version} for version in found}
            found[previous.version] = step
            figures[previous.version] = {
                "sessions": len(new),
                "explained": explained(new[test], old[test], part),
            }
        found = {**saved.alignments, **found}
        figures = {**(saved.metrics.get("alignments") or {}), **figures}
        for of in (found, figures):
            of.pop(self.version, None)  # the earlier one knew the way back
        self.metrics = {**saved.metrics, "alignments": figures}
        self._saved = replace(saved, alignments=found, metrics=self.metrics)
        return self

    def embed(self, sessions: pa.Table, *, workers: int | None = None, space: str | None = None) -> Floats:
        """(n, dim) float32, in the order of the rows; a session's vector does not depend on the others.

        Args:
            workers: threads; the number of cores if not given. The result is the same with any number.
            space: the version of an earlier encoder, one of ``spaces``, to embed as that one did. The
                encoder's own if not given.

        Raises:
            ArtifactError: if the encoder is neither fitted nor loaded, or cannot embed into the space.
            MissingColumnsError: if there is no column ``events``, or one of an event's fields is missing.
            DataError: if a field is of a type that cannot be used.
        """
        embed, _ = self._into(space)
        pieces = (sessions.slice(at, files.ROWS) for at in range(0, max(sessions.num_rows, 1), files.ROWS))
        some = 1 if sessions.num_rows <= files.ROWS else workers or cpu_workers()
        return np.concatenate(list(files.in_order(embed, pieces, some)))

    @property
    def onnx(self) -> bytes:
        """The session model as it computes, a serialized ONNX graph; its ``doc_string`` says what goes in.

        Raises:
            ArtifactError: if the encoder is neither fitted nor loaded.
        """
        saved = self._artifact()
        return saved.onnx if self._precision == "float32" or saved.int8 is None else saved.int8

    def graph_inputs(self, sessions: pa.Table) -> Iterator[tuple[Ints, Inputs]]:
        """What ``onnx`` is given, call by call: the rows that a call is of, and its inputs by name.

        Sessions of like length are together; those without events are in none of the calls.

        Raises:
            ArtifactError, MissingColumnsError, DataError: as :meth:`embed`.
        """
        yield from self._ready().calls(flatten(sessions, last=self.config.max_events))

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

    def call_inputs(self, sessions: Sequence[Sequence[Mapping[str, Any]]]) -> Inputs:
        """What ``onnx`` is given for one call with a few sessions, padded to the longest of them.

        Args:
            sessions: as the argument of :meth:`embed_one`, at least one event each.

        Raises:
            ArtifactError, DataError: as :meth:`embed_one`.
        """
        return self._ready().call(sessions, last=self.config.max_events)

    def embed_parquet(
        self,
        source: Path,
        target: Path,
        *,
        filter: pc.Expression | None = None,
        workers: int | None = None,
        space: str | None = None,
    ) -> int:
        """Embed the sessions of Parquet files, and return how many they are.

        Memory does not grow with the files.

        Args:
            source: a file or a folder of ``schema.SESSIONS`` (``session_id`` and ``events`` are needed).
            target: the file of ``schema.embeddings`` to write, atomically, in the order of the rows read. Its
                metadata, ``encoder``, say which version's space the embeddings are of.
            filter: which sessions; all if not given.
            workers: threads; the number of cores if not given. The result is the same with any number.
            space: as in :meth:`embed`.

        Raises:
            ArtifactError: if the encoder is neither fitted nor loaded, or cannot embed into the space.
            DataError: if a file cannot be read, lacks a column, or there is none, or if ``target`` is a
                folder or where the sessions are.
        """
        embed, dim = self._into(space)
        return files.embed_files(
            embed,
            schema.embeddings(dim, space or self.version),
            Path(source),
            Path(target),
            keep=filter,
            workers=workers or cpu_workers(),
        )

    def _into(self, space: str | None) -> tuple[Callable[[pa.Table], Floats], int]:
        """How to embed a piece of a table into a space, and the numbers of its embeddings."""
        self._ready()
        if space is None or space == self.version:
            return self._embed_piece, self.config.dim
        alignment = self._artifact().alignments.get(space)
        if alignment is None:
            raise ArtifactError(
                f"encoder {self.version} cannot embed into the space of {space!r}; it can into "
                f"{', '.join(self.spaces)}. Align it first: align_to(previous, sessions)."
            )
        return lambda piece: apply_alignment(self._embed_piece(piece), alignment), alignment.shape[1]

    def _embed_piece(self, sessions: pa.Table) -> Floats:
        return self._ready().embed(flatten(sessions, last=self.config.max_events))

    def _ready(self) -> OnnxEncoder:
        if self._runtime is None:
            raise ArtifactError(_NOT_TRAINED)
        return self._runtime

    def _artifact(self) -> storage.Artifact:
        if self._saved is None:
            raise ArtifactError(_NOT_TRAINED)
        return self._saved

    def save(self, folder: Path) -> None:
        """Write the encoder into ``folder``, atomically (see storage for the files).

        Raises:
            ArtifactError: if the encoder is not trained, or what is in ``folder`` is no encoder.
        """
        storage.save(self._artifact(), Path(folder))

    @classmethod
    def load(cls, folder: Path, *, precision: storage.Precision = "float32") -> SessionEncoder:
        """Read a saved encoder; needs no torch.

        Args:
            precision: ``int8`` computes with integer weights: faster, with embeddings that differ a little
                (``metrics["int8"]``), so do not mix the two: its ``version`` is another one.

        Raises:
            ValueError: if ``precision`` is neither.
            ArtifactError: if a file is missing, damaged, or of another format, or if there is no int8 model;
                names the file.
        """
        if precision not in (known := get_args(storage.Precision)):
            raise ValueError(f"precision is {precision!r}; there are {', '.join(known)}")
        saved = storage.load(Path(folder))
        encoder = cls(saved.config, seed=saved.seed)
        encoder.metrics = saved.metrics
        encoder._saved, encoder._precision = saved, precision
        name = storage.ONNX if precision == "float32" else storage.INT8
        encoder._runtime = saved.runtime(str(Path(folder) / name), precision)
        return encoder
