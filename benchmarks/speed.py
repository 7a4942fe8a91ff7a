"""How fast the encoder trains and embeds, beside pytorch-lifestream (ptls), and how much memory it takes.

Side by side in one run: in each repeat ours and the rival's in turn, the order reversed every other time,
each in a process of its own; ratios are taken within a repeat, and reported as the median with the least and
the greatest. Like is compared with like: our default, a GRU of one layer, with a GRU of one layer, our
Transformer of two layers and four heads with such a one. All have width 96, embeddings of 64, sessions of at
most 64 events, and the same sessions (``speed_data.py``). The ratios in front are those of the pair that is
the worst for us; of training, with the number of threads that is the worst for us. What each side's clock
includes stands beside its figures.

    python benchmarks/speed.py [--only train,embed,single,memory,resume] [--peer PTLS_PYTHON] [--full]
                               [--quick] [--repeats 3] [--work FOLDER]

``--peer`` is the Python of an environment with pytorch-lifestream (see requirements-ptls.txt). Parts that are
not measured keep their figures in ``results/speed.json``. ``--full`` also trains from ten million sessions
(some 2 GB in FOLDER). ``--quick`` checks the script in minutes, and writes its figures into FOLDER.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from common import RESULTS, write_results
from speed_bench import (
    CELLS,
    METHODS,
    QUICK,
    SEED,
    THREADS,
    Bench,
    Figures,
    Side,
    Sizes,
    compared,
    in_turn,
    least_ratio,
    run,
    spread,
    start,
)

TRANSFORMER, GRU = "mlm_transformer", "coles_gru"
EVENTS = 20  # of a session that is embedded alone
TEN_MILLION = 10_000_000


def train(bench: Bench) -> Figures:
    """Sessions per second of the training loop; a session counts as often as it is passed through.

    Ours sees a session up to a random event and predicts the rest; MLM sees all of it; CoLES, five slices.
    Ours: from the first batch to the last, with reading and decoding Parquet; without the survey of the data
    before, and the evaluation and export after. ptls: Trainer.fit on sessions that are tensors already.
    """
    sizes = bench.sizes
    source = bench.sessions(sizes.train)
    lengths = pq.read_table(source, columns=["n_events"])["n_events"].to_numpy()

    def ours(cell: str, threads: int) -> Figures:
        config = {"epochs": sizes.train_epochs, **CELLS[cell]}
        found = run("fit", threads=threads, source=source, seed=SEED, config=config)
        return {**found, "sequences_per_second": found["sessions_per_second"]}

    by_threads = {}
    for threads in THREADS:
        sides: dict[str, Side] = {cell: partial(ours, cell, threads) for cell in CELLS}
        if bench.ptls:
            limits = (sizes.train_epochs, sizes.train_max_s)
            sides |= {name: partial(bench.train_ptls, name, threads, *limits) for name in METHODS}
        runs = in_turn(sides, bench.repeats, f"train, threads {threads},")
        by_threads[str(threads)] = compared(runs, {name: method[-1] for name, method in METHODS.items()})
    ratio = least_ratio(by_threads, TRANSFORMER, GRU)
    seen = float((lengths + 1).mean() / 2 / lengths.mean())  # a cut is equally likely after each event
    return {
        "train_ratio_to_ptls": ratio,
        "train_ratio_to_ptls_by_event_seen": ratio and ratio * seen,
        **{f"train_ratio_to_ptls_{name}": least_ratio(by_threads, name) for name in METHODS},
        "train_sessions_per_second": by_threads["1"]["sessions_per_second"]["ours"]["median"],
        "sessions": sizes.train,
        "epochs": sizes.train_epochs,
        "mean_events": float(lengths.mean()),
        "share_of_events_seen_by_ours": seen,
        "by_threads": by_threads,
    }


def embed(bench: Bench) -> Figures:
    """Ours: all of embed_parquet, Parquet to Parquet; loading the model is not counted.

    ptls: InferenceModule and Trainer.predict on sessions that are tensors already, with neither reading nor
    writing; bucketed: sorted by length first, by hand. Arithmetic: the share of processor time that is spent
    within onnxruntime.
    """
    model, has_int8 = bench.model
    source, target = bench.sessions(bench.sizes.embed), str(bench.work / "embeddings.parquet")
    given = {"model": model, "source": source, "target": target}
    if bench.ptls:  # how well they are trained does not matter here
        for name in (TRANSFORMER, GRU):
            bench.train_ptls(name, threads=1, epochs=1, max_s=10.0)
    by_threads = {}
    for threads in THREADS:
        ours, ptls = partial(run, "embed", threads=threads, **given), bench.embed_ptls
        sides: dict[str, Side] = {"ours": ours, "ours_transformer": partial(ours, model=bench.transformer)}
        if has_int8:
            sides["ours_int8"] = partial(ours, precision="int8")
        if bench.ptls:
            for name, method in (("transformer", TRANSFORMER), ("gru", GRU)):
                sides[f"ptls_{name}"] = partial(ptls, method, threads)
                sides[f"ptls_{name}_bucketed"] = partial(ptls, method, threads, "--bucketed")
        like = dict.fromkeys(("ptls_transformer", "ptls_transformer_bucketed"), "ours_transformer")
        by_threads[str(threads)] = compared(in_turn(sides, bench.repeats, f"embed, threads {threads},"), like)
        by_threads[str(threads)]["share_of_arithmetic"] = ours(timed=True)["share_of_arithmetic"]
    return {
        "embed_sessions_per_second": by_threads["2"]["sessions_per_second"]["ours"]["median"],
        **embed_ratios(by_threads),
        "sessions": bench.sizes.embed,
        "by_threads": by_threads,
    }


def embed_ratios(by_threads: Figures) -> Figures:
    """Of medians, each side with the number of threads that is its best; ptls is at times faster with one."""

    def best(side: str) -> float | None:
        rates = [part["sessions_per_second"].get(side, {}).get("median") for part in by_threads.values()]
        return max((rate for rate in rates if rate), default=None)

    found: Figures = {}
    for how in ("", "_bucketed"):
        for name, ours in (("gru", "ours"), ("transformer", "ours_transformer")):
            mine, other = best(ours), best(f"ptls_{name}{how}")
            found[f"embed_ratio_to_ptls_{name}{how}"] = mine / other if mine and other else None
    both = [found["embed_ratio_to_ptls_gru"], found["embed_ratio_to_ptls_transformer"]]
    return {"embed_ratio_to_ptls": None if None in both else min(both), **found}


def single(bench: Bench) -> Figures:
    """Milliseconds of embed_one of 20 events given as dicts, one thread.

    onnxruntime: the part of it that is arithmetic. json: json.loads of the same session, the least that a
    service does with a request; its percentiles show how quiet the machine was.
    """
    model, has_int8 = bench.model
    given = {"model": model, "seed": SEED, "events": EVENTS, "calls": bench.sizes.calls}
    found: Figures = {}
    for precision in ("float32", "int8") if has_int8 else ("float32",):
        runs = []
        for _ in range(bench.repeats):
            runs.append(run("single", threads=1, precision=precision, **given))
            took = {kind: runs[-1][kind]["p99"] for kind in ("embed_one", "onnxruntime", "json")}
            print(f"  single {precision}, p99: {took}", flush=True)
        found[precision] = {
            kind: {p: spread([one[kind][p] for one in runs]) for p in runs[0][kind]} for kind in took
        }
    p99 = {precision: kinds["embed_one"]["p99"]["median"] for precision, kinds in found.items()}
    return {
        "single_p99_ms": p99["float32"],
        "single_int8_p99_ms": p99.get("int8"),
        "events": EVENTS,
        "calls": bench.sizes.calls,
        "milliseconds": found,
    }


def memory(bench: Bench) -> Figures:
    """The most resident memory of a process (VmHWM), imports included, by the sessions in the file.

    Training stops after ``max_sessions`` sessions, so that all sizes train equally long; the survey before
    reads all sessions.
    """
    config = {"max_sessions": bench.sizes.memory_trained}
    target = str(bench.work / "embeddings.parquet")
    rows: dict[str, list[Figures]] = {"embed": [], "fit": []}
    for n in bench.sizes.memory:
        source = bench.sessions(n)
        rows["embed"].append(run("embed", threads=2, model=bench.model[0], source=source, target=target))
        rows["fit"].append(run("fit", threads=1, source=source, seed=SEED, config=config))
        for task, found in rows.items():
            found[-1]["rows"] = n
            print(f"  memory {task}: {n:,} sessions, {found[-1]['peak_rss_mib']:.0f} MiB", flush=True)
    keys = ("rows", "peak_rss_mib", "seconds", "seconds_with_export")
    return {
        "max_sessions": bench.sizes.memory_trained,
        **{
            task: {
                "peak_growth": found[-1]["peak_rss_mib"] / found[0]["peak_rss_mib"],
                "runs": [{key: one[key] for key in keys if key in one} for one in found],
            }
            for task, found in rows.items()
        },
    }


def resume(bench: Bench) -> Figures:
    """Training is killed some seconds after its first checkpoint and started again; seconds of processes."""
    source, config = bench.sessions(bench.sizes.train), {"epochs": bench.sizes.resume_epochs}
    given: Figures = {"threads": 1, "source": source, "seed": SEED, "config": config}
    folders = {name: bench.work / name for name in ("whole", "resumed")}
    seconds = {}
    with tempfile.TemporaryDirectory(dir=bench.work) as checkpoints:
        again: Figures = {**given, "out": str(folders["resumed"]), "checkpoints": checkpoints}
        started = time.monotonic()
        with start("fit", **again) as process:
            while process.poll() is None and not any(Path(checkpoints).iterdir()):
                time.sleep(0.2)
            time.sleep(3)
            was_running = process.poll() is None
            process.kill()
        if not was_running:
            raise RuntimeError("training ended before it could be killed; give it more epochs")
        seconds["until_killed"] = time.monotonic() - started
        for name, how in (("resumed", again), ("whole", {**given, "out": str(folders["whole"])})):
            started = time.monotonic()
            run("fit", **how)
            seconds[name] = time.monotonic() - started
    weights = [(folder / "weights.safetensors").read_bytes() for folder in folders.values()]
    same = len({hashlib.sha256(one).hexdigest() for one in weights}) == 1
    print(f"  resume: same weights: {same}; seconds: {seconds}", flush=True)
    return {"same_weights": same, "seconds": seconds}


PARTS: dict[str, Callable[[Bench], Figures]] = {
    "train": train,
    "embed": embed,
    "single": single,
    "memory": memory,
    "resume": resume,
}


def hardware() -> str:
    """The processor in words."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = [line.split(":", 1)[1].strip() for line in cpu.splitlines() if line.startswith("model name")]
    return f"{os.cpu_count()} × {names[0] if names else 'unknown processor'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--peer", type=Path, default=None)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=None)
    parser.add_argument("--work", type=Path, default=None)
    options = parser.parse_args()
    # Threads that spin while they wait ruin whoever has two of them on a machine with other work. Ours sets
    # this itself; ptls, which does not, gets it for the comparison.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    work = options.work or Path(tempfile.mkdtemp(prefix="speed-"))
    work.mkdir(parents=True, exist_ok=True)
    repeats = options.repeats or (1 if options.quick else 3)
    bench = Bench(work, QUICK if options.quick else Sizes(), repeats, options.peer)
    if options.full:
        bench.sizes = replace(bench.sizes, memory=(*bench.sizes.memory, TEN_MILLION))
    path = (work if options.quick else RESULTS) / "speed.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    parts: dict[str, Any] = before.get("parts", {})
    for name in options.only.split(","):
        print(name, flush=True)
        part = PARTS[name]
        date = datetime.now(UTC).date().isoformat()
        counted = " ".join((part.__doc__ or "").split())
        parts[name] = {"date": date, "counted": counted, "repeats": repeats, **part(bench)}
    numbers = {
        key: value
        for part in parts.values()
        for key, value in part.items()
        if key.startswith(("train_", "embed_", "single_"))
    }
    figures = {**numbers, "hardware": hardware(), "parts": parts}
    print(json.dumps(numbers, indent=2))
    if options.quick:
        path.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    else:
        write_results("speed", figures)


if __name__ == "__main__":
    main()
