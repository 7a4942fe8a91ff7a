"""Operations on a taxonomy, what a diff says of them, the history, and labels that follow a change."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickintent import schema
from clickintent.config import RelabelConfig
from clickintent.errors import ArtifactError
from clickintent.taxonomy import Intent, Taxonomy, diff
from clickintent.taxonomy.edit import (
    add,
    approve_intent,
    merge,
    move,
    new_ids,
    redefine,
    reject,
    rename,
    settle,
    split,
    succeed,
)
from clickintent.taxonomy.history import append, decided, read
from clickintent.taxonomy.relabel import Carried, Change, carry, near_examples


def taxonomy(n: int = 5) -> Taxonomy:
    intents = tuple(
        Intent(id=f"i{k:02d}", name=f"Name {k}", definition=f"Definition {k}.", area="Cards")
        for k in range(1, n + 1)
    )
    return Taxonomy(source="llm", model="m", intents=intents)


# --- operations

_OPERATIONS = ("rename", "redefine", "move", "merge", "split", "reject", "add", "approve")


def apply(operation: str, now: Taxonomy, pick: int, number: int) -> Taxonomy:
    ids = now.intent_ids
    id_, other = ids[pick % len(ids)], ids[(pick + 1) % len(ids)]
    if operation == "rename":
        return rename(now, id_, f"Renamed {number}")
    if operation == "redefine":
        return redefine(now, id_, definition=f"Redefined {number}.")
    if operation == "move":
        return move(now, id_, f"Area {number}")
    if operation == "merge":
        return merge(now, [id_], other) if id_ != other else now
    if operation == "split":
        return split(now, id_, [(f"One {number}", "One."), (f"Two {number}", "Two.")])
    if operation == "reject":
        return reject(now, id_) if len(ids) > 1 else now
    if operation == "add":
        return add(now, f"Added {number}", "New.")
    return approve_intent(now, id_, "Kim")


@given(st.lists(st.tuples(st.sampled_from(_OPERATIONS), st.integers(0, 9)), max_size=12))
@settings(max_examples=60, deadline=None)
def test_ids_are_never_used_twice_and_nothing_gets_lost(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    old = taxonomy()
    now = old.revised()
    ever = dict.fromkeys(old.intent_ids)
    for number, (operation, pick) in enumerate(steps):
        before, now = now, apply(operation, now, pick, number)
        fresh = set(now.intent_ids) - set(before.intent_ids)
        assert not fresh & set(ever)
        ever |= dict.fromkeys(fresh)
    path = tmp_path_factory.mktemp("ops") / "t.yaml"
    now.save(path)
    assert Taxonomy.load(path) == now
    assert set(ever) == set(now.intent_ids) | {r.id for r in now.retired}

    found = diff(old, now)
    gone = [i.id for i in found.removed] + [i.id for i, _ in found.split]
    gone += [i.id for many, _ in found.merged for i in many]
    assert sorted(gone) == sorted(set(old.intent_ids) - set(now.intent_ids))
    heirs = {i.id for _, i in found.merged} | {i.id for _, many in found.split for i in many}
    assert {i.id for i in found.added} | (heirs - set(old.intent_ids)) == set(now.intent_ids) - set(
        old.intent_ids
    )


def test_merging_keeps_one_and_knows_the_others() -> None:
    old = taxonomy().revised()
    now = merge(old, ["i02", "i03", "i02"], "i05")
    assert now.intent_ids == ("i01", "i04", "i05")
    assert now.intent("i05").includes == ("Name 2", "Name 3")
    assert now.successors("i02") == ("i05",)
    assert str(diff(old, now)).startswith("merged: i02 Name 2, i03 Name 3 → i05 Name 5")
    with pytest.raises(ArtifactError, match=r"i02 \(Name 2\) is retired; see i05"):
        rename(now, "i02", "x")
    with pytest.raises(ArtifactError, match="other than i05"):
        merge(now, ["i05"], "i05")


def test_merged_keywords_keep_their_higher_weights() -> None:
    first = Intent(id="a", name="A", definition="a", keywords=("x", "y"), keyword_weights=(1.0, 0.2))
    second = Intent(id="b", name="B", definition="b", keywords=("y", "z"))
    now = merge(Taxonomy(source="human", intents=(first, second)), ["b"], "a")
    assert now.intent("a").weighted_keywords() == {"x": 1.0, "y": 1.0, "z": 1.0}


def test_what_was_split_and_then_merged_is_still_known() -> None:
    old = taxonomy().revised()
    two = split(old, "i02", [("A", "Of a."), ("B", "Of b.")])
    assert two.intent_ids == ("i01", "i06", "i07", "i03", "i04", "i05")
    assert two.intent("i06").area == "Cards"
    assert [(i.id, [n.id for n in now]) for i, now in diff(old, two).split] == [("i02", ["i06", "i07"])]
    again = merge(merge(two, ["i06"], "i04"), ["i07"], "i04")
    assert again.successors("i02") == ("i04",)
    assert [([i.id for i in gone], now.id) for gone, now in diff(old, again).merged] == [(["i02"], "i04")]
    assert diff(old, reject(reject(two, "i06"), "i07")).removed[0].id == "i02"


def test_a_signature_goes_with_what_was_signed(tmp_path: Path) -> None:
    signed = approve_intent(taxonomy(), "i02", "Kim")
    assert signed.intent("i02").is_approved
    assert not signed.intent("i01").is_approved
    assert move(signed, "i01", "Loans").intent("i02").is_approved
    assert rename(signed, "i02", "Another").intent("i02").approved is None
    path = tmp_path / "t.yaml"
    signed.approve("Lee").save(path)
    assert Taxonomy.load(path).is_approved
    path.write_text(path.read_text().replace("Definition 2.", "Something else."))
    edited = Taxonomy.load(path)
    assert not edited.is_approved
    assert edited.intent("i02").approved is not None
    assert not edited.intent("i02").is_approved
    assert rename(signed.approve("Lee"), "i01", "x").approved_by is None
    with pytest.raises(ArtifactError, match="name of who approves"):
        approve_intent(signed, "i01", " ")


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda t: rename(t, "i01", "name 2"), "'name 2' is given to two"),
        (lambda t: rename(t, "i01", " "), "name"),
        (lambda t: rename(t, "i77", "x"), r"no intent 'i77'; the ids are i01, i02"),
        (lambda t: redefine(t, "i01", definition=""), "definition"),
        (lambda t: split(t, "i01", [("A", "b")]), "at least two"),
        (lambda t: split(t, "i01", [("Name 2", "b"), ("C", "d")]), "given to two"),
        (lambda t: reject(taxonomy(1), "i01"), "last intent"),
        (lambda t: add(t, "Name 1", "d"), "given to two"),
    ],
)
def test_what_cannot_be_done_is_said(act: object, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        act(taxonomy())  # type: ignore[operator]


# --- the file

RETIRED = """\
source: human
intents:
- id: i01
  name: Cards
  definition: Cards.
