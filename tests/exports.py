"""Exported models of one shape share a graph: what a test's fit costs most is to make the same one again.

Fits here take a second, and the exporter four, whatever the data. What it makes of a model is the same for
any other of the same shape, except for the weights; ``test_encoder_runtime`` holds the two equal, byte by
byte.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from clickintent.encoder.model import SessionModel

Export = Callable[["SessionModel", int], bytes]


def remembering(export: Export) -> Export:
    """``export``, which is called once for each shape of model; others get its graph and their weights."""
    made: dict[str, bytes] = {}

    def exported(model: SessionModel, text_dim: int) -> bytes:
        import onnx

        from clickintent.encoder.folded import FoldedModel

        folded = FoldedModel(model)
        weights = {name: tensor.detach().numpy() for name, tensor in folded.state_dict().items()}
        # The exporter keeps equal tensors once, and so they are part of the shape.
        values = [(tensor.shape, tensor.tobytes()) for tensor in weights.values()]
        same = [values.index(value) for value in values]
        heads = [getattr(block, "heads", 0) for block in model.blocks]
        shape = repr((text_dim, heads, same, [(name, a.shape) for name, a in weights.items()], folded))
        if shape not in made:
            made[shape] = export(model, text_dim)
            return made[shape]
        proto = onnx.load_from_string(made[shape])
        for tensor in proto.graph.initializer:
            if tensor.name in weights:
                tensor.raw_data = np.ascontiguousarray(weights[tensor.name]).tobytes()
        serialized: bytes = proto.SerializeToString()
        return serialized

    return exported
