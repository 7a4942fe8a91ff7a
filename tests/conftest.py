from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # a test process for each core: more threads would only wait
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["CLICKINTENT_KEY"] = "a key for tests, long enough"
sys.path.insert(0, str(Path(__file__).parent))  # tests/factories.py


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real clickstreams; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("CLICKINTENT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set CLICKINTENT_DATA")
    return folder
