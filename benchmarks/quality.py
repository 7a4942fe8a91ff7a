"""Is the frozen embedding better than what a team would use instead? Five data sets, five seeds, two heads.

Every method sees the same cut sessions, learns without labels from the same past, and is judged on the same
test rows by the same heads: logistic regression and LightGBM. Rivals: page counts, an evening's hand-made
features, the last page, TF-IDF + SVD to 64, pytorch-lifestream's CoLES and MLM (64), our Transformer, and, as
a ceiling that needs the labels, the same trained on each task. Values are means over seeds with the 95 %
interval of their paired bootstrap; differences are taken on the same resamples.

Configuration and objectives were chosen on seed 1 of these tasks. SimBank is drawn anew for each seed; GA360
and app onboarding test other visitors, whom seed 1 had in training; Vanguard and the e-shop test the same
rows under all seeds, so that there only the trainings are new.

    python benchmarks/quality.py [--seeds 5] [--data vanguard,ga360,…] [--peer PTLS_PYTHON] [--work FOLDER]
        [--peer-sessions 300000]

``--peer`` is the Python of an environment with pytorch-lifestream (see requirements-ptls.txt);
``--peer-sessions`` is how many sessions its methods see in training, over all epochs. A killed run goes on
with what is not done.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import quality_methods
import quality_supervised
from clickintent import SessionEncoder
from clickintent.config import EncoderConfig
from clickintent.downstream.metrics import Estimate
from clickintent.encoder.alignment import apply_alignment, fit_alignment
from clickintent.encoder.features import FeatureSpace, Floats, flatten
from clickintent.encoder.visitors import visitor_history
from common import write_results
from quality_data import DATA, Data, Task
from quality_judge import HEADS, LESS, judge, mean, measure, oracle
from quality_peer import Peer

OTHERS = ("tfidf_svd", "coles", "mlm")  # the rivals that are embeddings too
EMBEDDINGS = (*OTHERS, "transformer")  # with our own other cell
TRANSFORMER: dict[str, Any] = {"cell": "transformer", "layers": 2}
OURS, SUPERVISED, PEERS = "ours", "supervised", ("coles", "mlm")  # a job each, by data set and seed
PEER_EPOCHS = 15  # as in its notebooks; on larger data fewer
HALF_LIVES = (1.0, 3.0, 7.0, 14.0, 30.0, float("inf"))
Key = tuple[str, str, str, str]  # task, method, head, metric


def config_of(data: Data, **changes: Any) -> EncoderConfig:
    return EncoderConfig(min_page_count=data.min_page_count, text=data.text, **changes)


def one(name: str, seed: int, part: str, work: Path, peer: Path | None, passes: int) -> dict[Key, Estimate]:
    """The methods of one part on one data set under one seed."""
    data = DATA[name](work, seed)
    found: dict[Key, Estimate] = {}

    def add(task: Task, method: str, head: str, estimates: Mapping[str, Estimate] | None) -> None:
        for metric, estimate in (estimates or {}).items():
            found[task.name, method, head, metric] = estimate

    def add_all(method: str, matrices: list[Any]) -> None:
        for task, matrix in zip(data.tasks, matrices, strict=True):
            for head in HEADS:
                add(task, method, head, judge(task, matrix, head, seed))

    if part in PEERS:
        assert peer is not None
        add_all(part, _peer(data, part, seed, peer, passes))
        return found
    if part == SUPERVISED:
        for task in data.tasks:
            ceiling = quality_supervised.probabilities(task, config_of(data, **TRANSFORMER), seed)
            add(task, part, "own", measure(task, ceiling))
        return found
    for make in (quality_methods.page_counts, quality_methods.last_page, quality_methods.tfidf_svd):
        method = make(data, seed)
        add_all(make.__name__, [method(task.seen) for task in data.tasks])
    evening = quality_methods.evening(data, seed)
    by_hand = [evening(task.seen) for task in data.tasks]
    add_all("evening", by_hand)

    encoder = SessionEncoder(config_of(data), seed=seed).fit(data.past)
    ours = [encoder.embed(task.seen) for task in data.tasks]
    add_all("embedding", ours)
    add_all("embedding_first_32", [vectors[:, :32] for vectors in ours])
    int8 = _int8(encoder)
    if int8:
        add_all("embedding_int8", [int8.embed(task.seen) for task in data.tasks])
    add_all("embedding_evening", [np.hstack(pair) for pair in zip(ours, by_hand, strict=True)])
    transformer = SessionEncoder(config_of(data, **TRANSFORMER), seed=seed).fit(data.past)
    add_all("transformer", [transformer.embed(task.seen) for task in data.tasks])
    for task in data.tasks:
        start = np.exp(task.offset[task.test])
        add(task, "prior", "none", measure(task, start / start.sum(axis=1, keepdims=True)))
        add(task, "oracle", "none", oracle(task))
    if name == "simbank":
        _visitors(data, ours, seed, add)
        _retrained(data, encoder, ours, seed, add)
    return found


def _int8(encoder: SessionEncoder) -> SessionEncoder | None:
    """None if the int8 model was not accepted."""
    if not encoder.metrics["int8"]["accepted"]:
        return None
    with tempfile.TemporaryDirectory() as folder:
        encoder.save(Path(folder))
        return SessionEncoder.load(Path(folder), precision="int8")


def _peer(data: Data, method: str, seed: int, python: Path, passes: int) -> list[Floats]:
    """The rival's embeddings of every task's sessions, trained on that many sessions over all epochs."""
    epochs = min(PEER_EPOCHS, max(round(passes / data.past.num_rows), 1))
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(python, Path(folder))
        flat = flatten(data.past)
        space = FeatureSpace.fit(flat, np.arange(data.past.num_rows), min_page_count=data.min_page_count)
        model = peer.folder / "model"
        kind = {"coles": "gru", "mlm": "transformer"}[method]
        layers = {"coles": 1, "mlm": 2}[method]
        peer.call(
            *("train", "--method", method, "--encoder", kind, "--out", model, "--layers", layers),
            *("--input", peer.write(data.past, space, "past"), "--epochs", epochs, "--seed", seed),
            *("--width", 96, "--heads", 4, "--dim", 64, "--batch-size", 128, "--max-events", 64),
        )
        vectors = []
        for i, task in enumerate(data.tasks):
            path, out = peer.write(task.seen, space, f"task-{i}"), peer.folder / f"task-{i}.npy"
            peer.call("embed", "--model", model, "--input", path, "--out", out, "--batch-size", 256)
            vectors.append(np.load(out))
        return vectors


def _visitors(data: Data, ours: list[Floats], seed: int, add: Any) -> None:
    """Conversion from the visitor's sessions so far instead of the last one."""
    task, vectors = next((t, v) for t, v in zip(data.tasks, ours, strict=True) if "conversion" in t.name)
    for days in HALF_LIVES:
        history = visitor_history(task.seen, vectors, half_life_days=days)
        both = np.hstack([vectors, history])
        for head in HEADS:
            add(task, f"visitor_{days:g}", head, judge(task, history, head, seed))
            add(task, f"last_and_visitor_{days:g}", head, judge(task, both, head, seed))


