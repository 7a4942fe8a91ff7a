"""Labels and student on a simulated bank: what distilling keeps of a teacher, calibration, speed.

The perfect teacher is the truth itself, the noisy one a worse copy of it (15 % of the sessions wrong,
confidences blurred). What a session shows of its intents has a limit, so nobody who only sees the session can
reach the truth's F1 of 1; the same is therefore also measured with the ideal reader (``labels_reader``), who
knows the simulator's tables and reads the session, as the teacher (``…_ideal_reader``). Figures are
against the truth, on sessions after the split: means over seeds with 95 % intervals of the bootstrap over
visitors, and the least and the greatest seed. The student's settings were chosen on seed 1, which is
therefore left out.

    python benchmarks/labels.py [--only students,curve,rivals,taxonomy,speed] [--seeds 2,3,4] [--quick]
        [--sessions 60000] [--llm-seconds 3] [--labels WORKSPACE] [--work FOLDER]

``--llm-seconds``: what the language model takes for a session (the paper: 2 to 4). ``--labels``: the
workspace of a run on the first seed's bank in which a language model drafted and labelled, to be compared
with the true intents (see ``labels_llm``). With ``--work``, banks and encoders are kept and used again. Parts
that are not measured keep the figures that they had with the same seeds and sessions.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import labels_quality
from clickintent.config import StudentConfig
from clickintent.downstream.metrics import Estimate
from clickintent.encoder.files import in_order
from clickintent.taxonomy import IntentGraph, export_graph
from common import read_results, write_results
from labels_data import LabelData, load
from labels_llm import of_llm
from quality_judge import mean

Figures = dict[str, Any]
_THREADS, _REPEATS = 2, 5
_HEAD_ROWS, _PIECE = 1_000_000, 50_000


def summarise(seeds: list[labels_quality.Estimates]) -> Figures:
    """Mean over seeds with its interval, and the seeds' least and greatest value."""
    gathered: dict[str, list[Estimate]] = defaultdict(list)
    for found in seeds:
        for name, estimate in found.items():
            gathered[name].append(estimate)
    return {
        name: {
            **mean(estimates).interval(),
            "seed_min": min(e.value for e in estimates),
            "seed_max": max(e.value for e in estimates),
        }
        for name, estimates in gathered.items()
    }


def speed(data: LabelData, work: Path, llm_seconds: float, quick: bool) -> Figures:
    """Sessions a second on two threads: the head from embeddings, and from sessions in memory to labels."""
    student = labels_quality.student_of(
        data, data.readers["reader"], StudentConfig(epochs=2, learning_curve=False)
    )
    rows = np.arange(_HEAD_ROWS // (10 if quick else 1)) % len(data.embeddings)
    vectors = data.embeddings[rows]
    pieces = [vectors[at : at + _PIECE] for at in range(0, len(vectors), _PIECE)]
    path = work / "intents.onnx"
    export_graph(data.encoder, student, path)
    graph, sessions = IntentGraph(path, data.encoder), data.sessions

    def head() -> int:
        return sum(len(found) for found in in_order(student.predict_proba, pieces, _THREADS))

    def both() -> int:
        vectors = data.encoder.embed(sessions, workers=_THREADS)
        return len(student.predict_proba(vectors))

    def one_graph() -> int:
        return len(graph.label(sessions, workers=_THREADS)[1])

    rates = {
        name: _rate(work_) for name, work_ in (("head", head), ("two steps", both), ("graph", one_graph))
    }
    return {
        "threads": _THREADS,
        "sessions_per_second": rates,
        "mean_events": float(np.mean(sessions["n_events"].to_numpy())),
        "llm_seconds_per_session": llm_seconds,
        "times_as_fast_as_llm": {name: rate["median"] * llm_seconds for name, rate in rates.items()},
    }


def _rate(work: Callable[[], int]) -> Figures:
    work()
    rates = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        n = work()
        rates.append(n / (time.perf_counter() - started))
    return {"median": statistics.median(rates), "min": min(rates), "max": max(rates)}


def show(title: str, rows: Figures) -> None:
    for what, row in rows.items():
        between = "" if row["low"] is None else f" ({row['low']:.4f} … {row['high']:.4f})"
        seeds = f"{row['seed_min']:.4f}–{row['seed_max']:.4f}"
        print(f"{title:9s} {what:58s} {row['value']:9.4f}{between}  {seeds}", flush=True)


def _with_one_thread_each() -> None:
    """Start anew with libraries that use no threads but those started here: they read this when imported."""
    wanted = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})


def main() -> None:
    _with_one_thread_each()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="students,curve,rivals,taxonomy,speed")
    parser.add_argument("--seeds", default="2,3,4")
    parser.add_argument("--sessions", type=int, default=60_000)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--llm-seconds", type=float, default=3.0)
    parser.add_argument("--labels", type=Path, default=None)
    parser.add_argument("--work", type=Path, default=None)
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="labels-"))
    seeds = [int(seed) for seed in options.seeds.split(",")]
    if options.quick:
        seeds, options.sessions = seeds[:1], 6_000
    parts: dict[str, Callable[[LabelData], labels_quality.Estimates]] = {
        "curve": labels_quality.curve,
        "rivals": labels_quality.rivals,
        "taxonomy": labels_quality.taxonomy,
    }
    wanted = options.only.split(",")
    by_part: dict[str, list[labels_quality.Estimates]] = defaultdict(list)
    figures: Figures = {"seeds": seeds, "sessions": options.sessions}
    before = read_results("labels")
    if not options.quick and all(before.get(key) == value for key, value in figures.items()):
        figures = before  # of the parts that are not measured now
    parts_before = figures.get("parts", {})

    def add(name: str, seed: int, estimates: labels_quality.Estimates) -> None:
        by_part[name].append(estimates)
        show(f"seed {seed}", summarise([estimates]))

    for seed in seeds:
        data = load(work, seed, options.sessions)
        if "students" in wanted:
            estimates, details = labels_quality.students(data)
            if seed == seeds[0]:
                figures["details_of_first_seed"] = details
            add("students", seed, estimates)
        for name, part in parts.items():
            if name in wanted:
                add(name, seed, part(data))
        if seed == seeds[0]:
            if options.labels:
                figures["language_model"] = of_llm(data, options.labels)
            if "speed" in wanted:
                figures["speed"] = speed(data, work, options.llm_seconds, options.quick)
    measured = {name: summarise(found) for name, found in by_part.items()}
    figures["parts"] = {**parts_before, **measured}
    head: Figures = {}
    if "speed" in wanted:
        rates = figures["speed"]["sessions_per_second"]
        head["head_sessions_per_second"] = rates["head"]["median"]
        head["sessions_per_second"] = rates["graph"]["median"]
    if "students" in wanted:
        students = figures["parts"]["students"]
        for kind, suffix in (("truth", ""), ("reader", "_ideal_reader")):
            head[f"kept_of_perfect_teacher{suffix}"] = students[f"{kind}: kept"]["value"]
            head[f"gain_over_noisy_teacher{suffix}"] = students[f"noisy {kind}: gain"]["value"]
            head[f"ece{suffix}"] = students[f"{kind}: ece"]["value"]
    for name, rows in measured.items():
        show(name, rows)
    print(json.dumps({**head, "speed": figures.get("speed")}, indent=2))
    if not options.quick:
        print(write_results("labels", {**figures, **head}))


if __name__ == "__main__":
    main()
