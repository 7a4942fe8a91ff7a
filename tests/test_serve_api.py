"""The service over HTTP, as its users meet it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from clickintent import pipeline
from clickintent.config import Config, StudentConfig
from clickintent.errors import ArtifactError, ConfigError, WorkspaceError
from clickintent.serve import api_keys
from clickintent.serve.app import create_app
from clickintent.serve.door import check_exposure
from clickintent.serve.incoming import Published
from clickintent.serve.model import Model, Models, load_model
from clickintent.serve.scorer import Scorer
from clickintent.serve.state import BusyError
from serving import client_of

Served = tuple[Config, list[dict[str, Any]]]
NOW = 1_780_000_000_000_000
MINUTE = 60_000_000
HOME = "https://www.larkfieldbank.example/mortgages"


def event(number: int, visitor: str = "v", **more: Any) -> dict[str, Any]:
    return {
        "event_id": f"e{number}",
        "visitor_id": visitor,
        "ts": NOW - 60 * MINUTE + number * MINUTE,
        "event_type": "page_view",
        "url": HOME,
        **more,
    }


def changed(config: Config, folder: Path, **serve: Any) -> Config:
    """The same workspace in a folder of its own."""
    shutil.copytree(config.workspace, folder / "w")
    return config.model_copy(
        update={"workspace": folder / "w", "serve": config.serve.model_copy(update=serve)}
    )


@pytest.fixture(scope="module")
def model(served: Served) -> Model:
    return load_model(served[0])


@pytest.fixture
def config(served: Served, tmp_path: Path) -> Config:
    return changed(served[0], tmp_path, late_hours=24, keep_days=30)


@pytest.fixture
def client(config: Config) -> Iterator[TestClient]:
    with client_of(create_app(config, clock=lambda: NOW)) as client:
        yield client


# --- score ---


def test_a_session_is_scored_as_the_encoder_embeds_it(
    client: TestClient, served: Served, model: Model
) -> None:
    pages = ["/mortgages", "/mortgages/refinance", "/calculators/mortgage-payment"]
    events = [{"ts": NOW + i * 1000, "event_type": "page_view", "page": p} for i, p in enumerate(pages)]
    answer = client.post("/v1/score", json={"events": events, "intents": 5})
    assert answer.status_code == 200
    found = answer.json()
    expected = model.encoder.embed_one([{**e, "title": None, "text": None} for e in events])
    np.testing.assert_allclose(found["embedding"], expected, atol=1e-5)
    confidences = [intent["confidence"] for intent in found["intents"]]
    assert len(confidences) == 5
    assert confidences == sorted(confidences, reverse=True)
    assert found["abstained"] == (not any(intent["sure"] for intent in found["intents"]))
    assert found["versions"] == {
        "encoder": model.encoder.version,
        "student": model.student,
        "taxonomy": 1,
    }
    assert found["intents"][0]["name"] in {intent.name for intent in model.taxonomy.intents}
    assert "embedding" not in client.post("/v1/score", json={"events": events, "embedding": False}).json()


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"events": [{"ts": "now", "event_type": "x", "page": "/"}]}, 422, "events[0].ts"),
        ({"events": [{"ts": 1, "event_type": "x", "page": "/", "uel": "x"}]}, 422, "events[0]"),
        ({"events": []}, 422, "events"),
        ({}, 422, None),
        ({"events": [{"ts": NOW, "event_type": "x"}]}, 422, "events[0]"),
        ({"events": [{"ts": NOW - t, "event_type": "x", "page": "/"} for t in (0, 1)]}, 422, "events[1].ts"),
        ({"events": [{"ts": 1, "event_type": "x", "page": "/"}], "intents": 0}, 422, "intents"),
        ("{", 400, None),
        (b"\xff\xfe", 400, None),
        ("[" * 100_000, 422, None),
    ],
)
def test_errors_say_which_field_is_wrong(
    client: TestClient, body: Any, status: int, field: str | None
) -> None:
    raw = body if isinstance(body, bytes | str) else json.dumps(body)
    answer = client.post("/v1/score", content=raw)
    assert answer.status_code == status
    assert answer.json().get("field") == field
    assert answer.json()["message"]


def test_a_body_that_is_too_large_is_refused(client: TestClient) -> None:
    assert client.post("/v1/events", content=b" " * (513 * 1024)).status_code == 413


def test_there_are_no_other_paths_and_methods(client: TestClient) -> None:
    assert client.get("/v1/score").json()["code"] == "not_allowed"
    assert client.get("/nowhere").json()["code"] == "not_found"


# --- live sessions ---


def test_events_build_a_session_and_count_once(client: TestClient) -> None:
    first = client.post("/v1/events", json={"events": [event(0), event(1)]}).json()
    assert (first["accepted"], first["duplicates"], first["refused"]) == (2, 0, [])
    again = client.post("/v1/events", json={"events": [event(1), event(2), event(2)]}).json()
    assert (again["accepted"], again["duplicates"]) == (1, 2)
    (session,) = again["sessions"]
    assert session["n_events"] == 3
    assert session["session_id"] == first["sessions"][0]["session_id"]
    later = client.post("/v1/events", json={"events": [event(33)]}).json()["sessions"][0]
    assert later["n_events"] == 1  # 31 minutes after the last
    assert later["session_id"] != session["session_id"]
    between = client.post("/v1/events", json={"events": [event(20)]}).json()["sessions"][0]
    assert between["n_events"] == 5  # what comes late joins the two


def test_what_cannot_be_used_is_told_and_the_counts_add_up(client: TestClient) -> None:
    sent = [
        event(0),
        event(1, ts=NOW + 10 * MINUTE),
        event(2, ts=NOW - 25 * 60 * MINUTE),
        event(3, ts=NOW // 1000),
        event(4, url="mailto:someone@example.org"),
        event(5, url=None),
        event(6, event_type="(not set)"),
        event(7, visitor_id=" null "),
        event(8, consent="no"),
        event(9, consent="granted"),
    ]
    found = client.post("/v1/events", json={"events": sent}).json()
    assert {one["index"]: one["reason"] for one in found["refused"]} == {
        1: "timestamp in the future",
        2: "too late: older than serve.late_hours",
        3: "timestamp before 1995",
        4: "url not parseable",
        5: "missing page and url",
        6: "missing event type",
        7: "visitor_id or event_id says nothing",
        8: "no consent",
    }
    assert found["accepted"] + found["duplicates"] + len(found["refused"]) == len(sent)
    metrics = client.get("/metrics").text
    assert 'clickintent_events_total{outcome="accepted"} 2.0' in metrics
    assert 'clickintent_events_total{outcome="refused"} 8.0' in metrics


def test_a_visitor_who_sends_too_much_is_no_person(served: Served, tmp_path: Path) -> None:
    config = changed(served[0], tmp_path, late_hours=24, max_events_per_visitor=3)
    with client_of(create_app(config, clock=lambda: NOW)) as client:
        found = client.post("/v1/events", json={"events": [event(i) for i in range(5)]}).json()
        assert (found["accepted"], len(found["refused"])) == (3, 2)


# --- accounts ---


def test_an_account_is_answered_with_its_evidence(client: TestClient) -> None:
    pages = ("/mortgages", "/mortgages/refinance", "/calculators/mortgage-payment")
    old = [event(i, "a", url=page) for i, page in enumerate(pages)]
    new = [event(40 + i, "a", url=page) for i, page in enumerate(("/cards", "/cards/compare", "/cards"))]
    client.post("/v1/events", json={"events": old})
    assert client.get("/v1/accounts/me/intent").status_code == 404
    assert client.post("/v1/identify", json={"visitor_id": "a", "account_id": "me"}).json() == {
        "linked": True
    }
    client.post("/v1/events", json={"events": new})
    found = client.get("/v1/accounts/me/intent").json()
    assert found["sessions"] == 2
    assert found["last"] == new[-1]["ts"]
    assert len(found["embedding"]) == 64
    for intent in found["intents"]:
        assert intent["evidence"]
        for session in intent["evidence"]:
            assert session["link"] == "after"  # both began before the login
            assert all(
                0 < e["share"] <= 1 and e["page"] in {*pages, "/cards", "/cards/compare"}
                for e in session["events"]
            )


def test_the_visitor_embedding_is_that_of_batch(client: TestClient, model: Model) -> None:
    client.post("/v1/events", json={"events": [event(0, "a"), event(50, "a", url="/cards", account_id="me")]})
    found = client.get("/v1/accounts/me/intent").json()["embedding"]
    half_life = 3 * 24 * 60
    weights = np.exp2(np.array([-50, 0]) / half_life)
    vectors = [
        model.encoder.embed_one([{"ts": NOW - (60 - at) * MINUTE, "event_type": "page_view", "page": page}])
        for at, page in ((0, "/mortgages"), (50, "/cards"))
    ]
    np.testing.assert_allclose(found, weights @ np.stack(vectors) / weights.sum(), atol=1e-5)


def test_a_shared_device_is_nobodys(client: TestClient) -> None:
    events = [event(0, "a"), event(40, "a", account_id="one"), event(50, "a", account_id="two")]
    client.post("/v1/events", json={"events": events})
    assert client.get("/v1/accounts/one/intent").json()["sessions"] == 0


def test_who_is_forgotten_stays_forgotten(client: TestClient, config: Config) -> None:
    mine = [event(0, "mine", account_id="me"), event(1, "mine")]
    shared = [event(2, "shared", account_id="me"), event(3, "shared", account_id="you")]
    client.post("/v1/events", json={"events": mine + shared})
    assert client.delete("/v1/accounts/me").json() == {"events": 3, "links": 2}
    assert client.get("/v1/accounts/me/intent").status_code == 404
    assert client.get("/v1/accounts/you/intent").json()["sessions"] == 1
    again = client.post(
        "/v1/events", json={"events": [event(9, "mine"), event(10, "x", account_id="me")]}
    ).json()
    assert again["accepted"] == 0
    assert {one["reason"] for one in again["refused"]} == {"of a person who was forgotten"}
    assert client.post("/v1/identify", json={"visitor_id": "mine", "account_id": "z"}).json() == {
        "linked": False
    }
    assert client.delete("/v1/visitors/shared").json() == {"events": 1, "links": 1}
    assert client.post("/v1/events", json={"events": [event(11, "shared")]}).json()["accepted"] == 0


def test_what_an_account_did_before_it_logged_in_is_not_left_to_another(client: TestClient) -> None:
    """A cookie that two share: the first one's browsing goes with the first one."""
    first = [event(i, "c") for i in range(5)] + [event(5, "c", account_id="one")]
    second = [event(50, "c", url="/cards"), event(51, "c", account_id="two")]
    client.post("/v1/events", json={"events": first + second})
    assert client.delete("/v1/accounts/one").json() == {"events": 6, "links": 1}
    found = client.get("/v1/accounts/two/intent").json()
    assert found["sessions"] == 1
    pages = {e["page"] for intent in found["intents"] for one in intent["evidence"] for e in one["events"]}
    assert pages <= {"/cards", "/mortgages"}


