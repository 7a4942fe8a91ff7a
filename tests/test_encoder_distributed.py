"""Two processes that torchrun starts train one encoder: as good as one process, and the same in both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import factories
from clickintent.config import EncoderConfig
from clickintent.encoder import SessionEncoder
from clickintent.encoder.chunks import TrainingData
from clickintent.encoder.source import open_source
from clickintent.encoder.statistics import survey
from clickintent.encoder.train import train

CONFIG = EncoderConfig(
    width=32, layers=1, heads=2, text_dim=16, text_buckets=512, epochs=3, batch_events=512, min_page_count=2
)
SCRIPT = """
import os
import sys
from pathlib import Path

from clickintent.encoder import SessionEncoder, source
from test_encoder_distributed import CONFIG

folder, rank = Path(sys.argv[1]), os.environ["RANK"]
source.PIECE_ROWS = 50
encoder = SessionEncoder(CONFIG).fit(folder / "sessions.parquet", checkpoints=folder / "checkpoints")
encoder.save(folder / f"encoder-{rank}")
"""


def launched(*arguments: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have trained."""
    folder = tmp_path_factory.mktemp("team")
    table = factories.themed_sessions(400).sort_by([("visitor_id", "ascending"), ("start", "ascending")])
    pq.write_table(table, folder / "sessions.parquet", row_group_size=50)
    (folder / "script.py").write_text(SCRIPT)
    done = launched(str(folder / "script.py"), str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_two_processes_reach_the_loss_of_one(folder: Path) -> None:
    sessions = open_source(folder / "sessions.parquet")
    data = TrainingData(sessions, survey(sessions, CONFIG))
    _, alone = train(data, CONFIG, SessionEncoder().seed)
    together = SessionEncoder.load(folder / "encoder-0").metrics
    assert together["processes"] == 2
    assert together["sessions"] == data.statistics.sessions
    first, last = alone.epochs[0]["loss"], alone.epochs[-1]["loss"]
    assert together["epochs"][-1]["loss"] == pytest.approx(last, abs=0.1 * (first - last))


def test_both_have_the_same_encoder(folder: Path) -> None:
    fresh = factories.themed_sessions(50)
    vectors = [SessionEncoder.load(folder / f"encoder-{rank}").embed(fresh) for rank in (0, 1)]
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["encoder-training.safetensors"]
