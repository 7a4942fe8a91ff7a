"""Fit: features, training, evaluation, export, as one row of calls. Needs torch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clickintent.config import EncoderConfig
from clickintent.encoder.evaluate import next_page
from clickintent.encoder.export import export_onnx
from clickintent.encoder.features import FeatureSpace, FlatEvents, Ints
from clickintent.encoder.model import FixedTextModule, HashedTextModule
from clickintent.encoder.storage import Artifact
from clickintent.encoder.text import NoText, Tensors, text_key
from clickintent.encoder.train import Network, TrainingData, train


def fit(
    flat: FlatEvents,
    train_rows: Ints,
    test_rows: Ints,
    config: EncoderConfig,
    seed: int,
    checkpoints: Path | None,
) -> tuple[Artifact, dict[str, Any]]:
    """Train on ``train_rows``, measure on ``test_rows``; returns all that is saved, and the metrics."""
    started = time.monotonic()
    space = FeatureSpace.fit(flat, train_rows, min_page_count=config.min_page_count)
    events = space.encode(flat)
    data = TrainingData(events, train_rows, flat.texts, space)
    network, position = train(data, config, seed, checkpoints)
    recall = next_page(network, events, train_rows, test_rows, max_events=config.max_events, seed=seed)
    metrics: dict[str, Any] = {
        "sessions": len(train_rows),
        "held_out_sessions": len(test_rows),
        "events": int(flat.lengths[train_rows].sum()),
        "pages": len(space.pages.values),
        "event_types": len(space.event_types.values),
        "parameters": sum(p.numel() for p in network.session.parameters())
        + sum(p.numel() for p in network.text.parameters()),
        "epochs": position.epochs,
        "next_page": recall,
        "seconds": position.seconds,
        "sessions_per_second": round(len(train_rows) * len(position.epochs) / max(position.seconds, 1e-9)),
    }
    onnx = export_onnx(network.session, config.text_dim)
    metrics["seconds_with_export"] = time.monotonic() - started
    artifact = Artifact(
        config=config,
        seed=seed,
        space=space,
        metrics=metrics,
        weights={name: tensor.numpy().copy() for name, tensor in network.state_dict().items()},
        text=_text_tensors(network, config, flat),
        onnx=onnx,
    )
    return artifact, metrics


def _text_tensors(network: Network, config: EncoderConfig, flat: FlatEvents) -> Tensors:
    """What the text encoder needs at inference."""
    text = network.text
    if isinstance(text, HashedTextModule):
        return {"ngrams": text.table.weight.detach().numpy().copy()}
    if isinstance(text, FixedTextModule):
        return {
            "keys": np.array([text_key(t) for t in flat.texts], dtype=np.int64),
            "vectors": text(torch.arange(len(flat.texts))).detach().numpy().copy(),
            "weight": text.project.weight.detach().numpy().copy(),
            "bias": text.project.bias.detach().numpy().copy(),
        }
    return NoText(config.text_dim).tensors()
