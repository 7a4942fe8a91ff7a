"""The engine: the one place that knows DuckDB. All the rest of the room is Ibis expressions.

How it reads raw files is in ``reading``.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
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

from clickintent.errors import DataError
from clickintent.events import reading, remote, rowgroups
from clickintent.events.decode import Published
from clickintent.events.files import file_format as file_format
from clickintent.events.files import files as files
from clickintent.events.reading import ADVICE, first_line, quoted
from clickintent.events.reading import POSITION as POSITION
from clickintent.events.reading import Refused as Refused
from clickintent.events.reading import Rows as Rows
from clickintent.events.tables import at_once


@ibis.udf.scalar.builtin  # type: ignore[untyped-decorator]
def epoch_us(ts: dt.Timestamp(timezone="UTC")) -> dt.int64:  # type: ignore[valid-type]
    """Microseconds since 1970 of a timestamp, as an exact integer."""


@dataclass
class Engine:
    """An in-memory DuckDB behind Ibis, with temporary tables that spill to ``scratch``."""

    con: Any
    scratch: Path
    salvages: bool = field(default=False, init=False)  # see ``salvaging``
    _number: Iterator[int] = field(default_factory=itertools.count, repr=False)
    _copies: dict[str, Path] = field(default_factory=dict, repr=False)  # of remote files
    _temporary: list[str] = field(default_factory=list, repr=False)

    def name(self, prefix: str) -> str:
        """A table name that was not used yet."""
        return f"{prefix}_{next(self._number)}"

    def temporary(self, rows: ir.Table | pa.Table, prefix: str = "t") -> ir.Table:
        """Compute ``rows`` once and keep them for the life of the engine, or until ``drop``."""
        name = self.name(prefix)
        self._temporary.append(name)
        return self.con.create_table(name, rows, temp=True)

    def drop(self, *tables: ir.Table) -> None:
        """Forget temporary tables."""
        for table in tables:
            self.con.drop_table(table.get_name(), force=True)

    def forget_raw(self) -> None:
        """Free what reading a raw file left behind, copies of remote files too; staged tables stay."""
        raw = self.con.con
        kinds = raw.execute(
            "SELECT 'VIEW', view_name FROM duckdb_views() WHERE temporary AND starts_with(view_name, 'raw_') "
            "UNION ALL SELECT 'TABLE', table_name FROM duckdb_tables() WHERE temporary AND "
            "starts_with(table_name, 'raw_')"
        ).fetchall()
        for kind, name in kinds:
            raw.execute(f"DROP {kind} {name}")
        self._copies.clear()
        shutil.rmtree(self.scratch / "raw", ignore_errors=True)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Temporary tables made inside are dropped at the end."""
        before = len(self._temporary)
        try:
            yield
        finally:
            for name in self._temporary[before:]:
                self.con.drop_table(name, force=True)
            del self._temporary[before:]

    def ranges(self, events: int, at_once: int) -> int:
        """Into how many ranges of visitors so many events must be cut."""
        return max(1, -(-events // at_once))

    def together(self, rows: ir.Table, column: str) -> ir.Table:  # noqa: ARG002 (Spark needs it)
        """The same rows: here all are in one place."""
        return rows

    def small(self, rows: pa.Table, name: str) -> ir.Table:
        """A table that fits into memory, to join with."""
        return self.temporary(rows, name)

    def keep(self, rows: ir.Table, folder: Path, name: str) -> ir.Table:
        """Compute ``rows`` into a Parquet file of ``folder``, and return it as a table."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.parquet"
        self.con.to_parquet(rows, path, compression="zstd")
        return self.parquet(path)

    def parquet(self, path: Path | str) -> ir.Table:
        """Parquet files of our own, one or a glob."""
        return self.con.read_parquet(str(path), table_name=self.name("own"))

    def arrow(self, rows: ir.Table) -> pa.Table:
        """Rows as an Arrow table, in memory."""
        return self.con.to_pyarrow(rows)

    def batches(self, rows: ir.Table, size: int = 20_000) -> Iterator[pa.RecordBatch]:
        """Rows as a stream of Arrow batches, in their order; nothing else may run meanwhile.

        Raises:
            duckdb.Error: if a raw file turns out to be damaged. See ``salvaging``.
        """
        # not ibis' own to_pyarrow_batches, which warns of deprecation with DuckDB 1.5
        result = self.con.con.execute(self.con.compile(rows))
        fetch = getattr(result, "to_arrow_reader", None) or result.fetch_record_batch
        reader = fetch(size)
        while True:
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
            except (OSError, pa.ArrowException) as error:
                # Arrow's stream turns the errors that DuckDB meets on the way into its own
                full = "Out of Memory" in str(error)
                raise (duckdb.OutOfMemoryException if full else duckdb.Error)(str(error)) from error
            yield batch

    def write(
        self,
        rows: ir.Table,
        folder: Path,
        name: str,
        schema: pa.Schema,
        decode: Callable[[pa.Table, Published], pa.Table],
        published: Published,
        order: Sequence[str] = (),
    ) -> None:
        """Stream ``rows``, sorted and decoded, into one Parquet file of exactly ``schema``.

        Bounded memory: one row group at a time.
        """
        rows = rows.order_by(*order) if order else rows
        folder.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(folder / f"{name}.parquet", schema, compression="zstd") as writer:
            n = at_once(schema)
            for batch in self.batches(rows, n):
                writer.write_table(decode(pa.Table.from_batches([batch]), published), row_group_size=n)

    def read(self, path: str, needed: dict[str, str] | None = None) -> Rows:
        """Read one raw file of any known format; text formats give text columns.

        What cannot be read of a damaged file is refused (see ``unpack`` for what a damaged packed file still
        yields, and ``salvaging`` for Parquet); rows that are not UTF-8 are refused, too.

        Args:
            path: Parquet, CSV (any common delimiter) or NDJSON, the latter two also packed (.gz, .zst).
            needed: column → what it is for. Text formats read only these columns.

        Raises:
            MissingColumnsError: if a needed column is not there.
            DataError: if the file is not what its name says, or is damaged beyond use.
        """
        how = {"parquet": rowgroups.parquet, "csv": reading.with_header, "ndjson": reading.ndjson}
        with self.reading(path):
            return how[file_format(path)](self, path, needed)

    def read_delimited(
        self, path: str, names: Sequence[str], *, delimiter: str = "\t", quote: str = "", pad: bool = False
    ) -> Rows:
        """Read delimited text without a header; all columns are text, null where empty.

        Args:
            quote: what may surround a field; nothing means that there is no quoting.
            pad: fill rows of too few fields with nulls instead of refusing them.

        Without quoting the table is a view: only columns that are used are cut out of the lines.

        Raises:
            DataError: if the file cannot be read.
        """
        with self.reading(path):
            return reading.delimited(self, path, names, delimiter=delimiter, quote=quote, pad=pad)

    def read_lines(self, path: str) -> Rows:
        """Read text as one column, ``line``. Empty lines are no rows.

        Raises:
            DataError: if the file cannot be read.
        """
        with self.reading(path):
            return reading.lines(self, path)

    def read_objects(self, path: str) -> Rows:
        """Read NDJSON as one column, ``json``: the objects; other lines are refused.

        Raises:
            DataError: if the file cannot be read.
        """
        with self.reading(path):
            return reading.objects(self, path)

    @contextmanager
    def reading(self, path: str) -> Iterator[None]:
        """Errors while ``path`` is read become a ``DataError`` that names the file."""
        try:
            yield
        except duckdb.OutOfMemoryException as error:
            raise DataError(
                f"{remote.shown(path)}: reading it takes more memory, or room for temporary files, than "
                "there is. Raise 'memory_limit', free space in the workspace, or cut the file in two."
            ) from error
        except (duckdb.Error, UnicodeError, EOFError, OSError, pa.ArrowException) as error:
            raise DataError(
                f"{remote.shown(path)}: cannot be read: {first_line(error)}. {ADVICE}."
            ) from error

    def local(self, path: str) -> Path:
        """A raw file on this machine: itself, or a copy of a remote one that stays until ``forget_raw``.

        Raises:
            DataError: if a remote file cannot be read to its end.
            MissingDependencyError: if the package for a remote place is not installed.
        """
        if not remote.is_remote(path):
            return Path(remote.without_file_scheme(path))
        if path not in self._copies:
            self._copies[path] = remote.download(path, self.raw_folder(), next(self._number))
        return self._copies[path]

    def raw_folder(self) -> Path:
        """A new folder for what reading a raw file needs; it is gone after ``forget_raw``."""
        folder = self.scratch / "raw" / str(next(self._number))
        folder.mkdir(parents=True)
        return folder

    @contextmanager
    def salvaging(self) -> Iterator[None]:
        """Inside, ``read`` takes from a Parquet file the row groups that can be read, and refuses the others.

        Text needs no such thing: it is loaded by ``read`` itself, which refuses what is damaged. A Parquet
        file is only looked at when its rows are used, so that damage shows late, as ``duckdb.Error``; then
        drop what came of it, and read again inside::

            try:
                use(reader(engine, source, path))
            except duckdb.Error:
                with engine.salvaging(), engine.reading(path):
                    use(reader(engine, source, path))
            finally:
                engine.forget_raw()

        DuckDB does not verify the checksums that pages of Parquet may have. Salvaging does, but costs a copy
        of the file.
        """
        before, self.salvages = self.salvages, True
        try:
            yield
        finally:
            self.salvages = before


@contextmanager
def open_engine(
    scratch: Path, *, memory_limit: str = "1500MB", threads: int | None = None
) -> Iterator[Engine]:
    """Open an engine whose data outgrow ``memory_limit`` into the folder ``scratch``."""
    con = ibis.duckdb.connect(":memory:")
    raw = con.con
    scratch.mkdir(parents=True, exist_ok=True)
    raw.execute(f"SET memory_limit = '{memory_limit}'")
    raw.execute(f"SET temp_directory = {quoted(scratch / 'spill')}")
    raw.execute("SET TimeZone = 'UTC'")
    raw.execute("SET enable_progress_bar = false")
    if threads:
        raw.execute(f"SET threads = {int(threads)}")
    try:
        yield Engine(con, scratch)
    finally:
        con.disconnect()
