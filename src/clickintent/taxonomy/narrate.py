"""A session as one readable, redacted line: what a language model and a person get to see of it.

    from google.com, campaign "spring" · Home, briefly → Mortgages ×3, long → searched "refi rates" → Log in

No id, no URL, no time of day. Dwell is in words: briefly (under 10 s), a while (under 60 s), long; nothing
for the last event, whose dwell nobody knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from clickintent.taxonomy.content import Item, label_of, read_contents, redact, shorten, site_names

_BRIEFLY_S, _LONG_S = 10.0, 60.0
_LABEL_LENGTH = 80
_HEAD, _TAIL = 12, 18  # steps shown of a very long session: how it began and how it ended


@dataclass(frozen=True)
class Narrative:
    """A session in words: the line that is shown, where it came from, and its events one by one."""

    text: str
    origin: str
    steps: tuple[str, ...]


def narrate(sessions: pa.Table, *, site: frozenset[str] | None = None) -> list[str]:
    """One line per session, in the order of the table (columns of the sessions schema).

    Args:
        site: folded title segments that name the site and are left out; by default those which the
            table's own titles share.
    """
    return [narrative.text for narrative in narratives(sessions, site=site)]


def site_of(sessions: pa.Table) -> frozenset[str]:
    """What ``narrate`` leaves out by default: the folded title segments that name these sessions' site."""
    return site_names(item.title for item in read_contents(sessions).items)


def narratives(sessions: pa.Table, *, site: frozenset[str] | None = None) -> Iterator[Narrative]:
    """The same with the events of each session one by one, unabridged."""
    contents = read_contents(sessions)
    if site is None:
        site = site_names(item.title for item in contents.items)
    words = [_step(item, site) for item in contents.items]
    bounds = np.searchsorted(contents.session, np.arange(sessions.num_rows + 1))
    for row, meta in enumerate(_meta(sessions)):
        start, stop = bounds[row], bounds[row + 1]
        steps = _without("\n".join(words[i] for i in contents.item[start:stop]), meta).split("\n")
        steps = steps if stop > start else []
        path = " → ".join(_fold_repeats(steps, contents.dwell_s[start:stop])) or "(no events)"
        origin = _without(_origin(meta), meta)
        yield Narrative(f"{origin}{path}", origin, tuple(steps))


def _meta(sessions: pa.Table) -> Iterator[dict[str, str | None]]:
    names = ["session_id", "visitor_id", "account_id", "referrer", "campaign"]
    for batch in sessions.select(names).to_batches():
        yield from batch.to_pylist()


def _origin(meta: dict[str, str | None]) -> str:
    referrer, campaign = redact(meta["referrer"]), redact(meta["campaign"])
    parts = []
    if referrer:
        parts.append(f"from {shorten(referrer.split('/')[0], 60)}")
    if campaign:
        parts.append(f'campaign "{shorten(_unquoted(campaign), 60)}"')
    return f"{', '.join(parts)} · " if parts else ""


def _step(item: Item, site: frozenset[str]) -> str:
    label = shorten(_unquoted(label_of(item, site)), _LABEL_LENGTH)
    if item.search:
        return f'searched "{_unquoted(item.search)}"'
    if item.action is None:
        return label
    if item.text:
        return f'{item.action} "{shorten(_unquoted(item.text), _LABEL_LENGTH)}" on {label}'
    return f"{item.action} on {label}"


def _fold_repeats(names: list[str], dwell_s: np.ndarray) -> list[str]:
    runs: list[tuple[str, int, float]] = []  # name, times, seconds (NaN: unknown)
    for name, seconds in zip(names, dwell_s.tolist(), strict=True):
        if runs and runs[-1][0] == name:
            _, times, before = runs[-1]
            known = [s for s in (before, seconds) if s == s]
            runs[-1] = (name, times + 1, sum(known) if known else seconds)
        else:
            runs.append((name, 1, seconds))
    told = [f"{name} ×{times}" if times > 1 else name for name, times, _ in runs]
    told = [
        f"{text}, {_dwell(run[2])}" if run[2] == run[2] else text
        for text, run in zip(told, runs, strict=True)
    ]
    left_out = len(told) - _HEAD - _TAIL
    if left_out > 1:
        told[_HEAD:-_TAIL] = [f"({left_out} more steps)"]
    return told


def _dwell(seconds: float) -> str:
    return "briefly" if seconds < _BRIEFLY_S else "a while" if seconds < _LONG_S else "long"


def _unquoted(text: str) -> str:
    return text.replace('"', "'")


def _without(line: str, meta: dict[str, str | None]) -> str:
    """Take out the session's own ids, should a title or a campaign carry one."""
    for key in ("session_id", "visitor_id", "account_id"):
        own = meta[key]
        if own and len(own) >= 4 and own.casefold() in line.casefold():
            line = re.sub(rf"(?<!\w){re.escape(own)}(?!\w)", "[id]", line, flags=re.IGNORECASE)
    return line
