"""Each reader on rows built from the vendors' published field lists, and on the real samples."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
import types
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from clickintent.config import SourceConfig
from clickintent.errors import ConfigError, DataError, MissingColumnsError
from clickintent.events import readers
from clickintent.events.engine import open_engine
from clickintent.events.readers import snowplow
from clickintent.events.readers.base import STAGED
from clickintent.events.readers.recognise import guess_columns, names, recognise

T0 = 1_772_442_000_000_000  # 2026-03-02 09:00:00 UTC
MALFORMED = "malformed row"


def source(reader: str, path: Path, **more: Any) -> SourceConfig:
    return SourceConfig(reader=reader, path=str(path), **more)


def staged_rows(folder: Path, source: SourceConfig) -> list[dict[str, Any]]:
    """The rows that a reader stages, by position; refused ones hold the reason in ``excluded``."""
    with open_engine(folder / "scratch", threads=1) as engine:
        rows = readers.reader(source.reader)(engine, source, str(source.path))
        table = engine.arrow(rows.table.order_by("position"))
    assert table.column_names == list(STAGED)
    kinds = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "boolean": pa.bool_()}
    assert [field.type for field in table.schema] == [kinds[kind] for kind in STAGED.values()]
    found: list[dict[str, Any]] = table.to_pylist()
    found += [
        dict.fromkeys(STAGED) | {"position": r.position + i, "excluded": r.reason}
        for r in rows.refused
        for i in range(r.rows)
    ]
    return sorted(found, key=lambda row: row["position"])


def said(row: Mapping[str, Any], *columns: str) -> tuple[Any, ...]:
    return tuple(row[column] for column in columns)


# --- the registry ---


def test_unknown_readers_are_named_with_those_that_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"no reader 'ga5'; there are access_log, adobe, ga360, ga4, segment"
    ):
        readers.reader("ga5")


def test_other_packages_add_readers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(readers, "_READERS", dict(readers._READERS))
    points = [
        EntryPoint("mine", "clickintent.events.readers.table:read", readers.GROUP),
        EntryPoint("broken", "clickintent.nowhere:read", readers.GROUP),
    ]

    def entry_points(**wanted: str) -> EntryPoints:
        return EntryPoints(points).select(**wanted)

    monkeypatch.setattr(readers, "entry_points", entry_points)
    (tmp_path / "raw.csv").write_text(f"v,t,p\na,{T0},home\n")
    columns = {"visitor_id": "v", "ts": "t", "page": "p"}
    made = source("mine", tmp_path / "raw.csv", columns=columns, constants={"event_type": "view"})
    assert [said(row, "visitor_id", "ts") for row in staged_rows(tmp_path, made)] == [("a", T0)]
    assert {"mine", "broken", "snowplow"} <= set(readers.names())
    with pytest.raises(ConfigError, match=r"'broken' of clickintent\.nowhere:read cannot be loaded"):
        readers.reader("broken")
    with pytest.raises(ConfigError, match="a reader 'ga4' already"):
        readers.register("ga4", readers.table.read)


def test_skipped_events_are_excluded_and_accounted_for(tmp_path: Path) -> None:
    rows = [event(event="page_ping"), event(), event(event="")]
    made = source("snowplow", tsv(tmp_path / "good.tsv", rows), skip_events=("Page_Ping",))
    assert [row["excluded"] for row in staged_rows(tmp_path, made)] == [
        "event type in skip_events",
        None,
        None,
    ]


# --- table and ga4 ---


def test_table_maps_user_agent_and_consent_but_no_reasons(tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_text(f"v,t,p,ua,ok\na,{T0},home,Bot/1.0,yes\nb,{T0},home,,\n")
    columns = {"visitor_id": "v", "ts": "t", "page": "p", "user_agent": "ua", "consent": "ok"}
    made = source("table", tmp_path / "raw.csv", columns=columns, constants={"event_type": "view"})
    found = [said(row, "user_agent", "consent", "excluded") for row in staged_rows(tmp_path, made)]
    assert found == [("Bot/1.0", "yes", None), (None, None, None)]
    with pytest.raises(ConfigError, match="no event column 'excluded'"):
        staged_rows(tmp_path, made.model_copy(update={"columns": columns | {"excluded": "ua"}}))


def test_ga4_says_what_the_visitor_consented_to(tmp_path: Path) -> None:
    value = pa.struct([("string_value", pa.string())])
    params = pa.list_(pa.struct([("key", pa.string()), ("value", value)]))
    table = pa.table(
        {
            "user_pseudo_id": ["a", "b", "c"],
            "event_timestamp": pa.array([T0] * 3, pa.int64()),
            "event_name": ["page_view"] * 3,
            "event_params": pa.array([[]] * 3, params),
            "privacy_info": [{"analytics_storage": said} for said in ("Yes", "No", None)],
        }
    )
    pq.write_table(table, tmp_path / "ga4.parquet")
    found = staged_rows(tmp_path, source("ga4", tmp_path / "ga4.parquet"))
    assert [row["consent"] for row in found] == ["Yes", "No", None]
    pq.write_table(table.drop_columns("privacy_info"), tmp_path / "ga4.parquet")
    assert {row["consent"] for row in staged_rows(tmp_path, source("ga4", tmp_path / "ga4.parquet"))} == {
        None
    }


# --- snowplow ---


def event(**changed: str) -> dict[str, str]:
    values = {
        "app_id": "web",
        "platform": "web",
        "collector_tstamp": "2026-03-02 09:00:03.500",
        "derived_tstamp": "2026-03-02 09:00:00.000",
        "event": "page_view",
        "event_id": "e-1",
        "domain_userid": "d-1",
        "domain_sessionid": "s-1",
        "network_userid": "n-1",
        "page_url": "https://bank.example/cards?a=1",
        "page_title": "Cards “für” alle",
    }
    return values | changed


def tsv(path: Path, rows: Sequence[Mapping[str, str]], broken: Mapping[int, str] | None = None) -> Path:
    """Enriched events; ``broken`` puts other lines at some positions."""
    lines = ["\t".join(row.get(name, "") for name in snowplow.COLUMNS) for row in rows]
    for position, line in sorted((broken or {}).items()):
        lines.insert(position, line)
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def test_snowplow_has_131_columns_each_once() -> None:
    assert len(snowplow.COLUMNS) == len(set(snowplow.COLUMNS)) == 131
    # the places that the published list gives them, from 0
    places = {
        "event": 5,
        "domain_userid": 15,
        "page_url": 29,
        "contexts": 52,
        "useragent": 77,
        "dvce_type": 101,
    }
    places |= {"domain_sessionid": 123, "derived_tstamp": 124, "event_name": 126, "true_tstamp": 130}
    assert {name: snowplow.COLUMNS.index(name) for name in places} == places


@pytest.mark.parametrize("name", ["part-00000", "events.tsv", "events.tsv.gz"])
def test_snowplow_tsv(tmp_path: Path, name: str) -> None:
    rows = [
        event(
            user_id="c77",
            page_referrer="https://www.google.com/",
            mkt_campaign="spring",
            geo_country="GB",
            dvce_type="Mobile",
            useragent='Mozilla/5.0 "quoted"',
        ),
        event(event="struct", se_category="tools", se_action="calculate", se_label="loan", se_value="12.5"),
        event(event="struct", se_category="tools"),
        event(event="unstruct", event_name="link_click", unstruct_event="{not json", contexts="nor this"),
        event(event="page_ping", derived_tstamp="", pp_yoffset_max="600"),
        event(event="transaction", tr_total="99.90", domain_userid="", domain_sessionid=""),
        event(domain_userid="", network_userid="00000000-0000-0000-0000-000000000000", user_id="c77"),
        event(domain_userid="", network_userid="", derived_tstamp="soon", collector_tstamp=""),
    ]
    path = tsv(tmp_path / name, rows, {1: "cut\tshort", 4: "\t".join("x" * 132)})
    found = staged_rows(tmp_path, source("snowplow", path))
    assert [row["position"] for row in found] == list(range(10))
    assert [i for i, row in enumerate(found) if row["excluded"]] == [1, 4]
    assert {found[1]["excluded"], found[4]["excluded"]} == {MALFORMED}
    good = [row for row in found if not row["excluded"]]
    assert good[0] == dict.fromkeys(STAGED) | {
        "position": 0,
        "event_id": "e-1",
        "visitor_id": "d-1",
        "account_id": "c77",
        "ts": T0,
        "ts_given": True,
        "event_type": "page_view",
        "url": "https://bank.example/cards?a=1",
        "title": "Cards “für” alle",
        "referrer": "https://www.google.com/",
        "campaign": "spring",
        "device": "Mobile",
        "country": "GB",
        "session_key": "s-1",
        "user_agent": 'Mozilla/5.0 "quoted"',
    }
    assert [said(row, "event_type", "text", "value") for row in good[1:6]] == [
        ("calculate", "loan", 12.5),
        ("tools", None, None),
        ("link_click", None, None),
        ("page_ping", None, None),
        ("transaction", None, 99.9),
    ]
    assert good[4]["ts"] == T0 + 3_500_000  # of the collector
    assert [row["visitor_id"] for row in good[5:]] == ["n-1", "c77", None]
    assert said(good[7], "ts", "ts_given") == (None, True)


def entities(*given: tuple[str, dict[str, Any]]) -> str:
    # the pipeline writes keys in any order
    data = [{"data": data, "schema": f"iglu:{schema}/jsonschema/1-0-2"} for schema, data in given]
    return json.dumps(
        {"schema": "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1", "data": data}
    )


def test_snowplow_apps_say_who_and_where_in_entities(tmp_path: Path) -> None:
    app = {"domain_userid": "", "domain_sessionid": "", "page_url": "", "page_title": "", "platform": "mob"}
    session = ("com.snowplowanalytics.snowplow/client_session", {"userId": "u-9", "sessionId": "s-9"})
    screen = ("com.snowplowanalytics.mobile/screen", {"name": "Accounts", "id": "1"})
    other = ("com.bank/product", {"userId": "not this", "name": "nor this"})
    view = {
        "schema": "iglu:com.snowplowanalytics.mobile/screen_view/jsonschema/1-0-0",
        "data": {"name": "Cards"},
    }
    viewed = json.dumps({"schema": "iglu:…/unstruct_event/jsonschema/1-0-0", "data": view})
    rows = [
        event(event="unstruct", event_name="tap", contexts=entities(other, session, screen), **app),
        event(event="unstruct", event_name="screen_view", unstruct_event=viewed, **app),
        event(event="unstruct", event_name="tap", contexts=entities(other), **app),
    ]
    found = staged_rows(tmp_path, source("snowplow", tsv(tmp_path / "app.tsv", rows)))
    assert [said(row, "visitor_id", "session_key", "page", "event_type") for row in found] == [
        ("u-9", "s-9", "Accounts", "tap"),
        ("n-1", None, "Cards", "screen_view"),
        ("n-1", None, "(no page)", "tap"),
    ]


def test_snowplow_tables_are_read_by_name(tmp_path: Path) -> None:
    # a warehouse table: typed, few columns and more, entities in columns of their own
    session = "contexts_com_snowplowanalytics_snowplow_client_session_1"
    table = pa.table(
        {
            "load_tstamp": ["later"] * 2,
            "event": ["page_view", "unstruct"],
            "event_name": ["page_view", "screen_view"],
            "collector_tstamp": pa.array([T0, T0 + 1], pa.timestamp("us", "UTC")),
            "domain_userid": ["d-1", None],
            "page_url": ["https://bank.example/", None],
            "tr_total": pa.array([1.5, None]),
            session: pa.array([None, [{"user_id": "u-9", "session_id": "s-9"}]]),
            "unstruct_event_com_snowplowanalytics_mobile_screen_view_1": pa.array([None, {"name": "Cards"}]),
        }
    )
    pq.write_table(table, tmp_path / "events.parquet")
    found = staged_rows(tmp_path, source("snowplow", tmp_path / "events.parquet"))
    wanted = ("visitor_id", "ts", "url", "page", "session_key", "value")
    assert [said(row, *wanted) for row in found] == [
        ("d-1", T0, "https://bank.example/", None, None, 1.5),
        ("u-9", T0 + 1, None, "Cards", "s-9", None),
    ]
    pq.write_table(table.drop_columns("event"), tmp_path / "events.parquet")
    with pytest.raises(MissingColumnsError, match="no column 'event'"):
        staged_rows(tmp_path, source("snowplow", tmp_path / "events.parquet"))


# --- segment ---


def call(kind: str, **changed: Any) -> dict[str, Any]:
    page = {"url": "https://bank.example/cards?a=1", "path": "/cards", "title": "Cards", "referrer": ""}
    values: dict[str, Any] = {
        "type": kind,
        "messageId": "m-1",
        "anonymousId": "a-1",
        "timestamp": "2026-03-02T09:00:00.000Z",
        "originalTimestamp": "2026-03-02T08:00:00.000Z",
        "sentAt": "2026-03-02T09:00:01.000Z",
        "receivedAt": "2026-03-02T09:00:02.000Z",
        "context": {"page": page, "ip": "203.0.113.9", "library": {"name": "analytics.js"}},
        "integrations": {"All": True},
    }
    return values | changed


def ndjson(path: Path, rows: Sequence[Any]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def test_segment_calls(tmp_path: Path) -> None:
    context = call("page")["context"]
    rows = [
        call(
            "page",
            name="Cards",
            properties={
                "url": "https://bank.example/cards/gold",
                "title": "Gold “für” alle",
                "referrer": "https://t.co/",
            },
            context=context
            | {
                "campaign": {"name": "spring", "source": "mail"},
                "location": {"country": "Switzerland"},
                "userAgent": "Mozilla/5.0",
                "userAgentData": {"mobile": True},
                "sessionId": 1772442000123,
            },
        ),
        call(
            "track",
            event="Products Searched",
            properties={"query": "cd rates", "url": "not the page", "revenue": "12.5"},
        ),
        "{broken",
        call("identify", userId="c77", traits={"email": "jane@example.com"}),
        call("identify", userId="c77", context={}),
        call("alias", anonymousId=None, previousId="a-0", userId="c77", context=None),
        call("group", groupId="g", userId="c77"),
        call("screen", name="Accounts", context={"device": {"type": "ios"}}),
        call("track", event="Tapped", anonymousId=None, userId=77, context={}, timestamp=None),
        call("Page", context={"page": {"path": "/only/path"}}, timestamp="yesterday"),
        "[1, 2]",
        {"messageId": "nothing else"},
    ]
    found = staged_rows(tmp_path, source("segment", ndjson(tmp_path / "calls.ndjson.gz", rows)))
    assert [row["position"] for row in found] == list(range(12))
    assert found[0] == dict.fromkeys(STAGED) | {
        "position": 0,
        "event_id": "m-1",
        "visitor_id": "a-1",
        "ts": T0,
        "ts_given": True,
        "event_type": "page_view",
        "url": "https://bank.example/cards/gold",
        "title": "Gold “für” alle",
        "referrer": "https://t.co/",
        "campaign": "spring",
        "device": "mobile",
        "country": "Switzerland",
        "session_key": "1772442000123",
        "user_agent": "Mozilla/5.0",
    }
    wanted = ("event_type", "visitor_id", "account_id", "url", "page")
    cards = "https://bank.example/cards?a=1"
    assert [said(row, *wanted) for row in found if not row["excluded"]][1:] == [
        ("Products Searched", "a-1", None, cards, None),
        ("identify", "a-1", "c77", cards, None),
        ("identify", "a-1", "c77", None, "(identify)"),
        ("alias", "a-0", "c77", None, "(alias)"),
        ("screen_view", "a-1", None, None, "Accounts"),
        ("Tapped", "77", "77", None, "(no page)"),
        ("page_view", "a-1", None, None, "/only/path"),
        (None, None, None, None, None),
    ]
    assert said(found[1], "text", "value", "title") == ("cd rates", 12.5, "Cards")
    assert found[7]["device"] == "ios"
    assert found[8]["ts"] == T0 - 3_600_000_000
    assert said(found[9], "ts", "ts_given") == (None, True)
    assert said(found[11], "ts", "ts_given") == (None, False)
    assert {i: row["excluded"] for i, row in enumerate(found) if row["excluded"]} == {
        2: MALFORMED,
        6: "no event of a visitor (call of another kind)",
        10: MALFORMED,
    }
    assert "jane" not in json.dumps(found)


def consenting(**context: Any) -> dict[str, Any]:
    return call("track", event="x", context=context)


def test_segment_consent(tmp_path: Path) -> None:
    def preferences(**said: bool) -> dict[str, Any]:
        return {"consent": {"categoryPreferences": said}}

    def lists(allowed: list[str], denied: list[str]) -> dict[str, Any]:
        return {"consentManagement": {"allowedConsentIds": allowed, "deniedConsentIds": denied}}

    contexts = [
        preferences(Analytics=True, Advertising=True),
        preferences(Analytics=True, Advertising=False),
        preferences(),
        lists(["Analytics"], []),
        lists(["Analytics"], ["Ads"]),
        lists(["Ads"], ["Analytics"]),
        {},
    ]
    path = ndjson(tmp_path / "calls.ndjson", [consenting(**context) for context in contexts])
    found = [row["consent"] for row in staged_rows(tmp_path, source("segment", path))]
    assert found == ["true", "false", None, "true", "false", "false", None]
    made = source("segment", path, consent_category="Analytics")
    assert [row["consent"] for row in staged_rows(tmp_path, made)] == [
        "true",
        "true",
        None,
        "true",
        "true",
        "false",
        None,
    ]
    made = source("segment", path, consent_category='odd "name".')
    assert {row["consent"] for row in staged_rows(tmp_path, made)} == {None}


# --- adobe ---

ADOBE = [
    "hitid_high",
    "hitid_low",
    "post_visid_high",
    "post_visid_low",
    "visid_high",
    "visid_low",
    "mcvisid",
    "hit_time_gmt",
    "post_cust_hit_time_gmt",
    "post_page_event",
    "page_event",
    "post_pagename",
    "pagename",
    "post_page_url",
    "page_url",
    "post_event_list",
    "post_product_list",
    "exclude_hit",
    "hit_source",
    "visit_num",
    "visit_start_time_gmt",
    "post_campaign",
    "post_referrer",
    "geo_country",
    "country",
    "mobile_id",
    "user_agent",
    "post_page_event_var2",
    "post_keywords",
    "duplicate_purchase",
    "post_evar7",
    "post_prop12",
    "zip",
]


def hit(**changed: str) -> dict[str, str]:
    values = {
        "hitid_high": "30",
        "hitid_low": "68",
        "post_visid_high": "356",
        "post_visid_low": "227",
        "hit_time_gmt": str(T0 // 1_000_000),
        "post_page_event": "0",
        "post_pagename": "home:cards",
        "post_page_url": "https://bank.example/cards",
        "exclude_hit": "0",
        "hit_source": "1",
        "visit_num": "2",
        "visit_start_time_gmt": "1772441000",
        "mobile_id": "0",
    }
    return values | changed


def feed(folder: Path, rows: Sequence[Mapping[str, str] | str], columns: Sequence[str] = ADOBE) -> Path:
    """A delivery: hits, and the lookups in an archive beside them."""
    lines = [row if isinstance(row, str) else "\t".join(row.get(c, "") for c in columns) for row in rows]
    path = folder / "01-bank_2026-03-02.tsv.gz"
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    looked_up = {"column_headers.tsv": "\t".join(columns) + "\n", "country.tsv": "0\tIP Only\n111\tItaly\n"}
    with tarfile.open(folder / "bank_2026-03-02-lookup_data.tar.gz", "w:gz") as archive:
        for name, text in looked_up.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def test_adobe_hits(tmp_path: Path) -> None:
    rows = [
        hit(
            post_campaign="spring",
            post_referrer="https://www.google.com/",
            geo_country="che",
            user_agent="Mozilla/5.0",
            post_cust_hit_time_gmt=str(T0 // 1_000_000 - 5),
        ),
        hit(
            post_page_event="100",
            post_page_event_var2="Apply now",
            post_pagename="",
            pagename="home",
            post_page_url="",
        ),
        hit(post_page_event="101"),
        hit(post_page_event="", page_event="12", post_visid_high="0", post_visid_low="0", mcvisid="4711"),
        hit(post_event_list="100,2,200", country="111", mobile_id="1234"),
        hit(post_event_list="1,200", post_product_list="cards;Gold;1;12.50;;,cards;A^,B;2;20,;no price"),
        hit(post_event_list="1", post_product_list=";Gold;1;12.50", duplicate_purchase="1"),
        hit(post_event_list="112,211", post_page_event="53"),
        hit(hitid_high="", post_visid_low="", hit_time_gmt="", mobile_id="", visit_num=""),
    ]
    found = staged_rows(tmp_path, source("adobe", feed(tmp_path, rows)))
    assert found[0] == dict.fromkeys(STAGED) | {
        "position": 0,
        "event_id": "30_68",
        "visitor_id": "356_227",
        "ts": T0 - 5_000_000,
        "ts_given": True,
        "event_type": "page_view",
        "url": "https://bank.example/cards",
        "page": "home:cards",
        "title": "home:cards",
        "referrer": "https://www.google.com/",
        "campaign": "spring",
        "device": "desktop",
        "country": "che",
        "session_key": "2-1772441000",
        "user_agent": "Mozilla/5.0",
    }
    assert [row["event_type"] for row in found] == [
        *("page_view", "link_click", "file_download", "exit_link", "view_item", "purchase"),
        *("page_view", "media_progress", "page_view"),
    ]
    assert said(found[1], "text", "page", "url") == ("Apply now", "home", None)
    assert found[3]["visitor_id"] == "4711"
    assert said(found[4], "country", "device") == ("Italy", "mobile")
    assert [row["value"] for row in found] == [None] * 5 + [32.5, None, None, None]
    assert said(found[8], "event_id", "visitor_id", "ts", "ts_given", "session_key") == (
        None,
        None,
        None,
        False,
        None,
    )


def test_adobe_hits_of_the_company_s_own_making(tmp_path: Path) -> None:
    rows = [hit(post_event_list="1,201", post_evar7="c77", post_prop12="cd rates"), hit(post_event_list="2")]
    made = source(
        "adobe",
        feed(tmp_path, rows),
        fields={"account_id": "post_evar7", "text": "post_prop12"},
        event_ids={"201": "application_complete"},
    )
    assert [said(row, "event_type", "account_id", "text") for row in staged_rows(tmp_path, made)] == [
        ("application_complete", "c77", "cd rates"),
        ("view_item", None, None),
    ]
    with pytest.raises(MissingColumnsError, match="no column 'post_evar8'"):
        staged_rows(tmp_path, made.model_copy(update={"fields": {"account_id": "post_evar8"}}))
    with pytest.raises(ConfigError, match=r"'fields' cannot fill account\. Use account_id"):
        staged_rows(tmp_path, made.model_copy(update={"fields": {"account": "post_evar7"}}))


def test_adobe_escapes_and_rows_that_are_no_hits(tmp_path: Path) -> None:
    rows: list[Mapping[str, str] | str] = [
        hit(post_pagename="a\\\tb", zip="8001"),
        hit(post_pagename="two\\\nlines"),
        hit(post_pagename="ends in a backslash\\\\"),
        hit(exclude_hit="7"),
        hit(exclude_hit="jane@example.com"),
        hit(hit_source="7"),
        "too\tfew",
        hit(post_pagename="last “ü”"),
    ]
    found = staged_rows(tmp_path, source("adobe", feed(tmp_path, rows)))
    # positions are those of lines; the second hit takes two
    assert [said(row, "position", "page", "excluded") for row in found] == [
        (0, "a\tb", None),
        (1, "two\nlines", None),
        (3, "ends in a backslash\\", None),
        (4, "home:cards", "excluded by the source (exclude_hit = 7)"),
        (5, "home:cards", "excluded by the source (exclude_hit)"),
        (6, "home:cards", "uploaded data, no hit (hit_source = 7)"),
        (7, None, MALFORMED),
        (8, "last “ü”", None),
    ]


def test_adobe_feeds_may_hold_few_columns_and_leave_the_last_out(tmp_path: Path) -> None:
    columns = ["hit_time_gmt", "visid_high", "visid_low", "page_url", "accept_language"]
    rows = [f"{T0 // 1_000_000}\t1\t2\t/cards", f"{T0 // 1_000_000}\t1\t2\t/cards\tde"]
    found = staged_rows(tmp_path, source("adobe", feed(tmp_path, rows, columns)))
    wanted = ("visitor_id", "event_type", "url", "excluded", "event_id", "device")
    assert [said(row, *wanted) for row in found] == [("1_2", "page_view", "/cards", None, None, None)] * 2
    with pytest.raises(MissingColumnsError, match="no column 'hit_time_gmt'"):
        staged_rows(tmp_path, source("adobe", feed(tmp_path, [], columns[1:])))


def test_adobe_lookups_are_found_or_asked_for(tmp_path: Path) -> None:
    path = feed(tmp_path, [hit()])
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (tmp_path / "bank_2026-03-02-lookup_data.tar.gz").rename(moved / "x.tar.gz")
    with pytest.raises(DataError, match=r"beside it is neither column_headers\.tsv.*'lookups'"):
        staged_rows(tmp_path, source("adobe", path))
    assert len(staged_rows(tmp_path, source("adobe", path, lookups=str(moved / "x.tar.gz")))) == 1
    with zipfile.ZipFile(moved / "x.zip", "w") as archive:
        archive.writestr("folder/column_headers.tsv", "\t".join(ADOBE))
    assert len(staged_rows(tmp_path, source("adobe", path, lookups=str(moved / "x.zip")))) == 1
    (moved / "column_headers.tsv").write_text("\t".join(ADOBE) + "\r\n")
    assert len(staged_rows(tmp_path, source("adobe", path, lookups=str(moved)))) == 1
    (moved / "column_headers.tsv").write_text("a\ta\n")
    with pytest.raises(DataError, match="each once"):
        staged_rows(tmp_path, source("adobe", path, lookups=str(moved)))
    (moved / "y.tar.gz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"y\.tar\.gz: cannot be read as the lookups"):
        staged_rows(tmp_path, source("adobe", path, lookups=str(moved / "y.tar.gz")))
    # of several archives, that of the same report suite and day
    for name in ("bank_2026-03-02-000000-lookup_data.tar.gz", "other_2027-01-01-lookup_data.tar.gz"):
        (moved / "x.tar.gz").replace(tmp_path / name) if "bank" in name else (tmp_path / name).write_bytes(
            b""
        )
    assert len(staged_rows(tmp_path, source("adobe", path))) == 1


def test_adobe_sample(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "adobe_datafeed_sample" / "01-suiteid_2015-12-29.tsv.gz"
    found = staged_rows(tmp_path, source("adobe", path))
    assert [row["position"] for row in found] == list(range(10))
    assert not any(row["excluded"] for row in found)
    assert Counter(row["visitor_id"] for row in found) == {
        "35626349_2274367719": 1,
        "35884732_2511725138": 1,
        "35953852_1015324118": 8,
    }
    assert len({row["event_id"] for row in found}) == 10
    assert Counter(row["event_type"] for row in found) == {"view_item": 6, "page_view": 4}
    assert said(found[0], "ts", "country", "device") == (1_423_556_960_000_000, "gbr", "desktop")
    assert found[2]["url"] == "https://docs.oracle.com/javase/specs/jls/se7/html/jls-4.html#jls-4.2.5"
    assert found[2]["user_agent"].startswith("Mozilla/5.0 (Windows NT 6.1; WOW64)")
    assert recognise(str(path)) == "adobe"


# --- access logs ---


def combined(
    target: str = "/cards",
    *,
    status: int = 200,
    method: str = "GET",
    time: str = "02/Mar/2026:10:00:00 +0100",
    who: str = "203.0.113.9 - -",
    referrer: str = "-",
    agent: str = "Mozilla/5.0 (X11)",
) -> str:
    return f'{who} [{time}] "{method} {target} HTTP/1.1" {status} 2326 "{referrer}" "{agent}"'


def log(path: Path, lines: Sequence[str]) -> Path:
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def test_combined_logs(tmp_path: Path) -> None:
    lines = [
        combined("/cards?id=1", referrer="https://www.google.com/search?q=%22x%22"),
        combined("/static/site.css?v=3"),
        combined("/logo.PNG", status=304),
        combined("/gone", status=404),
        combined("/login", method="POST"),
        combined("/x", method="JANE-SMITH"),
        combined("/old", status=301),
        combined("/cards", status=304, agent='say \\"hi\\" \\\\ \\x41'),
        combined("/terms/fees.pdf"),
        combined("/robots.txt"),
        "no log line at all",
        '203.0.113.9 - - [02/Mar/2026:10:00:00 +0100] "-" 408 - "-" "-"',
        combined("/cards", who="bank.example:443 2001:db8::1 - jane smith"),
        combined("/late", time="01/Mar/2026:23:30:00 -0930"),
        combined("/a b", status=206, agent="-"),
        combined("/cards", who="198.51.100.7, 10.0.0.1, 10.0.0.2 - -"),
    ]
    found = staged_rows(tmp_path, source("access_log", log(tmp_path / "access.log.gz", lines)))
    assert [row["position"] for row in found] == list(range(16))
    assert [row["excluded"] for row in found] == [
        None,
        "asset request",
        "asset request",
        "status 404",
        "method POST",
        "method other",
        "status 301",
        None,
        None,
        "request of a machine-readable file",
        MALFORMED,
        "no HTTP request",
        None,
        None,
        None,
        None,
    ]
    assert found[0] == dict.fromkeys(STAGED) | {
        "position": 0,
        "visitor_id": "203.0.113.9 Mozilla/5.0 (X11)",
        "ts": T0,
        "ts_given": True,
        "event_type": "page_view",
        "url": "/cards?id=1",
        "referrer": "https://www.google.com/search?q=%22x%22",
        "user_agent": "Mozilla/5.0 (X11)",
        "assets": 2,
    }
    assert said(found[7], "user_agent", "assets") == ('say "hi" \\ \\x41', 0)
    assert found[8]["event_type"] == "file_download"
    assert said(found[12], "visitor_id", "account_id") == ("2001:db8::1 Mozilla/5.0 (X11)", "jane smith")
    assert found[13]["ts"] == T0  # 09:00 the day after, in UTC
    assert said(found[14], "visitor_id", "url", "user_agent") == ("203.0.113.9", "/a b", None)
    assert said(found[15], "visitor_id", "account_id") == ("198.51.100.7 Mozilla/5.0 (X11)", None)


def test_common_logs_and_assets_that_are_served_elsewhere(tmp_path: Path) -> None:
    lines = [combined(f"/{i}").split(' "-"')[0] for i in range(2)]
    found = staged_rows(tmp_path, source("access_log", log(tmp_path / "access.log", lines)))
    wanted = ("visitor_id", "url", "referrer", "user_agent", "excluded", "assets")
    assert [said(row, *wanted) for row in found] == [
        ("203.0.113.9", f"/{i}", None, None, None, None) for i in range(2)
    ]


W3C = [
    "#Software: Microsoft Internet Information Services 10.0",
    "#Version: 1.0",
    "#Date: 2026-03-02 09:00:00",
    "#Fields: date time s-ip cs-method cs-uri-stem cs-uri-query s-port cs-username c-ip cs(User-Agent) "
    "cs(Referer) sc-status time-taken",
    "2026-03-02 09:00:00 10.0.0.1 GET /cards id=1 443 BANK\\jane 203.0.113.9 Mozilla/5.0+(X11) "
    "https://t.co/ 200 5",
    "2026-03-02 09:00:01 10.0.0.1 GET /site.js - 443 - 203.0.113.9 Mozilla/5.0+(X11) - 200 5",
    "2026-03-02 09:00:02 10.0.0.1 GET /cut",
    "#Fields: date\ttime\tcs-uri-stem\tc-ip",
    "2026-03-02\t09:00:03\t/ü\t203.0.113.9",
]


def test_w3c_logs(tmp_path: Path) -> None:
    found = staged_rows(tmp_path, source("access_log", log(tmp_path / "u_ex260302.log", W3C)))
    # directives are no rows, but positions are those of lines
    assert [said(row, "position", "excluded") for row in found] == [
        (4, None),
        (5, "asset request"),
        (6, MALFORMED),
        (8, None),
    ]
    assert found[0] == dict.fromkeys(STAGED) | {
        "position": 4,
        "visitor_id": "203.0.113.9 Mozilla/5.0 (X11)",
        "account_id": "BANK\\jane",
        "ts": T0,
        "ts_given": True,
        "event_type": "page_view",
        "url": "/cards?id=1",
        "referrer": "https://t.co/",
        "user_agent": "Mozilla/5.0 (X11)",
        "assets": 1,
    }
    assert said(found[3], "visitor_id", "ts", "url") == ("203.0.113.9", T0 + 3_000_000, "/ü")


def test_w3c_reasons_hold_nothing_of_the_row(tmp_path: Path) -> None:
    head = "#Fields: date time c-ip cs-uri-stem cs-method sc-status"
    rows = ["GET -", "GET jane@example.com", "jane@example.com 200", "- 200", "GET 404"]
    lines = [head, *(f"2026-03-02 09:00:00 203.0.113.9 /cards {row}" for row in rows)]
    found = staged_rows(tmp_path, source("access_log", log(tmp_path / "a.log", lines)))
    assert [row["excluded"] for row in found] == [
        "status unknown",
        "status unknown",
        "method other",
        "no HTTP request",
        "status 404",
    ]


def test_logs_of_no_known_format_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"app\.log: not one of the first 2 lines"):
        staged_rows(tmp_path, source("access_log", log(tmp_path / "app.log", ["INFO started", "WARN odd"])))
    with pytest.raises(DataError, match="has no line '#Fields"):
        staged_rows(tmp_path, source("access_log", log(tmp_path / "app.log", W3C[:3])))
    with pytest.raises(MissingColumnsError, match="no column 'c-ip', 'cs-uri-stem'"):
        staged_rows(tmp_path, source("access_log", log(tmp_path / "app.log", ["#Fields: date time s-ip"])))


def test_apache_sample(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "apache_access_log_elastic" / "apache_logs"
    found = staged_rows(tmp_path, source("access_log", path))
    assert [row["position"] for row in found] == list(range(10_000))
    reasons = Counter(row["excluded"] for row in found)
    assert sum(reasons.values()) == 10_000
    assert reasons == {
        None: 4009,
        "asset request": 5401,
        "request of a machine-readable file": 221,
        "status 301": 163,
        "status 404": 152,
        "method HEAD": 42,
        "method POST": 5,
        "status 403": 2,
        "status 416": 2,
        "status 500": 2,
        "method OPTIONS": 1,
    }
    # counted again, without the reader
    text = path.read_text(encoding="utf-8")
    assert len(re.findall(r'"HEAD ', text)) == 42
    assert min(row["ts"] for row in found) == 1_431_857_100_000_000  # 2015-05-17 10:05 UTC
    assert sum(row["assets"] == 0 for row in found if not row["excluded"]) > 1000  # robots read pages alone
    assert recognise(str(path)) == "access_log"


# --- anything at all ---

WORD = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=8)
PIECES = st.sampled_from(
    ['"', "\\", "\t", " ", "{", "}", "[", "]", "-", "#", ":", "null", "1e999", "\x01", "\x1f"]
)
LINE = st.lists(WORD | PIECES, min_size=1, max_size=12).map("".join)
GOOD = {
    "access_log": combined(),
    "snowplow": "\t".join(event().get(name, "") for name in snowplow.COLUMNS),
    "segment": json.dumps(call("page")),
    "adobe": "\t".join(hit().get(name, "") for name in ADOBE),
}


@pytest.mark.parametrize("reader", GOOD)
@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_every_line_is_accounted_for_whatever_it_holds(
    tmp_path: Path, reader: str, data: st.DataObject
) -> None:
    good = GOOD[reader]
    # good lines cut short and stuffed, and lines of anything
    cut = st.tuples(st.integers(0, len(good)), LINE, st.integers(0, len(good))).map(
        lambda t: good[: t[0]] + t[1] + good[t[2] :]
    )
    lines = [good, *data.draw(st.lists(cut | LINE, max_size=25)), good]
    lines = [line for line in lines if line.strip()]  # the engine passes over blank lines
    if (
        reader == "adobe"
    ):  # one that ends in a backslash goes on in the next: it is told apart in a test above
        lines = [line.rstrip("\\") or "x" for line in lines]
        path = feed(tmp_path, lines)
    else:
        path = log(tmp_path / "lines", lines)
    found = staged_rows(tmp_path, source(reader, path))
    assert [row["position"] for row in found] == list(range(len(lines)))
    assert not found[0]["excluded"]
    assert not found[-1]["excluded"]


# --- telling which reader ---


def test_files_are_recognised_by_their_first_rows(tmp_path: Path) -> None:
    def parquet(name: str, *columns: str) -> Path:
        pq.write_table(pa.table({column: ["x"] for column in columns}), tmp_path / name)
        return tmp_path / name

    zst = tmp_path / "calls.json.zst"
    with pa.CompressedOutputStream(pa.OSFile(str(zst), "wb"), "zstd") as packed:
        packed.write(json.dumps(call("track", event="x")).encode())
    files = {
        parquet("a.parquet", "event_name", "event_timestamp", "event_params", "user_pseudo_id"): "ga4",
        parquet("b.parquet", "fullVisitorId", "hits", "visitId"): "ga360",
        parquet("c.parquet", "collector_tstamp", "event_id", "domain_userid"): "snowplow",
        parquet("d.parquet", "cookie", "time", "url"): "table",
        tsv(tmp_path / "e.gz", [event()]): "snowplow",
        ndjson(tmp_path / "f.json", ["{broken", call("page"), call("identify")]): "segment",
        ndjson(tmp_path / "g.json", [{"type": "page", "url": "/x"}]): "table",
        zst: "segment",
        feed(tmp_path, [hit()]): "adobe",
        log(tmp_path / "h.log", [combined()]): "access_log",
        log(tmp_path / "i.log", W3C): "access_log",
        log(tmp_path / "j.csv", ["cookie;time;url", "a;1;/x"]): "table",
        log(tmp_path / "k.txt", ["some words"]): None,
        log(tmp_path / "l.csv", ["2026-03-02,17,4.5", "2026-03-03,18,4.5"]): None,
        log(tmp_path / "m.csv", [""]): None,
    }
    (tmp_path / "n.gz").write_bytes(b"not gzip")
    (tmp_path / "o.parquet").write_bytes(b"PAR1 cut")
    (tmp_path / "p.bin").write_bytes(b"\x00\x01,\x02")
    files |= {tmp_path / name: None for name in ("n.gz", "o.parquet", "p.bin")}
    assert {path.name: recognise(str(path)) for path in files} == {path.name: r for path, r in files.items()}
    with pytest.raises(DataError, match="no such file"):
        recognise(str(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("columns", "guessed"),
    [
        (
            ["cookie_id", "user_id", "event_time", "page_url", "Event-Name", "HTTP Referer", "noise"],
            {
                "visitor_id": "cookie_id",
                "account_id": "user_id",
                "ts": "event_time",
                "event_type": "Event-Name",
                "url": "page_url",
                "referrer": "HTTP Referer",
            },
        ),
        (
            ["client_id", "visitor_id", "visit_id", "process_step", "date_time"],  # Vanguard's
            {
                "visitor_id": "visitor_id",
                "account_id": "client_id",
                "ts": "date_time",
                "page": "process_step",
                "session_key": "visit_id",
            },
        ),
        (
            ["user_id", "timestamp", "action"],
            {"visitor_id": "user_id", "ts": "timestamp", "event_type": "action"},
        ),
        (["a", "b"], {}),
    ],
)
def test_columns_are_guessed_by_what_they_are_commonly_called(
    columns: list[str], guessed: dict[str, str]
) -> None:
    assert guess_columns(columns) == guessed


def test_names_of_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a;b ;c\n1;2;3\n")
    assert names(str(tmp_path / "a.csv")) == ["a", "b", "c"]
    assert names(str(ndjson(tmp_path / "b.ndjson", [{"x": 1}, {"y": 2, "x": 1}]))) == ["x", "y"]
    pq.write_table(pa.table({"p": [1]}), tmp_path / "c.parquet")
    assert names(str(tmp_path / "c.parquet")) == ["p"]


# --- what the documentation says ---

DOCS = Path(__file__).parents[1] / "docs" / "readers.md"


def test_every_reader_and_column_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert {f"| `{name}` |" for name in readers.names()} <= set(
        re.findall(r"^\| `\w+` \|", text, re.MULTILINE)
    )
    for column in set(STAGED) - {"position", "ts_given"}:
        assert re.search(rf"^\| `{column}`", text, re.MULTILINE), column


def test_the_documented_reader_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(readers, "_READERS", dict(readers._READERS))
    part = DOCS.read_text(encoding="utf-8").split("## Adding a reader in an hour")[1]
    (code,) = re.findall(r"```python\n(.*?)```", part, re.DOTALL)
    (rows,) = re.findall(r"```json\n(.*?)```", part, re.DOTALL)
    module = types.ModuleType("clickintent_posthog")
    exec(code, module.__dict__)
    readers.register("posthog", module.read)
    (tmp_path / "events.jsonl").write_text(rows, encoding="utf-8")
    found = staged_rows(tmp_path, source("posthog", tmp_path / "events.jsonl"))
    wanted = ("event_id", "visitor_id", "account_id", "ts", "event_type", "url", "title")
    assert [said(row, *wanted) for row in found] == [
        ("0190-a", "d1", None, T0 + 250_000, "page_view", "https://bank.example/cards", "Cards"),
        ("0190-b", "d1", "c77", T0 + 5_000_000, "Card chosen", "https://bank.example/cards/gold", None),
    ]
