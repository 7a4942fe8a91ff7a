"""The evaluation finds what is there, and nothing where nothing is."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from clickintent.downstream import (
    FeatureSet,
    Oracle,
    Slates,
    Split,
    evaluate_conversion,
    evaluate_prefixes,
    evaluate_tiles,
    temporal_split,
)
from clickintent.downstream.conversion import best_threshold, decide
from clickintent.downstream.head import Task, fit_and_predict
from clickintent.downstream.metrics import Resamples, micro_f1
from clickintent.downstream.tiles import position_and_popularity
from clickintent.errors import ConfigError
from factories import MINUTE, START, session, sessions

PRODUCTS = np.array(["none", "card", "loan", "save"])
N = 1600


def world(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intents of N sessions, the probabilities of the outcomes, and the outcomes."""
    rng = np.random.default_rng(seed)
    intent = rng.integers(0, 4, N)
    p = np.full((4, 4), 0.05)
    p[:, 0] = 0.25
    p[np.arange(4), np.arange(4)] += 0.6
    p /= p.sum(axis=1, keepdims=True)
    drawn = (rng.random((N, 1)) > p[intent].cumsum(axis=1)).sum(axis=1)
    return intent, p[intent], drawn


def features(intent: np.ndarray, seed: int = 1) -> dict[str, FeatureSet]:
    """Page counts know half of the intents, the embedding knows all, noise none."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(1.0, (len(intent), 6)) + 4 * (intent[:, None] == 1) * (np.arange(6) == 2)
    embedding = np.eye(4)[intent] @ rng.normal(size=(4, 8)) + rng.normal(0, 0.3, (len(intent), 8))
    return {
        "page_counts": FeatureSet.of("page_counts", sparse.csr_matrix(counts.astype(np.float32))),
        "embedding": FeatureSet.of("embedding", embedding.astype(np.float32)),
        "noise": FeatureSet.of("noise", rng.normal(size=(len(intent), 8)).astype(np.float32)),
    }


def measured(**changes: Any) -> dict[str, Any]:
    intent, p, drawn = world()
    arguments: dict[str, Any] = {
        "features": features(intent),
        "labels": PRODUCTS[drawn],
        "split": temporal_split(np.arange(N)),
        "seed": 7,
        "bootstrap": 100,
        "oracle": Oracle(list(PRODUCTS), p),
        "clusters": np.arange(N) // 3,
    } | changes
    return evaluate_conversion(**arguments)


@pytest.fixture(scope="module")
def conversion() -> dict[str, Any]:
    return measured()


def test_conversion_orders_methods_by_what_they_know(conversion: dict[str, Any]) -> None:
    methods = conversion["methods"]
    assert set(methods) == {"prior", "page_counts", "embedding", "noise"}
    for metric in ("auc", "micro_f1", "micro_f1_products"):
        assert methods["page_counts"][metric]["value"] < methods["embedding"][metric]["value"]
        assert methods["embedding"][metric]["low"] <= conversion["oracle"][metric]["value"] + 0.03
    assert methods["embedding"]["log_loss"]["value"] < methods["page_counts"]["log_loss"]["value"]
    assert methods["embedding"]["difference"]["auc"]["low"] > 0
    assert methods["embedding"]["change_percent"]["log_loss"]["high"] < 0
    assert "difference" not in methods["page_counts"]
    for metric in ("auc", "log_loss"):
        share = methods["embedding"]["share_of_gain"][metric]
        assert 0.7 < share["value"] <= 1.05
        assert share["low"] < share["value"] < share["high"]
        assert abs(methods["noise"]["share_of_gain"][metric]["value"]) < 0.08
    assert methods["prior"]["auc"]["value"] == 0.5
    assert conversion["n_test"] == sum(conversion["classes"].values())


def test_results_are_plain_json_and_the_same_again(conversion: dict[str, Any]) -> None:
    text = json.dumps(conversion, allow_nan=False)
    assert json.dumps(measured(), allow_nan=False) == text


def test_intervals_hold_their_value(conversion: dict[str, Any]) -> None:
    for method in conversion["methods"].values():
        for metric in ("micro_f1", "micro_f1_products", "macro_f1", "log_loss", "auc"):
            found = method[metric]
            assert found["low"] <= found["value"] <= found["high"]


def test_shuffled_labels_teach_nothing() -> None:
    _, _, drawn = world()
    shuffled = np.random.default_rng(5).permutation(drawn)
    for labels in (PRODUCTS[shuffled], shuffled > 1):
        found = measured(labels=labels, oracle=None)["methods"]
        for name in ("page_counts", "embedding"):
            assert abs(found[name]["auc"]["value"] - 0.5) < 0.06
            assert found[name]["log_loss"]["value"] > found["prior"]["log_loss"]["value"] - 0.02


def test_predictions_do_not_depend_on_test_labels() -> None:
    intent, _, drawn = world()
    split = temporal_split(np.arange(N))
    train, test = np.flatnonzero(split.train), np.flatnonzero(split.test)
    changed = drawn.copy()
    changed[test] = np.random.default_rng(0).permutation(drawn[test])
    offset = np.zeros((N, 4))
    matrix = features(intent)["embedding"].matrix
    first, second = (
        fit_and_predict(matrix, Task(target, offset, train, 7), test) for target in (drawn, changed)
    )
    assert np.array_equal(first.test, second.test)
    assert first.rounds == second.rounds > 0


def test_rounds_are_chosen_on_the_last_training_rows_in_time() -> None:
    """Rows in any order, with their times, give what rows in the order of time give."""
    intent, _, drawn = world()
    order = np.random.default_rng(0).permutation(N)
    split = temporal_split(np.arange(N))
    sets = {"embedding": features(intent)["embedding"]}
    mixed = {"embedding": sets["embedding"].take(order)}
    same: dict[str, Any] = {"seed": 7, "bootstrap": 50}
    sorted_ = evaluate_conversion(sets, PRODUCTS[drawn], split, **same)
    unsorted = evaluate_conversion(mixed, PRODUCTS[drawn][order], split.within(order), times=order, **same)
    values = [r["methods"]["embedding"]["log_loss"]["value"] for r in (sorted_, unsorted)]
    assert values[0] == pytest.approx(values[1], abs=1e-9)


def test_binary_labels_report_the_auc_of_the_outcome() -> None:
    _, p, drawn = world()
    outcome = drawn == 1
    oracle = Oracle(["none", "converted"], np.column_stack([1 - p[:, 1], p[:, 1]]))
    found = measured(labels=outcome, oracle=oracle)
    assert found["classes"].keys() == {"none", "converted"}
    assert found["methods"]["page_counts"]["auc"]["value"] > 0.65  # card is what page counts know
    assert found["methods"]["embedding"]["share_of_gain"]["auc"]["value"] > 0.7


def test_methods_with_gaps_are_compared_on_what_they_cover() -> None:
    intent, _, _ = world()
    sets = features(intent)
    gaps = np.eye(4, dtype=np.float32)[intent]
    gaps[np.random.default_rng(0).random(N) < 0.6] = np.nan
    found = measured(features=sets | {"llm_labels": FeatureSet.of("llm_labels", gaps)})
    coverage = found["methods"]["llm_labels"]["coverage"]
    assert 0.35 < coverage < 0.45
    part = found["covered"]
    assert part["n_test"] < 0.5 * found["n_test"]
    gain = [r["methods"]["llm_labels"]["share_of_gain"]["auc"]["value"] for r in (found, part)]
    assert gain[0] < 0.75 < gain[1]
    assert "covered" not in measured()


def test_a_class_that_only_the_test_has_is_missed_not_fatal() -> None:
    _, _, drawn = world()
    labels = PRODUCTS[drawn].astype(object)
    labels[-40:] = "brand new"
    found = measured(labels=labels)
    assert found["classes"]["brand new"] == 40
    assert found["methods"]["embedding"]["auc"]["value"] > 0.6


def test_an_oracle_that_knows_too_few_rows_is_not_used() -> None:
    _, p, _ = world()
    partial = np.where(np.arange(N)[:, None] % 2, p, np.nan)
    found = measured(oracle=Oracle(list(PRODUCTS), partial))
    assert "50%" in found["oracle"]["skipped"]
    assert "share_of_gain" not in found["methods"]["embedding"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"labels": np.full(N, "none")}, "all labels before the split are 'none'"),
        ({"split": Split(np.arange(N) < 9, np.arange(N) > 9, 0)}, "only 9 labelled rows"),
        ({"split": Split(np.arange(N) < 900, np.zeros(N, bool), 0)}, "no labelled row after the split"),
    ],
)
def test_what_cannot_be_measured_says_why(changes: dict[str, Any], why: str) -> None:
    assert why in measured(**changes)["skipped"]


def test_few_rows_are_enough_to_run() -> None:
    few = Split(np.arange(N) < 40, (np.arange(N) >= 40) & (np.arange(N) < 43), 0)
    assert measured(split=few)["n_test"] == 3


def test_the_threshold_maximises_micro_f1_of_products() -> None:
    rng = np.random.default_rng(0)
    truth, p = rng.choice(4, 60, p=[0.7, 0.1, 0.1, 0.1]), rng.dirichlet([4, 1, 1, 1], 60)
    resamples = Resamples.draw(60, 1, 0)

    def reached(threshold: float) -> float:
        return micro_f1(truth, decide(p, threshold), 0, resamples).value

    assert reached(best_threshold(truth, p)) == pytest.approx(max(reached(t) for t in 1 - p[:, 0]))
    assert best_threshold(np.zeros(60, int), p) == 0.5


TILES = 6
EFFECT = np.log([1.0, 0.6, 0.4, 0.3])
POPULARITY = np.array([0.8, 0.4, 0.0, 0.0, -0.4, -0.8])


def slates(
    n: int = 2400, seed: int = 0, taste: float = 1.5
) -> tuple[Slates, np.ndarray, np.ndarray, np.ndarray]:
    """Slates of 4 of 6 tiles: good tiles are shown on top more often. And session, intent, true p."""
    rng = np.random.default_rng(seed)
    intent = rng.integers(0, 4, n)
    utility = rng.normal(0, taste, (4, TILES))
    position = np.full((n, TILES), -1, np.int32)
    propensity = np.full((n, TILES), np.nan)
    ranked = np.argsort(-POPULARITY)
    for i in range(n):
        chosen = ranked[:4] if rng.random() < 0.5 else rng.permutation(TILES)[:4]
        position[i, chosen] = np.arange(4)
    for tile in range(TILES):
        for place in range(4):
            here = position[:, tile] == place
            propensity[here, tile] = 0.5 * (ranked[place] == tile) + 0.5 / TILES
    effect = np.where(position >= 0, EFFECT[position], -np.inf)
    p = np.exp(effect + POPULARITY + utility[intent])
    p /= p.sum(axis=1, keepdims=True)
    clicked = (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1)
    clicked[::10] = -1
    names = tuple(f"tile {i}" for i in range(TILES))
    ids = np.array([f"s{i:05d}" for i in range(n)])
    accounts = np.array([f"a{i % (n // 3)}" for i in range(n)])
    made = Slates(ids, accounts, START + np.arange(n) * MINUTE, names, position, propensity, clicked)
    index = np.arange(n)
    index[::7] = -1
    return made, index, intent, p


@pytest.fixture(scope="module")
def tiles() -> dict[str, Any]:
    made, index, intent, p = slates()
    split = temporal_split(made.ts)
    return evaluate_tiles(made, index, features(intent), split, seed=7, bootstrap=100, oracle=p)


def test_tiles_order_methods_by_what_they_know(tiles: dict[str, Any]) -> None:
    methods = tiles["methods"]
    assert set(methods) == {"popularity", "page_counts", "embedding", "noise"}
    recall = {name: m["macro_recall_at_1"]["value"] for name, m in methods.items()}
    assert recall["popularity"] < recall["page_counts"] < recall["embedding"]
    assert methods["embedding"]["change_percent"]["macro_recall_at_1"]["low"] > 0
    assert methods["embedding"]["change_percent"]["log_loss"]["high"] < 0
    debiased = {name: m["debiased_recall_at_1"] for name, m in methods.items()}
    assert debiased["popularity"]["high"] < debiased["embedding"]["low"]
    share = methods["embedding"]["share_of_gain"]["log_loss"]
    assert 0.6 < share["low"] < share["high"] < 1.1
    assert abs(methods["noise"]["share_of_gain"]["log_loss"]["value"]) < 0.1
    assert tiles["oracle"]["log_loss"]["value"] < methods["embedding"]["log_loss"]["value"]
    json.dumps(tiles, allow_nan=False)


def test_tiles_count_what_they_leave_out(tiles: dict[str, Any]) -> None:
    counts = tiles["slates"]
    assert counts["slates"] == 2400
    assert counts["with_click"] == 2160
    assert counts["with_click_and_session"] == counts["train"] + counts["test"]
    assert sum(tiles["tiles"].values()) == counts["test"] == tiles["n_test"]


def test_tile_methods_with_gaps_are_compared_on_what_they_cover() -> None:
    made, index, intent, _ = slates(900)
    gaps = np.eye(4, dtype=np.float32)[intent]
    gaps[::2] = np.nan
    sets = {"page_counts": features(intent)["page_counts"], "llm_labels": FeatureSet.of("llm_labels", gaps)}
    found = evaluate_tiles(made, index, sets, temporal_split(made.ts), seed=7, bootstrap=50)
    part = found["covered"]
    covered = (index >= 0) & (made.clicked >= 0) & (np.arange(900) % 2 == 1)
    assert part["n_train"] + part["n_test"] == covered.sum()
    assert found["methods"]["llm_labels"]["coverage"] == pytest.approx(
        covered.sum() / (found["n_train"] + found["n_test"])
    )
    assert part["methods"]["llm_labels"]["coverage"] == 1


def test_position_and_popularity_are_told_apart() -> None:
    made, _, _, _ = slates(20_000, seed=3, taste=0.0)
    effect, popularity = position_and_popularity(made, np.ones(20_000, bool))
    assert effect == pytest.approx(EFFECT, abs=0.12)
    assert popularity == pytest.approx(POPULARITY - POPULARITY.mean(), abs=0.12)


def test_tiles_of_shuffled_clicks_gain_nothing() -> None:
    made, index, intent, _ = slates(taste=0.0)
    found = evaluate_tiles(made, index, features(intent), temporal_split(made.ts), seed=7, bootstrap=50)
    floor = found["methods"]["popularity"]["log_loss"]["value"]
    for method in found["methods"].values():
        assert method["log_loss"]["value"] > floor - 0.02


def test_the_click_of_a_test_slate_is_not_seen() -> None:
    """Other clicks after the split change what is measured, not the position effects or the floor's model."""
    made, _, _, _ = slates()
    split = temporal_split(made.ts)
    before = position_and_popularity(made, split.train)
    changed = made.clicked.copy()
    changed[split.test] = made.shown[split.test].argmax(axis=1)
    other = Slates(
        *(getattr(made, f) for f in ("slate_id", "account", "ts", "tiles", "position", "propensity")), changed
    )
    after = position_and_popularity(other, split.train)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_tiles_without_sessions_or_clicks_say_so() -> None:
    made, index, intent, _ = slates(200)
    split = temporal_split(made.ts)
    found = evaluate_tiles(made, np.full(200, -1), features(intent), split, seed=7, bootstrap=50)
    assert "0 slates with a click" in found["skipped"]
    later = temporal_split(made.ts, int(made.ts[-1]) + 1)
    assert (
        "0 to test on"
        in evaluate_tiles(made, index, features(intent), later, seed=7, bootstrap=50)["skipped"]
    )


