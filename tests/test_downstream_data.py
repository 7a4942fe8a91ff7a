"""What goes into the evaluation: features, splits, outcomes and slates, as they were known at the time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickintent.downstream import (
    FeatureSet,
    PageCounts,
    account_outcomes,
    align,
    concatenate,
    evening_features,
    latest_session,
    read_slates,
    temporal_split,
)
from clickintent.errors import DataError, EmptyInputError, MissingColumnsError
from factories import DAY, MINUTE, START, session, sessions, themed_sessions


def test_page_counts_count_pages() -> None:
    table = sessions([session(0, ["/", "/cards", "/"]), session(1, ["/help"]), session(2, ["/cards"])])
    counts = PageCounts.fit(table)
    assert counts.pages == ("/", "/cards", "/help")
    assert counts.transform(table).toarray().tolist() == [[2, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert counts.transform(table.slice(1)).toarray().tolist() == [[0, 0, 1], [0, 1, 0]]
    both = pa.concat_tables([table.slice(2), table.slice(0, 1)])  # several chunks, in another order
    assert counts.transform(both).toarray().tolist() == [[0, 1, 0], [2, 1, 0]]


def test_the_vocabulary_knows_no_page_of_the_test_window() -> None:
    train = sessions([session(0, ["/", "/cards"])])
    test = sessions([session(1, ["/cards", "/new-product"])])
    counts = PageCounts.fit(train)
    assert counts.pages == ("/", "/cards")
    assert counts.transform(test).toarray().tolist() == [[0, 1]]
    same = evening_features(train, fit_on=train)
    together = evening_features(pa.concat_tables([train, test]), fit_on=train)
    assert np.array_equal(together[:1], same, equal_nan=True)
    only_known = evening_features(sessions([session(1, ["/cards", "/cards"])]), fit_on=train)
    assert evening_features(test, fit_on=train).shape == only_known.shape


def test_page_counts_of_nothing() -> None:
    empty = sessions([])
    assert PageCounts.fit(empty).transform(empty).shape == (0, 0)
    assert evening_features(empty, fit_on=themed_sessions(8)).shape[0] == 0


def test_evening_features_know_order_and_time() -> None:
    train = sessions([session(i, ["/", "/cards", "/help"]) for i in range(5)])
    forth = session(0, ["/", "/cards", "/help"], start=START + 15 * 60 * MINUTE)
    back = session(1, ["/help", "/cards", "/"], start=START + 15 * 60 * MINUTE)
    later = session(2, ["/", "/cards", "/help"], start=START + DAY + 16 * 60 * MINUTE)
    found = evening_features(sessions([forth, back, later]), fit_on=train)
    assert not np.array_equal(found[0], found[1], equal_nan=True)
    differing = np.flatnonzero(~np.isclose(found[0], found[2], equal_nan=True))
    weekday, hour = 3, 15  # 2026-01-01 was a Thursday
    assert sorted(found[0][differing]) == [weekday, hour]
    assert sorted(found[2][differing]) == [weekday + 1, hour + 1]
    assert np.isfinite(evening_features(sessions([session(9, ["/"])]), fit_on=train)[0, :3]).all()


def test_align_puts_rows_in_order_and_marks_the_absent() -> None:
    values = np.array([[1.0, 2.0], [3.0, 4.0]])
    found = align(values, ["a", "b"], ["b", "x", "a", "b"])
    assert np.array_equal(found, [[3, 4], [np.nan, np.nan], [1, 2], [3, 4]], equal_nan=True)
    features = FeatureSet.of("labels", found)
    assert features.coverage == 0.75
    assert features.present.tolist() == [True, False, True, True]
    assert features.take(np.array([1, 0])).coverage == 0.5
    chunked = pa.chunked_array([["a"], ["b"]])
    assert align(values, chunked, pa.array(["b"])).tolist() == [[3, 4]]
    with pytest.raises(DataError, match="more than once"):
        align(values, ["a", "a"], ["a"])
    with pytest.raises(DataError, match="1 ids for 2 rows"):
        align(values, ["a"], ["a"])


def test_concatenated_features_keep_both() -> None:
    table = themed_sessions(6)
    counts = FeatureSet.of("page_counts", PageCounts.fit(table).transform(table))
    dense = FeatureSet.of("embedding", np.full((6, 2), 0.5, np.float32))
    both = concatenate("embedding_page_counts", dense, counts)
    assert np.array_equal(both.matrix.toarray(), np.hstack([dense.matrix, counts.matrix.toarray()]))
    assert concatenate("twice", dense, dense).matrix.shape == (6, 4)


@given(
    times=st.lists(st.integers(0, 1000), min_size=1, max_size=60),
    embargo=st.integers(0, 300),
    at=st.one_of(st.none(), st.integers(0, 1000)),
)
def test_split_trains_only_on_what_was_known(times: list[int], embargo: int, at: int | None) -> None:
    stamps = np.array(times)
    split = temporal_split(stamps, at, 0.3, embargo)
    assert not (split.train & split.test).any()
    assert (stamps[split.train] + embargo <= split.at).all()
    assert (stamps[split.train] < split.at).all()
    assert (stamps[split.test] >= split.at).all()
    left_out = ~(split.train | split.test)
    assert (stamps[left_out] + embargo > split.at).all()


def test_split_leaves_the_test_share() -> None:
    split = temporal_split(np.arange(1000), None, 0.3)
    assert 290 <= split.test.sum() <= 310
    with pytest.raises(EmptyInputError):
        temporal_split(np.array([]), None, 0.3)


def conversions(rows: list[tuple[str, int, str]]) -> pa.Table:
    names = ("account_id", "ts", "product")
    kinds = (pa.string(), pa.int64(), pa.string())
    return pa.table(
        {n: pa.array([r[i] for r in rows], k) for i, (n, k) in enumerate(zip(names, kinds, strict=True))}
    )


def linked(number: int, account: str, start: int, linked_at: int | None = None) -> dict[str, object]:
    return session(
        number, ["/", "/cards"], start=start, account=account, link="in_session", linked_at=linked_at or start
    )


def test_outcomes_by_hand() -> None:
    table = sessions(
        [
            linked(0, "a", START),  # takes a card after 2 days, then a loan
            linked(1, "b", START),  # takes a loan, but before the session
            session(2, ["/"], start=START),  # nobody's
            linked(3, "c", START, linked_at=START + 5 * DAY),  # takes a card on day 4: not yet known
            linked(4, "d", START),  # takes a card on day 20: too late
            linked(5, "a", START + 25 * DAY),  # not observed for 14 days
        ]
    )
    taken = conversions(
        [
            ("a", START + 9 * DAY, "loan"),
            ("a", START + 2 * DAY, "card"),
            ("b", START - DAY, "loan"),
            ("c", START + 4 * DAY, "card"),
            ("d", START + 20 * DAY, "card"),
            ("z", START + 30 * DAY, "card"),
        ]
    )
    found = account_outcomes(table, taken, 14)
    assert found.rows.tolist() == [0, 1, 3, 4]
    assert found.labels.tolist() == ["card", "none", "none", "none"]
    assert found.account.tolist() == ["a", "b", "c", "d"]
    assert found.predicted_at[2] == START + 5 * DAY
    assert found.horizon_us == 14 * DAY
    assert found.counts == {"sessions": 6, "linked": 5, "unobserved": 1, "used": 4}
    longer = account_outcomes(table, taken, 14, observed_until=START + 60 * DAY)
    assert longer.labels.tolist() == ["card", "none", "none", "none", "none"]


moments = st.integers(0, 60)
accounts = st.sampled_from("abc")


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(accounts, moments, moments), min_size=1, max_size=12),
    taken=st.lists(st.tuples(accounts, moments, st.sampled_from(["card", "loan"])), max_size=12),
    horizon=st.integers(1, 20),
)
def test_outcomes_equal_brute_force(
    rows: list[tuple[str, int, int]], taken: list[tuple[str, int, str]], horizon: int
) -> None:
    table = sessions([linked(i, a, START + t * DAY, START + k * DAY) for i, (a, t, k) in enumerate(rows)])
    events = [(a, START + t * DAY, p) for a, t, p in taken]
    found = account_outcomes(table, conversions(events), horizon, observed_until=START + 99 * DAY)
    ends = table["end"].to_pylist()
    assert found.rows.tolist() == list(range(len(rows)))
    for i, (account, _, known) in enumerate(rows):
        at = max(ends[i], START + known * DAY)
        after = sorted((ts, p) for a, ts, p in events if a == account and at < ts <= at + horizon * DAY)
        assert found.labels[i] == (after[0][1] if after else "none")
        assert found.predicted_at[i] == at


def test_outcomes_that_cannot_be_known() -> None:
    nobody = sessions([session(0, ["/"])])
    with pytest.raises(EmptyInputError, match="linked"):
        account_outcomes(nobody, conversions([]), 14)
    late = sessions([linked(0, "a", START)])
    with pytest.raises(EmptyInputError, match="horizon_days"):
        account_outcomes(late, conversions([("a", START + DAY, "card")]), 14)
    with pytest.raises(MissingColumnsError, match="product"):
        account_outcomes(late, pa.table({"account_id": ["a"], "ts": [START]}), 14)
    none_taken = account_outcomes(late, conversions([]), 14, observed_until=START + 30 * DAY)
    assert none_taken.labels.tolist() == ["none"]


def impressions(slates: list[tuple[str, str, int, list[str], str | None]]) -> pa.Table:
    rows = [
        {
            "slate_id": s,
            "account_id": a,
            "ts": ts,
            "tile": t,
            "position": i,
            "propensity": 0.25,
            "clicked": t == c,
        }
        for s, a, ts, tiles, c in slates
        for i, t in enumerate(tiles)
    ]
    return pa.Table.from_pylist(rows)


def test_slates_are_gathered_in_the_order_of_time() -> None:
    table = impressions([("s2", "b", 20, ["card", "loan"], "loan"), ("s1", "a", 10, ["loan", "save"], None)])
    shuffled = table.take(pa.array([3, 0, 2, 1]))
    for found in (read_slates(table), read_slates(shuffled)):
        assert found.slate_id.tolist() == ["s1", "s2"]
        assert found.account.tolist() == ["a", "b"]
        assert found.tiles == ("card", "loan", "save")
        assert found.position.tolist() == [[-1, 0, 1], [0, 1, -1]]
        assert found.clicked.tolist() == [-1, 1]
        assert np.array_equal(found.propensity, [[np.nan, 0.25, 0.25], [0.25, 0.25, np.nan]], equal_nan=True)


def test_of_several_clicks_the_topmost_counts() -> None:
    table = impressions([("s", "a", 1, ["card", "loan", "save"], None)])
    clicked = table.set_column(6, "clicked", pa.array([False, True, True]))
    assert read_slates(clicked).clicked.tolist() == [1]
    assert read_slates(clicked.take(pa.array([2, 1, 0]))).clicked.tolist() == [1]


def test_unusable_impressions_are_refused() -> None:
    table = impressions([("s", "a", 1, ["card", "loan"], "card")])
    with pytest.raises(MissingColumnsError, match="propensity"):
        read_slates(table.drop_columns("propensity"))
    with pytest.raises(EmptyInputError):
        read_slates(table.slice(0, 0))
    for name, value, message in (
        ("propensity", pa.array([0.5, 0.0]), "outside"),
        ("propensity", pa.array([0.5, None]), "1 rows have no 'propensity'"),
        ("position", pa.array([0, -1]), "negative"),
    ):
        place = table.column_names.index(name)
        with pytest.raises(DataError, match=message):
            read_slates(table.set_column(place, name, value))


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from([*"abc", None]), moments, moments), max_size=15),
    asked=st.lists(st.tuples(st.sampled_from("abcd"), moments), min_size=1, max_size=15),
    lookback=st.integers(1, 40),
)
def test_latest_session_equals_brute_force(
    rows: list[tuple[str | None, int, int]], asked: list[tuple[str, int]], lookback: int
) -> None:
    table = sessions(
        [
            session(i, ["/"], start=START + t * DAY, account=a, linked_at=START + k * DAY if a else None)
            for i, (a, t, k) in enumerate(rows)
        ]
    )
    slates = read_slates(
        impressions([(f"s{i:03d}", a, START + t * DAY, ["card"], None) for i, (a, t) in enumerate(asked)])
    )
    found = latest_session(slates, table, lookback)
    for i in range(len(asked)):
        day = (slates.ts[i] - START) // DAY
        fitting = [
            (t, j) for j, (a, t, k) in enumerate(rows) if a == slates.account[i] and t <= day and k <= day
        ]
        latest = max(fitting, default=(None, -1))
        expected = -1 if latest[0] is None or latest[0] < day - lookback else latest[1]
        assert found[i] == expected