def _retrained(data: Data, old: SessionEncoder, ours: list[Floats], seed: int, add: Any) -> None:
    """A head trained on the old encoder's embeddings meets those of an encoder trained anew."""
    task, before = data.tasks[0], ours[0]
    new = SessionEncoder(config_of(data), seed=seed + 1000).fit(data.past)
    after = new.embed(task.seen)
    past_new, past_old = new.embed(data.past), old.embed(data.past)
    center = past_new.mean(axis=0)
    left, _, right = np.linalg.svd((past_new - center).T @ (past_old - past_old.mean(axis=0)))
    turned = (after - center) @ (left @ right) + past_old.mean(axis=0)
    mapped = apply_alignment(after, fit_alignment(past_new, past_old))
    kinds = {"retrained_not_aligned": after, "retrained_orthogonal": turned, "retrained_aligned": mapped}
    for kind, vectors in kinds.items():
        mixed = before.copy()
        mixed[task.row[task.test]] = vectors[task.row[task.test]]
        for head in HEADS:
            add(task, kind, head, judge(task, mixed, head, seed))


def save(found: Mapping[Key, Estimate], path: Path) -> None:
    arrays = {"|".join(key): np.append(e.value, e.replicates) for key, e in found.items()}
    temporary = path.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
    temporary.rename(path)


def load(path: Path) -> dict[Key, Estimate]:
    with np.load(path) as arrays:
        pairs = {tuple(name.split("|")): arrays[name] for name in arrays.files}
    return {key: Estimate(float(a[0]), a[1:]) for key, a in pairs.items()}  # type: ignore[misc]


