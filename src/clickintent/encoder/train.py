"""The training loop: AdamW, warm-up and cosine, resumable checkpoints.

Plain on purpose. Everything random comes from the seed and the position (epoch, batch), except dropout, whose
generator state is in the checkpoint: a killed run ends with the same weights as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from clickintent.config import EncoderConfig
from clickintent.encoder import text as text_encoders
from clickintent.encoder.batches import Cuts, bucket, draw_cuts, windows_of
from clickintent.encoder.features import Batch, Encoded, FeatureSpace, Ints, pad
from clickintent.encoder.model import FixedTextModule, HashedTextModule, NoTextModule, SessionModel
from clickintent.encoder.objectives import Heads, apply_masks, draw_masks, targets, total
from clickintent.encoder.runtime import cpu_threads
from clickintent.progress import progress
from clickintent.workspace import atomically, fingerprint

_WARMUP = 0.05
_FINAL_RATE = 0.02
_WEIGHT_DECAY = 0.01
_CLIP = 1.0
_CHECKPOINT_EVERY_S = 20.0
_CHECKPOINT = "encoder-training.safetensors"


@dataclass(frozen=True)
class TrainingData:
    """What training works on. ``rows``: the sessions to train on, each with at least one event."""

    events: Encoded
    rows: Ints
    texts: tuple[str, ...]
    space: FeatureSpace

    def key(self, config: EncoderConfig, seed: int) -> str:
        """Changes with anything that the result depends on."""
        digest = hashlib.blake2b(digest_size=16)
        e = self.events
        columns = (e.offsets, e.page, e.event_type, e.log_dwell, e.log_gap, e.hour_of_week, e.text, self.rows)
        for column in columns:
            digest.update(np.ascontiguousarray(column).tobytes())
        digest.update("\0".join(self.texts).encode())
        return fingerprint(config, seed, self.space.to_json(), digest.hexdigest(), torch.__version__)


class Network(nn.Module):
    """Everything that is trained: text, session model, heads."""

    def __init__(self, config: EncoderConfig, data: TrainingData) -> None:
        super().__init__()
        self.text: nn.Module
        if config.text == "none":
            self.text = NoTextModule(config.text_dim)
        elif config.text == "hashed":
            ids, offsets = text_encoders.ngram_table(data.texts, config.text_buckets)
            tables = torch.from_numpy(ids), torch.from_numpy(offsets)
            self.text = HashedTextModule(*tables, config.text_buckets, config.text_dim)
        else:
            vectors = text_encoders.sentence_vectors(config.text, data.texts)
            self.text = FixedTextModule(torch.from_numpy(vectors), config.text_dim)
        self.session = SessionModel(config, data.space)
        self.heads = Heads(config, data.space)

    def hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Vectors of the events (B, L, width) and of the sessions (B, dim)."""
        distinct, index = np.unique(batch.text, return_inverse=True)
        # As an embedding, not an index: adding up the gradients of an index is not deterministic on CPU.
        vectors = F.embedding(
            torch.from_numpy(index.reshape(batch.text.shape)), self.text(torch.from_numpy(distinct))
        )
        return self.session.hidden(
            torch.from_numpy(batch.page),
            torch.from_numpy(batch.event_type),
            torch.from_numpy(batch.numeric),
            vectors,
            torch.from_numpy(batch.lengths),
        )


@dataclass
class Position:
    """Where training stands: the batches before ``batch`` of ``epoch`` are done."""

    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)  # of this epoch's losses
    counts: dict[str, int] = field(default_factory=dict)
    epochs: list[dict[str, float]] = field(default_factory=list)

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, loss in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(loss.detach())
            self.counts[name] = self.counts.get(name, 0) + 1

    def end_epoch(self) -> None:
        self.epochs.append({name: self.sums[name] / self.counts[name] for name in self.sums})
        self.sums, self.counts = {}, {}
        self.epoch, self.batch = self.epoch + 1, 0


