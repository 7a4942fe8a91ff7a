"""Embedding in onnxruntime: no torch here."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime

from clickintent.encoder.features import FeatureSpace, FlatEvents, Floats, Ints, pad
from clickintent.encoder.text import TextVectors
from clickintent.errors import ArtifactError

#: Padded events in one call: large enough to keep the cores busy, small enough for the cache.
_BATCH_EVENTS = 2048


def cpu_threads() -> int:
    """One, or ``OMP_NUM_THREADS`` where that is set.

    At these widths a second thread waits more than it works. Measured on 2 cores with the default model:
    embedding 18,400 sessions/s with one thread, 9,500 with two (13,500 if they may not spin); a training step
    57 ms with one, 47 with two on an idle machine and over 700 beside any other busy process.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(int(asked), 1) if asked.isdecimal() else 1


class OnnxEncoder:
    """A saved session encoder, ready to embed."""

    def __init__(self, onnx: bytes, space: FeatureSpace, text: TextVectors, dim: int, where: str) -> None:
        """
        Raises:
            ArtifactError: if ``onnx`` is no such model; names ``where``.
        """
        self._space, self._text, self._dim = space, text, dim
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = cpu_threads()
        try:
            self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has an exception class per kind of damage
            raise ArtifactError(
                f"{where}: not a model that onnxruntime can read. Save the encoder anew. ({error})"
            ) from error

    def embed(self, flat: FlatEvents) -> Floats:
        """(n, dim) float32, in the order of the sessions; a session without events is the zero vector."""
        lengths = flat.lengths
        out = np.zeros((len(lengths), self._dim), dtype=np.float32)
        if not lengths.sum():
            return out
        events = self._space.encode(flat)
        vectors = self._text(flat.texts)
        for rows in _buckets(lengths):
            batch = pad(events, flat.offsets[rows], lengths[rows])
            inputs = {
                "page": batch.page,
                "event_type": batch.event_type,
                "numeric": batch.numeric,
                "text": vectors[batch.text],
                "lengths": batch.lengths,
            }
            out[rows] = self._session.run(None, inputs)[0]
        return out


def _buckets(lengths: Ints) -> list[Ints]:
    """Rows of similar length together; empty sessions in none."""
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    found: list[Ints] = []
    end = len(order)
    while end:
        start = max(end - max(_BATCH_EVENTS // int(lengths[order[end - 1]]), 1), 0)
        found.append(order[start:end])
        end = start
    return found
