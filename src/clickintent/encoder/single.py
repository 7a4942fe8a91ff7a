"""Sessions as plain Python values → the inputs of the graph, with no table in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clickintent.encoder.features import (
    OOV,
    FeatureSpace,
    Inputs,
    hour_of_week,
    log_seconds,
    text_of,
)
from clickintent.encoder.tables import EVENT_FIELDS
from clickintent.errors import DataError

Event = Mapping[str, Any]

_STRING, _NUMBER = (str, type(None)), (int, float, np.integer, np.floating, type(None))
#: Of what type the value of each key is, and how to say so.
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "ts": ((int, np.integer), "a whole number of µs since 1970 UTC"),
    "event_type": (_STRING, "a string or None"),
    "page": (_STRING, "a string or None"),
    "title": (_STRING, "a string or None"),
    "text": (_STRING, "a string or None"),
    "dwell_s": (_NUMBER, "a number of seconds or None"),
    "gap_s": (_NUMBER, "a number of seconds or None"),
}
_REQUIRED = ("ts", "event_type", "page")
_ABSENT = object()
_TEXT = (str, type(None))
_LARGEST = 1 << 63


def few_sessions(
    sessions: Sequence[Sequence[Event]], space: FeatureSpace, last: int
) -> tuple[Inputs, list[str]]:
    """The inputs of one call, padded to the longest session, all but ``texts``; and the texts of the events.

    Args:
        sessions: at least one event each; see ``SessionEncoder.embed_one``.
        last: keep at most this many events of a session, the last ones.

    Raises:
        DataError: if an event lacks a key or has a value of another type; says which.
    """
    pages, types = space.pages.ids, space.event_types.ids
    kept: list[Event] = []
    lengths: list[int] = []
    dwell: list[Any] = []
    gap: list[Any] = []
    for events in sessions:
        first = max(len(events) - last, 0)
        for number in range(max(first - 1, 0), len(events)):
            _check(events[number], number)
        own = events[first:]
        _append_waits(own, events[first - 1]["ts"] if first else None, dwell, gap)
        kept.extend(own)
        lengths.append(len(own))
    n, ts = len(kept), [event["ts"] for event in kept]
    ids = [
        [pages.get(event["page"], OOV) for event in kept],
        [types.get(event["event_type"], OOV) for event in kept],
        hour_of_week(np.array(ts, dtype=np.int64)),
        range(n),
    ]
    names = ("page", "event_type", "hour_of_week", "text")
    flat: Inputs = dict(zip(names, np.array(ids, dtype=np.int32), strict=True))
    flat["log_dwell"], flat["log_gap"] = log_seconds([dwell, gap])
    stops = np.cumsum(lengths)
    # what stands behind the end of a session is masked by its length
    steps = np.minimum((stops - lengths)[:, None] + np.arange(max(lengths)), n - 1)
    inputs = {name: values[steps] for name, values in flat.items()}
    inputs["lengths"] = np.array(lengths, dtype=np.int32)
    return inputs, [text_of(event["page"], event.get("title"), event.get("text")) for event in kept]


def _append_waits(events: Sequence[Event], before: int | None, dwell: list[Any], gap: list[Any]) -> None:
    """Seconds to and from the next event, where they are not given."""
    for i, event in enumerate(events):
        at = event["ts"]
        since, until = event.get("gap_s", _ABSENT), event.get("dwell_s", _ABSENT)
        if since is _ABSENT:
            since = None if before is None else (at - before) / 1e6
        if i + 1 == len(events):
            until = None  # what lasts until an event outside is the future
        elif until is _ABSENT:
            until = (events[i + 1]["ts"] - at) / 1e6
        gap.append(since)
        dwell.append(until)
        before = at


def _is_plain(event: dict[str, Any]) -> bool:
    get = event.get
    return (
        type(ts := get("ts")) is int
        and -_LARGEST < ts < _LARGEST
        and type(get("page")) is str
        and type(get("event_type")) is str
        and type(get("title")) in _TEXT
        and type(get("text")) in _TEXT
        and "dwell_s" not in event
        and "gap_s" not in event
    )


def _check(event: Event, number: int) -> None:
    if type(event) is dict and _is_plain(event):  # which nearly all are, and this takes a third of the time
        return
    if not isinstance(event, Mapping):
        raise DataError(f"event {number} is not a mapping, but of type {type(event).__name__}; give a dict.")
    for name in EVENT_FIELDS:
        value = event.get(name, _ABSENT)
        kinds, said = _KINDS[name]
        if value is _ABSENT and name not in _REQUIRED:
            continue
        # numpy's timedelta64 counts as an integer, in a unit of its own
        if isinstance(value, kinds) and not isinstance(value, np.timedelta64):
            if isinstance(value, int | np.integer) and abs(int(value)) >= _LARGEST:
                raise DataError(f"event {number}: {name!r} does not fit into 64 bits; it must be {said}.")
            continue
        if value is _ABSENT:
            raise DataError(
                f"event {number} has no key {name!r}; it needs {', '.join(map(repr, _REQUIRED))} and has "
                f"{', '.join(map(repr, event)) or 'none'}."
            )
        raise DataError(f"event {number}: {name!r} must be {said}, not {type(value).__name__}.")
