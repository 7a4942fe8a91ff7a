"""The report as a document: what it says, and that nothing in it comes from elsewhere."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clickintent.report import build, project
from report_factories import NAMES, comparison, interval, metrics, report, result, taxonomy

#: All elements that the template uses.
DRAWN_WITH = set(
    re.findall(
        r"\w+",
        "html head meta title style body header p h1 h2 h3 nav div a main section noscript dl dt dd em ol li "
        "span b small table thead tbody tr th td figure figcaption button i label select option "
        "input details summary svg rect code ul script",
    )
)
VOID = {"meta", "input", "br", "hr", "img", "link"}


class Document(HTMLParser):
    """Checks that elements nest, and collects text and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.blocks: dict[str, str] = {}
        self.text = ""
        self._block = ""
        self.feed(page)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert len(given) == len(attrs), f"an attribute twice in <{tag}>"
        self.elements.append((tag, given))
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag not in VOID:
            self.open.append(tag)
        self._block = str(given.get("id") or tag) if tag in ("script", "style") else ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> does not nest"
        self._block = ""

    def handle_data(self, data: str) -> None:
        if self._block:
            self.blocks[self._block] = self.blocks.get(self._block, "") + data
        else:
            self.text += data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())

    @property
    def specs(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.blocks["chart-specs"])
        return found


def test_it_is_well_formed_and_every_chart_has_its_place() -> None:
    document = Document(build(report()))
    assert len(document.ids) == len(set(document.ids))
    assert set(document.specs) == {
        "reasons",
        "links",
        "time",
        "movers",
        "map",
        "reliability",
        "learning",
        "conversion-scores",
        "conversion-differences",
        "tiles-scores",
        "tiles-differences",
        "lifts",
        "rates",
    }
    charts = {i.removeprefix("chart-") for i in document.ids if i.startswith("chart-")} - {"config", "specs"}
    assert charts == set(document.specs)
    anchors = [a["href"] for tag, a in document.elements if tag == "a"]
    assert len(anchors) >= 8
    assert all(str(href).removeprefix("#") in document.ids for href in anchors)


def test_nothing_is_loaded_and_only_its_own_scripts_may_run() -> None:
    page = build(report())
    document = Document(page)
    policy = next(
        str(a["content"]) for t, a in document.elements if a.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert re.fullmatch(r"'sha256-[\w+/=]+' 'sha256-[\w+/=]+'", rules["script-src"])
    assert re.fullmatch(r"'sha256-[\w+/=]+'", rules["style-src"])
    for tag, attributes in document.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert not {"src", "srcset", "style", "action", "data", "xlink:href"} & set(attributes), (
            tag,
            attributes,
        )
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert str(attributes.get("href") or "#").startswith("#")
    assert "url(" not in document.blocks["style"]
    assert "@import" not in document.blocks["style"]
    assert "http" not in json.dumps(document.specs)
    assert page.count("vegaEmbed=") == 1, "the library is there once"


HOSTILE = (
    "</script><script>document.documentElement.dataset.pwned=1</script>",
    '"><img src=x onerror="document.documentElement.dataset.pwned=2">',
    "<!--<script>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202e\u2028 a\x00b",
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=60)))
def test_whatever_data_says_stays_text(text: str) -> None:
    # Titles reach the page from the configuration, names from the taxonomy, narratives from visitors.
    name = f"x {text}"
    counts = {"read": 1, "events": 0, "duplicates": 0, "quarantined": 1}
    events = {**counts, "by_source": {name: counts}, "quarantine_reasons": {name: 1}}
    data = report(
        9,
        title=name,
        taxonomy=taxonomy((name, *NAMES[1:])),
        narrative=name,
        metrics={"events": events, "conversion": {"skipped": name}},
        outcomes=None,
    )
    document = Document(build(data))
    assert [t for t, _ in document.elements if t == "script"] == ["script"] * 4
    assert {t for t, _ in document.elements} <= DRAWN_WITH
    assert data.taxonomy is not None
    assert {row["intent"] for row in document.specs["map"]["datasets"]["rows"]} >= {
        data.taxonomy.intents[0].name
    }
    assert {row["name"] for row in document.specs["reasons"]["datasets"]["rows"]} == {name}


