"""What a store promises, of SQLite and of Redis alike, and what survives a kill."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from clickintent.config import Config, ServeConfig
from clickintent.errors import ConfigError, WorkspaceError
from clickintent.serve.live import Stored
from clickintent.serve.redis_store import open_redis
from clickintent.serve.sqlite_store import SqliteStore
from clickintent.serve.state import BusyError, Store, UnavailableError
from serving import Server, free_port

Served = tuple[Config, list[dict[str, Any]]]
T = TypeVar("T")
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


def stored(event: int, visitor: int = 1, ts: int = 10, account: int | None = None) -> Stored:
    return Stored(visitor, event, ts, 0, "web", 0, account, "page_view", "/", "Home", None)


class Redis:
    """A server that can be stopped and started again on the same data."""

    def __init__(self, folder: Path, settings: tuple[str, ...] = DURABLE) -> None:
        self.port, self.url = free_port(), ""
        self._folder, self._settings = folder, settings
        self.start()

    def start(self) -> None:
        self.url = f"redis://127.0.0.1:{self.port}"
        command = ["redis-server", "--port", str(self.port), "--dir", str(self._folder), "--save", ""]
        self._process = subprocess.Popen([*command, *self._settings], stdout=subprocess.DEVNULL)
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise AssertionError("redis-server does not start")

    def stop(self, how: int = signal.SIGTERM) -> None:
        self._process.send_signal(how)
        self._process.wait()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server")
    server = Redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "redis"])
def use(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Callable[[Store], Awaitable[T]]], T]:
    """Run something with an empty store."""

    def run(work: Callable[[Store], Awaitable[T]]) -> T:
        async def with_store() -> T:
            if request.param == "sqlite":
                store: Store = SqliteStore(tmp_path / "live.sqlite3", most_events=100)
            else:
                redis = request.getfixturevalue("redis")
                store = await open_redis(redis.url, ServeConfig(max_events_per_visitor=100))
                await store._redis.flushall()  # type: ignore[attr-defined]
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(with_store())

    return run


Use = Callable[[Callable[[Store], Awaitable[Any]]], Any]


def test_an_event_is_there_once(use: Use) -> None:
    async def work(store: Store) -> None:
        first = await store.append([stored(1), stored(2), stored(1), stored(1, visitor=2)])
        assert first.outcomes == ["accepted", "accepted", "duplicate", "accepted"]
        again = await store.append([stored(2), stored(3)])
        assert again.outcomes == ["duplicate", "accepted"]
        assert sorted(e.event for e in again.visitors[1]) == [1, 2, 3]
        assert sorted(e.event for e in await store.events(1)) == [1, 2, 3]
        assert await store.events(99) == []

    use(work)


def test_many_at_once_lose_nothing(use: Use) -> None:
    """Forty senders, one visitor, every event sent by two of them."""

    async def work(store: Store) -> None:
        rng = random.Random(1)
        requests = [[stored(i)] for i in range(80)] * 2
        rng.shuffle(requests)
        gate = asyncio.Semaphore(40)

        async def send(events: list[Stored]) -> str:
            async with gate:
                while True:
                    try:
                        return (await store.append(events)).outcomes[0]
                    except BusyError:
                        await asyncio.sleep(0.01)

        outcomes = await asyncio.gather(*map(send, requests))
        assert outcomes.count("accepted") == outcomes.count("duplicate") == 80
        assert sorted(e.event for e in await store.events(1)) == list(range(80))

    use(work)


def test_a_visitor_is_bounded(use: Use) -> None:
    async def work(store: Store) -> None:
        found = await store.append([stored(i) for i in range(120)])
        assert found.outcomes.count("accepted") == 100
        assert found.outcomes[100:] == ["too many"] * 20

    use(work)


def test_links_keep_the_earliest_time(use: Use) -> None:
    async def work(store: Store) -> None:
        await store.append([stored(1, ts=50, account=7), stored(2, ts=30, account=7), stored(3, account=8)])
        assert await store.link(1, 7, 40)
        assert await store.link(2, 7, 60)
        assert dict(await store.accounts(1)) == {7: 30, 8: 10}
        assert list(await store.visitors(7)) == [1, 2]

    use(work)


def test_forgetting_keeps_out(use: Use) -> None:
    async def work(store: Store) -> None:
        await store.append(
            [stored(1, account=7), stored(2), stored(3, visitor=2, account=7), stored(4, visitor=2)]
        )
        found = await store.forget_account(7, whole_or_own)
        assert (found.events, found.links) == (3, 2)
        assert await store.events(1) == []
        assert [e.event for e in await store.events(2)] == [4]
        assert list(await store.visitors(7)) == []
        assert dict(await store.accounts(2)) == {}
        again = await store.append([stored(9), stored(5, visitor=2), stored(6, visitor=2, account=7)])
        assert again.outcomes == ["forgotten", "accepted", "forgotten"]
        assert not await store.link(1, 9, 1)
        assert not await store.link(2, 7, 1)

    use(work)


def whole_or_own(stored: Sequence[Stored], links: Mapping[int, int]) -> set[int] | None:
    """Visitor 1 as a whole; of others what carries account 7."""
    return None if {event.visitor for event in stored} == {1} else {e.event for e in stored if e.account == 7}


def test_old_events_go(use: Use) -> None:
    async def work(store: Store) -> None:
        await store.append([stored(i, visitor=i % 7, ts=i) for i in range(60)])
        assert await store.expire(50) == 50
        left = [e.ts for visitor in range(7) for e in await store.events(visitor)]
        assert sorted(left) == list(range(50, 60))

    use(work)


def test_old_links_go(use: Use) -> None:
    async def work(store: Store) -> None:
        await store.append(
            [stored(1, ts=10, account=7), stored(2, ts=60, account=8), stored(3, ts=5, account=8)]
        )
        await store.expire(50)
        assert dict(await store.accounts(1)) == {8: 5}
        assert list(await store.visitors(7)) == []

    use(work)


def test_what_was_forgotten_is_not_in_the_file(tmp_path: Path) -> None:
    async def work() -> None:
        store = SqliteStore(tmp_path / "live.sqlite3")
        marked = [
            Stored(1, i, 10, 0, "web", 0, None, "view", "/", "a mark that is found", None) for i in range(50)
        ]
        await store.append(marked)
        await store.forget_visitor(1)
        await store.check()
        kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert b"a mark that is found" not in kept
        await store.close()

    asyncio.run(work())


def test_one_process_has_the_file(tmp_path: Path) -> None:
    async def work() -> None:
        store = SqliteStore(tmp_path / "live.sqlite3")
        with pytest.raises(WorkspaceError, match="another process"):
            SqliteStore(tmp_path / "live.sqlite3")
        await store.close()

    asyncio.run(work())


def test_a_writer_that_is_behind_says_so(tmp_path: Path) -> None:
    async def work() -> list[Any]:
        store = SqliteStore(tmp_path / "live.sqlite3", waiting=5)
        blocker = sqlite3.connect(tmp_path / "live.sqlite3", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")  # whatever makes the disk slow
        asked = [asyncio.ensure_future(store.append([stored(i)])) for i in range(400)]
        await asyncio.sleep(0.1)
        blocker.execute("COMMIT")
        blocker.close()
        results = await asyncio.gather(*asked, return_exceptions=True)
        kept = len(await store.events(1))
        await store.close()
        assert kept == sum(not isinstance(result, Exception) for result in results)
        return results

    assert any(isinstance(result, BusyError) for result in asyncio.run(work()))


def test_one_failure_harms_nobody_else(tmp_path: Path) -> None:
    def broken(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM events")
        raise OverflowError("what nobody thought of")

    async def work() -> None:
        store = SqliteStore(tmp_path / "live.sqlite3")
        results = await asyncio.gather(
            store.append([stored(1)]),
            store._do(broken),
            store.append([stored(2)]),
            return_exceptions=True,
        )
        assert [type(result).__name__ for result in results] == ["Appended", "OverflowError", "Appended"]
        assert sorted(e.event for e in await store.events(1)) == [1, 2]
        await store.close()

    asyncio.run(work())


def test_a_file_of_another_format_is_not_touched(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "live.sqlite3")) as connection:
        connection.execute("PRAGMA user_version = 99")

    async def work() -> None:
        with pytest.raises(WorkspaceError, match="another version"):
            SqliteStore(tmp_path / "live.sqlite3")

    asyncio.run(work())


# --- Redis ---


def test_a_redis_that_forgets_is_not_used(tmp_path: Path, redis: Redis) -> None:
    careless = Redis(tmp_path, ())
    try:
        with pytest.raises(ConfigError, match="appendfsync always"):
            asyncio.run(open_redis(careless.url, ServeConfig()))
    finally:
        careless.stop()
    with pytest.raises(WorkspaceError, match="does not answer"):
        asyncio.run(open_redis(careless.url, ServeConfig()))


def test_redis_may_go_and_come_back(tmp_path: Path, redis: Redis) -> None:
    server = Redis(tmp_path)

    async def work() -> None:
        store = await open_redis(server.url, ServeConfig(timeout_s=2))
        await store.append([stored(1)])
        server.stop(signal.SIGKILL)
        with pytest.raises(UnavailableError):
            await store.append([stored(2)])
        server.start()
        for _ in range(50):
            with contextlib.suppress(UnavailableError):
                await store.append([stored(3)])
                break
            await asyncio.sleep(0.05)
        assert {1, 3} <= {e.event for e in await store.events(1)}
        await store.close()

    try:
        asyncio.run(work())
    finally:
        server.stop()


# --- the process ---


def sent(number: int) -> dict[str, Any]:
    page = f"/page-{number % 5}"
    return {
        "event_id": f"e{number}",
        "visitor_id": f"v{number % 10}",
        "ts": time.time_ns() // 1000,
        "event_type": "view",
        "page": page,
    }


def test_what_was_acknowledged_survives_a_kill(file: Path) -> None:
    """Killed while it is being written to: every acknowledged event is there afterwards, none twice."""
    acknowledged: set[int] = set()
    number = 0
    for _ in range(3):
        server = Server(file)
        killer = subprocess.Popen(
            [sys.executable, "-c", f"import os, time; time.sleep(0.4); os.kill({server.process.pid}, 9)"]
        )
        with contextlib.suppress(OSError, urllib.error.URLError, ValueError):
            while True:
                numbers = range(number, number + 3)
                number += 3
                found = server.ask("/v1/events", {"events": [sent(n) for n in numbers]})
                assert found["accepted"] == 3
                acknowledged |= set(numbers)
        killer.wait()
        server.end(signal.SIGKILL)
    server = Server(file)
    outcomes = [server.ask("/v1/events", {"events": [sent(n)]}) for n in range(number)]
    assert server.end(signal.SIGTERM) is not None
    assert all(outcomes[n]["duplicates"] == 1 for n in acknowledged)
    with contextlib.closing(sqlite3.connect(file.parent / "w" / "serve" / "live.sqlite3")) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (number,)
    assert len(acknowledged) > 30


def test_what_keeps_it_from_starting_is_one_readable_message(file: Path) -> None:
    server = Server(file)
    command = [sys.executable, "-m", "clickintent", "serve", str(file), "--port"]
    second = subprocess.run([*command, str(free_port())], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "in use by another process" in second.stderr
    assert "Traceback" not in second.stderr
    server.end(signal.SIGTERM)
    wrong = subprocess.run([*command, "70000"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "--port" in wrong.stderr


def test_it_stops_when_told(file: Path) -> None:
    server = Server(file)
    said = server.end(signal.SIGINT)
    assert server.process.returncode in (0, 130, -signal.SIGINT)
    assert "Traceback" not in said
    assert f"http://127.0.0.1:{server.port}" in said


def test_the_serving_file_is_the_owners_alone(file: Path) -> None:
    server = Server(file)
    server.end(signal.SIGTERM)
    assert (file.parent / "w" / "serve" / "live.sqlite3").stat().st_mode & 0o077 == 0