retired:
- id: i02
  name: Travel cards
  into: [i01]
- id: i03
  name: Old offers
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("into: [i01]", "into: [i09]", r"line 9: 'i09' is no intent and not retired"),
        ("- id: i03", "- id: i01", r"line 10: the id 'i01' is retired; give the intent a new one"),
        ("- id: i03", "- id: i02", r"line 10: the id 'i02' is retired twice"),
        ("into: [i01]", "into: [i02]", r"line 9: 'i02' would take its own place"),
        (
            "into: [i01]\n- id: i03\n  name: Old offers",
            "into: [i03]\n- id: i03\n  name: Old\n  into: [i02]",
            "line 9: .*'i02' would take its own place, by way of 'i03'",
        ),
        ("into: [i01]", "gone_to: [i01]", r"line 9: retired\[0\]\.gone_to: unknown key"),
    ],
)
def test_mistakes_in_the_lineage_are_pointed_at(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(RETIRED)
    assert Taxonomy.load(path).successors("i02") == ("i01",)
    assert old in RETIRED
    path.write_text(RETIRED.replace(old, new))
    with pytest.raises(ArtifactError, match=message):
        Taxonomy.load(path)


def test_a_name_given_twice_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(RETIRED.split("retired:")[0] + "- id: i04\n  name: CARDS\n  definition: x\n")
    with pytest.raises(ArtifactError, match="line 7: the name 'cards' is given to two"):
        Taxonomy.load(path)


def test_edits_by_hand_become_the_next_version() -> None:
    first = merge(taxonomy(), ["i05"], "i04")
    deleted = first.model_copy(update={"intents": first.intents[1:], "retired": ()})
    settled = settle(first, deleted)
    assert settled.version == 2
    assert {r.id: (r.into, r.version) for r in settled.retired} == {"i05": (("i04",), 1), "i01": ((), 2)}
    back = first.model_copy(
        update={"intents": (*first.intents, first.intents[0].model_copy(update={"id": "i05", "name": "New"}))}
    )
    with pytest.raises(ArtifactError, match=r"i05 was the id of 'Name 5'.*such as i06"):
        settle(first, back.model_copy(update={"retired": ()}))


def test_a_new_draft_takes_no_old_ids() -> None:
    old = reject(taxonomy(3), "i03")
    fresh = taxonomy(3)
    renamed = fresh.model_copy(
        update={
            "intents": (fresh.intents[1], fresh.intents[0].model_copy(update={"id": "i09", "name": "Else"}))
        }
    )
    now = succeed(old, renamed)
    assert [(i.id, i.name) for i in now.intents] == [("i02", "Name 2"), ("i04", "Else")]
    assert {r.id for r in now.retired} == {"i01", "i03"}
    assert succeed(old, old.model_copy(update={"retired": (), "version": 7})) == old
    assert new_ids(now, 2) == ["i05", "i06"]


# --- the history


def test_the_history_is_only_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "h" / "history.jsonl"
    assert read(path) == []
    first = decided(by="Kim", action="approve", version=1, digest="d", intent="i01")
    append(path, first)
    with path.open("ab") as file:
        file.write(b'{"at": "2026-01-01T00:00')  # a process that was killed
    second = decided(
        by="Zoë", action="merge", version=2, digest="e", intent="i02", what="into i01", why="same"
    )
    append(path, second)
    assert read(path) == [first, second]
    assert second.at.endswith("+00:00")
    with path.open("ab") as file:
        file.write(json.dumps({"at": "x"}).encode() + b"\n")
    with pytest.raises(ArtifactError, match="line 4: not a decision"):
        read(path)


# --- labels


def labels(rows: list[tuple[str, str, float]]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "session_id": s,
                "intent_id": i,
                "confidence": c,
                "source": "llm",
                "taxonomy_version": 1,
                "evidence": s + i,
            }
            for s, i, c in rows
        ],
        schema=schema.LABELS,
    )


