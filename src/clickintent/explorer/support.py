"""The events behind the student's labels of the sessions that are shown: see ``taxonomy.occlusion``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pyarrow as pa

from clickintent import schema
from clickintent.taxonomy.occlusion import shares

_MOST = 3  # events named
_LEAST = 0.1  # of the label's probability, that must rest on an event
_CALL = 50_000  # sessions scored at once
_EVENT = schema.SESSION_EVENT
_SECOND_US = 1e6

#: Sessions (n; the column ``events``) → probabilities (n, k).
Score = Callable[[pa.Table], np.ndarray]


def supported(
    events: pa.ListArray, wanted: Mapping[int, int], score: Score, longest: int
) -> dict[int, tuple[int, ...]]:
    """Places of the events that a session's label rests on most, by row.

    Args:
        events: (n,) lists of ``schema.SESSION_EVENT``.
        wanted: row → column of the label in what ``score`` gives.
        longest: sessions of more events are left out: the encoder does not read all of them.

    Returns:
        Rows of which anything can be told: not those whose events say the same, so that none is missed.
    """
    lengths = np.diff(events.offsets.to_numpy())
    rows = np.array([row for row in wanted if 1 < lengths[row] <= longest], np.int64)
    found: dict[int, tuple[int, ...]] = {}
    for some in _portions(rows, lengths[rows] + 1):
        whole, without = _variants(events.take(pa.array(some)))
        scores = score(pa.table({"events": pa.concat_arrays([whole, without])}))
        at = len(some)
        for i, row in enumerate(some.tolist()):
            n = int(lengths[row])
            share = shares(scores[i], scores[at : at + n])[:, wanted[row]]
            at += n
            order = [int(j) for j in np.argsort(-share, kind="stable")[:_MOST] if share[j] >= _LEAST]
            if order:
                found[row] = tuple(sorted(order))
    return found


def _portions(rows: np.ndarray, cost: np.ndarray) -> Iterable[np.ndarray]:
    """Rows that are scored together."""
    if len(rows) == 0:
        return []
    part = np.cumsum(cost) // _CALL
    return np.split(rows, np.flatnonzero(np.diff(part)) + 1)


def _variants(lists: pa.ListArray) -> tuple[pa.ListArray, pa.ListArray]:
    """The sessions, and each of them without each of its events in turn; waits are computed anew."""
    lengths = np.diff(lists.offsets.to_numpy())
    flat = lists.flatten()
    starts = np.cumsum(lengths) - lengths
    n = np.repeat(lengths, lengths)  # of every variant: events of its session
    size = n - 1
    offsets = np.concatenate([[0], np.cumsum(size)])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], size)
    left_out = np.arange(len(n)) - np.repeat(starts, lengths)
    within += within >= np.repeat(left_out, size)
    index = np.repeat(np.repeat(starts, lengths), size) + within
    return _timed(flat, np.concatenate([[0], np.cumsum(lengths)])), _timed(
        flat.take(pa.array(index)), offsets
    )


def _timed(events: pa.StructArray, offsets: np.ndarray) -> pa.ListArray:
    columns = {f.name: events.field(f.name) for f in _EVENT}
    ts = columns["ts"].to_numpy()
    gap = np.full(len(ts), np.nan)
    gap[1:] = np.diff(ts) / _SECOND_US
    gap[offsets[:-1][np.diff(offsets) > 0]] = np.nan
    dwell = np.append(gap[1:], np.nan)[: len(ts)]
    columns["gap_s"], columns["dwell_s"] = (pa.array(a, pa.float64(), from_pandas=True) for a in (gap, dwell))
    struct = pa.StructArray.from_arrays(list(columns.values()), fields=list(_EVENT))
    kind = schema.SESSIONS.field("events").type
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), struct, type=kind)