@contextmanager
def _own_torch_state(seed: int) -> Iterator[None]:
    """Seed torch and set its threads (see cpu_threads), then put back what was there."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(cpu_threads())
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)


def epoch_batches(
    data: TrainingData, config: EncoderConfig, seed: int, epoch: int
) -> tuple[Cuts, list[Ints]]:
    """The cuts of an epoch and its batches, as rows of the cuts: a function of (seed, epoch) alone."""
    rng = np.random.default_rng([seed, epoch])
    rows = windows_of(data.rows)
    cuts = draw_cuts(data.events.offsets, rows, rng, max_events=config.max_events, may_end=True)
    return cuts, bucket(cuts.lengths, config.batch_events, rng)


def train(
    data: TrainingData, config: EncoderConfig, seed: int, checkpoints: Path | None
) -> tuple[Network, Position]:
    """Train from the start, or from the checkpoint that a killed run left in ``checkpoints``."""
    with _own_torch_state(seed):
        network = Network(config, data)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1.0, weight_decay=_WEIGHT_DECAY, fused=True)
        position = Position()
        key = data.key(config, seed)
        path = checkpoints / _CHECKPOINT if checkpoints else None
        if path:
            position = _restore(path, key, network, optimizer) or position
        saved = started = time.monotonic() - position.seconds
        network.train()
        with progress("pretrain", config.epochs * len(data.rows), "sessions") as advance:
            while position.epoch < config.epochs:
                cuts, batches = epoch_batches(data, config, seed, position.epoch)
                while position.batch < len(batches):
                    done = position.epoch + position.batch / len(batches)
                    rate = config.learning_rate * _schedule(done / config.epochs)
                    rng = np.random.default_rng([seed, position.epoch, position.batch])
                    position.add(
                        _step(network, optimizer, data, cuts.take(batches[position.batch]), rng, rate)
                    )
                    position.batch += 1
                    advance(round(done * len(data.rows)), f"epoch {position.epoch + 1}")
                    if path and time.monotonic() - saved > _CHECKPOINT_EVERY_S:
                        saved = time.monotonic()
                        position.seconds = saved - started
                        _save(path, key, network, optimizer, position)
                position.end_epoch()
                position.seconds = time.monotonic() - started
                if path:
                    saved = time.monotonic()
                    _save(path, key, network, optimizer, position)
        network.eval()
    return network, position


def _schedule(done: float) -> float:
    """Share of the peak learning rate when ``done`` (0 to 1) of training is over."""
    if done < _WARMUP:
        return (done + 0.002) / (_WARMUP + 0.002)
    return _FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * (done - _WARMUP) / (1 - _WARMUP)))


def _step(
    network: Network,
    optimizer: torch.optim.Optimizer,
    data: TrainingData,
    cuts: Cuts,
    rng: np.random.Generator,
    rate: float,
) -> dict[str, Tensor]:
    batch = pad(data.events, cuts.starts, cuts.lengths)
    masks = draw_masks(batch.lengths, batch.page.shape[1], rng)
    answers = targets(data.events, cuts, batch, masks, data.space)
    x, embedding = network.hidden(apply_masks(batch, masks))
    losses = network.heads.losses(network.session, x, embedding, answers, data.space)
    loss = total(losses)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return {"loss": loss, **losses}


def _save(
    path: Path, key: str, network: Network, optimizer: torch.optim.Optimizer, position: Position
) -> None:
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{name}": tensor for name, tensor in state.items()})
    tensors["rng"] = torch.get_rng_state()
    metadata = {"key": key, "position": json.dumps(vars(position))}
    with atomically(path) as temporary:
        save_file({name: t.contiguous().clone() for name, t in tensors.items()}, temporary, metadata)


def _restore(path: Path, key: str, network: Network, optimizer: torch.optim.Optimizer) -> Position | None:
    """Load a checkpoint of the same data, configuration and seed; None if there is none."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = file.metadata() or {}
            if metadata.get("key") != key:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError:
        return None  # damaged: start again
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, field_name = name.split(".")
            state.setdefault(int(index), {})[field_name] = tensor
    prefix = "network."
    network.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(tensors["rng"])
    return Position(**json.loads(metadata["position"]))
