"""The exported model with integer weights, kept only if it gives almost the same embeddings.

Of each linear layer the weights become int8 per output, the inputs uint8. The scale of the inputs is fixed
here, on a sample of sessions. With the usual dynamic one, taken from each batch, a session's embedding would
depend on the others of its batch (by up to 0.02, measured), and finding it costs time. Weights have seven
bits: with eight, sums overflow on processors without VNNI (onnxruntime's page "Quantize ONNX models").

Measured on one core with VNNI, from Parquet to Parquet: 1.24 times as many sessions a second as in float32
(1.16 to 1.29 in eight pairs of runs). A GRU stays in float32, its model no faster (1.03; 0.96 to 1.09).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from clickintent.encoder.features import FlatEvents, Floats, Inputs
from clickintent.encoder.storage import Artifact

#: The int8 model is kept if at least this share of sessions keeps this cosine to its own embedding.
COSINE, SHARE = 0.999, 0.999

_WEIGHT_MAX, _INPUT_MAX = 63, 255
_DOMAIN = "com.microsoft"

Range = tuple[float, float]


def with_int8(artifact: Artifact, sample: FlatEvents) -> Artifact:
    """The artifact with an int8 model if that is accepted, and its cosines in the metrics.

    Args:
        sample: some thousand sessions. Calls of every second length set the scales, all sessions judge.
    """
    exact = artifact.runtime("the encoder")
    calls = [inputs for _, inputs in exact.calls(sample)]
    int8 = quantize(artifact.onnx, calls[::2])
    coarse = replace(artifact, int8=int8).runtime("the int8 encoder", "int8")
    cosine = _cosines(exact.embed(sample), coarse.embed(sample))
    accepted = bool((cosine >= COSINE).mean() >= SHARE)
    figures: dict[str, Any] = {
        "accepted": accepted,
        "sessions": len(cosine),
        "min_cosine": float(cosine.min()),
        "mean_cosine": float(cosine.mean()),
    }
    return replace(artifact, int8=int8 if accepted else None, metrics={**artifact.metrics, "int8": figures})


def quantize(model: bytes, calls: Iterable[Inputs]) -> bytes:
    """The model with every linear layer but the last in integers, for inputs like those of ``calls``."""
    proto = onnx.load_from_string(model)
    graph = proto.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    output = graph.output[0].name
    layers = [n for n in graph.node if _is_linear(n, weights) and output not in n.output]
    ranges = _ranges(model, [layer.input[0] for layer in layers], calls)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node not in layers:
            nodes.append(node)
            continue
        tensors, made = _in_integers(node, weights, ranges[node.input[0]])
        graph.initializer.extend(tensors)
        nodes.extend(made)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    proto.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    onnx.checker.check_model(proto)
    quantized: bytes = proto.SerializeToString()
    return quantized


def _is_linear(node: onnx.NodeProto, weights: dict[str, np.ndarray]) -> bool:
    """Whether a node is x · weightᵀ + bias with constants, as torch's Linear becomes."""
    if node.op_type != "Gemm" or len(node.input) < 3 or not weights.keys() >= set(node.input[1:]):
        return False
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}
    return {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0, **given} == plain


def _ranges(model: bytes, names: list[str], calls: Iterable[Inputs]) -> dict[str, Range]:
    """The least and the greatest of inner values, over calls; 0 is always between them."""
    proto = onnx.load_from_string(model)
    distinct = list(dict.fromkeys(names))
    proto.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in distinct)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    low, high = np.zeros(len(distinct)), np.zeros(len(distinct))
    for inputs in calls:
        values = session.run(distinct, inputs)
        low = np.minimum(low, [value.min() for value in values])
        high = np.maximum(high, [value.max() for value in values])
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(distinct)}


def _in_integers(
    layer: onnx.NodeProto, weights: dict[str, np.ndarray], inputs: Range
) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    """A Gemm with transposed weights (out, in) and a bias as two nodes, and the constants they read."""
    name = layer.output[0]
    weight = weights[layer.input[1]].T
    scale = np.maximum(np.abs(weight).max(axis=0), 1e-12) / _WEIGHT_MAX
    step = max(inputs[1] - inputs[0], 1e-12) / _INPUT_MAX
    constants = {
        "weight": np.ascontiguousarray(np.round(weight / scale).astype(np.int8)),
        "weight_scale": scale.astype(np.float32),
        "scale": np.array(step, dtype=np.float32),
        "zero": np.array(round(-inputs[0] / step), dtype=np.uint8),
        "bias": weights[layer.input[2]],
    }
    called = {key: f"{name}.{key}" for key in (*constants, "int8")}
    ends = [called["scale"], called["zero"]]
    factors = [called[key] for key in ("int8", "weight", "scale", "weight_scale", "zero")]
    return [numpy_helper.from_array(value, called[key]) for key, value in constants.items()], [
        helper.make_node("QuantizeLinear", [layer.input[0], *ends], [called["int8"]]),
        helper.make_node("MatMulIntegerToFloat", [*factors, "", called["bias"]], [name], domain=_DOMAIN),
    ]


def _cosines(a: Floats, b: Floats) -> Floats:
    """Of each session that has events."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    some = norms > 0
    found: Floats = (a[some] * b[some]).sum(axis=1) / norms[some]
    return found
