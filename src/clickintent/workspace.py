"""The workspace: one folder per run, written atomically, so that a killed run resumes.

A stage is up to date when what it was made from (its configuration and the fingerprints of its inputs)
is what its record in ``.stages/NAME.json`` says, and its outputs are there. The record is written last:
a stage killed before that is done again, from its checkpoints where it keeps any.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from clickintent.errors import InUseError, WorkspaceError
from clickintent.progress import say

Metrics = dict[str, Any]

_STAGES = ".stages"
_TEMPORARY = ".tmp"
_JOURNAL = ".commit.json"


@contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` for a file or folder; it takes the name when all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{_TEMPORARY}-{os.getpid()}-{path.name}"
    _remove(temporary)
    try:
        yield temporary
        if path.is_dir():  # a folder cannot be renamed over another
            old = path.parent / f"{_TEMPORARY}-{os.getpid()}-old-{path.name}"
            _remove(old)
            path.rename(old)
            temporary.rename(path)
            _remove(old)
        else:
            temporary.replace(path)
    finally:
        _remove(temporary)


def write_table(table: pa.Table, path: Path, *, row_group_size: int = 20_000) -> None:
    """Write one Parquet file atomically."""
    with atomically(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=row_group_size)


def write_text(text: str, path: Path) -> None:
    """Write one UTF-8 text file atomically."""
    with atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(value: Any, path: Path) -> None:
    """Write one JSON file atomically."""
    write_text(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n", path)


def commit(folder: Path, made: Path, names: Sequence[str]) -> None:
    """Put ``names`` from the folder ``made`` in place of those in ``folder``: all of them, or none.

    What is to be renamed is written down first. A process that is killed half-way leaves the list behind, and
    ``recover`` finishes the work.
    """
    for path in sorted(made.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    write_json({"made": made.name, "names": list(names)}, folder / _JOURNAL)
    with (folder / _JOURNAL).open("rb") as file:
        os.fsync(file.fileno())
    recover(folder)


def recover(folder: Path) -> None:
    """Finish a commit that was begun. Harmless when there is none."""
    journal = folder / _JOURNAL
    if not journal.exists():
        return
    plan = json.loads(journal.read_text(encoding="utf-8"))
    made = folder / plan["made"]
    for name in plan["names"]:
        if (made / name).exists():
            # whatever the old one holds, the new one is complete
            if (folder / name).is_dir():
                old = made / f"old-{name}"
                shutil.rmtree(old, ignore_errors=True)
                (folder / name).rename(old)
            (made / name).rename(folder / name)
    journal.unlink()
    shutil.rmtree(made, ignore_errors=True)


@contextmanager
def enough_space(folder: Path) -> Iterator[None]:
    """A disk that fills, whoever notices it, becomes an error that says so.

    Raises:
        WorkspaceError: if it does.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, WorkspaceError) or not is_full(error):
            raise
        raise WorkspaceError(
            f"{folder}: the disk is full, or files may not grow further. Nothing was changed. Free some "
            "space and give the same command again."
        ) from error


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is that there is no room left."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    while error is not None:
        said = str(error)
        if getattr(error, "errno", None) in full or any(os.strerror(number) in said for number in full):
            return True
        error = error.__cause__
    return False


