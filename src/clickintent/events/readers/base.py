"""What a reader is: one raw file in, one table of raw fields out, a row for every raw row.

A reader names and types; it judges nothing. ``clickintent.events.clean`` checks and cleans for all.
"""

from __future__ import annotations

from typing import Any, Protocol

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from clickintent.config import SourceConfig
from clickintent.errors import MissingColumnsError
from clickintent.events.engine import Engine, Rows, epoch_us

#: The columns of a staged table, in order. ``ts`` is µs since 1970 UTC, null where it could not be
#: understood, and then ``ts_given`` says whether there was anything. ``page`` or ``url`` says where.
#: ``user_agent`` only serves to flag declared robots. ``consent`` is what the source writes. ``excluded``
#: says why the source itself holds this row for no event of a visitor: a fixed text, never content of the
#: row. ``assets`` is how many style sheets, scripts, images and fonts the visitor requested in this file,
#: null where the source cannot know.
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
    "user_agent": "string",
    "consent": "string",
    "excluded": "string",
    "assets": "int64",
}

#: The page of an event that says no page: kept, because it ties a visitor to an account or is an action.
NO_PAGE = "(no page)"

_UNITS = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0}
_NUMBER = r"^\s*[+-]?\d+(\.\d*)?([eE][+-]?\d+)?\s*$"


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


def microseconds(value: ir.Value, unit: str = "auto") -> ir.IntegerValue:
    """Time as int64 µs since 1970 UTC, null where it cannot be understood.

    Timestamps, dates, numbers (unit given, or told by their size), or text of either. UTC if without zone.
    """
    if isinstance(value, ir.TimestampValue | ir.DateValue):
        return epoch_us(value.cast("timestamp('UTC')"))
    if isinstance(value, ir.StringValue):
        numeric = value.re_search(_NUMBER)
        as_number = _scaled(ibis.ifelse(numeric, value, ibis.null("string")).try_cast("float64"), unit)
        as_time = epoch_us(ibis.ifelse(numeric, ibis.null("string"), value).try_cast("timestamp('UTC')"))
        return ibis.ifelse(numeric, as_number, as_time)
    if isinstance(value, ir.IntegerValue) and unit == "us":
        return value.cast("int64")
    return _scaled(value.cast("float64"), unit)


def _scaled(value: ir.FloatingValue, unit: str) -> ir.IntegerValue:
    if unit == "auto":
        # from 1973 to 5138 the sizes of s, ms, µs and ns do not overlap
        size = value.abs()
        factor = ibis.cases((size < 1e11, 1e6), (size < 1e14, 1e3), (size < 1e17, 1.0), else_=1e-3)
        micros = value * factor
    else:
        micros = value * _UNITS[unit]
    return ibis.ifelse(micros.abs() < 9e18, micros, ibis.null("float64")).round().cast("int64")


@ibis.udf.scalar.builtin(name="json_extract_string")  # type: ignore[untyped-decorator]
def _texts(value: dt.json, paths: list[str]) -> list[str]:  # type: ignore[empty-body]
    """What stands at each of the paths, all found in one pass."""


@ibis.udf.scalar.builtin  # type: ignore[untyped-decorator]
def json_valid(value: str) -> bool:  # type: ignore[empty-body]
    """Whether a text is JSON."""


def parsed(value: ir.StringValue) -> ir.JSONValue:
    """Text as JSON; null where it is none."""
    return ibis.ifelse(json_valid(value), value, ibis.null("string")).cast("json")


def texts(value: ir.JSONValue, paths: dict[str, str]) -> dict[str, ir.StringValue]:
    """Name → the text at a path such as ``$.context.page.url``, empty ones null; objects stay JSON."""
    found = _texts(value, list(paths.values()))
    return {name: found[i].nullif("") for i, name in enumerate(paths)}
