"""What a compliance officer asks: hashed ids, consent, few people, forgetting, whose a session was when."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import clickintent
from clickintent import Taxonomy, identities, link_as_of
from clickintent.config import Config, PrivacyConfig, SourceConfig
from clickintent.errors import ConfigError, WorkspaceError
from clickintent.events import coding, forget, ingest
from clickintent.taxonomy import Intent
from clickintent.taxonomy.edit import approve_intent
from leaks import Leak, secrets, survives
from test_events_daily import MINUTE, T0, Row, config, tables, write

KEY = "a key for tests, long enough"


# --- ids ---


def test_ids_are_keyed_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = write(tmp_path / "raw.parquet", [("jane-cookie", "jane-account", T0, "/", None)])
    seen = set()
    for key in (KEY, KEY, "another key, long enough"):
        monkeypatch.setenv("CLICKINTENT_KEY", key)
        out = tmp_path / "out"
        ingest(config(raw, out), out, force=True)
        (session,) = tables(out)["sessions"]
        seen.add((session["visitor_id"], session["account_id"], session["session_id"]))
        for path in out.rglob("*"):
            assert path.is_dir() or b"jane" not in path.read_bytes()
    assert len(seen) == 2
    assert all(len(a) == len(b) == 16 for a, b, _ in seen)


def test_without_a_key_nothing_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = write(tmp_path / "raw.parquet", [("a", None, T0, "/", None)])
    monkeypatch.delenv("CLICKINTENT_KEY")
    with pytest.raises(ConfigError, match=r"CLICKINTENT_KEY, which is not set.*openssl"):
        ingest(config(raw, tmp_path / "out"), tmp_path / "out")
    monkeypatch.setenv("CLICKINTENT_KEY", "short")
    with pytest.raises(ConfigError, match="at least 16"):
        ingest(config(raw, tmp_path / "out"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_outside_tables_are_joined_by_the_same_hash(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw.parquet", [("v", " A-1 ", T0, "/", None)])
    made = config(raw, tmp_path / "out")
    ingest(made, tmp_path / "out")
    (session,) = tables(tmp_path / "out")["sessions"]
    assert coding.pseudonyms(pa.array(["A-1", None]), made.privacy).to_pylist() == [
        session["account_id"],
        None,
    ]
    plain = PrivacyConfig(ids="plain")
    assert coding.pseudonyms(pa.array([7]), plain).to_pylist() == ["7"]


# --- consent ---


def test_consent_is_honoured(tmp_path: Path) -> None:
    said = ["true", "Yes", "1", "denied", "", None, "false"]
    table = pa.table({"v": ["a"] * 7, "t": [T0 + i for i in range(7)], "u": ["/"] * 7, "c": said})
    pq.write_table(table, tmp_path / "raw.parquet")
    columns = {"visitor_id": "v", "ts": "t", "url": "u", "consent": "c"}
    source = SourceConfig(
        reader="table", path=tmp_path / "raw.parquet", columns=columns, constants={"event_type": "view"}
    )
    for required, kept in ((False, 5), (True, 3)):
        privacy = PrivacyConfig(min_people=1, require_consent=required)
        out = tmp_path / f"out-{required}"
        metrics = ingest(Config(workspace=out, sources=(source,), privacy=privacy), out).metrics
        assert metrics["events"]["events"] == kept
        assert metrics["events"]["quarantine_reasons"] == {"no consent": 7 - kept}
        assert metrics["privacy"]["rows_refused_without_consent"] == 7 - kept


# --- few people ---


def test_nothing_that_few_people_share_survives(tmp_path: Path) -> None:
    common = [(f"v{i}", None, T0 + i, "/cards/travel", "Travel card") for i in range(4)]
    rare: list[Row] = [
        ("v0", None, T0 + 10, "/u/jane", "Welcome, Jane Doe"),
        ("v1", None, T0 + 10, "/u/bob/settings", "Welcome, Bob"),
        ("v2", None, T0 + 10, "/u/eve/settings", "Welcome, Eve"),
        ("v3", None, T0 + 10, "/u/mallory/settings", "Welcome, Mallory"),
        ("v3", None, T0 + 11, "/cards/travel", "Welcome, Mallory"),
        ("v3", None, T0 + 12, "/odd/place", "Odd"),
        ("v3", None, T0 + 13, "/products/zebra/reviews", "Zebra"),
    ]
    raw = write(tmp_path / "raw.parquet", [*common, *rare])
    privacy = PrivacyConfig(min_people=3, templates=("/products/{product}/reviews",))
    out = tmp_path / "out"
    metrics = ingest(config(raw, out, privacy=privacy), out).metrics
    found = tables(out)
    pages = {p["page"]: p["title"] for p in found["pages.parquet"]}
    assert pages == {
        "/cards/travel": "Travel card",
        "/u/{other}/settings": None,
        "/": None,
        "/products/{product}/reviews": None,
    }
    for path in out.rglob("*"):
        if path.is_file():
            content = path.read_bytes().lower()
            assert not any(name in content for name in (b"jane", b"bob", b"mallory", b"odd", b"zebra")), path
    assert metrics["privacy"]["too_few_people"]["page"] == {"values": 5, "events": 5}
    written = json.loads((out / "privacy.json").read_text())
    assert written == metrics["privacy"]


# --- planted leaks ---


@settings(
    max_examples=4,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
@given(planted=st.lists(secrets(), min_size=150, max_size=250))
def test_no_planted_leak_survives_in_any_file_or_line(
    tmp_path: Path, planted: list[Leak], capfd: pytest.CaptureFixture[str]
) -> None:
    """Some thousand leaks, each in every field of a row, one of them as a row that cannot be read."""
    rows = []
    for i, leak in enumerate(planted):
        for way, text in enumerate(leak.written):
            rows.append(
                {
                    "visitor": f"cookie {leak.plain} {i}",
                    "account": leak.plain,
                    "eid": text,
                    "ts": str(T0 + i * 1000 + way),
                    "action": f"click {text}",
                    "url": (f"https://bank.example/a/{text}/b", f"/search?q={text}&ref={text}#{text}")[i % 2],
                    "title": f"Welcome {text}",
                    "term": text,
                    "ref": f"https://{text}/{text}",
                    "campaign": text,
                    "device": text,
                    "country": text,
                    "session": text,
                    "agent": text,
                }
            )
        rows.append({**rows[-1], "ts": leak.plain})
        rows.append({**rows[-1], "ts": str(T0), "url": f"mailto:{leak.plain}"})
    names = list(rows[0])
    pq.write_table(
        pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in names}),
        tmp_path / "raw.parquet",
    )
    canonical = """visitor_id account_id event_id ts event_type url title text referrer campaign device
        country session_key user_agent"""
    columns = dict(zip(canonical.split(), names, strict=True))
    source = SourceConfig(reader="table", path=tmp_path / "raw.parquet", columns=columns)
    privacy = PrivacyConfig(min_people=1, allow_query=("ref",))
    out = tmp_path / "out"
    metrics = ingest(Config(workspace=out, sources=(source,), privacy=privacy), out, force=True).metrics
    assert metrics["events"]["read"] == len(rows)
    said = "".join(capfd.readouterr())
    texts, numbers = [("what was printed", said)], set()
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        if path.suffix == ".parquet":
            values = list(leaves(pq.read_table(path).to_pylist()))
            texts.append((path.name, "\n".join(value for value in values if isinstance(value, str))))
            numbers |= {str(abs(value)) for value in values if isinstance(value, int)}
        else:
            texts.append((path.name, path.read_text()))
    for leak in planted:
        for name, text in texts:
            assert not survives(leak, text), (name, leak)
        # a part of a time or of a hash may have the digits of a secret by chance; a whole number may not
        digits = "".join(c for c in leak.plain if c.isdigit())
        assert len(digits) < 6 or digits.lstrip("0") not in numbers, leak


def leaves(value: Any) -> Iterator[Any]:
    """What is in rows, however deep."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield value


