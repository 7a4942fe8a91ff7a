"""What ``clickintent explore`` writes, against the contract with the page: explorer/src/data.ts."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import factories
from clickintent import pipeline, schema
from clickintent.cli import main
from clickintent.config import (
    AccountConversion,
    Config,
    ExploreConfig,
    InSessionConversion,
    LabelsConfig,
    PrivacyConfig,
    StudentConfig,
)
from clickintent.errors import WorkspaceError
from clickintent.explorer.details import OTHER, Counts, Labels, detail
from clickintent.explorer.folder import Export, compact, write
from clickintent.explorer.layout import lay_out
from clickintent.explorer.overview import binned, compared, partly_seen
from clickintent.explorer.points import ids
from clickintent.explorer.rates import difference, lift, rates, shares
from clickintent.explorer.sessions import Sessions, Visits
from clickintent.explorer.shown import public_id
from clickintent.explorer.support import supported
from clickintent.explorer.tally import tally
from clickintent.taxonomy import IntentLabeler, Taxonomy
from workspaces import workspace

N = 420
DAY = factories.DAY
PLAIN = PrivacyConfig(ids="plain", min_people=3)
CONTRACT = Path(__file__).parents[1] / "explorer" / "src" / "data.ts"
EXPLORE = ExploreConfig(landmarks=100, shard=64)
LINKS = ("in_session", "before", "after", "ambiguous", "none")
RARE_PAGE, RARE_CAMPAIGN, RARE_TEXT = "/rare/nobody", "a campaign of one", "words that one person typed"


def code(*parts: object) -> str:
    return hashlib.sha256("-".join(map(str, parts)).encode()).hexdigest()[:16]


def rows() -> list[dict[str, Any]]:
    """Sessions of 60 visitors over 21 days, ids as ``ingest`` makes them."""
    found = factories.themed_sessions(N).to_pylist()
    for i, row in enumerate(found):
        visitor, link = code("visitor", i % 60), LINKS[i % 5]
        shift = factories.START + (i * DAY) // 20 - row["start"]
        for event in row["events"]:
            event["ts"] += shift
        row |= {
            "session_id": visitor + code("event", i),
            "visitor_id": visitor,
            "account_id": None if link in ("none", "ambiguous") else code("account", i % 60),
            "account_link": link,
            "account_linked_at": None if link in ("none", "ambiguous") else row["end"] + shift,
            "start": row["start"] + shift,
            "end": row["end"] + shift,
            "referrer": "search.example" if i % 3 == 0 else None,
            "campaign": "(direct)" if i % 3 == 1 else "spring" if i % 7 == 0 else None,
            "device": ("desktop", "mobile", None)[i % 3],
        }
    found[5]["campaign"] = RARE_CAMPAIGN
    found[6]["events"][0] |= {"page": RARE_PAGE, "title": None, "text": RARE_TEXT}
    found[7]["events"][0]["text"] = "a page's own text " * 9
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A workspace with labels of both kinds, links and outcomes, explored."""
    folder = tmp_path_factory.mktemp("explorer")
    table = factories.sessions(rows())
    conversions = folder / "conversions.parquet"
    took = [(code("account", i), factories.START + 12 * DAY, "card" if i % 2 else "loan") for i in range(60)]
    took += [(code("account", 99), factories.START + 60 * DAY, "card")]  # until when it was observed
    accounts, ts, products = (list(column) for column in zip(*took, strict=True))
    pq.write_table(pa.table({"account_id": accounts, "ts": ts, "product": products}), conversions)
    outcome = AccountConversion(kind="account", path=conversions, horizon_days=5)
    config = workspace(folder / "w", table, privacy=PLAIN, explore=EXPLORE, conversion=outcome)
    pipeline.draft_taxonomy(config)
    pipeline.label(config)
    as_student(config)
    pipeline.explore(config)
    return config


def as_student(config: Config, drop: int = 7) -> None:
    """The teacher's labels as a student would have given them; none to every seventh session."""
    labels = pq.read_table(config.workspace / "labels" / "teacher.parquet")
    kept = np.flatnonzero(np.arange(labels.num_rows) % drop != 0)
    columns = {name: labels[name].take(kept) for name in labels.column_names}
    columns["source"] = pa.array(["student"] * len(kept))
    columns["evidence"] = pa.nulls(len(kept), pa.string())
    columns["supporting_events"] = pa.nulls(len(kept), pa.list_(pa.int64()))
    table = pa.table([columns[name] for name in schema.LABELS.names], schema=schema.LABELS)
    pq.write_table(table, config.workspace / "labels" / "student.parquet")


def data(config: Config) -> Path:
    return config.workspace / "explorer" / "data"


