"""Coded tables → the public ones: codes become the strings that may be published, or null.

Pure functions over Arrow, used on every batch that is written, in this process and in Spark's workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clickintent import schema
from clickintent.events.coding import hexadecimal

#: Fields whose code itself is what is published, where ids are hashed.
_AS_CODE = ("visitor", "account", "session_key")


@dataclass(frozen=True)
class Published:
    """field → (codes, texts), both (n,): what may be read. A code that is not there is null."""

    fields: Mapping[str, tuple[pa.Array, pa.Array]]

    def text(self, codes: pa.Array, field: str) -> pa.Array:
        """The texts (n,) of codes (n,) of a field; null where there is none or it may not be read."""
        codes = _array(codes)
        if field not in self.fields:
            if field in _AS_CODE:
                text = hexadecimal(codes.fill_null(0).to_numpy(zero_copy_only=False))
                return pc.if_else(codes.is_valid(), text, None) if codes.null_count else text
            return pa.nulls(len(codes), pa.string())
        known, texts = self.fields[field]
        return texts.take(pc.index_in(codes, value_set=known))


def events(batch: pa.Table, published: Published) -> pa.Table:
    """``clean.CODED`` → ``schema.EVENTS``."""
    columns = {
        "event_id": _identifier(batch, "event"),
        "visitor_id": published.text(batch["visitor"], "visitor"),
        "account_id": published.text(batch["account"], "account"),
        "ts": batch["ts"],
        "value": batch["value"],
    }
    fields = ("channel", "event_type", "page", "title", "text", "referrer", "campaign", "device", "country")
    columns |= {name: published.text(batch[name], name) for name in (*fields, "session_key", "source")}
    return pa.table([columns[f.name] for f in schema.EVENTS], schema=schema.EVENTS)


def sessions(batch: pa.Table, published: Published) -> pa.Table:
    """What ``sessionize`` makes → ``schema.SESSIONS``."""
    columns = {
        "session_id": _identifier(batch, "first"),
        "visitor_id": published.text(batch["visitor"], "visitor"),
        "account_id": published.text(batch["account"], "account"),
        "is_bot": batch["bot_reason"].combine_chunks().is_valid(),
        "events": _events(_array(batch["events"]), published),
    }
    columns |= {
        name: published.text(batch[name], name)
        for name in ("channel", "referrer", "campaign", "device", "country")
    }
    columns |= {name: batch[name] for name in schema.SESSIONS.names if name not in columns}
    return pa.table([columns[f.name] for f in schema.SESSIONS], schema=schema.SESSIONS)


def sightings(batch: pa.Table, published: Published) -> pa.Table:
    """Which account was seen in which session → ``schema.LINKS``."""
    columns = [
        _identifier(batch, "first"),
        published.text(batch["visitor"], "visitor"),
        published.text(batch["account"], "account"),
        batch["known_at"],
    ]
    return pa.table(columns, schema=schema.LINKS)


def _events(lists: pa.ListArray, published: Published) -> pa.ListArray:
    kind = schema.SESSIONS.field("events").type
    offsets = _offsets(lists)
    flat = lists.flatten()
    columns = []
    for f in kind.value_type:
        column = flat.field(f.name)
        coded = pa.types.is_string(f.type)
        columns.append(published.text(column, f.name) if coded else column.cast(f.type))
    struct = pa.StructArray.from_arrays(columns, fields=list(kind.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets), struct, type=kind)


def _offsets(lists: pa.ListArray) -> npt.NDArray[np.int32]:
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def _identifier(batch: pa.Table, name: str) -> pa.Array:
    """Visitor and event, together unique, as 32 hexadecimal digits."""
    parts = [
        hexadecimal(_array(batch[column]).to_numpy(zero_copy_only=False)) for column in ("visitor", name)
    ]
    return pc.binary_join_element_wise(*parts, "")


def _array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
