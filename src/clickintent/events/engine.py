"""The engine: the one place that knows DuckDB. All the rest of the room is Ibis expressions.

Files are read here too, because every engine reads files in its own way.
"""

from __future__ import annotations

import csv
import glob
import gzip
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from clickintent.errors import DataError, MissingColumnsError

#: Name of the row number that the readers of this module add, from 0.
POSITION = "_position"

_FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
}


@ibis.udf.scalar.builtin  # type: ignore[untyped-decorator]
def epoch_us(ts: dt.Timestamp(timezone="UTC")) -> dt.int64:  # type: ignore[valid-type]
    """Microseconds since 1970 of a timestamp, as an exact integer."""


@dataclass(frozen=True)
class Rows:
    """What a file holds: its readable rows, with ``POSITION``, and the row numbers of those that are not."""

    table: ir.Table
    malformed: tuple[int, ...] = ()


@dataclass
class Engine:
    """An in-memory DuckDB behind Ibis, with temporary tables that spill to ``scratch``."""

    con: Any
    scratch: Path
    _number: Iterator[int] = field(default_factory=itertools.count, repr=False)

    def name(self, prefix: str) -> str:
        """A table name that was not used yet."""
        return f"{prefix}_{next(self._number)}"

    def temporary(self, rows: ir.Table | pa.Table, prefix: str = "t") -> ir.Table:
        """Compute ``rows`` once and keep them for the life of the engine, or until ``drop``."""
        return self.con.create_table(self.name(prefix), rows, temp=True)

    def drop(self, *tables: ir.Table) -> None:
        """Forget temporary tables."""
        for table in tables:
            self.con.drop_table(table.get_name(), force=True)

    def forget_raw(self) -> None:
        """Free what reading a raw file left behind; staged tables stay."""
        raw = self.con.con
        kinds = raw.execute(
            "SELECT 'VIEW', view_name FROM duckdb_views() WHERE temporary AND starts_with(view_name, 'raw_') "
            "UNION ALL SELECT 'TABLE', table_name FROM duckdb_tables() WHERE temporary AND "
            "starts_with(table_name, 'raw_')"
        ).fetchall()
        for kind, name in kinds:
            raw.execute(f"DROP {kind} {name}")

    def spill(self, rows: ir.Table, name: str) -> ir.Table:
        """Compute ``rows`` into a Parquet file of the scratch folder, and return it as a table."""
        path = self.scratch / f"{name}.parquet"
        self.con.to_parquet(rows, path, compression="snappy")
        return self.parquet(path)

    def parquet(self, path: Path | str) -> ir.Table:
        """Parquet files of our own, one or a glob."""
        return self.con.read_parquet(str(path), table_name=self.name("own"))

    def arrow(self, rows: ir.Table) -> pa.Table:
        """Rows as an Arrow table, in memory."""
        return self.con.to_pyarrow(rows)

    def batches(self, rows: ir.Table, size: int = 20_000) -> Iterator[pa.RecordBatch]:
        """Rows as a stream of Arrow batches, in their order; nothing else may run meanwhile."""
        # not ibis' own to_pyarrow_batches, which warns of deprecation with DuckDB 1.5
        result = self.con.con.execute(self.con.compile(rows))
        fetch = getattr(result, "to_arrow_reader", None) or result.fetch_record_batch
        yield from fetch(size)

    def write(self, rows: ir.Table, path: Path, schema: pa.Schema, row_group_size: int = 20_000) -> int:
        """Stream ``rows`` into one Parquet file of exactly ``schema``; returns how many there were.

        Bounded memory: one row group at a time.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        n = 0
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for batch in self.batches(rows.select(*schema.names), row_group_size):
                table = pa.Table.from_batches([batch])
                columns = [_as(table[f.name].combine_chunks(), f.type) for f in schema]
                writer.write_table(pa.table(columns, schema=schema), row_group_size=row_group_size)
                n += batch.num_rows
        return n

    def read(self, path: Path, needed: dict[str, str] | None = None) -> Rows:
        """Read one raw file of any known format; text formats give text columns.

        Args:
            path: Parquet, CSV (any common delimiter) or NDJSON, the latter two also gzipped.
            needed: column → what it is for. Text formats read only these columns.

        Raises:
            MissingColumnsError: if a needed column is not there.
            DataError: if the file is not what its name says, or is damaged.
        """
        try:
            rows: Rows = getattr(self, f"_{file_format(path)}")(path, needed)
        except (duckdb.Error, UnicodeDecodeError, EOFError, OSError, csv.Error) as error:
            raise DataError(f"{path}: cannot be read: {_first_line(error)}. {_ADVICE}") from error
        return rows

    @contextmanager
    def reading(self, path: Path) -> Iterator[None]:
        """Errors of the engine while it reads ``path`` become a ``DataError`` that names the file."""
        try:
            yield
        except duckdb.Error as error:
            raise DataError(f"{path}: cannot be read: {_first_line(error)}. {_ADVICE}") from error

    def _parquet(self, path: Path, needed: dict[str, str] | None) -> Rows:
        raw = self.con.con
        name = self.name("raw")
        with path.open("rb") as file:
            if file.read(4) not in (b"PAR1", b"PARE"):
                raise DataError(f"{path}: is not a Parquet file. {_ADVICE}")
        # binary_as_string: old writers (Hive, Impala) leave strings unmarked
        raw.execute(
            f"CREATE TEMP VIEW {name} AS SELECT * EXCLUDE (file_row_number), file_row_number AS {POSITION} "
            f"FROM read_parquet({_quoted(path)}, file_row_number = true, binary_as_string = true)"
        )
        table = self.con.table(name)
        _check(path, needed, [c for c in table.columns if c != POSITION])
        return Rows(table)

    def _csv(self, path: Path, needed: dict[str, str] | None) -> Rows:
        first = _header(path)
        if not first.strip():
            raise DataError(f"{path}: is empty, it has not even a header line.")
        delimiter = max(",\t;|", key=first.count)
        header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter))]
        if len(set(header)) < len(header):
            twice = sorted({name for name in header if header.count(name) > 1})
            raise DataError(f"{path}: the header names {', '.join(map(repr, twice))} more than once.")
        _check(path, needed, header)
        columns = "{" + ", ".join(f"{_quoted(name)}: 'VARCHAR'" for name in header) + "}"
        rejects, scans, name = self.name("rejects"), self.name("scans"), self.name("raw")
        keep = ", ".join(_identifier(column) for column in (needed or header))
        # strict, with nothing left to guess: a row that does not fit is refused, not repaired
        self.con.con.execute(
            f"CREATE TEMP TABLE {name} AS "
            f"SELECT {keep}, row_number() OVER () - 1 AS {POSITION} FROM read_csv("
            f"{_quoted(path)}, columns = {columns}, auto_detect = false, header = true, quote = '\"', "
            f"escape = '\"', delim = {_quoted(delimiter)}, nullstr = '', strict_mode = true, "
            f"store_rejects = true, rejects_table = '{rejects}', rejects_scan = '{scans}')"
        )
        lines = self.con.con.execute(f"SELECT DISTINCT line FROM {rejects} ORDER BY line").fetchall()
        self.con.con.execute(f"DROP TABLE {rejects}; DROP TABLE {scans}")
        malformed = tuple(int(line) - 2 for (line,) in lines)  # line 1 is the header
        table = self.con.table(name)
        if malformed:
            # the number of a readable row counts the unreadable ones before it
            shift = pa.table(
                {
                    "_from": pa.array([at - i for i, at in enumerate(malformed)], pa.int64()),
                    "_shift": pa.array(range(1, len(malformed) + 1), pa.int64()),
                }
            )
            steps = self.temporary(ibis.memtable(shift).group_by("_from").agg(_shift=ibis._["_shift"].max()))
            table = table.asof_join(steps, table[POSITION] >= steps["_from"])
            table = table.mutate(**{POSITION: table[POSITION] + table["_shift"].coalesce(0)})
            table = table.drop("_from", "_shift")
        return Rows(table, malformed)

    def _ndjson(self, path: Path, needed: dict[str, str] | None) -> Rows:
        raw = self.con.con
        objects = f"read_ndjson_objects({_quoted(path)}, ignore_errors = true)"
        keys = raw.execute(
            f"SELECT DISTINCT unnest(json_keys(json)) FROM {objects} WHERE json_type(json) = 'OBJECT'"
        ).fetchall()
        found = sorted(key for (key,) in keys)
        if not found:
            raise DataError(f"{path}: holds no JSON object, one in a line is expected. {_ADVICE}")
        _check(path, needed, found)
        wanted = list(needed or found)
        columns = ", ".join(f"json ->> {_quoted(_json_key(c))} AS {_identifier(c)}" for c in wanted)
        name = self.name("raw")
        raw.execute(
            f"CREATE TEMP TABLE {name} AS SELECT {columns}, row_number() OVER () - 1 AS {POSITION}, "
            f"json IS NULL OR json_type(json) <> 'OBJECT' AS _malformed FROM {objects}"
        )
        rows = raw.execute(f"SELECT {POSITION} FROM {name} WHERE _malformed ORDER BY 1").fetchall()
        table = self.con.table(name)
        return Rows(table.filter(~table["_malformed"]).drop("_malformed"), tuple(at for (at,) in rows))


_ADVICE = (
    "Check that the file is complete and of the format that its name says (.parquet, .csv, .tsv, .ndjson)"
)


@contextmanager
def open_engine(
    scratch: Path, *, memory_limit: str = "1500MB", threads: int | None = None
) -> Iterator[Engine]:
    """Open an engine whose data outgrow ``memory_limit`` into the folder ``scratch``."""
    con = ibis.duckdb.connect(":memory:")
    raw = con.con
    scratch.mkdir(parents=True, exist_ok=True)
    raw.execute(f"SET memory_limit = '{memory_limit}'")
    raw.execute(f"SET temp_directory = {_quoted(scratch / 'spill')}")
    raw.execute("SET TimeZone = 'UTC'")
    raw.execute("SET enable_progress_bar = false")
    if threads:
        raw.execute(f"SET threads = {int(threads)}")
    try:
        yield Engine(con, scratch)
    finally:
        con.disconnect()


def files(path: Path) -> list[Path]:
    """The files that a path or glob means, sorted by name.

    Raises:
        DataError: if there is none.
    """
    text = str(path)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and _suffix(p) in _FORMATS)
        if not found:
            raise DataError(f"{path}: the folder holds no Parquet, CSV or NDJSON file.")
        return found
    if glob.has_magic(text):
        found = sorted(Path(p) for p in glob.glob(text, recursive=True) if os.path.isfile(p))  # noqa: PTH113, PTH207
        if not found:
            raise DataError(f"{path}: no file matches. Correct 'path' under [[sources]].")
        return found
    raise DataError(f"{path}: no such file. Correct 'path' under [[sources]].")


def file_format(path: Path) -> str:
    """``parquet``, ``csv`` or ``ndjson``, by the name of the file.

    Raises:
        DataError: if the name says nothing known.
    """
    try:
        return _FORMATS[_suffix(path)]
    except KeyError:
        raise DataError(
            f"{path}: unknown kind of file. Name it .parquet, .csv, .tsv or .ndjson (the text ones also .gz)."
        ) from None


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def _check(path: Path, needed: dict[str, str] | None, found: list[str]) -> None:
    missing = [column for column in needed or () if column not in found]
    if missing:
        raise MissingColumnsError(str(path), missing, found)


def _header(path: Path) -> str:
    """The first line of a text file, gzipped or not."""
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    with opener(path, "rb") as file:
        line: bytes = file.readline()
    return line.decode("utf-8-sig")


def _quoted(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _json_key(name: str) -> str:
    return '$."' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _first_line(error: BaseException) -> str:
    # the first line alone: what follows may quote the file's content
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")


def _as(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cast, also where the names or nullability of nested fields differ."""
    if column.type == kind:
        return column
    if pa.types.is_list(kind):
        if column.null_count or column.offset:
            column = pa.concat_arrays([column])
        return pa.ListArray.from_arrays(column.offsets, _as(column.values, kind.value_type), type=kind)
    if pa.types.is_struct(kind):
        fields = [_as(column.field(f.name), f.type) for f in kind]
        return pa.StructArray.from_arrays(fields, fields=list(kind))
    return column.cast(kind)
