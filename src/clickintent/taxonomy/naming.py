"""Readable, unique names for groups of sessions, from the terms that set them apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clickintent.taxonomy.content import fold, shorten

_PART_LENGTH = 44  # of a title inside a name
_MIN_SHARE = 0.15  # of a group's sessions that show what the group is named after
_SECOND = 0.4  # of the best score that the second part of a name must reach
_INCLUDES = 5
_TELLING = 0.2  # of the best score that a term must reach to be listed at all


@dataclass(frozen=True)
class Group:
    """Sessions to be named: how many, and each term's share of them and distinctiveness, (terms,) each."""

    size: int
    share: np.ndarray
    score: np.ndarray
    area: str | None


@dataclass(frozen=True)
class Names:
    """How terms are written: by term number, page titles and search terms; the folded terms themselves."""

    titles: dict[int, str]
    searches: dict[int, str]
    terms: list[str]


@dataclass(frozen=True)
class Description:
    """What the taxonomy says of a group."""

    name: str
    definition: str
    area: str | None
    includes: tuple[str, ...]
    alike: int | None = None  # the group that has this name already: nothing sayable sets them apart


def describe(groups: Sequence[Group], names: Names) -> list[Description]:
    """Describe every group; larger groups choose their names first, and no two are called the same."""
    taken: dict[str, int] = {}
    found: dict[int, Description] = {}
    for index in sorted(range(len(groups)), key=lambda i: (-groups[i].size, i)):
        found[index] = _describe(groups[index], names, taken)
        taken[fold(found[index].name)] = index
    return [found[index] for index in range(len(groups))]


def _describe(group: Group, names: Names, taken: dict[str, int]) -> Description:
    pages = _different([_spoken(names.titles[t]) for t in _ranked(group, names.titles)])
    searches = [names.searches[t] for t in _ranked(group, names.searches)]
    area = group.area[:1].upper() + group.area[1:] if group.area else None
    candidates = _candidates(group, names)
    name = _unique(candidates, taken)
    return Description(
        name=name,
        alike=None if name in candidates else taken[fold(candidates[0])],
        definition=_definition(pages, searches),
        area=area,
        includes=tuple(dict.fromkeys([*pages[:_INCLUDES], *(f'searches for "{s}"' for s in searches[:2])])),
    )


def _ranked(group: Group, shown: dict[int, str]) -> list[int]:
    """Terms of the group that can be shown, best first: the distinctive ones, or else the frequent ones."""
    terms = np.asarray(sorted(shown), dtype=np.int64)
    terms = terms[group.share[terms] >= _MIN_SHARE]
    least = _TELLING * group.score[terms].max(initial=0.0)
    telling = terms[(group.score[terms] > 0) & (group.score[terms] >= least)]
    if len(telling):
        return telling[np.argsort(-group.score[telling], kind="stable")].tolist()  # type: ignore[no-any-return]
    return terms[np.argsort(-group.share[terms], kind="stable")].tolist()  # type: ignore[no-any-return]


def _candidates(group: Group, names: Names) -> list[str]:
    """Names in the order of preference, from short to long."""
    shown = {**{t: f'Search "{text}"' for t, text in names.searches.items()}, **names.titles}
    ranked = _ranked(group, shown)
    texts = {shorten(_spoken(shown[term]), _PART_LENGTH): float(group.score[term]) for term in ranked[::-1]}
    parts = _different(list(texts)[::-1])
    scores = [texts[part] for part in parts]
    if not parts:
        best = [t for t in np.argsort(-group.score, kind="stable")[:3].tolist() if group.score[t] > 0]
        words = [names.terms[t] for t in best]
        return [" · ".join(words[:n]).capitalize() for n in range(1, len(words) + 1)] or ["Mixed visits"]
    two = len(parts) > 1 and scores[1] >= _SECOND * scores[0]
    first = [" · ".join(parts[:2])] if two else [parts[0], " · ".join(parts[:2])]
    pairs = [f"{parts[0]} · {other}" for other in parts[1:6]]
    return [*first, *pairs, " · ".join(parts[:3])]


def _unique(candidates: Sequence[str], taken: dict[str, int]) -> str:
    for name in candidates:
        if fold(name) not in taken:
            return name
    number = 2
    while fold(f"{candidates[0]} ({number})") in taken:
        number += 1
    return f"{candidates[0]} ({number})"


def _spoken(title: str) -> str:
    """``Accessories | Electronics`` as ``Accessories (Electronics)``."""
    first, *others = title.split(" | ")
    return f"{first} ({', '.join(others)})" if others else first


def _different(texts: Sequence[str]) -> list[str]:
    """Without those that say no more, or no less, than an earlier one."""
    kept: list[str] = []
    for text in texts:
        if not any(_says_the_same(text, other) for other in kept):
            kept.append(text)
    return kept


def _says_the_same(one: str, other: str) -> bool:
    a, b = (set(fold(re.sub(r"[(),]", " ", text)).split()) for text in (one, other))
    return a <= b or b <= a


def _definition(pages: Sequence[str], searches: Sequence[str]) -> str:
    parts = []
    if pages:
        parts.append(f"view {_listed(pages[:3])}")
    if searches:
        quoted = [f'"{term}"' for term in searches[:2]]
        parts.append(f"search for {_listed(quoted)}")
    return f"Sessions that mostly {' and '.join(parts) if parts else 'show no page in particular'}."


def _listed(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
