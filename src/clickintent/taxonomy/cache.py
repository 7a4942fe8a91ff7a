"""Answers of language models, kept by the content of the request: sqlite3 and JSON, one small file.

Only hashes of requests are stored, and no key.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from clickintent.errors import WorkspaceError


class AnswerCache:
    """A table of request hash → JSON answer; safe to use from several threads.

    Raises:
        WorkspaceError: if the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._execute("PRAGMA journal_mode=WAL")
        self._execute("PRAGMA synchronous=NORMAL")
        self._execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")

    def get(self, key: str) -> str | None:
        rows = self._execute("SELECT answer FROM answers WHERE key = ?", key)
        return str(rows[0][0]) if rows else None

    def put(self, key: str, answer: str) -> None:
        """Keep an answer; it is on disk when this returns."""
        self._execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", key, answer)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _execute(self, statement: str, *values: str) -> list[tuple[str, ...]]:
        try:
            with self._lock:
                return self._connection.execute(statement, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise WorkspaceError(
                f"{self._path}: the cache of answers cannot be used ({error}). Delete it; only the answers "
                "in it would have to be asked for again."
            ) from error
