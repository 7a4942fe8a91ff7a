"""What every benchmark writes beside its figures: the machine, the versions, the command, the date."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
ABOUT = ("benchmark", "date", "command", "machine", "versions")
PACKAGES = ("clickintent", "duckdb", "ibis-framework", "lightgbm", "numpy", "onnxruntime", "pyarrow", "torch")


def _short(argument: str) -> str:
    """A path of this machine by its last part alone."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def read_results(name: str) -> dict[str, Any]:
    """Figures written before, without what ``write_results`` says of the run; empty if there are none."""
    path = RESULTS / f"{name}.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {key: value for key, value in record.items() if key not in ABOUT}


def write_results(name: str, figures: dict[str, Any]) -> Path:
    """Write ``benchmarks/results/NAME.json``."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    record = {
        "benchmark": name,
        "date": datetime.now(UTC).date().isoformat(),
        "command": " ".join(
            ["python", f"benchmarks/{Path(sys.argv[0]).name}", *(_short(a) for a in sys.argv[1:])]
        ),
        "machine": {"cores": os.cpu_count(), "memory_gib": round(memory, 1), "processor": platform.machine()},
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        **figures,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
