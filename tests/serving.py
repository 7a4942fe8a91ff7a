"""A small simulated bank whose raw rows are at hand, taken through every stage that serving needs."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from clickintent import pipeline
from clickintent.config import (
    Config,
    EncoderConfig,
    PrivacyConfig,
    ServeConfig,
    SimBankConfig,
    SourceConfig,
    StudentConfig,
    TaxonomyConfig,
    load_config,
)
from clickintent.events import readers
from clickintent.events.engine import open_engine

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

COLUMNS = ("event_id", "visitor_id", "account_id", "ts", "event_type", "url", "title", "text")
DAY = 86_400_000_000


def raw_rows(bank: Path) -> pa.Table:
    """The bank's web events as a tag would send them, each with an id of its own."""
    config = load_config(bank / "clickintent.toml")
    source = next(source for source in config.sources if source.channel == "web")
    tables = []
    with tempfile.TemporaryDirectory() as scratch, open_engine(Path(scratch)) as engine:
        for path in sorted((bank / "web").glob("*.parquet")):
            staged = readers.reader(source.reader)(engine, source, str(path)).table
            tables.append(engine.arrow(staged.filter(staged["excluded"].isnull()).select(COLUMNS[1:])))
    table = pa.concat_tables(tables)
    ids = pa.array([f"e{i}" for i in range(table.num_rows)])
    return table.append_column("event_id", ids).select(COLUMNS)


def ready(folder: Path, *, sessions: int = 1500, **sections: Any) -> Config:
    """A workspace with encoder, taxonomy and student, made of ``folder/raw.parquet``."""
    bank = folder / "bank"
    simulated = Config(
        workspace=folder / "unused", simbank=SimBankConfig(out=bank, sessions=sessions, days=20)
    )
    pipeline.simulate(simulated)
    pq.write_table(raw_rows(bank), folder / "raw.parquet")
    source = SourceConfig(
        reader="table",
        path=str(folder / "raw.parquet"),
        columns={name: name for name in COLUMNS},
        ts_unit="us",
    )
    settings: dict[str, Any] = {
        "privacy": PrivacyConfig(allow_query=("type",), search_query=("q",)),
        "encoder": EncoderConfig(epochs=1),
        "taxonomy": TaxonomyConfig(intents=12),
        "student": StudentConfig(epochs=4, learning_curve=False),
        "serve": ServeConfig(late_hours=24 * 400, keep_days=400),
    }
    config = Config(workspace=folder / "workspace", sources=(source,), **{**settings, **sections})
    for stage in (pipeline.ingest, pipeline.pretrain, pipeline.embed, pipeline.draft_taxonomy):
        stage(config)
    pipeline.label(config)
    pipeline.distill(config)
    return config


def client_of(app: Starlette) -> TestClient:
    """A client on this machine; without keys the service answers to no other."""
    from starlette.testclient import TestClient

    return TestClient(app, base_url="http://localhost")


class NoModels:
    """In place of models, for what needs none."""

    async def look(self) -> None:
        pass


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


NO_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "onnx", "onnxscript", "sentence_transformers", "lightgbm"}:
            raise ImportError(f"{name} is not on a serving host")
sys.meta_path.insert(0, Blocked())
from clickintent.cli import main
main(sys.argv[1:])
"""


class Server:
    """``clickintent serve`` in a process of its own, on a host without torch."""

    def __init__(self, file: Path) -> None:
        self.port = free_port()
        command = [sys.executable, "-c", NO_TORCH, "serve", str(file), "--port", str(self.port)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for _ in range(600):
            with contextlib.suppress(OSError):
                if self.ask("/readyz")["status"] == "ready":
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.process.kill()
        raise AssertionError(f"it does not start: {self.process.communicate()[1]}")

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", data, timeout=10) as answer:
            return json.load(answer)

    def end(self, how: int) -> str:
        self.process.send_signal(how)
        return self.process.communicate()[1]
