"""All sessions that models see, as columns of numbers, read batch by batch: a million fit into memory.

They are put in the order of their starts. In the tables a visitor's sessions stand one after the other, and a
file in that order would say which sessions are of one visitor.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickintent import schema
from clickintent.config import InSessionConversion
from clickintent.events.prefix import before_first

#: What is read of every session beside its events.
COLUMNS = (
    *("session_id", "visitor_id", "account_id", "account_link", "account_linked_at", "channel"),
    *("start", "end", "n_events", "referrer", "campaign", "device", "country"),
)
#: What Google Analytics writes where there is no campaign, and what of that says nothing at all.
_NO_CAMPAIGN = pa.array(["(direct)", "(none)", "(not set)", "(organic)", "(referral)"])
_NOTHING = _NO_CAMPAIGN[:3]
LINKED = ("in_session", "before", "after")  # to one account
NONE = "none"  # the outcome that nothing followed


@dataclass(frozen=True)
class Visits:
    """The pages of n sessions, one session after the other.

    Attributes:
        offsets: (n + 1,) where the events of each session begin, and the end.
        page: (m,) place of each event's page in ``pages``.
        pages: page and title, each pair once.
    """

    offsets: np.ndarray
    page: np.ndarray
    pages: tuple[tuple[str, str | None], ...]

    @property
    def session(self) -> np.ndarray:
        """(m,) the session of each event."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def take(self, rows: np.ndarray) -> Visits:
        """The sessions of these rows, in their order."""
        lengths = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Visits(offsets, self.page[np.repeat(self.offsets[:-1][rows], lengths) + within], self.pages)


@dataclass(frozen=True)
class Read:
    """What ``read`` found, in the order of starts (n).

    Attributes:
        table: ``COLUMNS``.
        visits: their pages.
        shown: (s,) rows of the sessions that are shown, ascending.
        events: (s,) the events of those, lists of ``schema.SESSION_EVENT``.
        before: (n,) events before the outcome that is an event of the session itself, if there is one.
        reached: (n,) bool: whether it came.
    """

    table: pa.Table
    visits: Visits
    shown: np.ndarray
    events: pa.ListArray
    before: np.ndarray | None
    reached: np.ndarray | None


@dataclass(frozen=True)
class Sessions:
    """The columns that counts are made of (n), in the order of starts.

    Attributes:
        start: int64, µs since 1970 UTC.
        visitor: int64, a number for each visitor.
        account: int64, a number for the account that it is linked to; −1: none.
        cluster: int64, a number for whom its outcome is of: its account, or else its visitor.
        is_linked: bool, to one account.
        link: str, of ``schema.ACCOUNT_LINKS``.
        intent: int64, place of its most confident intent in ``intent_ids``; −1: none.
        confidence: float32 of that intent; 0 without one.
        outcome: int64, place in ``outcomes``; −1: not known.
        source: str, the campaign, or else the referrer, or "direct".
        device: str, "unknown" where it is not known.
        intent_ids: of the taxonomy, and whatever else labels say; the most frequent first.
        outcomes: "none" first.
    """

    start: np.ndarray
    visitor: np.ndarray
    account: np.ndarray
    cluster: np.ndarray
    link: np.ndarray
    intent: np.ndarray
    confidence: np.ndarray
    outcome: np.ndarray
    source: np.ndarray
    device: np.ndarray
    intent_ids: tuple[str, ...]
    outcomes: tuple[str, ...]

    @property
    def n(self) -> int:
        return len(self.start)

    @property
    def is_linked(self) -> np.ndarray:
        return np.isin(self.link.astype(str), LINKED)

    @property
    def is_known(self) -> np.ndarray:
        """(n,) whether it is known what followed."""
        return self.outcome >= 0

    @property
    def is_converted(self) -> np.ndarray:
        return self.outcome > 0


def read(
    batches: Iterable[pa.RecordBatch], n: int, most: int, outcome: InSessionConversion | None, *, seed: int
) -> Read:
    """Read ``n`` sessions.

    Args:
        batches: ``COLUMNS`` and ``events``.
        most: sessions that are shown, drawn at random if there are more.
        outcome: what to look for in the events.
    """
    rng = np.random.default_rng(seed)
    is_shown = np.ones(n, bool)
    if n > most:
        is_shown = np.zeros(n, bool)
        is_shown[rng.choice(n, most, replace=False)] = True
    codes = _Pages()
    tables, lengths, pages, events, counts, reached = [], [], [], [], [], []
    done = 0
    for batch in batches:
        lists = batch["events"]
        tables.append(pa.table(batch.select(list(COLUMNS))))
        lengths.append(pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False))
        pages.append(codes.of(lists.flatten()))
        events.append(lists.filter(pa.array(is_shown[done : done + len(lists)])))
        if outcome is not None:
            found = before_first(pa.table({"events": lists}), outcome.page, outcome.event_type)
            counts.append(found[0])
            reached.append(found[1])
        done += len(lists)
    table = pa.concat_tables(tables).combine_chunks()
    order = np.lexsort((_ranks(table["session_id"]), table["start"].to_numpy()))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    visits = Visits(offsets, np.concatenate(pages), tuple(codes.places))
    shown = np.flatnonzero(is_shown[order])
    at = np.cumsum(is_shown) - 1  # session → place among the shown ones as they were read
    kind = schema.SESSIONS.field("events").type
    listed = pa.concat_arrays([some.cast(kind) for some in events])
    return Read(
        table.take(pa.array(order)),
        visits.take(order),
        shown,
        listed.take(pa.array(at[order[shown]])),
        np.concatenate(counts)[order] if counts else None,
        np.concatenate(reached)[order] if reached else None,
    )


