"""The keyword namer: intents in words without a language model.

Clusters of the session embeddings are named by what their sessions look at more than others do (class-based
TF-IDF over titles, search terms and actions). Clusters that read alike are merged.
``keyword_labels`` finds the intents in sessions.
It says what people looked at, not why: its taxonomy carries ``source: keywords``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy import sparse

from clickintent.taxonomy.content import (
    Contents,
    fold,
    label_of,
    read_contents,
    site_names,
)
from clickintent.taxonomy.keyword_labels import calibrate, confidence_of, similarity, weights
from clickintent.taxonomy.naming import Description, Group, Names, describe
from clickintent.taxonomy.narrate import narrate
from clickintent.taxonomy.sample import cluster
from clickintent.taxonomy.taxonomy import Intent, Taxonomy
from clickintent.taxonomy.terms import areas_of, item_terms, phrases_of, session_items

_DRAFT_ROWS = 50_000  # sessions that the draft reads; more would not change a name
_MORE_CLUSTERS = 1.5  # times as many as intents, because some read alike and are merged
_SAME = 0.85  # cosine of their words above which two clusters read alike
_PRIOR = 5.0  # sessions' worth of the overall share that every cluster's share is drawn towards
_PHRASES, _WORDS = 16, 10  # keywords kept per intent
_FAINT = 0.03  # weight below which a keyword is not worth a line
_MIN_VISITORS = 5  # who must share a word before it may stand in a taxonomy (fewer in tiny data)


def draft(sessions: pa.Table, embeddings: np.ndarray, intents: int, *, seed: int) -> Taxonomy:
    """Name the clusters of sessions; at most ``intents`` of them, fewer if fewer differ in words.

    Args:
        sessions: table of the sessions schema.
        embeddings: (n, dim), a row per session.

    Raises:
        EmptyInputError: if there is no session.
    """
    if sessions.num_rows > _DRAFT_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(sessions.num_rows, _DRAFT_ROWS, replace=False))
        sessions, embeddings = sessions.take(rows), embeddings[rows]
    clusters = cluster(embeddings, math.ceil(_MORE_CLUSTERS * intents), seed=seed)
    contents = read_contents(sessions)
    shared = _Shared.of(contents, sessions)
    clusters = _merge_alike(clusters, shared.present, intents)
    while True:
        shares, scores = _distinctiveness(clusters, shared.present)
        areas = _areas(contents, clusters)
        groups = [
            Group(size=int((clusters == c).sum()), share=shares[c], score=scores[c], area=area)
            for c, area in enumerate(areas)
        ]
        names = describe(groups, shared.names(contents))
        same = next(((c, n.alike) for c, n in enumerate(names) if n.alike is not None), None)
        if same is None:
            break
        clusters = _merged(clusters, *same)  # two intents that nobody could tell apart by name are one
    profiles = [_profile(row, shared) for row in scores]
    w = weights(profiles, {term: n for n, term in enumerate(shared.terms)})
    alike = similarity(session_items(contents), shared.matrix, w)
    fitted = calibrate(alike, clusters)
    sure = confidence_of(alike, fitted)
    order = np.argsort([-g.size for g in groups], kind="stable")
    found = []
    for number, c in enumerate(order.tolist(), 1):
        found.append(
            Intent(
                id=f"i{number:02d}",
                name=names[c].name,
                definition=names[c].definition,
                area=names[c].area,
                includes=names[c].includes,
                keywords=tuple(profiles[c]),
                keyword_weights=tuple(profiles[c].values()),
                examples=_examples(sessions, contents, shared, sure[:, c], clusters == c),
            )
        )
    return Taxonomy(source="keywords", calibration=fitted, intents=tuple(found))


@dataclass(frozen=True)
class Described:
    """Words for a group of sessions."""

    description: Description
    keywords: dict[str, float]
    examples: tuple[str, ...]


def describe_groups(sessions: pa.Table, group: np.ndarray) -> list[Described]:
    """Describe groups of sessions by what sets them apart from all the others.

    Args:
        sessions: table of the sessions schema.
        group: (n,) number of each session's group, from 0 without gaps; -1 for sessions of none.
    """
    k = int(group.max(initial=-1)) + 1
    if k == 0:
        return []
    contents = read_contents(sessions)
    shared = _Shared.of(contents, sessions)
    clusters = np.where(group < 0, k, group)
    shares, scores = _distinctiveness(clusters, shared.present)
    areas = _areas(contents, clusters)
    groups = [Group(int((group == c).sum()), shares[c], scores[c], areas[c]) for c in range(k)]
    even = np.zeros(sessions.num_rows)
    return [
        Described(told, _profile(scores[c], shared), _examples(sessions, contents, shared, even, group == c))
        for c, told in enumerate(describe(groups, shared.names(contents)))
    ]


@dataclass(frozen=True)
class _Shared:
    """The terms that enough visitors share, and which items and sessions hold them."""

    terms: list[str]
    matrix: sparse.csr_matrix  # (items, terms), 0/1
    present: sparse.csr_matrix  # (sessions, terms), 0/1
    phrases: frozenset[str]
    items: np.ndarray  # (items,) bool: seen by enough visitors
    site: frozenset[str]  # title segments that name the site

    @classmethod
    def of(cls, contents: Contents, sessions: pa.Table) -> _Shared:
        visitors = sessions["visitor_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        n_visitors = int(visitors.max(initial=-1)) + 1
        enough = min(_MIN_VISITORS, max(1, n_visitors // 20))
        by = (np.ones(len(visitors), np.float32), (visitors, np.arange(len(visitors))))
        by_visitor = sparse.csr_matrix(by, shape=(n_visitors, len(visitors)))
        seen = _binary(session_items(contents))
        matrix, index = item_terms(contents.items)
        present = _binary(seen @ matrix)
        site = site_names(item.title for item in contents.items)
        of_site = [not site.isdisjoint(term.split(" | ")) for term in index] or [True]
        visitors_of = np.asarray(_binary(by_visitor @ present).sum(axis=0)).ravel()
        columns = np.flatnonzero((visitors_of >= enough) & ~np.asarray(of_site))
        terms = np.asarray(list(index) or [""], dtype=object)
        phrases = {phrase for item in contents.items for phrase in phrases_of(item)}
        return cls(
            terms=terms[columns].tolist(),
            matrix=matrix[:, columns],
            present=present[:, columns],
            phrases=frozenset(phrases),
            items=np.asarray(_binary(by_visitor @ seen).sum(axis=0)).ravel() >= enough,
            site=site,
        )

    def names(self, contents: Contents) -> Names:
        """How terms are shown: titles as they are written, search terms in quotes."""
        column = {term: n for n, term in enumerate(self.terms)}
        titles: dict[int, str] = {}
        searches: dict[int, str] = {}
        for item in contents.items:
            label = label_of(item, self.site)
            at = column.get(fold(label), column.get(fold(item.title or "")))
            if at is not None:
                titles.setdefault(at, label)
            if item.search and (at := column.get(fold(item.search))) is not None:
                searches.setdefault(at, item.search)
        searches = {at: text for at, text in searches.items() if at not in titles}
        return Names(titles=titles, searches=searches, terms=self.terms)


def _merge_alike(clusters: np.ndarray, present: sparse.csr_matrix, at_most: int) -> np.ndarray:
    """Merge the two clusters whose words are most alike, until few enough are left and none read alike."""
    counts, sizes = _counts(clusters, present), np.bincount(clusters)
    while True:
        k = len(sizes)
        if k == 1:
            return clusters
        _, scores = _scores(counts, sizes)
        norms = np.linalg.norm(scores, axis=1, keepdims=True)
        directions = scores / np.where(norms > 0, norms, 1)
        alike = directions @ directions.T
        silent = norms[:, 0] == 0  # nothing sets these apart, so they are all the same to a reader
        alike[np.ix_(silent, silent)] = 1.0
        np.fill_diagonal(alike, -1)
        a, b = np.unravel_index(int(alike.argmax()), alike.shape)
        if k <= at_most and alike[a, b] < _SAME:
            return clusters
        kept, gone = min(a, b), max(a, b)
        counts[kept] += counts[gone]
        sizes[kept] += sizes[gone]
        counts, sizes = np.delete(counts, gone, axis=0), np.delete(sizes, gone)
        clusters = _merged(clusters, int(kept), int(gone))


def _merged(clusters: np.ndarray, a: int, b: int) -> np.ndarray:
    kept, gone = min(a, b), max(a, b)
    return np.where(clusters == gone, kept, clusters - (clusters > gone))


def _distinctiveness(clusters: np.ndarray, present: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Share of each cluster's sessions that hold a term, and its score (k, terms).

    Class-based TF-IDF (Grootendorst 2022) in its presence form: share in the class × log(share in the class /
    share overall), so that one session with fifty views of a page counts once. Scores are not negative.
    """
    return _scores(_counts(clusters, present), np.bincount(clusters))