def test_ids_may_hold_anything(client: TestClient) -> None:
    client.post("/v1/events", json={"events": [event(0, "aGk/x=", account_id="a/b")]})
    assert client.get("/v1/accounts/a%2Fb/intent").json()["sessions"] == 1
    assert client.delete("/v1/visitors/aGk%2Fx=").json()["events"] == 1
    assert client.delete("/v1/visitors/nobody%0A/").status_code == 200


def test_an_id_as_the_tables_show_it_is_forgotten_too(client: TestClient, model: Model) -> None:
    client.post("/v1/events", json={"events": [event(0, "v")]})
    code = model.gate.visitor("v")
    assert code is not None
    shown = code.to_bytes(8, "big", signed=True).hex()
    assert client.delete(f"/v1/visitors/{shown}").json()["events"] == 1


def test_whom_batch_has_forgotten_is_refused(config: Config, served: Served) -> None:
    row = next(row for row in served[1] if row["account_id"] is None)
    gate = load_model(config).gate
    code = gate.visitor(row["visitor_id"])
    manifest = config.workspace / ".ingest" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "forgotten": [code]}))
    with client_of(create_app(config, clock=lambda: NOW)) as client:
        found = client.post("/v1/events", json={"events": [event(0, row["visitor_id"])]}).json()
        assert [one["reason"] for one in found["refused"]] == ["of a person who was forgotten"]
        body = {"visitor_id": row["visitor_id"], "account_id": "x"}
        assert client.post("/v1/identify", json=body).json() == {"linked": False}


