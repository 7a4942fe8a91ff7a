"""The embedded store: SQLite in the workspace, for one process.

One thread writes. It gathers what waits into one transaction and answers when that is on the disk
(write-ahead log, ``synchronous = FULL``), so many requests share one ``fsync``. What waits is bounded:
beyond it the answer is ``BusyError`` at once. Another thread carries the log into the file meanwhile, which
would keep the writer for tens of milliseconds.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

from clickintent.errors import WorkspaceError
from clickintent.serve.live import Stored, decode, encode
from clickintent.serve.state import (
    Appended,
    Belonging,
    BusyError,
    Forgotten,
    Outcome,
    UnavailableError,
    sort_out,
)

_FORMAT = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY,  -- as they came: what is written together stands together
    visitor INTEGER NOT NULL, event INTEGER NOT NULL, ts INTEGER NOT NULL, body BLOB NOT NULL,
    UNIQUE (visitor, event)
);
CREATE INDEX IF NOT EXISTS events_by_ts ON events (ts);
CREATE TABLE IF NOT EXISTS links (
    account INTEGER NOT NULL, visitor INTEGER NOT NULL, known_at INTEGER NOT NULL, last_at INTEGER NOT NULL,
    PRIMARY KEY (account, visitor)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS links_by_visitor ON links (visitor);
CREATE INDEX IF NOT EXISTS links_by_last ON links (last_at);
CREATE TABLE IF NOT EXISTS forgotten (code INTEGER PRIMARY KEY);
"""
_SETTINGS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # on the disk before it is acknowledged
    "PRAGMA secure_delete = ON",  # what is forgotten is overwritten
    "PRAGMA busy_timeout = 5000",
    "PRAGMA cache_size = -32768",  # KiB
    "PRAGMA wal_autocheckpoint = 0",  # see _tidy
)
_TIDY_SECONDS = 1.0
_LOG_PAGES = 8_192  # of 4 KiB, that the log may have before the writer waits for it to be emptied
_TOGETHER = 256  # operations in one transaction
_EXPIRED_AT_ONCE = 2_000  # events, so that requests do not wait for all of them
_ATTEMPTS = 50  # to empty the log

_T = TypeVar("_T")
_Work = Callable[[sqlite3.Connection], Any]


