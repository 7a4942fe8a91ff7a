"""What a tag sends → an event that may be kept: checked, redacted and generalised as in batch, or refused.

The functions are those of ``events.clean``, and what may be read is what the last ingest published: a page
that too few people had seen by then is generalised to its parent, a title that too few had seen is dropped.
Raw URLs, titles and ids end here.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from clickintent.config import PrivacyConfig
from clickintent.errors import ArtifactError
from clickintent.events import clean, store, templates
from clickintent.events.coding import Keys

_OTHER = "{other}"
_SCREEN = "\x00"  # the name of a screen must not be taken for a path of the same word
_REMEMBERED = 100_000  # cleaned values of one field; then it starts anew

_Find = Callable[[str], str | None]
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Event(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One action, as a tag or an app sends it. Give ``url`` or ``page``."""

    ts: int  # µs since 1970 UTC
    event_type: str
    url: str | None = None
    page: str | None = None  # a path, or the name of a screen
    title: str | None = None
    text: str | None = None  # a search term or the text of an element
    consent: str | None = None  # as in batch: what privacy.consent lists, or the event is refused


class Kept(msgspec.Struct, frozen=True):
    """What is left of an event: what the encoder reads. Published values only."""

    event_type: str
    page: str
    title: str | None
    text: str | None


@dataclass(frozen=True)
class Published:
    """What may be read, as the last ingest decided."""

    pages: frozenset[str]
    titles: frozenset[str]
    texts: frozenset[str]
    #: Every path above or at a published page, as segments.
    paths: frozenset[tuple[str, ...]] = field(repr=False, default=frozenset())

    @classmethod
    def of(cls, pages: Iterable[str], titles: Iterable[str], texts: Iterable[str]) -> Published:
        pages = frozenset(pages)
        paths = {parts[:n] for parts in map(_segments, pages) for n in range(1, len(parts) + 1)}
        return cls(pages, frozenset(titles), frozenset(texts), frozenset(paths))

    @classmethod
    def load(cls, workspace: Path) -> Published:
        """What ``ingest`` published in a workspace.

        Raises:
            ArtifactError: if the files are missing or damaged; names them.
        """
        values, pages = workspace / store.FOLDER / "values.parquet", workspace / "pages.parquet"
        try:
            known = pq.read_table(
                values, columns=["field", "text"], filters=[("field", "in", ["title", "text"])]
            )
            texts: dict[str, list[str]] = {"title": [], "text": []}
            for name, text in zip(known["field"].to_pylist(), known["text"].to_pylist(), strict=True):
                if text is not None:
                    texts[name].append(text)
            names = pq.read_table(pages, columns=["page"])["page"].to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise ArtifactError(
                f"{workspace}: what may be read of pages and titles is not there ({error}). Run "
                "'clickintent ingest', or copy pages.parquet and .ingest/values.parquet along."
            ) from error
        return cls.of(names, texts["title"], texts["text"])

    def page(self, page: str) -> str:
        """The page, or what stands for it where too few people saw it (see ``events.rare``)."""
        if page in self.pages:
            return page
        path: tuple[str, ...] = ()
        best = "/"
        for part in _segments(page):
            step = next((p for p in ((*path, part), (*path, _OTHER)) if p in self.paths), None)
            if step is None:
                break
            path = step
            found = templates.page(
                [p.removeprefix(_SCREEN) for p in path], screen=path[0].startswith(_SCREEN)
            )
            best = found if found in self.pages else best
        return best


def _segments(page: str) -> tuple[str, ...]:
    parts = templates.segments(page)
    return parts if page.startswith("/") else (f"{_SCREEN}{parts[0]}", *parts[1:])


