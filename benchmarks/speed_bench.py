"""What the parts of ``speed.py`` share: sizes, data and models made once, both sides in turn, ratios."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from clickintent.encoder.features import FeatureSpace, flatten
from quality_peer import Peer
from speed_data import write_sessions

SEED = 7
CHILD = Path(__file__).parent / "speed_child.py"
THREADS = (1, 2)

#: Ours: our default, a GRU of one layer, and a Transformer of two.
CELLS: dict[str, dict[str, Any]] = {"ours": {}, "ours_transformer": {"cell": "transformer", "layers": 2}}
#: Ways to train ptls: method, encoder, layers, and which of ours is like it.
METHODS = {
    "mlm_transformer": ("mlm", "transformer", 2, "ours_transformer"),
    "coles_gru": ("coles", "gru", 1, "ours"),
}
_SAME: tuple[str | int, ...] = ("--width", 96, "--heads", 4, "--dim", 64, "--max-events", 64)
_MIN_PAGE_COUNT = 5

Figures = dict[str, Any]
Side = Callable[[], Figures]


@dataclass(frozen=True)
class Sizes:
    """How much of everything; the numbers without unit are sessions."""

    train: int = 20_000
    train_epochs: int = 3
    train_max_s: float = 20.0  # a rival stops in the middle then
    embed: int = 50_000
    memory: tuple[int, ...] = (100_000, 1_000_000)
    memory_trained: int = 262_144
    calls: int = 5000
    resume_epochs: int = 20


QUICK = Sizes(4000, 1, 8.0, 10_000, (10_000, 100_000), 20_000, 1000, 20)


@dataclass
class Bench:
    """Where and how large; makes what several parts need, once."""

    work: Path
    sizes: Sizes
    repeats: int
    ptls: Path | None  # a Python

    def sessions(self, n: int) -> str:
        """A Parquet file of so many sessions."""
        path = self.work / f"sessions-{n}.parquet"
        write_sessions(path, n, SEED)
        return str(path)

    @cached_property
    def model(self) -> tuple[str, bool]:
        """Our default encoder, trained, and whether it has an int8 model."""
        return self._train("ours")

    @cached_property
    def transformer(self) -> str:
        """Our Transformer, trained."""
        return self._train("ours_transformer")[0]

    def _train(self, cell: str) -> tuple[str, bool]:
        path = str(self.work / cell)
        config = {"epochs": self.sizes.train_epochs, **CELLS[cell]}
        source = self.sessions(self.sizes.train)
        found = run("fit", threads=1, source=source, seed=SEED, out=path, config=config)
        return path, bool(found["int8"]["accepted"])

    def ptls_sessions(self, n: int) -> Path:
        """The same sessions as ptls reads them."""
        path = self.work / f"ptls-{n}.parquet"
        if not path.exists():
            sessions = pq.read_table(self.sessions(n))
            space = FeatureSpace.fit(
                flatten(sessions), np.arange(sessions.num_rows), min_page_count=_MIN_PAGE_COUNT
            )
            self._rival(1).write(sessions, space, path.stem)
        return path

    def train_ptls(self, method: str, threads: int, epochs: int, max_s: float) -> Figures:
        """Train ptls one way; the model stays in the folder."""
        name, encoder, layers, _ = METHODS[method]
        return self._rival(threads).call(
            *("train", "--method", name, "--encoder", encoder, "--layers", layers, *_SAME),
            *("--batch-size", 128),
            *("--input", self.ptls_sessions(self.sizes.train), "--out", self.work / f"ptls-{method}"),
            *("--epochs", epochs, "--max-seconds", max_s, "--seed", SEED),
        )

    def embed_ptls(self, method: str, threads: int, *more: str) -> Figures:
        """Embed with what ``train_ptls`` left."""
        return self._rival(threads).call(
            *("embed", "--model", self.work / f"ptls-{method}", "--out", self.work / "ptls.npy"),
            *("--input", self.ptls_sessions(self.sizes.embed), *more),
        )

    def _rival(self, threads: int) -> Peer:
        assert self.ptls is not None
        return Peer(self.ptls, self.work, threads)


def start(task: str, *, threads: int, **arguments: Any) -> subprocess.Popen[str]:
    """Start a task of ``speed_child.py``."""
    command = [sys.executable, str(CHILD), task, json.dumps(arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)


def run(task: str, *, threads: int, **arguments: Any) -> Figures:
    """The figures of a task of ``speed_child.py``."""
    with start(task, threads=threads, **arguments) as process:
        out, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{task} {arguments} failed:\n{errors[-3000:]}")
    found: Figures = json.loads(out.strip().splitlines()[-1])
    return found


def in_turn(sides: dict[str, Side], repeats: int, what: str) -> dict[str, list[Figures]]:
    """Each side once a repeat; every other time the last one first."""
    runs: dict[str, list[Figures]] = {name: [] for name in sides}
    for repeat in range(repeats):
        for name in list(sides)[:: -1 if repeat % 2 else 1]:
            found = sides[name]()
            runs[name].append(found)
            print(f"  {what} {name}: {found['sequences_per_second']:,.0f} sessions/s", flush=True)
    return runs


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median, the least and the greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def compared(runs: dict[str, list[Figures]], like: dict[str, str]) -> Figures:
    """The rates of all sides, and within each repeat the ratio of ours to each other one.

    Args:
        like: by the name of a side, which of ours it is compared with; our default if it is not there.
    """
    rates = {name: [found["sequences_per_second"] for found in side] for name, side in runs.items()}
    return {
        "sessions_per_second": {name: spread(side) for name, side in rates.items()},
        "ratio_of_ours_to": {
            name: spread([a / b for a, b in zip(rates[like.get(name, "ours")], side, strict=True)])
            for name, side in rates.items()
            if name != "ours"
        },
        "seconds": {name: [found["seconds"] for found in side] for name, side in runs.items()},
        "peak_rss_mib": {name: max(found["peak_rss_mib"] for found in side) for name, side in runs.items()},
        "first_run": {name: side[0] for name, side in runs.items()},
    }


def least_ratio(by_threads: dict[str, Figures], *names: str) -> float | None:
    """The median ratio of ours to a side; of several, the one that is the worst for us, as of the threads."""
    ratios = [part["ratio_of_ours_to"] for part in by_threads.values()]
    return min((found[name]["median"] for found in ratios for name in names if name in found), default=None)
