"""What runs inside Spark's workers: they stage raw files and write parts of tables, by the usual functions.

A task may be tried again, or run twice at a time. So each works under names of its own, and gives what is
complete the name that it has in every try.
"""

from __future__ import annotations

import json
import shutil
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clickintent._version import __version__
from clickintent.config import PrivacyConfig
from clickintent.errors import ClickintentError, ConfigError, WorkspaceError
from clickintent.events import engine as engines
from clickintent.events import staging
from clickintent.events.clean import Cleaner
from clickintent.events.coding import Keys
from clickintent.events.decode import Published
from clickintent.events.staging import RawFile
from clickintent.events.tables import Decode

SHARED = "Put the workspace on a file system that the driver and all workers share; see docs/scale.md."

#: What a value's code means, as workers tell it.
VALUES = pa.schema(
    [pa.field("field", pa.string()), pa.field("code", pa.int64()), pa.field("text", pa.string())]
)
_WRITTEN = pa.schema([pa.field("file", pa.string()), pa.field("rows", pa.int64())])
_STAGED = pa.schema([pa.field("number", pa.int64()), pa.field("told", pa.string())])


@dataclass(frozen=True)
class Staging:
    """How files are staged."""

    keys: Keys
    privacy: PrivacyConfig
    forgotten: frozenset[int]
    scratch: str
    memory_limit: str
    version: str


def stage_some(
    batches: Iterable[pa.RecordBatch], raw: Sequence[RawFile], settings: Staging
) -> Iterator[pa.RecordBatch]:
    """Stage the files whose numbers in ``raw`` come in; tell what became of each, as JSON."""
    _check_version(settings.version)
    for batch in batches:
        for number in batch.column(0).to_pylist():
            told = json.dumps(_stage(raw[number], settings))
            yield pa.record_batch([pa.array([number], pa.int64()), pa.array([told])], schema=_STAGED)


def _stage(file: RawFile, settings: Staging) -> dict[str, Any]:
    """Stage one file in a folder of this attempt, then give the results their names."""
    scratch = _seen(settings.scratch)
    own = scratch / f"task-{file.number:06d}-{uuid.uuid4().hex}"
    cleaner = Cleaner(settings.keys, settings.privacy, settings.forgotten)
    try:
        with engines.open_engine(own / "engine", memory_limit=settings.memory_limit, threads=1) as engine:
            (own / "done").mkdir()
            account = staging.stage(engine, cleaner, file, own / "done")
        _save_values(cleaner, own / "done" / f"values-{file.number:06d}.parquet")
        written = sorted(path.name for path in (own / "done").iterdir())
        for name in written:
            (own / "done" / name).replace(scratch / name)
    except ClickintentError as error:
        return {"error": [type(error).__name__, str(error)]}
    finally:
        shutil.rmtree(own, ignore_errors=True)
    removed = [[column, detector, n] for (column, detector), n in cleaner.removed.items()]
    return {"error": None, "account": vars(account), "removed": removed, "files": written}


def _save_values(cleaner: Cleaner, path: Path) -> None:
    columns: list[list[Any]] = [[], [], []]
    for name, known in cleaner.values.items():
        columns[0] += [name] * len(known)
        columns[1] += known.keys()
        columns[2] += known.values()
    pq.write_table(pa.table(columns, schema=VALUES), path)


@dataclass(frozen=True)
class Part:
    """How parts of a table are written; see ``spark.write_parts``."""

    folder: str
    name: str
    schema: pa.Schema
    convert: Callable[[pa.Table], pa.Table]
    group: int
    version: str


def write_part(batches: Iterable[pa.RecordBatch], part: Part) -> Iterator[pa.RecordBatch]:
    """Write what comes in into one file; tell its name and how many rows it has."""
    from pyspark import TaskContext

    _check_version(part.version)
    place = _seen(part.folder)
    context = TaskContext.get()
    assert context is not None
    file = f"{part.name}-{context.partitionId():05d}.parquet"
    temporary = place / f".{file}-{uuid.uuid4().hex}.tmp"
    rows = 0
    try:
        with ExitStack() as stack:
            writer = None
            for table in _grouped(batches, part.group):
                if writer is None:
                    made = pq.ParquetWriter(temporary, part.schema, compression="zstd")
                    writer = stack.enter_context(made)
                writer.write_table(part.convert(table), row_group_size=part.group)
                rows += table.num_rows
        if rows:
            temporary.replace(place / file)
    finally:
        temporary.unlink(missing_ok=True)
    if rows:
        yield pa.record_batch([pa.array([file]), pa.array([rows], pa.int64())], schema=_WRITTEN)


def _grouped(batches: Iterable[pa.RecordBatch], group: int) -> Iterator[pa.Table]:
    """Batches together, as many as go into a row group."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        if rows and rows + batch.num_rows > group:
            yield pa.Table.from_batches(waiting)
            waiting, rows = [], 0
        if batch.num_rows:
            waiting.append(batch)
            rows += batch.num_rows
    if rows:
        yield pa.Table.from_batches(waiting)


def as_is(table: pa.Table) -> pa.Table:
    """The same rows."""
    return table


@dataclass(frozen=True)
class Decoding:
    """``decode``, with what may be published."""

    decode: Decode
    published: str  # a file, because it may be larger than what goes with a task

    def __call__(self, table: pa.Table) -> pa.Table:
        return self.decode(table, _load(self.published))


def save_published(published: Published, path: Path) -> None:
    """Write what may be published into a file, one batch for each field."""
    schema = pa.schema(VALUES).with_metadata({"fields": json.dumps(list(published.fields))})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for name, (codes, texts) in published.fields.items():
            writer.write_batch(
                pa.record_batch([pa.array([name] * len(codes), pa.string()), codes, texts], schema=schema)
            )


@lru_cache(maxsize=1)
def _load(path: str) -> Published:
    with pa.OSFile(path, "rb") as file, pa.ipc.open_file(file) as reader:
        names = json.loads(reader.schema.metadata[b"fields"])
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
    return Published(
        {name: (batch.column(1), batch.column(2)) for name, batch in zip(names, batches, strict=True)}
    )


def _check_version(driver: str) -> None:
    if driver != __version__:
        raise ConfigError(
            f"the Spark worker {socket.gethostname()} has clickintent {__version__}, the driver {driver}. "
            "Install the same version on all."
        )


def _seen(folder: str) -> Path:
    path = Path(folder)
    if not path.is_dir():
        raise WorkspaceError(f"the Spark worker {socket.gethostname()} does not see {folder}. {SHARED}")
    return path
