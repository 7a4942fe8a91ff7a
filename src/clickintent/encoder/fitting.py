"""Fit: survey, training, evaluation, export, as one row of calls. Needs torch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clickintent.config import EncoderConfig
from clickintent.encoder.checkpoint import Position
from clickintent.encoder.chunks import TrainingData, chunk_of
from clickintent.encoder.components import turn_to_components
from clickintent.encoder.distributed import Team
from clickintent.encoder.evaluate import embeddings, next_page
from clickintent.encoder.export import export_onnx
from clickintent.encoder.features import flatten
from clickintent.encoder.network import Network
from clickintent.encoder.quantize import with_int8
from clickintent.encoder.source import Source
from clickintent.encoder.statistics import Statistics, survey
from clickintent.encoder.storage import Artifact
from clickintent.encoder.train import train
from clickintent.errors import ConfigError

_INT8_SAMPLE = 4000  # sessions, to derive and to judge the int8 model


def fit(
    source: Source, config: EncoderConfig, seed: int, checkpoints: Path | None, team: Team
) -> tuple[Artifact, pa.Table]:
    """Train, measure on held-out sessions.

    Returns:
        All that is saved, the same in each process of a team, and a sample of the training sessions.

    Raises:
        ConfigError: if ``config.device`` cannot be used.
        EmptyInputError: if there is no session with an event.
        DataError: if a file cannot be read.
    """
    started = time.monotonic()
    _check_device(config, team)
    statistics = team.same(None if team.rank else survey(source, config))
    assert statistics is not None  # the first process has made it
    network, position = train(TrainingData(source, statistics), config, seed, checkpoints, team)
    network.cpu()
    held_out = statistics.held_out
    recall = next_page(
        network,
        chunk_of([held_out], statistics.space, network.text.prepare) if held_out else None,
        statistics.pages,
        max_events=config.max_events,
        seed=seed,
    )
    sample = chunk_of([statistics.sample], statistics.space, network.text.prepare)
    turn_to_components(network.session, embeddings(network, sample, max_events=config.max_events))
    artifact = Artifact(
        config=config,
        seed=seed,
        space=statistics.space,
        metrics=_metrics(statistics, network, position, team),
        weights={name: tensor.numpy().copy() for name, tensor in network.state_dict().items()},
        text=network.text.tensors(),
        onnx=export_onnx(network.session, config.text_dim),
    )
    artifact.metrics["next_page"] = recall
    some = np.unique(np.linspace(0, statistics.sample.num_rows - 1, _INT8_SAMPLE).astype(np.int64))
    judged = flatten(statistics.sample.take(pa.array(some)), last=config.max_events)
    artifact = with_int8(artifact, judged)
    artifact.metrics["seconds_with_export"] = time.monotonic() - started
    return artifact, statistics.sample


def _check_device(config: EncoderConfig, team: Team) -> None:
    import torch

    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("encoder.device is 'cuda', but torch finds no CUDA device here. Set it to 'cpu'.")
    if config.device == "cuda" and team.size > 1:
        raise ConfigError("encoder.device is 'cuda': several processes train on CPUs only. Start one.")


def _metrics(statistics: Statistics, network: Network, position: Position, team: Team) -> dict[str, Any]:
    times = statistics.times
    trained = [network.session, network.text]
    return {
        "sessions": statistics.sessions,
        "held_out_sessions": times.sessions - statistics.sessions,
        "events": int(statistics.events.sum()),
        "first_start": _iso(times.first),
        "last_start": _iso(times.last),
        "pages": len(statistics.space.pages.values),
        "event_types": len(statistics.space.event_types.values),
        "sessions_seen": position.sessions * team.size,
        "parameters": sum(p.numel() for module in trained for p in module.parameters()),
        "epochs": position.epochs,
        "processes": team.size,
        "seconds": position.seconds,
        "sessions_per_second": round(position.sessions * team.size / max(position.seconds, 1e-9)),
    }


def _iso(us: int) -> str:
    return np.datetime64(us, "us").item().isoformat(timespec="seconds") + "Z"
