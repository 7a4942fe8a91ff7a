"""What wins? The default encoder beside itself with one thing changed: sizes, text, objectives, pooling.

Each variant learns without labels from a data set's past, is frozen, and is judged by the heads and tasks of
``quality.py``: the same test rows, the same resamples, so that every difference to the default is paired.
``other_seed`` is the default trained from another seed: how far two trainings differ that should not, which
the intervals do not tell. All have half of the default's epochs, to be cheap (``--epochs``); sessions come
from ``CLICKINTENT_DATA`` as in ``quality.py``. The encoder sees a session up to a random event and nothing of
what follows; that is the attention "bidirectional, with the target and all after it hidden".

    python benchmarks/ablations.py [--data simbank,vanguard,eshop] [--variants dim_32,…] [--seeds 1]
                                   [--epochs 6] [--work FOLDER]

What is no configuration is patched in from here: the library has no options for what lost. All variants, the
default too, are embedded by the torch network, because the exported one is built from the default's parts.
A killed run goes on with the variants that are not done.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import pickle
import tempfile
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import clickintent.encoder.network as network_module
import clickintent.encoder.train as train_module
from clickintent import progress
from clickintent.config import EncoderConfig
from clickintent.downstream.metrics import Estimate
from clickintent.encoder import objectives
from clickintent.encoder.chunks import Chunk, TrainingData, chunk_of
from clickintent.encoder.components import turn_to_components
from clickintent.encoder.evaluate import embeddings
from clickintent.encoder.features import DWELL, NO_DWELL, Batch, FeatureSpace, Floats, Ints
from clickintent.encoder.model import Block, RecurrentBlock, SessionModel
from clickintent.encoder.network import Network
from clickintent.encoder.objectives import WEIGHTS, Targets, total
from clickintent.encoder.source import open_source
from clickintent.encoder.statistics import survey
from clickintent.encoder.text_modules import Prepared
from clickintent.encoder.train import train
from common import write_results
from quality import TRANSFORMER, Key, _shown, config_of, load, save
from quality_data import DATA, Data
from quality_judge import HEADS, LESS, judge, mean

BASE = "default"
DEFAULT_DATA = ("simbank", "vanguard", "eshop")
EPOCHS = 6
CONTRASTIVE, TEMPERATURE = 0.1, 0.1

_transformer_block = Block.forward


def _causal(block: Block, x: Tensor, mask: Tensor) -> Tensor:
    """An event attends to itself and to those before it."""
    before = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
    return _transformer_block(block, x, mask & before)


def _no_attention(block: Block, x: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG001 - called as Block is
    out: Tensor = x + block.dropout(block.mlp(x))
    return out


class Through(nn.Linear):
    """A layer that is applied elsewhere: it passes on what it is given."""

    def forward(self, pooled: Tensor) -> Tensor:
        return pooled


class Pooled(SessionModel):
    """Other summaries of the events than the default's ``bag``, ``mean`` and ``last``."""

    def __init__(self, config: EncoderConfig, space: FeatureSpace, parts: tuple[str, ...]) -> None:
        super().__init__(config, space)
        self.parts = parts
        self.project = Through(len(parts) * config.width, config.dim)
        self.score = nn.Linear(config.width, 1)

    def hidden(self, *inputs: Any) -> tuple[Tensor, Tensor]:
        x, pooled = super().hidden(*inputs)
        lengths = inputs[4]
        found = dict(zip(("bag", "mean", "last"), pooled.chunk(3, dim=1), strict=True))
        outside = torch.arange(x.shape[1], device=x.device) >= lengths.unsqueeze(1)
        found["max"] = x.masked_fill(outside.unsqueeze(-1), -torch.inf).amax(dim=1)
        scores = self.score(x).squeeze(-1).masked_fill(outside, -torch.inf)
        found["attention"] = (x * scores.softmax(dim=1).unsqueeze(-1)).sum(dim=1)
        chosen = torch.cat([found[part] for part in self.parts], dim=1)
        return x, F.linear(chosen, self.project.weight, self.project.bias)


class Mixed(SessionModel):
    """Blocks of both kinds, one after the other."""

    def __init__(self, config: EncoderConfig, space: FeatureSpace, kinds: tuple[str, ...]) -> None:
        super().__init__(config, space)
        self.blocks = nn.ModuleList(
            RecurrentBlock(config.width, config.dropout)
            if kind == "gru"
            else Block(config.width, config.heads, config.dropout)
            for kind in kinds
        )


def _yes_or_no(logits: Tensor, row: Ints, page: Ints) -> tuple[Tensor, int]:
    """In place of a bag's softmax: is the page among them, for each page on its own?"""
    answer = torch.zeros_like(logits)
    answer[torch.from_numpy(row), torch.from_numpy(page)] = 1.0
    some = answer.any(dim=1, keepdim=True)
    losses = F.binary_cross_entropy_with_logits(logits, answer, reduction="none") * some
    return losses.sum(), int(some.sum())


