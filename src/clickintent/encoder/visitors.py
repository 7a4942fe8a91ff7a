"""A visitor's sessions → one vector: the mean of their embeddings, each weighted by how recent it is.

A session's weight halves with every ``half_life_days`` that have passed. The half-life was chosen by
measurement (benchmarks/quality.py, docs/benchmarks.md); the paper names such an aggregation as missing.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickintent.encoder.features import Floats, Ints
from clickintent.encoder.tables import check_columns, times
from clickintent.errors import DataError

HALF_LIFE_DAYS = 3.0
_DAY_US = 86_400_000_000


def visitor_history(
    sessions: pa.Table,
    embeddings: Floats,
    *,
    key: str = "visitor_id",
    half_life_days: float = HALF_LIFE_DAYS,
) -> Floats:
    """For each session, its visitor as of the session's end: that session and those that ended before it.

    To train a model on: no row knows of a later session. Sessions whose key is null stand for themselves.

    Args:
        sessions: columns ``key`` and ``end`` (µs, or timestamps); n rows, in any order.
        embeddings: (n, dim), of the same rows.
        key: ``visitor_id``, or ``account_id`` where sessions may be joined as soon as they have ended; a link
            that became known later must be taken out before (``clickintent.link_as_of``).
        half_life_days: infinity weighs all sessions alike.

    Returns:
        (n, dim) float32.

    Raises:
        MissingColumnsError: if a column is missing.
        DataError: if there are not as many embeddings as sessions, an end is null, or the half-life is not
            positive.
    """
    code, end = _keys(sessions, embeddings, key, half_life_days)
    order = np.lexsort((end, code))
    out = np.empty(embeddings.shape, np.float32)
    out[order] = _running_mean(code[order], end[order], embeddings[order], half_life_days)
    return out


def visitor_embeddings(
    sessions: pa.Table,
    embeddings: Floats,
    *,
    as_of: int | None = None,
    key: str = "visitor_id",
    half_life_days: float = HALF_LIFE_DAYS,
) -> pa.Table:
    """One row per visitor as of a time: to serve from. Arguments and errors as in :func:`visitor_history`.

    Args:
        as_of: µs since 1970 UTC; sessions that end later do not count. All sessions if not given.

    Returns:
        ``key`` (string), ``embedding`` (list of dim float32), ``sessions`` (int64, how many went in),
        ``last`` (µs, the latest end), in the order of the key. Sessions whose key is null are left out.
    """
    kept = sessions[key].is_valid() if key in sessions.column_names else None
    if kept is not None and as_of is not None and "end" in sessions.column_names:
        kept = pc.and_(kept, pc.less_equal(times(sessions["end"], "'end'"), as_of))
    if kept is not None and len(embeddings) == sessions.num_rows:
        sessions, embeddings = sessions.filter(kept), embeddings[kept.to_numpy()]
    code, end = _keys(sessions, embeddings, key, half_life_days)
    order = np.lexsort((end, code))
    means = _running_mean(code[order], end[order], embeddings[order], half_life_days)
    last = np.flatnonzero(np.append(np.diff(code[order]) != 0, True)) if len(order) else np.zeros(0, np.int64)
    dim = embeddings.shape[1]
    table = pa.table(
        {
            key: sessions[key].take(pa.array(order[last])).cast(pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(means[last].ravel()), dim),
            "sessions": np.diff(last, prepend=-1),
            "last": end[order][last],
        }
    )
    return table.sort_by(key)


def _keys(sessions: pa.Table, embeddings: Floats, key: str, half_life_days: float) -> tuple[Ints, Ints]:
    """A number per visitor, a number of its own for each null, and the ends."""
    check_columns("sessions", (key, "end"), sessions.column_names)
    if len(embeddings) != sessions.num_rows:
        raise DataError(
            f"{len(embeddings):,} embeddings for {sessions.num_rows:,} sessions; give one for each."
        )
    if not half_life_days > 0:
        raise DataError(f"half_life_days is {half_life_days:g}; it must be above 0.")
    column = sessions[key].combine_chunks()
    code = (
        pc.fill_null(column.dictionary_encode().indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    )
    alone = np.flatnonzero(code < 0)
    code[alone] = code.max(initial=-1) + 1 + np.arange(len(alone))
    return code, times(sessions["end"], "'end'").to_numpy()


def _running_mean(code: Ints, end: Ints, vectors: Floats, half_life_days: float) -> Floats:
    """Weighted means up to each row; rows sorted by (code, end)."""
    n = len(code)
    first = np.append(True, np.diff(code) != 0) if n else np.zeros(0, bool)
    rank = np.arange(n) - np.maximum.accumulate(np.where(first, np.arange(n), 0))
    gap_days = np.diff(end, prepend=end[:1]) / _DAY_US
    kept = np.where(first, 0.0, np.exp2(-gap_days / half_life_days))
    sums, weight = vectors.astype(np.float64), np.ones(n)
    by_rank = np.argsort(rank, kind="stable")
    bounds = np.searchsorted(rank[by_rank], np.arange(1, int(rank.max(initial=0)) + 2))
    for begin, stop in pairwise(bounds.tolist()):  # all second sessions, all third ones, …
        rows = by_rank[begin:stop]
        sums[rows] += kept[rows, None] * sums[rows - 1]
        weight[rows] += kept[rows] * weight[rows - 1]
    means: Floats = (sums / weight[:, None]).astype(np.float32)
    return means
