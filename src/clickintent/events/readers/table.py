"""Any flat table, Parquet, CSV or NDJSON, with a mapping of its columns in the configuration."""

from __future__ import annotations

from pathlib import Path

import ibis
import ibis.expr.types as ir

from clickintent.config import SourceConfig
from clickintent.errors import ConfigError
from clickintent.events.engine import POSITION, Engine, Rows, epoch_us
from clickintent.events.readers.base import STAGED, number, staged

_MAPPABLE = tuple(name for name in STAGED if name not in ("position", "ts_given"))
_UNITS = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0}
_NUMBER = r"^\s*[+-]?\d+(\.\d*)?([eE][+-]?\d+)?\s*$"


def read(engine: Engine, source: SourceConfig, path: str) -> Rows:
    """Stage one flat file. See ``base.Reader``.

    Raises:
        ConfigError: if the mapping names unknown columns of ours, or lacks required ones.
    """
    check(source)
    needed = {column: name for name, column in source.columns.items()}
    rows = engine.read(Path(path), needed)
    table = rows.table
    columns: dict[str, ir.Value] = {name: ibis.literal(value) for name, value in source.constants.items()}
    columns |= {name: table[column] for name, column in source.columns.items()}
    raw_ts = columns["ts"]
    columns["ts"] = microseconds(raw_ts, source.ts_unit)
    columns["ts_given"] = raw_ts.notnull()
    if "value" in columns:
        columns["value"] = number(columns["value"])
    return Rows(table.select(staged(position=table[POSITION], **columns)), rows.malformed)


def check(source: SourceConfig) -> None:
    """Raise ``ConfigError`` unless the mapping says who, when, what and where."""
    given = {*source.columns, *source.constants}
    unknown = sorted(given - set(_MAPPABLE))
    if unknown:
        raise ConfigError(
            f"source {source.label!r}: there is no event column {', '.join(map(repr, unknown))} to map to. "
            f"Use {', '.join(_MAPPABLE)}."
        )
    missing = [name for name in ("visitor_id", "ts") if name not in source.columns]
    missing += ["page or url"] if not given & {"page", "url"} else []
    missing += ["event_type (or a constant for it)"] if "event_type" not in given else []
    if missing:
        raise ConfigError(
            f"source {source.label!r}: [sources.columns] lacks {', '.join(missing)}. "
            'Write, for example, visitor_id = "cookie".'
        )


def microseconds(value: ir.Value, unit: str) -> ir.IntegerValue:
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
