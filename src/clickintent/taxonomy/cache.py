"""Replies of language models, kept by the content of the request: sqlite3 and JSON, one small file.

Only hashes of requests are stored, and no key.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from dataclasses import asdict
from pathlib import Path

from clickintent.errors import WorkspaceError
from clickintent.taxonomy.answers import Reply

_TABLES = (
    "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)",
    # unusable replies: a killed run goes on with the repair, and a round of batch files knows the last one
    "CREATE TABLE IF NOT EXISTS refused (key TEXT PRIMARY KEY, reply TEXT NOT NULL, failed INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS spent (tokens INTEGER NOT NULL, cost REAL NOT NULL)",
)


class AnswerCache:
    """Valid answers as JSON, unusable replies, and what all of them cost; safe to use from several threads.

    Args:
        path: the file; None keeps everything in memory.
        read_only: change nothing: what is to be kept is not. A file that is not there is an empty one then.

    Raises:
        WorkspaceError: if the file is damaged.
    """

    def __init__(self, path: Path | None, *, read_only: bool = False) -> None:
        self._path = path
        self._lock = threading.Lock()
        reading = self._reading = read_only and path is not None and path.exists()
        if path is None or (read_only and not reading):
            where = ":memory:"
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            where = f"{path.resolve().as_uri()}{'?mode=ro' if reading else ''}"
        self._connection = sqlite3.connect(where, check_same_thread=False, isolation_level=None, uri=True)
        if not reading:
            self._execute("PRAGMA journal_mode=WAL")
            self._execute("PRAGMA synchronous=NORMAL")
            for table in _TABLES:
                self._execute(table)

    def get(self, key: str) -> str | None:
        rows = self._execute("SELECT answer FROM answers WHERE key = ?", key)
        return str(rows[0][0]) if rows else None

    def put(self, key: str, answer: str) -> None:
        """Keep an answer; it is on disk when this returns."""
        self._write("INSERT OR REPLACE INTO answers VALUES (?, ?)", key, answer)

    def refused(self, key: str) -> Reply | None:
        """The unusable reply to a request, if that is all there is."""
        rows = self._execute("SELECT reply FROM refused WHERE key = ?", key)
        return Reply(**json.loads(str(rows[0][0]))) if rows else None

    def refuse(self, key: str, reply: Reply) -> None:
        """Keep an unusable reply."""
        self._write("INSERT OR REPLACE INTO refused VALUES (?, ?, 0)", key, json.dumps(asdict(reply)))

    def fail(self, *keys: str) -> None:
        """Note that the repair of these requests was of no use either."""
        for key in keys:
            self._write("UPDATE refused SET failed = 1 WHERE key = ?", key)

    def failed(self, key: str) -> bool:
        return bool(self._execute("SELECT 1 FROM refused WHERE key = ? AND failed = 1", key))

    def spend(self, tokens: int, cost: float) -> None:
        """Add to what the answers cost."""
        self._write("INSERT INTO spent VALUES (?, ?)", tokens, cost)

    def spent(self) -> tuple[int, float]:
        """Tokens and money, of all runs that used this file."""
        tokens, cost = self._execute("SELECT sum(tokens), sum(cost) FROM spent")[0]
        return int(tokens or 0), float(cost or 0.0)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _write(self, statement: str, *values: str | float) -> None:
        if not self._reading:
            self._execute(statement, *values)

    def _execute(self, statement: str, *values: str | float) -> list[tuple[str | float | None, ...]]:
        try:
            with self._lock:
                return self._connection.execute(statement, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise WorkspaceError(
                f"{self._path}: the cache of answers cannot be used ({error}). Delete it; only the answers "
                "in it would have to be asked for again."
            ) from error
