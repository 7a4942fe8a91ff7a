"""Encoder and student as one ONNX graph: what goes into the encoder → embedding and intent probabilities.

For hosts that serve labels from onnxruntime alone. The student's operations are appended to the
encoder's graph, so that both are computed in one call and the embedding is at hand, too. Writing needs the
package ``onnx``; running needs neither it nor torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from clickintent.encoder import SessionEncoder
from clickintent.encoder.files import in_order
from clickintent.encoder.runtime import OUTPUT, cpu_workers, open_session
from clickintent.encoder.single import Event
from clickintent.errors import ArtifactError, DataError, require
from clickintent.taxonomy.student import IntentLabeler
from clickintent.workspace import atomically

PROBABILITY = "intent_probability"
_ROWS = 4_096  # sessions of a piece that one thread labels
_IDS, _THRESHOLD, _VERSION = "intent_ids", "threshold", "encoder_version"
_OF_NOTHING = "of_a_session_without_events"

_ABOUT = """
intent_probability (B, k) float32: of the k intents in the metadata (intent_ids, one a line), calibrated.
From the
    threshold in the metadata on an intent counts as present.
"""


def export_graph(encoder: SessionEncoder, student: IntentLabeler, path: Path | str) -> None:
    """Write the graph to ``path``, atomically. Its inputs are those of ``encoder.onnx`` (see ``doc_string``).

    Raises:
        ArtifactError: if the encoder is not trained.
        DataError: if the student is not trained, or was trained on embeddings of another width.
        MissingDependencyError: if onnx is not installed.
    """
    onnx = require("onnx", "train")
    arrays = student.arrays
    dim = arrays["hidden.weight"].shape[1]
    if dim != encoder.config.dim:
        raise DataError(
            f"the student takes embeddings of width {dim}, the encoder makes {encoder.config.dim}. Run "
            "'clickintent distill' again."
        )
    proto = onnx.load_from_string(encoder.onnx)
    graph, make = proto.graph, onnx.helper.make_node
    slope, above, shift = arrays.pop("calibration")
    arrays |= {"slope": slope, "bend": above - slope, "shift": shift}
    named = {name: f"student.{name}" for name in arrays}
    graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(value, np.float32, order="C"), named[name])
        for name, value in arrays.items()
    )
    hidden, out = ([named[f"{layer}.{part}"] for part in ("weight", "bias")] for layer in ("hidden", "out"))
    graph.node.extend(
        [
            make("Gemm", [OUTPUT, *hidden], ["student.hidden"], transB=1),
            make("Relu", ["student.hidden"], ["student.relu"]),
            make("Gemm", ["student.relu", *out], ["student.logit"], transB=1),
            # as ``calibration.calibrated``
            make("Softplus", ["student.logit"], ["student.soft"]),
            make("Mul", ["student.soft", named["bend"]], ["student.bent"]),
            make("Mul", ["student.logit", named["slope"]], ["student.sloped"]),
            make("Add", ["student.sloped", "student.bent"], ["student.both"]),
            make("Add", ["student.both", named["shift"]], ["student.calibrated"]),
            make("Sigmoid", ["student.calibrated"], [PROBABILITY]),
        ]
    )
    batch = graph.output[0].type.tensor_type.shape.dim[0].dim_param or "batch"
    kind = onnx.TensorProto.FLOAT
    graph.output.append(
        onnx.helper.make_tensor_value_info(PROBABILITY, kind, [batch, len(student.intent_ids)])
    )
    proto.doc_string += _ABOUT
    onnx.helper.set_model_props(
        proto,
        {
            _IDS: "\n".join(student.intent_ids),
            _THRESHOLD: repr(student.threshold),
            _VERSION: encoder.version,
            _OF_NOTHING: json.dumps(student.predict_proba(np.zeros((1, dim), np.float32))[0].tolist()),
        },
    )
    onnx.checker.check_model(proto)
    with atomically(Path(path)) as temporary:
        temporary.write_bytes(proto.SerializeToString())


class IntentGraph:
    """A written graph with the encoder's vocabulary and texts: sessions → embeddings and probabilities.

    Attributes:
        intent_ids: the intents, in the order of the columns.
        threshold: from there on an intent counts as present.
    """

    def __init__(self, path: Path | str, encoder: SessionEncoder) -> None:
        """
        Args:
            encoder: the one that the graph was made of; it turns sessions into the graph's inputs.

        Raises:
            ArtifactError: if the file is missing, damaged, or was made of another encoder.
        """
        path = Path(path)
        try:
            self._session = open_session(path.read_bytes(), str(path))
            meta = self._session.get_modelmeta().custom_metadata_map
            made_of, self.threshold = meta[_VERSION], float(meta[_THRESHOLD])
            self.intent_ids = tuple(meta[_IDS].split("\n"))
            self._of_nothing = np.array(json.loads(meta[_OF_NOTHING]), np.float32)
        except (OSError, KeyError, ValueError) as error:
            raise ArtifactError(
                f"{path}: not a readable graph of encoder and student ({error}). Run 'clickintent "
                "distill' again."
            ) from error
        if made_of != encoder.version:
            raise ArtifactError(
                f"{path} was made of encoder {made_of}, not {encoder.version}. Run 'clickintent distill' "
                "again."
            )
        self._encoder = encoder

    def label(self, sessions: pa.Table, *, workers: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings (n, dim) and intent probabilities (n, k), float32, in the order of the rows.

        A session without events has the zero vector, and what the student makes of it.

        Args:
            workers: threads; the number of cores if not given. The result is the same with any number.

        Raises:
            MissingColumnsError, DataError: as ``SessionEncoder.embed``.
        """
        starts = range(0, max(sessions.num_rows, 1), _ROWS)
        pieces = (sessions.slice(at, _ROWS) for at in starts)
        some = min(workers or cpu_workers(), len(starts))
        embeddings, probabilities = zip(*in_order(self._label, pieces, some), strict=True)
        return np.concatenate(embeddings), np.concatenate(probabilities)

    def label_few(self, sessions: Sequence[Sequence[Event]]) -> tuple[np.ndarray, np.ndarray]:
        """The same of a few sessions as Python objects (see ``SessionEncoder.embed_one``).

        Raises:
            DataError: as ``SessionEncoder.embed_one``.
        """
        embeddings = np.zeros((len(sessions), self._encoder.config.dim), np.float32)
        probabilities = np.tile(self._of_nothing, (len(sessions), 1))
        alike: dict[int, list[int]] = {}  # lengths up to the same power of two: little to pad, few calls
        for row, events in enumerate(sessions):
            if events:
                length = min(len(events), self._encoder.config.max_events)
                alike.setdefault((length - 1).bit_length(), []).append(row)
        for rows in alike.values():
            inputs = self._encoder.call_inputs([sessions[row] for row in rows])
            embeddings[rows], probabilities[rows] = self._session.run([OUTPUT, PROBABILITY], inputs)
        return embeddings, probabilities

    def _label(self, piece: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        embeddings = np.zeros((piece.num_rows, self._encoder.config.dim), np.float32)
        probabilities = np.tile(self._of_nothing, (piece.num_rows, 1))
        for rows, inputs in self._encoder.graph_inputs(piece):
            embeddings[rows], probabilities[rows] = self._session.run([OUTPUT, PROBABILITY], inputs)
        return embeddings, probabilities
