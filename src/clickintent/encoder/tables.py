"""Sessions as callers have them → columns of the types that the encoder computes with, or a clear error.

Tables come from Parquet files of many writers, pandas, or plain Python: strings of any Arrow type, times as
numbers or as timestamps of any unit, columns that are null throughout.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickintent.errors import DataError, MissingColumnsError

#: Of an event, what the model reads, and as what.
EVENT_TYPES = {
    "ts": pa.int64(),
    "event_type": pa.string(),
    "page": pa.string(),
    "title": pa.string(),
    "text": pa.string(),
    "dwell_s": pa.float64(),
    "gap_s": pa.float64(),
}
EVENT_FIELDS = tuple(EVENT_TYPES)

_WHAT_TO_DO = "Give sessions as clickintent.schema.SESSIONS has them."


def check_columns(where: str, wanted: Iterable[str], found: Iterable[str]) -> None:
    """Raises MissingColumnsError."""
    found = list(found)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise MissingColumnsError(where, missing, found, _WHAT_TO_DO)


def times(column: pa.Array | pa.ChunkedArray, name: str) -> pa.Array | pa.ChunkedArray:
    """int64 µs since 1970 UTC, of whole numbers (which are µs) or of timestamps.

    Raises:
        DataError: if they are neither, or one is null.
    """
    if column.null_count:
        raise DataError(f"{name} is null in {column.null_count:,} rows. {_WHAT_TO_DO}")
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or not len(column)):
        raise DataError(
            f"{name} is of type {column.type}; whole µs since 1970 UTC are needed, or timestamps."
        )
    return _cast(column, pa.int64(), name)


def texts(column: pa.Array | pa.ChunkedArray, name: str) -> pa.Array | pa.ChunkedArray:
    """Strings, of any type that holds strings or nothing.

    Raises:
        DataError: if it is of another type.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not _is_text(kind):
        raise DataError(f"{name} is of type {column.type}; strings are needed. {_WHAT_TO_DO}")
    return _cast(column, pa.string(), name)


def _is_text(kind: pa.DataType) -> bool:
    of = pa.types
    return any(is_one(kind) for is_one in (of.is_string, of.is_large_string, of.is_string_view, of.is_null))


def _cast(column: pa.Array | pa.ChunkedArray, kind: pa.DataType, name: str) -> pa.Array | pa.ChunkedArray:
    if column.type == kind:
        return column
    try:
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{name} is of type {column.type} and cannot be read as {kind}: {error}.") from error


def event_columns(
    lists: pa.Array, where: str, names: Sequence[str] = EVENT_FIELDS, taken: pa.Array | None = None
) -> dict[str, pa.Array]:
    """The fields of the events in lists, one session after the other.

    Args:
        names: which.
        taken: only the events at these places.

    Raises:
        MissingColumnsError: if a field is missing.
        DataError: if one is of a type that cannot be used, or a ``ts`` is null.
    """
    events = lists.flatten()
    check_columns(f"{where}, events", names, events.type.names)
    columns = dict(zip(events.type.names, events.flatten(), strict=True))
    found = {}
    for name in names:
        kind, said = EVENT_TYPES[name], f"{where}, events: {name!r}"
        if name == "ts":
            found[name] = times(columns[name], said)
        elif kind == pa.string():
            found[name] = texts(columns[name], said)
        else:
            found[name] = _cast(columns[name], kind, said)
        if taken is not None:
            found[name] = found[name].take(taken)
    return found


def list_lengths(sessions: pa.Table, where: str) -> tuple[pa.Array, np.ndarray]:
    """The column ``events`` in one piece, and how many events each session has.

    Raises:
        MissingColumnsError: if there is no such column.
        DataError: if it does not hold lists of structs.
    """
    check_columns(where, ["events"], sessions.column_names)
    lists = sessions["events"].combine_chunks()
    kind = lists.type
    if not (_is_list(kind) and pa.types.is_struct(kind.value_type)):
        raise DataError(f"{where}: 'events' is of type {kind}; lists of structs are needed. {_WHAT_TO_DO}")
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return lists, lengths.astype(np.int64)


def _is_list(kind: pa.DataType) -> bool:
    of = pa.types
    kinds = (of.is_list, of.is_large_list, of.is_fixed_size_list, of.is_list_view, of.is_large_list_view)
    return any(is_one(kind) for is_one in kinds)


def trainable(sessions: pa.Table, where: str, names: Sequence[str] = EVENT_FIELDS) -> pa.Table:
    """Those with an event: ``start`` (int64), ``visitor_id`` (string; null if not given) and ``events``.

    Args:
        names: fields of the events to keep.

    Raises:
        MissingColumnsError: if another column, or a field, is missing.
        DataError: if a column is of a type that cannot be used, or a time is null.
    """
    check_columns(where, ("start", "events"), sessions.column_names)
    lists, lengths = list_lengths(sessions, where)
    some = lengths > 0
    if not some.all():
        return trainable(sessions.filter(pa.array(some)), where, names)
    columns = event_columns(lists, where, names)
    structs = pa.StructArray.from_arrays(list(columns.values()), names=list(columns))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
    visitor = pa.nulls(sessions.num_rows, pa.string())
    if "visitor_id" in sessions.column_names:
        given = sessions["visitor_id"]
        number = pa.types.is_integer(given.type)
        visitor = given.cast(pa.string()) if number else texts(given, f"{where}: 'visitor_id'")
    return pa.table(
        {
            "start": times(sessions["start"], f"{where}: 'start'"),
            "visitor_id": visitor,
            "events": pa.LargeListArray.from_arrays(offsets, structs),
        }
    )
