"""History from batch: the same as if the events had been sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from clickintent import pipeline
from clickintent.cli import main
from clickintent.config import Config, PrivacyConfig, SessionsConfig, SourceConfig
from clickintent.errors import WorkspaceError
from clickintent.events import coding
from clickintent.serve import live
from clickintent.serve.app import open_store
from clickintent.serve.backfill import backfill
from clickintent.serve.live import Stored
from clickintent.serve.model import Models
from clickintent.serve.scorer import Scorer
from clickintent.serve.service import Service
from clickintent.serve.sqlite_store import SqliteStore
from clickintent.serve.state import Store
from clickintent.serve.wire import EventsRequest, SentEvent

Served = tuple[Config, list[dict[str, Any]]]
MINUTE = 60_000_000
DAY = 24 * 60 * MINUTE


def in_store(path: Path, work: Callable[[SqliteStore], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        store = SqliteStore(path)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def known(stored: Sequence[Stored]) -> set[tuple[Any, ...]]:
    """All of the events but what decides among those of one time."""
    return {
        (e.event, e.ts, e.channel, e.session_key, e.account, e.event_type, e.page, e.title, e.text)
        for e in stored
    }


def test_history_is_as_if_it_had_been_sent(served: Served, tmp_path: Path) -> None:
    config, rows = served
    sessions = pq.read_table(config.workspace / "sessions", columns=["visitor_id", "is_bot", "end"])
    tied = set(pq.read_table(config.workspace / "identities.parquet")["visitor_id"].to_pylist())
    robots = set(sessions.filter(sessions["is_bot"])["visitor_id"].to_pylist())
    models, last = Models(config), pc.max(sessions["end"]).as_py()
    visitors = {models.current.gate.visitor(row["visitor_id"]) for row in rows}

    async def kept(store: Store) -> Any:
        return {v: (await store.events(v), dict(await store.accounts(v))) for v in visitors if v is not None}

    async def send(store: Store) -> Any:
        scorer = Scorer(models)
        service = Service(config, models, store, scorer, lambda: last)
        events = [SentEvent(**row, sequence=i) for i, row in enumerate(rows)]
        requests = (EventsRequest(events[at : at + 500]) for at in range(0, len(events), 500))
        answers = [await service.append(request) for request in requests]
        await scorer.close()
        return await kept(store), sum(one.accepted for one in answers)

    async def fill(store: Store) -> Any:
        first, again = await backfill(config, store, 0), await backfill(config, store, 0)
        return first, again, await kept(store)

    sent, accepted = in_store(tmp_path / "sent.sqlite3", send)
    first, again, filled = in_store(tmp_path / "filled.sqlite3", fill)
    assert set(first) == {"accepted"}
    assert again == {"duplicate": first.total()}
    found = 0
    for visitor, (events, links) in sent.items():
        shown = visitor.to_bytes(8, "big", signed=True).hex()
        if shown not in tied or shown in robots:
            assert filled[visitor] == ([], {})
            continue
        found += len(events)
        assert known(filled[visitor][0]) == known(events)
        assert filled[visitor][1] == links
        cut = [
            [(s.session_id, [e.event for e in s.stored]) for s in live.sessions(some, config.sessions)]
            for some in (events, filled[visitor][0])
        ]
        assert cut[0] == cut[1]  # the order among events of one time, too
    assert found == first.total() > 1000
    # what is sent to the service, too, counts once
    assert in_store(tmp_path / "filled.sqlite3", send)[1] == accepted - found


def identifier(config: Config, raw: str) -> int:
    return coding.keys(config.privacy).identifier(raw)


def ingested(folder: Path, ages: Sequence[float], ids: Any = "hmac") -> Config:
    """A workspace of one visitor's events, so many µs ago, in the source's session 17."""
    now = time.time_ns() // 1000
    rows = [
        {"visitor": "v", "account": "a", "ts": now - round(age), "url": "/x", "number": "17"} for age in ages
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "raw.parquet")
    columns = {"visitor_id": "visitor", "account_id": "account", "session_key": "number"}
    source = SourceConfig(
        reader="table",
        path=str(folder / "raw.parquet"),
        columns={**columns, "ts": "ts", "url": "url"},
        constants={"event_type": "page_view"},
        ts_unit="us",
    )
    config = Config(
        workspace=folder / "w",
        sources=(source,),
        privacy=PrivacyConfig(ids=ids, min_people=1),
        sessions=SessionsConfig(boundary="source"),
    )
    pipeline.ingest(config)
    return config


@pytest.mark.parametrize("ids", ["plain", "hmac"])
def test_ids_and_numbers_of_sessions_have_the_codes_of_live_ones(tmp_path: Path, ids: Any) -> None:
    config = ingested(tmp_path, [90 * MINUTE, 80 * MINUTE, 70 * MINUTE], ids)
    visitor = identifier(config, "v")

    async def fill(store: Store) -> Any:
        await backfill(config, store, 0)
        return await store.events(visitor), await store.accounts(visitor)

    events, links = in_store(tmp_path / "live.sqlite3", fill)
    assert len(events) == 3
    assert {event.session_key for event in events} == {identifier(config, "17")}
    assert {event.account for event in events} == {identifier(config, "a")} == set(links)


def test_the_command_says_what_became_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ingested(tmp_path, [DAY, 3 * DAY, 50 * DAY])
    file = tmp_path / "clickintent.toml"
    file.write_text('workspace = "w"\n')

    def said(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["backfill", str(file), *arguments])
        assert ended.value.code == code
        out, err = capsys.readouterr()
        return " ".join((err if code else out).split())

    assert "2 events since" in (found := said())
    assert "2 appended, 0 were there" in found
    assert "0 appended, 1 were there" in said("--days", "2")
    assert "The latest event of the workspace is of" in said("--days", "0.5")
    for wrong in ("31", "0"):
        assert "between 0 and serve.keep_days (30)" in said("--days", wrong, code=2)

    async def beside() -> None:
        store = await open_store(config)
        try:
            with pytest.raises(WorkspaceError, match="in use by another process"):
                await open_store(config)
        finally:
            await store.close()

    asyncio.run(beside())
    monkeypatch.setenv("CLICKINTENT_KEY", "another key of a workspace")
    assert "another key" in said(code=1)
