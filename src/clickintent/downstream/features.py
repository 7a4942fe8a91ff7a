"""Feature matrices of sessions: the page-count baseline, an evening's features, and alignment by id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from clickintent.errors import DataError

Matrix: TypeAlias = np.ndarray | sparse.csr_matrix  # (n, k)

_HOUR_US = 3_600_000_000
_EVENING_PAGES = 200  # the most frequent pages that get a count of their own


@dataclass(frozen=True)
class FeatureSet:
    """One method's features of n rows."""

    name: str
    matrix: Matrix  # (n, k); rows that the method lacks are NaN (dense only)
    coverage: float = 1.0  # share of the rows that have features

    @classmethod
    def of(cls, name: str, matrix: Matrix) -> FeatureSet:
        """With the coverage that the matrix has: rows of nothing but NaN are not covered."""
        found = cls(name, matrix)
        present = found.present
        return cls(name, matrix, float(present.mean()) if len(present) else 0.0)

    @property
    def present(self) -> np.ndarray:
        """(n,) bool: which rows have features."""
        if sparse.issparse(self.matrix) or self.matrix.shape[1] == 0:
            return np.ones(self.matrix.shape[0], bool)
        found: np.ndarray = np.logical_not(np.isnan(self.matrix).all(axis=1))
        return found

    def take(self, rows: np.ndarray) -> FeatureSet:
        """The features of some rows, given by index or mask; a row may be taken several times."""
        return FeatureSet.of(self.name, self.matrix[rows])


def concatenate(name: str, *sets: FeatureSet) -> FeatureSet:
    """Features side by side; sparse if any part is. A row counts as covered if the first part covers it."""
    parts = [s.matrix for s in sets]
    if not any(sparse.issparse(part) for part in parts):
        return FeatureSet(name, np.hstack(parts), sets[0].coverage)
    return FeatureSet(name, sparse.hstack(parts, format="csr", dtype=np.float32), sets[0].coverage)


def align(values: np.ndarray, ids: Sequence[str] | pa.Array, wanted: Sequence[str] | pa.Array) -> np.ndarray:
    """Rows of ``values`` (len(ids), k) in the order of ``wanted``; NaN where an id is absent.

    Raises:
        DataError: if an id occurs twice, or there are not as many ids as rows.
    """
    have, want = _strings(ids), _strings(wanted)
    if len(have) != len(values):
        raise DataError(f"align: {len(have):,} ids for {len(values):,} rows of values.")
    if pc.count_distinct(have).as_py() != len(have):
        raise DataError("align: a session_id occurs more than once; its row would be a guess.")
    index = pc.fill_null(pc.index_in(want, value_set=have), -1).to_numpy(zero_copy_only=False)
    out = np.full((len(index), *values.shape[1:]), np.nan, np.float32)
    out[index >= 0] = values[index[index >= 0]]
    return out


@dataclass(frozen=True)
class PageCounts:
    """How often each page was seen: the production baseline. Pages first seen after training do not exist."""

    pages: tuple[str, ...] = ()

    @classmethod
    def fit(cls, sessions: pa.Table) -> PageCounts:
        """The pages of these (training) sessions, in alphabetical order."""
        pages = pc.unique(_flat(sessions, "page")).drop_null()
        return cls(tuple(sorted(pages.to_pylist())))

    def transform(self, sessions: pa.Table) -> sparse.csr_matrix:
        """Counts (n, len(pages)) float32."""
        column = _codes(_flat(sessions, "page"), self.pages)
        row = np.repeat(np.arange(sessions.num_rows), _lengths(sessions))
        known = column >= 0
        ones = np.ones(int(known.sum()), np.float32)
        shape = (sessions.num_rows, len(self.pages))
        return sparse.csr_matrix((ones, (row[known], column[known])), shape=shape, dtype=np.float32)