def fingerprint(*parts: Any) -> str:
    """A stable hash of configurations, numbers and strings."""
    plain = [p.model_dump(mode="json") if isinstance(p, BaseModel) else p for p in parts]
    text = json.dumps(plain, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_fingerprint(path: Path) -> str:
    """A hash of a file's or folder's names, sizes and times: cheap, and enough to see a change."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    seen = [(f.name, s.st_size, s.st_mtime_ns) for f in files if f.is_file() and (s := f.stat())]
    return fingerprint(str(path), seen)


@dataclass(frozen=True)
class Workspace:
    """The folder of one run. See DESIGN in docs/architecture.md for its layout."""

    root: Path
    done: dict[str, str] = field(default_factory=dict, compare=False)

    def path(self, name: str) -> Path:
        return self.root / name

    def read_table(self, name: str, needed_by: str, made_by: str, **options: Any) -> pa.Table:
        """Read a table of the workspace.

        Raises:
            WorkspaceError: if it is not there; says which command makes it.
        """
        path = self.path(name)
        if not path.exists():
            raise WorkspaceError(
                f"{needed_by} needs {path}, which is not there. Run 'clickintent {made_by}' first."
            )
        return pq.read_table(path, **options)

    def stage(
        self,
        name: str,
        work: Callable[[], Metrics],
        *,
        made_from: Sequence[Any],
        outputs: Sequence[str],
        force: bool = False,
    ) -> Metrics:
        """Do ``work`` unless it is up to date; keep the metrics that it returns.

        Args:
            made_from: configurations, file fingerprints and the records of earlier stages (``self.record``).
            outputs: names in the workspace that must exist for the stage to be up to date.
        """
        key = fingerprint(name, *made_from)
        record = self._read_record(name)
        if not force and record.get("key") == key and all(self.path(o).exists() for o in outputs):
            say(f"[green]✓[/] {name} [dim]is up to date[/]", markup=True)
            metrics: Metrics = record["metrics"]
            return metrics
        say(f"[bold]{name}[/]", markup=True)
        self._record_path(name).unlink(missing_ok=True)
        started = time.monotonic()
        metrics = work()
        seconds = time.monotonic() - started
        write_json(
            {"key": key, "run": fingerprint(key, time.time_ns()), "seconds": seconds, "metrics": metrics},
            self._record_path(name),
        )
        self._write_metrics()
        say(f"[green]✓[/] {name} [dim]{seconds:.1f} s[/]", markup=True)
        return metrics

    def update_metrics(self, name: str, metrics: Metrics) -> None:
        """Replace the metrics of a stage that was done, after its tables were changed in place."""
        record = dict(self._read_record(name))
        if record:
            write_json({**record, "metrics": metrics}, self._record_path(name))
            self._write_metrics()

    def record(self, name: str) -> str:
        """Changes whenever stage ``name`` was done anew; empty if it never was."""
        return str(self._read_record(name).get("run", ""))

    def metrics(self) -> Metrics:
        """All metrics so far, by section."""
        merged: Metrics = {}
        for path in sorted(self.path(_STAGES).glob("*.json")):
            for section, values in json.loads(path.read_text(encoding="utf-8"))["metrics"].items():
                merged[section] = values
        return merged

    def _write_metrics(self) -> None:
        write_json(self.metrics(), self.path("metrics.json"))

    def _record_path(self, name: str) -> Path:
        return self.path(_STAGES) / f"{name}.json"

    def _read_record(self, name: str) -> Mapping[str, Any]:
        try:
            record: Mapping[str, Any] = json.loads(self._record_path(name).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return record


@contextmanager
def open_workspace(root: Path) -> Iterator[Workspace]:
    """Open a workspace for writing; only one process may at a time.

    Raises:
        InUseError: if another process has it open.
        WorkspaceError: if the path is not a folder.
    """
    if root.exists() and not root.is_dir():
        raise WorkspaceError(f"{root} is a file; give a folder as the workspace.")
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUseError(f"{root} is in use by another clickintent process.") from error
        recover(root)
        leftovers = sorted(root.glob(f"**/{_TEMPORARY}-*"))  # of a process that was killed
        for leftover in leftovers:
            _put_in_place(leftover)
        for leftover in leftovers:
            _remove(leftover)
        yield Workspace(root)


def _put_in_place(leftover: Path) -> None:
    """Where ``atomically`` was killed between its two renames, the new folder, complete, takes the name."""
    found = re.fullmatch(rf"{re.escape(_TEMPORARY)}-(\d+)-old-(.+)", leftover.name)
    if found and not (leftover.parent / found[2]).exists():
        new = leftover.parent / f"{_TEMPORARY}-{found[1]}-{found[2]}"
        (new if new.exists() else leftover).rename(leftover.parent / found[2])


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