ROWS = [
    ("s1", "i01", 0.9),
    ("s2", "i01", 0.6),
    ("s2", "i02", 0.8),
    ("s3", "i02", 0.4),
    ("s4", "i03", 0.95),
    ("s5", "i04", 0.95),
    ("s5", "i03", 0.3),
]
SESSIONS = ["s1", "s2", "s3", "s4", "s5", "s6"]  # s6: none of these


def carried(
    now: Taxonomy, *, near: tuple[str, ...] = (), rows: list[tuple[str, str, float]] = ROWS
) -> Carried:
    found = carry(
        labels(rows),
        pa.array(SESSIONS),
        pa.array(SESSIONS),
        Change.of(diff(taxonomy(), now)),
        version=2,
        config=RelabelConfig(low_confidence=0.5),
        near=np.asarray([s in near for s in SESSIONS]),
    )
    counts = found.counts
    assert counts["sessions"] == counts["kept"] + counts["mapped"] + counts["asked"] == len(SESSIONS)
    assert (
        counts["asked"]
        == found.ask.sum()
        == sum(n for name, n in counts.items() if name.startswith("asked_"))
    )
    return found


def asked(found: Carried) -> list[str]:
    return [s for s, a in zip(SESSIONS, found.ask, strict=True) if a]


def test_names_and_areas_ask_nobody() -> None:
    found = carried(move(rename(taxonomy().revised(), "i01", "Other"), "i02", "Loans"))
    assert asked(found) == []
    assert found.labels == labels(ROWS)
    assert found.counts["kept"] == 6


