"""From the run's tables to the small tables that the report shows. Pure functions, numpy and Arrow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickintent.report.data import ReportData
from clickintent.report.results import Interval

OTHER = "~other"  # not an intent id: those begin with a letter
COLOURS = 10  # intents with a colour of their own
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
Z = 1.959964  # of a 95 % interval
_MOVERS = 12


@dataclass(frozen=True)
class Intent:
    """An intent with how often it is the most confident one of a session."""

    id: str
    name: str
    definition: str
    area: str
    sessions: int
    share: float
    known: int  # sessions whose outcome is known
    converted: int
    rate: Interval | None
    colour: str  # a CSS class: c0 to c9, or cx
    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sessions:
    """The sessions that models see, joined with their intent and outcome, in one order (n)."""

    start: np.ndarray  # int64 µs
    link: np.ndarray  # str
    intent: np.ndarray  # index into ``intent_ids``, −1 for none
    intent_ids: tuple[str, ...]
    outcome: np.ndarray  # str, "" where not known

    @property
    def n(self) -> int:
        return len(self.start)


def join(data: ReportData) -> Sessions:
    """The sessions that have an intent; all that are no bots, if none has."""
    top, table = data.top_intents, data.sessions
    at = pc.index_in(table["session_id"], value_set=_one(top["session_id"]))
    seen = at.is_valid().to_numpy()
    if not seen.any():
        bots = table["is_bot"].to_numpy() if "is_bot" in table.column_names else np.zeros(len(seen), bool)
        seen = ~bots.astype(bool)
    table, at = table.filter(pa.array(seen)), at.filter(pa.array(seen))
    codes = _one(pc.fill_null(top["intent_id"].cast(pa.string()), "")).dictionary_encode()
    order = np.arange(len(codes.dictionary))
    intent = pc.fill_null(pc.take(codes.indices, at), -1).to_numpy(zero_copy_only=False)
    has_link = "account_link" in table.column_names
    link = _text(table["account_link"]) if has_link else np.full(table.num_rows, "none", object)
    outcome = np.full(table.num_rows, "", object)
    if data.outcomes is not None and data.outcomes.num_rows:
        known = pc.index_in(table["session_id"], value_set=_one(data.outcomes["session_id"]))
        outcome = _text(pc.take(data.outcomes["outcome"], known))
    return Sessions(
        start=table["start"].to_numpy().astype(np.int64),
        link=link,
        intent=intent.astype(np.int64),
        intent_ids=tuple(codes.dictionary[int(i)].as_py() for i in order),
        outcome=outcome,
    )


def intents(data: ReportData, sessions: Sessions) -> list[Intent]:
    """All intents of the taxonomy and of the labels, the most frequent first."""
    named = {i.id: i for i in data.taxonomy.intents} if data.taxonomy else {}
    index = {intent_id: i for i, intent_id in enumerate(sessions.intent_ids)}
    k = len(sessions.intent_ids)
    used = sessions.intent >= 0
    counts = np.bincount(sessions.intent[used], minlength=k)
    known = used & (sessions.outcome != "")
    n_known = np.bincount(sessions.intent[known], minlength=k)
    n_converted = np.bincount(sessions.intent[known & (sessions.outcome != "none")], minlength=k)
    ids = [*named, *(i for i in sessions.intent_ids if i not in named and i)]
    size = {i: int(counts[index[i]]) if i in index else 0 for i in ids}
    found = []
    for place, intent_id in enumerate(sorted(ids, key=lambda i: (-size[i], i))):
        intent = named.get(intent_id)
        at = index.get(intent_id)
        observed = int(n_known[at]) if at is not None else 0
        converted = int(n_converted[at]) if at is not None else 0
        found.append(
            Intent(
                id=intent_id,
                name=intent.name if intent else intent_id,
                definition=intent.definition if intent else "",
                area=(intent.area if intent else None) or "",
                sessions=size[intent_id],
                share=size[intent_id] / max(sessions.n, 1),
                known=observed,
                converted=converted,
                rate=wilson(converted, observed),
                colour=f"c{place}" if place < COLOURS and size[intent_id] else "cx",
                includes=intent.includes if intent else (),
                excludes=intent.excludes if intent else (),
                keywords=intent.keywords if intent else (),
                examples=intent.examples if intent else (),
            )
        )
    return found


def groups(found: Sequence[Intent]) -> dict[str, str]:
    """Intent id → the id under which charts colour it: its own, or ``OTHER``."""
    return {intent.id: intent.id if intent.colour != "cx" else OTHER for intent in found}


def wilson(hits: int, n: int) -> Interval | None:
    """A share with its 95 % interval (Wilson 1927), sessions taken as independent."""
    if n == 0:
        return None
    p, z2 = hits / n, Z * Z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return Interval(p, min(max(0.0, centre - half), p), max(min(1.0, centre + half), p))


def time_unit(start: np.ndarray) -> tuple[str, int]:
    """How to bin time so that there are neither few nor too many bins: its name and µs."""
    span = int(start.max() - start.min()) if len(start) else 0
    if span <= 3 * DAY_US:
        return "hour", HOUR_US
    return ("day", DAY_US) if span <= 200 * DAY_US else ("week", 7 * DAY_US)


def over_time(sessions: Sessions, found: Sequence[Intent]) -> list[dict[str, Any]]:
    """Sessions by bin of time and group: ``t`` (ms), ``i`` (group), ``n``; bins without sessions are 0."""
    if sessions.n == 0:
        return []
    _, unit = time_unit(sessions.start)
    bins = sessions.start // unit
    first = int(bins.min())
    n_bins = int(bins.max()) - first + 1
    group_of = groups(found)
    names = [*(i.id for i in found if i.colour != "cx"), OTHER]
    code = np.array([names.index(group_of.get(i, OTHER)) for i in (*sessions.intent_ids, "")])
    counts = np.zeros((n_bins, len(names)), np.int64)
    np.add.at(counts, (bins - first, code[sessions.intent]), 1)  # intent −1 takes the last code: other
    used: np.ndarray = counts.sum(axis=0) > 0
    return [
        {"t": (first + b) * unit // 1000, "i": names[g], "n": int(counts[b, g])}
        for b in range(n_bins)
        for g in range(len(names))
        if used[g]
    ]


@dataclass(frozen=True)
class Mover:
    """An intent's share of sessions in the first and in the second half of the period."""

    intent: Intent
    early: float
    late: float
    change: Interval  # of the share

    @property
    def direction(self) -> str:
        low, high = self.change.low, self.change.high
        if low is None or high is None or low <= 0 <= high:
            return "unclear"
        return "rises" if self.change.value > 0 else "falls"