def summarise(parts: list[dict[Key, Estimate]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Means over seeds, and the paired differences that decide."""
    gathered: dict[Key, list[Estimate]] = defaultdict(list)
    for part in parts:
        for key, estimate in part.items():
            gathered[key].append(estimate)
    means = {key: mean(estimates) for key, estimates in gathered.items()}
    rows = []
    for (task, method, head, metric), estimate in means.items():
        seeds = [e.value for e in gathered[task, method, head, metric]]
        row = {"task": task, "method": method, "head": head, "metric": metric, **estimate.interval()}
        rows.append(row | {"seeds": len(seeds), "seed_min": min(seeds), "seed_max": max(seeds)})
    differences = []

    def compare(task: str, head: str, metric: str, method: str, against: str, label: str) -> None:
        keys = (task, method, head, metric), (task, against, head, metric)
        a, b = (means.get(key) for key in keys)
        if a is None or b is None or len(gathered[keys[0]]) != len(gathered[keys[1]]):
            return  # without one of the two under some seed, it would not be paired
        sign = -1.0 if metric in LESS else 1.0  # above 0 is better
        gain = a.minus(b)
        signed = Estimate(sign * gain.value, sign * gain.replicates).interval()
        differences.append(
            {"task": task, "head": head, "metric": metric, "what": label, "against": against, **signed}
        )

    for task, head, metric in dict.fromkeys((k[0], k[2], k[3]) for k in means if k[2] in HEADS):
        order = -1.0 if metric in LESS else 1.0
        for among, label in ((EMBEDDINGS, "best rival embedding"), (OTHERS, "best embedding of others")):
            rivals = [m for m in among if (task, m, head, metric) in means]
            if rivals:
                best = max(rivals, key=lambda m: order * means[task, m, head, metric].value)
                compare(task, head, metric, "embedding", best, f"embedding − {label}")
        compare(task, head, metric, "embedding", "page_counts", "embedding − page counts")
        compare(task, head, metric, "embedding", "evening", "embedding − evening")
        compare(task, head, metric, "embedding_evening", "evening", "embedding and evening − evening")
        compare(task, head, metric, "embedding_first_32", "embedding", "first 32 − all 64")
        compare(task, head, metric, "embedding_int8", "embedding", "int8 − float32")
        for days in HALF_LIVES:
            visitor = f"visitor_{days:g}"
            compare(task, head, metric, visitor, "embedding", f"{visitor} − last session")
    for (task, method, head, metric), estimate in means.items():
        top, floor = means.get((task, "oracle", "none", metric)), means.get((task, "prior", "none", metric))
        if top and floor and method not in ("oracle", "prior"):
            share = estimate.share_of_gain(floor, top).interval()
            differences.append(
                {"task": task, "head": head, "metric": metric, "what": f"{method}: share of oracle's gain",
                 "against": "prior", **share}
            )  # fmt: skip
    return rows, differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", default=",".join(DATA))
    parser.add_argument("--peer", type=Path, default=None)
    parser.add_argument("--peer-sessions", type=int, default=300_000)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--one", default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="quality-"))
    work.mkdir(parents=True, exist_ok=True)
    passes = arguments.peer_sessions
    if arguments.one:
        name, seed, part = arguments.one.split(":")
        job = f"{name}-{seed}-{part}"
        found = one(name, int(seed), part, work / f"run-{job}", arguments.peer, passes)
        save(found, work / f"{job}.npz")
        return
    names = arguments.data.split(",")
    parts = (OURS, *(PEERS if arguments.peer else ()), SUPERVISED)
    todo = [(n, s, part) for s in range(1, arguments.seeds + 1) for part in parts for n in names]

    def run(job: tuple[str, int, str]) -> dict[Key, Estimate] | None:
        name, seed, part = job
        path = work / f"{name}-{seed}-{part}.npz"
        if not path.exists():
            command = [sys.executable, __file__, "--one", f"{name}:{seed}:{part}", "--work", str(work)]
            command += ["--peer-sessions", str(passes)]
            command += ["--peer", str(arguments.peer)] if arguments.peer else []
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            with path.with_suffix(".log").open("w") as file:
                done = subprocess.run(command, check=False, stdout=file, stderr=file, env=environment)
            if done.returncode:
                print(f"failed: {name}, seed {seed}, {part}; see {file.name}", flush=True)
                return None
            print(f"done: {name}, seed {seed}, {part}", flush=True)
        return load(path)

    with ThreadPoolExecutor(max(os.cpu_count() or 1, 1)) as pool:
        made = list(pool.map(run, todo))
    found_parts = [part for part in made if part is not None]
    if len(found_parts) < len(made):
        sys.exit("Some jobs failed: the same command tries them again.")
    rows, differences = summarise(found_parts)
    for row in rows:
        print(
            f"{row['task']:38s} {row['method']:22s} {row['head']:9s} {row['metric']:12s} {_shown(row)}"
            f"   seeds {row['seed_min']:.4f}–{row['seed_max']:.4f}"
        )
    for row in differences:
        print(
            f"{row['task']:38s} {row['what']} ({row['against']})  {row['head']} {row['metric']} {_shown(row)}"
        )
    if set(names) == set(DATA):
        settings = {"seeds": arguments.seeds, "peer_sessions": passes if arguments.peer else None}
        write_results("quality", {**settings, "rows": rows, "differences": differences})


def _shown(row: Mapping[str, Any]) -> str:
    value, low, high = row["value"], row["low"], row["high"]
    return "–" if value is None or low is None else f"{value:.4f} ({low:.4f} … {high:.4f})"


if __name__ == "__main__":
    main()
