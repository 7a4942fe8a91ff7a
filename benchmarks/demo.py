"""The whole demo as one process: seconds by stage, peak memory, and the downstream results with intervals.

Side by side in one run: page counts (the baseline), an evening's features, the embedding, labels, and the
simulator's oracle. ``--seeds`` simulates and trains anew for each seed and reports the spread.

    python benchmarks/demo.py [--sessions 60000] [--seeds 1]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import write_results

METRICS = {
    "conversion": ("micro_f1", "micro_f1_products", "log_loss"),
    "tiles": ("macro_recall_at_1", "log_loss"),
}


def one(sessions: int, seed: int) -> dict[str, Any]:
    """One demo in a fresh folder."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        command = [sys.executable, "-m", "clickintent", "demo", "--workspace", folder]
        subprocess.run([*command, "--sessions", str(sessions), "--seed", str(seed)], check=True)
        seconds = time.monotonic() - started
        root = Path(folder)
        stages = {p.stem: json.loads(p.read_text())["seconds"] for p in (root / ".stages").glob("*.json")}
        return {
            "seed": seed,
            "seconds": round(seconds, 1),
            "stages": {k: round(v, 1) for k, v in stages.items()},
            "metrics": json.loads((root / "metrics.json").read_text()),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sessions", type=int, default=60_000)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    runs = [one(arguments.sessions, 7 + i) for i in range(arguments.seeds)]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    rows = []
    for run in runs:
        for task, names in METRICS.items():
            result = run["metrics"][task]
            found = {**result["methods"], "oracle": result.get("oracle", {})}
            for method, values in found.items():
                for metric in names:
                    if metric in values:
                        row = {"seed": run["seed"], "task": task, "method": method, "metric": metric}
                        rows.append(row | values[metric])
                        value = values[metric]
                        print(
                            f"seed {run['seed']}  {task:10s} {method:22s} {metric:18s} "
                            f"{value['value']:.4f} ({value['low']:.4f}–{value['high']:.4f})"
                        )
    for run in runs:
        print(f"seed {run['seed']}: {run['seconds']} s, by stage {run['stages']}; peak {peak:.2f} GiB")
    write_results(
        "demo",
        {
            "sessions": arguments.sessions,
            "peak_gib": round(peak, 2),
            "runs": [{k: run[k] for k in ("seed", "seconds", "stages")} for run in runs],
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
