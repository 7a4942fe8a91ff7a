"""Raw Parquet files into DuckDB, and the row groups that are left of damaged ones."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from clickintent.errors import DataError
from clickintent.events.lines import NOT_UTF8, POSITION, Tally
from clickintent.events.reading import ADVICE, Rows, check, quoted
from clickintent.events.remote import shown

if TYPE_CHECKING:
    from clickintent.events.engine import Engine

UNREADABLE = "unreadable row group"

_MAGIC = (b"PAR1", b"PARE")
_BATCH = 20_000
_BROKEN = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)


def parquet(engine: Engine, path: str, needed: dict[str, str] | None) -> Rows:
    """A view of the file; if the engine is salvaging, a copy of what is readable. See ``Engine.read``."""
    local = engine.local(path)
    with local.open("rb") as file:
        start = file.read(4)
        file.seek(max(0, local.stat().st_size - 4))
        end = file.read(4)
    if start not in _MAGIC:
        raise DataError(f"{shown(path)}: is not a Parquet file. {ADVICE}.")
    if end not in _MAGIC:
        raise DataError(
            f"{shown(path)}: is cut short: its end is missing, which says what is where in a Parquet file. "
            "Copy or export it again."
        )
    if not engine.salvages:
        table = _view(engine, [local], "file_row_number")
        check(path, needed, [c for c in table.columns if c != POSITION])
        return Rows(table)
    tally = Tally()
    try:
        parts = list(_salvaged(local, needed, tally, engine.raw_folder()))
    except _BROKEN as error:
        raise DataError(f"{shown(path)}: cannot be read: {type(error).__name__}. {ADVICE}.") from error
    table = _view(engine, parts, POSITION)
    check(path, needed, [c for c in table.columns if c != POSITION])
    return Rows(table, tally.refused())


def _view(engine: Engine, paths: Sequence[Path], position: str) -> ir.Table:
    name = engine.name("raw")
    places = ", ".join(quoted(glob.escape(str(path))) for path in paths)
    number = ", file_row_number = true" if position != POSITION else ""
    # binary_as_string: old writers (Hive, Impala) leave strings unmarked
    engine.con.con.execute(
        f"CREATE TEMP VIEW {name} AS SELECT * EXCLUDE ({position}), {position} AS {POSITION} "
        f"FROM read_parquet([{places}]{number}, binary_as_string = true)"
    )
    return engine.con.table(name)


def _salvaged(path: Path, needed: dict[str, str] | None, tally: Tally, folder: Path) -> Iterator[Path]:
    """Copy every row group that can be read to its end into a file of its own, with ``POSITION``.

    A first file without rows has the columns. Checksums of pages are verified where there are any.
    """
    file = pq.ParquetFile(path, page_checksum_verification=True)
    names = file.schema_arrow.names
    # the names of pyarrow are paths: a dot in one would be taken for a nested field
    some = needed and set(needed) <= set(names) and not any("." in name for name in names)
    columns = list(needed) if needed and some else None
    schema = (
        file.schema_arrow if columns is None else pa.schema([file.schema_arrow.field(c) for c in columns])
    )
    schema = schema.remove_metadata().append(pa.field(POSITION, pa.int64()))
    empty = folder / "none.parquet"
    pq.write_table(schema.empty_table(), empty)
    yield empty
    for number in range(file.num_row_groups):
        expected = file.metadata.row_group(number).num_rows
        part = folder / f"{number}.parquet"
        here = Tally(tally.rows)
        try:
            with pq.ParquetWriter(part, schema, compression="lz4") as writer:
                for batch in file.iter_batches(_BATCH, row_groups=[number], columns=columns):
                    writer.write_batch(_readable(batch, schema, here))
        except _BROKEN:
            part.unlink(missing_ok=True)
            here.rows = -1
        if here.rows != tally.rows + expected:
            part.unlink(missing_ok=True)
            tally.refuse(tally.rows, UNREADABLE, expected)
        else:
            for one in here.refused():
                tally.refuse(one.position, one.reason, one.rows)
            yield part
        tally.rows += expected


def _readable(batch: pa.RecordBatch, schema: pa.Schema, tally: Tally) -> pa.RecordBatch:
    """The rows whose text is UTF-8, with ``POSITION``; DuckDB reads none of a file with others."""
    positions = range(tally.rows, tally.rows + batch.num_rows)
    bad = list(_not_utf8(batch, 0))
    for at in bad:
        tally.refuse(tally.rows + at, NOT_UTF8)
    tally.rows += batch.num_rows
    columns = {name: batch.column(name) for name in schema.names[:-1]}
    whole = pa.record_batch([*columns.values(), pa.array(positions, pa.int64())], schema=schema)
    return whole.take(pa.array(sorted(set(range(batch.num_rows)) - set(bad)), pa.int64())) if bad else whole


def _not_utf8(batch: pa.RecordBatch, start: int) -> Iterator[int]:
    """The numbers of the rows whose text is not UTF-8, found by halving."""
    if _sound(batch):
        return
    if batch.num_rows == 1:
        yield start
        return
    half = batch.num_rows // 2
    for low, high in ((0, half), (half, batch.num_rows)):
        # take, not slice: validation looks at all that the buffers hold
        yield from _not_utf8(batch.take(pa.array(range(low, high), pa.int64())), start + low)


def _sound(batch: pa.RecordBatch) -> bool:
    try:
        batch.validate(full=True)
        for column in batch.columns:
            if pa.types.is_binary(column.type):
                column.cast(pa.string())
    except pa.ArrowException:
        return False
    return True
