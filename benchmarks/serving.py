"""The service under load, on loopback, the load generator on the same cores.

Beside it, in the same run, the same framework with a route that takes the same body and says hello: what no
service can be faster than. Latencies of the open loop count from when a request was due.

    python benchmarks/serving.py [--only steps,score,events,backfill,kill,soak,fuzz]
        [--seconds 10] [--repeats 3]
        [--kills 20] [--soak-minutes 30] [--bodies 100000] [--sessions 20000] [--work FOLDER]

With ``--work`` the workspace is kept and used again. Parts that are not measured keep the figures that they
had.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.dataset as ds

from clickintent import pipeline
from clickintent.config import Config, SimBankConfig, load_config
from clickintent.serve import live
from clickintent.serve.backfill import backfill as append_history
from clickintent.serve.model import load_model
from clickintent.serve.service import now_us
from clickintent.serve.sqlite_store import SqliteStore
from clickintent.serve.wire import Intent, ScoreAnswer, ScoreRequest, Versions, encode
from common import read_results, write_results

Figures = dict[str, Any]
HERE = Path(__file__).parent
_BODIES, _EVENTS = 300, 20  # of /v1/score
_SITE = "https://www.larkfieldbank.example"


# --- what is measured ---


def workspace(folder: Path, sessions: int) -> Path:
    """A simulated bank with everything that serving needs; its configuration."""
    file = folder / "bank" / "clickintent.toml"
    if not (folder / "bank" / "workspace" / "student" / "intents.onnx").exists():
        pipeline.simulate(
            Config(workspace=folder / "w", simbank=SimBankConfig(out=folder / "bank", sessions=sessions))
        )
        config = load_config(file)
        pipeline.ingest(config)
        pipeline.pretrain(config)
        pipeline.embed(config)
        pipeline.draft_taxonomy(config)
        pipeline.label(config)
        pipeline.distill(config)
    return file


def walks(file: Path, n: int, length: int) -> list[list[dict[str, Any]]]:
    """Sessions of so many events: those of the bank, one after the other, as a tag would send them."""
    table = ds.dataset(load_config(file).workspace / "sessions").to_table(columns=["events"]).slice(0, n * 8)
    events = [e for some in table["events"].to_pylist() for e in some]
    found, now = [], time.time_ns() // 1000 - 3_600_000_000
    for i in range(n):
        own = events[i * length : (i + 1) * length]
        found.append(
            [
                {
                    "ts": now + k * 9_000_000,
                    "event_type": e["event_type"],
                    "url": _SITE + e["page"] if e["page"].startswith("/") else _SITE,
                    "title": f"{e['title']} | Larkfield Bank" if e["title"] else None,
                }
                for k, e in enumerate(own)
            ]
        )
    return [walk for walk in found if len(walk) == length]


# --- processes ---


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: Sequence[str], port: int, path: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        for _ in range(1200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}")
            time.sleep(0.05)
        if path:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30).read()
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        process.wait(30)


@contextlib.contextmanager
def service(file: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    port = free_port()
    command = [sys.executable, "-m", "clickintent", "serve", str(file), "--port", str(port)]
    with running(command, port, "/readyz") as process:
        yield port, process


@contextlib.contextmanager
def hello() -> Iterator[int]:
    port = free_port()
    with running([sys.executable, str(HERE / "serving_hello.py"), str(port)], port, ""):
        yield port


def load(
    port: int, path: str, bodies: Path, seconds: float, connections: int, rate: float = 0, *extra: str
) -> Figures:
    """What the load generator saw; latencies in ms."""
    command = [sys.executable, str(HERE / "serving_load.py"), str(port), path, str(bodies)]
    command += [str(seconds), str(connections), str(rate), *extra]
    found: Figures = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    latencies = np.array(found.pop("latencies_ms") or [np.nan])
    found["per_second"] = float(len(latencies) / found["seconds"])
    for name, q in (("p50_ms", 50), ("p99_ms", 99), ("p999_ms", 99.9)):
        found[name] = float(np.percentile(latencies, q))
    return found


def spread(values: Sequence[float]) -> Figures:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- parts ---


def steps(file: Path, *_: object) -> Figures:
    """What a session of 20 events takes, step by step, in this process, without a network: µs."""
    model, together = load_model(load_config(file)), 16
    bodies = [json.dumps({"events": walk}).encode() for walk in walks(file, _BODIES, _EVENTS)]
    decoder, latest = msgspec.json.Decoder(ScoreRequest), now_us() + 3_600_000_000
    requests = [decoder.decode(body) for body in bodies]
    kept = [[(e.ts, model.gate.keep(e, latest)) for e in request.events] for request in requests]
    sessions = [[live.event(ts, one) for ts, one in own if not isinstance(one, str)] for own in kept]
    groups = [sessions[at : at + together] for at in range(0, len(sessions) - together + 1, together)]
    embedding, probabilities = (some[0] for some in model.score(sessions[:1]))
    versions = Versions(model.encoder.version, model.student, model.taxonomy.version)

    def answer(_: object) -> bytes:
        best = model.best(probabilities, 3)
        intents = [Intent(id_, *model.names[id_], sure, sure >= model.sure) for id_, sure in best]
        return encode(ScoreAnswer(intents, False, versions, embedding.tolist()))

    inputs, both = (_least(work, groups) / together for work in (model.encoder.call_inputs, model.score))
    return {
        "decode": _least(decoder.decode, bodies),
        "clean": _least(lambda request: [model.gate.keep(e, latest) for e in request.events], requests),
        "inputs_of_16": round(inputs, 1),
        "graph_of_16": round(both - inputs, 1),
        "inputs_and_graph_of_1": _least(lambda session: model.score([session]), sessions),
        "answer": _least(answer, requests),
    }


def _least(work: Callable[[Any], object], items: Sequence[Any]) -> float:
    """µs per item, of the fastest round over all of them."""
    rounds = []
    for _ in range(20):
        started = time.perf_counter()
        for item in items:
            work(item)
        rounds.append((time.perf_counter() - started) / len(items) * 1e6)
    return round(min(rounds), 1)


def score(file: Path, folder: Path, options: argparse.Namespace) -> Figures:
    bodies = folder / "score.jsonl"
    bodies.write_text("\n".join(json.dumps({"events": walk}) for walk in walks(file, _BODIES, _EVENTS)))
    rates: dict[str, list[float]] = {"service": [], "hello": []}
    at_300: list[Figures] = []
    statuses: set[str] = set()
    with service(file) as (port, _), hello() as floor:
        load(port, "/v1/score", bodies, 2, 16)
        for _ in range(options.repeats):
            at_300.append(load(port, "/v1/score", bodies, options.seconds, 32, 300))
            statuses |= set(at_300[-1]["statuses"])
            for name, where in (("service", port), ("hello", floor)):
                found = load(where, "/v1/score", bodies, options.seconds, 32)
                rates[name].append(found["per_second"])
                statuses |= set(found["statuses"])
    ratios = [one / other for one, other in zip(rates["service"], rates["hello"], strict=True)]
    if statuses != {"200"}:
        raise SystemExit(f"not all were answered with 200: {statuses}")
    return {
        "p50_ms_at_300": spread([one["p50_ms"] for one in at_300]),
        "p99_ms_at_300": spread([one["p99_ms"] for one in at_300]),
        "answered_per_second_at_300": spread([one["per_second"] for one in at_300]),
        "per_second": spread(rates["service"]),
        "hello_per_second": spread(rates["hello"]),
        "ratio_to_hello_world": spread(ratios),
    }


def _event_bodies(file: Path, folder: Path) -> Path:
    """One event each; see ``serving_load`` for the placeholders."""
    path = folder / "events.jsonl"
    ids = {"event_id": "e@N", "visitor_id": "v@V"}
    lines = [
        json.dumps({"events": [{**event, **ids, "ts": "@T"}]}).replace('"@T"', "@T")
        for walk in walks(file, _BODIES, _EVENTS)
        for event in walk
    ]
    path.write_text("\n".join(lines))
    return path


def events(file: Path, folder: Path, options: argparse.Namespace) -> Figures:
    bodies = _event_bodies(file, folder)
    at_1000: list[Figures] = []
    closed: list[Figures] = []
    fsyncs: list[Figures] = []
    accepted = ("--expect", '"accepted":1,')
    first = time.time_ns() % 10**15  # ids of their own in every run
    with service(file) as (port, _):
        load(port, "/v1/events", bodies, 2, 16, 0, "--first", str(first))
        for i in range(options.repeats):
            extra = ("--first", str(first + (2 * i + 1) * 10**7), *accepted)
            at_1000.append(load(port, "/v1/events", bodies, options.seconds, 64, 1000, *extra))
            extra = ("--first", str(first + (2 * i + 2) * 10**7), *accepted)
            closed.append(load(port, "/v1/events", bodies, options.seconds, 64, 0, *extra))
            fsyncs.append(_fsync_ms(folder, options.seconds))
    statuses = {status for one in (*at_1000, *closed) for status in one["statuses"]}
    if statuses != {"200"}:
        raise SystemExit(f"not all were accepted: {statuses}")
    return {
        "p50_ms_at_1000": spread([one["p50_ms"] for one in at_1000]),
        "p99_ms_at_1000": spread([one["p99_ms"] for one in at_1000]),
        "answered_per_second_at_1000": spread([one["per_second"] for one in at_1000]),
        "per_second": spread([one["per_second"] for one in closed]),
        "fsync_ms": fsyncs,
    }


def backfill(file: Path, folder: Path, options: argparse.Namespace) -> Figures:
    """The workspace's history into an empty store."""
    config, rates, n = load_config(file), [], 0

    async def fill() -> int:
        store = SqliteStore(folder / "backfill" / "live.sqlite3")
        try:
            return (await append_history(config, store, 0)).total()
        finally:
            await store.close()

    for _ in range(options.repeats):
        started = time.perf_counter()
        n = asyncio.run(fill())
        rates.append(n / (time.perf_counter() - started))
        shutil.rmtree(folder / "backfill")
    return {"events": n, "per_second": spread(rates)}


