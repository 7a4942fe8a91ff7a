"""From raw files to events, quarantine, pages and sessions."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from clickintent import schema
from clickintent.config import Config, PrivacyConfig, SessionsConfig, SourceConfig
from clickintent.errors import ConfigError, DataError, EmptyInputError, MissingColumnsError
from clickintent.events import ingest

PLAIN = PrivacyConfig(ids="plain", min_people=1)
BY_SOURCE = SessionsConfig(boundary="source")
T0 = 1_767_225_600_000_000  # 2026-01-01
COLUMNS = {
    "event_id": "eid",
    "visitor_id": "cookie",
    "account_id": "client",
    "ts": "time",
    "event_type": "action",
    "url": "url",
    "title": "title",
    "text": "term",
    "referrer": "ref",
    "value": "amount",
}


def row(**changed: Any) -> dict[str, Any]:
    values: dict[str, Any] = dict.fromkeys(COLUMNS.values())
    values |= {"cookie": "v1", "time": str(T0), "action": "page_view", "url": "https://bank.example/cards"}
    return values | changed


def parquet(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    names = list(COLUMNS.values())
    pq.write_table(pa.table({n: pa.array([r[n] for r in rows], pa.string()) for n in names}), path)
    return path


def config(path: Path, columns: dict[str, str] | None = None, **more: Any) -> Config:
    source = SourceConfig(reader="table", path=path, columns=COLUMNS if columns is None else columns, **more)
    return Config(workspace=path.parent, sources=(source,), privacy=PLAIN)


def run(config: Config, out: Path) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    metrics = ingest(config, out).metrics
    tables = {
        name: pq.read_table(out / name) for name in ("events", "quarantine", "pages.parquet", "sessions")
    }
    assert tables["events"].schema.equals(schema.EVENTS)
    assert tables["sessions"].schema.equals(schema.SESSIONS)
    assert tables["pages.parquet"].schema.equals(schema.PAGES)
    assert tables["quarantine"].schema.equals(schema.QUARANTINE)
    assert not [p for p in out.iterdir() if p.name.startswith(".tmp")]
    return metrics, {name.removesuffix(".parquet"): table.to_pylist() for name, table in tables.items()}


def balanced(n: dict[str, int]) -> bool:
    return n["read"] == n["events"] + n["duplicates"] + n["quarantined"]


BROKEN = [
    ({"cookie": None}, "missing visitor"),
    ({"cookie": " "}, "missing visitor"),
    ({"cookie": "(not set)"}, "missing visitor"),
    ({"cookie": "NULL"}, "missing visitor"),
    ({"time": None}, "missing timestamp"),
    ({"time": "yesterday"}, "unparseable timestamp"),
    ({"time": "1e999"}, "unparseable timestamp"),
    ({"time": "infinity"}, "unparseable timestamp"),
    ({"time": "0"}, "timestamp before 1995"),
    ({"time": "-5"}, "timestamp before 1995"),
    ({"time": "4102444800"}, "timestamp in the future"),
    ({"action": ""}, "missing event type"),
    ({"url": None}, "missing page and url"),
    ({"url": "mailto:jane@example.com"}, "url not parseable"),
]


def test_every_broken_row_is_quarantined_with_its_reason_and_nothing_else(tmp_path: Path) -> None:
    rows = [row(), *(row(**changed) for changed, _ in BROKEN), row(time=str(T0 + 1))]
    metrics, tables = run(config(parquet(tmp_path / "raw.parquet", rows)), tmp_path / "out")
    assert [(q["position"], q["reason"]) for q in tables["quarantine"]] == [
        (i + 1, reason) for i, (_, reason) in enumerate(BROKEN)
    ]
    assert {q["file"] for q in tables["quarantine"]} == {str(tmp_path / "raw.parquet")}
    assert metrics["events"]["quarantined"] == len(BROKEN)
    assert metrics["events"]["events"] == 2
    assert balanced(metrics["events"])
    assert sum(metrics["events"]["quarantine_reasons"].values()) == len(BROKEN)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("(direct)", None),
        ("(Organic)", None),
        ("(referral)", None),
        ("(not set)", None),
        ("(spring)", "(spring)"),
        ("direct", "direct"),
    ],
)
def test_that_there_was_no_campaign_is_no_campaign(said: str, kept: str | None, tmp_path: Path) -> None:
    columns = {name: column for name, column in COLUMNS.items() if name != "text"} | {"campaign": "term"}
    path = parquet(tmp_path / "raw.parquet", [row(term=said)])
    _, tables = run(config(path, columns), tmp_path / "out")
    assert [session["campaign"] for session in tables["sessions"]] == [kept]


def test_a_simulated_future_is_accepted_but_not_a_lone_row_beyond_it(tmp_path: Path) -> None:
    future = 2_500_000_000  # 2049, in seconds
    rows = [row(time=str(future + i)) for i in range(5)] + [row(time=str(future + 10**8))]
    metrics, _ = run(config(parquet(tmp_path / "raw.parquet", rows)), tmp_path / "out")
    assert metrics["events"]["events"] == 5
    assert metrics["events"]["quarantine_reasons"] == {"timestamp in the future": 1}


@pytest.mark.parametrize(
    "written",
    [
        "1767225600",
        "1767225600.0",
        "1767225600000",
        "1767225600000000",
        "1767225600000000000",
        "2026-01-01",
        "2026-01-01 00:00:00",
        "2026-01-01T00:00:00Z",
        "2026-01-01T02:00:00+02:00",
        "2025-12-31T19:00:00.000-05:00",
    ],
)
def test_times_are_understood_however_they_are_written(tmp_path: Path, written: str) -> None:
    _, tables = run(config(parquet(tmp_path / "raw.parquet", [row(time=written)])), tmp_path / "out")
    assert tables["events"][0]["ts"] == T0


@pytest.mark.parametrize(
    ("array", "unit"),
    [
        (pa.array([1767225600], pa.int64()), "auto"),
        (pa.array([1767225600], pa.int32()), "s"),
        (pa.array([1767225600000], pa.int64()), "ms"),
        (pa.array([T0], pa.int64()), "us"),
        (pa.array([1767225600.0]), "auto"),
        (pa.array([T0], pa.timestamp("us")), "auto"),
        (pa.array([T0], pa.timestamp("us", "UTC")), "auto"),
        (pa.array([T0 * 1000], pa.timestamp("ns")), "auto"),
        (pa.array([T0 // 1000], pa.timestamp("ms")), "auto"),
        (pa.array([T0 // 1_000_000 // 86400], pa.date32()), "auto"),
    ],
)
def test_typed_times_are_understood(tmp_path: Path, array: pa.Array, unit: str) -> None:
    pq.write_table(pa.table({"c": ["a"], "t": array, "p": ["home"]}), tmp_path / "raw.parquet")
    columns = {"visitor_id": "c", "ts": "t", "page": "p"}
    made = config(tmp_path / "raw.parquet", columns, ts_unit=unit, constants={"event_type": "view"})
    _, tables = run(made, tmp_path / "out")
    assert [(e["ts"], e["page"], e["event_type"]) for e in tables["events"]] == [(T0, "home", "view")]


def test_events_are_private_and_typed(tmp_path: Path) -> None:
    rows = [
        row(
            url="https://bank.example/Accounts/99812345/?q=jane%40x.com+loan&utm=1",
            action="Add to Cart",
            title="Welcome jane@x.com | Bank",
            ref="https://jane:pw@www.google.com/search?q=ssn",
            amount="12.5",
            client=" 77 ",
        ),
        row(time=str(T0 + 1), client="NULL", amount="nan", term=" cd rates "),
    ]
    _, tables = run(config(parquet(tmp_path / "raw.parquet", rows)), tmp_path / "out")
    first, second = tables["events"]
    assert first["page"] == "/accounts/{id}"
    assert first["text"] == "[email] loan"
    assert first["event_type"] == "add_to_cart"
    assert first["title"] == "Welcome [email] | Bank"
    assert first["referrer"] == "google.com"
    assert first["value"] == 12.5
    assert first["account_id"] == "77"
    assert (second["account_id"], second["value"], second["text"]) == (None, None, "cd rates")


def test_nothing_personal_reaches_any_file(tmp_path: Path) -> None:
    secret = "jane.doe@example.com"
    said = f"a {secret} 4111111111111111"
    rows = [row(url=f"/x?e={secret}&n=4111111111111111"), row(title=said), row(term=said), row(action=said)]
    rows += [row(ref=f"https://{secret}/4111111111111111"), row(url=f"mailto:{secret}"), row(time=secret)]
    out = tmp_path / "out"
    run(config(parquet(tmp_path / "raw.parquet", rows)), out)
    for path in out.rglob("*.parquet"):
        text = json.dumps(pq.read_table(path).to_pylist())
        assert "jane" not in text
        assert "41111" not in text


def test_allowed_queries_become_part_of_the_page(tmp_path: Path) -> None:
    rows = [row(url="/search?type=Loan&id=1&find=car+loan")]
    privacy = PrivacyConfig(ids="plain", min_people=1, allow_query=("type",), search_query=("find",))
    made = config(parquet(tmp_path / "raw.parquet", rows)).model_copy(update={"privacy": privacy})
    _, tables = run(made, tmp_path / "out")
    assert [(e["page"], e["text"]) for e in tables["events"]] == [("/search?type=loan", "car loan")]


def test_duplicates_are_told_by_raw_content_or_by_event_id(tmp_path: Path) -> None:
    rows = [
        row(url="/u/123456"),
        row(url="/u/123456"),  # the same
        row(url="/u/654321"),  # the same only after redaction
        row(eid="a", url="/one"),
        row(eid="a", url="/two"),  # same id
        row(eid="b", url="/one"),  # same content, another id
    ]
    metrics, tables = run(config(parquet(tmp_path / "raw.parquet", rows)), tmp_path / "out")
    assert metrics["events"]["duplicates"] == 2
    assert sorted(e["page"] for e in tables["events"]) == ["/one", "/one", "/u/{id}", "/u/{id}"]
    ids = [e["event_id"] for e in tables["events"]]
    assert len(set(ids)) == 4
    assert not {"a", "b"} & set(ids)  # a source's own id may tell something, too


def test_the_same_event_id_of_another_visitor_is_another_event(tmp_path: Path) -> None:
    rows = [row(eid="a", cookie="v1"), row(eid="a", cookie="v2"), row(eid="a", cookie="v1", url="/other")]
    metrics, tables = run(config(parquet(tmp_path / "raw.parquet", rows)), tmp_path / "out")
    assert metrics["events"]["duplicates"] == 1
    assert len({e["event_id"] for e in tables["events"]}) == 2


def test_the_three_formats_give_the_same_events(tmp_path: Path) -> None:
    rows = [
        row(cookie=f"v{i % 7}", time=str(T0 + i * 1_000_000), term=f'say "a, b" {i % 3}') for i in range(50)
    ]
    rows += [row(cookie=None), row(url="nonsense")]
    table = pa.Table.from_pylist(rows, pa.schema([(n, pa.string()) for n in COLUMNS.values()]))
    pq.write_table(table, tmp_path / "raw.parquet")
    pa_csv.write_csv(table, tmp_path / "raw.csv")
    lines = "\n".join(json.dumps({k: v for k, v in r.items() if v is not None} | {"eid": None}) for r in rows)
    (tmp_path / "raw.ndjson").write_text(lines + "\n", encoding="utf-8")
    results = []
    for kind in ("parquet", "csv", "ndjson"):
        columns = {k: v for k, v in COLUMNS.items() if v not in ("title", "ref", "client", "amount")}
        metrics, tables = run(config(tmp_path / f"raw.{kind}", columns), tmp_path / kind)
        places = [(q["position"], q["reason"]) for q in tables["quarantine"]]
        results.append((metrics, tables["events"], tables["sessions"], tables["pages"], places))
    assert results[0] == results[1] == results[2]
    assert results[0][0]["events"]["events"] == 50


def test_rows_that_are_no_rows_are_quarantined_at_their_position(tmp_path: Path) -> None:
    head = "cookie,time,url"
    good = f"v1,{T0},/a"
    (tmp_path / "raw.csv").write_bytes(
        "\n".join([head, good, "v1,5", f"v2,{T0},/b", "a,b,c,d", f"v3,{T0},/c", f",{T0},/d", ""]).encode()
        + b"v\xff,1,/x\n"
    )
    columns = {"visitor_id": "cookie", "ts": "time", "url": "url"}
    made = config(tmp_path / "raw.csv", columns, constants={"event_type": "view"})
    metrics, tables = run(made, tmp_path / "out")
    assert [(q["position"], q["reason"]) for q in tables["quarantine"]] == [
        (1, "malformed row"),
        (3, "malformed row"),
        (5, "missing visitor"),
        (6, "not UTF-8"),
    ]
    assert [e["page"] for e in sorted(tables["events"], key=lambda e: e["visitor_id"])] == ["/a", "/b", "/c"]
    assert balanced(metrics["events"])
    ok = json.dumps({"cookie": "v1", "time": T0, "url": "/a"})
    (tmp_path / "raw.ndjson").write_text(
        f"{ok}\n{{broken\n[1, 2]\n{ok.replace('/a', '/b')}\n", encoding="utf-8"
    )
    made = config(tmp_path / "raw.ndjson", columns, constants={"event_type": "view"})
    metrics, tables = run(made, tmp_path / "out2")
    assert [(q["position"], q["reason"]) for q in tables["quarantine"]] == [
        (1, "malformed row"),
        (2, "malformed row"),
    ]
    assert metrics["events"]["read"] == 4


ANY = st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
DIRTY = st.fixed_dictionaries(
    {
        "eid": st.sampled_from([None, None, "e1", "e2"]),
        "cookie": st.sampled_from(["v1", "v2", "v3"]) | ANY,
        "client": ANY,
        "time": st.integers(T0, T0 + 10**9).map(str) | ANY | st.integers().map(str) | st.floats().map(str),
        "action": st.sampled_from(["page_view", "click"]) | ANY,
        "url": st.sampled_from(["/a", "/b?q=x", "https://x.example/c"]) | ANY,
        "title": ANY,
        "term": ANY,
        "ref": ANY,
        "amount": ANY | st.floats().map(str),
    }
)


@settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(DIRTY, max_size=60), st.data())
def test_counts_add_up_on_dirty_data(
    tmp_path: Path, dirty: list[dict[str, Any]], data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.integers(0, max(len(dirty) - 1, 0)), max_size=5)) if dirty else []
    rows = [row(), *dirty, *(dirty[i] for i in again)]
    made = config(parquet(tmp_path / "raw.parquet", rows))
    metrics, tables = run(made, tmp_path / "out")
    events = metrics["events"]
    assert events["read"] == len(rows)
    assert balanced(events)
    assert balanced(events["by_source"]["table"])
    assert events["events"] == len(tables["events"]) == len({e["event_id"] for e in tables["events"]})
    assert events["quarantined"] == len(tables["quarantine"])
    assert (
        events["events"]
        == sum(s["n_events"] for s in tables["sessions"])
        == sum(p["n_events"] for p in tables["pages"])
    )
    assert len({s["session_id"] for s in tables["sessions"]}) == len(tables["sessions"])
    by_visitor = [
        [s["start"] for s in sessions]
        for _, sessions in itertools.groupby(tables["sessions"], lambda s: s["visitor_id"])
    ]
    assert len(by_visitor) == len({s["visitor_id"] for s in tables["sessions"]})
    assert all(starts == sorted(starts) for starts in by_visitor)


def test_pages_have_their_usual_title_and_no_search_terms(tmp_path: Path) -> None:
    rows = [row(time=str(T0 + i), title="Cards" if i else "Odd", term="Our cards") for i in range(3)]
    rows += [row(time=str(T0 + i), url="/search", term=term, cookie=f"v{i}") for i, term in enumerate("abc")]
    _, tables = run(config(parquet(tmp_path / "raw.parquet", rows)), tmp_path / "out")
    assert tables["pages"] == [
        {"page": "/cards", "title": "Cards", "text": "Our cards", "n_events": 3, "n_visitors": 1},
        {"page": "/search", "title": None, "text": None, "n_events": 3, "n_visitors": 3},
    ]


def test_several_files_and_sources(tmp_path: Path) -> None:
    (tmp_path / "day").mkdir()
    for i in range(3):
        parquet(tmp_path / "day" / f"{i}.parquet", [row(time=str(T0 + i)), row(time=str(T0))])
    app = parquet(tmp_path / "app.parquet", [row(cookie="device", url="/app")])
    sources = (
        SourceConfig(reader="table", path=tmp_path / "day" / "*.parquet", columns=COLUMNS),
        SourceConfig(reader="table", path=app, columns=COLUMNS, channel="app", name="phone"),
    )
    metrics, tables = run(Config(workspace=tmp_path, privacy=PLAIN, sources=sources), tmp_path / "out")
    assert metrics["events"]["by_source"] == {
        "table": {"read": 6, "events": 3, "duplicates": 3, "quarantined": 0},
        "phone": {"read": 1, "events": 1, "duplicates": 0, "quarantined": 0},
    }
    assert metrics["sessions"]["by_channel"] == {"app": 1, "web": 1}
    assert {e["source"] for e in tables["events"]} == {"table", "phone"}


def test_a_second_ingest_gives_the_same_files(tmp_path: Path) -> None:
    rows = [row(cookie=f"v{i % 50}", time=str(T0 + (i * 7919) % 1000 * 10_000_000)) for i in range(2000)]
    made = config(parquet(tmp_path / "raw.parquet", rows))
    first = run(made, tmp_path / "out")
    again = run(made, tmp_path / "out")  # over the old one
    assert first == again


def test_a_file_written_newest_first_keeps_its_order_within_one_time(tmp_path: Path) -> None:
    visit = [("start", 0), ("step_1", 1), ("step_2", 1), ("confirm", 2)]
    columns = {"visitor_id": "c", "ts": "t", "page": "p"}
    for name, rows in (("oldest", visit), ("newest", visit[::-1])):
        table = {"c": ["a"] * 4, "t": [T0 + t * 1_000_000 for _, t in rows], "p": [p for p, _ in rows]}
        pq.write_table(pa.table(table), tmp_path / f"{name}.parquet")
        made = config(tmp_path / f"{name}.parquet", columns, constants={"event_type": "view"})
        _, tables = run(made, tmp_path / name)
        assert [e["page"] for e in tables["sessions"][0]["events"]] == [
            "start",
            "step_1",
            "step_2",
            "confirm",
        ]


def test_wrong_input_is_a_clear_error(tmp_path: Path) -> None:
    out = tmp_path / "out"
    good = parquet(tmp_path / "raw.parquet", [row()])
    with pytest.raises(ConfigError, match="no \\[\\[sources\\]\\]"):
        ingest(Config(workspace=tmp_path), out)
    with pytest.raises(ConfigError, match="two sources are called 'table'"):
        ingest(Config(workspace=tmp_path, privacy=PLAIN, sources=config(good).sources * 2), out)
    with pytest.raises(ConfigError, match="lacks visitor_id, page or url"):
        ingest(config(good, {"ts": "time", "event_type": "action"}), out)
    with pytest.raises(ConfigError, match="no event column 'visitor'"):
        ingest(config(good, {"visitor": "cookie"}), out)
    with pytest.raises(DataError, match="no such file"):
        ingest(config(tmp_path / "absent.parquet"), out)
    with pytest.raises(DataError, match="no file matches"):
        ingest(config(tmp_path / "*.nothing"), out)
    with pytest.raises(MissingColumnsError, match=r"raw\.parquet: no column 'who'; it has 'eid', 'cookie'"):
        ingest(config(good, COLUMNS | {"visitor_id": "who"}), out)
    for name, content in {
        "text.parquet": b"not parquet",
        "cut.parquet": good.read_bytes()[:-20],
        "empty.csv": b"",
        "empty.parquet": b"",
        "words.ndjson": b"hello\nworld\n",
        "x.csv.gz": b"not gzip",
        "x.docx": b"?",
        "twice.csv": b"cookie,cookie\n1,2\n",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            ingest(config(tmp_path / name), out)
    assert not out.exists() or not list(out.iterdir())


def test_empty_input_says_why(tmp_path: Path) -> None:
    with pytest.raises(EmptyInputError, match="no rows at all"):
        ingest(config(parquet(tmp_path / "none.parquet", [])), tmp_path / "out")
    rows = [row(cookie=None), row(cookie=None, time=str(T0 + 1)), row(url=None)]
    with pytest.raises(
        EmptyInputError, match=r"not one of 3 rows.*2 × missing visitor, 1 × missing page and url"
    ):
        ingest(config(parquet(tmp_path / "bad.parquet", rows)), tmp_path / "out")
    (tmp_path / "head.csv").write_text(",".join(COLUMNS.values()) + "\n", encoding="utf-8")
    with pytest.raises(EmptyInputError, match="no rows at all"):
        ingest(config(tmp_path / "head.csv"), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_one_session_of_one_event(tmp_path: Path) -> None:
    metrics, tables = run(config(parquet(tmp_path / "raw.parquet", [row()])), tmp_path / "out")
    (session,) = tables["sessions"]
    (event,) = session["events"]
    assert (session["start"], session["end"], session["n_events"]) == (T0, T0, 1)
    assert (event["dwell_s"], event["gap_s"]) == (None, None)
    assert metrics["sessions"]["events_per_session"] == {"mean": 1.0, "p50": 1.0, "p95": 1.0}


# --- the Google Analytics exports, in miniature ---


def param(key: str, **value: Any) -> dict[str, Any]:
    return {"key": key, "value": value}


def test_ga4_works_without_its_optional_columns(tmp_path: Path) -> None:
    value = pa.struct([("string_value", pa.string()), ("int_value", pa.int64())])
    params = pa.list_(pa.struct([("key", pa.string()), ("value", value)]))
    rows = [
        [param("page_location", string_value="https://b.example/a"), param("ga_session_id", int_value=7)],
        [param("page_location", string_value="https://b.example/s"), param("search_term", string_value="cd")],
        [],
        None,
    ]
    table = pa.table(
        {
            "user_pseudo_id": ["v"] * 4,
            "event_timestamp": pa.array([T0 + i for i in range(4)], pa.int64()),
            "event_name": ["page_view"] * 4,
            "event_params": pa.array(rows, params),
        }
    )
    pq.write_table(table, tmp_path / "ga4.parquet")
    made = Config(
        workspace=tmp_path,
        privacy=PLAIN,
        sources=(SourceConfig(reader="ga4", path=tmp_path / "ga4.parquet"),),
    )
    metrics, tables = run(made, tmp_path / "out")
    assert [(e["page"], e["text"], e["session_key"]) for e in tables["events"]] == [
        ("/a", None, "7"),
        ("/s", "cd", None),
    ]
    assert metrics["events"]["quarantine_reasons"] == {"missing page and url": 2}
    pq.write_table(table.drop_columns("user_pseudo_id"), tmp_path / "ga4.parquet")
    with pytest.raises(MissingColumnsError, match=r"ga4\.parquet: no column 'user_pseudo_id'"):
        ingest(made, tmp_path / "out")


def test_ga360_works_without_its_optional_columns(tmp_path: Path) -> None:
    hits = [
        [
            {"time": 0, "type": "PAGE", "page": {"pagePath": "/home"}},
            {"time": 0, "type": "EVENT", "page": {"pagePath": "/home"}},
            {"time": 1500, "type": "PAGE", "page": {"pagePath": "/x"}},
        ],
        [],
    ]
    kind = pa.struct(
        [("time", pa.int64()), ("type", pa.string()), ("page", pa.struct([("pagePath", pa.string())]))]
    )
    table = pa.table(
        {
            "fullVisitorId": ["1", "2"],
            "visitId": [5, 6],
            "visitStartTime": [T0 // 1_000_000] * 2,
            "hits": pa.array(hits, pa.list_(kind)),
        }
    )
    pq.write_table(table, tmp_path / "ga.parquet")
    made = Config(
        workspace=tmp_path,
        privacy=PLAIN,
        sources=(SourceConfig(reader="ga360", path=tmp_path / "ga.parquet"),),
    )
    metrics, tables = run(made, tmp_path / "out")
    assert metrics["events"]["read"] == 3
    assert [(e["event_type"], e["page"], e["ts"]) for e in tables["sessions"][0]["events"]] == [
        ("page_view", "/home", T0),
        ("event", "/home", T0),
        ("page_view", "/x", T0 + 1_500_000),
    ]


# --- real exports ---


def test_vanguard(real_data: Path, tmp_path: Path) -> None:
    source = SourceConfig(
        reader="table",
        path=real_data / "vanguard_cx_ab" / "web_data_pt1.parquet",
        name="vanguard",
        columns={
            "visitor_id": "visitor_id",
            "account_id": "client_id",
            "ts": "date_time",
            "page": "process_step",
            "session_key": "visit_id",
        },
        constants={"event_type": "page_view"},
    )
    made = Config(
        workspace=tmp_path, privacy=PLAIN, sources=(source,), sessions=SessionsConfig(boundary="source")
    )
    metrics = ingest(made, tmp_path / "out").metrics
    events = {"read": 343_141, "events": 341_046, "duplicates": 2_095, "quarantined": 0}
    assert metrics["events"] == {
        **events,
        "files": 1,
        "by_source": {"vanguard": events},
        "quarantine_reasons": {},
    }
    assert metrics["sessions"]["sessions"] == 75_256
    assert metrics["sessions"]["visitors"] == 62_936
    assert metrics["identity"]["accounts_with_several_visitors"] == 4_312
    assert metrics["identity"]["visitors_with_several_accounts"] == 590
    # 390 visits carry more than one client
    assert metrics["sessions"]["by_link"]["ambiguous"] == 390
    assert metrics["sessions"]["by_link"]["in_session"] == 75_256 - 390
    pages = pq.read_table(tmp_path / "out" / "pages.parquet")["page"].to_pylist()
    assert sorted(pages) == ["confirm", "start", "step_1", "step_2", "step_3"]


def test_ga360(real_data: Path, tmp_path: Path) -> None:
    source = SourceConfig(
        reader="ga360", path=real_data / "ga360_google_store_20170801" / "ga_sample.parquet"
    )
    made = Config(
        workspace=tmp_path, privacy=PLAIN, sources=(source,), sessions=SessionsConfig(boundary="source")
    )
    metrics, tables = run(made, tmp_path / "out")
    assert metrics["events"]["read"] == metrics["events"]["events"] == 13_233
    assert metrics["sessions"]["sessions"] == 2_556
    counts: dict[str, int] = {}
    for event in tables["events"]:
        counts[event["event_type"]] = counts.get(event["event_type"], 0) + 1
    assert counts["purchase"] == 92
    assert counts["view_item"] == 1_267
    assert counts["add_to_cart"] == 494
    assert counts["quickview_click"] == 1_265
    assert sum(e["value"] is not None for e in tables["events"]) == 45
    assert all(e["event_type"] == "purchase" for e in tables["events"] if e["value"] is not None)
    titles = {p["page"]: p["title"] for p in tables["pages"]}
    assert titles["/basket.html"] == "Shopping Cart"


def test_ga4(real_data: Path, tmp_path: Path) -> None:
    source = SourceConfig(reader="ga4", path=real_data / "ga4_google_store_sampled" / "*.parquet")
    made = Config(
        workspace=tmp_path, privacy=PLAIN, sources=(source,), sessions=SessionsConfig(boundary="source")
    )
    metrics, tables = run(made, tmp_path / "out")
    assert metrics["events"]["read"] == 24_219
    assert balanced(metrics["events"])
    assert metrics["events"]["events"] == 24_219
    assert metrics["sessions"]["sessions"] == len(
        {(e["visitor_id"], e["session_key"]) for e in tables["events"]}
    )
    assert {e["device"] for e in tables["events"]} == {"desktop", "mobile", "tablet"}
    assert all(e["page"].startswith("/") for e in tables["events"])
    assert sum(e["event_type"] == "page_view" for e in tables["events"]) == 7_498
