"""The trained session model → one ONNX file, for hosts without torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import Any

import torch

from clickintent.encoder.folded import FoldedModel
from clickintent.encoder.model import SessionModel
from clickintent.encoder.runtime import INPUTS, OUTPUT
from clickintent.errors import require

#: The first with the operation Attention; onnxruntime has it since 1.23.
_OPSET = 23

_ABOUT = """A session encoder of clickintent: B sessions of up to L events, the oldest first, to embeddings.

page, event_type (B, L) int32: ids from encoder.json: 3 + the place in features.pages or
    features.event_types; 1 for any other value.
hour_of_week (B, L) int32: UTC, 0 = Monday 00:00 to 00:59.
text (B, L) int32: rows of texts. texts (T, text_dim) float32: vectors of what the events say, "title | text".
log_dwell, log_gap (B, L) float32: ln(1 + seconds) until the next and since the previous event; NaN where
    not known. The dwell of a session's last event is not known.
lengths (B,) int32: events of each session, from 1 to config.max_events; what stands behind has no effect.
session_embedding (B, dim) float32.
"""


def export_onnx(model: SessionModel, text_dim: int) -> bytes:
    """The folded model with its tables inside, for any number of sessions, events and texts.

    The inputs are described in the model's own ``doc_string``.

    Raises:
        MissingDependencyError: if onnx or onnxscript is not installed.
    """
    require("onnx", "train")
    require("onnxscript", "train")
    batch, length, texts = (torch.export.Dim(name) for name in ("batch", "length", "texts"))
    rows, events = 3, 5  # an example; neither may be 1, which would be taken as a constant
    # each tensor is one of its own: the exporter takes equal ones for the same input
    ids = [torch.ones(rows, events, dtype=torch.int32) for _ in range(4)]
    numbers = [torch.zeros(rows, events) for _ in range(2)]
    lengths = torch.full((rows,), events, dtype=torch.int32)
    both = {0: batch, 1: length}
    chatter = io.StringIO()
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(chatter),
            contextlib.redirect_stderr(chatter),
        ):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                FoldedModel(model),
                (*ids, *numbers, lengths, torch.zeros(4, text_dim)),
                dynamo=True,
                opset_version=_OPSET,
                input_names=list(INPUTS),
                output_names=[OUTPUT],
                dynamic_shapes=(*[both] * 6, {0: batch}, {0: texts}),
                verbose=False,
            )
            assert program is not None  # with dynamo=True it always is
            proto = program.model_proto
            _forget_origin(proto.graph)
            for function in proto.functions:
                _forget_origin(function)
            proto.doc_string = _ABOUT
            serialized: bytes = proto.SerializeToString()
    finally:
        logging.disable(level)
    return serialized


def _forget_origin(graph: Any) -> None:
    """Without what the exporter notes of its origin: line numbers, and paths of the machine it ran on."""
    for part in (graph, *graph.node, *getattr(graph, "input", ()), *graph.value_info):
        if hasattr(part, "metadata_props"):
            part.ClearField("metadata_props")
        if hasattr(part, "doc_string"):
            part.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _forget_origin(attribute.g)
