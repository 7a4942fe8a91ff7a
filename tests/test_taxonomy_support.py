"""Evidence found again in a session, the correction pass, and what is stored of sessions without a label."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import factories
from clickintent import schema
from clickintent.config import Config, LabelsConfig, LlmConfig, TaxonomyConfig
from clickintent.taxonomy import Intent, Taxonomy, annotate, answered_of, narrate
from clickintent.taxonomy.narrate import narratives
from clickintent.taxonomy.support import supporting
from llm_server import LlmServer, intents_in, sessions_in

STEPS = ("Home", "Mortgage rates today", 'searched "refi rates"', "Home", 'click "Apply now" on Mortgages')


@pytest.mark.parametrize(
    ("quote", "events"),
    [
        ("Mortgage rates today", (1,)),
        ("mortgage RATES today.", (1,)),
        ("Home", (0, 3)),
        ("refi rates", (2,)),
        ("Mortgage rates today ×3, long", (1,)),
        ("Home, briefly → Mortgage rates today, a while", (0, 1, 3)),
        ("Home; refi rates", (0, 2, 3)),
        ("Mortgage rate today", (1,)),
        ("Apply now", (4,)),
        ("Credit cards", ()),
        ("Home → Credit cards", ()),  # a part of it is nowhere
        ("rate", ()),  # part of a word is not a word
        ("", ()),
        (" → ; ", ()),
        ("a", ()),
    ],
)
def test_quotes_are_found_with_slips_but_not_with_other_words(quote: str, events: tuple[int, ...]) -> None:
    assert supporting(quote, STEPS) == events


@pytest.mark.parametrize(
    ("quote", "events"),
    [
        ("登录", (0, 3)),
        ("hr", (1,)),
        ("登录, briefly → HR ×2", (0, 1, 3)),
        ("ЖК", (2,)),
        ("页", ()),  # inside a step is not enough
        ("HR → IT", ()),
    ],
)
def test_steps_of_a_letter_or_two_are_quoted_whole(quote: str, events: tuple[int, ...]) -> None:
    assert supporting(quote, ("登录", "HR", "ЖК", "登录", "页面 HR", "")) == events


words = st.text("abcdefghij ", min_size=3, max_size=20).filter(lambda text: len(text.strip()) > 2)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(words, min_size=1, max_size=6), st.data())
def test_a_copied_step_is_always_found_where_it_stands(steps: list[str], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(steps) - 1))
    found = supporting(steps[at].upper(), steps)
    assert at in found
    assert list(found) == sorted(set(found))
    assert supporting(steps[at], [*steps, "zzz"])[: len(found)] == found


def test_the_steps_are_those_of_the_narrative() -> None:
    sessions = factories.themed_sessions(40)
    told = list(narratives(sessions))
    assert [narrative.text for narrative in told] == narrate(sessions)
    for narrative, n in zip(told, sessions["n_events"].to_pylist(), strict=True):
        assert len(narrative.steps) == n
        assert all(step in narrative.text for step in narrative.steps)


def test_keyword_labels_point_to_the_events_that_carry_them() -> None:
    taxonomy = Taxonomy(
        source="human",
        intents=(
            Intent(id="i01", name="Cards", definition="Cards.", keywords=("credit cards",)),
            Intent(id="i02", name="Rates", definition="Rates.", keywords=("mortgage rates today",)),
        ),
    )
    sessions = factories.sessions(
        [
            factories.session(1, ["/", "/cards", "/help", "/cards"]),
            factories.session(2, ["/help", "/login"]),
            factories.session(3, ["/mortgage/rates", "/cards"]),
        ]
    )
    config = Config(workspace=Path("unused"), labels=LabelsConfig(min_confidence=0.0))
    annotation = annotate(sessions, taxonomy, config, Path("unused"))
    assert annotation.labels.schema == schema.LABELS
    found = {
        (label["session_id"], label["intent_id"]): label["supporting_events"]
        for label in annotation.labels.to_pylist()
    }
    assert found == {
        ("s000001", "i01"): [1, 3],
        ("s000003", "i01"): [1],
        ("s000003", "i02"): [0],
    }
    assert annotation.states["state"].to_pylist() == ["labelled", "none_of_these", "labelled"]


# --- a language model


def some_taxonomy() -> Taxonomy:
    names = ("Credit cards", "Mortgages", "Savings accounts", "Log in")
    return Taxonomy(
        source="llm",
        intents=tuple(
            Intent(id=f"i{n:02d}", name=name, definition=f"{name}.") for n, name in enumerate(names, 1)
        ),
    )


def config(folder: Path, url: str) -> Config:
    return Config(
        workspace=folder,
        llm=LlmConfig(backend="openai", base_url=url, model="test-model", concurrency=1),
        taxonomy=TaxonomyConfig(minibatch=20),
    )


def label(intent: str, evidence: str, confidence: float = 0.8) -> dict[str, Any]:
    return {"intent": intent, "confidence": confidence, "evidence": evidence}


def answering(first: dict[str, list[Any]], second: dict[str, list[Any] | None]) -> Any:
    """Answers by a session's first page, at first and when asked for evidence again; None: left out."""

    def answer(task: str, user: str) -> dict[str, Any]:
        assert task == "Labels"
        assert intents_in(user)
        rules = second if "stands nowhere in the" in user else first
        sessions = []
        for n, text in sessions_in(user):
            given_ = next(labels for start, labels in rules.items() if text.startswith(start))
            if given_ is not None:
                sessions.append({"session": n, "intents": given_})
        return {"sessions": sessions}

    return answer