@pytest.mark.parametrize("when", ["while it serves", "while it does not"])
@pytest.mark.parametrize("who", ["visitor", "account"])
def test_whom_batch_forgets_is_removed_from_live_sessions_too(config: Config, who: str, when: str) -> None:
    manifest = config.workspace / ".ingest" / "manifest.json"
    code = load_model(config).gate.visitor("me" if who == "account" else "mine")

    def forget() -> None:
        forgotten = json.loads(manifest.read_text())
        manifest.write_text(json.dumps({**forgotten, "forgotten": [code]}))

    def sessions(client: TestClient, account: str) -> int:
        found = client.get(f"/v1/accounts/{account}/intent")
        return 0 if found.status_code == 404 else int(found.json()["sessions"])

    settings = config.serve.model_copy(update={"reload_seconds": 0.1})
    config = config.model_copy(update={"serve": settings})
    with client_of(create_app(config, clock=lambda: NOW)) as client:
        sent = [event(0, "mine", account_id="me"), event(1, "other", account_id="you")]
        assert client.post("/v1/events", json={"events": sent}).json()["accepted"] == 2
        assert (sessions(client, "me"), sessions(client, "you")) == (1, 1)
        if when == "while it serves":
            forget()
            until(lambda: sessions(client, "me") == 0)
            assert sessions(client, "you") == 1
    if when == "while it does not":
        forget()
    with client_of(create_app(config, clock=lambda: NOW)) as client:
        until(lambda: sessions(client, "me") == 0)
        assert sessions(client, "you") == 1
        time.sleep(0.3)  # it looks a few times more, and nothing fails
        assert "clickintent_background_failures_total{" not in client.get("/metrics").text


