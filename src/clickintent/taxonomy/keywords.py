"""The keyword namer: intents and labels in words without a language model.

Clusters of the session embeddings are named by what their sessions look at more than others do (class-based
TF-IDF over titles, search terms and actions). Clusters that read alike are merged. Labels come from words
alone, not from the embedding: the similarity of a session to each intent's keywords, calibrated on the
clusters.
It says what people looked at, not why: its taxonomy carries ``source: keywords``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from clickintent import schema
from clickintent.taxonomy.content import (
    Contents,
    fold,
    label_of,
    page_words,
    read_contents,
    shorten,
    site_names,
)
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
_DOUBT = 0.2  # similarity set aside for "none of these" when intents share a session among them
_CALIBRATION = (4.0, 8.0, -4.0)  # for taxonomies that were not drafted here
_CALIBRATION_ROWS = 5_000
_ROWS = 100_000  # sessions labelled at a time
_EVIDENCE_LENGTH = 160
_CARRIES = 0.5  # of what the most telling event says for an intent, for an event to support it


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
    w = _weights(profiles, {term: n for n, term in enumerate(shared.terms)})
    similarity = _similarity(session_items(contents), shared.matrix, w)
    calibration = _calibrate(similarity, clusters)
    confidence = _confidence(similarity, calibration)
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
                examples=_examples(sessions, contents, shared, confidence[:, c], clusters == c),
            )
        )
    return Taxonomy(source="keywords", calibration=calibration, intents=tuple(found))


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


def annotate(sessions: pa.Table, taxonomy: Taxonomy, *, min_confidence: float) -> pa.Table:
    """Label sessions by the keywords of each intent: a LABELS table in the order of the sessions.

    A label's confidence is the calibrated probability that the session is of the intent, given its words. A
    session of no intent's words gets no label. Evidence is the title or search term that speaks most for it;
    supporting events are those that speak at least half as much for it.
    """
    parts = [
        _annotate(sessions.slice(at, _ROWS), taxonomy, min_confidence)
        for at in range(0, sessions.num_rows, _ROWS)
    ]
    return pa.concat_tables(parts) if parts else schema.LABELS.empty_table()


def _annotate(sessions: pa.Table, taxonomy: Taxonomy, min_confidence: float) -> pa.Table:
    profiles = [_profile_of(intent) for intent in taxonomy.intents]
    terms = list(dict.fromkeys(term for profile in profiles for term in profile))
    vocabulary = {term: n for n, term in enumerate(terms)}
    contents = read_contents(sessions)
    matrix, _ = item_terms(contents.items, vocabulary)
    counts = session_items(contents)
    w = _weights(profiles, vocabulary)
    calibration = taxonomy.calibration or _CALIBRATION
    confidence = _confidence(_similarity(counts, matrix, w), calibration)
    keep = (confidence >= min_confidence) & (confidence > 0)
    row, column = np.nonzero(keep)
    speaks = np.asarray(matrix.multiply(w.max(axis=0)).tocsr() @ w.T)  # (items, k)
    evidence = _evidence(contents, counts, speaks, row, column)
    ids = np.asarray(taxonomy.intent_ids, dtype=object)
    n = len(row)
    return pa.table(
        [
            sessions["session_id"].take(pa.array(row)),
            pa.array(ids[column], pa.string()),
            pa.array(confidence[row, column].astype(np.float32)),
            pa.array(np.full(n, "keywords", dtype=object), pa.string()),
            pa.array(np.full(n, taxonomy.version), pa.int64()),
            pa.array(evidence, pa.string()),
            _supporting(contents, speaks, row, column),
        ],
        schema=schema.LABELS,
    )


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


def _profile_of(intent: Intent) -> dict[str, float]:
    """Keyword → weight. An intent without keywords is known by its name and by what it includes."""
    if intent.keywords:
        return {fold(term): weight for term, weight in intent.weighted_keywords().items()}
    texts = [intent.name, *intent.includes]
    words = {word for text in texts for word in fold(text).replace(",", " ").split() if len(word) > 3}
    return {**dict.fromkeys(sorted(words), 0.5), **{fold(text): 1.0 for text in texts}}


def _weights(profiles: list[dict[str, float]], vocabulary: dict[str, int]) -> np.ndarray:
    """Profiles as a matrix (k, terms)."""
    w = np.zeros((len(profiles), max(len(vocabulary), 1)), np.float32)
    for row, profile in enumerate(profiles):
        for term, weight in profile.items():
            w[row, vocabulary[term]] = weight
    return w


def _similarity(counts: sparse.csr_matrix, matrix: sparse.csr_matrix, w: np.ndarray) -> np.ndarray:
    """Cosine (n, k) of sessions and profiles. A session's terms count by how distinctive they are at best, so
    words that no profile holds do not count at all.
    """
    importance = w.max(axis=0)
    bags = (counts @ matrix).multiply(importance).tocsr()
    lengths = np.sqrt(np.asarray(bags.multiply(bags).sum(axis=1))).ravel()
    norms = np.linalg.norm(w, axis=1)
    dots: np.ndarray = np.asarray(bags @ w.T)
    result: np.ndarray = dots / np.maximum(lengths, 1e-9)[:, None] / np.maximum(norms, 1e-9)
    return result


def _calibrate(similarity: np.ndarray, clusters: np.ndarray) -> tuple[float, float, float]:
    """Logistic regression of "is of this cluster" on similarity and its share among intents (after Platt)."""
    k = similarity.shape[1]
    every = max(1, len(similarity) // _CALIBRATION_ROWS)  # three numbers need no more
    similarity, clusters = similarity[::every], clusters[::every]
    is_member = clusters[:, None] == np.arange(k)
    features = _features(similarity).reshape(-1, 2)
    if k == 1 or is_member.all() or not np.any(similarity > 0):
        return _CALIBRATION
    model = LogisticRegression(C=100.0).fit(features, is_member.ravel())
    a, b = (float(x) for x in model.coef_[0])
    if a < 0 or b < 0:  # more alike would count as less likely
        return _CALIBRATION
    return round(a, 3), round(b, 3), round(float(model.intercept_[0]), 3)


def _features(similarity: np.ndarray) -> np.ndarray:
    total = similarity.sum(axis=1, keepdims=True)
    return np.stack([similarity, similarity / (total + _DOUBT)], axis=2)


def _confidence(similarity: np.ndarray, calibration: tuple[float, ...]) -> np.ndarray:
    a, b, c = calibration
    features = _features(similarity)
    logits = a * features[:, :, 0] + b * features[:, :, 1] + c
    confidence: np.ndarray = np.where(similarity > 0, 1 / (1 + np.exp(-logits)), 0.0)
    return confidence


def _evidence(
    contents: Contents,
    counts: sparse.csr_matrix,
    speaks: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
) -> list[str | None]:
    """For each label (row, column): the title or search term of the session that speaks most for it.

    Args:
        speaks: (items, k), how much each item speaks for each intent.
    """
    shown = (item.search or item.title or item.action or page_words(item.page) for item in contents.items)
    texts = [shorten(text, _EVIDENCE_LENGTH) for text in shown]
    by_text = np.unique(np.asarray(texts, dtype=object), return_inverse=True)[1]
    best = np.zeros(len(row), np.int64)
    nonempty = np.flatnonzero(np.diff(counts.indptr))
    starts = counts.indptr[nonempty]
    for intent in np.unique(column).tolist():
        order = np.lexsort((by_text, np.round(speaks[:, intent], 5)))  # ties by text, not by company
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        top = np.zeros(counts.shape[0], np.int64)
        top[nonempty] = order[np.maximum.reduceat(rank[counts.indices], starts)]
        mine = column == intent
        best[mine] = top[row[mine]]
    return [texts[i] for i in best]


def _supporting(contents: Contents, speaks: np.ndarray, row: np.ndarray, column: np.ndarray) -> pa.ListArray:
    """For each label: the places in the session of the events that speak at least half as much for it as the
    event that speaks most.
    """
    bounds = np.searchsorted(contents.session, np.arange(contents.n_sessions + 1))
    first, lengths = bounds[row], np.diff(bounds)[row]
    starts = np.cumsum(lengths) - lengths
    place = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    score = speaks[contents.item[np.repeat(first, lengths) + place], np.repeat(column, lengths)]
    best = np.maximum.reduceat(score, starts) if len(row) else np.empty(0)
    kept = score >= _CARRIES * np.repeat(best, lengths)
    ends = np.concatenate([[0], np.cumsum(kept)])[np.append(starts, len(kept))]
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(place[kept], pa.int64()))


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