def test_labels_without_support_are_asked_about_once_and_then_dropped(tmp_path: Path) -> None:
    sessions = factories.sessions(
        [
            factories.session(1, ["/cards", "/cards/travel"]),  # supported at once
            factories.session(2, ["/mortgage", "/help"]),  # one of two labels supported in the end
            factories.session(3, ["/savings", "/help"]),  # never supported
            factories.session(4, ["/login", "/help"]),  # taken back
            factories.session(5, ["/help", "/help"]),  # none of these
            factories.session(6, ["/help", "/help"]),  # the same words
            factories.session(7, ["/savings/cd", "/help"]),  # left out of the second answer
            # supported, too: an answer that is mostly made up would not be used at all
            *(
                factories.session(n, ["/cards", "/cards/travel", page])
                for n, page in enumerate(("/help", "/login", "/savings", "/mortgage"), 8)
            ),
        ]
    )
    server_answers = answering(
        {
            "Credit cards": [label("i01", "Travel rewards card")],
            "Mortgages": [label("i02", "Mortgages"), label("i03", "Savings")],
            "Savings accounts": [label("i03", "Best savings in town"), label("i02", "House prices")],
            "Log in": [label("i04", "Password reset")],
            "Help centre": [],
            "Certificates": [label("i03", "Fixed deposits")],
        },
        {
            "Mortgages": [label("i03", "Help centre", 0.6)],
            "Savings accounts": [label("i03", "Savings galore"), label("i02", "House prices")],
            "Log in": [],
            "Certificates": None,
        },
    )
    with LlmServer(answer=server_answers) as server:
        annotation = annotate(sessions, some_taxonomy(), config(tmp_path, server.url), tmp_path / "cache")
        asked = [[text for _, text in sessions_in(request.user)] for request in server.requests]
        again = server.requests[1].user
    assert len(asked) == 2
    assert sorted(asked[1]) == sorted(t for t in asked[0] if not t.startswith(("Credit", "Help")))
    assert "session 2: i03, i02" in again or "session 2: i02, i03" in again

    labels = {(row["session_id"], row["intent_id"]): row for row in annotation.labels.to_pylist()}
    assert {key: row["supporting_events"] for key, row in labels.items()} == {
        ("s000001", "i01"): [1],
        ("s000002", "i02"): [0],
        ("s000002", "i03"): [1],
        **{(f"s{n:06d}", "i01"): [1] for n in range(8, 12)},
    }
    assert labels["s000002", "i03"]["evidence"] == "Help centre"
    assert labels["s000002", "i03"]["confidence"] == pytest.approx(0.6)

    states = dict(
        zip(annotation.states["session_id"].to_pylist(), annotation.states["state"].to_pylist(), strict=True)
    )
    assert states == {
        "s000001": "labelled",
        "s000002": "labelled",
        "s000003": "unsupported",
        "s000004": "none_of_these",
        "s000005": "none_of_these",
        "s000006": "none_of_these",
        "s000007": "unsupported",
        **{f"s{n:06d}": "labelled" for n in range(8, 12)},
    }
    assert annotation.answered == [id_ for id_, state in states.items() if state != "unsupported"]
    metrics = annotation.metrics
    assert metrics["correction"] == {
        "sessions": 4, "labels": 5, "supported": 1, "taken_back": 1, "dropped": 3, "added": 0,
    }  # fmt: skip
    assert {state: metrics[state] for state in schema.LABEL_STATES} == {
        **dict.fromkeys(schema.LABEL_STATES, 0),
        **Counter(states.values()),
    }
    assert sum(metrics[state] for state in schema.LABEL_STATES) == metrics["sessions"]


def test_unanswered_is_not_none_of_these(tmp_path: Path) -> None:
    sessions = factories.sessions([factories.session(1, ["/cards"]), factories.session(2, ["/help"])])
    with LlmServer(answer=answering({"Credit cards": None, "Help centre": []}, {})) as server:  # type: ignore[dict-item]
        annotation = annotate(sessions, some_taxonomy(), config(tmp_path, server.url), tmp_path / "cache")
    assert annotation.states.to_pylist() == [
        {"session_id": "s000001", "state": "unanswered"},
        {"session_id": "s000002", "state": "none_of_these"},
    ]
    assert answered_of(annotation.states).to_pylist() == ["s000002"]
    assert annotation.labels.num_rows == 0


def test_a_campaign_is_support_without_an_event_and_evidence_is_the_sessions_own_words(
    tmp_path: Path,
) -> None:
    row = factories.session(1, ["/help"], visitor="visitor-0001-abc")
    row["campaign"] = "travel rewards for visitor-0001-abc"
    answers = answering({"campaign": [label("i01", "travel rewards")]}, {})
    with LlmServer(answer=answers) as server:
        sessions = factories.sessions([row])
        annotation = annotate(sessions, some_taxonomy(), config(tmp_path, server.url), tmp_path / "cache")
    (found,) = annotation.labels.to_pylist()
    assert found["supporting_events"] == []
    assert found["evidence"] == 'campaign "travel rewards for [id]"'
    assert not pc.any(pc.match_substring(annotation.labels["evidence"], "visitor-0001")).as_py()
