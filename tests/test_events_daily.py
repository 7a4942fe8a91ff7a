"""Data that arrives in portions: the same tables as all at once, and nothing lost or doubled on the way."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from clickintent.config import Config, PrivacyConfig, SessionsConfig, SourceConfig
from clickintent.errors import DataError, WorkspaceError
from clickintent.events import ingest, workers
from clickintent.workspace import commit, recover

T0 = 1_767_225_600_000_000
MINUTE = 60_000_000
TABLES = ("events", "sessions", "links", "quarantine", "pages.parquet", "identities.parquet", "files.parquet")
COLUMNS = {"visitor_id": "visitor", "account_id": "account", "ts": "ts", "url": "url", "title": "title"}
Row = tuple[str, str | None, int, str, str | None]


def write(path: Path, rows: list[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = [pa.string(), pa.string(), pa.int64(), pa.string(), pa.string()]
    columns = list(zip(*rows, strict=True)) if rows else [[]] * 5
    arrays = [pa.array(values, kind) for values, kind in zip(columns, kinds, strict=True)]
    pq.write_table(pa.table(arrays, names=list(COLUMNS.values())), path)
    return path


def config(path: Path | str, workspace: Path, **more: Any) -> Config:
    source = SourceConfig(
        reader="table", path=path, columns=COLUMNS, constants={"event_type": "view"}, ts_unit="us"
    )
    more.setdefault("privacy", PrivacyConfig(min_people=3))
    return Config(workspace=workspace, sources=(source,), **more)


def tables(out: Path) -> dict[str, list[dict[str, Any]]]:
    found = {name: pq.read_table(out / name).to_pylist() for name in TABLES}
    found["values"] = pq.read_table(out / ".ingest" / "values.parquet").to_pylist()
    return found


def arrow(out: Path) -> dict[str, pa.Table]:
    """The same without Python objects, to compare larger tables."""
    return {name: pq.read_table(out / name) for name in (*TABLES, ".ingest/values.parquet")}


WORDS = st.sampled_from(["cards", "loans", "savings", "jane", "bob", "alice", "carol"])
ROWS = st.tuples(
    st.sampled_from("abcdefgh"),
    st.sampled_from([None, None, None, "A", "B"]),
    st.integers(0, 200).map(lambda m: T0 + m * MINUTE),
    st.lists(WORDS, max_size=3).map(lambda parts: "/" + "/".join(parts)),
    st.sampled_from([None, "Cards", "Loans", "Hello Jane"]),
)


@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    days=st.lists(st.lists(ROWS, min_size=1, max_size=40), min_size=2, max_size=3),
    again=st.booleans(),
    by_source=st.booleans(),
)
@example(  # the last file knows no title, and the titles of those before are too rare to be kept
    days=[[("a", None, T0, "/", "Loans")], [("b", None, T0, "/", None)]], again=False, by_source=False
)
def test_day_by_day_is_the_same_as_all_at_once(
    tmp_path: Path, days: list[list[Row]], again: bool, by_source: bool
) -> None:
    """Whatever is in the files, and in whatever order they come: late, doubled, in the middle of sessions."""
    shutil.rmtree(tmp_path, ignore_errors=True)
    tmp_path.mkdir()
    if again:
        days[-1] = days[-1] + days[0][:5]  # delivered twice
    # the last day's file comes first by name, so that order by name is not order of arrival
    names = [f"{(n + 1) % len(days)}.parquet" for n in range(len(days))]
    cut = SessionsConfig(boundary="source") if by_source else SessionsConfig()
    for day, name in zip(days, names, strict=True):
        write(tmp_path / "raw" / name, day)
        metrics = ingest(
            config(tmp_path / "raw" / "*.parquet", tmp_path, sessions=cut), tmp_path / "daily"
        ).metrics
    at_once = ingest(
        config(tmp_path / "raw" / "*.parquet", tmp_path, sessions=cut), tmp_path / "once"
    ).metrics
    daily, once = tables(tmp_path / "daily"), tables(tmp_path / "once")
    for name, rows in once.items():
        assert daily[name] == rows, name
    assert metrics == at_once


def test_a_rare_page_appears_when_enough_people_have_seen_it(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    write(raw / "1.parquet", [(v, None, T0, "/cards/odd", "Odd") for v in "ab"])
    ingest(config(raw, tmp_path), out)
    assert {e["page"] for e in tables(out)["events"]} == {"/"}
    for path in out.rglob("*.parquet"):
        assert b"odd" not in path.read_bytes().lower() or path.name == "files.parquet"
    write(raw / "2.parquet", [("c", None, T0, "/cards/odd", "Odd")])
    ingest(config(raw, tmp_path), out)
    assert {(e["page"], e["title"]) for e in tables(out)["events"]} == {("/cards/odd", "Odd")}


def test_reading_a_file_again_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "raw" / "1.parquet", [("a", None, T0 + i, "/cards", None) for i in range(5)])
    out = tmp_path / "out"
    first = ingest(config(tmp_path / "raw", tmp_path), out).metrics
    before = tables(out)
    assert ingest(config(tmp_path / "raw", tmp_path), out).metrics == first
    os.utime(path, (1, 1))  # touched, but the same
    assert ingest(config(tmp_path / "raw", tmp_path), out).metrics == first
    assert tables(out) == before
    # the same rows under another name are duplicates, and counted as such
    shutil.copy(path, tmp_path / "raw" / "2.parquet")
    more = ingest(config(tmp_path / "raw", tmp_path), out).metrics
    assert more["events"]["duplicates"] == 5
    assert tables(out)["sessions"] == before["sessions"]
    assert tables(out)["events"] == before["events"]


def test_a_file_that_is_gone_stays_in_the_tables(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    one = write(raw / "1.parquet", [("a", None, T0, "/", None)])
    write(raw / "2.parquet", [("a", None, T0 + 5 * MINUTE, "/", None)])
    ingest(config(one, tmp_path), out)
    one.unlink()
    ingest(config(raw, tmp_path), out)
    (session,) = tables(out)["sessions"]
    assert session["n_events"] == 2


def test_a_changed_file_or_setting_is_read_anew_if_all_files_are_there(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    one = write(raw / "1.parquet", [("a", None, T0, "/cards", None)])
    two = write(raw / "2.parquet", [("b", None, T0, "/cards", None)])
    ingest(config(raw, tmp_path), out)
    write(one, [("c", None, T0, "/cards", None)])
    ingest(config(raw, tmp_path), out)
    assert {f["read"] for f in tables(out)["files.parquet"]} == {1}
    assert len({e["visitor_id"] for e in tables(out)["events"]}) == 2
    two.unlink()
    write(one, [("d", None, T0, "/cards", None)])
    before = tables(out)
    with pytest.raises(DataError, match=r"1\.parquet has changed .* 1 files .* not there any more .*--force"):
        ingest(config(raw, tmp_path), out)
    write(one, [("c", None, T0, "/cards", None)])
    other = PrivacyConfig(min_people=3, allow_query=("type",))
    with pytest.raises(DataError, match="settings have changed"):
        ingest(config(raw, tmp_path, privacy=other), out)
    assert tables(out) == before
    ingest(config(raw, tmp_path, privacy=other), out, force=True)
    assert len(tables(out)["events"]) == 1


def test_how_sessions_are_cut_can_change_without_reading_again(tmp_path: Path) -> None:
    path = write(
        tmp_path / "1.parquet", [("a", None, T0, "/", None), ("a", None, T0 + 20 * MINUTE, "/", None)]
    )
    out = tmp_path / "out"
    ingest(config(path, tmp_path), out)
    assert len(tables(out)["sessions"]) == 1
    path.unlink()
    write(tmp_path / "2.parquet", [("a", None, T0 + 40 * MINUTE, "/", None)])
    ingest(config(tmp_path / "*.parquet", tmp_path, sessions=SessionsConfig(inactivity_minutes=10)), out)
    assert len(tables(out)["sessions"]) == 3


def test_fewer_people_are_enough_only_after_reading_again(tmp_path: Path) -> None:
    """What was too rare is not kept anywhere, so it cannot come back from the workspace."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    one = write(raw / "1.parquet", [(v, None, T0, f"/cards/{v}x/odd", "Odd") for v in "abc"])
    ingest(config(raw, out, privacy=PrivacyConfig(min_people=5)), out)
    assert {e["page"] for e in tables(out)["events"]} == {"/"}
    ingest(config(raw, out, privacy=PrivacyConfig(min_people=2)), out)
    assert {e["page"] for e in tables(out)["events"]} == {"/cards/{other}/odd"}
    ingest(config(raw, out, privacy=PrivacyConfig(min_people=4)), out)  # more people: nothing to read
    assert {e["page"] for e in tables(out)["events"]} == {"/"}
    one.unlink()
    write(raw / "2.parquet", [("d", None, T0, "/", None)])
    with pytest.raises(DataError, match="settings have changed"):
        ingest(config(raw, out, privacy=PrivacyConfig(min_people=2)), out)


