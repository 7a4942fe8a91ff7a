"""Where live sessions are kept: what a store must be able to do.

A store promises: when ``append`` returns, the events outlive a crash of the process and of the machine; the
same event of the same visitor, sent again, is there once; who was forgotten does not come back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from clickintent.errors import ClickintentError
from clickintent.serve.live import Stored

Outcome = Literal["accepted", "duplicate", "forgotten", "too many"]

#: All events of a visitor and its accounts (with the time since when each is known) → the codes of the events
#: that go with an account; None: all of the visitor goes.
Belonging = Callable[[Sequence[Stored], Mapping[int, int]], Collection[int] | None]


class BusyError(ClickintentError):
    """More cannot be taken now: come back in ``retry_after`` seconds. Sending again does no harm."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnavailableError(BusyError):
    """The store cannot be reached. It is not known whether what was sent is stored: send it again."""


@dataclass(frozen=True)
class Appended:
    """What became of events, in their order, and all events that are kept of their visitors."""

    outcomes: Sequence[Outcome]
    visitors: Mapping[int, Sequence[Stored]]


@dataclass(frozen=True)
class Forgotten:
    """What was removed."""

    events: int
    links: int


class Store(Protocol):
    """See the module. All may raise ``BusyError`` or ``UnavailableError``."""

    async def append(self, events: Sequence[Stored]) -> Appended:
        """Keep events; those with an account tie it to the visitor as of their ``ts``."""

    async def link(self, visitor: int, account: int, at: int) -> bool:
        """Tie a visitor to an account as of ``at`` (µs). False: one of them was forgotten."""

    async def events(self, visitor: int) -> Sequence[Stored]:
        """All that is kept of a visitor, in no order."""

    async def accounts(self, visitor: int) -> Mapping[int, int]:
        """The accounts of a visitor, and since when (µs) each is known."""

    async def visitors(self, account: int) -> Sequence[int]:
        """The visitors that an account is tied to."""

    async def forget_visitor(self, visitor: int) -> Forgotten:
        """Remove a visitor, and take no event of it again."""

    async def forget_account(self, account: int, belonging: Belonging) -> Forgotten:
        """Remove an account with what of its visitors ``belonging`` says, and take no event of them again.

        A visitor that goes as a whole is not taken again either.
        """

    async def expire(self, before: int) -> int:
        """Remove events and links that were last seen before ``before`` (µs); return how many events."""

    async def check(self) -> None:
        """Raise if the store cannot be used now."""

    async def close(self) -> None:
        """Finish what was begun."""


def sort_out(
    visitor: int, events: Sequence[Stored], kept: dict[int, Stored], gone: Collection[int], most: int
) -> tuple[list[Outcome], list[Stored]]:
    """What becomes of a visitor's events.

    Args:
        kept: event → what is there already; the new ones are added.
        gone: visitors and accounts that were forgotten.
        most: events that a visitor may have.

    Returns:
        An outcome for each event, and the new ones.
    """
    outcomes: list[Outcome] = []
    new = []
    for event in events:
        if visitor in gone or event.account in gone:
            outcomes.append("forgotten")
        elif event.event in kept:
            outcomes.append("duplicate")
        elif len(kept) >= most:
            outcomes.append("too many")
        else:
            outcomes.append("accepted")
            kept[event.event] = event
            new.append(event)
    return outcomes, new
