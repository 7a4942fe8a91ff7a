"""A visitor's stored events → sessions, by the rules of batch: order, boundaries, whose they are.

Pure functions over all events of one visitor. Sessions are cut anew whenever they are asked for, so it does
not matter in which order, in how many pieces, or how often the events arrived.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import msgspec

from clickintent.config import SessionsConfig
from clickintent.serve.incoming import Kept


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """An event as it is kept: codes of who (see ``events.coding``), published values of what."""

    visitor: int
    event: int  # unique within its visitor
    ts: int  # µs since 1970 UTC
    sequence: int  # decides among events of one time
    channel: str
    session_key: int  # the source's own session number; 0 where it has none
    account: int | None
    event_type: str
    page: str
    title: str | None
    text: str | None


#: A stored event as bytes, and back.
encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Stored).decode


@dataclass(frozen=True)
class Session:
    """A session of at least one event, in the order of time."""

    stored: tuple[Stored, ...]

    @property
    def channel(self) -> str:
        return self.stored[0].channel

    @property
    def start(self) -> int:
        return self.stored[0].ts

    @property
    def end(self) -> int:
        return self.stored[-1].ts

    @property
    def session_id(self) -> str:
        """The ``session_id`` that batch gives the same session: visitor and first event."""
        first = self.stored[0]
        return "".join(code.to_bytes(8, "big", signed=True).hex() for code in (first.visitor, first.event))

    def events(self, last: int) -> list[dict[str, Any]]:
        """What ``SessionEncoder.embed_one`` takes, of the last so many events and the one before them, which
        says how long the first of them came after it.
        """
        return [event(stored.ts, stored) for stored in self.stored[-last - 1 :]]


def event(ts: int, kept: Kept | Stored) -> dict[str, Any]:
    """One event, as ``SessionEncoder.embed_one`` takes it."""
    return {
        "ts": ts,
        "event_type": kept.event_type,
        "page": kept.page,
        "title": kept.title,
        "text": kept.text,
    }


def sessions(stored: Iterable[Stored], config: SessionsConfig) -> list[Session]:
    """The sessions of one visitor, in the order of their start (see ``events.sessionize``)."""
    by_source = config.boundary == "source"
    limit = round(config.inactivity_minutes * 60_000_000)

    def part(event: Stored) -> tuple[str, int]:
        return event.channel, event.session_key if by_source else 0

    order = sorted(stored, key=lambda event: (*part(event), event.ts, event.sequence, event.event))
    found: list[list[Stored]] = []
    for (_, key), events in groupby(order, part):
        before: int | None = None
        for event in events:
            if before is None or (key == 0 and event.ts - before > limit):
                found.append([])
            found[-1].append(event)
            before = event.ts
    return sorted((Session(tuple(events)) for events in found), key=lambda s: (s.start, s.end))


@dataclass(frozen=True)
class Owner:
    """Whose a session is, as of now, by the rules of ``events.identity``."""

    account: int | None
    link: str  # one of schema.ACCOUNT_LINKS


def owner(session: Session, links: Mapping[int, int]) -> Owner:
    """Whose session it is.

    Args:
        links: of its visitor: account → since when it is known, µs.
    """
    inside = {event.account for event in session.stored if event.account is not None}
    if inside:
        return _one(inside, "in_session")
    before = {account for account, at in links.items() if at < session.start}
    if before:
        return _one(before, "before")
    return _one(set(links), "after") if links else Owner(None, "none")


def _one(accounts: set[int], link: str) -> Owner:
    return Owner(next(iter(accounts)), link) if len(accounts) == 1 else Owner(None, "ambiguous")


def current(found: Sequence[Session], channel: str) -> Session | None:
    """The latest session of a channel."""
    return next((session for session in reversed(found) if session.channel == channel), None)