def test_a_win_a_tie_and_a_loss_are_called_that() -> None:
    def lede(difference: float) -> str:
        sections = metrics(conversion={"kind": "account", **comparison("micro_f1", difference)})
        words = Document(build(report(40, metrics=sections))).words
        return re.sub("\\s", " ", words)

    win = lede(0.05)
    assert "embedding predicts which product, if any, a visitor takes next better than page counts do." in win
    assert "Micro F1 is 0.650 against 0.600: a difference of +0.050, 95 % interval +0.040 to +0.060." in win
    loss = lede(-0.05)
    assert "takes next worse than page counts do." in loss
    assert "0.550 against 0.600: a difference of −0.050, 95 % interval −0.060 to −0.040." in loss
    tie = lede(0.005)
    assert "page counts predict which product, if any, a visitor takes next about equally well." in tie
    assert "a difference of +0.005, 95 % interval −0.005 to +0.015, which includes 0." in tie
    assert "takes next better" not in tie


def test_for_log_loss_less_is_better() -> None:
    words = Document(build(report(40, metrics=metrics(tiles=comparison("log_loss", -0.05))))).words
    assert (
        "The session embedding predicts which homepage tile a visitor taps better than page counts do."
        in words
    )


def test_other_measures_and_the_combination_are_reported_whatever_they_say() -> None:
    values = {"micro_f1": interval(0.6), "auc": interval(0.7), "log_loss": interval(0.3)}
    gap = {"micro_f1": interval(0.05), "auc": interval(-0.05), "log_loss": interval(0.001)}
    conversion = {
        "kind": "account",
        "methods": {
            "page_counts": values,
            "embedding": values | {"difference": gap},
            "embedding_page_counts": values | {"difference": {"micro_f1": interval(-0.03)}},
        },
    }
    words = Document(build(report(40, metrics=metrics(conversion=conversion)))).words
    assert "worse than page counts by AUC; not clearly different from page counts by log loss." in words
    assert "The two together do worse than page counts alone (−0.030" in words


def test_what_can_be_had_for_less_is_said() -> None:
    values = {"prior": 0.59, "page_counts": 0.6, "evening": 0.66, "embedding": 0.65}
    sections = metrics(conversion={"kind": "account"} | result("micro_f1", values, {"embedding": 0.05}))
    words = Document(build(report(40, metrics=sections))).words
    assert "(order, gaps, dwell, time of day) reach 0.660; no features at all, 0.590." in words


def test_oracle_share_of_gain_and_covered_rows_are_shown() -> None:
    conversion = comparison("micro_f1", 0.05)
    conversion["methods"]["embedding"]["share_of_gain"] = {"micro_f1": interval(0.42)}
    conversion["methods"]["llm_labels"] = {"micro_f1": interval(0.58), "coverage": 0.31}
    conversion["oracle"] = {"micro_f1": interval(0.9), "coverage": 1.0}
    conversion["covered"] = comparison("micro_f1", 0.02)
    words = re.sub("\\s", " ", Document(build(report(40, metrics=metrics(conversion=conversion)))).words)
    assert "Share of possible gain" in words
    assert "42 %" in words
    assert "Oracle (true intent)" in words
    assert "LLM labelsknows 31 % of the rows" in words
    assert "The same on only the rows that every method covers" in words