def of_run(config: Config) -> Path:
    """The folder of all files but overview.json."""
    run = json.loads((data(config) / "overview.json").read_text(encoding="utf-8"))["run"]
    return data(config) / run


def load(config: Config, name: str) -> Any:
    folder = data(config) if name == "overview.json" else of_run(config)
    return json.loads((folder / name).read_text(encoding="utf-8"))


def intents(config: Config) -> dict[str, Any]:
    return {path.stem: load(config, f"intents/{path.name}") for path in of_run(config).glob("intents/*.json")}


def sessions(config: Config) -> list[dict[str, Any]]:
    files = sorted(of_run(config).glob("sessions/*.json"), key=lambda path: int(path.stem))
    return [session for file in files for session in json.loads(file.read_text(encoding="utf-8"))]


def columns(config: Config) -> dict[str, np.ndarray]:
    types = {"f32": "<f4", "u32": "<u4", "u16": "<u2", "u8": "u1"}
    points, raw = load(config, "overview.json")["points"], (of_run(config) / "points.bin").read_bytes()
    for column in points["columns"].values():
        assert column["offset"] % np.dtype(types[column["type"]]).itemsize == 0
    return {
        name: np.frombuffer(raw, types[c["type"]], points["n"], c["offset"])
        for name, c in points["columns"].items()
    }


def fields(name: str) -> set[str]:
    """The fields of an interface of the contract, those at its top level."""
    body = CONTRACT.read_text(encoding="utf-8").split(f"export interface {name} {{", 1)[1]
    found, depth = set(), 0
    for line in body.splitlines():
        match = re.match(r"\s+(\w+)\??: ", line)
        if depth == 0 and match:
            found.add(match[1])
        text = line.split("//")[0]
        depth += text.count("{") - text.count("}")
        if depth < 0:
            break
    return found


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from (str(key), *strings(item))
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def test_the_files_have_the_fields_of_the_contract(made: Config) -> None:
    overview = load(made, "overview.json")
    assert set(overview) == fields("Overview")
    assert set(overview["intents"][0]) == fields("IntentRow")
    assert set(overview["points"]) == fields("PointColumns")
    assert set(load(made, "pages.json")) == fields("Pages")
    assert set(load(made, "review.json")) == fields("Review")
    assert {frozenset(s) for s in sessions(made)} == {frozenset(fields("Session"))}
    labels = [label for s in sessions(made) for label in s["labels"]]
    assert {frozenset(label) for label in labels} == {frozenset(fields("Label"))}
    assert set(intents(made)) == {row["id"] for row in overview["intents"]}
    parts = {"pages": "Visited", "entries": "Visited", "before": "Neighbour", "confusions": "Confusion"}
    for one in intents(made).values():
        assert set(one) == fields("IntentDetail")
        for part, name in parts.items():
            assert {frozenset(row) for row in one[part]} <= {frozenset(fields(name))}
    assert (made.workspace / "explorer" / "index.html").exists()


