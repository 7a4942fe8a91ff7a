"""One logic, two engines: what comes out of Spark is what comes out of DuckDB."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import factories
from clickintent import __version__, schema
from clickintent.config import (
    Config,
    EncoderConfig,
    PrivacyConfig,
    SessionsConfig,
    SimBankConfig,
    SourceConfig,
    load_config,
)
from clickintent.encoder import SessionEncoder
from clickintent.errors import (
    ConfigError,
    DataError,
    MissingColumnsError,
    MissingDependencyError,
    WorkspaceError,
)
from clickintent.events import bots, coding, forget, ingest, spark, spark_session, spark_tasks
from clickintent.events import engine as engines
from clickintent.events.staging import RawFile
from clickintent.simbank import simulate

pytestmark = [
    pytest.mark.slow,
    # py4j leaves it to the garbage collector to close what a result came through
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

T0 = 1_767_225_600_000_000
SECOND = 1_000_000
SCHEMAS = {
    "events": schema.EVENTS,
    "sessions": schema.SESSIONS,
    "links": schema.LINKS,
    "quarantine": schema.QUARANTINE,
    "pages.parquet": schema.PAGES,
    "identities.parquet": schema.IDENTITIES,
    "files.parquet": schema.FILES,
}
KEPT = (".ingest/coded", ".ingest/values.parquet")
#: Two tries for every task.
MASTER = "local[2,2]"
SETTINGS = {
    # compiled quickly, not well: of these seconds, most would be the compiler's
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "1g",
    "spark.log.level": "OFF",
    "spark.sql.shuffle.partitions": "2",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


def need_java() -> None:
    pytest.importorskip("pyspark")
    if not (shutil.which("java") or os.environ.get("JAVA_HOME")):
        pytest.skip("Spark needs Java; .ci/run installs it")


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    need_java()
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master(MASTER)
    for name, value in SETTINGS.items():
        builder = builder.config(name, value)
    made = builder.getOrCreate()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLICKINTENT_KEY", "of the tests, and long enough")


def on(engine: str, config: Config, out: Path) -> dict[str, Any]:
    return ingest(config.model_copy(update={"engine": engine, "workspace": out}), out).metrics


def rows(out: Path) -> dict[str, list[dict[str, Any]]]:
    """All tables; rows in one order, lists in their own."""
    found = {}
    for name in (*SCHEMAS, *KEPT):
        table = pq.read_table(out / name)
        if name in SCHEMAS:
            assert table.schema.equals(SCHEMAS[name])
        found[name] = sorted(table.to_pylist(), key=str)
    return found


def assert_same(one: Path, other: Path) -> None:
    mine, theirs = rows(one), rows(other)
    for name, table in mine.items():
        assert len(table) == len(theirs[name]), name
        for row, also in zip(table, theirs[name], strict=True):
            assert row == also, name
    assert json.loads((one / "privacy.json").read_text()) == json.loads((other / "privacy.json").read_text())
    for path in other.rglob("*"):
        assert path.suffix in ("", ".parquet", ".json"), path
        assert not path.name.startswith((".tmp", "_", ".part")), path


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A small SimBank, its web export in three files."""
    out = tmp_path_factory.mktemp("bank") / "simbank"
    simulate(SimBankConfig(out=out, sessions=1000, days=20), seed=3)
    (web,) = (out / "web").glob("*.parquet")
    table = pq.read_table(web)
    third = table.num_rows // 3
    for i, length in enumerate((third, third, None)):
        pq.write_table(table.slice(i * third, length), web.with_name(f"part-{i}.parquet"))
    web.unlink()
    toml = out / "clickintent.toml"
    text = toml.read_text(encoding="utf-8")
    toml.write_text(re.sub(r'ids = "plain".*', 'ids = "hmac"\nmin_people = 2', text), encoding="utf-8")
    return load_config(toml)


