"""Where live sessions are kept: what a store must be able to do.

A store promises: when ``append`` returns, the events outlive a crash of the process and of the machine; the
same event of the same visitor, sent again, is there once; who was forgotten does not come back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from clickintent.errors import ClickintentError
from clickintent.serve.live import Stored

Outcome = Literal["accepted", "duplicate", "forgotten", "too many"]


class BusyError(ClickintentError):
    """The store cannot take more now: come back in ``retry_after`` seconds. Nothing was stored."""

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

    async def forget(self, *, visitors: Sequence[int], account: int | None) -> Forgotten:
        """Remove all of these visitors and of an account, and take no event of theirs again.

        Of visitors that are not named, the events that carry the account go, too.
        """

    async def expire(self, before: int) -> int:
        """Remove what is older than ``before`` (µs), and return how many events that were."""

    async def check(self) -> None:
        """Raise if the store cannot be used now."""

    async def close(self) -> None:
        """Finish what was begun."""
