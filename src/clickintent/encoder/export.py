"""The trained session model → ONNX, for hosts without torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings

import torch

from clickintent.encoder.features import NUMERIC_WIDTH
from clickintent.encoder.model import SessionModel
from clickintent.errors import require

#: Names of the graph's inputs, in order; see SessionModel.hidden for shapes.
INPUTS = ("page", "event_type", "numeric", "text", "lengths")
OUTPUT = "session_embedding"  # not "embedding": the exporter calls inner values so


def export_onnx(model: SessionModel, text_dim: int) -> bytes:
    """The model with dynamic batch and length; one output, ``session_embedding`` (B, dim).

    Raises:
        MissingDependencyError: if onnx or onnxscript is not installed.
    """
    require("onnx", "train")
    require("onnxscript", "train")
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    rows, events = 3, 5  # an example; neither may be 1, which would be taken as a constant
    example = (
        torch.ones(rows, events, dtype=torch.int64),
        torch.ones(rows, events, dtype=torch.int64),
        torch.zeros(rows, events, NUMERIC_WIDTH),
        torch.zeros(rows, events, text_dim),
        torch.full((rows,), events, dtype=torch.int64),
    )
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
                model.eval(),
                example,
                dynamo=True,
                input_names=list(INPUTS),
                output_names=[OUTPUT],
                dynamic_shapes=(both, both, both, both, {0: batch}),
                verbose=False,
            )
            assert program is not None  # with dynamo=True it always is
            serialized: bytes = program.model_proto.SerializeToString()
    finally:
        logging.disable(level)
    return serialized
