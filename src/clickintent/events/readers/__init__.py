"""One small module per export format, and the registry that finds it."""

from __future__ import annotations

from clickintent.errors import ConfigError
from clickintent.events.readers import ga4, ga360, table
from clickintent.events.readers.base import STAGED, Reader

__all__ = ["STAGED", "Reader", "reader"]

_READERS: dict[str, Reader] = {"table": table.read, "ga4": ga4.read, "ga360": ga360.read}


def reader(name: str) -> Reader:
    """The reader of a format.

    Raises:
        ConfigError: if there is none.
    """
    try:
        return _READERS[name]
    except KeyError:
        raise ConfigError(f"no reader {name!r}; there are {', '.join(sorted(_READERS))}.") from None