class _Pages:
    """Page and title → number, in the order in which they are met."""

    def __init__(self) -> None:
        self.places: dict[tuple[str, str | None], int] = {}

    def of(self, events: pa.StructArray) -> np.ndarray:
        page, title = (
            events.field(name).dictionary_encode(null_encoding="encode") for name in ("page", "title")
        )
        names, titles = page.dictionary.to_pylist(), title.dictionary.to_pylist()
        pair = page.indices.to_numpy().astype(np.int64) * max(len(titles), 1) + title.indices.to_numpy()
        different, which = np.unique(pair, return_inverse=True)
        numbers = [
            self.places.setdefault((names[p // len(titles)] or "", titles[p % len(titles)]), len(self.places))
            for p in different.tolist()
        ]
        return np.asarray(numbers, np.int32)[which] if numbers else np.zeros(0, np.int32)


def columns(
    table: pa.Table,
    top: pa.Table,
    known: tuple[str, ...],
    outcome: np.ndarray,
    outcomes: tuple[str, ...],
    *,
    by_account: bool,
) -> Sessions:
    """The columns of a table that ``read`` returned.

    Args:
        top: ``session_id``, ``intent_id``, ``confidence`` of the most confident intent of each session.
        known: ids of the taxonomy.
        outcome: (n,) place in ``outcomes``, −1 where not known.
        by_account: whether outcomes are an account's, the same for all its sessions.
    """
    whose = pc.coalesce(table["account_id"], table["visitor_id"]) if by_account else table["visitor_id"]
    at = pc.index_in(table["session_id"], value_set=top["session_id"].combine_chunks())
    named = top["intent_id"].take(at).combine_chunks().dictionary_encode()
    said = named.dictionary.to_pylist()
    code = pc.fill_null(named.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    ids = list(dict.fromkeys([*known, *said]))
    place = np.append([ids.index(id_) for id_ in said], -1).astype(np.int64)
    intent = place[code]
    size = np.bincount(intent[intent >= 0], minlength=len(ids))
    order = sorted(range(len(ids)), key=lambda i: (-size[i], ids[i]))
    rank = np.empty(len(ids) + 1, np.int64)
    rank[order] = np.arange(len(ids))
    rank[-1] = -1
    linked = pc.and_(pc.is_in(table["account_link"], pa.array(LINKED)), table["account_id"].is_valid())
    confidence = pc.fill_null(top["confidence"].take(at), 0).to_numpy(zero_copy_only=False)
    return Sessions(
        start=table["start"].to_numpy().astype(np.int64),
        visitor=_ranks(table["visitor_id"]),
        account=np.where(linked.to_numpy(), _ranks(pc.fill_null(table["account_id"], "")), -1),
        cluster=_ranks(whose),
        link=_text(table["account_link"]),
        intent=rank[intent],
        confidence=np.nan_to_num(confidence.astype(np.float32)),
        outcome=outcome,
        source=_sources(table),
        device=_text(pc.fill_null(table["device"], "unknown")),
        intent_ids=tuple(ids[i] for i in order),
        outcomes=outcomes,
    )


def _sources(table: pa.Table) -> np.ndarray:
    """The campaign, or else the referrer; "direct" without either."""
    campaign = table["campaign"]
    named = pc.if_else(pc.is_in(campaign, value_set=_NO_CAMPAIGN), pa.scalar(None, pa.string()), campaign)
    medium = pc.if_else(pc.is_in(campaign, value_set=_NOTHING), pa.scalar(None, pa.string()), campaign)
    return _text(pc.coalesce(named, table["referrer"], medium, pa.scalar("direct")))


def _ranks(column: pa.ChunkedArray) -> np.ndarray:
    """Equal strings have equal numbers, in the order of the strings."""
    found = column.combine_chunks().dictionary_encode()
    rank = np.empty(len(found.dictionary), np.int64)
    rank[pc.sort_indices(found.dictionary).to_numpy()] = np.arange(len(rank))
    numbers: np.ndarray = rank[found.indices.to_numpy()]
    return numbers


def _text(column: pa.ChunkedArray) -> np.ndarray:
    """Strings as objects, each different one once in memory."""
    found = column.combine_chunks().dictionary_encode()
    different = np.array(found.dictionary.to_pylist(), dtype=object)
    text: np.ndarray = different[found.indices.to_numpy()]
    return text