def test_counts_add_up(made: Config) -> None:
    overview = load(made, "overview.json")
    series = np.array([row["series"] for row in overview["intents"]])
    assert overview["sessions"] == N == overview["shown"] == sum(overview["total"])
    assert series.sum() + overview["unlabelled"] == N
    assert overview["unlabelled"] > 0
    assert series.sum(axis=1).tolist() == [row["sessions"] for row in overview["intents"]]
    assert [row["sessions"] for row in overview["intents"]] == sorted(series.sum(axis=1), reverse=True)
    assert (series.sum(axis=0) <= overview["total"]).all()
    assert sum(overview["links"].values()) == N
    assert overview["visitors"] == 60
    assert len(overview["bins"]) == len(overview["total"]) == series.shape[1] == 21
    assert np.diff(overview["bins"]).tolist() == [DAY // 1000] * 20
    for row in overview["intents"]:
        one = intents(made)[row["id"]]
        assert sum(one["hours"]) == sum(one["weekdays"]) == row["sessions"]
        assert sum(r["share"] for r in one["devices"]) == pytest.approx(1, abs=1e-5)
        # the campaign of one person would be "other" alone, and is left out
        assert round(row["sessions"] * (1 - sum(r["share"] for r in one["sources"]))) in (0, 1)
        assert OTHER not in [r["name"] for r in one["sources"]]


def test_people_are_counted_once(made: Config) -> None:
    original = {public_id(row["session_id"]): row for row in rows()}
    visitors: dict[int, set[str]] = {}
    accounts: dict[int, set[str]] = {}
    for intent, session in zip(columns(made)["intent"].tolist(), sessions(made), strict=True):
        row = original[session["id"]]
        visitors.setdefault(intent, set()).add(row["visitor_id"])
        if row["account_id"] is not None:
            accounts.setdefault(intent, set()).add(row["account_id"])
    for i, row in enumerate(load(made, "overview.json")["intents"]):
        for told, people in ((row["visitors"], visitors), (row["accounts"], accounts)):
            n = len(people.get(i, ()))
            assert told == (n if n >= 3 else None)


def test_rates_and_changes_have_intervals_around_them(made: Config) -> None:
    overview = load(made, "overview.json")
    value, low, high = overview["rate"]
    assert 0 < low < value < high < 1
    assert overview["compared"] == "the last 7 days with the 7 days before"
    assert overview["outcome"] == "its account takes a product within 5 days"
    assert overview["sure"] is None  # there is no student, only labels
    for row in overview["intents"]:
        change = row["change"]
        assert change["low"] <= change["after"] - change["before"] + 1e-4
        assert change["high"] >= change["after"] - change["before"] - 1e-4
    assert sum(row["change"]["after"] for row in overview["intents"]) <= 1 + 1e-3


def test_columns_decode_and_say_what_the_sessions_say(made: Config) -> None:
    found, told = columns(made), sessions(made)
    names = [row["id"] for row in load(made, "overview.json")["intents"]]
    assert {len(column) for column in found.values()} == {N} == {len(told)}
    assert np.abs([found["x"], found["y"]]).max() <= 1
    assert (np.diff(found["start"].astype(np.int64)) >= 0).all()
    assert set(found["outcome"].tolist()) == {0, 1, 2}
    for i, session in enumerate(told):
        student = [label for label in session["labels"] if label["source"] == "student"]
        assert found["intent"][i] == (student[0]["intent"] if student else 65_535)
        assert found["confidence"][i] == (round(student[0]["confidence"] * 255) if student else 0)
        assert found["start"][i] == session["start"] // 60_000
        assert found["events"][i] == session["n_events"] == len(session["events"])
        assert found["linked"][i] == (session["link"] in ("in_session", "before", "after"))
        assert found["outcome"][i] == {None: 0, "none": 1}.get(session["outcome"], 2)
        assert all(0 <= label["intent"] < len(names) for label in session["labels"])
        order = [label["confidence"] for label in session["labels"]]
        assert order == sorted(order, reverse=True)


def test_columns_name_devices_and_sources_of_enough_people(made: Config) -> None:
    found, told = columns(made), sessions(made)
    names = load(made, "overview.json")["points"]["names"]
    assert names["device"] == ["desktop", "mobile", "unknown"]
    assert RARE_CAMPAIGN not in names["source"]
    assert {"direct", "search.example", "spring"} <= set(names["source"])
    assert found["source"][[s["campaign"] == RARE_CAMPAIGN for s in told]].tolist() == [255]
    for i, session in enumerate(told):
        assert names["device"][found["device"][i]] == (session["device"] or "unknown")
        if session["campaign"] == "spring":
            assert names["source"][found["source"][i]] == "spring"


def test_ids_are_those_of_the_sessions(made: Config) -> None:
    codes = np.frombuffer((of_run(made) / "ids.bin").read_bytes(), "<u8").tolist()
    assert [f"{code:016x}" for code in codes] == [session["id"] for session in sessions(made)]
    assert ids(["of-another-form", "0" * 16 + "00000000000000ff"]) == bytes(8) + b"\xff" + bytes(7)


def test_vectors_are_the_embeddings_of_the_points(made: Config) -> None:
    dim = load(made, "overview.json")["points"]["vectors"]["dim"]
    vectors = np.frombuffer((of_run(made) / "vectors.bin").read_bytes(), np.int8).reshape(N, dim)
    stored = pq.read_table(made.workspace / "embeddings")
    by_id = {public_id(id_): v for id_, v in zip(*stored.to_pydict().values(), strict=True)}
    wanted = np.array([by_id[session["id"]] for session in sessions(made)])
    cosine = (vectors * wanted).sum(axis=1) / np.linalg.norm(wanted, axis=1) / 127
    assert cosine == pytest.approx(1, abs=0.02)


def test_sessions_tell_their_events_and_the_teachers_evidence(made: Config) -> None:
    original = {public_id(row["session_id"]): row for row in rows()}
    pages = load(made, "pages.json")
    quoted = 0
    assert [len(json.loads(p.read_text())) for p in of_run(made).glob("sessions/*.json")].count(64) == N // 64
    for session in sessions(made):
        row = original[session["id"]]
        told = [
            (pages["pages"][page]["page"], pages["pages"][page]["title"], pages["types"][kind], dwell)
            for page, kind, dwell, _ in session["events"]
        ]
        site = " | Example Bank"  # is on every title, and said of none
        titles = [e["title"] and e["title"].removesuffix(site) for e in row["events"]]
        there = [
            (e["page"], title, e["event_type"], e["dwell_s"])
            for e, title in zip(row["events"], titles, strict=True)
        ]
        assert [t[:3] for t in told] == [t[:3] for t in there]
        assert all((a[3] is None) == (b[3] is None) for a, b in zip(told, there, strict=True))
        assert (session["referrer"], session["campaign"]) == (row["referrer"], row["campaign"])
        for label in session["labels"]:
            if label["source"] == "keywords":
                quoted += label["evidence"] is not None
                assert all(0 <= i < len(row["events"]) for i in label["events"])
            else:
                assert label["events"] is None
    assert quoted
    texts = {event[3] for session in sessions(made) for event in session["events"]}
    assert texts == {None, RARE_TEXT}  # not a page's own text, which is the same whoever sees it


def test_an_intents_file_points_at_its_own_sessions(made: Config) -> None:
    overview, found = load(made, "overview.json"), columns(made)
    for place, row in enumerate(overview["intents"]):
        one = intents(made)[row["id"]]
        assert not set(one["surest"]) & set(one["some"])
        assert (found["intent"][[*one["surest"], *one["some"]]] == place).all()
        surest = found["confidence"][one["surest"]].astype(int)
        assert (np.diff(surest) <= 0).all()
        assert all(other["intent"] != place for other in one["confusions"])
        for part in ("pages", "entries", "exits"):
            assert all(0 < visited["share"] <= 1 for visited in one[part])
        assert all(visited["share"] > visited["overall"] for visited in one["pages"])
        assert all(len(path["pages"]) == 3 for path in one["paths"])
        known = [rate for rate in (row["rate"],) if rate]
        assert bool(one["outcomes"]) == bool(known)


def test_nobody_is_named_and_nothing_that_few_share_is_counted(made: Config) -> None:
    files = [path for path in (made.workspace / "explorer").rglob("*") if path.is_file()]
    raw = b"\n".join(path.read_bytes() for path in files)
    for row in rows():
        for secret in (row["visitor_id"], row["account_id"], row["session_id"]):
            assert secret is None or secret.encode() not in raw
    for name in ("overview.json", *(f"intents/{id_}.json" for id_ in intents(made))):
        text = compact(load(made, name))
        assert RARE_CAMPAIGN not in text
        assert RARE_TEXT not in text
    rare = next(i for i, p in enumerate(load(made, "pages.json")["pages"]) if p["page"] == RARE_PAGE)
    for one in intents(made).values():
        rows_ = [r["page"] for part in ("pages", "entries", "exits") for r in one[part]]
        assert rare not in [*rows_, *(page for path in one["paths"] for page in path["pages"])]


def test_every_string_is_one_that_the_tables_or_the_taxonomy_publish(made: Config) -> None:
    taxonomy = Taxonomy.load(made.workspace / "taxonomy.yaml")
    allowed = set(strings(taxonomy.model_dump(mode="json")))
    allowed |= {
        "none",
        "card",
        "loan",
        "other",
        "direct",
        "unknown",
        "student",
        "keywords",
        "day",
        "",
        *LINKS,
    }
    for row in rows():
        allowed |= {str(row[name]) for name in ("channel", "referrer", "campaign", "device", "country")}
        allowed |= {public_id(row["session_id"])}
        allowed |= {str(e[name]) for e in row["events"] for name in ("page", "title", "text", "event_type")}
    contract = CONTRACT.read_text(encoding="utf-8")
    names = ["pages.json", *(str(p.relative_to(of_run(made))) for p in of_run(made).glob("*/*.json"))]
    for name in names:
        for text in strings(load(made, name)):
            assert text in allowed or re.search(rf"\b{re.escape(text)}\b", contract), (name, text)


def test_the_same_again_is_skipped_and_equal(made: Config, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.read_bytes() for p in sorted(data(made).rglob("*")) if p.is_file()}
    pipeline.explore(made)
    assert "up to date" in capsys.readouterr().err
    pipeline.explore(made, force=True)
    after = {p: p.read_bytes() for p in sorted(data(made).rglob("*")) if p.is_file()}
    assert before.keys() == after.keys()
    stamp = re.compile(rb'"made_at":"[^"]*"')
    assert all(stamp.sub(b"", before[p]) == stamp.sub(b"", after[p]) for p in before)


def test_drift_is_copied_once_it_is_there(made: Config) -> None:
    path = made.workspace / "drift.json"
    row = {"page": "/new", "title": None, "share": 0.1, "first_seen": "2026-04-24T00:00:00+00:00"}
    seen = [{**row, "sessions": 3}, {**row, "page": "/of-two", "sessions": 2}]
    path.write_text(json.dumps({"verdict": "none", "new_pages": seen}))
    before = load(made, "overview.json")["run"]
    pipeline.explore(made)
    assert load(made, "drift.json") == {"verdict": "none", "new_pages": seen[:1]}
    assert [p.name for p in data(made).iterdir() if p.is_dir()] == [load(made, "overview.json")["run"]]
    assert load(made, "overview.json")["run"] != before
    path.unlink()
    pipeline.explore(made)
    assert not (of_run(made) / "drift.json").exists()


def test_without_sessions_only_counts_are_written(made: Config) -> None:
    closed = made.model_copy(update={"explore": EXPLORE.model_copy(update={"sessions": False})})
    full = load(made, "overview.json")
    pipeline.explore(closed)
    overview = load(closed, "overview.json")
    assert overview["shown"] == overview["points"]["n"] == 0
    assert overview["points"]["vectors"] is None
    assert overview["points"]["names"] == {}
    assert overview["sessions"] == N
    assert overview["intents"] == full["intents"]
    assert not list(of_run(closed).glob("sessions/*"))
    assert not list(of_run(closed).glob("*.bin"))
    review = load(closed, "review.json")
    assert not [e for intent in review["intents"] for e in intent["examples"]]
    assert not [e for one in intents(closed).values() for e in (*one["surest"], *one["some"])]
    everything = "".join(p.read_text() for p in data(closed).rglob("*.json"))
    assert all(rare not in everything for rare in (RARE_PAGE, RARE_CAMPAIGN, RARE_TEXT))
    assert all(public_id(row["session_id"]) not in everything for row in rows())
    used = {
        r["page"] for one in intents(closed).values() for p in ("pages", "entries", "exits") for r in one[p]
    }
    used |= {page for one in intents(closed).values() for path in one["paths"] for page in path["pages"]}
    assert used == set(range(len(load(closed, "pages.json")["pages"])))
    pipeline.explore(made)


def test_a_sample_is_shown_of_many_and_all_are_counted(made: Config) -> None:
    few = made.model_copy(update={"explore": EXPLORE.model_copy(update={"max_sessions": 50})})
    full = load(made, "overview.json")
    pipeline.explore(few)
    overview = load(few, "overview.json")
    assert overview["shown"] == overview["points"]["n"] == len(sessions(few)) == 50
    assert overview["intents"] == full["intents"]
    assert all(0 <= p < 50 for one in intents(few).values() for p in (*one["surest"], *one["some"]))
    pipeline.explore(made)


def test_one_session_is_enough(tmp_path: Path, made: Config) -> None:
    """No outcomes, no teacher, no accounts, one intent that anybody has."""
    config = workspace(tmp_path / "w", factories.sessions([factories.session(1, ["/"])]), explore=EXPLORE)
    taxonomy = Taxonomy.load(made.workspace / "taxonomy.yaml")
    one = taxonomy.model_copy(update={"intents": taxonomy.intents[:1], "calibration": ()})
    one.save(config.workspace / "taxonomy.yaml")
    label = ["s000001", one.intents[0].id, 0.5, "student", 1, None, None]
    (config.workspace / "labels").mkdir()
    table = pa.table([[value] for value in label], schema=schema.LABELS)
    pq.write_table(table, config.workspace / "labels" / "student.parquet")
    pipeline.explore(config)
    overview = load(config, "overview.json")
    assert (overview["sessions"], overview["shown"], overview["unlabelled"]) == (1, 1, 0)
    assert overview["outcome"] is overview["rate"] is overview["compared"] is None
    row = overview["intents"][0]
    assert (row["sessions"], row["rate"], row["linked"], row["change"]) == (1, None, None, None)
    detail_ = intents(config)[row["id"]]
    assert detail_["pages"] == detail_["entries"] == detail_["outcomes"] == detail_["confusions"] == []
    assert sum(detail_["hours"]) == 0  # fewer people than privacy.min_people
    assert detail_["surest"] == [0]
    session = sessions(config)[0]
    assert session["id"] == ""  # an id of unknown origin is not written
    assert session["outcome"] is None


def test_rates_of_few_accounts_are_not_told(made: Config) -> None:
    def few(people: int) -> Config:
        privacy = PLAIN.model_copy(update={"min_people": people})
        return made.model_copy(update={"privacy": privacy})

    accounts: dict[int, set[str]] = {}
    original = {public_id(row["session_id"]): row for row in rows()}
    for session in sessions(made):
        student = [label["intent"] for label in session["labels"] if label["source"] == "student"]
        if session["outcome"] is not None and student:
            accounts.setdefault(student[0], set()).add(original[session["id"]]["account_id"])
    least = min(map(len, accounts.values()))
    pipeline.explore(few(least + 1))
    for place, row in enumerate(load(made, "overview.json")["intents"]):
        is_told = len(accounts.get(place, ())) > least
        one = load(made, f"intents/{row['id']}.json")
        assert (row["rate"] is not None) == is_told
        assert is_told or one["lift"] is None
        assert all(o["sessions"] > least for o in one["outcomes"])
        assert all(not 0 < c[name] <= least for c in one["confusions"] for name in ("both", "teacher"))
    pipeline.explore(made)


def test_sessions_whose_intent_is_sure_are_counted(made: Config) -> None:
    rng = np.random.default_rng(0)
    student = IntentLabeler(StudentConfig(epochs=1, hidden=4))
    student.fit(rng.normal(size=(40, 8)).astype(np.float32), rng.random((40, 2)), ("a", "b"))
    labels = pq.read_table(made.workspace / "labels" / "student.parquet")
    best = np.asarray(labels.group_by("session_id").aggregate([("confidence", "max")])["confidence_max"])
    student.threshold = round(float(best.min()), 3) + 0.001  # not the least sure ones
    student.save(made.workspace / "student")
    strict = {"explore": EXPLORE.model_copy(update={"supported": 0})}
    pipeline.explore(made.model_copy(update=strict))
    wanted = {"threshold": pytest.approx(student.threshold), "sessions": (best >= student.threshold).sum()}
    assert load(made, "overview.json")["sure"] == wanted
    assert 0 < wanted["sessions"] < len(best)
    strict["labels"] = LabelsConfig(min_confidence=0.2, min_precision=1.0)  # is never reached
    pipeline.explore(made.model_copy(update=strict))
    assert load(made, "overview.json")["sure"] == {"threshold": 1.0, "sessions": 0}
    shutil.rmtree(made.workspace / "student")
    pipeline.explore(made)


def test_an_outcome_inside_the_session_is_told(made: Config) -> None:
    outcome = InSessionConversion(kind="in_session", page="/cards/travel")
    inside = made.model_copy(update={"conversion": outcome})
    pipeline.explore(inside)
    assert load(inside, "overview.json")["outcome"] == "the session reaches /cards/travel"
    original = {public_id(row["session_id"]): [e["page"] for e in row["events"]] for row in rows()}
    for session in sessions(inside):
        pages = original[session["id"]]
        begins = pages[0] == outcome.page  # nothing was seen before it
        wanted = None if begins else outcome.page if outcome.page in pages else "none"
        assert session["outcome"] == wanted
    pipeline.explore(made)


def test_what_is_missing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = workspace(tmp_path / "w", factories.themed_sessions(12), explore=EXPLORE)
    with pytest.raises(WorkspaceError, match="clickintent taxonomy draft"):
        pipeline.explore(config)
    pipeline.draft_taxonomy(config)
    with pytest.raises(WorkspaceError, match="clickintent distill"):
        pipeline.explore(config)
    pipeline.label(config)
    as_student(config)
    with pytest.raises(SystemExit) as ended:
        main(["explore", str(config.workspace.with_suffix(".toml"))])
    assert ended.value.code == 0
    told = capsys.readouterr().err
    assert f"explorer: {config.workspace / 'explorer'}" in told
    assert "clickintent serve" in told


@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 4), st.integers(0, 9)), max_size=60))
def test_a_tally_counts_what_enough_people_share(entries: list[tuple[int, int, int]]) -> None:
    group, value, visitor = np.array(entries, np.int64).reshape(-1, 3).T
    found = tally(group, value, visitor, min_people=3)
    told = {
        (g, v): n
        for g, v, n in zip(found.group.tolist(), found.value.tolist(), found.sessions.tolist(), strict=True)
    }
    for g in range(4):
        for v in range(5):
            mine = [who for a, b, who in entries if (a, b) == (g, v)]
            assert told.get((g, v)) == (len(mine) if len(set(mine)) >= 3 else None)
        assert found.of(g)[1].tolist() == sorted(found.of(g)[1], reverse=True)


