"""Whatever page is published was seen by enough people, and no page is generalised without need."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickintent.events.rare import OTHER, generalise

Path = tuple[int, ...]
#: Page → path, and everyone who saw it.
Site = tuple[dict[int, Path], dict[int, frozenset[int]]]

PATHS = st.lists(st.integers(0, 3), max_size=4).map(tuple)
VISITORS = st.frozensets(st.integers(0, 9), max_size=6)


@st.composite
def sites(draw: st.DrawFn) -> Site:
    paths = draw(st.lists(PATHS, max_size=14, unique=True))
    keys = draw(st.permutations(range(len(paths))))
    return dict(zip(keys, paths, strict=True)), {key: draw(VISITORS) for key in keys}


def run(site: Site, k: int, fixed: frozenset[int] = frozenset()) -> dict[int, Path]:
    """As callers do: who saw a frequent page is not told."""
    pages, seen = site
    return generalise(
        pages, {p: None if len(v) >= k else v for p, v in seen.items()}, min_people=k, fixed=fixed
    )


def reference(site: Site, k: int, fixed: frozenset[int]) -> dict[int, Path]:
    """The rule on nested dictionaries, with all visitors known."""
    pages, seen = site
    published: dict[int, Path] = {}

    def people(some: Mapping[int, Path]) -> int:
        return len(frozenset().union(*(seen[page] for page in some)))

    def visit(rest: dict[int, Path], path: Path) -> dict[int, Path]:
        """Publish what can be at or below ``path``; return what cannot."""
        branches: dict[int, dict[int, Path]] = defaultdict(dict)
        here = {page: () for page, tail in rest.items() if not tail}
        for page, tail in rest.items():
            if tail:
                branches[tail[0]][page] = tail[1:]
        merged: dict[int, Path] = {}
        for code, branch in branches.items():
            if people(branch) >= k or fixed & branch.keys():
                here |= visit(branch, (*path, code))
            else:
                merged |= branch
        if merged:
            here |= visit(merged, (*path, OTHER))
        if path and people(here) < k and not any(page in fixed for page, tail in rest.items() if not tail):
            return dict.fromkeys(here, ())
        published.update(dict.fromkeys(here, path))
        return {}

    visit(pages, ())
    return published


@settings(max_examples=1000, deadline=None)
@given(sites(), st.integers(1, 7), st.frozensets(st.integers(0, 13), max_size=3))
def test_every_published_page_was_seen_by_enough(site: Site, k: int, fixed: frozenset[int]) -> None:
    pages, seen = site
    fixed &= pages.keys()
    published = run(site, k, fixed)
    assert published.keys() == pages.keys()
    people: dict[Path, set[int]] = defaultdict(set)
    for page, path in published.items():
        people[path] |= seen[page]
    allowed = {pages[page] for page in fixed} | {()}
    assert all(len(who) >= k for path, who in people.items() if path not in allowed)
    for page, path in published.items():
        own = pages[page]
        assert len(path) <= len(own)
        assert all(new in (old, OTHER) for new, old in zip(path, own, strict=False))
        if page in fixed or len(seen[page]) >= k:
            assert path == own
        # a segment is replaced only where too few saw anything below it
        for i in range(len(path)):
            if path[: i + 1] == (*own[:i], OTHER):
                below = [p for p, full in pages.items() if full[: i + 1] == own[: i + 1]]
                assert len(frozenset().union(*(seen[p] for p in below))) < k
    assert published == reference(site, k, fixed)


@settings(max_examples=300, deadline=None)
@given(sites(), st.integers(1, 7), st.randoms())
def test_the_order_of_pages_does_not_matter(site: Site, k: int, rng: random.Random) -> None:
    pages, seen = site
    order = list(pages)
    rng.shuffle(order)
    assert run(({p: pages[p] for p in order}, {p: seen[p] for p in reversed(order)}), k) == run(site, k)


@settings(max_examples=300, deadline=None)
@given(sites(), st.integers(1, 7))
def test_what_is_published_can_be_published(site: Site, k: int) -> None:
    """Generalising again changes nothing but for the root, which may hold what few saw."""
    pages, seen = site
    published = run(site, k)
    paths = sorted(set(published.values()))
    people = [frozenset().union(*(seen[p] for p in pages if published[p] == path)) for path in paths]
    again = run((dict(enumerate(paths)), dict(enumerate(people))), k)
    assert list(again.values()) == paths


U, SETTINGS, INBOX, LOANS, NAMES = 100, 101, 102, 103, range(20)


def test_pages_of_persons_become_one() -> None:
    pages = {2 * n: (U, n, SETTINGS) for n in NAMES} | {2 * n + 1: (U, n, INBOX) for n in NAMES}
    seen = {page: frozenset({page // 2}) for page in pages}
    published = generalise(pages, seen, min_people=20)
    assert set(published.values()) == {(U, OTHER, SETTINGS), (U, OTHER, INBOX)}
    published = generalise(pages, seen, min_people=21)
    assert set(published.values()) == {()}


def test_what_stays_rare_goes_to_the_nearest_page_that_is_not() -> None:
    pages = {1: (LOANS,), 2: (LOANS, 5), 3: (LOANS, 5, 6), 4: (U, 1, SETTINGS), 5: (U, 2, SETTINGS), 6: ()}
    few = {2: frozenset({1}), 3: frozenset({2}), 4: frozenset({1, 2}), 5: frozenset({3}), 6: frozenset[int]()}
    published = generalise(pages, {1: None, **few}, min_people=3)
    assert published == {
        **dict.fromkeys((1, 2, 3), (LOANS,)),
        **dict.fromkeys((4, 5), (U, OTHER, SETTINGS)),
        6: (),
    }


def test_rare_pages_join_under_a_frequent_one_where_they_are_enough() -> None:
    pages = {1: (LOANS,), 2: (LOANS, 5), 3: (LOANS, 6), 4: (LOANS, 7)}
    few = {2: frozenset({1, 2}), 3: frozenset({2, 3}), 4: None}
    published = generalise(pages, {1: None, **few}, min_people=3)
    assert published == {1: (LOANS,), 2: (LOANS, OTHER), 3: (LOANS, OTHER), 4: (LOANS, 7)}
    published = generalise(pages, {1: None, **few}, min_people=4)
    assert published == {1: (LOANS,), 2: (LOANS,), 3: (LOANS,), 4: (LOANS, 7)}


def test_one_person_counts_once() -> None:
    pages = {n: (U, n) for n in NAMES}
    assert set(generalise(pages, dict.fromkeys(pages, frozenset({1})), min_people=2).values()) == {()}


def test_fixed_pages_stay() -> None:
    pages = {1: (LOANS, 5), 2: (LOANS, 6), 3: (LOANS, 5, 7)}
    few = dict.fromkeys(pages, frozenset({1}))
    assert generalise(pages, few, min_people=9, fixed=[1]) == {1: (LOANS, 5), 2: (), 3: (LOANS, 5)}


def test_it_must_be_some_people() -> None:
    with pytest.raises(ValueError, match="min_people is 0"):
        generalise({}, {}, min_people=0)
    with pytest.raises(KeyError):
        generalise({1: (1,)}, {}, min_people=2)
    assert generalise({}, {}, min_people=2) == {}


def test_deep_paths_and_many_pages_take_seconds() -> None:
    rng = random.Random(0)
    pages = {n: (rng.randrange(30), rng.randrange(100), n, rng.randrange(5)) for n in range(50_000)}
    pages |= {50_000 + n: tuple(range(10**6 + n, 10**6 + n + 3000)) for n in range(3)}
    seen = {page: frozenset(rng.sample(range(10_000), 2)) for page in pages}
    start = time.perf_counter()
    published = generalise(pages, seen, min_people=20)
    assert time.perf_counter() - start < 10
    assert len(set(published.values())) > 1000
    assert published[50_000] == ()