def _with_contrast(network: Network, batch: Batch, texts: Prepared, answers: Targets) -> dict[str, Tensor]:
    """``Network.forward``, and InfoNCE between a session's cut and a random earlier cut of it."""
    x, embedding = network.hidden(batch, texts)
    losses = network.heads.losses(network.session, x, embedding, answers, network.space)
    row = np.arange(len(batch.lengths))
    earlier = 1 + np.floor(torch.rand(len(row)).numpy() * batch.lengths).astype(np.int64)
    earlier = np.minimum(earlier, batch.lengths)
    numeric = batch.numeric.copy()
    numeric[row, earlier - 1, DWELL], numeric[row, earlier - 1, NO_DWELL] = 0.0, 1.0  # as ``pad`` does
    _, other = network.hidden(replace(batch, numeric=numeric, lengths=earlier), texts)
    alike = F.normalize(embedding) @ F.normalize(other).T / TEMPERATURE
    contrast = F.cross_entropy(alike, torch.from_numpy(row))
    means = {name: loss / n for name, (loss, n) in losses.items() if n}
    return {"loss": total(losses) + CONTRASTIVE * contrast, **means}


@dataclass(frozen=True)
class Variant:
    """The default with one change."""

    changes: dict[str, Any] = field(default_factory=dict)  # of the configuration
    patched: Callable[[], AbstractContextManager[Any]] = nullcontext
    epochs: float = 1.0  # times ``--epochs``
    seed: int = 0  # added to the seed of the training


def _without(*names: str) -> Variant:
    return Variant(patched=lambda: patch.dict(WEIGHTS, dict.fromkeys(names, 0.0)))


def _patched(where: Any, name: str, value: Any) -> Variant:
    return Variant(patched=lambda: patch.object(where, name, value))


def _pooling(*parts: str) -> Variant:
    return _patched(network_module, "SessionModel", partial(Pooled, parts=parts))


def _blocks(*kinds: str) -> Variant:
    return _patched(network_module, "SessionModel", partial(Mixed, kinds=kinds))


NEXT = ("next_page", "next_type", "next_wait")
VARIANTS = {
    BASE: Variant(),
    "other_seed": Variant(seed=1000),
    "layers_2": Variant({"layers": 2}),
    "transformer_1": Variant({"cell": "transformer"}),
    "transformer_2": Variant(TRANSFORMER),
    "transformer_causal": Variant(TRANSFORMER, lambda: patch.object(Block, "forward", _causal)),
    "transformer_no_attention": Variant(TRANSFORMER, lambda: patch.object(Block, "forward", _no_attention)),
    "gru_then_attention": _blocks("gru", "attention"),
    "attention_then_gru": _blocks("attention", "gru"),
    "width_32": Variant({"width": 32}),
    "width_64": Variant({"width": 64}),
    "width_128": Variant({"width": 128}),
    "dim_32": Variant({"dim": 32}),
    "dim_128": Variant({"dim": 128}),
    "dim_256": Variant({"dim": 256}),
    "text_none": Variant({"text": "none"}),
    "text_hashed": Variant({"text": "hashed"}),
    "dropout_0": Variant({"dropout": 0.0}),
    "epochs_half": Variant(epochs=0.5),
    "epochs_double": Variant(epochs=2.0),
    "no_next": _without(*NEXT),
    "no_next_page": _without("next_page"),
    "no_future": _without("future"),
    "no_after": _without("after"),
    "no_visible": _without("visible"),
    "no_last_page": _without("last_page"),
    "no_numbers": _without("numbers"),
    "no_masking": _patched(objectives, "_MASKED_SESSIONS", 0.0),  # and so no masked event to tell
    "all_masked": _patched(objectives, "_MASKED_SESSIONS", 1.0),
    "no_unknown_pages": _patched(train_module, "UNKNOWN_PAGE", 0.0),
    "only_next": _without(*WEIGHTS.keys() - NEXT),
    "bag_yes_or_no": _patched(objectives, "_bag", _yes_or_no),
    "with_contrast": _patched(Network, "forward", _with_contrast),
    "pool_mean": _pooling("mean"),
    "pool_max": _pooling("max"),
    "pool_attention": _pooling("attention"),
    "pool_no_bag": _pooling("mean", "last"),
    "pool_no_mean": _pooling("bag", "last"),
    "pool_no_last": _pooling("bag", "mean"),
    "pool_max_for_mean": _pooling("bag", "max", "last"),
    "pool_attention_for_mean": _pooling("bag", "attention", "last"),
    "pool_and_max": _pooling("bag", "mean", "last", "max"),
}


def trained(past: pa.Table, config: EncoderConfig, seed: int) -> Callable[[pa.Table], Floats]:
    """What ``SessionEncoder.fit`` trains, without export: sessions of at least one event → (n, dim)."""
    source = open_source(past)
    statistics = survey(source, config)
    network, _ = train(TrainingData(source, statistics), config, seed)

    def embed(chunk: Chunk) -> Floats:
        return embeddings(network, chunk, max_events=config.max_events)

    def chunk(sessions: pa.Table) -> Chunk:
        return chunk_of([sessions], statistics.space, network.text.prepare)

    turn_to_components(network.session, embed(chunk(statistics.sample)))
    return lambda sessions: embed(chunk(sessions))


