"""The second engine: Spark, for more events than one machine takes.

The Ibis expressions are the same. What is done to rows in Python, reading and cleaning raw files before them
and decoding after them, is done by the same functions inside Spark's workers, which write Parquet files
themselves: so the files are exactly what DuckDB's are. All workers must see the workspace; see docs/scale.md.
"""

from __future__ import annotations

import itertools
import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from clickintent._version import __version__
from clickintent.config import Config
from clickintent.errors import DataError, WorkspaceError, error_of
from clickintent.events.clean import Cleaner
from clickintent.events.decode import Published
from clickintent.events.spark_session import open_session, running
from clickintent.events.spark_tasks import (
    SHARED,
    VALUES,
    Decoding,
    Part,
    Staging,
    as_is,
    save_published,
    stage_some,
    write_part,
)
from clickintent.events.staging import Account, RawFile, Staged
from clickintent.events.tables import Decode, at_once
from clickintent.progress import Advance

_MOST_TASKS = 10_000
_TASK_EVENTS = 500_000  # that one task sorts
_WAIT_S = 60.0  # for a file system to show what workers wrote


@contextmanager
def open_engine(config: Config, scratch: Path) -> Iterator[SparkEngine]:
    """Open the Spark of the configuration.

    Args:
        scratch: a folder that all workers see.

    Raises:
        MissingDependencyError: if pyspark or Java is not installed.
        ConfigError: if Spark cannot be reached.
    """
    with open_session(config.spark) as session:
        # rows of one visitor are in one place, whatever else they are grouped and joined by
        _set(session, "spark.sql.requireAllClusterKeysForCoPartition", "false")
        # Ibis registers what its own expressions need, and sets the time zone to UTC
        engine = SparkEngine(ibis.pyspark.connect(session), session, scratch, config.memory_limit)
        with engine.scope():
            yield engine


