"""What a reader is: one raw file in, one table of raw fields out, a row for every raw row.

A reader names and types; it judges nothing. ``clickintent.events.canonical`` checks and cleans for all.
"""

from __future__ import annotations

from typing import Any, Protocol

import ibis
import ibis.expr.types as ir

from clickintent.config import SourceConfig
from clickintent.errors import MissingColumnsError
from clickintent.events.engine import Engine, Rows

#: The columns of a staged table, in order. ``ts`` is µs since 1970 UTC, null where it could not be
#: understood, and then ``ts_given`` says whether there was anything. ``page`` or ``url`` says where.
STAGED: dict[str, str] = {
    "position": "int64",
    "event_id": "string",
    "visitor_id": "string",
    "account_id": "string",
    "ts": "int64",
    "ts_given": "boolean",
    "event_type": "string",
    "url": "string",
    "page": "string",
    "title": "string",
    "text": "string",
    "referrer": "string",
    "campaign": "string",
    "device": "string",
    "country": "string",
    "value": "float64",
    "session_key": "string",
}


class Reader(Protocol):
    """Turns one raw file into a staged table."""

    def __call__(self, engine: Engine, source: SourceConfig, path: str, /) -> Rows:
        """Stage the file at ``path``: a table of exactly the columns ``STAGED``.

        Raises:
            MissingColumnsError: if the file lacks columns that the format must have.
            DataError: if the file cannot be read.
        """
        ...


def staged(**columns: Any) -> list[ir.Value]:
    """The columns of a staged table, typed and in order; those not given are null."""
    return [
        (columns[name] if columns.get(name) is not None else ibis.null()).cast(kind).name(name)
        for name, kind in STAGED.items()
    ]


def need(path: str, table: ir.Table, columns: tuple[str, ...]) -> None:
    """Raise ``MissingColumnsError`` unless the table has the columns."""
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise MissingColumnsError(path, missing, [c for c in table.columns if not c.startswith("_")])


def dig(row: Any, path: str, kind: str = "string") -> ir.Value:
    """A nested field such as ``device.category`` of a table, struct or None; null where exports lack it."""
    for name in path.split("."):
        if isinstance(row, ir.Table):
            row = row[name] if name in row.columns else None
        elif isinstance(row, ir.StructValue):
            row = row[name] if name in row.names else None
        else:
            row = None
    return ibis.null(kind) if row is None else row.cast(kind)


def number(value: ir.Value) -> ir.FloatingValue:
    """A float64, null where it is none or not finite."""
    result = value.try_cast("float64") if isinstance(value, ir.StringValue) else value.cast("float64")
    return ibis.ifelse(result.isnan() | result.isinf(), ibis.null("float64"), result)