def _counts(clusters: np.ndarray, present: sparse.csr_matrix) -> np.ndarray:
    """In how many sessions of each cluster each term is: (k, terms)."""
    n = len(clusters)
    shape = (int(clusters.max()) + 1, n)
    member = sparse.csr_matrix((np.ones(n, np.float32), (clusters, np.arange(n))), shape=shape)
    counts: np.ndarray = (member @ present).toarray().astype(float)
    return counts


def _scores(counts: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    overall = counts.sum(axis=0) / sizes.sum()
    share = (counts + _PRIOR * overall) / (sizes[:, None] + _PRIOR)
    lift = np.log(np.maximum(share, 1e-12) / np.maximum(overall, 1e-12))
    return share, share * np.maximum(lift, 0.0)


def _profile(score: np.ndarray, shared: _Shared) -> dict[str, float]:
    """An intent's keywords: its highest-scoring phrases and words, weights relative to the highest."""
    chosen: list[int] = []
    rooms = {True: _PHRASES, False: _WORDS}
    for column in np.argsort(-score, kind="stable").tolist():
        is_phrase = shared.terms[column] in shared.phrases
        if score[column] <= 0 or not any(rooms.values()):
            break
        if rooms[is_phrase]:
            rooms[is_phrase] -= 1
            chosen.append(column)
    top = max((score[c] for c in chosen), default=1.0)
    weights = {shared.terms[c]: round(float(score[c] / top), 3) for c in chosen}
    return {term: weight for term, weight in weights.items() if weight >= _FAINT}


def _areas(contents: Contents, clusters: np.ndarray) -> list[str | None]:
    """For each cluster, the area that its sessions visit more than others do."""
    by_item = areas_of(contents.items)
    names = sorted({area for area in by_item if area is not None})
    k = int(clusters.max()) + 1
    if not names or sum(area is None for area in by_item) > len(by_item) / 2:
        return [None] * k
    index = {name: n for n, name in enumerate(names)}
    pairs = [(row, index[area]) for row, area in enumerate(by_item) if area is not None]
    rows, columns = zip(*pairs, strict=True)
    shape = (len(by_item), len(names))
    matrix = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)
    share, score = _distinctiveness(clusters, _binary(_binary(session_items(contents)) @ matrix))
    best = np.where(score.max(axis=1) > 0, score.argmax(axis=1), share.argmax(axis=1))
    return [names[n] for n in best.tolist()]


def _examples(
    sessions: pa.Table, contents: Contents, shared: _Shared, confidence: np.ndarray, member: np.ndarray
) -> tuple[str, ...]:
    """Up to three different narratives of clear sessions, none with a title or search of few visitors."""
    rare = np.zeros(contents.n_sessions, bool)
    np.logical_or.at(rare, contents.session, ~shared.items[contents.item])
    lengths = np.bincount(contents.session, minlength=contents.n_sessions)
    clear = confidence + 0.05 * ((lengths >= 3) & (lengths <= 10))
    rows = np.flatnonzero(member & ~rare)
    rows = rows[np.argsort(-clear[rows], kind="stable")][:30]
    unnamed = sessions.take(rows)
    # who came by which rare campaign is nobody's business here
    for name in ("referrer", "campaign"):
        at = unnamed.schema.get_field_index(name)
        unnamed = unnamed.set_column(at, name, pa.nulls(unnamed.num_rows, pa.string()))
    return tuple(dict.fromkeys(narrate(unnamed, site=shared.site)))[:3]


def _binary(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    matrix = matrix.tocsr().copy()
    matrix.data = np.ones_like(matrix.data)
    return matrix
