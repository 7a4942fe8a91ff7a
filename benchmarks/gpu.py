"""What a GPU makes of training: bfloat16, torch.compile and padding-free blocks, side by side in one run.

    python benchmarks/gpu.py [--repeats 5]
    python benchmarks/gpu.py --device cpu --quick    # checks the script; writes no results

All variants start from the same weights and take the same steps as ``train.py``: forward, losses, backward,
clipping, AdamW, and the losses read back. The first pass over the batches is not timed: it compiles, and its
mean loss must be the same in all variants but for rounding and dropout. In each repeat all variants take
their turn, the order reversed every other time. Batches are made beforehand; how many sessions a second
one thread of the host can prepare stands beside it, and what the training loop as a whole reaches.

- Three ways to make batches (``LAYOUTS``): as training does, and large ones that can fill a GPU, of like or
  of mixed lengths. Packed blocks leave out padding, so what they gain depends on how much of it there is.
- Tokens are the events that the model sees, without padding. FLOP of the model are counted for such events
  alone (``gpu_flops.py``), the same for all variants: computing padding does not count as work.
- The share of the peak is that of bfloat16, for float32 too (which is full precision, no TF32): against a
  large matrix product measured in the same run, and against the data sheet where the name is known.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import nn
from torch._dynamo.utils import counters

from clickintent import EncoderConfig
from clickintent.encoder.batches import Cuts, bucket, draw_cuts
from clickintent.encoder.checkpoint import Position
from clickintent.encoder.chunks import Chunk, TrainingData, chunk_of
from clickintent.encoder.features import Batch, FeatureSpace, Ints, pad
from clickintent.encoder.network import Network
from clickintent.encoder.objectives import Targets, apply_masks, draw_masks, targets
from clickintent.encoder.packed import can_pack
from clickintent.encoder.source import open_source
from clickintent.encoder.statistics import survey
from clickintent.encoder.train import train
from common import write_results
from gpu_flops import data_sheet_peak, flops_by_length, measured_peak
from speed_bench import spread
from speed_data import write_sessions

SEED = 7
LEARNING_RATE = 1e-3
TOLERANCE = 0.05  # of the mean loss of the first pass, relative to float32

Figures = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    half: bool = True
    packed: bool = False
    compiled: bool = False


VARIANTS = {
    "padded_fp32": Variant(half=False),
    "padded_bf16": Variant(),
    "padded_bf16_compiled": Variant(compiled=True),
    "packed_bf16": Variant(packed=True),
    "packed_bf16_compiled": Variant(packed=True, compiled=True),
}
REFERENCE, BASELINE = "padded_fp32", "padded_bf16"

#: Transformers, because there is no packed GRU. The small one cannot fill a GPU; the other one shows what a
#: GPU is for.
MODELS: dict[str, dict[str, Any]] = {
    "small": {"cell": "transformer", "layers": 2},
    "wide": {"cell": "transformer", "width": 256, "layers": 4},
}


@dataclass(frozen=True)
class Sizes:
    sessions: int = 65_536  # a chunk
    large: int = 4096  # sessions in a large batch
    batches: int = 40  # in a pass, at most
    matrix: int = 8192  # rows and columns of the matrices that measure the peak


QUICK = Sizes(600, 128, 3, 256)
QUICK_MODELS = {"tiny": {"cell": "transformer", "width": 32, "layers": 1, "text_buckets": 256}}


@dataclass(frozen=True)
class Step:
    """What one step of training takes."""

    batch: Batch
    answers: Targets


def _as_trained(lengths: Ints, _size: Sizes, rng: np.random.Generator) -> list[Ints]:
    return bucket(lengths, EncoderConfig().batch_events, rng)


def _large_alike(lengths: Ints, size: Sizes, rng: np.random.Generator) -> list[Ints]:
    rows = np.array_split(np.argsort(lengths, kind="stable"), max(len(lengths) // size.large, 1))
    return [rows[i] for i in rng.permutation(len(rows))]


def _large_mixed(lengths: Ints, size: Sizes, rng: np.random.Generator) -> list[Ints]:
    return np.array_split(rng.permutation(len(lengths)), max(len(lengths) // size.large, 1))


LAYOUTS: dict[str, Callable[[Ints, Sizes, np.random.Generator], list[Ints]]] = {
    "as_trained": _as_trained,
    "large_alike": _large_alike,
    "large_mixed": _large_mixed,
}


class Learner:
    """One variant of one model."""

    def __init__(self, network: Network, variant: Variant, device: str) -> None:
        self._network = copy.deepcopy(network).to(device).train()
        self._start = copy.deepcopy(self._network.state_dict())
        self._variant, self._device = variant, device
        self._network.packed = variant.packed
        if variant.compiled:
            session = self._network.session
            session.hidden = torch.compile(session.hidden, dynamic=True)

    def restart(self) -> None:
        self._network.load_state_dict(self._start)
        parameters = self._network.parameters()
        self._optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.01, fused=True)
        torch.manual_seed(SEED)

    def run(self, steps: list[Step], chunk: Chunk) -> tuple[float, float]:
        """Take the steps; seconds, and their mean loss."""
        position = Position()
        _synchronize(self._device)
        before = time.perf_counter()
        for step in steps:
            with torch.autocast(self._device, torch.bfloat16, enabled=self._variant.half):
                losses = self._network(step.batch, chunk.texts, step.answers)
            self._optimizer.zero_grad(set_to_none=True)
            losses["loss"].backward()
            nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
            self._optimizer.step()
            position.add(losses)
        _synchronize(self._device)
        return time.perf_counter() - before, position.sums["loss"] / position.counts["loss"]


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def prepared(chunk: Chunk, cuts: Cuts, space: FeatureSpace, rng: np.random.Generator) -> Step:
    """As ``train.py`` prepares a batch."""
    batch = pad(chunk.events, cuts.starts, cuts.lengths)
    masks = draw_masks(batch.lengths, batch.page.shape[1], rng)
    answers = targets(chunk.events, chunk.following, cuts, batch, masks, space)
    return Step(apply_masks(batch, masks), answers)


def measure_layout(
    learners: dict[str, Learner], steps: list[Step], chunk: Chunk, flops: Ints, repeats: int, device: str
) -> Figures:
    """All variants on the same batches.

    Raises:
        RuntimeError: if a variant does not learn as float32 does.
    """
    lengths = np.concatenate([step.batch.lengths for step in steps])
    work = {
        "sessions_per_second": len(lengths),
        "tokens_per_second": int(lengths.sum()),
        "model_flop_per_second": int(flops[lengths].sum()),
    }
    found: dict[str, Figures] = {}
    for name, learner in learners.items():
        graphs = counters["stats"]["unique_graphs"]
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        learner.restart()
        seconds, loss = learner.run(steps, chunk)
        found[name] = {"first_pass_seconds": seconds, "first_pass_loss": loss}
        found[name]["graphs_compiled"] = counters["stats"]["unique_graphs"] - graphs
        if device == "cuda":
            found[name]["peak_memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
    reference = found[REFERENCE]["first_pass_loss"]
    for name, figures in found.items():
        if not abs(figures["first_pass_loss"] / reference - 1) < TOLERANCE:
            raise RuntimeError(
                f"{name}: the mean loss of the first pass is {figures['first_pass_loss']:.4f}, in float32 "
                f"{reference:.4f}; it computes something else. Compare one batch of both."
            )
    seconds_of: dict[str, list[float]] = {name: [] for name in learners}
    graphs = counters["stats"]["unique_graphs"]
    for repeat in range(repeats):
        for name in list(learners)[:: -1 if repeat % 2 else 1]:
            seconds_of[name].append(learners[name].run(steps, chunk)[0])
    for name, seconds in seconds_of.items():
        found[name].update({rate: spread([n / s for s in seconds]) for rate, n in work.items()})
        found[name][f"ratio_to_{BASELINE}"] = spread(
            [other / mine for mine, other in zip(seconds, seconds_of[BASELINE], strict=True)]
        )
    return {
        "batches": len(steps),
        "sessions": len(lengths),
        "tokens": int(lengths.sum()),
        "share_of_padding": 1 - int(lengths.sum()) / sum(step.batch.page.size for step in steps),
        "graphs_compiled_while_timed": counters["stats"]["unique_graphs"] - graphs,  # 0, or it is slower
        "variants": found,
    }


def measure_model(changes: Figures, source: Path, size: Sizes, repeats: int, device: str) -> Figures:
    """One model: all layouts, and the training loop as it is."""
    torch._dynamo.reset()
    config = EncoderConfig(**changes, epochs=1, device=device)
    table = pq.read_table(source)
    opened = open_source(table)
    data = TrainingData(opened, survey(opened, config))
    torch.manual_seed(SEED)
    network = Network(config, data.space, data.statistics.texts)
    chunk = chunk_of([table], data.space, network.text.prepare)
    rng = np.random.default_rng(SEED)
    rows = np.arange(table.num_rows)
    cuts = draw_cuts(chunk.events.offsets, rows, rng, max_events=config.max_events, may_end=True)
    flops = flops_by_length(network, chunk, data.space, config.max_events)
    learners = {name: Learner(network, variant, device) for name, variant in VARIANTS.items()}
    layouts: Figures = {}
    for name, layout in LAYOUTS.items():
        batches = layout(cuts.lengths, size, rng)[: size.batches]
        before = time.perf_counter()
        steps = [prepared(chunk, cuts.take(batch), data.space, rng) for batch in batches]
        prepared_in = time.perf_counter() - before
        layouts[name] = measure_layout(learners, steps, chunk, flops, repeats, device)
        layouts[name]["host_prepares_sessions_per_second"] = layouts[name]["sessions"] / prepared_in
        _show(name, layouts[name])
    positions = [train(data, config, SEED)[1] for _ in range(repeats)]
    return {
        "config": config.model_dump(),
        "parameters": sum(p.numel() for p in network.parameters()),
        "model_flop_per_session_of_8_events": int(flops[8]),
        "layouts": layouts,
        "training_loop": {
            "packed": can_pack(config),
            "sessions_per_second": spread([p.sessions / p.seconds for p in positions]),
        },
    }


def _show(layout: str, figures: Figures) -> None:
    print(f"  {layout}: {figures['share_of_padding']:.1%} padding", flush=True)
    for name, found in figures["variants"].items():
        rate, tokens = (found[f"{what}_per_second"]["median"] for what in ("sessions", "tokens"))
        print(f"    {name}: {rate:,.0f} sessions/s, {tokens:,.0f} tokens/s", flush=True)


def add_shares(models: Figures, peaks: dict[str, float]) -> None:
    """Beside the FLOP/s of each variant, its share of each peak."""
    for model in models.values():
        for layout in model["layouts"].values():
            for found in layout["variants"].values():
                rate = found["model_flop_per_second"]["median"]
                found["share_of_peak"] = {name: rate / peak for name, peak in peaks.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny sizes; writes no results")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "torch finds no CUDA device here, so there is nothing to measure. "
            "With --device cpu --quick the script can be checked without one."
        )
    size, changes = (QUICK, QUICK_MODELS) if options.quick else (Sizes(), MODELS)
    device: str = options.device
    peaks = {"measured": measured_peak(device, size.matrix)}
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    sheet = data_sheet_peak(name)
    if sheet:
        peaks["data_sheet"] = sheet
    print(
        f"{name}: " + ", ".join(f"{peak / 1e12:.1f} TFLOP/s {of}" for of, peak in peaks.items()), flush=True
    )
    models: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "sessions.parquet"
        write_sessions(source, size.sessions, SEED)
        for model, change in changes.items():
            print(model, flush=True)
            models[model] = measure_model(change, source, size, options.repeats, device)
    add_shares(models, peaks)
    if device == "cuda" and not options.quick:
        about = {"name": name, "cuda": torch.version.cuda, "peak_flop_per_second": peaks}
        print(write_results("gpu", {"device": about, "repeats": options.repeats, "models": models}).name)


if __name__ == "__main__":
    main()
