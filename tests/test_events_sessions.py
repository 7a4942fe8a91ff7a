"""Where sessions end, whose they are, what a robot looks like, and what is left of a session cut short."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import factories
from clickintent import schema
from clickintent.config import Config, PrivacyConfig, SessionsConfig, SourceConfig
from clickintent.events import events_before, first_events, ingest
from factories import MINUTE, START

COLUMNS = {
    "visitor_id": "visitor",
    "account_id": "account",
    "ts": "ts",
    "page": "page",
    "session_key": "key",
}


def sessions_of(folder: Path, rows: list[dict[str, Any]], **config: Any) -> list[dict[str, Any]]:
    kinds = {"visitor": pa.string(), "account": pa.string(), "ts": pa.int64(), "page": pa.string()}
    table = {name: pa.array([r.get(name) for r in rows], kind) for name, kind in kinds.items()}
    table["key"] = pa.array([r.get("key") for r in rows], pa.string())
    pq.write_table(pa.table(table), folder / "raw.parquet")
    source = SourceConfig(
        reader="table",
        path=folder / "raw.parquet",
        columns=COLUMNS,
        constants={"event_type": "page_view"},
        ts_unit="us",
    )
    privacy = PrivacyConfig(ids="plain", min_people=1)
    made = Config(workspace=folder, sources=(source,), sessions=SessionsConfig(**config), privacy=privacy)
    ingest(made, folder / "out")
    return list(pq.read_table(folder / "out" / "sessions").to_pylist())


def at(minutes: float, visitor: str = "v", **more: Any) -> dict[str, Any]:
    return {"visitor": visitor, "ts": START + round(minutes * MINUTE), "page": "home", **more}


def reference(events: list[tuple[str, int]], limit: int) -> set[tuple[str, tuple[int, ...]]]:
    """The inactivity rule, by hand."""
    found, last = [], {}
    for visitor, ts in sorted(events):
        if visitor in last and ts - last[visitor][-1] <= limit:
            last[visitor].append(ts)
        else:
            last[visitor] = [ts]
            found.append((visitor, last[visitor]))
    return {(visitor, tuple(times)) for visitor, times in found}


EVENTS = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 400)), min_size=1, max_size=150, unique=True
)


@settings(
    max_examples=5,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(EVENTS, st.integers(1, 60))
def test_inactivity_ends_a_session(tmp_path: Path, events: list[tuple[str, int]], minutes: int) -> None:
    rows = [at(minute, visitor) for visitor, minute in events]
    found = sessions_of(tmp_path, rows, inactivity_minutes=minutes)
    plain = {(s["visitor_id"], tuple(e["ts"] for e in s["events"])) for s in found}
    assert plain == reference([(r["visitor"], r["ts"]) for r in rows], minutes * MINUTE)
    for session in found:
        times = [e["ts"] for e in session["events"]]
        gaps = [(b - a) / 1e6 for a, b in pairwise(times)]
        assert [e["gap_s"] for e in session["events"]] == [None, *gaps]
        assert [e["dwell_s"] for e in session["events"]] == [*gaps, None]
        assert (session["start"], session["end"], session["n_events"]) == (times[0], times[-1], len(times))


def test_the_sources_own_sessions_can_be_the_boundary(tmp_path: Path) -> None:
    rows = [at(0, key="a"), at(1, key="b"), at(90, key="a"), at(2), at(3), at(60)]
    found = sessions_of(tmp_path, rows, boundary="source")
    assert [[(e["ts"] - START) // MINUTE for e in s["events"]] for s in found] == [[0, 90], [1], [2, 3], [60]]
    found = sessions_of(tmp_path, rows)
    assert [[(e["ts"] - START) // MINUTE for e in s["events"]] for s in found] == [[0, 1, 2, 3], [60, 90]]


def links(found: list[dict[str, Any]]) -> list[tuple[str, str | None, int | None]]:
    """(link, account, minute that it became known) of the sessions, by visitor and time."""
    found = sorted(found, key=lambda s: (s["visitor_id"], s["start"]))
    known = [s["account_linked_at"] for s in found]
    minutes = [None if k is None else (k - START) // MINUTE for k in known]
    return [(s["account_link"], s["account_id"], m) for s, m in zip(found, minutes, strict=True)]


def test_a_link_is_as_of_the_sessions_time(tmp_path: Path) -> None:
    rows = [
        *(at(0), at(100), at(101, account="A"), at(102, account="A"), at(200)),
        *(at(0, "nobody"), at(100, "nobody")),
        # a second account appears later: what came before does not know
        *(at(0, "two", account="A"), at(100, "two"), at(200, "two", account="B"), at(300, "two")),
        # two accounts later on: at the first session nobody knows either
        *(at(0, "later"), at(100, "later", account="A"), at(200, "later", account="B")),
        # two in one session
        *(at(0, "x", account="A"), at(1, "x", account="B"), at(2, "x", account="A"), at(100, "x")),
    ]
    assert links(sessions_of(tmp_path, rows)) == [
        *(("ambiguous", None, 200), ("in_session", "A", 100), ("in_session", "B", 200)),  # later
        *(("none", None, None), ("none", None, None)),  # nobody
        *(
            ("in_session", "A", 0),
            ("before", "A", 0),
            ("in_session", "B", 200),
            ("ambiguous", None, 200),
        ),  # two
        *(("after", "A", 101), ("in_session", "A", 101), ("before", "A", 101)),  # v
        *(("ambiguous", None, 1), ("ambiguous", None, 1)),  # x
    ]


LINKED = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 300), st.sampled_from([None, None, "A", "B"])),
    min_size=1,
    max_size=80,
    unique_by=lambda e: e[:2],
)


@settings(
    max_examples=5,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(LINKED, st.integers(0, 300))
def test_no_link_comes_from_the_future(
    tmp_path: Path, events: list[tuple[str, int, str | None]], now: int
) -> None:
    """What is linked by ``now`` is the same whether or not the world goes on after it."""
    rows = [at(minute, visitor, account=account) for visitor, minute, account in events]
    past = [r for r in rows if r["ts"] <= START + now * MINUTE]
    if not past:
        return

    all_of_it, then = sessions_of(tmp_path, rows), sessions_of(tmp_path, past)
    over = {s["session_id"] for s in all_of_it if s["end"] <= START + now * MINUTE}

    def visible(found: list[dict[str, Any]]) -> dict[str, tuple[str, str | None, int]]:
        """What a session that is over says at its end."""
        done = [
            s for s in found if s["session_id"] in over and (s["account_linked_at"] or 10**18) <= s["end"]
        ]
        return {s["session_id"]: (s["account_link"], s["account_id"], s["account_linked_at"]) for s in done}

    assert visible(all_of_it) == visible(then)
    for session in all_of_it:
        if session["account_link"] == "before":
            assert session["account_linked_at"] < session["start"]
        if session["account_link"] == "in_session":
            assert session["start"] <= session["account_linked_at"] <= session["end"]
        if session["account_link"] == "after":
            assert session["account_linked_at"] > session["end"]


def test_robots_are_flagged_with_a_reason(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    human = np.cumsum(rng.lognormal(3, 1, 30)) / 60
    rows = [
        *(at(m, "human", page=f"p{i % 5}") for i, m in enumerate(human)),
        *(at(i / 120, "fast", page=f"p{i % 5}") for i in range(10)),
        *(at(i / 120, "short") for i in range(5)),
        *(at(i / 6 + j / 60_000, "regular") for i in range(6) for j in range(2)),
        *(at(m, "many") for m in np.cumsum(rng.lognormal(1, 1, 301)) / 60),
        *(at(m, "crawl", page=f"page {'abcdefgh'[i % 8]}{'ijklmn'[i // 8]}") for i, m in enumerate(
            np.cumsum(rng.lognormal(2, 1, 45)) / 60)),
    ]  # fmt: skip
    found = {s["visitor_id"]: (s["is_bot"], s["bot_reason"]) for s in sessions_of(tmp_path, rows)}
    assert found == {
        "human": (False, None),
        "fast": (True, "rate"),
        "short": (False, None),
        "regular": (True, "regularity"),
        "many": (True, "volume"),
        "crawl": (True, "breadth"),
    }


# --- prefixes ---


def test_first_events_keeps_nothing_of_the_rest() -> None:
    secret = ["/", "/cards", "/secret-later", "/secret-end"]
    table = factories.sessions(
        [
            factories.session(0, secret, account="A9", link="in_session", linked_at=START + 50_000_000),
            factories.session(1, secret, account="A9", link="after", linked_at=START + 10**12),
            factories.session(2, ["/", "/help"], account="B", link="before", linked_at=START - 1),
            factories.session(3, ["/"] * 3),
            factories.session(4, secret, account="C", link="in_session", linked_at=START + 4 * MINUTE),
        ]
    )
    cut = first_events(table, np.array([2, 2, 5, 0, 1]))
    assert cut.schema.equals(schema.SESSIONS)
    assert cut["session_id"].to_pylist() == ["s000000", "s000001", "s000002", "s000004"]
    assert cut["n_events"].to_pylist() == [2, 2, 2, 1]
    assert cut["account_link"].to_pylist() == ["none", "none", "before", "in_session"]
    assert cut["account_id"].to_pylist() == [None, None, "B", "C"]
    assert cut["account_linked_at"].to_pylist() == [None, None, START - 1, START + 4 * MINUTE]
    assert "secret" not in json.dumps(cut.to_pylist())
    assert "A9" not in json.dumps(cut.to_pylist())
    for row in cut.to_pylist():
        assert row["end"] == row["events"][-1]["ts"]
        assert row["events"][-1]["dwell_s"] is None
        assert all(e["dwell_s"] == 20.0 for e in row["events"][:-1])
        assert len(row["events"]) == row["n_events"]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 35)), max_size=12), st.integers(0, 3))
def test_a_prefix_is_what_it_would_be_without_the_rest(lengths: list[tuple[int, int]], skip: int) -> None:
    whole = [factories.session(i, [f"/p{j}" for j in range(n)]) for i, (n, _) in enumerate(lengths)]
    early = [
        factories.session(i, [f"/p{j}" for j in range(min(n, k))]) for i, (n, k) in enumerate(lengths) if k
    ]
    # any slice and chunking of a table is as good as another
    table = pa.concat_tables([factories.sessions(whole[:skip]), factories.sessions(whole[skip:])])
    cut = first_events(table, [k for _, k in lengths])
    other = first_events(factories.sessions(early), [99] * len(early))
    assert cut.to_pylist() == other.to_pylist()
    if skip < len(lengths):
        tail = first_events(table.slice(skip), [k for _, k in lengths[skip:]])
        assert tail.to_pylist() == [r for r in cut.to_pylist() if int(r["session_id"][1:]) >= skip]


def test_a_robot_is_no_robot_before_it_acts_like_one() -> None:
    table = factories.sessions([factories.session(0, ["/"] * 20, seconds=0.5, is_bot=True)])
    assert first_events(table, [5])["is_bot"].to_pylist() == [False]
    assert first_events(table, [5])["bot_reason"].to_pylist() == [None]
    assert first_events(table, [6])["bot_reason"].to_pylist() == ["regularity"]
    assert first_events(table, [10])["bot_reason"].to_pylist() == ["rate"]


def test_events_before_the_outcome() -> None:
    table = factories.sessions(
        [
            factories.session(0, ["/", "/apply", "/done", "/", "/done"]),
            factories.session(1, ["/", "/apply"]),
            factories.session(2, ["/done", "/"]),
            factories.session(3, ["/", "/done"]),
            factories.session(4, ["/"]),
        ]
    )
    cut, reached = events_before(table, page="/done", event_type=None)
    assert cut["session_id"].to_pylist() == ["s000000", "s000001", "s000003", "s000004"]
    assert reached.tolist() == [True, False, True, False]
    assert [[e["page"] for e in s] for s in cut["events"].to_pylist()] == [
        ["/", "/apply"],
        ["/", "/apply"],
        ["/"],
        ["/"],
    ]
    # what is left of a reached session tells nothing of the outcome
    first, second = cut.slice(0, 2).to_pylist()
    assert [e["dwell_s"] for e in first["events"]] == [e["dwell_s"] for e in second["events"]]
    nothing, reached = events_before(table, page=None, event_type="page_view")
    assert (nothing.num_rows, len(reached)) == (0, 0)
    every, reached = events_before(table, page=None, event_type="purchase")
    assert every.num_rows == 5
    assert not reached.any()


def test_prefixes_of_nothing_and_wrong_counts() -> None:
    empty = factories.sessions([])
    assert first_events(empty, []).num_rows == 0
    assert events_before(empty, page="/", event_type=None)[0].num_rows == 0
    one = factories.sessions([factories.session(0, ["/"])])
    with pytest.raises(ValueError, match="give one for each"):
        first_events(one, [1, 2])
    with pytest.raises(ValueError, match="negative"):
        first_events(one, [-1])
    with pytest.raises(ValueError, match="exactly one"):
        events_before(one, page="/", event_type="page_view")