class SqliteStore:
    """See the module. Made inside a running event loop."""

    def __init__(self, path: Path, *, most_events: int = 5_000, waiting: int = 2_000) -> None:
        """
        Args:
            most_events: of one visitor; who sends more is no person.
            waiting: operations that may wait to be written.

        Raises:
            WorkspaceError: if the file cannot be used; says why.
        """
        self._path, self._most = path, most_events
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            self._alone = _alone(path)
            with closing(self._open()) as connection:
                _prepare(connection, path)
        except (sqlite3.Error, OSError) as error:
            raise WorkspaceError(f"{path}: live sessions cannot be kept here: {error}.") from error
        self._loop = asyncio.get_running_loop()
        self._queue: queue.Queue[tuple[_Work, asyncio.Future[Any]] | None] = queue.Queue(waiting)
        self._thread = threading.Thread(target=self._write, name="live-sessions", daemon=True)
        self._thread.start()
        self._log = threading.Lock()  # only one at a time may empty it
        self._ending = threading.Event()
        self._tidier = threading.Thread(target=self._tidy, name="live-sessions-log", daemon=True)
        self._tidier.start()

    async def append(self, events: Sequence[Stored]) -> Appended:
        return await self._do(lambda connection: _append(connection, events, self._most))

    async def link(self, visitor: int, account: int, at: int) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            if _forgotten(connection, (visitor, account)):
                return False
            _link(connection, visitor, account, at)
            return True

        return await self._do(work)

    async def events(self, visitor: int) -> Sequence[Stored]:
        return await self._do(lambda connection: _events(connection, visitor))

    async def accounts(self, visitor: int) -> Mapping[int, int]:
        return await self._do(lambda connection: _accounts(connection, visitor))

    async def visitors(self, account: int) -> Sequence[int]:
        return await self._do(lambda connection: _visitors(connection, account))

    async def forget_visitor(self, visitor: int) -> Forgotten:
        found = await self._do(lambda connection: _forget_visitor(connection, visitor))
        await self._empty_log()
        return found

    async def forget_account(self, account: int, belonging: Belonging) -> Forgotten:
        found = await self._do(lambda connection: _forget_account(connection, account, belonging))
        await self._empty_log()
        return found

    async def expire(self, before: int) -> int:
        total = 0
        while True:
            n = await self._do(lambda connection: _expire(connection, before))
            total += n
            if n < _EXPIRED_AT_ONCE:
                return total

    async def check(self) -> None:
        await self._do(lambda connection: connection.execute("SELECT 1").fetchone())

    async def close(self) -> None:
        self._ending.set()
        await asyncio.to_thread(self._tidier.join)
        await asyncio.to_thread(self._queue.put, None)
        await asyncio.to_thread(self._thread.join)
        os.close(self._alone)

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        for setting in _SETTINGS:
            connection.execute(setting)
        return connection

    async def _do(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Have the writer do it, in a transaction with others."""
        if not self._thread.is_alive():
            raise UnavailableError("the writer of live sessions has ended; the process must be restarted.")
        future: asyncio.Future[_T] = self._loop.create_future()
        try:
            self._queue.put_nowait((work, future))
        except queue.Full as error:
            raise BusyError("too many requests wait to be written; try again in a second.") from error
        return await future

    async def _empty_log(self) -> None:
        """Nothing of what was forgotten stays behind in the log."""
        try:
            await asyncio.to_thread(self._checkpoint, "TRUNCATE")
        except sqlite3.Error as error:
            raise UnavailableError(
                f"it is removed, but may still be read in the log of the file ({error}); ask again."
            ) from error

    def _write(self) -> None:
        with closing(self._open()) as connection:
            going = True
            while going:
                batch = [self._queue.get()]
                while len(batch) < _TOGETHER:
                    try:
                        batch.append(self._queue.get_nowait())
                    except queue.Empty:
                        break
                going = None not in batch
                wanted = [item for item in batch if item is not None]
                answers = _transaction(connection, [work for work, _ in wanted])
                futures = [future for _, future in wanted]
                self._loop.call_soon_threadsafe(_answer, futures, answers)

    def _tidy(self) -> None:
        """Carry the log into the file without keeping the writer; if that falls behind, the writer waits."""
        while not self._ending.wait(_TIDY_SECONDS):
            with suppress(sqlite3.Error):  # the next time will do
                if self._checkpoint("PASSIVE") > _LOG_PAGES:
                    self._checkpoint("RESTART")

    def _checkpoint(self, how: str) -> int:
        """Carry the log into the file, and return how many pages it has.

        Raises:
            sqlite3.Error: if it is to be empty, and others keep it from being so.
        """
        with self._log, closing(self._open()) as connection:
            for _ in range(_ATTEMPTS):
                busy, pages, _ = connection.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
                if how == "PASSIVE" or not busy:
                    return int(pages)
                time.sleep(0.02)
        raise sqlite3.OperationalError("the log is in use")


def _alone(path: Path) -> int:
    """Only one process may use the file: what it has read must stay true until it writes."""
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise WorkspaceError(
            f"{path} is in use by another process. Several processes need serve.store = 'redis://…'."
        ) from error
    return descriptor


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in (0, _FORMAT):
        raise WorkspaceError(
            f"{path} was written by another version of clickintent (format {version}, here {_FORMAT}). Use "
            "that one, or move the file away to start with none."
        )
    connection.executescript(_SCHEMA)
    connection.execute(f"PRAGMA user_version = {_FORMAT}")


def _transaction(connection: sqlite3.Connection, works: Sequence[_Work]) -> list[Any]:
    """A result or an error for each. Where one fails, each is done by itself: no other suffers from it."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        answers = [work(connection) for work in works]
        connection.execute("COMMIT")
        return answers
    except Exception as error:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        if len(works) > 1:
            return [answer for work in works for answer in _transaction(connection, [work])]
        if isinstance(error, sqlite3.Error):
            return [UnavailableError(f"live sessions cannot be written: {error}.")]
        return [error]


def _answer(futures: Iterable[asyncio.Future[Any]], answers: Iterable[Any]) -> None:
    for future, answer in zip(futures, answers, strict=True):
        if future.done():  # whoever asked has gone
            continue
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)


