"""What sessions looked at, in words: every distinct (title, page, text, event type) once.

A day of clicks repeats the same few thousand pages, so all work on words is done per distinct item, and
sessions refer to items by number.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickintent.events.privacy import redact as _redact_upstream
from clickintent.taxonomy.injection import WITHHELD, is_instruction

#: Event types that say no more than that a page was seen.
VIEWS = frozenset(
    {"page_view", "pageview", "page", "view", "screen_view", "screenview", "hit", "session_start"}
    | {"first_visit", "first_open", "user_engagement", "scroll", "page_leave"}
)

_SEPARATOR = re.compile(r"\s+(?:[|·•–—»-]|::)\s+|\s*\|\s*")
_PLACEHOLDER = re.compile(r"[{<\[(:*][^/]*")
_EXTENSION = re.compile(r"\.(?:html?|php|aspx?|jsp|do|axd)$", re.IGNORECASE)
_EMAIL = re.compile(r"[^\s@]+@[^\s@]+")
_DIGITS = re.compile(r"\d(?:[ .\-]?\d){5,}")
#: Words that may stand beside the site's name in what is still no more than its name.
_BESIDE_NAME = frozenset(
    {"the", "welcome", "to", "official", "online", "site", "website", "www", "com", "org", "net"}
    | {"co", "uk", "us", "inc", "ltd", "plc", "llc", "gmbh", "ag", "sa"}
)
SEARCH_LENGTH = 80  # longer texts of a page view are page text, not what somebody typed


@dataclass(frozen=True)
class Item:
    """One distinct thing that an event can be about. Title and text are redacted."""

    title: str | None
    page: str
    text: str | None
    event_type: str

    @property
    def is_view(self) -> bool:
        return self.event_type.casefold() in VIEWS

    @cached_property
    def search(self) -> str | None:
        """What the visitor typed into the site's search, if that is what ``text`` is."""
        searching = self.is_view or "search" in self.event_type.casefold()
        return self.text if self.text and searching and len(self.text) <= SEARCH_LENGTH else None

    @property
    def action(self) -> str | None:
        """The event type in words, where it says more than that a page was seen."""
        return None if self.is_view else redact(words_of(self.event_type))


@dataclass(frozen=True)
class Contents:
    """The events of ``n_sessions`` sessions, in their order: arrays of one length, one entry per event."""

    n_sessions: int
    session: np.ndarray  # int64, row of the session
    item: np.ndarray  # int64, index into ``items``
    dwell_s: np.ndarray  # float64, NaN where unknown
    items: tuple[Item, ...]


def read_contents(sessions: pa.Table) -> Contents:
    """The events of a sessions table as numbered items."""
    lists = sessions["events"].combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = lists.flatten()
    codes, values = [], []
    for name in ("title", "page", "text", "event_type"):
        encoded = pc.struct_field(flat, name).dictionary_encode(null_encoding="encode")
        codes.append(encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64))
        values.append(encoded.dictionary.to_pylist())
    combined = np.zeros(len(flat), np.int64)
    for code, distinct in zip(codes, values, strict=True):
        # renumbered after every column, so that the product of the sizes never overflows
        combined = np.unique(combined * max(len(distinct), 1) + code, return_inverse=True)[1]
    _, first, item = np.unique(combined, return_index=True, return_inverse=True)
    titles, pages, texts, types = (
        [distinct[i] for i in code[first]] for code, distinct in zip(codes, values, strict=True)
    )
    items = tuple(
        Item(redact(title), page or "", redact(text), kind or "")
        for title, page, text, kind in zip(titles, pages, texts, types, strict=True)
    )
    return Contents(
        n_sessions=sessions.num_rows,
        session=np.repeat(np.arange(sessions.num_rows), lengths),
        item=item,
        dwell_s=pc.struct_field(flat, "dwell_s").to_numpy(zero_copy_only=False).astype(float),
        items=items,
    )


