"""Pages that few people saw, generalised until enough did: k-anonymity by recoding (Samarati, Sweeney 1998).

A page that only a handful of visitors ever saw says who they are, by a name in its path that no detector
knows, or by itself. Its path is shortened, or segments of it replaced, until the result stands for what at
least ``min_people`` different visitors saw.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

#: The segment that stands for all segments that few people saw, ``{other}``. No segment's code.
OTHER = -1

_Path = tuple[int, ...]
_Visitors = frozenset[int] | None  # None: enough of them


@dataclass
class _Node:
    """A path that may be published, what is below it, and what was generalised to it."""

    path: _Path
    parent: int
    below: list[int]  # pages
    pages: list[int] = field(default_factory=list)
    visitors: _Visitors = frozenset()
    is_fixed: bool = False


def generalise(
    pages: Mapping[int, _Path],
    visitors: Mapping[int, frozenset[int] | None],
    *,
    min_people: int,
    fixed: Collection[int] = (),
) -> dict[int, _Path]:
    """The path to publish for every page.

    Among the children of a path, those below which fewer than ``min_people`` visitors saw anything become
    one, ``OTHER``, and what is below them is joined segment by segment. Then, from the leaves up, what still
    has fewer visitors is generalised to its parent, and counts there. Visitors are counted exactly: who saw
    two pages is one of them.

    Args:
        pages: page → codes of its segments; ``()`` for the root.
        visitors: page → codes of all who saw it; None for a page that at least ``min_people`` saw.
        min_people: 1 or more.
        fixed: pages that stay as they are, whoever saw them.

    Returns:
        Page → path: the page's own, shortened, with segments replaced by ``OTHER``. Every path but the root
        and the fixed ones stands for pages that ``min_people`` different visitors saw. Pages with enough
        visitors keep their own.

    Raises:
        ValueError: ``min_people`` is less than 1.
        KeyError: a page without an entry in ``visitors``.
    """
    if min_people < 1:
        raise ValueError(f"min_people is {min_people}; it must be 1 or more")
    tree = _Tree(pages, visitors, min_people, frozenset(fixed))
    nodes = [_Node((), -1, list(pages))]
    for number, node in enumerate(nodes):  # which grows meanwhile
        nodes += tree.children(number, node)
    published = {}
    for node in reversed(nodes):  # children before their parents
        if node.visitors is None or node.is_fixed or node.parent < 0:
            published.update(dict.fromkeys(node.pages, node.path))
        elif node.pages:
            parent = nodes[node.parent]
            parent.pages += node.pages
            parent.visitors = tree.union(parent.visitors, node.visitors)
    return {page: published[page] for page in pages}


@dataclass
class _Tree:
    paths: Mapping[int, _Path]
    visitors: Mapping[int, frozenset[int] | None]
    min_people: int
    fixed: frozenset[int]

    def union(self, some: _Visitors, more: _Visitors) -> _Visitors:
        if some is None or more is None:
            return None
        union = some | more
        # from here on, who they are no longer matters: sets stay small
        return union if len(union) < self.min_people else None

    def children(self, number: int, node: _Node) -> list[_Node]:
        """The nodes below one, which keeps the pages that end there."""
        depth = len(node.path)
        groups: dict[int, list[int]] = {}
        for page in node.below:
            path = self.paths[page]
            if len(path) > depth:
                groups.setdefault(path[depth], []).append(page)
            else:
                node.pages.append(page)
                node.visitors = self.union(node.visitors, self.visitors[page])
                node.is_fixed = node.is_fixed or page in self.fixed
        node.below = []
        others = groups.pop(OTHER, [])  # of a path that was generalised before
        children = []
        for code, below in groups.items():
            if self._is_rare(below):
                others += below
            else:
                children.append(_Node((*node.path, code), number, below))
        if others:
            children.append(_Node((*node.path, OTHER), number, others))
        return children

    def _is_rare(self, pages: list[int]) -> bool:
        together: _Visitors = frozenset()
        for page in pages:
            together = self.union(together, self.visitors[page])
            if together is None:
                return False
        return self.fixed.isdisjoint(pages)
