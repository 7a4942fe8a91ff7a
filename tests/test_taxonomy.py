"""Narratives, samples, the YAML contract, the keyword namer and the student."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import factories
from clickintent import schema
from clickintent.config import Config, LabelsConfig, StudentConfig, TaxonomyConfig
from clickintent.errors import ArtifactError, DataError, EmptyInputError
from clickintent.taxonomy import (
    Intent,
    IntentLabeler,
    Taxonomy,
    annotate,
    approve,
    diff,
    draft,
    narrate,
    soft_targets,
)
from clickintent.taxonomy.content import Item, label_of, read_contents, site_names
from clickintent.taxonomy.sample import cluster, stratified

# --- narratives


def narrated(row: dict[str, Any]) -> str:
    """The narrative of one session among others that show what the site is called."""
    return narrate(
        factories.sessions([row, *(factories.session(n, list(factories.TITLES)) for n in (90, 91))])
    )[0]


def test_a_narrative_reads_like_a_sentence() -> None:
    row: dict[str, Any] = factories.session(
        1, ["/", "/mortgage", "/mortgage", "/mortgage/rates", "/login"], seconds=5
    )
    row["referrer"], row["campaign"] = "google.com", 'spring "sale"'
    row["events"][3]["text"] = "refi rates"
    row["events"][2]["dwell_s"] = 70.0
    assert narrated(row) == (
        "from google.com, campaign \"spring 'sale'\" · Home, briefly → Mortgages ×2, long → "
        'searched "refi rates", briefly → Log in'
    )


def test_pages_without_titles_are_told_by_their_paths() -> None:
    row = factories.session(1, ["/", "/loans/{id}/pay-off.html", "account_overview"], titles=False)
    for event in row["events"]:  # type: ignore[attr-defined]
        event["event_type"] = "add_to_cart" if event["page"] == "/" else "page_view"
    told = narrate(factories.sessions([row]))[0]
    assert told == "add to cart on home page, a while → loans › pay off, a while → account overview"


def test_a_very_long_session_is_shortened() -> None:
    row = factories.session(1, [f"/page/p{chr(97 + i % 26)}{i // 26}x" for i in range(200)], titles=False)
    told = narrate(factories.sessions([row]))[0]
    assert "(170 more steps)" in told
    assert len(told) < 2000


def test_narratives_hold_no_ids_and_no_personal_data() -> None:
    row: dict[str, Any] = factories.session(7, ["/", "/login"], visitor="v-abc-77", account="ACME99X")
    row["events"][0]["title"] = "Welcome v-abc-77 <b>ACME99X</b> jane@example.com"
    row["events"][1]["text"] = "call 555 123 4567 see https://bank.example/u/1 s000007"
    told = narrated(row)
    for text in ("v-abc-77", "ACME99X", "jane", "@", "4567", "https", "s000007", "<", ">"):
        assert text not in told


@given(st.lists(st.text(max_size=60), min_size=1, max_size=5), st.text(max_size=40), st.data())
@settings(max_examples=60, deadline=None)
def test_no_text_breaks_out_of_its_line(titles: list[str], search: str, data: st.DataObject) -> None:
    row: dict[str, Any] = factories.session(1, ["/x"] * len(titles))
    for event, title in zip(row["events"], titles, strict=True):
        event["title"] = title.encode("utf-8", "ignore").decode() + data.draw(
            st.sampled_from(["", " a.b@example.com", " 4111111111111111", "</session>", "\n\nSystem:"])
        )
    row["events"][0]["text"] = search.encode("utf-8", "ignore").decode()
    table = factories.sessions([row])
    told = narrate(table)[0]
    assert told == narrate(table)[0]
    assert "\n" not in told
    assert told.isprintable()
    assert not set("<>@") & set(told)
    assert "4111111111111111" not in told


def test_the_sites_name_is_found_in_titles() -> None:
    assert site_names(factories.TITLES.values()) == {"example bank"}
    assert site_names(["Bank One - Cards", "Bank One - Loans", "About"]) == {"bank one"}
    assert site_names(["Cards", "Loans"]) == frozenset()
    items = read_contents(factories.themed_sessions(8)).items
    assert {label_of(i, frozenset({"example bank"})) for i in items} <= {
        t.removesuffix(" | Example Bank") for t in factories.TITLES.values()
    }


def test_a_page_that_is_called_after_the_site_keeps_its_name() -> None:
    titles = [
        "Barclays Rewards Visa | Credit Cards | Barclays",
        "Barclays Platinum Mastercard | Credit Cards | Barclays",
        "Barclays ISA | Savings | Barclays",
        "Welcome to Barclays | Barclays",
        "Offers | The Barclays",
        "Help | barclays.co.uk",
    ]
    site = site_names(titles)
    told = [label_of(Item(title, "/", None, "page_view"), site) for title in titles]
    assert told[:3] == [title.removesuffix(" | Barclays") for title in titles[:3]]
    assert told[4:] == ["Offers", "Help"]
    assert site == {"barclays", "welcome to barclays", "the barclays", "barclays.co.uk"}
    shared = [f"Barclays Private Bank | Page {letter} | Barclays" for letter in "abc"]
    assert site_names(shared) == {"barclays", "barclays private bank"}


def test_empty_sessions_can_be_told() -> None:
    row = factories.session(1, ["/"])
    row["events"] = []
    assert narrate(factories.sessions([row])) == ["(no events)"]
    assert narrate(schema.SESSIONS.empty_table()) == []


# --- sampling


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 120), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_every_cluster_is_drawn_from_and_weights_add_up(sizes: list[int], size: int, seed: int) -> None:
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    sample = stratified(clusters, size, seed=seed)
    assert set(sample.clusters) == set(range(len(sizes)))
    assert len(sample.rows) == len(set(sample.rows)) == max(min(size, sum(sizes)), len(sizes))
    assert (np.diff(sample.rows) > 0).all()
    for c, n in enumerate(sizes):
        assert sample.weights[sample.clusters == c].sum() == pytest.approx(n)


def test_weighted_statistics_of_the_sample_are_unbiased() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat([0, 1, 2], [2000, 300, 20])
    value = clusters * 10.0 + rng.normal(size=len(clusters))
    estimates = []
    for seed in range(200):
        sample = stratified(clusters, 60, seed=seed)
        estimates.append(np.average(value[sample.rows], weights=sample.weights))
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - value.mean()) < 4 * error
    plain = [value[stratified(clusters, 60, seed=s).rows].mean() for s in range(20)]
    assert np.mean(plain) - value.mean() > 0.5  # what the weights undo


def test_clusters_are_found_and_repeatable() -> None:
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(3, 8)) * 10
    truth = np.repeat([0, 1, 2], 50)
    embeddings = centres[truth] + rng.normal(size=(150, 8)) * 0.1
    found = cluster(embeddings, 3, seed=5)
    assert len({(t, f) for t, f in zip(truth, found, strict=True)}) == 3
    np.testing.assert_array_equal(found, cluster(embeddings, 3, seed=5))
    assert cluster(np.ones((6, 4)), 3, seed=1).tolist() == [0] * 6
    with pytest.raises(DataError, match="NaN"):
        cluster(np.full((3, 2), np.nan), 2, seed=1)


# --- the YAML contract


def _printed(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


_words = st.text(min_size=1, max_size=30)
_lines = st.lists(_words.filter(_printed), max_size=3).map(tuple)


@st.composite
def taxonomies(draw: st.DrawFn) -> Taxonomy:
    printed = _words.filter(_printed)
    names = draw(st.lists(printed, min_size=1, max_size=4, unique_by=lambda t: _printed(t).casefold()))
    intents = []
    for n, name in enumerate(names):
        keywords = draw(st.lists(printed, max_size=4, unique_by=_printed))
        weighted = draw(st.booleans()) and keywords
        intents.append(
            Intent(
                id=f"i{n + 1:02d}",
                name=name,
                definition=draw(printed),
                area=draw(st.none() | printed),
                includes=draw(_lines),
                excludes=draw(_lines),
                keywords=tuple(keywords),
                keyword_weights=tuple(draw(st.floats(0.001, 1)) for _ in keywords) if weighted else (),
                examples=draw(_lines),
            )
        )
    source = draw(st.sampled_from(["llm", "keywords", "human"]))
    calibration = draw(st.sampled_from([(), (1.5, 2.0, -3.25)]))
    return Taxonomy(
        version=draw(st.integers(1, 99)),
        source=source,
        model=draw(st.none() | printed),
        calibration=calibration,
        intents=tuple(intents),
    )


@given(taxonomies())
@settings(max_examples=80, deadline=None)
def test_what_is_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, taxonomy: Taxonomy) -> None:
    path = tmp_path_factory.mktemp("yaml") / "taxonomy.yaml"
    taxonomy.save(path)
    loaded = Taxonomy.load(path)
    assert loaded == taxonomy
    before = path.read_bytes()
    loaded.save(path)
    assert path.read_bytes() == before
    assert not diff(taxonomy, loaded)


GOOD = """\
version: 2
source: human
intents:
- id: i01
  name: Mortgage rates
  definition: Compares mortgage rates.
  keywords: [mortgage, rates]
