"""Where training sessions come from: a table in memory, or Parquet files that need not fit into it.

Either way they come in *pieces* of at most some ten thousand rows that can be loaded in any order: slices of
a table, or parts of row groups. Only the columns that the encoder needs are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from clickintent.encoder.tables import EVENT_FIELDS, check_columns, texts, times, trainable
from clickintent.errors import DataError, EmptyInputError

#: Rows in a piece. A row group of up to twice as many is one piece: to reach the middle of one, all before it
#: is decoded.
PIECE_ROWS = 16_384
_BATCH_ROWS = 4096
_REQUIRED = ("start", "events")
_VISITOR = "visitor_id"

#: What can be trained on.
Sessions: TypeAlias = pa.Table | str | Path | ds.Dataset


class Source(Protocol):
    """Sessions in pieces, numbered from 0."""

    @property
    def rows(self) -> list[int]:
        """How many rows each piece has before it is filtered."""

    def load(self, piece: int, *, times_only: bool = False) -> pa.Table:
        """The sessions of a piece which pass the filter and have an event, in their order: see ``trainable``.

        Args:
            times_only: of an event, only ``ts``.

        Raises:
            DataError: if a file cannot be read, or a column is missing or cannot be used.
        """


def open_source(sessions: Sessions, keep: pc.Expression | None = None, *, parts: int = 1) -> Source:
    """Sessions of a table, of a Parquet file or a folder of them, or of a dataset of Parquet files.

    Args:
        keep: which sessions; all if not given.
        parts: there are at least so many pieces, if there are so many sessions.

    Raises:
        DataError: if a file cannot be read, or a column is missing.
        EmptyInputError: if there is no Parquet file.
    """
    if isinstance(sessions, pa.Table):
        return TableSource(sessions, keep, parts)
    return ParquetSource(sessions, keep, parts)


class TableSource:
    """Slices of a table; a visitor's sessions are brought next to each other, in the order of time."""

    def __init__(self, table: pa.Table, keep: pc.Expression | None, parts: int) -> None:
        check_columns("sessions", _REQUIRED, table.column_names)
        table = filtered(table, keep)
        if _VISITOR in table.column_names:
            start, visitor = times(table["start"], "'start'"), table[_VISITOR]
            if pa.types.is_dictionary(visitor.type):
                visitor = texts(visitor, f"{_VISITOR!r}")
            keys = pa.table({_VISITOR: visitor, "start": start})
            order = pc.sort_indices(keys, [(_VISITOR, "ascending"), ("start", "ascending")]).to_numpy()
            if (np.diff(order.astype(np.int64)) < 0).any():
                table = table.take(pa.array(order))
        size = _piece_rows(table.num_rows, parts)
        self._table = table
        self._size = size
        self.rows = [min(size, table.num_rows - at) for at in range(0, table.num_rows, size)]

    def load(self, piece: int, *, times_only: bool = False) -> pa.Table:
        return trainable(self._table.slice(piece * self._size, self._size), "sessions", _fields(times_only))


@dataclass(frozen=True)
class _Part:
    """Rows ``begin:end`` of one row group of one file."""

    file: int
    group: int
    begin: int
    end: int


@dataclass(frozen=True)
class _File:
    path: str
    metadata: pq.FileMetaData
    keys: dict[str, Any]  # columns that stand in the path, as those of Hive do