class Gate:
    """Cleans single events; remembers what it has seen.

    Attributes:
        refused: reason → events refused so far.
    """

    def __init__(self, config: PrivacyConfig, keys: Keys, published: Published) -> None:
        self.keys, self.published = keys, published
        self._config = config
        self._all = config.min_people == 1  # nothing is rare
        self._consent = frozenset(value.strip().lower() for value in config.consent)
        self._pages: dict[tuple[str | None, str | None], tuple[str, bool, str | None] | None] = {}
        self._titles: dict[str, str | None] = {}
        self._texts: dict[str, str | None] = {}
        self._types: dict[str, str | None] = {}
        self.refused: Counter[str] = Counter()

    def keep(self, event: Event, latest: int) -> Kept | str:
        """What may be kept of the event, or why it is refused: a reason of ``events.clean``.

        Args:
            latest: a ``ts`` after it is in the future.
        """
        found = self._kept(event, latest)
        if isinstance(found, str):
            self.refused[found] += 1
        return found

    def visitor(self, raw: str) -> int | None:
        """The code of a visitor or account id; None if it says nothing."""
        said = something(raw)
        return None if said is None else self.keys.identifier(said)

    def event(self, visitor: str, event_id: str) -> int | None:
        """The code of an event of a visitor, the same as in batch."""
        own, said = something(visitor), something(event_id)
        if own is None or said is None:
            return None
        digest = hashlib.md5(
            f"{self.keys.events}\x1e{own}\x1e{said}".encode(), usedforsecurity=False
        ).digest()
        return int.from_bytes(digest[8:], "little", signed=True)

    def _kept(self, event: Event, latest: int) -> Kept | str:
        agreed = something(event.consent)
        if agreed is None and self._config.require_consent:
            return clean.NO_CONSENT
        if agreed is not None and agreed.lower() not in self._consent:
            return clean.NO_CONSENT
        if event.ts < clean.EARLIEST:
            return clean.EARLY_TS
        if event.ts > latest:
            return clean.LATE_TS
        kind = _once(self._types, event.event_type, _event_type)
        if kind is None:
            return clean.NO_TYPE
        where = (event.page, event.url)
        if where in self._pages:
            page = self._pages[where]
        else:
            page = self._page(*where)
            _remember(self._pages, where, page)
        if page is None:
            nowhere = something(event.page) is None and something(event.url) is None
            return clean.NO_PAGE if nowhere else clean.BAD_URL
        name, is_own, term = page
        text = term if event.text is None else _once(self._texts, event.text, self._text) or term
        if not is_own:  # its title and text would tell what page it was
            return Kept(kind, name, None, None)
        title = None if event.title is None else _once(self._titles, event.title, self._title)
        return Kept(kind, name, title, text)

    def _page(self, raw: str | None, url: str | None) -> tuple[str, bool, str | None] | None:
        raw, url = something(raw), something(url)
        term, page = None, None
        if url is not None:
            (page, term), _ = clean.url_of(url, self._config)
        if raw is not None:
            named = raw if raw in self.published.pages else clean.page_of(raw, self._config)[0][0]
            page = named if named is not None else page
        if page is None:
            return None
        public = page if self._all else self.published.page(page)
        if term is not None and not self._all and term not in self.published.texts:
            term = None
        return public, public == page, term

    def _title(self, raw: str) -> str | None:
        return self._shared(raw, self.published.titles)

    def _text(self, raw: str) -> str | None:
        return self._shared(raw, self.published.texts)

    def _shared(self, raw: str, known: frozenset[str]) -> str | None:
        (found,), _ = clean.text_of(raw)
        return found if self._all or found in known else None


def something(raw: str | None) -> str | None:
    """Text without white space around it; None if it says nothing."""
    if raw is None:
        return None
    raw = raw.strip()
    return None if raw.lower() in clean.NOTHING else raw


def _event_type(raw: str) -> str | None:
    said = something(raw)
    return None if said is None else clean.event_type_of(said)[0][0]


def _once(memory: dict[str, str | None], raw: str, find: _Find) -> str | None:
    if raw in memory:
        return memory[raw]
    found = find(raw)
    _remember(memory, raw, found)
    return found


def _remember(memory: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    if len(memory) >= _REMEMBERED:
        memory.clear()
    memory[key] = value
