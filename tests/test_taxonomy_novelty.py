"""New intents: a drift that is there is proposed, one that is not there is not."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import factories
from clickintent import Taxonomy, pipeline
from clickintent.config import Config, NoveltyConfig, SplitConfig, StudentConfig
from clickintent.errors import WorkspaceError
from clickintent.taxonomy import novelty
from clickintent.taxonomy.novelty import Found, propose
from workspaces import bags, workspace

NEW = ("/crypto", "/crypto/wallet", "/crypto/prices")
NOVELTY = NoveltyConfig(min_sessions=20)
WEEKS = 8


def sessions(n: int, new_from_week: int | None, every: int = 6) -> pa.Table:
    """``n`` sessions over eight weeks; from a week on, each ``every``-th is about something new."""
    rows = []
    for i in range(n):
        week = i * WEEKS // n
        new = new_from_week is not None and week >= new_from_week and i % every == 0
        theme = NEW if new else factories.THEMES[i % len(factories.THEMES)]
        pages = [theme[(j + i) % len(theme)] for j in range(2 + i % 3)]
        start = factories.START + week * 7 * factories.DAY + i * factories.MINUTE
        rows.append(factories.session(i, pages, start=start, visitor=f"v{i % 61}"))
    return factories.sessions(rows)


def proposed(table: pa.Table, surest: np.ndarray, **changes: object) -> Found:
    config = NOVELTY.model_copy(update=changes)
    return propose(table, bags(table), surest, ["Travel rewards card"], config, seed=1)


def is_new(table: pa.Table) -> np.ndarray:
    return np.asarray([any(e["page"] in NEW for e in events) for events in table["events"].to_pylist()])


def test_a_new_theme_is_proposed_with_its_evidence() -> None:
    table = sessions(800, new_from_week=5)
    new = is_new(table)
    found = proposed(table, np.where(new, 0.1, 0.9))
    (proposal,) = found.proposals
    assert "crypto" in proposal.name
    assert any("crypto" in word for word in proposal.keywords)
    assert proposal.examples
    evidence = proposal.evidence
    assert evidence.sessions == new.sum() == sum(evidence.weeks.values()) == found.unsure
    assert list(evidence.weeks) == sorted(evidence.weeks)
    assert len(evidence.weeks) == 3
    assert evidence.growth is None
    assert evidence.unsure_share == 1
    assert found.groups == {"proposed": 1}


def test_growth_is_told_by_weeks() -> None:
    table = sessions(800, new_from_week=0)
    new = is_new(table)
    (proposal,) = proposed(table, np.where(new, 0.1, 0.9)).proposals
    assert proposal.evidence.growth == pytest.approx(1, abs=0.2)
    assert len(proposal.evidence.weeks) == WEEKS


def test_doubt_about_known_intents_is_no_new_one() -> None:
    table = sessions(800, new_from_week=None)
    rng = np.random.default_rng(0)
    surest = np.where(rng.random(800) < 0.15, 0.1, 0.9)  # everywhere, not in a place of its own
    found = proposed(table, surest)
    assert found.proposals == ()
    assert set(found.groups) <= {"proposed", "among_known_intents", "too_small"}
    assert sum(found.groups.values()) > 0
    assert proposed(table, np.ones(800)).groups == {}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"min_visitors": 62}, "too_few_people"),
        ({"min_weeks": 9}, "too_few_weeks"),
        ({"unsure_share": 1.0}, "among_known_intents"),
    ],
)
def test_what_is_not_proposed_has_its_reason(changes: dict[str, object], reason: str) -> None:
    table = sessions(800, new_from_week=5)
    surest = np.where(is_new(table), 0.1, 0.9)
    surest[np.flatnonzero(is_new(table))[::10]] = 0.9
    found = proposed(table, surest, **changes)
    assert found.proposals == ()
    assert found.groups == {"proposed": 0, reason: 1}


def drift(folder: Path, new_from_week: int | None) -> Config:
    split = factories.START // 1_000_000 + 4 * 7 * 86_400
    config = workspace(
        folder,
        sessions(800, new_from_week),
        split=SplitConfig(at=dt.datetime.fromtimestamp(split, dt.UTC)),
        novelty=NOVELTY,
        student=StudentConfig(epochs=20),
    )
    with pytest.raises(WorkspaceError, match="taxonomy draft"):
        pipeline.propose(config)
    pipeline.draft_taxonomy(config)
    pipeline.label(config)
    pipeline.distill(config)
    return config


def test_an_intent_that_appears_after_training_is_proposed_and_accepted(tmp_path: Path) -> None:
    config = drift(tmp_path / "w", new_from_week=5)
    assert not any("crypto" in i.name for i in Taxonomy.load(config.workspace / "taxonomy.yaml").intents)
    (proposal,) = pipeline.propose(config).proposals
    assert "crypto" in proposal.name
    assert novelty.load(config.workspace / "proposals.yaml") == (proposal,)
    sure = config.model_copy(update={"labels": config.labels.model_copy(update={"min_precision": 0.9})})
    pipeline.distill(sure)  # which leaves sessions without a label
    assert [p.name for p in pipeline.propose(sure).proposals] == [proposal.name]
    walk = pipeline.review(config, "Kim")
    walk.follow("go p1")
    walk.follow("accept")
    walk.finish()
    counts = pipeline.label(config)["labels"]["relabelled"]
    assert counts["asked"] >= proposal.evidence.sessions
    assert counts["kept"] > 400
    pipeline.distill(config)
    assert pipeline.propose(config).proposals == ()


def test_what_was_dismissed_is_not_proposed_again(tmp_path: Path) -> None:
    config = drift(tmp_path / "w", new_from_week=5)
    pipeline.propose(config)
    walk = pipeline.review(config, "Kim")
    walk.follow("go p1")
    walk.follow("dismiss -- a campaign of one week")
    walk.finish()
    found = pipeline.propose(config)
    assert found.proposals == ()
    assert found.groups["named_like_a_known_one"] == 1


def test_without_drift_nothing_is_proposed(tmp_path: Path) -> None:
    assert pipeline.propose(drift(tmp_path / "w", new_from_week=None)).proposals == ()
