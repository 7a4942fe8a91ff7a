"""Gates and agreement: known answers, properties, and the command on a small workspace."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

import factories
from clickintent import pipeline
from clickintent.cli import main
from clickintent.config import Config, GatesConfig, LlmConfig, load_config
from clickintent.errors import DataError, EmptyInputError, WorkspaceError
from clickintent.taxonomy import Intent, Taxonomy, gates
from clickintent.taxonomy.agreement import compare, kappa, krippendorff, masi
from clickintent.taxonomy.sample import within_budget
from llm_server import LlmServer
from test_taxonomy_contract import taxonomy
from workspaces import workspace

# --- agreement


@given(st.integers(0, 10_000), st.integers(5, 60), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_kappa_is_that_of_scikit_learn(seed: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.random((n, k)) < 0.5
    b = np.where(rng.random((n, k)) < 0.7, a, rng.random((n, k)) < 0.5)
    weights = rng.integers(1, 5, n).astype(float)
    found = kappa(a, b, weights[None])[0]
    for j in range(k):
        if len({*a[:, j], *b[:, j]}) == 2 or np.isfinite(found[j]):
            expected = cohen_kappa_score(a[:, j], b[:, j], sample_weight=weights)
            assert found[j] == pytest.approx(expected, abs=1e-9, nan_ok=True)
    # a session of weight three is three sessions
    repeated = np.repeat(np.arange(n), weights.astype(int))
    same = kappa(a[repeated], b[repeated], np.ones((1, len(repeated))))[0]
    np.testing.assert_allclose(found, same, atol=1e-9, equal_nan=True)


def test_distances_of_sets() -> None:
    sets = np.asarray([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]], bool)
    found = masi(sets)
    np.testing.assert_allclose(np.diag(found), 0)
    assert found[0, 1] == 1  # nothing against something
    assert found[1, 2] == pytest.approx(1 - 1 / 2 * 2 / 3)
    assert found[2, 3] == pytest.approx(1 - 1 / 3 * 1 / 3)
    assert found[1, 4] == 1
    np.testing.assert_allclose(found, found.T)


def test_alpha_has_its_known_values() -> None:
    rng = np.random.default_rng(0)
    a = rng.random((4000, 3)) < 0.4
    chance = rng.random((4000, 3)) < 0.4
    ones = np.ones((1, 4000))
    assert krippendorff(a, a, ones)[0] == pytest.approx(1)
    assert abs(krippendorff(a, chance, ones)[0]) < 0.05
    # Krippendorff's nominal example for two coders and ten units: α = 0.095 (one intent: present or not)
    first = np.asarray([[0], [1], [0], [0], [0], [0], [0], [0], [1], [0]], bool)
    second = np.asarray([[1], [1], [1], [0], [0], [1], [0], [0], [0], [0]], bool)
    assert krippendorff(first, second, np.ones((1, 10)))[0] == pytest.approx(0.095, abs=5e-4)


def test_intervals_hold_what_they_should() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random((40_000, 2)) < [0.3, 0.1]
    noisy = truth ^ (rng.random(truth.shape) < 0.1)
    whole = kappa(truth, noisy, np.ones((1, len(truth))))[0]
    inside = 0
    for seed in range(40):
        rows = np.random.default_rng(seed).choice(len(truth), 150, replace=False)
        found = compare(truth[rows], noisy[rows], ["a", "b"], bootstrap=200, seed=seed).intents["a"].kappa
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= whole[0] <= found.high
    assert 33 <= inside <= 40


def test_weights_undo_the_stratification() -> None:
    rng = np.random.default_rng(2)
    strata = np.repeat([0, 1], [9000, 1000])
    truth = (rng.random(10_000) < np.where(strata == 1, 0.5, 0.02))[:, None]
    noisy = truth ^ (rng.random(truth.shape) < np.where(strata == 1, 0.3, 0.01)[:, None])
    whole = kappa(truth, noisy, np.ones((1, 10_000)))[0, 0]
    weighted: list[float | None] = []
    plain: list[float | None] = []
    for seed in range(20):
        draw = np.random.default_rng(seed)
        rows = np.concatenate(
            [draw.choice(9000, 400, replace=False), draw.choice(1000, 400, replace=False) + 9000]
        )
        weights = np.where(strata[rows] == 0, 9000 / 400, 1000 / 400)
        for estimates, w in ((weighted, weights), (plain, None)):
            found = compare(truth[rows], noisy[rows], ["a"], weights=w, strata=strata[rows], bootstrap=2)
            estimates.append(found.intents["a"].kappa.value)
    assert np.mean(np.asarray(weighted, float)) == pytest.approx(whole, abs=0.02)
    assert abs(np.mean(np.asarray(plain, float)) - whole) > 0.05


def test_undefined_agreement_is_none() -> None:
    nothing = np.zeros((4, 2), bool)
    found = compare(nothing, nothing, ["a", "b"], bootstrap=50)
    assert found.mean is None
    assert found.pooled.value is None
    assert found.alpha.value is None
    assert found.as_dict()["intents"]["a"] == {
        "kappa": {"value": None, "low": None, "high": None},
        "both": 0,
        "first": 0,
        "second": 0,
    }
    with pytest.raises(EmptyInputError):
        compare(nothing[:0], nothing[:0], ["a", "b"])
    with pytest.raises(DataError, match="shapes"):
        compare(nothing, nothing[:, :1], ["a", "b"])


# --- gates


def test_other_and_smallest_are_weighted() -> None:
    present = np.asarray([[1, 0], [1, 0], [0, 0], [0, 1]], bool)
    weights = np.asarray([10.0, 10.0, 70.0, 10.0])
    found = gates.other(present, weights, 0.25)
    assert found.value == pytest.approx(0.7)
    assert not found.passed
    least = gates.smallest(present, weights, taxonomy(2), 0.05)
    assert least.value == pytest.approx(0.1)
    assert least.passed
    assert least.worst[0] == "i02 Name 2: 10.00%"


def test_intents_that_come_together_are_named() -> None:
    present = np.zeros((60, 3), bool)
    present[:40, 0] = True
    present[:15, 1] = True
    present[55:, 2] = True  # too few to say
    present[59, 0] = True
    found = gates.together(present, np.ones(60), taxonomy(3), 0.5)
    assert found.value == pytest.approx(1.0)
    assert found.worst[0] == "100% of i02 Name 2 and i01 Name 1"
    assert not any("i03" in line.split(" and ")[0] for line in found.worst)


def test_definitions_that_read_alike_are_named() -> None:
    def intents(*definitions: str) -> Taxonomy:
        made = [Intent(id=f"i{n}", name=f"N{n}", definition=text) for n, text in enumerate(definitions)]
        return Taxonomy(source="human", intents=tuple(made))

    twins = "Compares fixed mortgage rates of several banks"
    found = gates.alike(intents(twins, "Looks for a branch nearby", twins + "."), 0.8)
    assert not found.passed
    assert found.worst[0].endswith("i0 N0 and i2 N2")
    assert gates.alike(intents("Compares mortgage rates", "Looks for a branch", "…"), 0.8).passed


def test_the_same_draft_under_other_numbers_is_stable() -> None:
    rng = np.random.default_rng(3)
    first = np.eye(4)[rng.integers(0, 4, 300)]
    names = (["a", "b", "c", "d"], ["d", "c", "b", "a"])
    same = gates.stability(first, first[:, ::-1], names, 0.5)
    assert same.value == pytest.approx(1)
    assert "4 of 4" in same.meaning
    assert same.worst == ()
    chance = gates.stability(first, np.eye(4)[rng.integers(0, 4, 300)], names, 0.5)
    assert abs(chance.value or 0) < 0.05
    assert not chance.passed
    fewer = gates.stability(first, first[:, :2] + first[:, 2:], (names[0], ["ac", "bd"]), 0.5)
    assert "of 4 intents" in fewer.meaning


def test_two_passes_are_compared_by_intent() -> None:
    rng = np.random.default_rng(4)
    first = rng.random((400, 3)) < [0.4, 0.4, 0.001]
    second = first.copy()
    second[:, 1] = rng.random(400) < 0.4
    found = gates.agreement(first, second, np.ones(400), taxonomy(3), 0.6)
    assert found.value == pytest.approx(0.5, abs=0.06)
    assert "2 of 3 intents" in found.meaning
    assert found.worst[0].startswith("i02 Name 2: κ")
    few = gates.agreement(first[:3], second[:3], np.ones(3), taxonomy(3), 0.6)
    assert few.value is None
    assert not few.passed


# --- the sample's budget


@given(st.integers(20, 400), st.floats(0, 3000))
@settings(max_examples=40, deadline=None)
def test_a_sample_keeps_to_its_budget(size: int, budget: float) -> None:
    clusters = np.repeat([0, 1, 2], [300, 80, 20])
    costs = np.random.default_rng(0).integers(1, 20, 400).astype(float)
    sample = within_budget(clusters, size, budget, lambda rows: costs[rows], seed=1)
    assert len(sample.rows) <= size
    assert set(sample.clusters) == {0, 1, 2}
    assert sample.weights.sum() == pytest.approx(400)
    if len(sample.rows) > 3:
        assert costs[sample.rows].sum() <= budget
    if budget >= 20 * size:
        assert len(sample.rows) == size


# --- the command


def with_toml(folder: Path, **sections: object) -> Config:
    workspace(folder, factories.themed_sessions(240), **sections)
    return load_config(folder.with_suffix(".toml"))


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(str(ended.value.code))


def test_check_shows_numbers_and_fails_by_its_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = with_toml(tmp_path / "w")
    file = str(tmp_path / "w.toml")
    pipeline.draft_taxonomy(config)
    with pytest.raises(WorkspaceError, match="version 1 of the taxonomy has no labels yet"):
        pipeline.check(config)
    pipeline.label(config)
    run("taxonomy", "check", file, "--stability", "--agreement")
    told = capsys.readouterr().out
    lines = {line.split()[1]: line for line in told.splitlines() if line.startswith(("pass", "FAIL"))}
    assert set(lines) == {"other", "together", "alike", "smallest", "stability", "agreement"}
    assert "1.000" in lines["agreement"]  # the keyword namer is a rule
    metrics = json.loads((config.workspace / "metrics.json").read_text())
    assert metrics["gates"]["gates"]["other"]["value"] >= 0
    assert metrics["gates_stability"]["gates"]["stability"]["value"] > 0.5
    assert run("taxonomy", "check", file) == run("taxonomy", "check", file)
    assert "stability" in capsys.readouterr().out

    Path(file).write_text(Path(file).read_text() + "[gates]\nsmallest = 0.9\n")
    assert run("taxonomy", "check", file) == 1
    told = capsys.readouterr().out
    assert "FAIL  smallest" in told
    assert "→ Merge it into a wider one" in told
    assert "stability       —  not measured" in " ".join(told.split("\n"))


def test_check_works_with_a_language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "k")
    with LlmServer() as server:
        llm = LlmConfig(backend="openai", base_url=server.url, model="m", api_key_env="TEST_KEY")
        config = workspace(
            tmp_path / "w", factories.themed_sessions(240), llm=llm, gates=GatesConfig(sessions=60)
        )
        pipeline.draft_taxonomy(config)
        pipeline.label(config)
        before = len(server.requests)
        pipeline.check(config)
        assert len(server.requests) == before  # what labels show costs nothing
        found = pipeline.check(config, stability=True, agreement=True)
        asked = len(server.requests) - before
        assert asked > 0
        assert pipeline.check(config, stability=True, agreement=True) == found
        assert len(server.requests) == before + asked
    assert found["agreement"]["value"] > 0.9
    assert found["stability"]["value"] > 0.3
