"""How fast the simulated bank is made: events a second, Parquet writing included, and peak memory.

Each run is a process of its own, three for each size; ``web_events_per_second`` counts the GA4 export alone.

    python benchmarks/simbank.py [SESSIONS ...]
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import write_results

SIZES = (60_000, 240_000)
REPEATS = 3
SEED = 7


def measure(sessions: int) -> dict[str, Any]:
    """Simulate in this process, with imports done before the clock starts."""
    from clickintent.config import SimBankConfig
    from clickintent.simbank import simulate

    with tempfile.TemporaryDirectory() as folder:
        before = os.times()
        summary = simulate(SimBankConfig(out=Path(folder) / "bank", sessions=sessions), seed=SEED)
        after = os.times()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux gives KiB
    cpu = after.user - before.user + after.system - before.system
    return {**summary, "cpu_seconds": cpu, "peak_gib": peak}


def main(sizes: list[int]) -> None:
    rows = []
    for sessions in sizes:
        command = [sys.executable, __file__, "--measure", str(sessions)]
        runs = [
            json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            for _ in range(REPEATS)
        ]
        rates = sorted(run["events_per_second"] for run in runs)
        web = sorted(run["web_events"] / run["seconds"] for run in runs)
        row = {
            "sessions": runs[0]["sessions"],
            "events": runs[0]["events"],
            "events_per_second": {"min": rates[0], "median": rates[1], "max": rates[2]},
            "web_events_per_second": {"min": web[0], "median": web[1], "max": web[2]},
            "peak_gib": max(run["peak_gib"] for run in runs),
        }
        rows.append(row)
        print(
            f"{row['sessions']:>9,} sessions {row['events']:>11,} events: {rates[1]:>9,.0f} events/s "
            f"({rates[0]:,.0f}–{rates[2]:,.0f}), web alone {web[1]:,.0f}; peak {row['peak_gib']:.2f} GiB"
        )
    write_results("simbank", {"rows": rows, "repeats": REPEATS})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(int(sys.argv[2]))))
    else:
        main([int(size) for size in sys.argv[1:]] or list(SIZES))
