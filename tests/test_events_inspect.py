"""``inspect`` and ``forget`` as a person at a terminal meets them."""

from __future__ import annotations

import gzip
import json
import tomllib
from pathlib import Path

import fsspec
import pytest

from clickintent import cli
from clickintent.config import Config
from clickintent.errors import DataError
from clickintent.events import ingest, inspect
from test_events_daily import T0, tables, write


def run(*arguments: str | Path) -> int:
    """The exit status of the command line."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_what_inspect_prints_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a file.csv.gz"
    lines = ["cookie_id,event_time,page_url,page_title"]
    lines += [
        f"c{i % 3},2026-01-0{1 + i % 2} 10:0{i},https://b.example/cards/99887766,Cards" for i in range(6)
    ]
    lines.append(",2026-01-01,https://b.example/,Home")
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    assert run("inspect", path) == 0
    said = capsys.readouterr().out
    assert "reader table" in said
    assert "7 read = 6 events + 0 duplicates + 1 quarantined" in said
    assert "quarantined 1 × missing visitor" in said
    assert "/cards/{id}" in said
    assert "99887766" not in said
    block = said[said.index("[[sources]]") :]
    made = Config.model_validate({"workspace": tmp_path / "out", **tomllib.loads(block)})
    metrics = ingest(made, made.workspace).metrics
    assert metrics["events"]["events"] == 6
    assert not list(tmp_path.glob("**/.tmp*"))


def test_a_remote_file_is_inspected_and_ingested(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw.parquet", [("v", None, T0, "/cards", None)])
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/day=1/raw.parquet", raw.read_bytes())
    found = inspect("memory://bucket/day=*/*.parquet")
    assert found.metrics["events"]["events"] == 1
    made = Config(workspace=tmp_path / "out", sources=(found.source,))
    ingest(made, made.workspace)
    (file,) = tables(tmp_path / "out")["files.parquet"]
    assert file["file"] == "memory://bucket/day=1/raw.parquet"
    assert ingest(made, made.workspace).metrics["events"]["files"] == 1


def test_inspect_looks_at_the_first_rows_of_a_large_file(tmp_path: Path) -> None:
    rows = [(f"v{i % 7}", None, T0 + i, "/cards", None) for i in range(500)]
    found = inspect(str(write(tmp_path / "raw.parquet", rows)), rows=100)
    assert found.is_sample
    assert found.metrics["events"]["read"] == 100
    assert [len(s["visitor_id"]) for s in found.shown(2)] == [16, 16]


@pytest.mark.parametrize(("sample", "reader", "rows"), [
    ("adobe_datafeed_sample/01-suiteid_2015-12-29.tsv.gz", "adobe", 10),
    ("apache_access_log_elastic/apache_logs", "access_log", 10_000),
    ("app_onboarding_firebase/train.csv", "table", 30_943),
    ("ga360_google_store_20170801/ga_sample.parquet", "ga360", 13_233),
    ("ga4_google_store_sampled/ga4_events_sampled.snappy.parquet", "ga4", 24_219),
    ("vanguard_cx_ab/web_data_pt1.parquet", "table", 50_000),
])  # fmt: skip
def test_real_samples_are_recognised(real_data: Path, sample: str, reader: str, rows: int) -> None:
    found = inspect(str(real_data / sample))
    assert found.source.reader == reader
    assert found.metrics["events"]["read"] == rows
    assert found.sessions.num_rows > 0


def test_what_is_not_recognised_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.md").write_text("# A letter\n\nDear reader,\n")
    with pytest.raises(DataError, match="not recognised"):
        inspect(str(tmp_path / "x.md"))
    assert run("inspect", tmp_path / "x.md") == 1
    assert run("inspect", tmp_path / "none.csv") == 1
    assert "error:" in capsys.readouterr().err


def test_forgetting_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(v, None, T0 + i, "/", None) for i, v in enumerate("aab")]
    raw = write(tmp_path / "raw.parquet", rows)
    mapping = json.dumps({"visitor_id": "visitor", "ts": "ts", "url": "url"}).replace('": ', '" = ')
    (tmp_path / "c.toml").write_text(
        'workspace = "out"\n[[sources]]\nreader = "table"\nts_unit = "us"\n'
        f'path = "{raw}"\ncolumns = {mapping}\nconstants = {{event_type = "view"}}\n'
    )
    assert run("ingest", tmp_path / "c.toml") == 0
    assert run("forget", tmp_path / "c.toml") == 2
    assert run("forget", tmp_path / "c.toml", "--visitor", "a") == 0
    said = capsys.readouterr().out
    assert "events: 2 rows removed" in said
    assert len(tables(tmp_path / "out")["events"]) == 1
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["events"]["quarantine_reasons"] == {"of a person who was forgotten": 2}
    assert run("forget", tmp_path / "c.toml", "--visitor", "nobody") == 0
    assert "No event of that id" in capsys.readouterr().out
