"""Any flat table, Parquet, CSV or NDJSON, with a mapping of its columns in the configuration."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from clickintent.config import SourceConfig
from clickintent.errors import ConfigError
from clickintent.events.engine import POSITION, Engine, Rows
from clickintent.events.readers.base import STAGED, microseconds, number, staged

#: ``excluded`` is no text of the file: it is shown as the reason of a quarantined row.
_MAPPABLE = tuple(name for name in STAGED if name not in ("position", "ts_given", "excluded", "assets"))


def read(engine: Engine, source: SourceConfig, path: str) -> Rows:
    """Stage one flat file. See ``base.Reader``.

    Raises:
        ConfigError: if the mapping names unknown columns of ours, or lacks required ones.
    """
    check(source)
    needed = {column: name for name, column in source.columns.items()}
    rows = engine.read(path, needed)
    table = rows.table
    columns: dict[str, ir.Value] = {name: ibis.literal(value) for name, value in source.constants.items()}
    columns |= {name: table[column] for name, column in source.columns.items()}
    raw_ts = columns["ts"]
    columns["ts"] = microseconds(raw_ts, source.ts_unit)
    columns["ts_given"] = raw_ts.notnull()
    if "value" in columns:
        columns["value"] = number(columns["value"])
    return Rows(table.select(staged(position=table[POSITION], **columns)), rows.refused)


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