@lru_cache(maxsize=1)
def _data(name: str, seed: int, work: Path) -> Data:
    """Made once, then read by all processes."""
    path = work / f"data-{name}-{seed}.pickle"
    if not path.exists():
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(pickle.dumps(DATA[name](work / f"run-{name}-{seed}", seed)))
        temporary.rename(path)
    found: Data = pickle.loads(path.read_bytes())
    return found


def one(name: str, seed: int, variant: str, epochs: int, work: Path) -> Path:
    """One training and all its figures; none where the variant is the default."""
    path = work / f"{name}-{seed}-{variant}-{epochs}.npz"
    if path.exists():
        return path
    data, changed = _data(name, seed, work), VARIANTS[variant]
    default = config_of(data, epochs=epochs)
    config = default.model_copy(update={**changed.changes, "epochs": max(round(epochs * changed.epochs), 1)})
    found: dict[Key, Estimate] = {}
    if variant == BASE or (config, changed.patched, changed.seed) != (default, nullcontext, 0):
        with changed.patched():
            embed = trained(data.past, config, seed + changed.seed)
            for task in data.tasks:
                vectors = embed(task.seen)
                for head in HEADS:
                    for metric, estimate in judge(task, vectors, head, seed).items():
                        found[task.name, variant, head, metric] = estimate
    save(found, path)
    print(f"done: {name}, seed {seed}, {variant}", flush=True)
    return path


def summarise(parts: list[dict[Key, Estimate]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Means over seeds, and each variant's difference to the default: above 0 is better than the default."""
    gathered: dict[Key, list[Estimate]] = defaultdict(list)
    for key, estimate in (item for part in parts for item in part.items()):
        gathered[key].append(estimate)
    means = {key: mean(estimates) for key, estimates in gathered.items()}
    rows, differences = [], []
    for (task, variant, head, metric), estimate in means.items():
        row = {"variant": variant, "task": task, "head": head, "metric": metric}
        rows.append({**row, **estimate.interval()})
        base = means.get((task, BASE, head, metric))
        if base is not None and variant != BASE:
            gain = base.minus(estimate) if metric in LESS else estimate.minus(base)
            differences.append({**row, "against": BASE, **gain.interval()})
    return rows, differences


def show(rows: list[dict[str, Any]], differences: list[dict[str, Any]]) -> None:
    """Print the figures, and how often each variant is certainly better or worse than the default."""
    for title, table in (("VALUES", rows), ("DIFFERENCES TO THE DEFAULT, above 0 is better", differences)):
        print(f"\n{title}")
        for row in table:
            print(
                f"{row['variant']:24s} {row['task']:36s} {row['head']:9s} {row['metric']:12s} {_shown(row)}"
            )
    print("\nOF ALL FIGURES, certainly better / certainly worse / neither")
    for variant in dict.fromkeys(row["variant"] for row in differences):
        own = [row for row in differences if row["variant"] == variant and row["low"] is not None]
        better, worse = sum(row["low"] > 0 for row in own), sum(row["high"] < 0 for row in own)
        print(f"{variant:24s} {better:3d} / {worse:3d} / {len(own) - better - worse:3d}")


def _quiet() -> None:
    progress.console.quiet = True  # several at once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default=",".join(DEFAULT_DATA))
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--work", type=Path, default=None)
    arguments = parser.parse_args()
    names, variants = arguments.data.split(","), arguments.variants.split(",")
    for given, known in ((names, DATA), (variants, VARIANTS)):
        if unknown := set(given) - known.keys():
            parser.error(f"not known: {', '.join(sorted(unknown))}. There are: {', '.join(known)}.")
    variants = list(dict.fromkeys([BASE, *variants]))
    work = arguments.work or Path(tempfile.mkdtemp(prefix="ablations-"))
    work.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started below
    sets = [(name, seed) for seed in range(1, arguments.seeds + 1) for name in names]
    context = multiprocessing.get_context("spawn")
    for each in sets:
        _data(*each, work)  # before the processes, which would be in each other's way
    with ProcessPoolExecutor(os.cpu_count(), context, _quiet) as pool:
        jobs = [pool.submit(one, *each, v, arguments.epochs, work) for each in sets for v in variants]
        paths = [job.result() for job in jobs]
    rows, differences = summarise([load(path) for path in paths])
    show(rows, differences)
    if set(variants) == set(VARIANTS) and set(names) >= set(DEFAULT_DATA):
        figures = {"seeds": arguments.seeds, "epochs": arguments.epochs}
        write_results("ablations", {**figures, "rows": rows, "differences": differences})


if __name__ == "__main__":
    main()