# --- whose a session was when ---


EVENTS = st.lists(
    st.tuples(st.sampled_from("abcde"), st.sampled_from([None, None, "A", "B", "C"]), st.integers(0, 300)),
    min_size=1,
    max_size=60,
)


@settings(
    max_examples=7,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(EVENTS, st.integers(0, 300))
def test_links_as_of_a_time_are_those_of_a_world_that_ends_there(
    tmp_path: Path, events: list[tuple[str, str | None, int]], now: int
) -> None:
    # in the order of time: whether a file in no order counts as one with the newest first, and which of two
    # events of a minute comes first then, a part of it may say differently
    events = sorted(events, key=lambda event: event[2])
    rows: list[Row] = [(visitor, account, T0 + m * MINUTE, "/", None) for visitor, account, m in events]
    at = T0 + now * MINUTE
    past = [row for row in rows if row[2] <= at]
    if not past:
        return
    found = {}
    for name, some in (("all", rows), ("past", past)):
        raw = write(tmp_path / f"{name}.parquet", some)
        ingest(config(raw, tmp_path / name), tmp_path / name, force=True)
        sessions, links = (
            pq.read_table(tmp_path / name / "sessions"),
            pq.read_table(tmp_path / name / "links"),
        )
        found[name] = {s["session_id"]: s for s in link_as_of(sessions, links, at).to_pylist()}
        now_known = link_as_of(sessions, links, 2**60)
        assert now_known.equals(sessions)  # as of the end of time, it is what ingest says
    for session_id, session in found["past"].items():
        later = found["all"][session_id]
        for name in ("account_id", "account_link", "account_linked_at"):
            assert later[name] == session[name]
    people = {
        name: identities(pq.read_table(tmp_path / name / "links"), as_of=at).table for name in ("all", "past")
    }
    assert people["all"].equals(people["past"])


def test_components_of_cookies_and_accounts(tmp_path: Path) -> None:
    def sightings(*pairs: tuple[str, str]) -> list[Row]:
        return [(v, a, T0 + i, "/", None) for i, (v, a) in enumerate(pairs)]

    rows = sightings(("a", "A"), ("b", "A"), ("b", "B"), ("c", "B"), ("d", "D"), ("e", "D"), ("d", "D"))
    raw = write(tmp_path / "raw.parquet", [*rows, ("f", None, T0, "/", None)])
    out = tmp_path / "out"
    privacy = PrivacyConfig(ids="plain", min_people=1)
    metrics = ingest(config(raw, out, privacy=privacy), out).metrics
    found = [
        (p["visitor_id"], p["account_id"], p["component"], p["is_shared"])
        for p in tables(out)["identities.parquet"]
    ]
    assert found == [
        ("a", "A", "a", False),
        ("b", "A", "a", True),
        ("b", "B", "a", True),
        ("c", "B", "a", False),
        ("d", "D", "d", False),
        ("e", "D", "d", False),
    ]
    assert metrics["identity"] == {
        "linked_visitors": 5,
        "accounts": 3,
        "links": 6,
        "accounts_with_several_visitors": 3,
        "visitors_with_several_accounts": 1,
        "components": 2,
        "largest_component": 5,
    }


# --- forgetting ---


@pytest.fixture
def bank(tmp_path: Path) -> Config:
    """Own cookies a, b of account A; c shared by A and B; d of B; e of nobody."""
    rows: list[Row] = []
    for visitor, account, minute in [
        *(("a", None, 0), ("a", "A", 1), ("b", "A", 100), ("b", None, 200)),
        *(("c", "A", 0), ("c", None, 1), ("c", "B", 100), ("c", None, 101), ("c", None, 300)),
        *(("d", "B", 0), ("d", "B", 1), ("e", None, 0), ("e", None, 1)),
    ]:
        rows.append((visitor, account, T0 + minute * MINUTE, "/cards", "Cards"))
    raw = write(tmp_path / "raw" / "1.parquet", rows)
    made = config(raw.parent, tmp_path / "out", privacy=PrivacyConfig(min_people=4))
    ingest(made, made.workspace)
    ids = [s["session_id"] for s in tables(made.workspace)["sessions"]]
    (made.workspace / "embeddings").mkdir()
    pq.write_table(pa.table({"session_id": ids}), made.workspace / "embeddings" / "part-0.parquet")
    (made.workspace / "labels").mkdir()
    pq.write_table(pa.table({"session_id": ids + ids}), made.workspace / "labels" / "student.parquet")
    (made.workspace / "people").mkdir()
    pq.write_table(pa.table({"session_id": ids}), made.workspace / "people" / "labels.parquet")
    (made.workspace / "report.html").write_text("quotes a session")
    (made.workspace / "explorer" / "data").mkdir(parents=True)
    (made.workspace / "explorer" / "data" / "overview.json").write_text("counts a session")
    return made


def left(made: Config) -> dict[str, int]:
    """Events by visitor, by the letters of the fixture."""
    keys = coding.keys(made.privacy)
    letters = {f"{keys.identifier(v) % 2**64:016x}": v for v in "abcde"}
    found: dict[str, int] = {}
    for event in tables(made.workspace)["events"]:
        visitor = letters[event["visitor_id"]]
        found[visitor] = found.get(visitor, 0) + 1
    return found


def consistent(made: Config) -> dict[str, Any]:
    """All tables speak of the same sessions, and every row is accounted for."""
    out = made.workspace
    found = tables(out)
    ids = {s["session_id"] for s in found["sessions"]}
    assert set(pq.read_table(out / "embeddings")["session_id"].to_pylist()) == ids
    assert set(pq.read_table(out / "labels")["session_id"].to_pylist()) == ids
    assert set(pq.read_table(out / "people")["session_id"].to_pylist()) == ids
    assert {link["session_id"] for link in found["links"]} <= ids
    for file in found["files.parquet"]:
        assert file["read"] == file["events"] + file["duplicates"] + file["quarantined"]
        assert file["duplicates"] == 0
    assert sum(f["quarantined"] for f in found["files.parquet"]) == len(found["quarantine"])
    return found


def test_a_visitor_is_forgotten_everywhere_and_stays_forgotten(bank: Config, tmp_path: Path) -> None:
    done = forget(bank, visitor="e")
    assert left(bank) == {"a": 2, "b": 2, "c": 5, "d": 2}
    assert done.rows["events"] == 2
    assert done.rows["sessions"] == done.rows["embeddings"] == 1
    assert done.rows["labels/student.parquet"] == 2
    assert done.deleted == ["report.html", "explorer"]
    assert not (bank.workspace / "explorer").exists()
    found = consistent(bank)
    assert {q["reason"] for q in found["quarantine"]} == {"of a person who was forgotten"}
    # the same file, read again, does not bring them back; neither does a new one
    ingest(bank, bank.workspace, force=True)
    assert left(bank) == {"a": 2, "b": 2, "c": 5, "d": 2}
    write(tmp_path / "raw" / "2.parquet", [("e", None, T0 + 999 * MINUTE, "/cards", None)])
    ingest(bank, bank.workspace)
    assert left(bank) == {"a": 2, "b": 2, "c": 5, "d": 2}


NARRATIVE = "Cards, briefly → a session of one person"


def with_examples(made: Config) -> None:
    """Everything in a workspace that quotes a session, and a taxonomy that is signed."""
    intents = tuple(
        Intent(
            id=f"i0{n}", name=f"Name {n}", definition="x", examples=(f"{NARRATIVE}: {n}", "it's # another")
        )
        for n in (1, 2)
    )
    signed = approve_intent(Taxonomy(source="llm", intents=intents), "i02", "Kim").approve("Lee")
    for name in ("taxonomy.yaml", "taxonomies/v1.yaml"):
        signed.save(made.workspace / name)
    for name in ("proposals.yaml", ".llm/answers.sqlite3", "llm/requests.jsonl", ".checkpoints/a"):
        (made.workspace / name).parent.mkdir(exist_ok=True)
        (made.workspace / name).write_text(NARRATIVE)


def test_no_file_quotes_a_session_afterwards_and_signatures_hold(bank: Config) -> None:
    with_examples(bank)
    paths = [bank.workspace / name for name in ("taxonomy.yaml", "taxonomies/v1.yaml")]
    before = Taxonomy.load(paths[0])
    assert before.is_approved
    done = clickintent.forget(bank, visitor="e")
    assert done.rows["examples in taxonomies"] == 8
    assert set(done.deleted) == {"report.html", "explorer", "proposals.yaml", ".llm", "llm", ".checkpoints"}
    for path in bank.workspace.rglob("*"):
        assert not path.is_file() or b"of one person" not in path.read_bytes()
    bare = tuple(intent.model_copy(update={"examples": ()}) for intent in before.intents)
    for path in paths:
        after = Taxonomy.load(path)
        assert after == before.model_copy(update={"intents": bare})
        assert after.is_approved
        assert after.intent("i02").is_approved
    assert clickintent.forget(bank, visitor="d").rows["examples in taxonomies"] == 0


def test_only_examples_go_from_a_taxonomy_that_a_person_wrote(bank: Config) -> None:
    path = bank.workspace / "taxonomy.yaml"
    path.write_text(
        "# ours\r\nsource: human\nintents:\n- id: i01  # the first\n  name: A\n"
        "  examples:   # quoted\n  - |\n    a told\n    session\n\n  # of cards\n  definition: examples\n"
        "- {id: i02, name: B, examples: [told, 'told, too'], definition: b}\n"
        "- id: i03\n  name: C\n  keywords: {examples: 0.5}\n  definition: c\n"
        '  "examples":\n      - told\n      # of what\n      - >-\n        told\n        too # no comment\n'
    )
    assert clickintent.forget(bank, visitor="e").rows["examples in taxonomies"] == 5
    assert path.read_bytes().decode() == (
        "# ours\r\nsource: human\nintents:\n- id: i01  # the first\n  name: A\n"
        "  examples: []\n\n  # of cards\n  definition: examples\n"
        "- {id: i02, name: B, examples: [], definition: b}\n"
        "- id: i03\n  name: C\n  keywords: {examples: 0.5}\n  definition: c\n"
        '  "examples": []\n'
    )
    assert [intent.examples for intent in Taxonomy.load(path).intents] == [(), (), ()]


@pytest.mark.parametrize(
    "text", [b"intents: [", b"\xff\xfe", b"intents:\n- examples: &a [x]\n- examples: *a\n"]
)
def test_nobody_is_half_forgotten_if_a_taxonomy_cannot_be_read(bank: Config, text: bytes) -> None:
    (bank.workspace / "taxonomy.yaml").write_bytes(text)
    before = left(bank)
    with pytest.raises(WorkspaceError, match=r"taxonomy\.yaml is not plain YAML"):
        clickintent.forget(bank, visitor="e")
    assert left(bank) == before
    assert (bank.workspace / "report.html").exists()


def test_with_the_fifth_visitor_goes_what_four_may_not_tell(bank: Config) -> None:
    for visitor in "ed":
        forget(bank, visitor=visitor)
    assert {p["page"] for p in consistent(bank)["pages.parquet"]} == {"/"}


def test_forgetting_may_make_a_page_rare_whose_text_was_never_kept(tmp_path: Path) -> None:
    """Without c3, /u/jane is rare and merges with /u/bob: under them, /x has enough people, but no text."""
    rows: list[Row] = [(f"a{i}", None, T0, "/u/jane/x", None) for i in range(2)]
    rows += [(f"c{i}", None, T0, "/u/jane", None) for i in range(4)]
    rows += [(f"b{i}", None, T0, "/u/bob/x", None) for i in range(3)]
    raw = write(tmp_path / "raw.parquet", rows)
    made = config(raw, tmp_path / "out", privacy=PrivacyConfig(min_people=5))
    ingest(made, made.workspace)
    for gone in ("c3", "c2"):
        forget(made, visitor=gone)
    found = tables(made.workspace)
    assert len(found["events"]) == 7
    for path in made.workspace.rglob("*.parquet"):
        assert b"jane" not in path.read_bytes()


def test_people_forgotten_under_another_key_are_said(
    bank: Config, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    forget(bank, visitor="e")
    monkeypatch.setenv("CLICKINTENT_KEY", "another key, long enough")
    ingest(bank, bank.workspace)
    assert "forget these people again" in " ".join(capfd.readouterr().err.split())


def test_an_account_takes_its_cookies_and_its_part_of_shared_ones(bank: Config) -> None:
    done = forget(bank, account="A")
    # of c: the session with A goes; those with B, and the later one of whom nobody knows, stay
    assert left(bank) == {"c": 3, "d": 2, "e": 2}
    assert done.rows["events"] == 6
    consistent(bank)


def test_an_id_can_be_given_as_the_tables_show_it(bank: Config) -> None:
    shown = next(s["account_id"] for s in tables(bank.workspace)["sessions"] if s["account_id"])
    before = sum(left(bank).values())
    assert forget(bank, account=shown).rows["events"] > 0
    assert sum(left(bank).values()) < before


def test_everybody_can_be_forgotten(bank: Config) -> None:
    for visitor in "abcde":
        forget(bank, visitor=visitor)
    assert left(bank) == {}
    consistent(bank)


def test_forgetting_asks_for_one_person_of_a_workspace_with_the_same_key(
    bank: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        forget(bank, visitor="a", account="A")
    with pytest.raises(WorkspaceError, match="holds no events"):
        forget(bank.model_copy(update={"workspace": tmp_path / "none"}), visitor="a")
    before = left(bank)
    assert forget(bank, visitor="nobody").rows["events"] == 0
    assert left(bank) == before
    monkeypatch.setenv("CLICKINTENT_KEY", "another key, long enough")
    with pytest.raises(WorkspaceError, match="another key"):
        forget(bank, visitor="a")
    assert pc.count(pq.read_table(bank.workspace / "events")["event_id"]).as_py() == 13