def test_merged_labels_are_mapped_to_the_surest() -> None:
    found = carried(merge(taxonomy().revised(), ["i02"], "i01"))
    assert asked(found) == []
    got = [
        (r["session_id"], r["intent_id"], round(r["confidence"], 2), r["evidence"], r["taxonomy_version"])
        for r in found.labels.to_pylist()
    ]
    assert got[:3] == [
        ("s1", "i01", 0.9, "s1i01", 1),
        ("s2", "i01", 0.8, "s2i02", 2),
        ("s3", "i01", 0.4, "s3i02", 2),
    ]
    assert (found.counts["kept"], found.counts["mapped"]) == (4, 2)


@pytest.mark.parametrize(
    ("change", "who"),
    [
        (lambda t: reject(t, "i03"), ["s4", "s5"]),
        (lambda t: redefine(t, "i02", definition="Else."), ["s2", "s3"]),
        (lambda t: split(t, "i01", [("A", "a"), ("B", "b")]), ["s1", "s2"]),
        (lambda t: redefine(merge(t, ["i02"], "i01"), "i01", definition="Else."), ["s1", "s2", "s3"]),
        (lambda t: add(t, "New", "New."), ["s3", "s6"]),
        (lambda t: reject(t, "i05"), []),
    ],
)
def test_a_change_asks_only_whom_it_touches(change: object, who: list[str]) -> None:
    found = carried(change(taxonomy().revised()))  # type: ignore[operator]
    assert asked(found) == who
    assert found.labels == labels([row for row in ROWS if row[0] not in who])


def test_sessions_near_to_a_new_intent_are_asked_too() -> None:
    assert asked(carried(add(taxonomy().revised(), "New", "New."), near=("s4",))) == ["s3", "s4", "s6"]


def test_sessions_without_an_answer_are_asked_again() -> None:
    found = carry(
        labels(ROWS),
        pa.array(["s1", "s6", "s7"]),
        pa.array(SESSIONS),
        Change.of(diff(taxonomy(), taxonomy())),
        version=2,
        config=RelabelConfig(),
        near=np.zeros(3, bool),
    )
    assert found.ask.tolist() == [False, False, True]
    assert found.labels == labels(ROWS[:1])
    assert found.counts["asked_new"] == 1


def test_other_keywords_matter_to_the_keyword_namer_alone() -> None:
    old = taxonomy()
    words = old.intents[0].model_copy(update={"keywords": ("rates",)})
    found = diff(old, old.revised(intents=(words, *old.intents[1:])))
    assert "# i01 Name 1: keywords +rates" in str(found)
    assert Change.of(found).reasked == frozenset()
    assert Change.of(found, by_keywords=True).reasked == {"i01"}


def test_examples_are_found_again_by_what_they_read_like() -> None:
    told = ["Home → Cards", 'from x.com, campaign "a" · Home → Cards, long', "Loans", "Rates"]
    vectors = np.asarray([[1, 0], [0.9, 0.1], [0.2, 1], [0, 1]], float)
    near = near_examples(told, vectors, [("from y.com · Home → Cards, long",)], share=0.5)
    assert near.tolist() == [True, True, False, False]
    assert not near_examples(told, vectors, [("Elsewhere",)], share=0.5).any()