def evening_features(sessions: pa.Table, *, fit_on: pa.Table) -> np.ndarray:
    """What a good data scientist builds in an evening, (n, k) float32, NaN where undefined.

    Counts of events, pages, event types and search terms; dwell and gaps; first, last and furthest page,
    steps back and revisits; hour and weekday; device and referrer; counts of the most frequent pages.
    Pages are numbered by how late in a session they tend to come, so "furthest" means something.

    Args:
        fit_on: training sessions. The numbering and the vocabularies come from these alone.
    """
    counts = PageCounts.fit(fit_on)
    order = _typical_order(fit_on, counts.pages)
    n = sessions.num_rows
    lengths = _lengths(sessions)
    row = np.repeat(np.arange(n), lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]) if n else np.zeros(0, int)
    place = np.arange(len(row)) - starts[row]  # position of the event in its session
    is_last = place == lengths[row] - 1

    code = _codes(_flat(sessions, "page"), counts.pages)
    step = np.where(code >= 0, order[code] if len(order) else np.nan, np.nan)
    previous = np.where(place > 0, np.roll(step, 1), np.nan)
    moved = step - previous
    dwell = _numbers(_flat(sessions, "dwell_s"))
    gap = _numbers(_flat(sessions, "gap_s"))
    has_text = _flat(sessions, "text").is_valid().to_numpy().astype(np.float64)
    value = _numbers(_flat(sessions, "value"))
    types = _flat(sessions, "event_type").combine_chunks().dictionary_encode().indices
    kinds = pc.fill_null(types, -1).to_numpy(zero_copy_only=False)

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(row, np.nan_to_num(values), n)

    def highest(values: np.ndarray) -> np.ndarray:
        out = np.full(n, -np.inf)
        np.maximum.at(out, row, np.where(np.isnan(values), -np.inf, values))
        return np.where(np.isfinite(out), out, np.nan)

    def at_place(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
        out = np.full(n, np.nan)
        out[row[mask]] = values[mask]
        return out

    start = sessions["start"].to_numpy()
    columns = [
        lengths.astype(np.float64),
        _distinct(row, code, n),
        _distinct(row, kinds, n),
        lengths - _distinct(row, code, n),  # revisits
        total(has_text),
        total(value),
        (sessions["end"].to_numpy() - start) / 1e6,
        total(dwell),
        highest(dwell),
        total(np.log1p(np.nan_to_num(dwell))),
        total(dwell**2),
        highest(gap),
        -highest(-gap),
        at_place(gap, is_last),
        at_place(gap, place == lengths[row] - 2),
        at_place(step, place == 0),
        at_place(step, place == 1),
        at_place(step, is_last),
        at_place(step, place == lengths[row] - 2),
        highest(step),
        -highest(-step),
        total(moved < 0),  # steps back
        total(moved == 0),  # the same page again
        total(moved > 0),
        at_place(moved, is_last),
        (start // _HOUR_US % 24).astype(np.float64),
        (start // (24 * _HOUR_US) + 3) % 7,  # 0 is Monday: 1970 began on a Thursday
        *(_category(sessions, fit_on, name) for name in ("device", "referrer", "campaign", "country")),
    ]
    frequent = _most_frequent(fit_on, counts.pages)
    matrix = PageCounts(frequent).transform(sessions).toarray()
    return np.hstack([np.column_stack(columns).astype(np.float32), matrix])


def _typical_order(sessions: pa.Table, pages: tuple[str, ...]) -> np.ndarray:
    """Rank of each page by the mean relative position of its first sight in a session."""
    lengths = _lengths(sessions)
    row = np.repeat(np.arange(sessions.num_rows), lengths)
    if len(row) == 0:
        return np.zeros(0)
    place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    code = _codes(_flat(sessions, "page"), pages)
    known = code >= 0
    key, first = np.unique(row[known] * max(len(pages), 1) + code[known], return_index=True)
    page = key % max(len(pages), 1)
    seen = np.bincount(page, minlength=len(pages))
    mean = np.bincount(page, place[known][first], len(pages)) / np.maximum(seen, 1)
    rank = np.empty(len(pages))
    rank[np.lexsort((np.arange(len(pages)), mean))] = np.arange(len(pages))
    return rank


def _most_frequent(sessions: pa.Table, pages: tuple[str, ...]) -> tuple[str, ...]:
    code = _codes(_flat(sessions, "page"), pages)
    seen = np.bincount(code[code >= 0], minlength=len(pages))
    return tuple(pages[i] for i in sorted(np.argsort(-seen, kind="stable")[:_EVENING_PAGES]))


def _category(sessions: pa.Table, fit_on: pa.Table, name: str) -> np.ndarray:
    """Codes by frequency in the training sessions: 0 the most frequent, NaN unknown."""
    counted = pc.value_counts(fit_on[name].combine_chunks()).to_pylist()
    ranked = sorted((-c["counts"], c["values"]) for c in counted if c["values"] is not None)
    codes = _codes(sessions[name], tuple(value for _, value in ranked))
    return np.where(codes >= 0, codes, np.nan)


def _distinct(row: np.ndarray, code: np.ndarray, n: int) -> np.ndarray:
    width = int(code.max(initial=0)) + 2
    return np.bincount(np.unique(row * width + code + 1) // width, minlength=n).astype(np.float64)


def _flat(sessions: pa.Table, name: str) -> pa.ChunkedArray:
    """One field of all events, session after session."""
    return pc.struct_field(pc.list_flatten(sessions["events"]), name)


def _lengths(sessions: pa.Table) -> np.ndarray:
    lengths: np.ndarray = (
        pc.fill_null(pc.list_value_length(sessions["events"]), 0).to_numpy().astype(np.int64)
    )
    return lengths


def _codes(values: pa.ChunkedArray, vocabulary: Sequence[str]) -> np.ndarray:
    """Index of each value in the vocabulary, −1 where it is not in it or null."""
    known = pa.array(vocabulary, pa.string())
    found: np.ndarray = pc.fill_null(pc.index_in(values, value_set=known), -1).to_numpy().astype(np.int64)
    return found


def _numbers(values: pa.ChunkedArray) -> np.ndarray:
    found: np.ndarray = values.to_numpy().astype(np.float64)
    return found


def _strings(values: Sequence[str] | pa.Array) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    return values if isinstance(values, pa.Array) else pa.array(values, pa.string())