def test_predictions_from_the_first_events_get_lines() -> None:
    conversion = {
        "kind": "in_session",
        "outcome": "confirm",
        **comparison("auc", 0.05),
        "prefixes": {
            "1": {"n": 9, **comparison("auc", -0.002)},
            "2": {"n": 9, **comparison("auc", 0.03)},
            "3": {"n": 9, "skipped": "no session"},
        },
    }
    n = 400
    outcomes = pa.table(
        {"session_id": [f"s{i:04d}" for i in range(n)], "outcome": ["none", "confirm"] * (n // 2)}
    )
    data = report(
        n, metrics=metrics(conversion=conversion, tiles={"skipped": "no [tiles]"}), outcomes=outcomes
    )
    document = Document(build(data))
    assert "whether a session reaches “confirm” from its first 2 events better" in document.words
    assert "the embedding is ahead after 2; not clearly different after 1." in document.words
    assert {row["k"] for row in document.specs["conversion-prefixes"]["datasets"]["rows"]} == {1, 2}
    assert "lifts" not in document.specs, "one outcome needs no grid"
    assert len(document.specs["rates"]["datasets"]["rows"]) == 4
    assert "Not measured: no [tiles]." in document.words


@pytest.mark.parametrize("missing", ["events", "sessions", "taxonomy", "labels", "conversion", "tiles"])
def test_a_missing_section_is_left_out(missing: str) -> None:
    sections = {name: values for name, values in metrics().items() if name != missing}
    document = Document(build(report(40, metrics=sections)))
    assert "None" not in document.words
    assert f"{missing}-scores" not in document.specs


def test_an_empty_run_says_so() -> None:
    nothing = report(0, metrics={}, taxonomy=None, outcomes=None, versions={})
    document = Document(build(nothing))
    assert "No session reached the models." in document.words
    assert document.words.count("Not measured: not evaluated in this run.") == 2
    assert document.specs == {}


@pytest.mark.parametrize("n", [1, 2, 5])
def test_tiny_runs(n: int) -> None:
    document = Document(build(report(n)))
    assert ("1 session on 1 January 2026 was read" if n == 1 else f"{n} sessions") in document.words
    assert "movers" not in document.specs
    assert ("map" in document.specs) == (n > 1)


def test_values_that_are_not_known_do_not_stop_the_report() -> None:
    unknown = {"value": None, "low": None, "high": None}
    conversion = comparison("micro_f1", 0.05)
    conversion["methods"]["embedding"]["auc"] = unknown
    conversion["methods"]["embedding"]["difference"] = {
        "micro_f1": {"value": 0.05, "low": None, "high": None}
    }
    data = report(40, metrics=metrics(conversion=conversion, student={"micro_f1_vs_teacher": float("nan")}))
    words = Document(build(data)).words
    assert (
        "better than page counts do is not known. Micro F1 is 0.650 against 0.600, without an interval."
        in words
    )
    assert "nan" not in words.lower()


def test_how_far_labels_can_be_trusted() -> None:
    page = Document(build(report(40))).words
    assert "On 150 labelled sessions that it was not trained on" in page
    assert "micro F1 of 0.812" in page
    assert "mean distance from it is 0.021" in page
    assert "from 350 to 700 labelled sessions, changed it by +0.022" in page
    assert "not reached" in page
    worst = page[page.index("Told worst") :][:400]
    assert worst.index(NAMES[0]) < worst.index(NAMES[1])
    assert NAMES[2] not in worst, "three sessions tell nothing"


@pytest.mark.parametrize("section", [None, {}, {"micro_f1_vs_teacher": None, "reliability": []}])
def test_an_unmeasured_student_has_no_section(section: object) -> None:
    assert "How far to trust" not in build(report(40, metrics=metrics(student=section)))


def test_the_banner_says_when_no_language_model_named_the_intents() -> None:
    sentence = "No language model was configured: names and definitions below were made from page titles"
    assert sentence not in Document(build(report(40))).words
    sections = metrics(labels={"source": "keywords"}, taxonomy={"source": "keywords"})
    named = report(40, metrics=sections, taxonomy=taxonomy(source="keywords", model=None))
    assert sentence in Document(build(named)).words
    edited = report(40, metrics=sections, taxonomy=taxonomy(source="human", model=None, approved_by="Ada"))
    words = Document(build(edited)).words
    assert sentence not in words
    assert "sessions were labelled by matching the keywords of the taxonomy" in words
    assert "approved by Ada" in words


def test_simulated_data_is_called_simulated() -> None:
    assert "simulated visitors" not in Document(build(report(40))).words
    assert "simulated visitors" in Document(build(report(40, metrics=metrics(simulate={"days": 3})))).words


def test_counts_shares_and_examples_of_intents() -> None:
    document = Document(build(report(400)))
    words = re.sub("\\s", " ", document.words)
    assert (
        "400 sessions from 1 January to 3 February 2026 were read; 50 % can be tied to an account." in words
    )
    assert words.count("25 % 100") == 4, "each intent has a quarter of the sessions"
    assert "Home → Cards 3" in words
    over_time = document.specs["time"]["datasets"]["rows"]
    assert sum(row["n"] for row in over_time) == 400
    assert len({row["t"] for row in over_time}) == 34, "a bin for each day"
    for text in ("1,000", "950", "5.0 % left out"):
        assert text in words


def test_intents_that_rise_are_found() -> None:
    n = 800
    data = report(n)
    late = pa.array(["i1" if i < n // 2 and i % 4 else "i2" for i in range(n)], pa.string())
    rising = report(n, top_intents=data.top_intents.set_column(1, "intent_id", late))
    rows = {row["intent"]: row for row in Document(build(rising)).specs["movers"]["datasets"]["rows"]}
    assert rows["Mortgage rates"]["direction"] == "rises"
    assert rows["Travel card"]["direction"] == "falls"
    assert rows["Mortgage rates"]["early"] == pytest.approx(0.25)
    assert rows["Mortgage rates"]["late"] == pytest.approx(1.0)


def test_lift_is_the_rate_of_an_intent_over_the_rate_of_all() -> None:
    n = 400  # the two known intents i1 and i2: i1 always takes the card, i2 takes it every fourth time
    ids = [f"s{i:04d}" for i in range(n) if i % 4 < 2]
    outcome = ["card" if i % 4 == 0 or i % 16 == 1 else "mortgage" for i in range(n) if i % 4 < 2]
    outcomes = pa.table({"session_id": ids, "outcome": outcome})
    document = Document(build(report(n, outcomes=outcomes)))
    cells = {(c["intent"], c["product"]): c for c in document.specs["lifts"]["datasets"]["rows"]}
    assert cells["Travel card", "card"]["text"] == "1.6×"
    assert cells["Mortgage rates", "card"]["text"] == "0.4×"
    assert cells["Mortgage rates", "mortgage"]["text"] == "2.0×"
    assert cells["Travel card", "mortgage"]["rate"].endswith("(0 of 100 sessions)")


def test_a_method_that_the_report_does_not_know_is_shown() -> None:
    tiles = result("recall_at_1", {"page_counts": 0.3, "my_features": 0.4}, {"my_features": 0.1})
    assert "My features" in Document(build(report(40, metrics=metrics(tiles=tiles)))).words


def test_projection_keeps_groups_together_and_is_repeatable() -> None:
    rng = np.random.default_rng(0)
    group = np.arange(90) % 3
    centres = np.array([[8.0] * 8, [-8.0] * 8, [8.0, -8.0] * 4])
    embeddings = (centres[group] + rng.normal(size=(90, 8))).astype(np.float32)
    found = project(embeddings, seed=3)
    assert found.shape == (90, 2)
    assert found.dtype == np.float32
    assert np.abs(found).max() == pytest.approx(1)
    distance = np.linalg.norm(found[:, None] - found[None], axis=-1) + 9 * np.eye(90)
    assert (group[distance.argmin(axis=1)] == group).all()
    np.testing.assert_array_equal(found, project(embeddings, seed=3))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 12])
def test_projection_of_little(n: int) -> None:
    assert project(np.ones((n, 4), np.float32), seed=1).shape == (n, 2)
    different = project(np.random.default_rng(0).normal(size=(n, 4)), seed=1)
    assert np.isfinite(different).all()
    assert len(np.unique(different, axis=0)) == n
