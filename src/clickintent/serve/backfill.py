"""History for the live sessions, from batch: accounts have a past on the first day.

What ``ingest`` published is what the service would have kept of the same events, under the same codes: one
that is sent to the service, too, counts once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from clickintent.config import Config
from clickintent.events import coding, store
from clickintent.serve.live import Stored
from clickintent.serve.state import Outcome, Store

_COLUMNS = ("event_id", "account_id", "ts", "channel", "session_key", "event_type", "page", "title", "text")
_BATCH, _REQUEST, _TOGETHER = 20_000, 500, 32  # events read at once; events in a request, requests at once


async def backfill(config: Config, into: Store, since: int) -> Counter[Outcome]:
    """Append the events of visitors that are tied to an account to the live ones, but those of visitors that
    were taken for robots in any of their sessions.

    Args:
        since: µs; of older events none.

    Returns:
        How many events had which outcome.

    Raises:
        WorkspaceError: if the workspace has no events, or was made with another key.
        ConfigError: if ids are hashed and the environment holds no key.
        BusyError: if the store cannot take more; doing it again does no harm.
    """
    keys = coding.keys(config.privacy)
    store.ready(config.workspace, keys.check, config.privacy.key_env)
    events = ds.dataset(config.workspace / "events")
    tied = pq.read_table(config.workspace / "identities.parquet", columns=["visitor_id"])["visitor_id"]
    sessions = ds.dataset(config.workspace / "sessions")
    robots = sessions.to_table(["visitor_id"], filter=pc.field("is_bot"))["visitor_id"]
    visitor = pc.field("visitor_id")
    wanted = (pc.field("ts") >= since) & visitor.isin(tied.unique()) & ~visitor.isin(robots.unique())
    counts: Counter[Outcome] = Counter()
    number = 0
    for batch in events.to_batches([*_COLUMNS], filter=wanted, batch_size=_BATCH):
        found = _stored(batch, number, keys, is_plain=config.privacy.ids == "plain")
        number += batch.num_rows
        requests = list(_requests(found))
        for at in range(0, len(requests), _TOGETHER):
            appended = await asyncio.gather(*map(into.append, requests[at : at + _TOGETHER]))
            counts.update(outcome for one in appended for outcome in one.outcomes)
    return counts


def latest(config: Config) -> int | None:
    """When the workspace's latest event was, µs; None without any."""
    batches = ds.dataset(config.workspace / "events").to_batches(["ts"])
    return max((pc.max(batch["ts"]).as_py() for batch in batches if batch.num_rows), default=None)


def _stored(batch: pa.RecordBatch, first: int, keys: coding.Keys, *, is_plain: bool) -> list[Stored]:
    """Events as they are kept; their order decides among those of one time, as in batch."""

    def code(shown: str) -> int:
        return keys.identifier(shown) if is_plain else _number(shown)

    return [
        Stored(
            visitor=_number(row["event_id"][:16]),
            event=_number(row["event_id"][16:]),
            ts=row["ts"],
            sequence=first + i,
            channel=row["channel"],
            session_key=0 if row["session_key"] is None else code(row["session_key"]),
            account=None if row["account_id"] is None else code(row["account_id"]),
            event_type=row["event_type"],
            page=row["page"],
            title=row["title"],
            text=row["text"],
        )
        for i, row in enumerate(batch.to_pylist())
    ]


def _requests(events: Sequence[Stored]) -> Iterator[Sequence[Stored]]:
    """A visitor's events stand together, so that what is there of it is read once."""
    ordered = sorted(events, key=lambda event: event.visitor)
    for at in range(0, len(ordered), _REQUEST):
        yield ordered[at : at + _REQUEST]


def _number(shown: str) -> int:
    return int.from_bytes(bytes.fromhex(shown), "big", signed=True)
