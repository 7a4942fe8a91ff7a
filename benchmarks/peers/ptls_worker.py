"""pytorch-lifestream 0.7 as a peer: trains it and embeds with it, in an environment of its own.

Our benchmarks start this file with that environment's Python (see ``requirements-ptls.txt``) and read the
line of JSON it prints last. Input: a Parquet file, one row per session, with list columns ``page``,
``event_type`` and ``hour`` (ids from 1), ``log_dwell`` and ``log_gap``, ``event_time`` (seconds); a null or
empty list is a session of no events. ``pages`` and ``event_types`` in the schema's metadata give the sizes of
the vocabularies; without them the training data does. Timed are the library's own loops alone: no imports, no
reading, no saving.

The data sets, loaders, modules, losses, optimizers, trainer and inference module are the library's, with the
settings of its notebooks where they fit sessions, and otherwise:

- CoLES (``coles-emb.ipynb``: GRU, Adam 0.001, five slices of a sequence, batch-hard negatives). Its slices
  have 25 to 200 events; many sessions have fewer than five, so ``cnt_min`` is a third of the median length. A
  session that is no longer takes part as five copies of itself.
- MLM (``mlm-emb.ipynb``: events projected and L2-normalised, 10 % masked, one-cycle to 0.001, 64 negatives).
  Whole sessions instead of slices, and positions counted from the start, as all of a session fits; the plain
  Transformer instead of a Longformer, which only long sequences repay. The library stops with an error where
  a batch has no more masked events than negatives: here it takes as many as there are. No sequence vector is
  trained ("CLS token aren't learned", ``docs/frames/bert.md``), so the mean over the events is taken.
- A width that is not the embedding's size: linear layers around the encoder (``docs/nn/seq_encoder.md``).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import time
import warnings
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytorch_lightning as pl
import torch
from ptls.data_load.datasets import MemoryMapDataset, inference_data_loader
from ptls.data_load.padded_batch import PaddedBatch
from ptls.frames import PtlsDataModule
from ptls.frames.bert import MlmDataset, MLMPretrainModule
from ptls.frames.coles import ColesDataset, CoLESModule
from ptls.frames.coles.split_strategy import SampleSlices
from ptls.frames.inference_module import InferenceModule
from ptls.nn import (
    PBL2Norm,
    PBLinear,
    RnnEncoder,
    RnnSeqEncoder,
    TransformerEncoder,
    TransformerSeqEncoder,
    TrxEncoder,
)
from torch import Tensor, nn

Record: TypeAlias = dict[str, Tensor]  # a session: column → one value per event

CATEGORIES = ("page", "event_type", "hour")
NUMBERS = ("log_dwell", "log_gap")
VECTOR_SIZES = {"page": 32, "event_type": 8, "hour": 8}
SIZES = (b"pages", b"event_types")
SLICES = 5
NEGATIVES = 64


@dataclass(frozen=True)
class Settings:
    """What is needed to build the encoder again."""

    method: str
    encoder: str
    width: int
    layers: int
    heads: int
    dim: int
    max_events: int
    pages: int
    event_types: int


def read_sessions(path: Path, max_events: int) -> tuple[list[Record], np.ndarray, dict[str, int]]:
    """The last events of the sessions that have any, their rows in the file, the sizes in its metadata."""
    table = pq.read_table(path, columns=[*CATEGORIES, *NUMBERS, "event_time"])
    sizes = {key.decode(): int(value) for key, value in (table.schema.metadata or {}).items() if key in SIZES}
    lengths = pc.fill_null(pc.list_value_length(table["page"]), 0).to_numpy()
    ends = np.cumsum(lengths)
    columns: dict[str, Tensor] = {}
    for name in table.column_names:
        if not np.array_equal(pc.fill_null(pc.list_value_length(table[name]), 0).to_numpy(), lengths):
            raise SystemExit(f"{path}: the lists of {name} are not as long as those of page")
        values = pc.list_flatten(table[name]).to_numpy()
        columns[name] = torch.from_numpy(values.astype(np.float32 if name in NUMBERS else np.int64))
    rows = np.flatnonzero(lengths)
    spans = [slice(ends[row] - min(lengths[row], max_events), ends[row]) for row in rows]
    return [{name: values[span] for name, values in columns.items()} for span in spans], rows, sizes


class MeanOfEvents(nn.Module):
    """(batch, events, dim), padded → (batch, dim)."""

    def forward(self, events: PaddedBatch) -> Tensor:
        """Mean over the events that are there."""
        there = events.seq_len_mask.unsqueeze(2)
        return (events.payload * there).sum(dim=1) / events.seq_lens.unsqueeze(1)


class Projected(nn.Module):
    """An encoder of the library with a linear layer behind; ``CoLESModule`` passes three arguments."""

    def __init__(self, encoder: nn.Module, width: int, dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.project = nn.Linear(width, dim)

    def forward(self, x: PaddedBatch, names: object = None, seq_len: object = None) -> Tensor:
        """(batch, dim)."""
        return self.project(self.encoder(x, names, seq_len))


class Mlm(MLMPretrainModule):
    """The library's module, safe for batches with few events."""

    def get_mask(self, attention_mask: Tensor) -> Tensor:
        """At least two masked events: the mean of no losses is NaN, and one has no negatives."""
        mask = super().get_mask(attention_mask)
        while mask.sum() < 2:
            mask = super().get_mask(attention_mask)
        return mask

    def get_neg_ix(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """No more negatives than there are other masked events."""
        wanted = self.hparams.neg_count
        self.hparams.neg_count = min(wanted, int(mask.sum()) - 1)
        try:
            return super().get_neg_ix(mask)
        finally:
            self.hparams.neg_count = wanted


def build_event_encoder(settings: Settings, linear_projection_size: int = 0) -> TrxEncoder:
    """Every part of an event; ids beyond the vocabulary share one more row, zero until training meets one."""
    sizes = {"page": settings.pages, "event_type": settings.event_types, "hour": 24}
    encoder = TrxEncoder(
        embeddings={name: {"in": sizes[name] + 2, "out": VECTOR_SIZES[name]} for name in CATEGORIES},
        numeric_values=dict.fromkeys(NUMBERS, "identity"),
        embeddings_noise=0.003,
        linear_projection_size=linear_projection_size,
        out_of_index="clip",
    )
    for table in encoder.embeddings.values():
        nn.init.zeros_(table.weight.data[-1])
    return encoder


def build_encoder(settings: Settings) -> nn.Module:
    """The model that embeds: a padded batch of sessions → (batch, dim)."""
    attention = {
        "n_heads": settings.heads,
        "n_layers": settings.layers,
        "dim_hidden": 4 * settings.width,
        "max_seq_len": settings.max_events,
        "use_start_random_shift": False,
    }
    width, dim = settings.width, settings.dim
    if settings.method == "coles":
        if settings.encoder == "gru":
            sequence: nn.Module = RnnSeqEncoder(
                trx_encoder=build_event_encoder(settings),
                hidden_size=width,
                num_layers=settings.layers,
                type="gru",
            )
        else:
            sequence = TransformerSeqEncoder(trx_encoder=build_event_encoder(settings, width), **attention)
        return sequence if width == dim else Projected(sequence, width, dim)
    events = build_event_encoder(settings)
    if settings.encoder == "gru":
        sequence = RnnEncoder(input_size=width, hidden_size=width, num_layers=settings.layers, type="gru")
    else:
        sequence = TransformerEncoder(input_size=width, **attention)
    if width != dim:
        sequence = nn.Sequential(PBLinear(dim, width), sequence, PBLinear(width, dim))
    return nn.Sequential(
        nn.Sequential(events, PBLinear(events.output_size, dim), PBL2Norm()), sequence, MeanOfEvents()
    )


def build_trainer(**options: Any) -> pl.Trainer:
    """Lightning's trainer, which writes and says nothing."""
    return pl.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and save; the figures of the training loop."""
    pl.seed_everything(arguments.seed, workers=True, verbose=False)
    records, _, sizes = read_sessions(arguments.input, arguments.max_events)
    if not records:
        raise SystemExit(f"{arguments.input}: no session has events")
    settings = Settings(
        method=arguments.method,
        encoder=arguments.encoder or {"coles": "gru", "mlm": "transformer"}[arguments.method],
        width=arguments.width,
        layers=arguments.layers,
        heads=arguments.heads,
        dim=arguments.dim,
        max_events=arguments.max_events,
        pages=sizes.get("pages") or max(int(record["page"].max()) for record in records),
        event_types=sizes.get("event_types") or max(int(record["event_type"].max()) for record in records),
    )
    encoder = build_encoder(settings)
    batch_size = min(arguments.batch_size, len(records))
    steps = arguments.epochs * (len(records) // batch_size)
    data = MemoryMapDataset(records)
    choices: dict[str, Any]
    if settings.method == "coles":
        median = float(np.median([len(record["page"]) for record in records]))
        choices = {"slices": SLICES, "cnt_min": max(1, round(median / 3)), "cnt_max": settings.max_events}
        splitter = SampleSlices(SLICES, choices["cnt_min"], choices["cnt_max"])
        dataset: torch.utils.data.Dataset[Any] = ColesDataset(data, splitter=splitter)
        module: pl.LightningModule = CoLESModule(
            seq_encoder=encoder,
            optimizer_partial=partial(torch.optim.Adam, lr=0.001),
            lr_scheduler_partial=partial(torch.optim.lr_scheduler.StepLR, step_size=30, gamma=0.9),
        )
    else:
        choices = {"masked": 0.1, "negatives": NEGATIVES, "slices": "whole sessions"}
        dataset = MlmDataset(data, min_len=settings.max_events, max_len=settings.max_events)
        module = Mlm(
            trx_encoder=encoder[0],
            seq_encoder=encoder[1],
            hidden_size=settings.dim,
            loss_temperature=20.0,
            total_steps=steps + 1,
            max_lr=0.001,
            replace_proba=choices["masked"],
            neg_count=NEGATIVES,
        )
    loader = PtlsDataModule(
        train_data=dataset,
        train_batch_size=batch_size,
        train_num_workers=arguments.workers,
        train_drop_last=True,
    )
    limit = {"seconds": arguments.max_seconds} if arguments.max_seconds else None
    trainer = build_trainer(max_epochs=arguments.epochs, max_time=limit, num_sanity_val_steps=0)
    start = time.perf_counter()
    trainer.fit(module, loader)
    seconds = time.perf_counter() - start
    name = "loss" if settings.method == "coles" else "mlm/loss"
    loss = float(trainer.callback_metrics[name])
    if not np.isfinite(loss):
        raise SystemExit(f"training ended with a loss of {loss}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.save(encoder.state_dict(), arguments.out / "weights.pt")
    text = json.dumps(asdict(settings), indent=2) + "\n"
    (arguments.out / "settings.json").write_text(text, encoding="utf-8")
    return {
        "seconds": seconds,
        "sessions": trainer.global_step * batch_size,
        "steps": trainer.global_step,
        "epochs": trainer.global_step / (len(records) // batch_size),
        "batch_size": batch_size,
        "parameters": sum(weight.numel() for weight in encoder.parameters()),
        "last_loss": loss,
        "choices": choices,
        **asdict(settings),
    }


def embed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Embed every row of the input; the figures of the inference loop, sorting included."""
    settings = Settings(**json.loads((arguments.model / "settings.json").read_text(encoding="utf-8")))
    encoder = build_encoder(settings)
    encoder.load_state_dict(torch.load(arguments.model / "weights.pt", weights_only=True))
    records, rows, _ = read_sessions(arguments.input, settings.max_events)
    vectors = np.zeros((pq.read_metadata(arguments.input).num_rows, settings.dim), np.float32)
    module = InferenceModule(encoder, pandas_output=False)
    trainer = build_trainer()
    start = time.perf_counter()
    order = np.arange(len(records))
    if arguments.bucketed:
        order = np.argsort([len(record["page"]) for record in records], kind="stable")
    ordered = [{name: records[i][name] for name in (*CATEGORIES, *NUMBERS)} for i in order]
    if ordered:
        batches = inference_data_loader(
            ordered,
            max_seq_len=settings.max_events,
            num_workers=arguments.workers,
            batch_size=arguments.batch_size,
        )
        vectors[rows[order]] = torch.vstack([out["out"] for out in trainer.predict(module, batches)]).numpy()
    seconds = time.perf_counter() - start
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    np.save(arguments.out, vectors)
    return {
        "seconds": seconds,
        "sessions": len(records),
        "empty": len(vectors) - len(records),
        "bucketed": arguments.bucketed,
        "batch_size": arguments.batch_size,
        "epochs": 0,
        "parameters": sum(weight.numel() for weight in encoder.parameters()),
        **asdict(settings),
    }


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train and embed with pytorch-lifestream.")
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train on sessions, save the encoder")
    training.add_argument("--method", choices=("coles", "mlm"), required=True)
    training.add_argument("--encoder", choices=("gru", "transformer"), help="as in the library's notebooks")
    training.add_argument("--out", type=Path, required=True, help="folder for the model")
    training.add_argument("--width", type=int, default=64)
    training.add_argument("--layers", type=int, default=1)
    training.add_argument("--heads", type=int, default=4)
    training.add_argument("--dim", type=int, default=64)
    training.add_argument("--epochs", type=int, default=12)
    training.add_argument("--batch-size", type=int, default=128)
    training.add_argument("--max-events", type=int, default=64)
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--max-seconds", type=float)
    training.set_defaults(run=train)
    embedding = commands.add_parser("embed", help="embed sessions with a saved encoder")
    embedding.add_argument("--model", type=Path, required=True, help="folder of the model")
    embedding.add_argument("--out", type=Path, required=True, help="file of the vectors (.npy)")
    embedding.add_argument("--bucketed", action="store_true", help="sort by length first")
    embedding.add_argument("--batch-size", type=int, default=512)
    embedding.set_defaults(run=embed)
    for command in (training, embedding):
        command.add_argument("--input", type=Path, required=True, help="Parquet file of sessions")
        command.add_argument("--threads", type=int, default=1)
        command.add_argument("--workers", type=int, default=0, help="processes that load data")
    return parser.parse_args()


def peak_mib() -> float:
    """The most memory that this process has held. Not from getrusage: that may be its parent's."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


def main() -> None:
    """Run one command and print its figures."""
    arguments = parse()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(arguments.threads)
    figures = arguments.run(arguments)
    figures["sequences_per_second"] = round(figures["sessions"] / figures["seconds"], 1)
    figures["seconds"] = round(figures["seconds"], 3)
    figures["threads"], figures["workers"] = arguments.threads, arguments.workers
    figures["peak_rss_mib"] = round(peak_mib(), 1)
    packages = ("pytorch-lifestream", "pytorch-lightning", "torch", "numpy")
    figures["versions"] = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