class ParquetSource:
    """Parts of row groups of Parquet files, the files in the order of their paths."""

    def __init__(self, source: str | Path | ds.Dataset, keep: pc.Expression | None, parts: int) -> None:
        if not isinstance(source, ds.Dataset):
            with reading(source):
                source = ds.dataset(source, format="parquet")
        fragments = sorted(_fragments(source), key=lambda fragment: str(fragment.path))
        if not fragments:
            raise EmptyInputError(
                "there is no Parquet file to train on. Give a file or a folder of sessions."
            )
        self._keep = keep
        self._filesystem = fragments[0].filesystem
        self._files = []
        for fragment in fragments:
            with reading(fragment.path):
                keys = ds.get_partition_keys(fragment.partition_expression)
                self._files.append(_File(fragment.path, fragment.metadata, keys))
                names = [*fragment.metadata.schema.to_arrow_schema().names, *keys]
            check_columns(fragment.path, _REQUIRED, names)
        size = _piece_rows(sum(file.metadata.num_rows for file in self._files), parts)
        self._parts = [part for number in range(len(self._files)) for part in self._split(number, size)]
        self.rows = [part.end - part.begin for part in self._parts]

    def _split(self, number: int, size: int) -> Iterator[_Part]:
        metadata = self._files[number].metadata
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            parts = max(rows // size, 1)
            cuts = [rows * i // parts for i in range(parts + 1)]
            yield from (_Part(number, group, cuts[i], cuts[i + 1]) for i in range(parts))

    def load(self, piece: int, *, times_only: bool = False) -> pa.Table:
        part = self._parts[piece]
        file = self._files[part.file]
        with (
            reading(file.path),
            self._filesystem.open_input_file(file.path) as opened,
            pq.ParquetFile(opened, metadata=file.metadata) as parquet,
        ):
            columns = _columns(parquet, self._keep, times_only)
            batches = []
            at = 0
            for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=[part.group], columns=columns):
                taken = batch.slice(max(part.begin - at, 0), max(part.end - max(at, part.begin), 0))
                at += batch.num_rows
                if taken.num_rows:
                    batches.append(taken)
                if at >= part.end:
                    break
            table = pa.Table.from_batches(batches, None if batches else parquet.schema_arrow)
        for name, value in file.keys.items():
            if name not in table.column_names:
                table = table.append_column(name, pa.repeat(pa.scalar(value), table.num_rows))
        return trainable(filtered(table, self._keep), file.path, _fields(times_only))


def filtered(table: pa.Table, keep: pc.Expression | None) -> pa.Table:
    """The rows that pass; all without a filter.

    Raises:
        DataError: if the filter cannot be applied, e.g. because it is about a column that is not there.
    """
    if keep is None:
        return table
    try:
        return table.filter(keep)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"the filter {keep} cannot be applied: {error}") from error


def columns_of(expression: pc.Expression, columns: pa.Schema) -> list[str]:
    """The columns that an expression is about: those without which it cannot be evaluated."""
    table = columns.empty_table()
    used = []
    for name in columns.names:
        with suppress(pa.ArrowInvalid):
            table.drop_columns([name]).filter(expression)
            continue
        used.append(name)
    return used


def _piece_rows(total: int, parts: int) -> int:
    return max(min(PIECE_ROWS, -(-total // max(parts, 1))), 1)


def _fields(times_only: bool) -> tuple[str, ...]:
    """The fields of an event to read."""
    return ("ts",) if times_only else EVENT_FIELDS


def _columns(file: pq.ParquetFile, keep: pc.Expression | None, times_only: bool) -> list[str]:
    """Paths of the leaf columns to read."""
    arrow = file.schema_arrow
    flat = {"start", _VISITOR}
    if keep is not None:
        flat.update(name for name in columns_of(keep, arrow) if name != "events")
    fields = _fields(times_only)
    leaves = [file.schema.column(i).path for i in range(len(file.schema))]
    return [
        leaf
        for leaf in leaves
        if leaf.split(".")[0] in flat or (leaf.startswith("events.") and leaf.split(".")[-1] in fields)
    ]


def _fragments(dataset: ds.Dataset) -> list[ds.ParquetFileFragment]:
    try:
        fragments = list(dataset.get_fragments())
    except ValueError as error:  # of a dataset with a filter
        raise DataError(f"{error} Give the filter to fit: fit(dataset, filter=…).") from error
    for fragment in fragments:
        if not isinstance(fragment, ds.ParquetFileFragment):
            raise DataError("the dataset does not consist of Parquet files. Give such a one, or a table.")
    return fragments


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"{path}: not readable as Parquet ({error}). Give a file or a folder of sessions."
        ) from error