def until(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        time.sleep(0.02)
    pytest.fail("it did not come to be")


def test_a_login_without_consent_is_not_kept(client: TestClient) -> None:
    body = {"visitor_id": "a", "account_id": "b", "consent": "no"}
    assert client.post("/v1/identify", json=body).json()["field"] == "consent"
    assert client.get("/v1/accounts/b/intent").status_code == 404


def test_what_is_stored_is_not_refused_when_scoring_is_busy(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(*_: object) -> None:
        raise BusyError("busy")

    monkeypatch.setattr(Scorer, "score", busy)
    with client_of(create_app(config, clock=lambda: NOW)) as client:
        found = client.post("/v1/events", json={"events": [event(0)]}).json()
        assert (found["accepted"], found["sessions"], found["scored"]) == (1, [], False)
        answer = client.post("/v1/score", json={"events": [{"ts": NOW, "event_type": "x", "page": "/"}]})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_what_is_old_goes(config: Config) -> None:
    now = [NOW]
    with client_of(create_app(config, clock=lambda: now[0])) as client:
        client.post("/v1/events", json={"events": [event(0, account_id="me")]})
    now[0] += 31 * 24 * 60 * MINUTE
    with client_of(create_app(config, clock=lambda: now[0])) as client:
        until(lambda: client.get("/v1/accounts/me/intent").status_code == 404)


# --- privacy and security ---


def test_nothing_of_a_person_is_kept_logged_or_counted(
    client: TestClient, config: Config, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = "marjorie.featherstone"
    client.post(
        "/v1/events",
        json={
            "events": [
                event(
                    0,
                    secret,
                    account_id=f"{secret}-account",
                    title=f"Hello {secret}",
                    url=f"{HOME}/{secret}?q={secret}",
                ),
                event(1, secret, url=f"mailto:{secret}@example.org"),
            ]
        },
    )
    client.get(f"/v1/accounts/{secret}-account/intent")
    client.get(f"/v1/accounts/{secret}/intent")
    client.post("/v1/score", content=secret)
    seen = client.get("/metrics").content + "".join(capfd.readouterr()).encode()
    for path in (config.workspace / "serve").iterdir():
        seen += path.read_bytes()
    assert b"clickintent_events_total" in seen
    for word in secret.split("."):
        assert word.encode() not in seen.lower()


def test_security_headers_are_on_every_answer(client: TestClient) -> None:
    for answer in (client.get("/healthz"), client.get("/nowhere"), client.post("/v1/score", content="{")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_keys_open_what_their_scopes_say(config: Config) -> None:
    secrets = {scope: api_keys.add(config.workspace, scope, [scope]) for scope in api_keys.SCOPES}
    raw = (config.workspace / "serve" / "keys.json").read_text()
    assert not any(secret in raw for secret in secrets.values())
    body = {"events": [{"ts": NOW, "event_type": "x", "page": "/"}]}
    with client_of(create_app(config, clock=lambda: NOW)) as client:

        def status(method: str, path: str, key: str | None, json: Any = None) -> int:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            return client.request(method, path, headers=headers, json=json).status_code

        assert status("POST", "/v1/score", None, body) == 401
        assert status("POST", "/v1/score", "ci_wrong", body) == 401
        assert status("POST", "/v1/score", secrets["write"], body) == 200
        assert status("GET", "/v1/accounts/me/intent", secrets["write"]) == 403
        assert status("GET", "/v1/accounts/me/intent", secrets["read"]) == 404
        assert status("POST", "/v1/events", secrets["write"], {"events": [event(0)]}) == 200
        assert status("DELETE", "/v1/visitors/v", secrets["write"]) == 403
        assert status("DELETE", "/v1/visitors/v", secrets["admin"]) == 200
        assert status("GET", "/metrics", None) == 401
        assert status("GET", "/healthz", None) == 200
        assert status("GET", "/readyz", None) == 200


def test_revoking_the_last_key_opens_nothing(config: Config) -> None:
    secret = api_keys.add(config.workspace, "only", ["admin"])
    config = config.model_copy(update={"serve": config.serve.model_copy(update={"reload_seconds": 0.02})})
    headers = {"Authorization": f"Bearer {secret}"}
    with client_of(create_app(config, clock=lambda: NOW)) as client:
        assert client.get("/v1/taxonomy", headers=headers).status_code == 200
        api_keys.revoke(config.workspace, "only")
        until(lambda: client.get("/v1/taxonomy", headers=headers).status_code == 401)
        assert client.get("/v1/taxonomy").status_code == 401


def test_keys_are_named_once_and_revoked(tmp_path: Path) -> None:
    api_keys.add(tmp_path, "shop", ["read"])
    with pytest.raises(ConfigError, match="already"):
        api_keys.add(tmp_path, "shop", ["read"])
    with pytest.raises(ConfigError, match="unknown scope everything"):
        api_keys.add(tmp_path, "other", ["everything"])
    api_keys.revoke(tmp_path, "shop")
    assert api_keys.load(tmp_path) == ()
    with pytest.raises(ConfigError, match="no key 'shop'"):
        api_keys.revoke(tmp_path, "shop")
    (tmp_path / "serve" / "keys.json").write_text("{}")
    with pytest.raises(ArtifactError, match="damaged"):  # not: no keys, so everybody may come in
        api_keys.load(tmp_path)


def test_without_keys_it_listens_on_this_machine_alone(tmp_path: Path) -> None:
    check_exposure("127.0.0.1", ())
    with pytest.raises(WorkspaceError, match="without keys"):
        check_exposure("0.0.0.0", ())
    api_keys.add(tmp_path, "shop", ["read"])
    check_exposure("0.0.0.0", api_keys.load(tmp_path))


def test_too_many_requests_are_told_when_to_come_back(served: Served, tmp_path: Path) -> None:
    config = changed(served[0], tmp_path, requests_per_second=2)
    with client_of(create_app(config, clock=lambda: NOW)) as client:
        answers = [client.get("/v1/taxonomy") for _ in range(5)]
    assert [answer.status_code for answer in answers[:2]] == [200, 200]
    assert answers[-1].status_code == 429
    assert answers[-1].headers["retry-after"] == "1"


def test_what_waits_is_bounded(served: Served) -> None:
    session = [{"ts": NOW, "event_type": "page_view", "page": "/"}]

    async def work() -> list[Any]:
        scorer = Scorer(Models(served[0]), most=3)
        asked = (scorer.score([session]) for _ in range(5))
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert scorer.waiting == 0
        await scorer.close()
        return results

    assert sum(isinstance(result, BusyError) for result in asyncio.run(work())) == 2


# --- models ---


def test_a_new_model_is_taken_up_and_a_broken_one_is_not(config: Config) -> None:
    models = Models(config)
    config = config.model_copy(update={"serve": config.serve.model_copy(update={"reload_seconds": 0.05})})
    body = {"events": [{"ts": NOW, "event_type": "page_view", "page": "/mortgages"}]}

    def until(done: Any) -> None:
        for _ in range(400):
            assert client.post("/v1/score", json=body).status_code == 200  # whatever happens meanwhile
            if done():
                return
            time.sleep(0.01)
        pytest.fail("it did not happen")

    with client_of(create_app(config, models=models, clock=lambda: NOW)) as client:
        before = client.post("/v1/score", json=body).json()["intents"]
        longer = config.model_copy(update={"student": StudentConfig(epochs=8, learning_curve=False)})
        pipeline.distill(longer)
        until(lambda: models.reloads == 1)
        assert client.post("/v1/score", json=body).json()["intents"] != before
        (config.workspace / "student" / "intents.onnx").write_bytes(b"broken")
        until(lambda: models.failures == 1)
        assert "intents.onnx" in (models.problem or "")
        assert client.get("/readyz").json()["problem"]
        assert "clickintent_model_reload_failures_total 1.0" in client.get("/metrics").text


def test_a_taxonomy_that_is_ahead_of_the_student_is_served(config: Config) -> None:
    """Whoever reviews stops no scoring: the student answers what it knows, by the names of now."""
    models = Models(config)
    before = models.current
    names = {intent.id: intent.name for intent in before.taxonomy.intents}
    renamed, merged, split = before.intent_ids[:3]
    parts = [{"name": "A part", "definition": "One."}, {"name": "Another part", "definition": "Two."}]
    body = {"events": [{"ts": NOW, "event_type": "page_view", "page": "/mortgages"}], "intents": 100}
    config = config.model_copy(update={"serve": config.serve.model_copy(update={"reload_seconds": 0.05})})
    with client_of(create_app(config, models=models, clock=lambda: NOW)) as client:
        for decision in (
            {"action": "rename", "intent": renamed, "value": "Another name"},
            {"action": "merge", "intent": merged, "value": renamed},
            {"action": "split", "intent": split, "parts": parts},
        ):
            digest = client.get("/v1/taxonomy/review").json()["digest"]
            made = client.post("/v1/taxonomy/decisions", json={"digest": digest, "by": "Kim", **decision})
            assert made.status_code == 200
        for _ in range(400):
            found = client.post("/v1/score", json=body).json()
            if models.current.taxonomy.retired[-1:] and models.current.taxonomy.retired[-1].id == split:
                break
            time.sleep(0.01)
        found = client.post("/v1/score", json=body).json()
        assert client.get("/v1/taxonomy").json()["version"] == 2
        assert client.get("/readyz").json()["problem"] is None
    assert found["versions"] == {
        "encoder": before.encoder.version,
        "student": before.student,
        "taxonomy": 2,
    }
    assert {one["id"]: one["name"] for one in found["intents"]} == names | {renamed: "Another name"}
    assert models.current.graph is before.graph  # only the names were read anew


def test_a_shadow_scores_along_and_is_compared(served: Served, config: Config, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = changed(served[0], tmp_path / "other").model_copy(
        update={"student": StudentConfig(epochs=1, learning_curve=False)}
    )
    pipeline.distill(other)
    rows = served[1][:400]
    with client_of(create_app(config, shadow=other, clock=lambda: NOW)) as client:
        for row in rows:
            body = {"events": [{"ts": row["ts"], "event_type": "page_view", "url": row["url"]}]}
            assert client.post("/v1/score", json=body).status_code == 200
        found: dict[str, float] = {}
        for _ in range(200):
            text = client.get("/metrics").text
            found = {
                n: float(v) for n, v in re.findall(r"^clickintent_shadow_(\w+)_total (\S+)$", text, re.M)
            }
            if found["sessions"] + found["skipped"] == len(rows):
                break
            time.sleep(0.02)
    assert found["sessions"] + found["skipped"] == len(rows)
    assert 0 < found["disagreements"] < found["sessions"]
    assert found["failures"] == 0


def test_a_workspace_without_a_student_says_what_to_run(config: Config) -> None:
    shutil.rmtree(config.workspace / "student")
    with pytest.raises(ArtifactError, match="clickintent distill"):
        create_app(config)


def test_the_openapi_document_describes_every_route(client: TestClient) -> None:
    found = client.get("/openapi.json").json()
    assert found["openapi"] == "3.1.0"
    described = {(method.upper(), path) for path, some in found["paths"].items() for method in some}
    from clickintent.serve.app import ROUTES

    told = {(method, path.replace(":id}", "}")) for method, path, _, _ in ROUTES}
    assert told - described == {("GET", "/metrics"), ("GET", "/openapi.json")}
    assert described <= told


# --- what may be read ---

_parts = st.lists(st.sampled_from(["a", "b", "c", "{other}"]), max_size=4)


@given(st.lists(_parts, max_size=8), _parts)
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_a_page_becomes_one_that_is_published(pages: list[list[str]], asked: list[str]) -> None:
    names = {"/" + "/".join(parts) for parts in pages}
    found = Published.of(names, (), ()).page("/" + "/".join(asked))
    assert found in names | {"/"}
    if "/" + "/".join(asked) in names:
        assert found == "/" + "/".join(asked)
