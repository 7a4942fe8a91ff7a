"""Embedding in onnxruntime: no torch here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
import onnxruntime

from clickintent.encoder.features import FeatureSpace, FlatEvents, Floats, Inputs, Ints, ranges
from clickintent.encoder.single import Event, few_sessions
from clickintent.encoder.text import TextVectors
from clickintent.errors import ArtifactError

#: The graph's inputs, in order (see ``folded.FoldedModel.forward``), and its output.
INPUTS = ("page", "event_type", "hour_of_week", "text", "log_dwell", "log_gap", "lengths", "texts")
OUTPUT = "session_embedding"  # not "embedding": the exporter calls inner values so

#: The operation for a sum and the LayerNorm behind it takes a multiple of the two apart: without
#: it, a call of the default model takes 12 % less processor time (onnxruntime 1.32).
_SLOW_FUSIONS = ["SkipLayerNormFusion"]

#: Padded events in one call: few enough that what one operation leaves is in the core's cache for the next.
_CALL_EVENTS = 1024  # measured: 512 to 2048 are equally fast, 128 or 8192 a sixth slower


def cpu_threads() -> int:
    """Threads of one operation in training: one, or ``OMP_NUM_THREADS`` where that is set.

    At these widths a second thread waits more than it works. Measured on 2 cores with the default model: a
    training step takes 57 ms with one, 47 with two on an idle machine and over 700 beside any other busy
    process. Embedding has one always: it makes several calls side by side instead.
    """
    return _asked() or 1


def cpu_workers() -> int:
    """Calls side by side: as many as this process has cores, or ``OMP_NUM_THREADS`` where that is set."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return _asked() or (len(affinity(0)) if affinity else os.cpu_count() or 1)


def _asked() -> int:
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(int(asked), 1) if asked.isdecimal() else 0


def open_session(onnx: bytes, where: str) -> onnxruntime.InferenceSession:
    """onnxruntime with the encoder's graph, or one that goes on from it.

    Raises:
        ArtifactError: if ``onnx`` is no such model; names ``where``.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1  # see cpu_threads
    options.enable_mem_pattern = False  # it remembers a plan for each shape, and gains nothing here
    try:
        return onnxruntime.InferenceSession(
            onnx, options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOW_FUSIONS
        )
    except Exception as error:  # onnxruntime has an exception class per kind of damage
        raise ArtifactError(
            f"{where}: not a model that onnxruntime can read. Save the encoder anew. ({error})"
        ) from error


class OnnxEncoder:
    """A saved session encoder, ready to embed. Several threads may use one."""

    def __init__(self, onnx: bytes, space: FeatureSpace, text: TextVectors, dim: int, where: str) -> None:
        """
        Raises:
            ArtifactError: if ``onnx`` is no such model; names ``where``.
        """
        self._space, self._text, self.dim = space, text, dim
        self._session = open_session(onnx, where)

    def embed(self, flat: FlatEvents) -> Floats:
        """(n, dim) float32, in the order of the sessions; a session without events is the zero vector."""
        out = np.zeros((len(flat.lengths), self.dim), dtype=np.float32)
        for rows, inputs in self.calls(flat):
            out[rows] = self._run(inputs)
        return out

    def calls(self, flat: FlatEvents) -> Iterator[tuple[Ints, Inputs]]:
        """The inputs of each call, and which sessions they are of."""
        order = np.argsort(flat.lengths, kind="stable")
        order = order[flat.lengths[order] > 0]
        lengths = flat.lengths[order]
        ends = np.cumsum(lengths)
        starts = ends - lengths
        events = ranges(flat.offsets[order], lengths)
        columns: Inputs = {
            "page": self._space.pages.encode(flat.page)[events].astype(np.int32),
            "event_type": self._space.event_types.encode(flat.event_type)[events].astype(np.int32),
            "hour_of_week": flat.hour_of_week[events].astype(np.int32),
            "text": flat.text[events].astype(np.int32),
            "log_dwell": flat.log_dwell[events],
            "log_gap": flat.log_gap[events],
        }
        columns["log_dwell"][ends - 1] = np.nan  # what lasts until an event outside is the future
        texts = self._text(flat.texts)
        for first, stop in _ranges(lengths):
            longest = int(lengths[stop - 1])
            if lengths[first] == longest:  # nothing to pad, nothing to copy
                span = slice(starts[first], ends[stop - 1])
                inputs = {name: column[span].reshape(-1, longest) for name, column in columns.items()}
            else:
                index = np.minimum(starts[first:stop, None] + np.arange(longest), ends[-1] - 1)
                inputs = {name: column[index] for name, column in columns.items()}
            inputs.update(lengths=lengths[first:stop].astype(np.int32), texts=texts)
            yield order[first:stop], inputs

    def embed_one(self, events: Sequence[Event], *, last: int) -> Floats:
        """(dim,) float32; see ``SessionEncoder.embed_one``."""
        if not events:
            return np.zeros(self.dim, dtype=np.float32)
        found: Floats = self._run(self.call([events], last=last))[0]
        return found

    def call(self, sessions: Sequence[Sequence[Event]], *, last: int) -> Inputs:
        """The inputs of one call for a few sessions of at least one event each."""
        inputs, texts = few_sessions(sessions, self._space, last)
        return {**inputs, "texts": self._text(texts)}

    def _run(self, inputs: Inputs) -> Floats:
        embedding: Floats = self._session.run([OUTPUT], inputs)[0]
        return embedding


def _ranges(lengths: Ints) -> Iterator[tuple[int, int]]:
    """Ranges of rows for one call each, from ascending lengths of at least one.

    Rows of one length where there are enough of them, else of lengths that differ by at most an eighth.
    """
    stop = len(lengths)
    while stop:
        longest = int(lengths[stop - 1])
        similar = int(np.searchsorted(lengths, longest - longest // 8))
        first = max(stop - max(_CALL_EVENTS // longest, 1), similar)
        yield first, stop
        stop = first
