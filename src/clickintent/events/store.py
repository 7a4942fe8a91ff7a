"""What ingest keeps between runs, in ``.ingest/``: which files it has read, and the coded events.

manifest.json          the files with their accounts, and the settings that they were read with
coded/part-*.parquet   every event once, coded (``clean.CODED``), in ranges of visitors
values.parquet         what codes mean, where that may be kept (``publish.VALUES``)
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clickintent.errors import WorkspaceError
from clickintent.workspace import write_json

FOLDER = ".ingest"
_FORMAT = 1


@dataclass
class ReadFile:
    """A file that was read."""

    number: int
    source: str
    path: str
    stamp: str  # size and time: as long as it is the same, the file is not opened
    hash: str  # of the content
    read: int
    quarantined: int
    reasons: dict[str, int]
    newest_first: bool


@dataclass
class Manifest:
    """All files that were ever read with the same settings."""

    settings: dict[str, str] = field(default_factory=dict)
    files: list[ReadFile] = field(default_factory=list)
    removed: dict[str, dict[str, int]] = field(default_factory=dict)  # column → detector → occurrences
    forgotten: list[int] = field(default_factory=list)  # codes of people who must not come back

    min_people: int = 1  # the texts of values that fewer people share are not kept
    key: str = ""  # which key the codes were made with; see ``coding.Keys.check``
    built: str = ""  # how the tables were made; empty if they never were
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def next_number(self) -> int:
        return max((file.number for file in self.files), default=-1) + 1

    def add_removed(self, counts: Counter[tuple[str, str]]) -> None:
        for (column, detector), n in counts.items():
            if n:
                of_column = self.removed.setdefault(column, {})
                of_column[detector] = of_column.get(detector, 0) + n

    def save(self, path: Path) -> None:
        write_json({"format": _FORMAT, **asdict(self)}, path)


def ready(folder: Path, key: str, key_env: str) -> Manifest:
    """The manifest of a workspace that has events, made with this key.

    Args:
        key: ``coding.Keys.check``.
        key_env: where the key was read from.

    Raises:
        WorkspaceError: if it has none, was made with another key, or the manifest is damaged.
    """
    found = load(folder)
    if not found.built:
        raise WorkspaceError(f"{folder} holds no events. Run 'clickintent ingest FILE.toml' first.")
    if found.key != key:
        raise WorkspaceError(f"{folder} was made with another key than the one in {key_env}.")
    return found


def load(folder: Path) -> Manifest:
    """The manifest of a workspace; an empty one if nothing was read yet, or by another version.

    Raises:
        WorkspaceError: if it is damaged.
    """
    path = folder / FOLDER / "manifest.json"
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Manifest()
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WorkspaceError(f"{path} is damaged. Ingest again with --force to start over.") from error
    if raw.pop("format", None) != _FORMAT:
        return Manifest()
    raw["files"] = [ReadFile(**file) for file in raw["files"]]
    return Manifest(**raw)