def _append(connection: sqlite3.Connection, events: Sequence[Stored], most: int) -> Appended:
    codes = {e.visitor for e in events} | {e.account for e in events if e.account is not None}
    gone = _forgotten(connection, codes)
    outcomes: dict[int, Outcome] = {}
    visitors: dict[int, Sequence[Stored]] = {}
    for visitor in dict.fromkeys(event.visitor for event in events):
        places = [place for place, event in enumerate(events) if event.visitor == visitor]
        kept = {event.event: event for event in _events(connection, visitor)}
        found, new = sort_out(visitor, [events[place] for place in places], kept, gone, most)
        outcomes.update(zip(places, found, strict=True))
        visitors[visitor] = list(kept.values())
        connection.executemany(
            "INSERT INTO events (visitor, event, ts, body) VALUES (?, ?, ?, ?)",
            [(e.visitor, e.event, e.ts, encode(e)) for e in new],
        )
        for event in new:
            if event.account is not None:
                _link(connection, visitor, event.account, event.ts)
    return Appended([outcomes[place] for place in range(len(events))], visitors)


def _events(connection: sqlite3.Connection, visitor: int) -> list[Stored]:
    found = connection.execute("SELECT body FROM events WHERE visitor = ?", (visitor,))
    return [decode(body) for (body,) in found]


def _accounts(connection: sqlite3.Connection, visitor: int) -> dict[int, int]:
    return dict(connection.execute("SELECT account, known_at FROM links WHERE visitor = ?", (visitor,)))


def _visitors(connection: sqlite3.Connection, account: int) -> list[int]:
    found = connection.execute("SELECT visitor FROM links WHERE account = ? ORDER BY visitor", (account,))
    return [visitor for (visitor,) in found]


def _link(connection: sqlite3.Connection, visitor: int, account: int, at: int) -> None:
    connection.execute(
        "INSERT INTO links VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "known_at = min(known_at, excluded.known_at), last_at = max(last_at, excluded.last_at)",
        (account, visitor, at, at),
    )


def _forgotten(connection: sqlite3.Connection, codes: Iterable[int]) -> set[int]:
    query = "SELECT code FROM forgotten WHERE code = ?"
    return {code for code in codes if connection.execute(query, (code,)).fetchone()}


def _forget_visitor(connection: sqlite3.Connection, visitor: int) -> Forgotten:
    connection.execute("INSERT OR IGNORE INTO forgotten VALUES (?)", (visitor,))
    events = connection.execute("DELETE FROM events WHERE visitor = ?", (visitor,)).rowcount
    links = connection.execute("DELETE FROM links WHERE visitor = ?", (visitor,)).rowcount
    return Forgotten(events, links)


def _forget_account(connection: sqlite3.Connection, account: int, belonging: Belonging) -> Forgotten:
    events = links = 0
    for visitor in _visitors(connection, account):
        chosen = belonging(_events(connection, visitor), _accounts(connection, visitor))
        if chosen is None:
            found = _forget_visitor(connection, visitor)
            events, links = events + found.events, links + found.links
        else:
            query = "DELETE FROM events WHERE visitor = ? AND event = ?"
            events += len(chosen)
            connection.executemany(query, [(visitor, event) for event in chosen])
    links += connection.execute("DELETE FROM links WHERE account = ?", (account,)).rowcount
    connection.execute("INSERT OR IGNORE INTO forgotten VALUES (?)", (account,))
    return Forgotten(events, links)


def _expire(connection: sqlite3.Connection, before: int) -> int:
    query = "SELECT id FROM events WHERE ts < ? ORDER BY ts LIMIT ?"
    old = connection.execute(query, (before, _EXPIRED_AT_ONCE)).fetchall()
    connection.executemany("DELETE FROM events WHERE id = ?", old)
    connection.execute("DELETE FROM links WHERE last_at < ?", (before,))
    return len(old)