def steps(n: int = 700) -> pa.Table:
    """Sessions that mostly reach /done if their second page is /form, whatever the first is."""
    rng = np.random.default_rng(2)
    rows = []
    for i in range(n):
        keen = rng.random() < 0.5
        pages = ["/", "/form" if keen else "/help", *rng.choice(["/", "/help"], rng.integers(0, 3))]
        if rng.random() < (0.85 if keen else 0.15):
            pages.append("/done")
        rows.append(session(i, [str(p) for p in pages], start=START + i * 30 * MINUTE))
    return sessions(rows)


def test_prefixes_see_only_the_first_events() -> None:
    table = steps()
    seen: list[pa.Table] = []

    def features_of(cut: pa.Table) -> dict[str, np.ndarray]:
        seen.append(cut)
        return {"embedding": np.ones((cut.num_rows, 2), np.float32)}

    at = START + 490 * 30 * MINUTE
    found = evaluate_prefixes(
        table, features_of, prefixes=(1, 2, 9), at=at, seed=7, bootstrap=50, page="/done"
    )
    assert found["outcome"] == "/done"
    first, second, ninth = (found["prefixes"][k] for k in ("1", "2", "9"))
    assert "skipped" in ninth
    for k, cut in zip((1, 2), seen, strict=True):
        assert set(cut["n_events"].to_pylist()) == {k}
        assert all(len(e) == k and e[-1]["dwell_s"] is None for e in cut["events"].to_pylist())
        assert all(event["page"] != "/done" for e in cut["events"].to_pylist() for event in e)
    assert set(second["methods"]) >= {"prior", "page_counts", "embedding", "embedding_page_counts", "evening"}
    for name in ("page_counts", "evening", "embedding_page_counts"):
        assert second["methods"][name]["auc"]["low"] > 0.7
        assert first["methods"][name]["auc"]["value"] < 0.62  # the first page says nothing
    assert second["methods"]["embedding"]["auc"]["value"] == 0.5  # a constant one neither
    assert second["n"] == table.num_rows
    assert second["reached"] == sum(e[-1]["page"] == "/done" for e in table["events"].to_pylist())


def test_sessions_that_have_reached_the_outcome_are_left_out() -> None:
    rows = [session(i, ["/done", "/", "/done"] if i % 2 else ["/", "/", "/done"]) for i in range(80)]
    found = evaluate_prefixes(
        sessions(rows),
        lambda _: {},
        prefixes=(1,),
        at=START + 60 * MINUTE,
        seed=7,
        bootstrap=50,
        page="/done",
    )["prefixes"]["1"]
    assert found["n"] == found["reached"] == 40
    assert "converted" in found["skipped"]


def test_the_outcome_may_be_an_event_type() -> None:
    plain = session(0, ["/", "/a", "/b"])
    bought = session(1, ["/", "/a", "/b"])
    bought["events"][2]["event_type"] = "purchase"  # type: ignore[index]
    found = evaluate_prefixes(
        sessions([plain, bought]),
        lambda _: {},
        prefixes=(2,),
        at=START + 30_000_000,
        seed=7,
        bootstrap=50,
        event_type="purchase",
    )["prefixes"]["2"]
    assert (found["n"], found["reached"]) == (2, 1)
    with pytest.raises(ConfigError):
        evaluate_prefixes(steps(5), lambda _: {}, prefixes=(1,), at=START, seed=7, bootstrap=50)
