"""Visitors from sessions, maps between encoders, axes by importance."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickintent.encoder.alignment import apply_alignment, compose, explained, fit_alignment
from clickintent.encoder.visitors import visitor_embeddings, visitor_history
from clickintent.errors import DataError, MissingColumnsError

DAY = 86_400_000_000


def table(visitors: list[str | None], days: list[float]) -> pa.Table:
    return pa.table({"visitor_id": pa.array(visitors, pa.string()), "end": [int(d * DAY) for d in days]})


def slow_history(
    visitors: list[str | None], days: list[float], vectors: np.ndarray, half: float
) -> np.ndarray:
    """The definition: for each row, the weighted mean over the visitor's rows that ended by then."""
    out = []
    for i, (visitor, day) in enumerate(zip(visitors, days, strict=True)):
        rows = [
            j
            for j, (v, d) in enumerate(zip(visitors, days, strict=True))
            if j == i or (visitor is not None and v == visitor and (d < day or (d == day and j < i)))
        ]
        weights = np.array([0.5 ** ((day - days[j]) / half) for j in rows])
        out.append(weights @ vectors[rows] / weights.sum())
    return np.array(out)


rows = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(0, 40)), min_size=1, max_size=30
)


@given(rows, st.sampled_from([0.5, 7.0, float("inf")]))
def test_history_is_the_weighted_mean_of_what_had_ended(
    pairs: list[tuple[str | None, int]], half: float
) -> None:
    visitors, days = [p[0] for p in pairs], [float(p[1]) for p in pairs]
    vectors = np.random.default_rng(len(pairs)).normal(size=(len(pairs), 4)).astype(np.float32)
    found = visitor_history(table(visitors, days), vectors, half_life_days=half)
    np.testing.assert_allclose(found, slow_history(visitors, days, vectors, half), atol=1e-5)


@given(rows)
def test_the_future_does_not_reach_a_row(pairs: list[tuple[str | None, int]]) -> None:
    visitors, days = [p[0] for p in pairs], np.array([float(p[1]) for p in pairs])
    vectors = np.random.default_rng(1).normal(size=(len(pairs), 3)).astype(np.float32)
    whole = visitor_history(table(visitors, days.tolist()), vectors)
    past = np.flatnonzero(days <= 20)
    cut = visitor_history(table([visitors[i] for i in past], days[past].tolist()), vectors[past])
    np.testing.assert_array_equal(whole[past], cut)


def test_one_row_per_visitor_as_of_a_time() -> None:
    sessions = table(["b", "a", "b", None, "a"], [1, 2, 3, 4, 9])
    vectors = np.arange(10, dtype=np.float32).reshape(5, 2)
    found = visitor_embeddings(sessions, vectors, as_of=5 * DAY, half_life_days=float("inf"))
    assert found["visitor_id"].to_pylist() == ["a", "b"]
    assert found["embedding"].to_pylist() == [[2.0, 3.0], [2.0, 3.0]]  # b: the mean of (0, 1) and (4, 5)
    assert found["sessions"].to_pylist() == [1, 2]
    assert found["last"].to_pylist() == [2 * DAY, 3 * DAY]
    assert visitor_embeddings(sessions, vectors, as_of=0).num_rows == 0


def test_recent_sessions_weigh_more() -> None:
    vectors = np.array([[0.0], [1.0]], dtype=np.float32)
    found = visitor_embeddings(table(["a", "a"], [0, 7]), vectors, half_life_days=7)
    assert found["embedding"].to_pylist() == [[pytest.approx(1 / 1.5)]]


def test_wrong_input_is_refused() -> None:
    sessions, vectors = table(["a"], [1]), np.zeros((2, 3), np.float32)
    with pytest.raises(DataError, match="2 embeddings for 1 sessions"):
        visitor_history(sessions, vectors)
    with pytest.raises(MissingColumnsError, match="account_id"):
        visitor_embeddings(sessions, vectors[:1], key="account_id")
    with pytest.raises(DataError, match="half_life_days"):
        visitor_history(sessions, vectors[:1], half_life_days=0)


def test_an_affine_change_of_space_is_undone() -> None:
    rng = np.random.default_rng(0)
    old = rng.normal(size=(400, 8)).astype(np.float32)
    new = (old @ rng.normal(size=(8, 8)) + rng.normal(size=8)).astype(np.float32)
    alignment = fit_alignment(new[:200], old[:200])
    assert explained(new[200:], old[200:], alignment) > 0.99
    assert explained(new[200:], old[200:], np.eye(9, 8, dtype=np.float32)) < 0.5


def test_maps_compose() -> None:
    rng = np.random.default_rng(0)
    first, then = (rng.normal(size=(5, 4)).astype(np.float32) for _ in range(2))
    x = rng.normal(size=(10, 4)).astype(np.float32)
    twice = apply_alignment(apply_alignment(x, first), then)
    np.testing.assert_allclose(apply_alignment(x, compose(first, then)), twice, rtol=1e-4, atol=1e-4)


def test_too_few_sessions_make_no_map() -> None:
    with pytest.raises(DataError, match="at least 32"):
        fit_alignment(np.zeros((10, 8), np.float32), np.zeros((10, 8), np.float32))
    with pytest.raises(DataError, match="do not pair up"):
        fit_alignment(np.zeros((10, 8), np.float32), np.zeros((9, 8), np.float32))


def test_sessions_without_events_stay_at_zero() -> None:
    vectors = np.array([[0, 0], [1, 2]], np.float32)
    np.testing.assert_array_equal(apply_alignment(vectors, np.ones((3, 2), np.float32)), [[0, 0], [4, 4]])
