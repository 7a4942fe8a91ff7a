"""Decisions on the taxonomy over HTTP: the same as those of the terminal, one at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from clickintent import Taxonomy, schema
from clickintent.config import Config, ExploreConfig, ServeConfig
from clickintent.explorer.review import review_document
from clickintent.pipeline import contract
from clickintent.pipeline.reviewing import decide
from clickintent.serve import api_keys, reviews, wire
from clickintent.serve.app import create_app
from clickintent.serve.model import Models
from clickintent.taxonomy import novelty, review
from clickintent.taxonomy.history import read
from clickintent.taxonomy.review import CommandError, Walk, Wanted
from clickintent.workspace import open_workspace, write_table
from serving import NoModels, client_of
from test_taxonomy_contract import taxonomy
from test_taxonomy_review import proposal

Json = dict[str, Any]


def made(folder: Path, n: int = 4) -> Config:
    """A workspace with a draft of ``n`` intents, two proposals, and labels of the first intent."""
    with open_workspace(folder) as workspace:
        contract.drafted(workspace, taxonomy(n))
    novelty.save([proposal("p1", "Car loans"), proposal("p2", "Noise")], folder / "proposals.yaml")
    labels = [
        {"session_id": f"s{k}", "intent_id": "i01", "confidence": 1.0, "source": "llm", "taxonomy_version": 1}
        for k in range(3)
    ]
    write_table(pa.Table.from_pylist(labels, schema.LABELS), folder / "labels" / "teacher.parquet")
    return Config(workspace=folder)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return made(tmp_path / "w")


def serving(config: Config) -> TestClient:
    return client_of(create_app(config, models=cast(Models, NoModels())))


@pytest.fixture
def client(config: Config) -> Iterator[TestClient]:
    with serving(config) as client:
        yield client


def now(config: Config) -> Taxonomy:
    return Taxonomy.load(config.workspace / "taxonomy.yaml")


def versions(config: Config) -> list[str]:
    return sorted(path.name for path in (config.workspace / "taxonomies").glob("v*.yaml"))


def post(client: TestClient, action: str, intent: str | None = None, **more: Any) -> Any:
    """A decision on what is there now."""
    digest = client.get("/v1/taxonomy/review").json()["digest"]
    body: Json = {"digest": digest, "by": "Kim", "action": action, **more}
    return client.post("/v1/taxonomy/decisions", json=body if intent is None else {**body, "intent": intent})


# --- what there is to decide ---


def test_the_review_tells_what_there_is_to_decide(client: TestClient, config: Config) -> None:
    answer = client.get("/v1/taxonomy/review")
    assert answer.status_code == 200
    found = msgspec.convert(answer.json(), wire.Review)
    assert msgspec.to_builtins(found) == answer.json()  # no more and no less than it is documented
    assert (found.version, found.approved_by, found.approved_at) == (1, None, None)
    assert [intent.id for intent in found.intents] == ["i01", "i02", "i03", "i04"]
    assert [intent.sessions for intent in found.intents] == [3, None, None, None]
    assert (found.proposals[0].id, found.proposals[0].sessions) == ("p1", 60)
    assert [(made.by, made.action) for made in found.history] == [("m", "draft")]
    assert answer.headers["cache-control"] == "no-store"


def test_examples_are_single_sessions_and_left_out_with_them(config: Config) -> None:
    with serving(config) as client:
        assert client.get("/v1/taxonomy/review").json()["proposals"][0]["examples"]
    counts_only = config.model_copy(update={"explore": ExploreConfig(sessions=False)})
    with serving(counts_only) as client:
        for answer in (client.get("/v1/taxonomy/review"), post(client, "approve", "i01")):
            found = answer.json()
            assert found["intents"][0]["name"] == "Name 1"
            assert not any(row["examples"] for row in (*found["intents"], *found["proposals"]))


def test_it_is_as_the_workspace_is_now(client: TestClient, config: Config) -> None:
    decide(
        config, "Lee", Wanted("rename", "i01", "By Lee"), review_document(config.workspace, config)["digest"]
    )
    found = client.get("/v1/taxonomy/review").json()
    assert found["intents"][0]["name"] == "By Lee"
    assert (found["history"][0]["by"], found["history"][0]["what"]) == ("Lee", "By Lee")
    path = config.workspace / "taxonomy.yaml"
    path.write_text(path.read_text().replace("name: Name 2", "name: ''"))
    broken = client.get("/v1/taxonomy/review")
    assert (broken.status_code, broken.json()["code"]) == (409, "conflict")
    assert "line " in broken.json()["message"]
    assert str(config.workspace) not in broken.text
    path.unlink()
    gone = client.get("/v1/taxonomy/review")
    assert gone.status_code == 404
    assert "clickintent taxonomy draft" in gone.json()["message"]


# --- decisions ---


def test_decisions_are_those_of_the_terminal(client: TestClient, config: Config, tmp_path: Path) -> None:
    one, two = {"name": "A | B", "definition": "X: y -- z"}, {"name": "C", "definition": "D"}
    first, *_ = answers = [
        post(client, "approve", "i01"),
        post(client, "rename", "i01", value="Something -- else | and: more", why="a -- b"),
        post(client, "redefine", "i01", value="Another definition."),
        post(client, "move", "i01", value="Elsewhere"),
        post(client, "merge", "i02", value="i01"),
        post(
            client,
            "split",
            "i03",
            parts=[one, two],
        ),
        post(client, "reject", "i04", why="  nobody could\n act on it "),
        post(client, "accept", "p1", value="Loans: cars"),
        post(client, "dismiss", "p2"),
    ]
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    assert first.json()["intents"][0]["is_approved"]
    walk = Walk(taxonomy(4), "Kim", novelty.load(made(tmp_path / "other").workspace / "proposals.yaml"), True)
    for line in (
        "approve",
        "back",
        "rename Something",
        "redefine Another definition.",
        "move Elsewhere",
        "go i02",
        "merge i01",
        "split A: X | C: D",
        "go i04",
        "reject",
        "go p1",
        "accept Loans: cars",
        "go p2",
        "dismiss",
    ):
        walk.follow(line)
    after = now(config)
    assert after.intent_ids == walk.taxonomy.intent_ids
    assert [(r.id, r.version, r.into) for r in after.retired] == [
        (r.id, r.version, r.into) for r in walk.taxonomy.retired
    ]
    assert after.version == walk.taxonomy.version == 2
    assert after.intents[0].name == "Something -- else | and: more"
    assert (after.intents[1].name, after.intents[1].definition) == ("A | B", "X: y -- z")
    assert after.intents[-1].name == "Loans: cars"
    found = answers[-1].json()
    assert found["proposals"] == []
    last = {"by": "Kim", "action": "dismiss", "version": 2, "intent": "p2", "what": "Noise", "why": None}
    assert {key: value for key, value in found["history"][0].items() if key != "at"} == last
    reasons = {one["action"]: one["why"] for one in found["history"]}
    assert (reasons["rename"], reasons["reject"]) == ("a -- b", "nobody could act on it")
    assert found["retired"][0] == {"id": "i02", "name": "Name 2", "into": ["i01"]}


def test_decisions_make_one_version_until_something_uses_it(client: TestClient, config: Config) -> None:
    def use() -> int:
        with open_workspace(config.workspace) as workspace:
            return contract.current(workspace, "label").version

    post(client, "approve", "i01")
    assert now(config).version == 1  # a signature makes no version
    post(client, "rename", "i01", value="One")
    post(client, "rename", "i02", value="Two")
    assert (now(config).version, versions(config)) == (2, ["v1.yaml"])
    assert use() == 2
    second = Taxonomy.load(config.workspace / "taxonomies" / "v2.yaml")
    post(client, "rename", "i01", value="Three")
    post(client, "reject", "i04")
    assert now(config).version == 3
    signed = post(client, "approve_all").json()
    assert (signed["version"], signed["approved_by"], signed["history"][0]["action"]) == (3, "Kim", "approve")
    assert signed["approved_at"]
    post(client, "rename", "i02", value="Four")
    assert (now(config).version, now(config).approved_by) == (4, None)
    assert Taxonomy.load(config.workspace / "taxonomies" / "v2.yaml") == second
    assert Taxonomy.load(config.workspace / "taxonomies" / "v3.yaml").approved_by == "Kim"
    assert [d.version for d in read(config.workspace / contract.HISTORY)] == [1, 1, 2, 2, 3, 3, 3, 4]


def test_a_file_edited_by_hand_is_a_version_before_it_is_decided_on(
    client: TestClient, config: Config
) -> None:
    path = config.workspace / "taxonomy.yaml"
    path.write_text(path.read_text().replace("name: Name 2", "name: By hand"))
    assert post(client, "rename", "i01", value="By Kim").status_code == 200
    assert [d.action for d in read(config.workspace / contract.HISTORY)] == ["draft", "edit", "rename"]
    assert versions(config) == ["v1.yaml", "v2.yaml"]
    assert (now(config).version, now(config).intents[1].name) == (3, "By hand")


# --- what cannot be decided ---


def test_what_somebody_else_changed_is_not_decided_on(client: TestClient, config: Config) -> None:
    body = {"digest": client.get("/v1/taxonomy/review").json()["digest"], "by": "Kim"}
    assert post(client, "rename", "i01", value="By Lee").status_code == 200
    before = (config.workspace / "taxonomy.yaml").read_bytes()
    late = {**body, "action": "rename", "intent": "i01", "value": "By Kim"}
    answer = client.post("/v1/taxonomy/decisions", json=late)
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert "look again" in answer.json()["message"]
    assert (config.workspace / "taxonomy.yaml").read_bytes() == before
    # proposals are numbered anew whenever they are looked for
    body["digest"] = client.get("/v1/taxonomy/review").json()["digest"]
    novelty.save([proposal("p1", "Something else")], config.workspace / "proposals.yaml")
    late = {**body, "action": "accept", "intent": "p1"}
    assert client.post("/v1/taxonomy/decisions", json=late).status_code == 409


@pytest.mark.parametrize("action", ["rename", "approve_all"])
def test_two_at_once_do_not_both_decide(client: TestClient, config: Config, action: str) -> None:
    digest = client.get("/v1/taxonomy/review").json()["digest"]
    more = {"intent": "i01", "value": "Another"} if action == "rename" else {}
    statuses: list[int] = []

    def ask(by: str) -> None:
        body = {"digest": digest, "by": by, "action": action, **more}
        statuses.append(client.post("/v1/taxonomy/decisions", json=body).status_code)

    threads = [threading.Thread(target=ask, args=(by,)) for by in ("Kim", "Lee", "Bo")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # a signature leaves what is signed as it was
    assert sorted(statuses) == ([200, 409, 409] if action == "rename" else [200, 200, 200])
    assert len(read(config.workspace / contract.HISTORY)) == 1 + statuses.count(200)


def test_while_a_stage_is_at_work_it_says_when_to_come_back(client: TestClient, config: Config) -> None:
    with open_workspace(config.workspace):
        assert client.get("/v1/taxonomy/review").status_code == 200
        answer = post(client, "approve", "i01")
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "busy", "5")
    assert post(client, "approve", "i01").status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"action": "rename", "intent": "i01"}, 422, "value"),
        ({"action": "rename", "intent": "i01", "value": " "}, 422, "value"),
        ({"action": "rename", "intent": "i01", "value": "name 2"}, 422, "value"),  # taken
        ({"action": "rename", "intent": "i77", "value": "x"}, 422, "intent"),
        ({"action": "rename", "value": "x"}, 422, "intent"),
        ({"action": "merge", "intent": "i01", "value": "i01"}, 422, "value"),
        ({"action": "merge", "intent": "i01", "value": "i77"}, 422, "value"),
        ({"action": "approve", "intent": "p1"}, 422, "intent"),
        ({"action": "accept", "intent": "i01"}, 422, "intent"),
        ({"action": "accept", "intent": "p1", "value": "Name 1"}, 422, "value"),
        ({"action": "split", "intent": "i01"}, 422, "parts"),
        ({"action": "split", "intent": "i01", "parts": [{"name": "a", "definition": "b"}]}, 422, "parts"),
        ({"action": "split", "intent": "i01", "parts": [{"name": "a", "definition": "b"}] * 2}, 422, "parts"),
        (
            {"action": "split", "intent": "i01", "parts": [{"name": "", "definition": "b"}]},
            422,
            "parts[0].name",
        ),
        ({"action": "reject", "intent": "i01", "value": "x"}, 422, "value"),
        ({"action": "approve_all", "intent": "i01"}, 422, "intent"),
        ({"action": "approve", "intent": "i01", "by": " \u200b"}, 422, "by"),
        ({"action": "approve", "intent": "i01", "by": "Kim (key the admin)"}, 422, "by"),
        ({"action": "approve", "intent": "i01", "by": "Kim （ Key\tx"}, 422, "by"),
        ({"action": "praise", "intent": "i01"}, 422, "action"),
        ({"action": "approve", "intent": "i01", "reason": "x"}, 422, None),
        ({"action": "approve", "intent": "i01", "digest": "0"}, 409, None),
    ],
)
def test_errors_say_which_field_is_wrong(
    client: TestClient, config: Config, body: Json, status: int, field: str | None
) -> None:
    before = {path: path.read_bytes() for path in sorted(config.workspace.rglob("*.[yj]*")) if path.is_file()}
    answer = post(client, **body)
    assert (answer.status_code, answer.json().get("field")) == (status, field), answer.json()
    assert answer.json()["message"]
    after = {path: path.read_bytes() for path in sorted(config.workspace.rglob("*.[yj]*")) if path.is_file()}
    assert after == before


def test_the_last_intent_cannot_be_rejected(tmp_path: Path) -> None:
    with serving(made(tmp_path / "w", 1)) as client:
        answer = post(client, "reject", "i01")
        assert (answer.status_code, answer.json()["field"]) == (422, "intent")


def test_a_workspace_that_cannot_be_written_says_so(
    client: TestClient, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Taxonomy, "save", full)
    answer = post(client, "rename", "i01", value="x")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert "No space left" in answer.json()["message"]


# --- who may ---


def test_a_form_of_another_site_decides_nothing(client: TestClient, config: Config) -> None:
    body = msgspec.json.encode(
        {
            "digest": client.get("/v1/taxonomy/review").json()["digest"],
            "by": "Kim",
            "action": "approve",
            "intent": "i01",
        }
    )
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        answer = client.post("/v1/taxonomy/decisions", content=body, headers={"Content-Type": kind})
        assert answer.status_code == 415
    kind = "application/json; charset=utf-8"
    for origin, status in (("https://evil.example", 403), ("http://localhost", 200)):
        headers = {"Content-Type": kind, "Origin": origin}
        assert client.post("/v1/taxonomy/decisions", content=body, headers=headers).status_code == status


def test_keys_say_who_may_decide_and_stand_in_the_history(config: Config) -> None:
    secrets = {scope: api_keys.add(config.workspace, f"the {scope}", [scope]) for scope in api_keys.SCOPES}
    with serving(config) as client:

        def status(method: str, path: str, scope: str | None, json: Any = None) -> int:
            headers = {"Authorization": f"Bearer {secrets[scope]}"} if scope else {}
            return client.request(method, f"/v1/taxonomy/{path}", headers=headers, json=json).status_code

        asked = {scope: status("GET", "review", scope) for scope in (None, "read", "write", "admin")}
        assert asked == {None: 401, "read": 200, "write": 403, "admin": 200}
        body = {
            "digest": review_document(config.workspace, config)["digest"],
            "by": "Kim\x1b[31m  Lee",
            "action": "approve",
            "intent": "i01",
        }
        asked = {
            scope: status("POST", "decisions", scope, body) for scope in (None, "read", "write", "admin")
        }
        assert asked == {None: 401, "read": 403, "write": 403, "admin": 200}
    assert read(config.workspace / contract.HISTORY)[-1].by == "Kim [31m Lee (key the admin)"


Slow = tuple[threading.Event, threading.Event]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    """Decisions are written when the second says so; the first says that one has begun."""
    begun, go_on = threading.Event(), threading.Event()

    def slowly(*arguments: Any) -> None:
        begun.set()
        assert go_on.wait(10)
        decide(*arguments)

    monkeypatch.setattr(reviews, "decide", slowly)
    return begun, go_on


def test_others_are_served_while_a_decision_is_written(client: TestClient, slow: Slow) -> None:
    begun, go_on = slow
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(post(client, "approve", "i01").status_code))
    thread.start()
    assert begun.wait(10)
    started = time.monotonic()
    assert client.get("/healthz").status_code == 200
    assert client.get("/v1/taxonomy/review").status_code == 200
    assert time.monotonic() - started < 4
    go_on.set()
    thread.join()
    assert statuses == [200]


def test_a_decision_that_has_begun_is_answered_however_long_it_takes(config: Config, slow: Slow) -> None:
    """And one that still waits for its turn is not made once it was told to come back."""
    begun, go_on = slow
    statuses: dict[str, int] = {}
    with serving(config.model_copy(update={"serve": ServeConfig(timeout_s=1)})) as client:

        def ask(intent: str) -> None:
            statuses[intent] = post(client, "approve", intent).status_code

        threads = {intent: threading.Thread(target=ask, args=(intent,)) for intent in ("i01", "i02")}
        threads["i01"].start()
        assert begun.wait(10)
        threads["i02"].start()
        threads["i02"].join()
        assert statuses == {"i02": 503}
        go_on.set()
        threads["i01"].join()
    assert statuses["i01"] == 200
    assert [intent.id for intent in now(config).intents if intent.is_approved] == ["i01"]


# --- whatever is written ---

_text = st.text(max_size=20) | st.sampled_from(
    [" -- ", "|", "a: b | c: d", "quit", "\n", "\x00", "i02", "Name 2"]
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["rename", "redefine", "move", "merge", "split", "reject"]), _text, _text, _text
        ),
        max_size=6,
    )
)
@settings(max_examples=100, deadline=None)
def test_whatever_is_written_it_is_taken_as_it_is(wanted: list[tuple[Any, str, str, str]]) -> None:
    before, fields = taxonomy(3), set()
    for number, (action, one, two, why) in enumerate(wanted):
        first = before.intents[0]
        value = None if action in ("split", "reject") else one
        parts = ((one, two), (two, one)) if action == "split" else ()
        asked = Wanted(action, first.id, value, parts, why)
        try:
            decided = review.decide(before, (), asked, "Kim", is_open=number > 0)
        except CommandError as error:
            fields.add(error.field)
            continue
        after = decided.taxonomy
        assert Taxonomy.model_validate(after.model_dump()) == after
        assert (decided.intent, decided.why) == (first.id, why)
        gone = {first.id} if action in ("merge", "split", "reject") else set()
        assert set(before.intent_ids) - set(after.intent_ids) == gone
        if action == "split":
            assert [line(i.name) for i in after.intents[:2]] == [line(one), line(two)]
        if action == "rename":
            assert after.intents[0].name == line(one)
        before = after
    assert fields <= {"value", "parts", "intent"}


def line(text: str) -> str:
    """As the file keeps it."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
