"""One raw file → coded chunks in the scratch folder, and an account of its rows.

Files do not depend on each other, so they may be staged anywhere: one after the other here, or side by side
in Spark's workers.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import duckdb
import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clickintent import schema
from clickintent.config import SourceConfig
from clickintent.errors import DataError
from clickintent.events import clean, files, readers, remote
from clickintent.events.clean import CODED, Cleaner
from clickintent.events.engine import Engine
from clickintent.progress import Advance
from clickintent.workspace import enough_space, is_full

_BATCH_ROWS = 122_880  # DuckDB's own row group
_CHUNK_ROWS = 1_000_000  # events in one scratch file
_CHUNK_GROUP = 50_000
_LOOK_AT = 50_000  # rows that tell which way a file is written
_DAY = 86_400_000_000


@dataclass(frozen=True)
class RawFile:
    """A file to read."""

    number: int
    path: str
    source: SourceConfig


@dataclass(frozen=True)
class Account:
    """What became of the rows of a file; duplicates are known only when all files are."""

    read: int
    quarantined: int
    reasons: Counter[str] = field(default_factory=Counter)
    newest_first: bool = False
    stamp: str = ""  # see ``files.stamp``
    hash: str = ""  # of the content


@dataclass(frozen=True)
class Staged:
    """A file that was staged, or could not be."""

    file: RawFile
    account: Account | None
    error: DataError | None = None


def stage_files(
    engine: Engine, cleaner: Cleaner, raw: Sequence[RawFile], scratch: Path, advance: Advance
) -> list[Staged]:
    """Stage one file after the other; one that cannot be read does not keep the others from being read."""
    found = []
    for done, file in enumerate(raw, 1):
        try:
            found.append(Staged(file, stage(engine, cleaner, file, scratch)))
        except DataError as error:
            found.append(Staged(file, None, error))
        advance(done, Path(file.path).name)
    return found


def stage(
    engine: Engine, cleaner: Cleaner, file: RawFile, scratch: Path, limit: int | None = None
) -> Account:
    """Write ``coded-NUMBER-*.parquet`` and ``quarantine-NUMBER.parquet`` into ``scratch``.

    A file that cannot be read to its end is read again part by part; what is broken is refused.

    Args:
        limit: read only about so many rows.

    Raises:
        DataError: if nothing of the file can be read.
        WorkspaceError: if the disk is full.
        MissingColumnsError: if it lacks columns that its reader needs.
        ConfigError: if the source's column mapping cannot be right.
    """
    with enough_space(scratch):
        return _stage_or_salvage(engine, cleaner, file, scratch, limit)


def _stage_or_salvage(
    engine: Engine, cleaner: Cleaner, file: RawFile, scratch: Path, limit: int | None
) -> Account:
    removed = cleaner.removed.copy()
    try:
        return _stage(engine, cleaner, file, scratch, limit)
    except duckdb.Error as error:
        if is_full(error):
            raise
        for half_done in scratch.glob(f"*-{file.number:06d}*.parquet"):
            half_done.unlink()
        cleaner.removed = removed
        with engine.salvaging(), engine.reading(file.path):
            return _stage(engine, cleaner, file, scratch, limit)
    finally:
        engine.forget_raw()


def _stage(engine: Engine, cleaner: Cleaner, file: RawFile, scratch: Path, limit: int | None) -> Account:
    rows = readers.reader(file.source.reader)(engine, file.source, file.path)
    table = rows.table if limit is None else rows.table.limit(limit)
    table = clean.prepare(table, cleaner.keys, cleaner.config)
    latest, newest_first = _facts(engine, rows.table)
    read = 0
    positions: list[np.ndarray] = []
    reasons: list[str] = []
    with _Chunks(scratch / f"coded-{file.number:06d}") as chunks:
        for batch in _ahead(engine.batches(table, _BATCH_ROWS)):
            cleaned = cleaner.clean(batch, file.source, file.number, latest)
            read += batch.num_rows
            positions.append(cleaned.positions)
            reasons += cleaned.reasons
            chunks.add(cleaned.events)
    for part in rows.refused:
        read += part.rows
        positions.append(np.arange(part.position, part.position + part.rows))
        reasons += [part.reason] * part.rows
    refused = quarantine(file, np.concatenate(positions) if positions else np.array([], np.int64), reasons)
    if refused.num_rows:
        pq.write_table(refused, scratch / f"quarantine-{file.number:06d}.parquet")
    stamp, content = files.stamp(file.path), files.content_hash(str(engine.local(file.path)))
    return Account(read, refused.num_rows, Counter(reasons), newest_first, stamp, content)


def _ahead(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same batches; the engine computes the next while one is cleaned."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, batches, None)
        while (batch := waiting.result()) is not None:
            waiting = pool.submit(next, batches, None)
            yield batch


def quarantine(file: RawFile, positions: np.ndarray, reasons: list[str]) -> pa.Table:
    """Rows of ``schema.QUARANTINE``, in order."""
    n = len(reasons)
    table = pa.table(
        [
            pa.array([file.source.label] * n, pa.string()),
            pa.array([remote.shown(file.path)] * n, pa.string()),
            pa.array(positions, pa.int64()),
            pa.array(reasons, pa.string()),
        ],
        schema=schema.QUARANTINE,
    )
    return table.sort_by("position")


def _facts(engine: Engine, rows: ibis.Table) -> tuple[int, bool]:
    """The latest plausible time, and whether the file is written newest first, from its first rows.

    A time is implausible after tomorrow, unless the file itself lies there (a simulation): then after a year
    past the median. Most exports are written oldest first, some newest first, which is told by what
    successive rows of one visitor mostly do.
    """
    top = rows.select("visitor_id", "ts", "position").limit(_LOOK_AT)
    top = engine.arrow(top.filter(top["ts"] >= clean.EARLIEST)).sort_by("position")
    late = int(time.time() * 1e6) + _DAY
    if top.num_rows == 0:
        return late, False
    ts = top["ts"].to_numpy()
    visitor = top["visitor_id"].combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()
    step = np.where(visitor[1:] == visitor[:-1], np.diff(ts), 0)
    return max(late, int(np.median(ts)) + 366 * _DAY), bool((step < 0).sum() > (step > 0).sum())


class _Chunks:
    """Gathers events and writes them sorted by visitor, in the background: reading goes on meanwhile."""

    def __init__(self, prefix: Path) -> None:
        self._prefix = prefix
        self._waiting: list[pa.Table] = []
        self._rows = 0
        self._number = 0
        self._pool = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def __enter__(self) -> _Chunks:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
                self._wait()
        finally:
            self._pool.shutdown()

    def add(self, events: pa.Table) -> None:
        self._waiting.append(events)
        self._rows += events.num_rows
        if self._rows >= _CHUNK_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._wait()
            path = self._prefix.with_name(f"{self._prefix.name}-{self._number:04d}.parquet")
            self._pending = self._pool.submit(write_coded, pa.concat_tables(self._waiting), path)
            self._waiting, self._rows, self._number = [], 0, self._number + 1

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()


def write_coded(events: pa.Table, path: Path) -> None:
    """Sorted by visitor, so that whoever reads a range of visitors skips the rest."""
    events = events.sort_by("visitor")
    unique = ("visitor", "event", "ts", "position")
    pq.write_table(
        events,
        path,
        row_group_size=_CHUNK_GROUP,
        compression="lz4",
        use_dictionary=[name for name in CODED.names if name not in unique],
    )


def ranges(n: int) -> Iterator[tuple[int, int]]:
    """Cut all visitor codes into ``n`` ranges of equal width: first and last of each."""
    bounds = [-(2**63) + i * 2**64 // n for i in range(n)] + [2**63]
    yield from ((first, after - 1) for first, after in pairwise(bounds))
