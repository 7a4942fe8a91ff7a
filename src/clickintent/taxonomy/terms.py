"""Sessions as bags of words for the keyword namer: title segments, search phrases, actions, and single words.

Terms of an item do not depend on other sessions, so one session gets the same labels alone and among others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import sparse

from clickintent.taxonomy.content import Contents, Item, fold, page_words, path_segments, segments

_WORD = re.compile(r"\w[\w'’&-]{2,}")
_PHRASE_LENGTH = 60
_STOPWORDS = frozenset(
    """the and for you your our with from this that are was all any can has have how what when where which who
    why will not but get its out use one more most about into than then them they there here page home welcome
    www com online site website official""".split()  # noqa: SIM905
)


def terms_of(item: Item) -> list[str]:
    """All terms of an item, folded, each once. Redaction's placeholders are in none."""
    phrases = phrases_of(item)
    text = " ".join([item.title or page_words(item.page), item.search or ""])
    words = [fold(word) for word in _WORD.findall(re.sub(r"\[\w+\]", " ", text))]
    kept = [w for w in words if len(w) > 2 and w not in _STOPWORDS and not w.isdigit()]
    return list(dict.fromkeys([*phrases, *kept]))


def phrases_of(item: Item) -> list[str]:
    """What a reader sees as a whole: title segments and what they add up to, search term, action."""
    if item.title:
        parts = [fold(part) for part in segments(item.title)]
        phrases = parts + [" | ".join(parts[:n]) for n in range(2, len(parts) + 1)]
    else:
        phrases = [fold(page_words(item.page))]
    if item.search and len(item.search) <= _PHRASE_LENGTH:
        phrases.append(fold(item.search))
    if item.action:
        phrases.append(fold(item.action))
    return [phrase for phrase in phrases if phrase and "[" not in phrase]


def session_items(contents: Contents) -> sparse.csr_matrix:
    """How often each session shows each item: 1 + log(count), float32 (n sessions, m items)."""
    ones = np.ones(len(contents.item), np.float32)
    shape = (contents.n_sessions, len(contents.items))
    matrix = sparse.csr_matrix((ones, (contents.session, contents.item)), shape=shape)
    matrix.sum_duplicates()
    matrix.data = 1 + np.log(matrix.data)
    return matrix


def item_terms(
    items: Sequence[Item], vocabulary: Mapping[str, int] | None = None
) -> tuple[sparse.csr_matrix, dict[str, int]]:
    """Which items hold which terms: a 0/1 matrix (m items, terms) and the number of each term."""
    index = dict(vocabulary) if vocabulary is not None else {}
    rows, columns = [], []
    for row, item in enumerate(items):
        for term in terms_of(item):
            column = index.get(term) if vocabulary is not None else index.setdefault(term, len(index))
            if column is not None:
                rows.append(row)
                columns.append(column)
    shape = (len(items), max(len(index), 1))
    return sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=shape), index


def areas_of(items: Sequence[Item]) -> list[str | None]:
    """The top segment of each item's path, in words; None if its page is no path.

    A first segment that most paths of several segments share, such as a language or the name of a site's
    design, says nothing: there the second one counts.
    """
    paths = [path_segments(item.page) if item.page.startswith("/") else None for item in items]
    firsts = Counter(parts[0] for parts in paths if parts and len(parts) > 1)
    shared = {name for name, n in firsts.items() if n > 0.6 * firsts.total() and len(firsts) > 1}
    return [None if parts is None else _top(parts, shared) for parts in paths]


def _top(parts: Sequence[str], shared: set[str]) -> str:
    if len(parts) > 1 and parts[0] in shared:
        parts = parts[1:]
    return parts[0] if parts else "home"