def _fsync_ms(folder: Path, seconds: float) -> Figures:
    """What this disk takes to keep 4 KiB, every 2 ms for some seconds: no durable answer can be faster."""
    times, until = [], time.perf_counter() + seconds
    with (folder / "probe").open("wb") as file:
        while (started := time.perf_counter()) < until:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            times.append(1000 * (time.perf_counter() - started))
            time.sleep(0.002)
    return {"p50": float(np.percentile(times, 50)), "p99": float(np.percentile(times, 99)), "max": max(times)}


def kill(file: Path, folder: Path, options: argparse.Namespace) -> Figures:
    """Killed in the middle of load, again and again: what was acknowledged, and is it there once?"""
    bodies = _event_bodies(file, folder)
    live = load_config(file).workspace / "serve" / "live.sqlite3"
    first, lost, acknowledged, sent = time.time_ns() % 10**15, 0, 0, 0
    rng = random.Random(1)
    for i in range(options.kills):
        base = first + i * 10**7
        with service(file) as (port, process):
            timer = threading.Timer(rng.uniform(0.5, 2.0), lambda p=process: p.send_signal(signal.SIGKILL))
            timer.start()
            found = load(port, "/v1/events", bodies, 4, 32, 0, "--first", str(base), "--answered")
            timer.join()
        with service(file) as (port, _):
            kept = _there(port, bodies, base, found["answered"])
        sent += found["sent"]
        acknowledged += len(found["answered"])
        lost += len(found["answered"]) - kept
    with contextlib.closing(sqlite3.connect(live)) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM events").fetchone()
    # every event was sent once, and those that were acknowledged once more after the restart
    figures = {"kills": options.kills, "sent": sent, "acknowledged": acknowledged, "rows": rows}
    return {**figures, "lost": lost, "doubled": max(rows - sent, 0)}


