from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from clickintent.downstream import metrics
from clickintent.downstream.metrics import Estimate, Resamples


def drawn(n: int, replicates: int = 20, clusters: np.ndarray | None = None) -> Resamples:
    return Resamples.draw(n, replicates, 0, clusters)


def scored(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    return truth, rng.dirichlet(np.ones(classes), n)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(8, 80), classes=st.integers(2, 6), seed=st.integers(0, 10**6))
def test_metrics_equal_scikit_learn(n: int, classes: int, seed: int) -> None:
    truth, p = scored(n, classes, seed)
    guess, resamples = p.argmax(axis=1), drawn(n)
    labels = list(range(classes))
    f1 = partial(reference.f1_score, truth, guess, zero_division=0)
    several = {"multi_class": "ovr"} if classes > 2 else {}
    expected = [
        (metrics.accuracy(truth, guess, resamples), f1(average="micro")),
        (metrics.macro_f1(truth, guess, classes, resamples), f1(average="macro")),
        (metrics.micro_f1(truth, guess, 0, resamples), f1(labels=labels[1:], average="micro")),
        (
            metrics.macro_recall(truth, guess, classes, resamples),
            reference.recall_score(truth, guess, average="macro"),
        ),
        (metrics.log_loss(truth, p, resamples), reference.log_loss(truth, p, labels=labels)),
        (metrics.auc(truth == 0, p[:, 0], resamples), reference.roc_auc_score(truth == 0, p[:, 0])),
        (
            metrics.macro_auc(truth, p, resamples),
            reference.roc_auc_score(truth, p if classes > 2 else p[:, 1], **several),
        ),
    ]
    for found, value in expected:
        assert found.value == pytest.approx(value, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(6, 60), levels=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_every_replicate_is_the_metric_of_that_resample(n: int, levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, tied = rng.integers(0, 3, n), rng.integers(0, levels, n) / levels
    clusters = rng.integers(0, max(2, n // 3), n)
    resamples = Resamples.draw(n, 6, seed, clusters)
    area = metrics.auc(truth == 1, tied, resamples)
    f1 = metrics.macro_f1(truth, truth[::-1], 3, resamples)
    for i, counts in enumerate(resamples.counts):
        rows = np.repeat(np.arange(n), counts[resamples.cluster])
        if len(rows) and len(set(truth[rows] == 1)) == 2:
            assert area.replicates[i] == pytest.approx(reference.roc_auc_score(truth[rows] == 1, tied[rows]))
        else:
            assert np.isnan(area.replicates[i])
        if len(rows):
            again = reference.f1_score(truth[rows], truth[::-1][rows], average="macro", zero_division=0)
            assert f1.replicates[i] == pytest.approx(again)


def test_clusters_are_drawn_whole_and_as_many_as_there_are() -> None:
    clusters = np.array(["a", "b", "a", "c", "b", "a"])
    resamples = Resamples.draw(6, 50, 1, clusters)
    weights = np.vstack(list(resamples.rows()))
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 0] == weights[:, 5]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    assert (resamples.counts.sum(axis=1) == 3).all()
    assert np.array_equal(Resamples.draw(6, 50, 1, clusters).counts, resamples.counts)
    assert not np.array_equal(Resamples.draw(6, 50, 2, clusters).counts, resamples.counts)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for i in range(200):  # 40 accounts of 5 rows; each account has its own accuracy, 0.7 on average
        accounts = np.repeat(np.arange(40), 5)
        right = rng.random(200) < np.repeat(rng.beta(7 / 2, 3 / 2, 40), 5)
        found = metrics.accuracy(np.ones(200), right.astype(float), Resamples.draw(200, 200, i, accounts))
        interval = found.interval()
        assert interval["low"] is not None
        assert interval["high"] is not None
        covered += interval["low"] <= 0.7 <= interval["high"]
    assert 0.88 <= covered / 200 <= 0.99


def test_rows_of_one_account_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    accounts = np.repeat(np.arange(40), 10)
    right = np.repeat(rng.random(40) < 0.5, 10).astype(float)

    def width(clusters: np.ndarray | None) -> float:
        found = metrics.accuracy(np.ones(400), right, drawn(400, 300, clusters)).replicates
        return float(found.std())

    assert width(accounts) > 2 * width(None)


def test_a_difference_is_paired() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 300)
    first = np.where(rng.random(300) < 0.8, truth, 1 - truth)
    second = first.copy()
    second[:15] = truth[:15]
    resamples = drawn(300, 300)
    a, b = (metrics.accuracy(truth, guess, resamples) for guess in (first, second))
    difference = b.minus(a)
    assert difference.value == pytest.approx((second == truth).mean() - (first == truth).mean())
    assert difference.replicates.std() < 0.5 * a.replicates.std()
    assert b.percent_over(a).value == pytest.approx(100 * (b.value / a.value - 1))


def test_change_of_log_loss_is_negative_when_it_improves() -> None:
    worse, better = (Estimate(v, np.full(9, v)) for v in (2.0, 1.5))
    assert better.percent_over(worse).value == pytest.approx(-25)


def test_share_of_gain() -> None:
    noise = np.linspace(-0.01, 0.01, 41)
    floor, method, oracle = (Estimate(v, v + noise) for v in (0.5, 0.6, 0.9))
    assert method.share_of_gain(floor, oracle).value == pytest.approx(0.25)
    assert floor.share_of_gain(floor, oracle).value == pytest.approx(0)
    assert oracle.share_of_gain(floor, oracle).value == pytest.approx(1)
    uncertain = Estimate(0.501, 0.501 - 3 * noise)
    assert method.share_of_gain(floor, uncertain).interval() == {"value": None, "low": None, "high": None}


def test_one_class_has_no_auc() -> None:
    found = metrics.auc(np.ones(5, bool), np.arange(5.0), drawn(5)).interval()
    assert found == {"value": None, "low": None, "high": None}
    truth, p = np.zeros(5, int), np.full((5, 2), 0.5)
    assert metrics.macro_auc(truth, p, drawn(5)).interval()["value"] is None


def test_weighted_accuracy() -> None:
    truth, guess = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 1])
    found = metrics.accuracy(truth, guess, drawn(4), np.array([3.0, 1.0, 2.0, 2.0]))
    assert found.value == pytest.approx(0.5)
    equal = metrics.accuracy(truth, guess, drawn(4), np.full(4, 2.5))
    assert np.array_equal(equal.replicates, metrics.accuracy(truth, guess, drawn(4)).replicates)
