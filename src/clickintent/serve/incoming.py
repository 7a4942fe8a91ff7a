"""What a tag sends → an event that may be kept: checked, redacted and generalised as in batch, or refused.

The functions are those of ``events.clean``, and what may be read is what the last ingest published: a page
that too few people had seen by then is generalised to its parent, a title that too few had seen is dropped.
Raw URLs, titles and ids end here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Meta

from clickintent.config import PrivacyConfig
from clickintent.errors import ArtifactError
from clickintent.events import clean, store, templates
from clickintent.events.coding import Keys

_OTHER = "{other}"
_SCREEN = "\x00"  # the name of a screen must not be taken for a path of the same word
_REMEMBERED, _REMEMBERED_LENGTH = 50_000, 1_000  # events, and the characters of one; then it starts anew
_WHITE = " \t\n\r\v\f"  # what the engine takes for white space

_Raw = tuple[str, str | None, str | None, str | None, str | None]


class Event(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One action, as a tag or an app sends it. Give ``url`` or ``page``."""

    ts: int  # µs since 1970 UTC
    event_type: Annotated[str, Meta(max_length=128)]
    url: Annotated[str, Meta(max_length=4096)] | None = None
    page: Annotated[str, Meta(max_length=1024)] | None = None  # a path, or the name of a screen
    title: Annotated[str, Meta(max_length=1024)] | None = None
    text: Annotated[str, Meta(max_length=1024)] | None = None  # a search term or the text of an element
    #: As in batch: what privacy.consent lists, or the event is refused.
    consent: Annotated[str, Meta(max_length=128)] | None = None


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
    """Cleans single events; remembers, in memory, what it has seen."""

    def __init__(self, config: PrivacyConfig, keys: Keys, published: Published) -> None:
        self.keys, self.published = keys, published
        self._config = config
        self._all = config.min_people == 1  # nothing is rare
        self._consent = frozenset(value.strip().lower() for value in config.consent)
        self._memory: dict[_Raw, Kept | str] = {}

    def keep(self, event: Event, latest: int) -> Kept | str:
        """What may be kept of the event, or why it is refused: a reason of ``events.clean``.

        Args:
            latest: a ``ts`` after it is in the future.
        """
        if not self.agrees(event.consent):
            return clean.NO_CONSENT
        if event.ts < clean.EARLIEST:
            return clean.EARLY_TS
        if event.ts > latest:
            return clean.LATE_TS
        raw = (event.event_type, event.page, event.url, event.title, event.text)
        found = self._memory.get(raw)
        if found is None:
            found = self._kept(*raw)
            if sum(len(text) for text in raw if text) <= _REMEMBERED_LENGTH:
                if len(self._memory) >= _REMEMBERED:
                    self._memory.clear()
                self._memory[raw] = found
        return found

    def agrees(self, consent: str | None) -> bool:
        """Whether what was said of consent, if anything, allows to keep what comes with it."""
        said = something(consent)
        return not self._config.require_consent if said is None else said.lower() in self._consent

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

    def _kept(
        self, event_type: str, page: str | None, url: str | None, title: str | None, text: str | None
    ) -> Kept | str:
        said = something(event_type)
        kind = None if said is None else clean.event_type_of(said)[0][0]
        if kind is None:
            return clean.NO_TYPE
        page, url = something(page), something(url)
        if page is None and url is None:
            return clean.NO_PAGE
        name, term = self._page(page, url)
        if name is None:
            return clean.BAD_URL
        public = name if self._all else self.published.page(name)
        if public != name:  # its title and text would tell what page it was
            return Kept(kind, public, None, None)
        said = None if text is None else clean.text_of(text)[0][0]
        said = term if said is None else said
        about = None if title is None else clean.text_of(title)[0][0]
        return Kept(
            kind, public, self._shared(about, self.published.titles), self._shared(said, self.published.texts)
        )

    def _page(self, raw: str | None, url: str | None) -> tuple[str | None, str | None]:
        """The page's name, and the search term of the URL."""
        page, term = (None, None) if url is None else clean.url_of(url, self._config)[0]
        if raw is not None:
            named = raw if raw in self.published.pages else clean.page_of(raw, self._config)[0][0]
            page = named if named is not None else page
        return page, term

    def _shared(self, value: str | None, known: frozenset[str]) -> str | None:
        return value if self._all or value in known else None


def something(raw: str | None) -> str | None:
    """Text without white space around it; None if it says nothing."""
    if raw is None:
        return None
    raw = raw.strip(_WHITE)
    return None if raw.lower() in clean.NOTHING else raw
