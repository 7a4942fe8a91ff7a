"""pytorch-lifestream as a rival of ``quality.py`` and ``speed.py``: writes its input, starts it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clickintent.encoder.features import FeatureSpace, FlatEvents, flatten

WORKER = Path(__file__).parent / "peers" / "ptls_worker.py"
MAX_EVENTS = 64


@dataclass(frozen=True)
class Peer:
    """An environment with pytorch-lifestream (see ``requirements-ptls.txt``), and a folder to work in."""

    python: Path
    folder: Path
    threads: int = 1

    def call(self, *arguments: str | Path | int | float) -> dict[str, Any]:
        """Run the worker; its last line is JSON."""
        command = [
            str(self.python),
            str(WORKER),
            *(str(a) for a in arguments),
            "--threads",
            str(self.threads),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return found

    def write(self, sessions: pa.Table, space: FeatureSpace, name: str) -> Path:
        """The sessions as the worker reads them."""
        path = self.folder / f"{name}.parquet"
        pq.write_table(peer_table(flatten(sessions, last=MAX_EVENTS), sessions, space), path)
        return path


def peer_table(flat: FlatEvents, sessions: pa.Table, space: FeatureSpace) -> pa.Table:
    """One row per session; what our encoder sees of its events, but for their text.

    The dwell of the last event is hidden, as it is from ours: it lasts until an event that is not there yet.
    """
    events = space.encode(flat)
    offsets = pa.array(flat.offsets, pa.int32())
    dwell = np.nan_to_num(events.log_dwell)
    ends = flat.offsets[1:][flat.lengths > 0] - 1
    dwell[ends] = 0.0
    gap = np.nan_to_num(events.log_gap)
    # Seconds since the session's start, from the gaps: all that its models use is the order and the distance.
    seconds = np.cumsum(np.expm1(gap.astype(np.float64)))
    starts = np.repeat(seconds[flat.offsets[:-1][flat.lengths > 0]], flat.lengths[flat.lengths > 0])
    time = (seconds - starts).astype(np.int64)
    columns = {
        "page": events.page,
        "event_type": events.event_type,
        "hour": events.hour_of_week % 24 + 1,
        "log_dwell": dwell.astype(np.float32),
        "log_gap": gap,
        "event_time": time,
    }
    table = pa.table(
        {
            "session_id": sessions["session_id"],
            **{name: pa.ListArray.from_arrays(offsets, pa.array(v)) for name, v in columns.items()},
        }
    )
    sizes = {"pages": str(len(space.pages)), "event_types": str(len(space.event_types))}
    return table.replace_schema_metadata(sizes)
