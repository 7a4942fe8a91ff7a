"""Online = batch: the same raw events, however they arrive, become the same sessions and embeddings."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from clickintent.config import Config
from clickintent.events import coding
from clickintent.serve import live
from clickintent.serve.model import Models
from clickintent.serve.scorer import Scorer
from clickintent.serve.service import Service
from clickintent.serve.sqlite_store import SqliteStore
from clickintent.serve.wire import EventsRequest, SentEvent


def sent(row: dict[str, Any], sequence: int) -> SentEvent:
    return SentEvent(**row, sequence=sequence)


def run(
    config: Config, folder: Path, requests: Sequence[Sequence[SentEvent]], clock: int
) -> tuple[dict[str, np.ndarray], dict[str, str], dict[str, str | None]]:
    """Send all requests; per session: its embedding, link and account."""

    async def work() -> Any:
        models = Models(config)
        store = SqliteStore(folder / "live.sqlite3")
        scorer = Scorer(models)
        service = Service(config, models, store, scorer, lambda: clock)
        for request in requests:
            await service.append(EventsRequest(list(request)))
        visitors = {models.current.gate.visitor(e.visitor_id) for request in requests for e in request}
        embeddings, links, accounts = {}, {}, {}
        for visitor in visitors:
            assert visitor is not None
            sessions = live.sessions(await store.events(visitor), config.sessions)
            known = await store.accounts(visitor)
            for session, scored in zip(
                sessions, await scorer.score([s.events(64) for s in sessions]), strict=True
            ):
                embeddings[session.session_id] = scored.embedding
                owner = live.owner(session, known)
                links[session.session_id] = owner.link
                accounts[session.session_id] = (
                    None if owner.account is None else owner.account.to_bytes(8, "big", signed=True).hex()
                )
        await scorer.close()
        await store.close()
        return embeddings, links, accounts

    return asyncio.run(work())  # type: ignore[no-any-return]


def in_order(events: list[SentEvent], rng: random.Random) -> list[list[SentEvent]]:
    return pieces(events, rng)


def shuffled(events: list[SentEvent], rng: random.Random) -> list[list[SentEvent]]:
    return pieces(rng.sample(events, len(events)), rng)


def retried(events: list[SentEvent], rng: random.Random) -> list[list[SentEvent]]:
    """Out of order, and four of ten events sent again, some of them in the same request."""
    again = rng.sample(events, len(events) * 4 // 10)
    return pieces(rng.sample([*events, *again], len(events) + len(again)), rng)


def pieces(events: list[SentEvent], rng: random.Random) -> list[list[SentEvent]]:
    found, at = [], 0
    while at < len(events):
        n = rng.choice((1, 2, 7, 100, 500))
        found.append(events[at : at + n])
        at += n
    return found


@pytest.mark.parametrize("arrive", [in_order, shuffled, retried])
def test_online_is_batch(
    served: tuple[Config, list[dict[str, Any]]],
    tmp_path: Path,
    arrive: Callable[[list[SentEvent], random.Random], list[list[SentEvent]]],
) -> None:
    config, rows = served
    table = ds.dataset(config.workspace / "sessions").to_table()
    last = max(table["end"].to_pylist())  # some rows say that they are of the future
    events = [sent(row, number) for number, row in enumerate(rows)]
    embeddings, links, accounts = run(config, tmp_path, arrive(events, random.Random(7)), last)

    vectors = pq.read_table(config.workspace / "embeddings")
    batch = dict(
        zip(vectors["session_id"].to_pylist(), np.stack(vectors["embedding"].to_numpy()), strict=True)
    )
    assert set(embeddings) == set(table["session_id"].to_pylist())
    assert len(batch) > 1000
    there = [session for session in batch if session in embeddings]
    assert len(there) == len(batch)
    difference = np.abs(np.stack([embeddings[s] - batch[s] for s in there])).max()
    assert difference < 1e-5
    for column, found in (("account_link", links), ("account_id", accounts)):
        assert dict(zip(table["session_id"].to_pylist(), table[column].to_pylist(), strict=True)) == found


def test_ids_are_hashed_as_in_batch(served: tuple[Config, list[dict[str, Any]]]) -> None:
    config, rows = served
    gate = Models(config).current.gate
    column = pq.read_table(config.workspace / "sessions", columns=["visitor_id"])["visitor_id"]
    code = gate.visitor(rows[0]["visitor_id"])
    assert code is not None
    assert coding.hexadecimal(np.array([code], np.int64))[0].as_py() in column.to_pylist()