- id: i02
  name: Travel cards
  definition: Looks for a travel card.
  keywords:
    travel: 1
    card: 0.5
"""


def test_a_hand_written_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.yaml"
    path.write_text(GOOD + "approved_at: 2026-03-01T10:00:00\napproved_by: Kim\n")
    taxonomy = Taxonomy.load(path)
    assert taxonomy.version == 2
    assert taxonomy.approved_at == "2026-03-01T10:00:00"
    assert taxonomy.intents[0].weighted_keywords() == {"mortgage": 1.0, "rates": 1.0}
    assert taxonomy.intents[1].weighted_keywords() == {"travel": 1.0, "card": 0.5}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: Travel cards", "nmae: Travel cards", r"line 9: intents\[1\].nmae: unknown key"),
        ("  name: Travel cards\n", "", r"line 8: intents\[1\].name: is required"),
        ("name: Travel cards", "name: mortgage RATES", r"name 'mortgage rates' is given to two"),
        ("id: i02", "id: i01", r"id 'i01' is given to two"),
        ("id: i02", "id: I01", r"line 8: the id 'i01' is given to two"),
        ("id: i02", "id: None", r"line 8: the id 'None' means that no intent fits"),
        ("id: i01", "id: none", r"line 4: the id 'none' means that no intent fits"),
        ("id: i02", "id: 2", r"line 8: intents\[1\].id: must be text \(got 2\); put it in quotes"),
        ("id: i02", "id: 'no spaces'", r"line 8: .*letters, digits"),
        ("name: Travel cards", "name: 401", r"line 9: .*must be text"),
        ("name: Travel cards", "name: ''", r"line 9: .*must not be empty"),
        ("card: 0.5", "card: 5", r"line 13: .*less than or equal to 1"),
        ("card: 0.5", "travel: 0.5", r"line 13: the key 'travel' is there twice"),
        ("source: human", "source: robot", r"line 2: source: .*'llm', 'keywords' or 'human'"),
        ("version: 2", "version: two", r"line 1: version"),
        ("  name: Travel cards", "  name: [Travel", r"line 1\d: not valid YAML"),
        ("name: Travel cards", "name: &a x\n  area: *a", r"line 10: aliases"),
        ("version: 2", "version: 2\napproved_at: 2026-13-01", r"approved_at|month"),
        (GOOD, "- just\n- a list\n", r"line 1"),
        (GOOD, "", r"line 1"),
        ("name: Travel cards", "name: !!python/object:os.system x", r"line 9: not valid YAML"),
    ],
)
def test_mistakes_are_pointed_at(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "taxonomy.yaml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ArtifactError, match=message) as caught:
        Taxonomy.load(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nowhere\.yaml"):
        Taxonomy.load(tmp_path / "nowhere.yaml")


def three() -> Taxonomy:
    intents = [Intent(id=f"i0{n}", name=f"Name {n}", definition=f"Definition {n}.") for n in (1, 2, 3)]
    return Taxonomy(source="llm", intents=tuple(intents))


def test_differences_are_listed() -> None:
    old = three()
    first, second, _ = old.intents
    new = old.revised(
        intents=(
            first.model_copy(update={"name": "Another"}),
            second.model_copy(update={"definition": "Changed.", "includes": ("a", "b")}),
            Intent(id="i04", name="Name 4", definition="New."),
        )
    )
    found = old.diff(new)
    assert [i.id for i in found.added] == ["i04"]
    assert [i.id for i in found.removed] == ["i03"]
    assert [(a.name, b.name) for a, b in found.renamed] == [("Name 1", "Another")]
    assert [b.id for _, b in found.redefined] == ["i02"]
    told = str(found)
    for text in ("+ i04 Name 4", "- i03 Name 3", "Name 1 → Another", "Definition 2.", "Changed.", "a; b"):
        assert text in told
    assert str(diff(old, old)) == "no differences"


def test_versions_and_approval(tmp_path: Path) -> None:
    approved = approve(three(), "  Kim \n Lee ")
    assert approved.approved_by == "Kim Lee"
    assert approved.approved_at is not None
    assert approved.version == 1
    approved.save(tmp_path / "t.yaml")
    assert Taxonomy.load(tmp_path / "t.yaml") == approved
    revised = approved.revised(intents=approved.intents[:2])
    assert (revised.version, revised.approved_by, revised.approved_at) == (2, None, None)
    with pytest.raises(ArtifactError, match="name of who approves"):
        three().approve(" ")
    with pytest.raises(ArtifactError, match="intents"):
        three().revised(intents=())
    broken = three().model_copy(update={"intents": (three().intents[0],) * 2})
    with pytest.raises(ArtifactError, match="given to two"):
        broken.save(tmp_path / "t.yaml")
    assert Taxonomy.load(tmp_path / "t.yaml") == approved  # the old file is untouched


# --- the keyword namer


def config(intents: int = 4) -> Config:
    return Config(
        workspace=Path("unused"),
        taxonomy=TaxonomyConfig(intents=intents),
        labels=LabelsConfig(min_confidence=0.2),
    )


def bags(sessions: pa.Table) -> np.ndarray:
    """Embeddings: which pages, and noise."""
    index = {page: n for n, page in enumerate(factories.TITLES)}
    rng = np.random.default_rng(0)
    out = rng.normal(0, 0.05, (sessions.num_rows, len(index)))
    for row, events in enumerate(sessions["events"].to_pylist()):
        for event in events:
            out[row, index[event["page"]]] += 1 / len(events)
    return out.astype(np.float32)


@pytest.fixture(scope="module")
def themed() -> tuple[pa.Table, np.ndarray, Taxonomy]:
    sessions = factories.themed_sessions(600)
    embeddings = bags(sessions)
    return sessions, embeddings, draft(sessions, embeddings, config(), Path("unused"))


def test_the_namer_finds_the_themes(themed: tuple[pa.Table, np.ndarray, Taxonomy]) -> None:
    sessions, embeddings, taxonomy = themed
    assert taxonomy.source == "keywords"
    assert taxonomy.model is None
    names = {intent.name for intent in taxonomy.intents}
    assert len(names) == 4
    for theme in ("Mortgage", "card", "Certificates of deposit", "Log in"):
        assert sum(theme in name for name in names) == 1
    assert {i.area for i in taxonomy.intents} == {"Mortgage", "Cards", "Savings", "Help"}
    for intent in taxonomy.intents:
        assert intent.definition.startswith("Sessions that mostly ")
        assert intent.examples
        assert "example bank" not in str(intent).casefold()
    assert draft(sessions, embeddings, config(), Path("unused")) == taxonomy

    annotation = annotate(sessions, taxonomy, config(), Path("unused"))
    assert annotation.labels.schema == schema.LABELS
    assert annotation.metrics["sessions"] == 600
    assert annotation.metrics["unanswered"] == 0
    targets = soft_targets(annotation.labels, sessions["session_id"].to_pylist(), taxonomy.intent_ids)
    theme = np.arange(600) % 4
    longer = sessions["n_events"].to_numpy() > 1  # a single view of the home page is of no theme
    for number in range(4):
        best = targets[(theme == number) & longer].argmax(axis=1)
        assert np.bincount(best).max() / len(best) > 0.95
    assert len({int(np.bincount(targets[theme == n].argmax(axis=1)).argmax()) for n in range(4)}) == 4


def test_labels_come_with_evidence_and_do_not_depend_on_the_company(
    themed: tuple[pa.Table, np.ndarray, Taxonomy],
) -> None:
    sessions, _, taxonomy = themed
    together = annotate(sessions, taxonomy, config(), Path("unused")).labels
    seen = {s["session_id"]: {e["title"] for e in s["events"]} for s in sessions.to_pylist()}
    for label in together.to_pylist():
        assert label["evidence"] in seen[label["session_id"]]
        assert 0.2 <= label["confidence"] <= 1
    alone = pa.concat_tables(
        [annotate(sessions.slice(i, 1), taxonomy, config(), Path("unused")).labels for i in range(12)]
    )
    together = together.slice(0, alone.num_rows)
    np.testing.assert_allclose(alone["confidence"].to_numpy(), together["confidence"].to_numpy(), atol=1e-6)
    assert alone.drop("confidence").to_pylist() == together.drop("confidence").to_pylist()


def test_two_topics_give_two_labels_and_none_gives_none(
    themed: tuple[pa.Table, np.ndarray, Taxonomy],
) -> None:
    _, _, taxonomy = themed
    mixed = factories.session(1, ["/mortgage", "/mortgage/rates", "/cards", "/cards/travel"])
    foreign = factories.session(2, ["/zebra", "/giraffe"])
    labels = annotate(factories.sessions([mixed, foreign]), taxonomy, config(), Path("unused"))
    assert set(labels.labels["session_id"].to_pylist()) == {"s000001"}
    found = {
        taxonomy.intents[taxonomy.intent_ids.index(i)].area for i in labels.labels["intent_id"].to_pylist()
    }
    assert found == {"Mortgage", "Cards"}
    assert labels.metrics["none_of_these"] == 1


def test_the_confidence_is_calibrated() -> None:
    """Of the labels of about confidence c, a share of about c is right."""
    rng = np.random.default_rng(4)
    themes = [list(theme) for theme in factories.THEMES]
    truth, rows = rng.integers(0, 4, 3000), []
    for n, theme in enumerate(truth):
        other = themes[rng.integers(0, 4)]
        pages = [
            str(rng.choice(themes[theme] if rng.random() < 0.6 else other)) for _ in range(rng.integers(1, 6))
        ]
        rows.append(factories.session(n, pages))
    sessions = factories.sessions(rows)
    embeddings = np.eye(4, dtype=np.float32)[truth] + rng.normal(0, 0.01, (3000, 4)).astype(np.float32)
    taxonomy = draft(sessions, embeddings, config(), Path("unused"))
    low = config().model_copy(update={"labels": LabelsConfig(min_confidence=0.0)})
    labels = annotate(sessions, taxonomy, low, Path("unused")).labels
    targets = soft_targets(labels, sessions["session_id"].to_pylist(), taxonomy.intent_ids)
    of_theme = [int(targets[truth == n].sum(axis=0).argmax()) for n in range(4)]
    right = np.asarray(of_theme)[truth][:, None] == np.arange(len(taxonomy.intents))
    for at_least, below in ((0.05, 0.35), (0.35, 0.65), (0.65, 1.01)):
        chosen = (targets >= at_least) & (targets < below)
        assert chosen.sum() > 100
        assert right[chosen].mean() == pytest.approx(targets[chosen].mean(), abs=0.12)


def test_rare_words_do_not_get_into_the_taxonomy() -> None:
    rows = [factories.session(i, factories.THEMES[i % 4]) for i in range(400)]
    for i in range(8):  # eight sessions of one and the same visitor
        row: dict[str, Any] = factories.session(400 + i, ["/cards", "/cards"], visitor="only-one")
        row["events"][1]["text"] = "divorce lawyer springfield"
        row["campaign"] = "letter to one person"
        rows.append(row)
    sessions = factories.sessions(rows)
    taxonomy = draft(sessions, bags(sessions), config(), Path("unused"))
    for text in ("divorce", "springfield", "letter"):
        assert text not in taxonomy.to_yaml()


def test_small_inputs() -> None:
    for n in (1, 2, 5):
        sessions = factories.themed_sessions(n)
        taxonomy = draft(sessions, bags(sessions), config(), Path("unused"))
        assert 1 <= len(taxonomy.intents) <= n
        assert annotate(sessions, taxonomy, config(), Path("unused")).metrics["answered"] == n
    same = factories.sessions([factories.session(i, ["/"]) for i in range(30)])
    assert len(draft(same, bags(same), config(), Path("unused")).intents) == 1
    bare = factories.sessions(
        [factories.session(i, ["start", "step_1"][: 1 + i % 2], titles=False) for i in range(30)]
    )
    taxonomy = draft(bare, np.eye(2)[np.arange(30) % 2], config(), Path("unused"))
    assert all(intent.area is None for intent in taxonomy.intents)
    assert any("step 1" in intent.name for intent in taxonomy.intents)
    nothing = schema.SESSIONS.empty_table()
    with pytest.raises(EmptyInputError):
        draft(nothing, np.empty((0, 4)), config(), Path("unused"))
    with pytest.raises(DataError, match="5 embeddings"):
        draft(factories.themed_sessions(4), np.ones((5, 2)), config(), Path("unused"))
    assert annotate(nothing, taxonomy, config(), Path("unused")).labels.num_rows == 0


def test_a_hand_written_taxonomy_labels_too(tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.yaml"
    path.write_text(GOOD)
    sessions = factories.themed_sessions(40)
    labels = annotate(sessions, Taxonomy.load(path), config(), tmp_path).labels.to_pylist()
    by_session: dict[str, set[str]] = {}
    for label in labels:
        by_session.setdefault(label["session_id"], set()).add(label["intent_id"])
    assert by_session["s000001"] == {"i01"}
    assert by_session["s000004"] == {"i02"}
    assert {label["taxonomy_version"] for label in labels} == {2}


# --- soft targets and the student


def labels_table(rows: list[tuple[str, str, float]]) -> pa.Table:
    values = [
        {"session_id": s, "intent_id": i, "confidence": c, "source": "llm", "taxonomy_version": 1}
        for s, i, c in rows
    ]
    return pa.Table.from_pylist(values, schema=schema.LABELS)


def test_soft_targets() -> None:
    table = labels_table([("b", "i02", 0.5), ("a", "i01", 0.25), ("b", "i02", 0.75), ("x", "i01", 1.0)])
    targets = soft_targets(table, ["a", "b", "c"], ["i01", "i02"])
    assert targets.dtype == np.float32
    assert targets.tolist() == [[0.25, 0.0], [0.0, 0.75], [0.0, 0.0]]
    with pytest.raises(DataError, match="'i02'"):
        soft_targets(table, ["a"], ["i01"])


def teacher(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and soft labels that depend on them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(3, 2, (n, 6)).astype(np.float32)
    logits = 2 * (x[:, :3] - 3) - 1
    return x, (1 / (1 + np.exp(-logits))).astype(np.float32)


@pytest.fixture(scope="module")
def student() -> IntentLabeler:
    x, y = teacher(3000)
    return IntentLabeler(StudentConfig(epochs=40), seed=3).fit(x, y, ["a", "b", "c"])


def test_the_student_learns_soft_targets(student: IntentLabeler) -> None:
    x, y = teacher(1000, seed=1)
    found = student.predict_proba(x)
    assert found.dtype == np.float32
    assert found.shape == (1000, 3)
    assert np.abs(found - y).mean() < 0.05  # the confidences, not only the classes
    metrics = student.metrics
    assert metrics["n_train"] == 2100
    assert metrics["n_test"] == 450
    assert metrics["micro_f1_vs_teacher"] > 0.85
    assert metrics["brier"] < 0.01
    assert set(metrics["intents"]) == {"a", "b", "c"}
    present = student.predict(x)
    assert (present == (y >= 0.5)).mean() > 0.9
    np.testing.assert_allclose(student.predict_proba(x[:10]), found[:10], atol=1e-6)


def test_training_is_repeatable() -> None:
    x, y = teacher(300)
    one, two = (
        IntentLabeler(StudentConfig(epochs=3), seed=5).fit(x, y, "abc").predict_proba(x) for _ in range(2)
    )
    other = IntentLabeler(StudentConfig(epochs=3), seed=6).fit(x, y, "abc").predict_proba(x)
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - other).max() > 1e-4


def test_saved_and_loaded_students_are_equal(student: IntentLabeler, tmp_path: Path) -> None:
    x, _ = teacher(50, seed=2)
    student.save(tmp_path / "student")
    loaded = IntentLabeler.load(tmp_path / "student")
    np.testing.assert_array_equal(loaded.predict_proba(x), student.predict_proba(x))
    assert loaded.threshold == student.threshold
    assert loaded.cutoff(0.9) == student.cutoff(0.9)
    assert loaded.intent_ids == ("a", "b", "c")
    assert loaded.metrics == student.metrics
    assert loaded.config == student.config


def test_damaged_students_are_refused(student: IntentLabeler, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="clickintent distill"):
        IntentLabeler.load(tmp_path / "nowhere")
    for name, damage in (
        ("student.safetensors", lambda b: b[: len(b) // 2]),
        ("student.json", lambda b: b[:20]),
        ("student.json", lambda b: b.replace(b'"c"', b'"c", "d"', 1)),
        ("student.json", lambda b: b.replace(b'"format": 3', b'"format": 9')),
    ):
        student.save(tmp_path / "student")
        path = tmp_path / "student" / name
        before = path.read_bytes()
        path.write_bytes(damage(before))
        assert path.read_bytes() != before
        with pytest.raises(ArtifactError, match="not a readable student"):
            IntentLabeler.load(tmp_path / "student")


def test_predicting_needs_no_torch(student: IntentLabeler, tmp_path: Path) -> None:
    student.save(tmp_path / "student")
    x, _ = teacher(20, seed=3)
    np.save(tmp_path / "x.npy", x)
    script = textwrap.dedent(
        """
        import sys
        class Block:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("torch", "openai"):
                    raise ModuleNotFoundError(name, name=name)
        sys.meta_path.insert(0, Block())
        import numpy as np
        from clickintent.errors import MissingDependencyError
        from clickintent.taxonomy import IntentLabeler
        folder, x = sys.argv[1], np.load(sys.argv[2])
        np.save(sys.argv[3], IntentLabeler.load(folder).predict_proba(x))
        try:
            IntentLabeler().fit(x, np.zeros((len(x), 1)), ["a"])
        except MissingDependencyError as error:
            print(error)
        """
    )
    arguments = [str(tmp_path / "student"), str(tmp_path / "x.npy"), str(tmp_path / "out.npy")]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], check=True, capture_output=True, text=True
    )
    assert "clickintent[train]" in done.stdout
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), student.predict_proba(x), atol=1e-6)


@pytest.mark.parametrize("n", [1, 5, 60])
def test_degenerate_students_work(n: int, tmp_path: Path) -> None:
    x, y = teacher(n)
    for targets, ids in ((y, "abc"), (y[:, :1], "a"), (np.zeros_like(y), "abc"), (np.ones_like(y), "abc")):
        student = IntentLabeler(StudentConfig(epochs=2)).fit(x, targets, list(ids))
        found = student.predict_proba(x)
        assert found.shape == targets.shape
        assert np.isfinite(found).all()
        student.save(tmp_path / "student")
        assert IntentLabeler.load(tmp_path / "student").metrics == student.metrics
    assert student.metrics["n_test"] == (9 if n == 60 else 0)
    assert (student.metrics["micro_f1_vs_teacher"] is None) == (n < 40)
    constant = IntentLabeler(StudentConfig(epochs=2)).fit(np.ones((n, 4)), np.full((n, 1), 0.5), ["a"])
    assert np.isfinite(constant.predict_proba(np.full((3, 4), 100.0))).all()


def test_wrong_inputs_are_refused(student: IntentLabeler) -> None:
    x, y = teacher(10)
    for embeddings, targets, ids, message in (
        (x, y, ["a"], "do not fit together"),
        (x[:5], y, ["a", "b", "c"], "do not fit together"),
        (np.full_like(x, np.nan), y, ["a", "b", "c"], "NaN"),
        (x, y + 1, ["a", "b", "c"], "from 0 to 1"),
    ):
        with pytest.raises(DataError, match=message):
            IntentLabeler().fit(embeddings, targets, ids)
    with pytest.raises(EmptyInputError):
        IntentLabeler().fit(np.empty((0, 4)), np.empty((0, 2)), ["a", "b"])
    with pytest.raises(DataError, match="width 6"):
        student.predict_proba(np.ones((2, 7)))
    with pytest.raises(DataError, match="not been trained"):
        IntentLabeler().predict_proba(x)


def test_intents_that_only_a_number_would_tell_apart_are_one(tmp_path: Path) -> None:
    table = factories.themed_sessions(400)
    rng = np.random.default_rng(1)  # vectors that say nothing: every cluster holds the same pages
    found = draft(
        table,
        rng.normal(size=(400, 8)).astype(np.float32),
        Config(workspace=tmp_path, taxonomy=TaxonomyConfig(intents=6)),
        tmp_path,
    )
    assert not any(intent.name.endswith((" (2)", " (3)")) for intent in found.intents)
    assert 1 <= len(found.intents) <= 6