@pytest.fixture(scope="module")
def bank_on_duckdb(bank: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("bank") / "duckdb"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLICKINTENT_KEY", "of the tests, and long enough")
        return on("duckdb", bank, out), out


def test_a_bank(
    session: Any,
    bank: Config,
    bank_on_duckdb: tuple[dict[str, Any], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spark, "_TASK_EVENTS", 4_000)  # so that several tasks have something to do
    expected, out = bank_on_duckdb
    found = on("spark", bank, tmp_path / "spark")
    assert found == expected
    assert len(list((tmp_path / "spark" / "sessions").iterdir())) > 1
    assert_same(out, tmp_path / "spark")
    for path in (tmp_path / "spark" / "events").iterdir():
        ts = pq.read_table(path)["ts"].to_numpy()
        assert (np.diff(ts) >= 0).all()


# --- dirty data that comes in portions ---

COLUMNS = {
    "event_id": "eid",
    "visitor_id": "cookie",
    "account_id": "client",
    "session_key": "visit",
    "ts": "time",
    "event_type": "action",
    "url": "url",
    "title": "title",
    "text": "term",
    "referrer": "ref",
    "value": "amount",
}


def dirty(rng: random.Random, day: int, n: int) -> list[dict[str, str | None]]:
    """Rows with many ties in time, shared devices, late events, duplicates, and what no reader can read."""
    made: list[dict[str, str | None]] = []
    for _ in range(n):
        minute = rng.randrange(0, 120) + 1440 * rng.choice([day, day, max(day - 1, 0)])
        made.append(
            {
                "eid": rng.choice([None, None, f"e{rng.randrange(40)}"]),
                "cookie": rng.choice([*"abcdefghijkl", None, "NULL", "ü"]),
                "client": rng.choice([None] * 6 + ["A", "B", "C"]),
                "visit": rng.choice([None, "1", "2", "3"]),
                "time": rng.choice([str(T0 + minute * 60 * SECOND)] * 20 + ["", "soon", "5", "9e30"]),
                "action": rng.choice(["view"] * 8 + ["Add to cart", None]),
                "url": rng.choice(
                    [
                        "/cards",
                        "/loans/car?q=red%20car",
                        f"/people/{rng.choice(['jane', 'bob', 'zoë', 'ann'])}/mail",
                        f"https://bank.example/x/{rng.randrange(10**9)}",
                        "/a/b/c",
                        None,
                        "mailto:jane@example.com",
                    ]
                ),
                "title": rng.choice(["Cards", "Loans", "Hello Jane", None, "  ", "a\x00b"]),
                "term": rng.choice([None, None, "red car", "4111 1111 1111 1111"]),
                "ref": rng.choice([None, "https://www.google.com/search?q=x", "nonsense"]),
                "amount": rng.choice([None, "1.5", "-0.0", "nan", "1e400", "12"]),
            }
        )
    return made + rng.sample(made, n // 10)


def portion(folder: Path, day: int, seed: int) -> None:
    folder.mkdir(exist_ok=True)
    rng = random.Random(seed)
    for i in range(2):
        found = dirty(rng, day, 150)
        if i:  # as some exports are written
            found.sort(key=lambda row: row["time"] or "", reverse=True)
        table = pa.Table.from_pylist(found, pa.schema([(name, pa.string()) for name in COLUMNS.values()]))
        pq.write_table(table, folder / f"day-{day}-{i}.parquet")


@pytest.mark.parametrize(
    ("boundary", "ids", "engines"),
    [("inactivity", "hmac", ("duckdb", "spark")), ("source", "plain", ("spark", "duckdb"))],
)
def test_portions_on_one_engine_and_the_other_are_all_at_once(
    session: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    boundary: Any,
    ids: Any,
    engines: tuple[str, str],
) -> None:
    monkeypatch.setattr(spark, "_TASK_EVENTS", 200)
    raw = tmp_path / "raw"
    config = Config(
        workspace=tmp_path,
        sources=(SourceConfig(reader="table", path=raw, columns=COLUMNS),),
        privacy=PrivacyConfig(min_people=3, ids=ids),
        sessions=SessionsConfig(boundary=boundary),
    )
    for day, engine in enumerate(engines):
        portion(raw, day, seed=day)
        metrics = on(engine, config, tmp_path / "out")
    at_once = on("duckdb", config, tmp_path / "all")
    assert metrics == at_once
    assert_same(tmp_path / "all", tmp_path / "out")
    if engines[0] == "duckdb":
        on("spark", config, tmp_path / "spark")
        assert_same(tmp_path / "all", tmp_path / "spark")


def test_vanguard(session: Any, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark, "_TASK_EVENTS", 5_000)
    table = pq.read_table(real_data / "vanguard_cx_ab" / "web_data_pt1.parquet").slice(0, 20_000)
    pq.write_table(table, tmp_path / "raw.parquet")
    columns = {"visitor_id": "visitor_id", "account_id": "client_id", "ts": "date_time"}
    columns |= {"page": "process_step", "session_key": "visit_id"}
    source = SourceConfig(
        reader="table",
        path=tmp_path / "raw.parquet",
        columns=columns,
        constants={"event_type": "page_view"},
    )
    config = Config(
        workspace=tmp_path,
        sources=(source,),
        privacy=PrivacyConfig(min_people=2),
        sessions=SessionsConfig(boundary="source"),
    )
    assert on("spark", config, tmp_path / "spark") == on("duckdb", config, tmp_path / "duckdb")
    assert_same(tmp_path / "duckdb", tmp_path / "spark")


def test_forgetting(
    session: Any, bank: Config, bank_on_duckdb: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    _, made = bank_on_duckdb
    links = pq.read_table(made / "links")
    account = links["account_id"].value_counts().to_pylist()[0]["values"]
    done = []
    for engine in ("duckdb", "spark"):
        shutil.copytree(made, tmp_path / engine)
        update = {"engine": engine, "workspace": tmp_path / engine}
        done.append(forget(bank.model_copy(update=update), account=account))
    assert done[0] == done[1]
    assert done[0].rows["sessions"] > 0
    assert_same(tmp_path / "duckdb", tmp_path / "spark")


def test_robots_on_the_border_of_a_rule(session: Any, tmp_path: Path) -> None:
    """Gaps whose mean, or standard deviation over mean, is exactly the limit, in different orders."""
    rng = random.Random(1)
    events = []
    for number in range(40):
        base = rng.choice([[0.9, 1.1], [1.8, 2.2], [0.7, 1.3, 1.0], [27.0, 33.0], [5.0, 5.1], [0.1, 1.8]])
        gaps = base * 8
        rng.shuffle(gaps)
        events += [{"session": number, "gap_s": gap} for gap in (None, *gaps)]
    table = pa.table(
        {
            "session": pa.array([e["session"] for e in events]),
            "gap_s": pa.array([e["gap_s"] for e in events]),
            "page": pa.array([1] * len(events)),
            "declared": pa.array([False] * len(events)),
            "assets": pa.nulls(len(events), pa.int64()),
        }
    )

    def asked(rows: ir.Table) -> ir.Table:
        found = rows.group_by("session").agg(**bots.evidence(rows))
        return found.select("session", reason=bots.reason(found)).order_by("session")

    config = Config(workspace=tmp_path)
    with spark.open_engine(config, tmp_path) as distributed:
        one = distributed.arrow(asked(distributed.small(table, "events")))
    with engines.open_engine(tmp_path) as here:
        other = here.arrow(asked(here.small(table, "events")))
    assert one.to_pylist() == other.to_pylist()
    assert 0 < one["reason"].null_count < one.num_rows


# --- what goes wrong ---


def test_files_that_cannot_be_read_do_not_keep_the_others(session: Any, tmp_path: Path) -> None:
    portion(tmp_path / "raw", 0, seed=0)
    (tmp_path / "raw" / "broken.parquet").write_bytes(b"PAR1 no more")
    pq.write_table(pa.table({"cookie": ["a"]}), tmp_path / "raw" / "narrow.parquet")
    source = SourceConfig(reader="table", path=tmp_path / "raw", columns=COLUMNS)
    config = Config(workspace=tmp_path, sources=(source,))
    said = []
    for engine in ("duckdb", "spark"):
        with pytest.raises(DataError, match="2 of 4 new files could not be read") as error:
            on(engine, config, tmp_path / engine)
        said.append(str(error.value))
    assert said[0] == said[1]
    assert_same(tmp_path / "duckdb", tmp_path / "spark")
    for path in (tmp_path / "raw").glob("day*"):
        path.unlink()
    with pytest.raises(MissingColumnsError, match=r"narrow\.parquet: no column") as told:
        on("spark", config.model_copy(update={"sources": (one_file(source, "narrow"),)}), tmp_path / "none")
    assert str(told.value).count("no column") == 1


def one_file(source: SourceConfig, name: str) -> SourceConfig:
    return source.model_copy(update={"path": f"{source.path}/{name}.parquet"})


def test_a_task_that_is_tried_again_leaves_nothing_double(session: Any, tmp_path: Path) -> None:
    def fails_first(table: pa.Table) -> pa.Table:
        from pyspark import TaskContext

        context = TaskContext.get()
        assert context is not None
        if context.attemptNumber() == 0 and table["id"][0].as_py() >= 100:
            raise RuntimeError("a machine was lost")
        return table

    kind = pa.schema([pa.field("id", pa.int64(), nullable=False)])
    n = spark.write_parts(session.range(0, 50_000, 1, 2), tmp_path / "out", "part", kind, fails_first)
    assert n == 50_000
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    table = pq.read_table(tmp_path / "out")
    assert table.schema.equals(kind)
    assert table["id"].to_pylist() == list(range(50_000))


def test_a_raw_file_that_is_staged_again_gives_the_same_files(tmp_path: Path) -> None:
    """As when the machine is lost whose task had written its files, but not told so."""
    portion(tmp_path / "raw", 0, seed=0)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    source = SourceConfig(reader="table", path=tmp_path / "raw", columns=COLUMNS)
    settings = spark_tasks.Staging(
        coding.derive(b"a secret of the tests"),
        PrivacyConfig(),
        frozenset(),
        str(scratch),
        "500MB",
        __version__,
    )
    numbers = pa.record_batch({"id": [0]})
    raw = [RawFile(7, str(tmp_path / "raw" / "day-0-1.parquet"), source)]
    told, files = [], []
    for _ in range(2):
        (batch,) = spark_tasks.stage_some([numbers], raw, settings)
        told.append(batch.to_pylist())
        assert {path.suffix for path in scratch.iterdir()} == {".parquet"}
        files.append({path.name: pq.read_table(path).to_pydict() for path in scratch.iterdir()})
    assert told[0] == told[1]
    assert files[0] == files[1]
    assert sorted(files[0]) == [
        "coded-000007-0000.parquet",
        "quarantine-000007.parquet",
        "values-000007.parquet",
    ]
    assert sorted(files[0]) == json.loads(told[0][0]["told"])["files"]


def test_no_rows_are_a_file_too(session: Any, tmp_path: Path) -> None:
    kind = pa.schema([pa.field("id", pa.int64(), nullable=False)])
    assert spark.write_parts(session.range(0), tmp_path, "part", kind, lambda table: table) == 0
    assert pq.read_table(tmp_path).schema.equals(kind)


def test_workers_that_do_not_see_the_workspace(
    session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = pa.schema([pa.field("id", pa.int64())])
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    with pytest.raises(
        WorkspaceError, match=r"does not see .*elsewhere\. Put the workspace on a file system"
    ):
        spark.write_parts(session.range(5), tmp_path / "elsewhere", "part", kind, lambda table: table)


def test_files_that_do_not_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark, "_WAIT_S", 0.0)
    with pytest.raises(WorkspaceError, match=r"1 files that Spark's workers wrote .* \(a\.parquet\)"):
        spark._arrived(tmp_path, ["a.parquet"])


def test_workers_with_another_version(session: Any) -> None:
    task = partial(spark_tasks.stage_some, raw=(), settings=None)
    settings = spark_tasks.Staging(None, None, frozenset(), "", "", version="0.0.0")  # type: ignore[arg-type]
    rows = session.range(1).mapInArrow(partial(task, settings=settings), "number bigint, told string")
    with pytest.raises(ConfigError, match=r"the driver 0\.0\.0\. Install the same version on all"):
        spark.collect(rows)


def test_workers_that_lack_a_package(session: Any) -> None:
    def needs(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import not_installed_anywhere  # noqa: F401

        yield from batches

    with pytest.raises(
        MissingDependencyError, match="a Spark worker lacks the Python package 'not_installed"
    ):
        spark.collect(session.range(1).mapInArrow(needs, "id bigint"))


def test_other_errors_of_workers_stay_what_they_are(session: Any) -> None:
    def fails(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        raise RuntimeError("a bug")
        yield from batches

    with pytest.raises(Exception, match="a bug") as error:
        spark.collect(session.range(1).mapInArrow(fails, "id bigint"))
    assert type(error.value).__name__ == "PythonException"


@pytest.fixture
def nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    sql = pytest.importorskip("pyspark.sql")
    monkeypatch.setattr(sql.SparkSession, "getActiveSession", lambda: None)


@pytest.mark.usefixtures("nothing_open")
@pytest.mark.parametrize(
    "address", ["spark://127.0.0.1:{port}", "sc://me:secret@127.0.0.1:{port}/;token=hush"]
)
def test_nobody_answers(address: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # but does not listen
        address = address.format(port=taken.getsockname()[1])
        with (
            pytest.raises(ConfigError, match=r"nobody answers there .*docs/scale\.md") as error,
            spark_session.open_session(address),
        ):
            pass
    assert "hush" not in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.usefixtures("nothing_open")
def test_no_java_and_no_pyspark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opening: Callable[[], Any] = partial(spark_session.open_session, "local[1]")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with (
        pytest.raises(MissingDependencyError, match="Spark needs Java 17 or newer, and JAVA_HOME is"),
        opening(),
    ):
        pass
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="there is no java on the PATH"), opening():
        pass
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'clickintent\[spark\]'"), opening():
        pass


# --- embedding ---


def test_embeddings(session: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from clickintent.pipeline.spark_embed import embed_on_spark

    sessions = factories.themed_sessions(300)
    small = EncoderConfig(
        width=32, layers=1, heads=2, text_dim=16, text_buckets=512, max_sessions=500, min_page_count=2
    )
    encoder = SessionEncoder(small).fit(sessions)
    encoder.save(tmp_path / "encoder")
    (tmp_path / "sessions").mkdir()
    for i in range(3):
        pq.write_table(sessions.slice(i * 100, 100), tmp_path / "sessions" / f"part-{i}.parquet")
    robots = factories.sessions(
        [factories.session(1000, ["/"], is_bot=True), factories.session(1001, ["/"], channel="app")]
    )
    pq.write_table(robots, tmp_path / "sessions" / "part-3.parquet")
    n = embed_on_spark(
        session, tmp_path / "sessions", tmp_path / "encoder", tmp_path / "embeddings", channel="web"
    )
    assert n == 300
    found = pq.read_table(tmp_path / "embeddings").sort_by("session_id")
    assert found.schema.equals(schema.embeddings(small.dim))
    expected = encoder.embed(sessions.sort_by("session_id"))
    assert found["session_id"].to_pylist() == sorted(sessions["session_id"].to_pylist())
    vectors = found["embedding"].combine_chunks().flatten().to_numpy().reshape(expected.shape)
    assert np.abs(vectors - expected).max() < 1e-6


# --- Spark Connect ---


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a Connect server of its own process."""
    need_java()
    import pyspark

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = Path(pyspark.__file__).parent
    settings = SETTINGS | {
        "spark.connect.grpc.binding.port": str(port),
        "spark.connect.grpc.binding.address": "127.0.0.1",
    }
    command = [str(home / "bin" / "spark-submit"), "--master", "local[2]"]
    command += [part for name, value in settings.items() for part in ("--conf", f"{name}={value}")]
    command += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYSPARK_PYTHON": sys.executable},
            cwd=tmp_path,
        )
    try:
        give_up = time.monotonic() + 120
        while True:
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < give_up, (tmp_path / "server.log").read_text()
                time.sleep(0.2)
        yield f"sc://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def test_connect(
    server: str, bank: Config, bank_on_duckdb: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    """In a process of its own, because one has either a session of its own or one of Connect."""
    expected, out = bank_on_duckdb
    folder = Path(bank.sources[0].path).parents[1]
    text = (folder / "clickintent.toml").read_text(encoding="utf-8")
    where = f'workspace = "{tmp_path / "out"}"\nengine = "spark"\nspark = "{server}"'
    toml = folder / "connect.toml"
    toml.write_text(re.sub(r'workspace = ".*"', where, text), encoding="utf-8")
    command = [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", "-m", "clickintent", "ingest"]
    done = subprocess.run([*command, str(toml)], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert_same(out, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / ".ingest" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["metrics"] == json.loads(json.dumps(expected))