def _there(port: int, bodies: Path, first: int, numbers: Sequence[int]) -> int:
    """How many of the acknowledged events the service knows: sent again, they are duplicates."""
    lines, known = bodies.read_text().split("\n"), 0
    for at in range(0, len(numbers), 200):
        sent = []
        for n in numbers[at : at + 200]:
            line = lines[(n - first) % len(lines)].replace("@N", str(n)).replace("@V", str(n // 8))
            sent += json.loads(line.replace("@T", str(time.time_ns() // 1000)))["events"]
        body = json.dumps({"events": sent}).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/events", body, timeout=30) as answer:
            known += json.load(answer)["duplicates"]
    return known


def soak(file: Path, folder: Path, options: argparse.Namespace) -> Figures:
    """Half the load of ``events`` and of ``score`` for long: does memory grow, does anything fail?"""
    event_bodies, score_bodies = _event_bodies(file, folder), folder / "score.jsonl"
    if not score_bodies.exists():
        score_bodies.write_text("\n".join(json.dumps({"events": w}) for w in walks(file, _BODIES, _EVENTS)))
    seconds = options.soak_minutes * 60
    memory: list[float] = []
    found: dict[str, Figures] = {}
    with service(file) as (port, process):

        def drive(name: str, path: str, bodies: Path, rate: float, *extra: str) -> None:
            found[name] = load(port, path, bodies, seconds, 32, rate, *extra)

        first = str(time.time_ns() % 10**15)
        threads = [
            threading.Thread(
                target=drive, args=("events", "/v1/events", event_bodies, 500, "--first", first)
            ),
            threading.Thread(target=drive, args=("score", "/v1/score", score_bodies, 150)),
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            memory.append(resident_mib(process.pid))
            time.sleep(seconds / 60)
    quarter = max(len(memory) // 4, 1)
    return {
        "minutes": options.soak_minutes,
        "memory_mib": {
            "second_quarter": statistics.median(memory[quarter : 2 * quarter]),
            "last_quarter": statistics.median(memory[-quarter:]),
        },
        **{name: {k: v for k, v in one.items() if k != "answered"} for name, one in found.items()},
    }


def fuzz(file: Path, folder: Path, options: argparse.Namespace) -> Figures:
    """Bodies that are nearly right, changed at random: no 500, no crash, no growth."""
    rng = random.Random(1)
    sound = [json.dumps({"events": walk[:3]}) for walk in walks(file, _BODIES, _EVENTS)]
    event = _event_bodies(file, folder).read_text().split("\n")[0]
    sound += [event.replace("@N", "1").replace("@V", "2").replace("@T", "3")] * 50
    sound.append('{"visitor_id": "a", "account_id": "b"}')
    statuses: dict[str, int] = {}
    with service(file) as (port, process):
        before = after = 0.0
        done = 0
        for path in ("/v1/score", "/v1/events", "/v1/identify"):
            for _ in range(3):
                n = options.bodies // 9 + 1
                bodies = folder / "fuzz.jsonl"
                bodies.write_bytes(b"\n".join(_mangled(rng.choice(sound).encode(), rng) for _ in range(n)))
                command = [
                    sys.executable,
                    str(HERE / "serving_load.py"),
                    str(port),
                    path,
                    str(bodies),
                    "600",
                    "16",
                ]
                found = json.loads(
                    subprocess.run([*command, "--most", str(n)], check=True, capture_output=True).stdout
                )
                for status, count in found["statuses"].items():
                    statuses[status] = statuses.get(status, 0) + count
                done += n
                after = resident_mib(process.pid)
                before = before or after
        alive = process.poll() is None
    return {
        "bodies": done,
        "statuses": statuses,
        "alive": alive,
        "memory_mib": {"first": before, "last": after},
    }


def _mangled(body: bytes, rng: random.Random) -> bytes:
    text = bytearray(body)
    for _ in range(rng.randint(0, 4)):
        at = rng.randrange(len(text) or 1)
        kind = rng.random()
        if kind < 0.3:
            text[at : at + rng.randint(1, 12)] = b""
        elif kind < 0.6:
            text[at:at] = rng.choice(
                (b"null", b"-1", b"1e999", b'"', b"{", b"]", b"\\u0000", b"9" * 30, b"\xff")
            )
        elif text:
            text[at] = rng.choice(b' "{}[]:,0123456789abcxyz\\/\x7f\xc3')
    return bytes(text).replace(b"\n", b" ") or b"{"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="steps,score,events,backfill,kill,soak,fuzz")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--soak-minutes", type=float, default=30)
    parser.add_argument("--bodies", type=int, default=100_000)
    parser.add_argument("--sessions", type=int, default=20_000)
    parser.add_argument("--work", type=Path, default=None)
    options = parser.parse_args()
    parts = {
        "steps": steps,
        "score": score,
        "events": events,
        "backfill": backfill,
        "kill": kill,
        "soak": soak,
        "fuzz": fuzz,
    }
    wanted = options.only.split(",")
    if unknown := set(wanted) - parts.keys():
        parser.error(f"not known: {', '.join(sorted(unknown))}. There are: {', '.join(parts)}.")
    folder = options.work or Path(tempfile.mkdtemp(prefix="serving-"))
    folder.mkdir(parents=True, exist_ok=True)
    file = workspace(folder, options.sessions)
    figures = read_results("serving")
    for name in wanted:
        shutil.rmtree(load_config(file).workspace / "serve", ignore_errors=True)
        figures[name] = parts[name](file, folder, options)
        print(name, json.dumps(figures[name], indent=2), flush=True)
    head = {}
    if "score" in figures:
        head["p99_ms_at_300"] = figures["score"]["p99_ms_at_300"]["median"]
        head["ratio_to_hello_world"] = figures["score"]["ratio_to_hello_world"]["median"]
    if "events" in figures:
        head["durable_events_per_second"] = figures["events"]["per_second"]["median"]
        head["durable_p99_ms"] = figures["events"]["p99_ms_at_1000"]["median"]
    if "kill" in figures:
        head["lost_after_kill"] = figures["kill"]["lost"]
        head["doubled_after_kill"] = figures["kill"]["doubled"]
    print(json.dumps(head, indent=2))
    print(write_results("serving", {**figures, **head}))


if __name__ == "__main__":
    main()