def counted(people: int, page: list[int] | None = None, *titles: str | None) -> Counts:
    """Every visitor: intent 0, then 1, then one without; the teacher says 1 where the student says 0.

    Args:
        page: of each session, its place among ``titles``: all of one address.
    """
    k = 3
    start = np.arange(people * k, dtype=np.int64) * DAY
    intent = np.tile([0, 1, -1], people)
    text = np.full(len(start), "x", object)
    return Counts(
        sessions=Sessions(
            start=start,
            visitor=np.repeat(np.arange(people), k),
            account=np.full(len(start), -1),
            cluster=np.repeat(np.arange(people), k),
            link=text,
            intent=intent,
            confidence=np.ones(len(start), np.float32),
            outcome=np.full(len(start), -1),
            source=text,
            device=text,
            intent_ids=("a", "b"),
            outcomes=("none",),
        ),
        visits=Visits(
            np.arange(len(start) + 1),
            np.array(page or [0] * len(start), np.int32),
            tuple(("/", title) for title in titles or (None,)),
        ),
        embeddings=np.eye(2, dtype=np.float32)[np.maximum(intent, 0)],
        labels=Labels((np.flatnonzero(intent >= 0), intent[intent >= 0]), np.where(intent == 0, 1, intent)),
        shown=np.arange(len(start)),
        min_people=2,
        seed=1,
    )


