"""How fast the simulated bank is made: events a second, Parquet writing included, and peak memory.

    python benchmarks/simbank.py [SESSIONS ...]

Each size runs in a process of its own. Writes benchmarks/results/simbank.json.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

SIZES = (60_000, 240_000)
RESULT = Path(__file__).parent / "results" / "simbank.json"
SEED = 7


def measure(sessions: int) -> dict[str, Any]:
    """Simulate in this process, with imports done before the clock starts."""
    from clickintent.config import SimBankConfig
    from clickintent.simbank import simulate

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bank"
        before = os.times()
        summary = simulate(SimBankConfig(out=out, sessions=sessions), seed=SEED)
        after = os.times()
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux gives KiB
    cpu = after.user - before.user + after.system - before.system
    return {**summary, "cpu_seconds": cpu, "megabytes": size / 1e6, "peak_mib": peak}


def machine() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor()
    )


def main(sizes: list[int]) -> None:
    result: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/simbank.py", *map(str, sizes)]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("clickintent", "numpy", "pyarrow")},
        },
        "seed": SEED,
        "runs": [],
    }
    heads = ("sessions", "events", "seconds", "CPU s", "events/s", "MB", "peak MiB")
    print("".join(f"{head:>11}" for head in heads))
    for sessions in sizes:
        command = [sys.executable, __file__, "--measure", str(sessions)]
        run = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        result["runs"].append(run)
        print(
            f"{run['sessions']:>11,}{run['events']:>11,}{run['seconds']:>11.1f}{run['cpu_seconds']:>11.1f}"
            f"{run['events_per_second']:>11,.0f}{run['megabytes']:>11.1f}{run['peak_mib']:>11.0f}"
        )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(int(sys.argv[2]))))
    else:
        main([int(size) for size in sys.argv[1:]] or list(SIZES))
