"""The training loop: killed, resumed, repeated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import factories
from clickintent.config import EncoderConfig
from clickintent.encoder import chunks, source
from clickintent.encoder.checkpoint import Position
from clickintent.encoder.chunks import TrainingData
from clickintent.encoder.network import Network
from clickintent.encoder.source import open_source
from clickintent.encoder.statistics import survey
from clickintent.encoder.train import train

CONFIG = EncoderConfig(
    width=32, layers=1, heads=2, text_dim=16, text_buckets=512, epochs=2, batch_events=256, min_page_count=1
)


def data(sessions: int = 50) -> TrainingData:
    return data_of(factories.themed_sessions(sessions))


def data_of(table: pa.Table) -> TrainingData:
    opened = open_source(table)
    return TrainingData(opened, survey(opened, CONFIG))


def same(a: tuple[Network, Position], b: tuple[Network, Position]) -> bool:
    left, right = a[0].state_dict(), b[0].state_dict()
    weights = all(torch.equal(tensor, right[name]) for name, tensor in left.items())
    return weights and a[1].epochs == b[1].epochs


@pytest.fixture(scope="module")
def whole() -> tuple[Network, Position]:
    """Trained in one go."""
    return train(data(), CONFIG, 7, None)


def test_the_seed_decides(whole: tuple[Network, Position]) -> None:
    assert same(whole, train(data(), CONFIG, 7, None))
    assert not same(whole, train(data(), CONFIG, 8, None))


@pytest.mark.parametrize("pages", [["/"], ["/", "/cards", "/"]])
@pytest.mark.parametrize("number", [1, 40])
def test_short_and_few_sessions_have_finite_losses(pages: list[str], number: int) -> None:
    table = factories.sessions([factories.session(i, pages, titles=i > 3) for i in range(number)])
    network, position = train(data_of(table), CONFIG, 7, None)
    assert all(np.isfinite(list(epoch.values())).all() for epoch in position.epochs)
    assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())


def test_torch_is_left_as_it_was() -> None:
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    train(data(20), CONFIG.model_copy(update={"epochs": 1}), 7, None)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads


KILLED = """
import sys
from pathlib import Path
from clickintent.encoder import chunks, source, train
from test_encoder_training import CONFIG, data
source.PIECE_ROWS, chunks.CHUNK_SESSIONS = int(sys.argv[2]), int(sys.argv[3])
train._CHECKPOINT_EVERY_S = 0.0  # after every batch
train.train(data(), CONFIG, 7, Path(sys.argv[1]))
"""


@pytest.mark.parametrize(("piece", "chunk"), [(source.PIECE_ROWS, chunks.CHUNK_SESSIONS), (5, 20)])
def test_killed_and_resumed_goes_on_with_the_same_losses(
    piece: int, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each epoch's losses and the weights are those of a training in one go."""
    monkeypatch.setattr(source, "PIECE_ROWS", piece)
    monkeypatch.setattr(chunks, "CHUNK_SESSIONS", chunk)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(piece), str(chunk)]
    process = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("*.safetensors")):
        assert process.poll() is None, "training ended before it wrote a checkpoint"
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert same(train(data(), CONFIG, 7), train(data(), CONFIG, 7, tmp_path))


def test_a_finished_training_is_not_done_again(whole: tuple[Network, Position], tmp_path: Path) -> None:
    first = train(data(), CONFIG, 7, tmp_path)
    (checkpoint,) = tmp_path.iterdir()
    written = checkpoint.stat().st_mtime_ns
    again = train(data(), CONFIG, 7, tmp_path)
    assert same(first, again)
    assert same(whole, again)
    assert checkpoint.stat().st_mtime_ns == written


@pytest.mark.parametrize("damage", ["other data", "other seed", "truncated"])
def test_a_checkpoint_that_does_not_fit_is_not_used(
    whole: tuple[Network, Position], tmp_path: Path, damage: str
) -> None:
    short = CONFIG.model_copy(update={"epochs": 1})
    if damage == "other data":
        train(data(40), CONFIG, 7, tmp_path)
    elif damage == "other seed":
        train(data(), CONFIG, 8, tmp_path)
    else:
        train(data(), short, 7, tmp_path)
        (checkpoint,) = tmp_path.iterdir()
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert same(whole, train(data(), CONFIG, 7, tmp_path))