def test_a_page_of_several_titles_is_one_page_with_that_of_most() -> None:
    """Intent 0 has sessions 0, 3, 6, 9; min_people is 2."""
    found = counted(4, [0, 1, 1, 2, 1, 1, 2, 1, 1, 3, 1, 1], "A", None, "Most", "One person's")
    assert detail(found, 0, None)["entries"] == [{"page": 2, "share": 1.0, "overall": 1.0}]
    alone = counted(3, [0, 1, 2, 3, 4, 5, 6, 7, 8], *"ABCDEFGHI")  # each title is one person's
    assert detail(alone, 0, None)["entries"] == []


def test_neighbours_and_confusions_are_of_the_right_sessions() -> None:
    people = 5
    both = counted(people)
    first, second = (detail(both, i, None) for i in range(2))
    assert [(r["intent"], r["sessions"]) for r in first["before"]] == [(-1, people)]
    assert [(r["intent"], r["sessions"]) for r in first["after"]] == [(1, people)]
    assert [(r["intent"], r["sessions"], r["share"]) for r in second["before"]] == [(0, people, 1.0)]
    assert second["before"][0]["overall"] == pytest.approx(1 / 3, abs=1e-4)
    assert second["after"] == []  # a session without an intent is neither an intent nor no session
    assert [(c["intent"], c["similarity"], c["teacher"]) for c in second["confusions"]] == [(0, 0.0, people)]


