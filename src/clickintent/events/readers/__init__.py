"""One small module per export format, and the registry that finds it.

A package of its own adds a reader by an entry point of the group ``clickintent.readers``, a program by
``register``. What a reader is: ``base.Reader``; how to write one: docs/readers.md.
"""

from __future__ import annotations

from importlib.metadata import entry_points

import ibis

from clickintent.config import SourceConfig
from clickintent.errors import ConfigError
from clickintent.events.engine import Engine, Rows
from clickintent.events.readers import access_log, adobe, ga4, ga360, segment, snowplow, table
from clickintent.events.readers.base import STAGED, Reader

__all__ = ["GROUP", "STAGED", "Reader", "names", "reader", "register"]

#: Entry points of this group are readers: name of the reader = "package.module:function".
GROUP = "clickintent.readers"

_READERS: dict[str, Reader] = {
    "table": table.read,
    "ga4": ga4.read,
    "ga360": ga360.read,
    "snowplow": snowplow.read,
    "segment": segment.read,
    "adobe": adobe.read,
    "access_log": access_log.read,
}


def register(name: str, read: Reader) -> None:
    """Make ``read`` known as the reader ``name``.

    Raises:
        ConfigError: if another reader has that name.
    """
    if _READERS.get(name, read) is not read:
        raise ConfigError(f"there is a reader {name!r} already. Call yours something else.")
    _READERS[name] = read


def names() -> list[str]:
    """The readers that there are, those of other packages too."""
    return sorted({*_READERS, *(point.name for point in entry_points(group=GROUP))})


def reader(name: str) -> Reader:
    """The reader of a format. Rows of event types that the source's ``skip_events`` names are excluded.

    Raises:
        ConfigError: if there is none, or another package's cannot be loaded.
    """
    read = _find(name)

    def skipping(engine: Engine, source: SourceConfig, path: str) -> Rows:
        rows = read(engine, source, path)
        if not source.skip_events:
            return rows
        skipped = rows.table["event_type"].lower().isin([kind.lower() for kind in source.skip_events])
        reason = ibis.ifelse(skipped, "event type in skip_events", ibis.null("string"))
        return Rows(rows.table.mutate(excluded=rows.table["excluded"].coalesce(reason)), rows.refused)

    return skipping


def _find(name: str) -> Reader:
    if name in _READERS:
        return _READERS[name]
    for point in entry_points(group=GROUP, name=name):
        try:
            read: Reader = point.load()
        except Exception as error:
            raise ConfigError(
                f"the reader {name!r} of {point.value} cannot be loaded: {error}. Repair its package."
            ) from error
        register(name, read)
        return read
    raise ConfigError(f"no reader {name!r}; there are {', '.join(names())}.")
