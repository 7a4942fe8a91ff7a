from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from clickintent.config import Config

if "PYTEST_XDIST_WORKER" in os.environ:  # a test process for each core: more threads would only wait
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["CLICKINTENT_KEY"] = "a key for tests, long enough"
sys.path.insert(0, str(Path(__file__).parent))  # tests/factories.py

import exports
import serving


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real clickstreams; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("CLICKINTENT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set CLICKINTENT_DATA")
    return folder


@pytest.fixture(scope="session")
def quick_export() -> Iterator[None]:
    """From here on, encoders of a shape that was exported before take its graph (see ``exports``)."""
    from clickintent.encoder import fitting

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "export_onnx", exports.remembering(fitting.export_onnx))
        yield


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, list[dict[str, Any]]]:
    """A simulated bank's workspace, ready to serve, and the raw rows that it was made of."""
    folder = tmp_path_factory.mktemp("served")
    config = serving.ready(folder)
    rows = pq.read_table(folder / "raw.parquet").to_pylist()
    needed = ("visitor_id", "ts", "event_type")  # without them a request is not even decoded
    return config, [row for row in rows if all(row[name] is not None for name in needed)]


@pytest.fixture
def file(served: tuple[Config, Any], tmp_path: Path) -> Path:
    """The configuration of a copy of that workspace."""
    shutil.copytree(served[0].workspace, tmp_path / "w")
    (tmp_path / "clickintent.toml").write_text('workspace = "w"\n[serve]\nlate_hours = 24\n')
    return tmp_path / "clickintent.toml"