def test_a_lift_is_a_ratio_with_an_interval_around_it() -> None:
    value, low, high = lift(30, 100, 100, 1000) or []
    assert value == pytest.approx(3)
    assert low < 3 < high
    assert lift(100, 1000, 100, 1000) == [1.0, 1.0, 1.0]
    assert lift(2, 10, 4, 20) is None
    assert (lift(0, 100, 100, 1000) or [])[:2] == [0.0, 0.0]
    assert lift(0, 0, 0, 0) is None


@pytest.mark.parametrize("times", [1, 8])
def test_intervals_are_as_wide_as_the_clusters_are_few(times: int) -> None:
    """Each of 600 people's session again and again: no more is known, and the intervals say so."""
    rng = np.random.default_rng(2)
    group, hit = rng.integers(-1, 2, 600), rng.random(600) < 0.3
    who = np.repeat(np.arange(600), times)
    found = rates(np.repeat(group, times), np.repeat(hit, times), who, 3)
    size = np.bincount(group[group >= 0], minlength=3)
    assert found.clusters.tolist() == size.tolist()
    assert found.worth[:2] == pytest.approx(size[:2] - 1)
    assert (found.worth <= found.known).all()
    assert found.rate(2) is found.lift(2) is None
    share, worth = shares(np.repeat(group, times), who, 3)
    assert share == pytest.approx(size / 600)
    assert worth[:2] == pytest.approx([599, 599])
    once = rates(group, hit, np.arange(600), 3)
    assert found.rate(0) == once.rate(0)
    assert found.lift(0) == pytest.approx(once.lift(0), rel=1e-3)