def share_changes(before: np.ndarray, after: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares of k intents in two sets of sessions, (k,) each, and half the 95 % interval of their difference.

    Intervals are of the difference of two shares (normal), sessions taken as independent.

    Args:
        before: (n1,) intent of each session, −1 for none; after: (n2,) likewise. Neither may be empty.
    """
    p, q = (np.bincount(some[some >= 0], minlength=k) / len(some) for some in (before, after))
    return p, q, Z * np.sqrt(p * (1 - p) / len(before) + q * (1 - q) / len(after))


def movers(sessions: Sessions, found: Sequence[Intent]) -> list[Mover]:
    """The intents whose share changed most between the halves of the period, risers first.

    Intervals are of the difference of two shares (normal), sessions taken as independent.
    """
    if sessions.n < 200 or sessions.start.max() - sessions.start.min() < 2 * DAY_US:
        return []
    late = np.greater_equal(sessions.start, (int(sessions.start.min()) + int(sessions.start.max())) // 2)
    n1, n2 = int((~late).sum()), int(late.sum())
    if min(n1, n2) < 100:
        return []
    before, after, half = share_changes(
        sessions.intent[~late], sessions.intent[late], len(sessions.intent_ids)
    )
    index = {intent_id: i for i, intent_id in enumerate(sessions.intent_ids)}
    all_of_them = []
    for intent in found:
        i = index.get(intent.id)
        if i is not None and half[i] > 0:
            d, h = float(after[i] - before[i]), float(half[i])
            all_of_them.append(Mover(intent, float(before[i]), float(after[i]), Interval(d, d - h, d + h)))
    all_of_them.sort(key=lambda m: -abs(m.change.value))
    return sorted(all_of_them[:_MOVERS], key=lambda m: -m.change.value)


def _one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _text(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    found: np.ndarray = np.array(pc.fill_null(column.cast(pa.string()), "").to_pylist(), dtype=object)
    return found
