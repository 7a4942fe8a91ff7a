"""Raw files staged side by side in processes of their own, because cleaning is Python and one runs at a time.

A worker is a fresh interpreter with a small engine, not a fork: forking a process whose libraries have
threads can hang it, and importing the caller's script again, as ``multiprocessing`` does, would run it twice.
Jobs and answers are pickled over pipes between the two, keys among them, so that no secret is in an argument,
the environment or a file.
"""

from __future__ import annotations

import os
import pickle
import queue
import re
import subprocess
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from clickintent.config import PrivacyConfig
from clickintent.errors import ClickintentError, DataError, error_of
from clickintent.events import engine as engines
from clickintent.events import remote, staging
from clickintent.events.clean import Cleaner
from clickintent.events.coding import Keys
from clickintent.events.staging import Account, RawFile, Staged
from clickintent.progress import Advance

_WORTH_IT = 64 * 2**20  # bytes of raw files; starting a worker takes a second
_MOST = 8


@dataclass(frozen=True)
class _Setup:
    keys: Keys
    privacy: PrivacyConfig
    forgotten: frozenset[int]
    scratch: Path
    memory_limit: str


@dataclass(frozen=True)
class _Answer:
    """What became of a file: its account, or the name and text of an error; and what the cleaner learned."""

    account: Account | None
    error: tuple[str, str] | None
    values: dict[str, dict[int, str]]
    removed: Counter[tuple[str, str]]


def count(raw: Sequence[RawFile]) -> int:
    """How many workers so many files are worth; 1: better read them here."""
    local = [Path(remote.without_file_scheme(file.path)) for file in raw if not remote.is_remote(file.path)]
    if sum(path.stat().st_size for path in local) < _WORTH_IT:
        return 1
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2, len(raw), _MOST)


def stage_files(
    n: int, memory_limit: str, cleaner: Cleaner, raw: Sequence[RawFile], scratch: Path, advance: Advance
) -> list[Staged]:
    """``staging.stage_files`` in ``n`` processes, which share the memory."""
    setup = _Setup(
        cleaner.keys, cleaner.config, frozenset(cleaner.forgotten), scratch, _share(memory_limit, n)
    )
    waiting: queue.SimpleQueue[RawFile] = queue.SimpleQueue()
    for file in raw:
        waiting.put(file)
    found: list[Staged] = []
    failed: list[BaseException] = []
    lock = threading.Lock()

    def done(file: RawFile, answer: _Answer) -> None:
        with lock:
            for field, known in answer.values.items():
                cleaner.values.setdefault(field, {}).update(known)
            cleaner.removed.update(answer.removed)
            error = error_of(*answer.error) if answer.error else None
            if error is not None and not isinstance(error, DataError):
                raise error
            found.append(Staged(file, answer.account, error))
            advance(len(found), Path(file.path).name)

    workers = [_start() for _ in range(n)]
    try:
        threads = [
            threading.Thread(target=_serve, args=(worker, setup, waiting, done, failed), daemon=True)
            for worker in workers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    if failed:
        raise failed[0]
    return sorted(found, key=lambda staged: staged.file.number)


def _start() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from clickintent.events import workers; workers.main()"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _serve(
    worker: subprocess.Popen[bytes],
    setup: _Setup,
    waiting: queue.SimpleQueue[RawFile],
    done: Callable[[RawFile, _Answer], None],
    failed: list[BaseException],
) -> None:
    """Give a worker one file after the other, until none is left or something went wrong."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    file = None
    try:
        _send(worker.stdin, setup)
        while not failed:
            try:
                file = waiting.get_nowait()
            except queue.Empty:
                return
            _send(worker.stdin, file)
            done(file, pickle.load(worker.stdout))
    except (EOFError, OSError, pickle.UnpicklingError):
        name = remote.shown(file.path) if file else "the first file"
        failed.append(
            DataError(
                f"the process that read {name} was killed; the memory may not have been enough. Give it "
                "less with memory_limit, or split the file."
            )
        )
    except BaseException as error:
        failed.append(error)


def _send(pipe: IO[bytes], what: Any) -> None:
    pickle.dump(what, pipe)
    pipe.flush()


def _share(memory_limit: str, n: int) -> str:
    number, unit = re.fullmatch(r"([\d.]+) ?(\w+)", memory_limit).groups()  # type: ignore[union-attr]
    return f"{float(number) / n:.3f}{unit}"


def main() -> None:
    """What a worker does: a setup and then files come in, an answer for each goes out."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever is printed must not get between the answers
    with suppress(EOFError, KeyboardInterrupt):  # there is no file any more, or no one who wants it
        setup: _Setup = pickle.load(sys.stdin.buffer)
        cleaner = Cleaner(setup.keys, setup.privacy, setup.forgotten)
        own = setup.scratch / f"worker-{os.getpid()}"
        with engines.open_engine(own, memory_limit=setup.memory_limit, threads=1) as engine:
            while True:
                file: RawFile = pickle.load(sys.stdin.buffer)
                _send(pipe, _stage(engine, cleaner, file, setup.scratch))


def _stage(engine: engines.Engine, cleaner: Cleaner, file: RawFile, scratch: Path) -> _Answer:
    before = {field: len(known) for field, known in cleaner.values.items()}
    cleaner.removed.clear()
    account, error = None, None
    try:
        account = staging.stage(engine, cleaner, file, scratch)
    except ClickintentError as problem:
        error = (type(problem).__name__, str(problem))
    except Exception:
        error = ("RuntimeError", traceback.format_exc())
    # a dictionary keeps the order in which its keys came: what is behind is new
    new = {f: dict(islice(known.items(), before.get(f, 0), None)) for f, known in cleaner.values.items()}
    return _Answer(account, error, new, Counter(cleaner.removed))