def test_a_bootstrap_of_people_finds_the_same_intervals() -> None:
    rng = np.random.default_rng(5)
    size = rng.geometric(0.2, 400)
    own, mostly = np.repeat(rng.random(400) < 0.3, size), np.repeat(rng.integers(0, 2, 400), size)
    who = np.repeat(np.arange(400), size)
    group = np.where(rng.random(len(who)) < 0.7, mostly, 1 - mostly)
    drawn, ratios = [], []
    at = np.split(np.arange(len(who)), np.cumsum(size)[:-1])
    for _ in range(400):
        some = np.concatenate([at[i] for i in rng.integers(0, 400, 400)])
        drawn.append(own[some][group[some] == 0].mean())
        ratios.append(drawn[-1] / own[some].mean())
    found = rates(group, own, who, 2)
    for told, seen in ((found.rate(0), drawn), (found.lift(0), ratios)):
        assert (told or [])[1:] == pytest.approx(np.quantile(seen, [0.025, 0.975]), rel=0.06)


def test_a_few_sessions_after_none_are_no_certain_rise() -> None:
    worth = np.full(3, 500.0)
    before, after = np.array([0.0, 0.0, 0.1]), np.array([4 / 500, 40 / 500, 0.1])
    low, high = difference((before, worth), (after, worth), 2.9)  # one of a dozen intents
    assert (low < after - before).all()
    assert (high > after - before).all()
    assert (low > 0).tolist() == [False, True, False]


