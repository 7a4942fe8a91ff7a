"""What ``speed.py`` measures of ours, each in a process of its own: clean memory, threads and caches.

    python benchmarks/speed_child.py TASK JSON

``TASK`` is a function below, ``JSON`` its arguments; the last line printed is its figures as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from clickintent import EncoderConfig, SessionEncoder
from speed_data import session_events

#: Calls of ``single`` before those that count, and how many different sessions take turns.
WARM_UP, DISTINCT = 500, 1000


def fit(
    source: str,
    seed: int,
    out: str | None = None,
    checkpoints: str | None = None,
    config: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train; ``seconds`` is the loop alone, ``seconds_with_export`` all of ``fit``."""
    encoder = SessionEncoder(EncoderConfig(**(config or {})), seed=seed)
    encoder.fit(Path(source), checkpoints=Path(checkpoints) if checkpoints else None)
    if out:
        encoder.save(Path(out))
    names = ("sessions", "parameters", "seconds", "sessions_per_second", "seconds_with_export", "int8")
    return {name: encoder.metrics[name] for name in names}


def embed(
    model: str, source: str, target: str, precision: str = "float32", timed: bool = False
) -> dict[str, Any]:
    """Parquet in, Parquet out. Loading the model is not counted; reading and writing are.

    Args:
        timed: also find how much of the processor time onnxruntime has, which costs a little.
    """
    started = time.perf_counter()
    encoder = SessionEncoder.load(Path(model), precision=precision)  # type: ignore[arg-type]
    loaded = time.perf_counter()
    spent = _time_runs(time.thread_time) if timed else []
    before = time.process_time()
    rows = encoder.embed_parquet(Path(source), Path(target))
    cpu = time.process_time() - before
    seconds = time.perf_counter() - loaded
    figures = {"load_seconds": loaded - started, "seconds": seconds, "sessions": rows}
    if timed:
        figures["share_of_arithmetic"] = sum(spent) / cpu
    return {**figures, "sequences_per_second": rows / seconds}


def single(model: str, seed: int, events: int, calls: int, precision: str = "float32") -> dict[str, Any]:
    """Milliseconds of ``embed_one`` on sessions of so many events, and of two floors.

    ``onnxruntime``: the part of it that is arithmetic. ``json``: parsing the same session, the least that any
    service does with a request, and a measure of how quiet the machine is.
    """
    encoder = SessionEncoder.load(Path(model), precision=precision)  # type: ignore[arg-type]
    sessions = session_events(np.full(DISTINCT, events), seed)
    texts = [json.dumps(session) for session in sessions]
    total = WARM_UP + calls
    kinds = {
        "embed_one": _milliseconds(lambda i: encoder.embed_one(sessions[i % DISTINCT]), total),
        "json": _milliseconds(lambda i: json.loads(texts[i % DISTINCT]), total),
    }
    spent = _time_runs(time.perf_counter)
    for i in range(total):
        encoder.embed_one(sessions[i % DISTINCT])
    kinds["onnxruntime"] = np.array(spent) * 1e3
    return {
        "events": events,
        "calls": calls,
        "int8_accepted": bool(encoder.metrics["int8"]["accepted"]),
        **{name: _percentiles(times[WARM_UP:]) for name, times in kinds.items()},
    }


def _milliseconds(call: Callable[[int], object], times: int) -> np.ndarray:
    found = np.empty(times)
    for i in range(times):
        before = time.perf_counter_ns()
        call(i)
        found[i] = time.perf_counter_ns() - before
    return found / 1e6


def _percentiles(times: np.ndarray) -> dict[str, float]:
    return {f"p{p:g}": float(np.percentile(times, p)) for p in (50, 99, 99.9)}


def _time_runs(clock: Callable[[], float]) -> list[float]:
    """From now on, what each call of onnxruntime takes is appended to the list returned."""
    spent: list[float] = []
    run = onnxruntime.InferenceSession.run

    def measured(self: Any, *arguments: Any) -> Any:
        before = clock()
        found = run(self, *arguments)
        spent.append(clock() - before)
        return found

    onnxruntime.InferenceSession.run = measured
    return spent


def peak_mib() -> float:
    """The most memory that this process has held. Not from getrusage: that may be its parent's."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


TASKS: dict[str, Callable[..., dict[str, Any]]] = {"fit": fit, "embed": embed, "single": single}

if __name__ == "__main__":
    made = TASKS[sys.argv[1]](**json.loads(sys.argv[2]))
    asked = os.environ.get("OMP_NUM_THREADS")
    print(json.dumps({**made, "threads": int(asked) if asked else None, "peak_rss_mib": peak_mib()}))