def test_what_can_be_read_is_kept_and_what_cannot_is_named(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    write(raw / "1.parquet", [("a", None, T0, "/", None)])
    (raw / "2.parquet").write_bytes(b"PAR1 and no more")
    write(raw / "3.parquet", [("b", None, T0, "/", None)])
    with pytest.raises(DataError, match=r"1 of 3 new files.*\n.*2\.parquet"):
        ingest(config(raw, tmp_path), out)
    assert len(tables(out)["events"]) == 2
    write(raw / "2.parquet", [("c", None, T0, "/", None)])
    ingest(config(raw, tmp_path), out)
    assert len(tables(out)["events"]) == 3
    ingest(config(raw, tmp_path), tmp_path / "once")
    assert tables(out) == tables(tmp_path / "once")


# --- killed, and out of disk ---


def run_ingest(raw: Path, out: Path, **popen: Any) -> subprocess.Popen[bytes]:
    """Ingest in a process of its own, which says when it has imported everything and begins."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from test_events_daily import config\n"
        "from clickintent.events import ingest\n"
        "print('ready', flush=True)\n"
        "ingest(config(Path(sys.argv[2]), Path(sys.argv[3])), Path(sys.argv[3]))\n"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(raw), str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **popen)


def begun(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"


def finished(process: subprocess.Popen[bytes]) -> bool:
    process.communicate()
    return process.returncode == 0


@pytest.fixture(scope="module")
def two_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(5)
    folder = tmp_path_factory.mktemp("days")
    for day in range(2):
        rows: list[Row] = [
            (
                f"v{rng.randrange(500)}",
                rng.choice([None, None, "A", "B"]),
                T0 + day * 1440 * MINUTE + rng.randrange(1500) * MINUTE,
                rng.choice(["/", "/cards", "/loans", f"/u/{rng.choice(['jane', 'bob', 'eve'])}"]),
                None,
            )
            for _ in range(20_000)
        ]
        write(folder / f"{day}.parquet", rows)
    return folder


@pytest.mark.slow
def test_killed_at_any_moment_nothing_is_lost_or_doubled(tmp_path: Path, two_days: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    shutil.copy(two_days / "0.parquet", raw)
    ingest(config(raw, out), out)
    one_day = arrow(out)
    shutil.copy(two_days / "1.parquet", raw)
    process = run_ingest(raw, tmp_path / "once")
    begun(process)
    started = time.monotonic()
    assert finished(process)
    whole = time.monotonic() - started
    two = arrow(tmp_path / "once")
    rng = random.Random(11)
    for moment in range(10):  # one in each tenth of the work
        process = run_ingest(raw, out)
        begun(process)
        time.sleep((moment + rng.random()) / 10 * whole)
        process.send_signal(signal.SIGKILL)
        finished(process)
        recover(out)
        assert arrow(out) in (one_day, two)
    assert finished(run_ingest(raw, out))
    assert arrow(out) == two
    assert not [p for p in out.iterdir() if p.name.startswith((".tmp", ".made", ".commit"))]


@pytest.mark.parametrize("stop", range(7))
def test_a_commit_that_was_interrupted_is_finished(
    tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("one", "two.txt", "three")
    for folder, content in (("", "old"), ("made", "new")):
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(exist_ok=True)
            if name == "two.txt":
                path.write_text(content)
            else:
                path.mkdir()
                (path / f"{content}.txt").write_text(content)
    renames = 0
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        nonlocal renames
        renames += 1
        if renames > stop:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        try:
            commit(tmp_path, tmp_path / "made", names)
        except KeyboardInterrupt:
            assert stop < 5
    recover(tmp_path)
    assert (tmp_path / "two.txt").read_text() == "new"
    for name in ("one", "three"):
        assert [p.name for p in (tmp_path / name).iterdir()] == ["new.txt"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "three", "two.txt"]


def test_a_full_disk_is_a_clear_error_and_leaves_the_old_tables(tmp_path: Path, two_days: Path) -> None:
    """Here by a limit on what one file may hold, which needs no rights."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    shutil.copy(two_days / "0.parquet", raw)
    ingest(config(raw, out), out)
    before = tables(out)
    shutil.copy(two_days / "1.parquet", raw)

    def small_files() -> None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = run_ingest(raw, out, preexec_fn=small_files)
    _, said = process.communicate()
    assert process.returncode != 0
    assert "WorkspaceError" in said.decode()
    assert f"{out}" in said.decode()
    assert "the disk is full" in said.decode()
    recover(out)
    assert tables(out) == before
    ingest(config(raw, out), out)
    assert len(tables(out)["files.parquet"]) == 2


def test_a_disk_that_is_really_full(tmp_path: Path, two_days: Path) -> None:
    out = tmp_path / "small"
    out.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(out)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small disk")
    try:
        with pytest.raises(WorkspaceError, match="the disk is full"):
            ingest(config(two_days, out / "w"), out / "w")
        assert not (out / "w" / "events").exists()
        subprocess.run(["mount", "-o", "remount,size=50m", str(out)], check=True)
        ingest(config(two_days, out / "w"), out / "w")
        assert len(tables(out / "w")["files.parquet"]) == 2
    finally:
        subprocess.run(["umount", "-l", str(out)], check=True)


# --- side by side ---


def test_workers_give_the_same_tables(
    tmp_path: Path, two_days: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(two_days, raw)
    (raw / "3.parquet").write_bytes(b"PAR1 and no more")
    write(raw / "4.parquet", [("a", None, T0, "/cards", "Mail jane@example.com"), ("", None, T0, "/", None)])
    metrics = {}
    for name, least in (("here", 2**60), ("workers", 0)):
        monkeypatch.setattr(workers, "_WORTH_IT", least)
        monkeypatch.setattr(workers, "_MOST", 2)
        with pytest.raises(DataError, match=r"1 of 4 new files.*\n.*3\.parquet: "):
            ingest(config(raw, tmp_path), tmp_path / name)
        found = json.loads((tmp_path / name / ".ingest" / "manifest.json").read_text())
        metrics[name] = found["metrics"]
    assert tables(tmp_path / "here") == tables(tmp_path / "workers")
    assert metrics["here"] == metrics["workers"]
    assert metrics["workers"]["privacy"]["removed"] == {"title": {"email": 1}}


def test_a_killed_worker_is_a_clear_error(
    tmp_path: Path, two_days: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_WORTH_IT", 0)
    start = workers._start

    def dying() -> subprocess.Popen[bytes]:
        worker = start()
        worker.kill()
        return worker

    monkeypatch.setattr(workers, "_start", dying)
    with pytest.raises(DataError, match=r"was killed.*memory"):
        ingest(config(two_days, tmp_path), tmp_path / "out")
    assert not (tmp_path / "out" / "events").exists()


# --- damage ---


def test_of_a_damaged_file_all_that_can_be_read_is_kept_and_the_rest_accounted_for(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    rows: list[Row] = [
        (f"v{i % 9}", None, T0 + i * 1_000_000, f"/p/{'abc'[i % 3]}", None) for i in range(3000)
    ]
    write(tmp_path / "whole.parquet", rows)
    table = pq.read_table(tmp_path / "whole.parquet")
    pq.write_table(table, raw / "groups.parquet", row_group_size=1000, compression="gzip")
    meta = pq.ParquetFile(raw / "groups.parquet").metadata.row_group(1)
    content = bytearray((raw / "groups.parquet").read_bytes())
    first = meta.column(0).dictionary_page_offset or meta.column(0).data_page_offset
    for at in range(first + 20, meta.column(4).data_page_offset, 7):
        content[at] ^= 0xFF
    (raw / "groups.parquet").write_bytes(content)
    lines = ["visitor,account,ts,url,title"]
    lines += [f"w{i % 9},,{T0 + i},/p/{'abc'[i % 3]},Page {i:05d}" for i in range(3000)]
    packed = gzip.compress("\n".join(lines).encode())
    (raw / "cut.csv.gz").write_bytes(packed[: len(packed) * 2 // 3])
    metrics = ingest(config(raw, tmp_path, privacy=PrivacyConfig(min_people=1)), out).metrics
    found = tables(out)
    accounts = {Path(f["file"]).name: f for f in found["files.parquet"]}
    groups, cut = accounts["groups.parquet"], accounts["cut.csv.gz"]
    assert (groups["read"], groups["events"], groups["quarantined"]) == (3000, 2000, 1000)
    assert cut["quarantined"] == 1
    assert 1000 < cut["events"] == cut["read"] - 1 < 3000
    refused = [q for q in found["quarantine"] if q["file"].endswith("groups.parquet")]
    assert [q["position"] for q in refused] == list(range(1000, 2000))
    assert {q["reason"] for q in refused} == {"unreadable row group"}
    (ends,) = [q for q in found["quarantine"] if q["file"].endswith("cut.csv.gz")]
    assert ends["position"] == cut["events"]
    assert ends["reason"].startswith("file ends early")
    assert metrics["events"]["read"] == metrics["events"]["events"] + metrics["events"]["quarantined"]