def test_a_bin_that_was_not_seen_to_its_end_is_told() -> None:
    def partial(first: float, last: float) -> list[int]:
        start = np.array([round(day * DAY) for day in (first, 4.5, last)]) + DAY * 20_000
        return partly_seen(start, binned(start)[1])

    assert partial(0.05, 9.95) == []
    assert partial(0.5, 9.95) == [0]
    assert partial(0.05, 9.5) == [9]
    assert partial(0.5, 9.5) == [0, 9]
    noon = np.array([DAY // 2])
    assert binned(noon)[0] == "hour"
    assert partly_seen(noon, binned(noon)[1]) == [0]


def test_whole_days_are_compared_or_halves() -> None:
    days = factories.START + np.arange(0, 15 * 24) * DAY // 24
    words, before, after = compared(days) or ("", days, days)
    assert words == "the last 7 days with the 7 days before"
    assert before.sum() == after.sum() == 7 * 24
    words, before, after = compared(days[: 15 * 24 - 12]) or ("", days, days)  # the last day is half a day
    assert after.nonzero()[0].max() == 14 * 24 - 1
    words, before, after = compared(days[:96]) or ("", days, days)
    assert "half" in words
    assert compared(days[:24]) is None


def test_placed_points_lie_with_their_like() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 4, 600)
    vectors = np.eye(8, dtype=np.float32)[group] * 5 + rng.normal(0, 0.3, (600, 8)).astype(np.float32)
    xy, is_landmark = lay_out(vectors, 150, seed=3)
    assert is_landmark.sum() == 150
    assert len(np.unique(xy, axis=0)) == 600  # nothing is stacked
    assert np.abs(xy).max() <= 1
    again, _ = lay_out(vectors, 150, seed=3)
    assert (xy == again).all()
    near = np.linalg.norm(xy[:, None] - xy[is_landmark][None], axis=2).argmin(axis=1)
    assert (group[is_landmark][near] == group).mean() > 0.98


def test_the_events_behind_a_label_are_those_without_which_it_goes() -> None:
    """A score that knows one page: half of the events of it, or none."""
    wanted = "/mortgage"
    pages = [["/", wanted, "/help"], ["/", "/help"], [wanted], ["/"] * 9 + [wanted]]
    table = factories.sessions([factories.session(i, some) for i, some in enumerate(pages)])

    def score(some: pa.Table) -> np.ndarray:
        has = [any(e["page"] == wanted for e in events) for events in some["events"].to_pylist()]
        for events in some["events"].to_pylist():
            assert [e["gap_s"] for e in events[:1]] in ([], [None])
            assert all(not math.isnan(e["gap_s"]) for e in events[1:])
        return np.stack([np.where(has, 0.9, 0.2), np.full(len(has), 0.5)], axis=1)

    events = table["events"].combine_chunks()
    found = supported(events, {0: 0, 1: 0, 2: 0, 3: 0}, score, longest=5)
    assert found == {0: (1,)}  # 1: nothing to find; 2: one event alone; 3: longer than the encoder reads
    assert supported(events, {0: 1}, score, longest=5) == {}


def test_without_a_built_page_the_data_are_written_all_the_same(tmp_path: Path) -> None:
    export = Export("run1", {"a": 1}, {"pages.json": {}}, {"i1": {}, "../i2": {}}, [[]], {"points.bin": b"x"})
    write(export, tmp_path / "out", page=tmp_path / "nowhere")
    written = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    names = (
        "index.html",
        "data/overview.json",
        "data/run1/pages.json",
        "data/run1/points.bin",
        "data/run1/intents/i1.json",
        "data/run1/sessions/0.json",
    )
    assert written == {f"out/{name}" for name in names}
    assert "make explorer" in (tmp_path / "out" / "index.html").read_text()
    with pytest.raises(ValueError, match="JSON"):
        compact({"a": math.nan})


def test_of_an_id_stays_what_says_nothing_of_the_visitor() -> None:
    visitor, event = code("v"), code("e")
    assert public_id(visitor + event) == event
    assert public_id("jane-doe-1") == ""
    assert public_id(visitor) == ""
