"""Progress on long work: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

#: Everything that people read goes to standard error; standard output is for results.
console = Console(stderr=True, highlight=False)

_LINE_EVERY_S = 10.0

#: ``advance(done)`` sets how much is done; ``advance(done, note)`` adds a word, such as the loss.
Advance = Callable[..., None]


@contextmanager
def progress(title: str, total: int, unit: str = "", *, silent: bool = False) -> Iterator[Advance]:
    """Show the progress of ``total`` steps of work.

    On a terminal a bar; elsewhere (a log, CI) a plain line at most every ten seconds.

    Args:
        silent: show nothing, because another process does.
    """
    if silent:
        yield lambda done, note="": None  # noqa: ARG005 - called as the others are
        return
    if console.is_terminal:
        text = TextColumn("  {task.description}")
        columns = (text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(title, total=total)

            def advance(done: int, note: str = "") -> None:
                bar.update(task, completed=done, description=f"{title} {note}".strip())

            yield advance
        return

    last = time.monotonic()

    def advance_plain(done: int, note: str = "") -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_EVERY_S:
            last = time.monotonic()
            console.print(f"  {title}: {done:,}/{total:,} {unit} {note}".rstrip(), soft_wrap=True)

    yield advance_plain


def say(message: str, *, markup: bool = False) -> None:
    """Print one line for the person at the terminal.

    Args:
        markup: whether ``[bold]`` and the like are styles of rich; or else they are text, as in a path.
    """
    console.print(message, soft_wrap=True, markup=markup)
