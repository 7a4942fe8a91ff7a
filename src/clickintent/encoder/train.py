"""The training loop: AdamW, warm-up and cosine, resumable checkpoints, one process or several.

Plain on purpose. Everything random comes from the seed and the position (epoch, chunk, batch): a killed run
sees the same next batch, and ends with the same weights as an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from clickintent._version import __version__
from clickintent.config import EncoderConfig
from clickintent.encoder import checkpoint
from clickintent.encoder.batches import Cuts, bucket, cuts_per_session, draw_cuts
from clickintent.encoder.checkpoint import Position
from clickintent.encoder.chunks import Chunk, Chunks, TrainingData
from clickintent.encoder.distributed import ALONE, Team
from clickintent.encoder.features import Ints, pad
from clickintent.encoder.network import Network
from clickintent.encoder.objectives import UNKNOWN_PAGE, WEIGHTS, apply_masks, draw_masks, targets
from clickintent.encoder.packed import can_pack
from clickintent.encoder.runtime import cpu_threads
from clickintent.progress import progress
from clickintent.workspace import fingerprint

_WARMUP = 0.05
_FINAL_RATE = 0.02
_WEIGHT_DECAY = 0.01
_CLIP = 1.0
_CHECKPOINT_EVERY_S = 20.0


def train(
    data: TrainingData,
    config: EncoderConfig,
    seed: int,
    checkpoints: Path | None = None,
    team: Team = ALONE,
) -> tuple[Network, Position]:
    """Train from the start, or from the checkpoint that a killed run left in ``checkpoints``.

    Each process of a team trains on pieces of its own, with batches that are smaller by the number of
    processes, and all end with the same weights. Of the checkpoints, the first process takes care.
    """
    with _own_torch_state(seed, config.device):
        network = Network(config, data.space, data.statistics.texts).to(config.device)
        network.packed = can_pack(config)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1.0, weight_decay=_WEIGHT_DECAY, fused=True)
        key = fingerprint(
            *(__version__, torch.__version__, config, seed, data.space.to_json()),
            *(data.statistics.digest, team.size, cpu_threads()),
        )
        path = checkpoints / checkpoint.NAME if checkpoints else None
        position = Position()
        found = team.same(checkpoint.read(path, key) if path and not team.rank else None)
        if found:
            position, tensors = found
            checkpoint.restore(tensors, network, optimizer)
        run = _Run(data, config, seed, team, network, optimizer, position)
        saved = started = time.monotonic() - position.seconds
        for _ in run.steps():
            now = time.monotonic()
            position.seconds = now - started
            is_time = now - saved > _CHECKPOINT_EVERY_S or position.finished
            if path and not team.rank and is_time:
                saved = now
                checkpoint.save(path, key, network, optimizer, position)
        network.eval()
        network.packed = False  # it may go to another device now
    return network, position


class _Run:
    """One training, from where ``position`` stands."""

    def __init__(
        self,
        data: TrainingData,
        config: EncoderConfig,
        seed: int,
        team: Team,
        network: Network,
        optimizer: torch.optim.Optimizer,
        position: Position,
    ) -> None:
        self._data, self._config, self._seed, self._team = data, config, seed, team
        self._network, self._optimizer, self._position = network, optimizer, position
        self._chunks = Chunks(data, network.text.prepare, seed, team.rank, team.size)
        sessions = data.statistics.sessions
        self._repeats = cuts_per_session(sessions)
        self._epochs = min(float(config.epochs), config.max_sessions / (sessions * self._repeats))
        self._module: nn.Module = network
        if team.size > 1:
            self._module = DistributedDataParallel(network)

    def steps(self) -> Iterator[None]:
        """Make the steps one by one, and keep ``position`` up to date."""
        position, sessions = self._position, self._data.statistics.sessions
        if position.finished:
            return
        self._network.train()
        with (
            progress(
                "pretrain", round(self._epochs * sessions), "sessions", silent=self._team.rank > 0
            ) as advance,
            closing(self._chunks.stream(position.epoch, position.chunk)) as stream,
        ):
            for chunk in stream:
                cuts, batches = self.batches(chunk, position.epoch, position.chunk)
                number = self._team.most(len(batches))
                for batch in range(position.batch, number):
                    # Where a process has fewer batches than another, it takes its first ones again.
                    self._step(chunk, cuts.take(batches[batch % len(batches)]), self._done(batch, number))
                    is_over = self._advance(batch + 1, number)
                    advance(round(self._done(batch + 1, number) * sessions), f"epoch {position.epoch + 1}")
                    yield
                    if is_over:
                        return

    def batches(self, chunk: Chunk, epoch: int, number: int) -> tuple[Cuts, list[Ints]]:
        """Where the sessions of a chunk are cut, and its batches as rows of the cuts."""
        rng = np.random.default_rng([self._seed, epoch, number, self._team.rank])
        rows = np.repeat(np.arange(len(chunk.events.lengths)), self._repeats)
        cuts = draw_cuts(chunk.events.offsets, rows, rng, max_events=self._config.max_events, may_end=True)
        return cuts, bucket(cuts.lengths, self._config.batch_events // self._team.size, rng)

    def _done(self, batch: int, batches: int) -> float:
        """How many epochs are over after so many batches of this chunk's."""
        return self._position.epoch + (self._position.chunk + batch / batches) / self._chunks.per_epoch

    def _step(self, chunk: Chunk, cuts: Cuts, done: float) -> None:
        position = self._position
        place = (position.epoch, position.chunk, position.batch)
        rng = np.random.default_rng([self._seed, *place, self._team.rank])
        torch.manual_seed(int(rng.integers(2**63)))  # of dropout
        batch = pad(chunk.events, cuts.starts, cuts.lengths)
        unknown = 0.0 if self._config.text == "none" else UNKNOWN_PAGE
        masks = draw_masks(batch.lengths, batch.page.shape[1], rng, unknown_page=unknown)
        answers = targets(chunk.events, chunk.following, cuts, batch, masks, self._data.space)
        with _precision(self._config.device):
            losses = self._module(apply_masks(batch, masks), chunk.texts, answers)
        self._optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(self._network.parameters(), _CLIP)
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * _schedule(done / self._epochs)
        self._optimizer.step()
        position.add(losses)
        position.sessions += len(cuts.starts)

    def _advance(self, batch: int, batches: int) -> bool:
        """Put the position behind a batch; whether training is over."""
        position = self._position
        position.finished = self._done(batch, batches) >= self._epochs - 1e-9
        position.batch = batch
        if batch == batches:
            position.chunk, position.batch = position.chunk + 1, 0
        if position.chunk == self._chunks.per_epoch:
            position.epoch, position.chunk = position.epoch + 1, 0
        if position.finished or position.chunk == position.batch == 0:
            names = ("loss", *WEIGHTS)
            both = [[of.get(name, 0) for name in names] for of in (position.sums, position.counts)]
            sums, counts = self._team.total(torch.tensor(both, dtype=torch.float64)).tolist()
            means = {name: s / n for name, s, n in zip(names, sums, counts, strict=True) if n}
            position.epochs.append(means)
            position.sums, position.counts = {}, {}
        return position.finished


@contextmanager
def _own_torch_state(seed: int, device: str) -> Iterator[None]:
    """Seed torch and set its threads (see cpu_threads), then put back what was there."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(cpu_threads())
        torch.use_deterministic_algorithms(device == "cpu")
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)


def _precision(device: str) -> torch.autocast | nullcontext[None]:
    """bfloat16 where there is hardware for it; on a CPU float32, which gives the same on any one."""
    return nullcontext() if device == "cpu" else torch.autocast(device, torch.bfloat16)


def _schedule(done: float) -> float:
    """Share of the peak learning rate when ``done`` (0 to 1) of training is over."""
    if done < _WARMUP:
        return (done + 0.002) / (_WARMUP + 0.002)
    return _FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * (done - _WARMUP) / (1 - _WARMUP)))
