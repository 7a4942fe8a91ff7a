"""Labels by keywords, without a language model.

They come from words alone, not from the embedding: the similarity of a session to each intent's keywords,
calibrated on the clusters that the intents were named after.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from scipy import sparse

from clickintent import schema
from clickintent.taxonomy.content import Contents, fold, page_words, read_contents, shorten
from clickintent.taxonomy.taxonomy import Intent, Taxonomy
from clickintent.taxonomy.terms import item_terms, session_items

_DOUBT = 0.2  # similarity set aside for "none of these" when intents share a session among them
_CALIBRATION = (4.0, 8.0, -4.0)  # for taxonomies that the keyword namer did not draft
_CALIBRATION_ROWS = 5_000
_ROWS = 100_000  # sessions labelled at a time
_EVIDENCE_LENGTH = 160
_CARRIES = 0.5  # of what the most telling event says for an intent, for an event to support it


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
    w = weights(profiles, vocabulary)
    calibration = taxonomy.calibration or _CALIBRATION
    confidence = confidence_of(similarity(counts, matrix, w), calibration)
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


def _profile_of(intent: Intent) -> dict[str, float]:
    """Keyword → weight. An intent without keywords is known by its name and by what it includes."""
    if intent.keywords:
        return {fold(term): weight for term, weight in intent.weighted_keywords().items()}
    texts = [intent.name, *intent.includes]
    words = {word for text in texts for word in fold(text).replace(",", " ").split() if len(word) > 3}
    return {**dict.fromkeys(sorted(words), 0.5), **{fold(text): 1.0 for text in texts}}


def weights(profiles: list[dict[str, float]], vocabulary: dict[str, int]) -> np.ndarray:
    """Profiles as a matrix (k, terms)."""
    w = np.zeros((len(profiles), max(len(vocabulary), 1)), np.float32)
    for row, profile in enumerate(profiles):
        for term, weight in profile.items():
            w[row, vocabulary[term]] = weight
    return w


def similarity(counts: sparse.csr_matrix, matrix: sparse.csr_matrix, w: np.ndarray) -> np.ndarray:
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


def calibrate(similarity: np.ndarray, clusters: np.ndarray) -> tuple[float, float, float]:
    """Logistic regression of "is of this cluster" on similarity and its share among intents (after Platt)."""
    k = similarity.shape[1]
    every = max(1, len(similarity) // _CALIBRATION_ROWS)  # three numbers need no more
    similarity, clusters = similarity[::every], clusters[::every]
    is_member = clusters[:, None] == np.arange(k)
    features = _features(similarity).reshape(-1, 2)
    if k == 1 or is_member.all() or not np.any(similarity > 0):
        return _CALIBRATION
    from sklearn.linear_model import LogisticRegression  # here, because it is slow to import

    model = LogisticRegression(C=100.0).fit(features, is_member.ravel())
    a, b = (float(x) for x in model.coef_[0])
    if a < 0 or b < 0:  # more alike would count as less likely
        return _CALIBRATION
    return round(a, 3), round(b, 3), round(float(model.intercept_[0]), 3)


def _features(similarity: np.ndarray) -> np.ndarray:
    total = similarity.sum(axis=1, keepdims=True)
    return np.stack([similarity, similarity / (total + _DOUBT)], axis=2)


def confidence_of(similarity: np.ndarray, calibration: tuple[float, ...]) -> np.ndarray:
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