def redact(text: str | None) -> str | None:
    """The last line of defence: titles and texts were redacted when they came in, and are again here.

    Angle brackets go as well, so that no text can close the tags that mark it as data in a prompt. Of a text
    that gives orders to a language model only a placeholder stays.
    """
    orders = bool(text) and is_instruction(text)  # before anything of it is replaced
    text = _redact_upstream(text)
    if not text:
        return None
    if orders or is_instruction(text):
        return WITHHELD
    text = _DIGITS.sub("[number]", _EMAIL.sub("[email]", text))
    text = "".join(c if c.isprintable() else " " for c in text.replace("<", "‹").replace(">", "›"))
    return " ".join(text.split()) or None


def segments(title: str) -> list[str]:
    """The parts of a title: ``Men's T-Shirts | Apparel | Some Shop`` has three."""
    return [part for part in (p.strip() for p in _SEPARATOR.split(title)) if part]


def site_names(titles: Iterable[str | None]) -> frozenset[str]:
    """The segments of titles that name the site and not the page, folded.

    That is the last segment (or, failing that, the first one) which at least three in ten of the distinct
    titles with several segments share, and two of them at the least. A first or last segment that holds such
    a name counts as the site's if it says little else (``Welcome to Some Shop``), or if half of the titles
    share it; any other is a page of the site that is called after it (``Some Shop Gift Card``).
    """
    split = [parts for parts in (segments(t) for t in {t for t in titles if t}) if len(parts) > 1]
    for end in (-1, 0):
        counts = Counter(fold(parts[end]) for parts in split)
        names = {name for name, n in counts.items() if name and n >= max(2, 0.3 * len(split))}
        if names:
            around = Counter(part for parts in split for part in {fold(parts[0]), fold(parts[-1])})
            return frozenset(
                segment
                for segment, n in around.items()
                for name in names
                if _is_little_more(segment, name)
                or (len(name) > 5 and name in segment and n >= max(2, 0.5 * len(split)))
            )
    return frozenset()


def _is_little_more(segment: str, name: str) -> bool:
    """Whether a folded segment is a site's name and at most words like ``welcome to`` and ``.com``."""
    before, found, after = segment.partition(name)
    return bool(found) and _BESIDE_NAME.issuperset(re.findall(r"\w+", f"{before} {after}"))


def label_of(item: Item, site: frozenset[str]) -> str:
    """What a person would call the page: its title without the site's name, or its path in words."""
    return title_of(item.title, site) if item.title else page_words(item.page)


def title_of(title: str, site: frozenset[str]) -> str:
    """A title without the site's name, unless it says nothing else."""
    parts = [_without_site(part, site) for part in segments(title) if fold(part) not in site]
    return " | ".join(parts) if parts else title


def _without_site(part: str, site: frozenset[str]) -> str:
    """``Some Shop/Malibu Sunglasses`` without the shop."""
    for name in sorted(site, key=len, reverse=True):
        if fold(part).startswith(name) and part[len(name) : len(name) + 1] in "/:-|":
            return part[len(name) + 1 :].strip() or part
    return part


def path_segments(page: str) -> list[str]:
    """The parts of a path template in words: ``/loans/{id}/rates.html`` → loans, rates."""
    path = page.split("?")[0].split("#")[0]
    parts = (words_of(_EXTENSION.sub("", part)) for part in path.split("/") if part)
    return [part for part in parts if part and not _PLACEHOLDER.fullmatch(part)]


def page_words(page: str) -> str:
    """A path template or screen name as words; the root is ``home page``."""
    return redact(" › ".join(path_segments(page))) or "home page"


def words_of(name: str) -> str:
    """``add_to_cart`` or ``shop+by+brand`` as words."""
    return " ".join(re.sub(r"[_+\-]+|%20", " ", name).split())


def fold(text: str) -> str:
    """The form in which two texts count as the same."""
    return " ".join(text.casefold().split()).strip(" .,;:!?\"'()*")


def shorten(text: str, length: int) -> str:
    """Cut at a word's end, with an ellipsis, to at most ``length`` characters."""
    if len(text) <= length:
        return text
    cut = text[: length - 1]
    return (cut.rsplit(" ", 1)[0] if " " in cut[length // 2 :] else cut).rstrip(" ,;:|-") + "…"
