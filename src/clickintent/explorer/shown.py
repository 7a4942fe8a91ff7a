"""The sessions that are shown, some hundred to a file: data/sessions/K.json."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickintent.explorer.rates import rounded
from clickintent.explorer.sessions import Visits
from clickintent.taxonomy.content import SEARCH_LENGTH, VIEWS

_EVENTS = 200  # of a session
_HASHED = re.compile(r"[0-9a-f]{16}([0-9a-f]{16})")  # visitor and first event, as ``ingest`` calls a session


#: Labels of the shown sessions: by row, and then the most confident first.
LABELS = pa.schema(
    [
        pa.field("row", pa.int64()),  # among the shown sessions
        pa.field("intent", pa.int64()),
        pa.field("confidence", pa.float32()),
        pa.field("source", pa.string()),
        pa.field("events", pa.list_(pa.int64())),
        pa.field("evidence", pa.string()),
    ]
)
_ORDER = [
    ("row", "ascending"),
    ("confidence", "descending"),
    ("source", "ascending"),
    ("intent", "ascending"),
]


def public_id(session_id: str) -> str:
    """What of a session's id says nothing of its visitor: the code of its first event, 16 digits; or nothing.

    A session is called after its visitor and its first event. An id of another form, which ``ingest`` did not
    make, may hold anything.
    """
    found = _HASHED.fullmatch(session_id)
    return found[1] if found else ""


def shards(
    table: pa.Table,
    events: pa.ListArray,
    page: np.ndarray,
    outcome: Sequence[str | None],
    labels: pa.Table,
    types: Sequence[str],
    size: int,
) -> Iterator[list[dict[str, Any]]]:
    """Sessions, ``size`` at a time.

    Args:
        table: their rows (s), columns as in ``sessions.COLUMNS``.
        events: (s,) lists.
        page: (m,) number of every event's page.
        outcome: (s,) in words.
        labels: of all of them, ``LABELS``.
        types: event types.
    """
    place = {name: i for i, name in enumerate(types)}
    first = np.searchsorted(labels["row"].to_numpy(), np.arange(table.num_rows + 1))
    offset = 0
    for start in range(0, table.num_rows, size):
        rows = table.slice(start, size).to_pylist()
        lists = events.slice(start, size)
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_pylist()
        flat = lists.flatten()
        kinds, texts = flat.field("event_type").to_pylist(), said(flat).to_pylist()
        dwell = [None if s is None or s != s else seconds(s) for s in flat.field("dwell_s").to_pylist()]
        pages = page[offset : offset + len(flat)].tolist()
        offset += len(flat)
        told = [
            [number, place[kind or ""], wait, text]
            for number, kind, wait, text in zip(pages, kinds, dwell, texts, strict=True)
        ]
        begin = first[start]
        own = [_label(row) for row in labels.slice(begin, first[start + len(rows)] - begin).to_pylist()]
        shard, at = [], 0
        for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            mine = own[first[start + i] - begin : first[start + i + 1] - begin]
            shard.append(_session(row, outcome[start + i], told[at : at + min(length, _EVENTS)], mine))
            at += length
        yield shard


def _session(
    row: dict[str, Any], outcome: str | None, events: list[Any], labels: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "id": public_id(row["session_id"]),
        "start": row["start"] // 1000,
        "channel": row["channel"],
        "link": row["account_link"],
        "device": row["device"],
        "country": row["country"],
        "referrer": row["referrer"],
        "campaign": row["campaign"],
        "outcome": outcome,
        "events": events,
        "n_events": row["n_events"],
        "labels": labels,
    }


def _label(row: dict[str, Any]) -> dict[str, Any]:
    events = row["events"]
    return {
        "intent": row["intent"],
        "confidence": rounded(row["confidence"]),
        "source": row["source"],
        "events": None if events is None else [i for i in events if i < _EVENTS],
        "evidence": row["evidence"],
    }


def said(events: pa.StructArray) -> pa.Array:
    """The text of events (m,), but for the text of a page itself, which is the same whoever looks at it and
    most of what a file would hold: see ``taxonomy.content.Item.search``.
    """
    text = events.field("text")
    is_view = pc.is_in(pc.utf8_lower(events.field("event_type")), value_set=pa.array(sorted(VIEWS)))
    is_long = pc.fill_null(pc.greater(pc.utf8_length(text), SEARCH_LENGTH), False)
    return pc.if_else(pc.and_(is_view, is_long), pa.scalar(None, pa.string()), text)


def seconds(value: float) -> float | int:
    """As exact as anybody reads it: tenths below ten seconds, whole ones above."""
    value = round(value, 1) if value < 10 else round(value)
    return int(value) if value == int(value) else value


def event_types(events: pa.ListArray) -> list[str]:
    """The types that occur, the most frequent first."""
    counts = pc.value_counts(pc.fill_null(events.flatten().field("event_type"), ""))
    found = sorted(counts.to_pylist(), key=lambda row: (-row["counts"], row["values"]))
    return [row["values"] for row in found]


def labels_of(table: pa.Table, session_ids: pa.Array, intent_ids: Sequence[str]) -> pa.Table:
    """The labels of these sessions, as ``LABELS``.

    Args:
        table: ``schema.LABELS``; labels of other intents are left out.
    """
    row = pc.index_in(table["session_id"], value_set=session_ids)
    intent = pc.index_in(table["intent_id"], value_set=pa.array(intent_ids, pa.string()))
    known = [table[name] for name in ("confidence", "source", "supporting_events", "evidence")]
    found = pa.table([row.cast(pa.int64()), intent.cast(pa.int64()), *known], schema=LABELS)
    return in_order(found.filter(pc.and_(row.is_valid(), intent.is_valid())))


def in_order(*tables: pa.Table) -> pa.Table:
    """Labels together, by row, and then the most confident first."""
    return pa.concat_tables(tables).sort_by(_ORDER).combine_chunks()


def surest(labels: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Rows that have a label, and the place of the most confident one of each."""
    return np.unique(labels["row"].to_numpy(), return_index=True)


def with_events(labels: pa.Table, events: Mapping[int, Sequence[int]]) -> pa.Table:
    """The same, and the events that support some of the labels, by place."""
    column = labels["events"].to_pylist()
    for place, some in events.items():
        column[place] = list(some)
    at = labels.schema.get_field_index("events")
    return labels.set_column(at, LABELS.field("events"), pa.array(column, pa.list_(pa.int64())))


def numbers_of(visits: Visits, used: np.ndarray) -> np.ndarray:
    """Place in ``Visits.pages`` → number in data/pages.json, the most frequent first; −1: not in it.

    Args:
        used: places that are.
    """
    times = np.bincount(visits.page, minlength=len(visits.pages))
    kept = np.unique(used)
    order = kept[np.lexsort((kept, -times[kept]))]
    number = np.full(len(visits.pages), -1, np.int64)
    number[order] = np.arange(len(order))
    return number