@dataclass
class SparkEngine:
    """A Spark session behind Ibis; see ``tables.Tables``."""

    con: Any
    session: Any
    scratch: Path  # seen by all workers
    memory_limit: str  # of the DuckDB in each task that reads raw files
    _names: Iterator[str] = field(init=False, repr=False)
    _tasks: int = 1  # for all events
    _held: list[tuple[str, Any]] = field(default_factory=list, repr=False)  # views and their cached rows
    _published: tuple[Published, Path] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        own = uuid.uuid4().hex[:8]
        self._names = (f"{own}_{n}" for n in itertools.count())

    def parquet(self, path: Path | str) -> ir.Table:
        return self._view(read_parquet(self.session, Path(path)), "own")

    def small(self, rows: pa.Table, name: str) -> ir.Table:
        path = self.scratch / f"small-{next(self._names)}-{name}.parquet"
        pq.write_table(rows, path)
        return self._view(read_parquet(self.session, path).hint("broadcast"), name)

    def temporary(self, rows: ir.Table, prefix: str = "t") -> ir.Table:
        frame = self.frame(rows).persist()
        frame.count()  # now: only of what is there does Spark know that it need not be moved about again
        return self._view(frame, prefix, cached=frame)

    @contextmanager
    def scope(self) -> Iterator[None]:
        outer, self._held = self._held, []
        try:
            yield
        finally:
            with suppress(Exception):  # of a session that is gone, it is gone
                for name, cached in self._held:
                    self.session.catalog.dropTempView(name)
                    if cached is not None:
                        cached.unpersist()
            self._held = outer

    def together(self, rows: ir.Table, column: str) -> ir.Table:
        return self._view(self.frame(rows).repartition(self._tasks, column), "together")

    def ranges(self, events: int, at_once: int) -> int:  # noqa: ARG002 (DuckDB needs it)
        """One: Spark bounds its memory itself, given that each task has not too much to do."""
        self._tasks = max(1, -(-events // _TASK_EVENTS))
        usual = self.session.conf.get("spark.sql.shuffle.partitions")
        if usual.isdecimal() and int(usual) < self._tasks:
            _set(self.session, "spark.sql.shuffle.partitions", str(self._tasks))
        return 1

    def arrow(self, rows: ir.Table) -> pa.Table:
        return collect(self.frame(rows))

    def keep(self, rows: ir.Table, folder: Path, name: str) -> ir.Table:
        write_parts(self.frame(rows), folder, name, rows.schema().to_pyarrow(), as_is)
        return self.parquet(folder / f"{name}-*.parquet")

    def write(
        self,
        rows: ir.Table,
        folder: Path,
        name: str,
        schema: pa.Schema,
        decode: Decode,
        published: Published,
        order: Sequence[str] = (),
    ) -> None:
        if self._published is None or self._published[0] is not published:
            path = self.scratch / f"published-{next(self._names)}.arrow"
            save_published(published, path)
            self._published = (published, path)
        decoding = Decoding(decode, str(self._published[1]))
        frame = self.frame(rows)
        # each file by itself: an order of all of them would sessionise twice, and move all lists about
        frame = frame.sortWithinPartitions(*order) if order else frame
        write_parts(frame, folder, name, schema, decoding, at_once(schema))

    def frame(self, rows: ir.Table) -> Any:
        """Rows as a data frame of Spark, not computed yet."""
        return self.session.sql(self.con.compile(rows))

    def _view(self, frame: Any, prefix: str, cached: Any = None) -> ir.Table:
        name = f"{prefix}_{next(self._names)}"
        frame.createOrReplaceTempView(name)
        self._held.append((name, cached))
        return self.con.table(name)


def read_parquet(session: Any, path: Path) -> Any:
    """Parquet files of our own, one or a glob in the file's name, as a data frame of Spark."""
    path = path.resolve()
    folder = re.sub(r"([\\{}\[\]*?])", r"\\\1", str(path.parent))
    # with a scheme: without one it may be a distributed file system, which Python does not write to
    return session.read.option("pathGlobFilter", path.name).parquet(f"file://{folder}")


def _set(session: Any, name: str, value: str) -> None:
    """A setting for speed; some places do not let it be changed."""
    with suppress(Exception):
        session.conf.set(name, value)


def collect(frame: Any) -> pa.Table:
    """A data frame of Spark as an Arrow table, in memory.

    Raises:
        ClickintentError: what a worker raised.
    """
    with running():
        # not by Ibis, which goes through pandas and makes floats of integers where there are nulls
        found: pa.Table = frame.toArrow()
        return found


def write_parts(
    frame: Any,
    folder: Path,
    name: str,
    schema: pa.Schema,
    convert: Callable[[pa.Table], pa.Table],
    group: int = 20_000,
) -> int:
    """Write a data frame, converted, into files ``NAME-*.parquet`` of ``folder``; returns how many rows.

    Each task writes a file, under another name until it is complete: a task that is tried again, or twice
    at a time, does no harm.

    Args:
        schema: of the files.
        convert: rows of ``frame`` → rows of ``schema``; travels to the workers.
        group: rows of a row group, converted at a time.

    Raises:
        WorkspaceError: if the workers do not see ``folder``, or what they wrote is not seen here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    task = partial(write_part, part=Part(str(folder), name, schema, convert, group, __version__))
    done = collect(frame.mapInArrow(task, "file string, rows bigint"))
    _arrived(folder, done["file"].to_pylist())
    for leftover in folder.glob(f".{name}-*.tmp"):
        leftover.unlink(missing_ok=True)
    if not done.num_rows:
        pq.write_table(schema.empty_table(), folder / f"{name}-00000.parquet", compression="zstd")
    return sum(done["rows"].to_pylist())


def stage_files(
    engine: SparkEngine, cleaner: Cleaner, raw: Sequence[RawFile], scratch: Path, advance: Advance
) -> list[Staged]:
    """``staging.stage_files``, side by side in Spark's workers, one task for a file.

    The keys travel to the workers as part of the task: nothing shows them, and what Spark keeps of a task is
    encrypted where Spark is set up to encrypt; see docs/scale.md.
    """
    if not raw:
        return []
    settings = Staging(
        cleaner.keys,
        cleaner.config,
        frozenset(cleaner.forgotten),
        str(scratch),
        engine.memory_limit,
        __version__,
    )
    tasks = engine.session.range(0, len(raw), 1, min(len(raw), _MOST_TASKS))
    task = partial(stage_some, raw=tuple(raw), settings=settings)
    done = collect(tasks.mapInArrow(task, "number bigint, told string")).sort_by("number")
    found = []
    written: list[str] = []
    for number, told in zip(
        done["number"].to_pylist(), map(json.loads, done["told"].to_pylist()), strict=True
    ):
        file = raw[number]
        if told["error"]:
            error = error_of(*told["error"])
            if not isinstance(error, DataError):
                raise error
            found.append(Staged(file, None, error))
            continue
        reasons = Counter(told["account"].pop("reasons"))
        found.append(Staged(file, Account(**told["account"], reasons=reasons)))
        written += told["files"]
        for column, detector, n in told["removed"]:
            cleaner.removed[column, detector] += n
    _arrived(scratch, written)
    if any(name.startswith("values-") for name in written):
        values = engine.arrow(engine.parquet(scratch / "values-*.parquet").distinct())
        for field_, code, text in zip(*(values[name].to_pylist() for name in VALUES.names), strict=True):
            cleaner.values.setdefault(field_, {})[code] = text
    advance(len(raw))
    return found


def _arrived(folder: Path, names: Collection[str]) -> None:
    """Wait until files that workers wrote are listed here: a network's file system may take its time."""
    give_up = time.monotonic() + _WAIT_S
    while missing := set(names) - {path.name for path in folder.iterdir()}:
        if time.monotonic() > give_up:
            raise WorkspaceError(
                f"{len(missing)} files that Spark's workers wrote into {folder} are not there "
                f"({min(missing)}). {SHARED}"
            )
        time.sleep(0.5)
