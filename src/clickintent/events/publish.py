"""What may be read: a value only if enough people share it.

No page, title, text, campaign, referrer, device or country that fewer than ``min_people`` visitors have
survives: a page is generalised to its parent (see ``rare``), any other value is dropped, and with a page its
title and text. The counts are exact, over all that was ever ingested; a value that becomes common later is
published then, for earlier events too, because events keep its code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clickintent.config import PrivacyConfig
from clickintent.events import rare, templates
from clickintent.events.coding import Keys
from clickintent.events.decode import Published

#: Fields whose values must be shared, besides the page.
SHARED = ("title", "text", "referrer", "campaign", "device", "country")

#: Values by code. ``path`` holds the codes of a page's segments; ``text`` is null where it may not be kept.
VALUES = pa.schema(
    [
        pa.field("field", pa.string(), nullable=False),
        pa.field("code", pa.int64(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("path", pa.list_(pa.int64())),
    ]
)

_OTHER = "{other}"


@dataclass(frozen=True)
class Counted:
    """(n,) codes of one field, how many visitors have each, and in how many events."""

    codes: npt.NDArray[np.int64]
    visitors: npt.NDArray[np.int64]
    events: npt.NDArray[np.int64]

    @classmethod
    def of(cls, parts: list[pa.Table]) -> Counted:
        """From parts (code, visitors, events) that share no visitor: their counts add up."""
        table = pa.concat_tables(parts).group_by("code").aggregate([("visitors", "sum"), ("events", "sum")])
        columns = (table[name].to_numpy() for name in ("code", "visitors_sum", "events_sum"))
        return cls(*columns)


@dataclass(frozen=True)
class Decision:
    """What is published, what is kept for later, and what was taken away."""

    published: Published
    values: pa.Table  # VALUES
    #: page code → code of the page that it is published as, (n,) each
    pages: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
    #: field → values and events that were generalised or dropped
    taken: dict[str, dict[str, int]]


def decide(
    values: Mapping[str, Mapping[int, str]],
    paths: Mapping[int, tuple[int, ...]],
    counted: Mapping[str, Counted],
    seen: pa.Table,
    keys: Keys,
    config: PrivacyConfig,
) -> Decision:
    """Decide which values may be read.

    Args:
        values: field → code → text, of every value whose text is known.
        paths: page code → codes of its segments, of pages whose text is not known any more.
        counted: for ``page`` and every field of ``SHARED``.
        seen: ``page`` and ``visitor`` (codes), once each, for every page of fewer than ``min_people``.
    """
    fields: dict[str, tuple[pa.Array, pa.Array]] = {}
    kept: list[tuple[str, int, str | None, list[int] | None]] = []
    taken: dict[str, dict[str, int]] = {}
    # Fields of which no text is known (any more) may still have values that are counted as taken away.
    for field in dict.fromkeys([*values, *SHARED]):
        if field in ("page", "segment"):
            continue
        known = values.get(field, {})
        if field in SHARED:
            n = counted[field]
            if not len(n.codes):
                continue
            enough = n.visitors >= config.min_people
            taken[field] = {"values": int((~enough).sum()), "events": int(n.events[~enough].sum())}
            known = {code: known[code] for code in n.codes[enough].tolist() if code in known}
        fields[field] = (pa.array(list(known), pa.int64()), pa.array(list(known.values()), pa.string()))
        kept += [(field, code, text, None) for code, text in known.items()]

    pages = _Pages(dict(values.get("segment", {})), keys)
    all_paths = {**paths, **{code: pages.path(text) for code, text in values.get("page", {}).items()}}
    n = counted["page"]
    generalised = _generalise(all_paths, n, seen, values.get("page", {}), config)
    texts = {code: pages.text(path) for code, path in generalised.items()}
    moved = {code: pages.keys.value(text) for code, text in texts.items()}
    public = {moved[code]: text for code, text in texts.items()}
    fields["page"] = (pa.array(list(public), pa.int64()), pa.array(list(public.values()), pa.string()))
    away = np.array([moved.get(code, code) != code for code in n.codes.tolist()], bool)
    taken["page"] = {"values": int(away.sum()), "events": int(n.events[away].sum())}
    kept += [
        ("page", code, texts[code] if moved[code] == code else None, list(all_paths[code]))
        for code in generalised
    ]
    used = {part for path in generalised.values() for part in path if part in pages.segments}
    kept += [("segment", code, pages.segments[code], None) for code in used]
    table = pa.Table.from_pylist(
        [dict(zip(VALUES.names, row, strict=True)) for row in sorted(kept, key=lambda r: r[:2])],
        schema=VALUES,
    )
    return Decision(
        Published(fields),
        table,
        (np.array(list(moved), np.int64), np.array(list(moved.values()), np.int64)),
        taken,
    )


def known(values: pa.Table) -> tuple[dict[str, dict[int, str]], dict[int, tuple[int, ...]]]:
    """Texts by field and code, and the paths of pages, from a table of ``VALUES``."""
    texts: dict[str, dict[int, str]] = {}
    for row in values.filter(pc.is_valid(values["text"])).to_pylist():
        texts.setdefault(row["field"], {})[row["code"]] = row["text"]
    with_path = values.filter(pc.is_valid(values["path"]))
    paths = {row["code"]: tuple(row["path"]) for row in with_path.to_pylist()}
    return texts, paths


def _generalise(
    paths: Mapping[int, tuple[int, ...]],
    counted: Counted,
    seen: pa.Table,
    texts: Mapping[int, str],
    config: PrivacyConfig,
) -> dict[int, tuple[int, ...]]:
    """Page code → the path that it is published as."""
    there = counted.codes.tolist()
    order = seen.sort_by("page")
    codes, people = order["page"].to_numpy(), order["visitor"].to_numpy()
    bounds = np.flatnonzero(np.diff(codes, prepend=codes[:1] - 1))
    ends = np.append(bounds[1:], len(codes))[: len(bounds)]
    few: dict[int, frozenset[int] | None] = dict.fromkeys(there)
    for first, after in zip(bounds.tolist(), ends.tolist(), strict=True):
        few[int(codes[first])] = frozenset(people[first:after].tolist())
    fixed = [code for code, text in texts.items() if text in config.templates]
    return rare.generalise(
        {code: paths[code] for code in there}, few, min_people=config.min_people, fixed=fixed
    )


@dataclass
class _Pages:
    """Pages as paths of coded segments, and back."""

    segments: dict[int, str]
    keys: Keys

    def path(self, page: str) -> tuple[int, ...]:
        # the name of a screen must not be taken for a path of the same word
        parts = templates.segments(page)
        named = parts if page.startswith("/") else (f"\x00{parts[0]}", *parts[1:])
        codes = tuple(self.keys.value(part) for part in named)
        self.segments.update(zip(codes, named, strict=True))
        return codes

    def text(self, path: tuple[int, ...]) -> str:
        # the text of a segment that only rare pages had is not kept: forgetting somebody may ask for it
        parts = [self.segments.get(code, _OTHER) for code in path]
        screen = bool(parts) and parts[0].startswith("\x00")
        return templates.page([part.removeprefix("\x00") for part in parts], screen=screen)
