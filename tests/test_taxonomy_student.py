"""Calibration, abstention, the learning curve, and encoder and student as one graph."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import factories
from clickintent import EncoderConfig, SessionEncoder, StudentConfig
from clickintent.errors import ArtifactError, DataError
from clickintent.taxonomy import IntentGraph, IntentLabeler, export_graph
from clickintent.taxonomy.calibration import (
    PRECISIONS,
    best_threshold,
    calibrated,
    calibration_error,
    cutoffs,
    fit,
    reliability,
)
from clickintent.taxonomy.distill import learning_curve, micro_f1


def drawn(n: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, k), and whether each came true."""
    rng = np.random.default_rng(seed)
    probability = rng.beta(0.3, 1.5, (n, k))
    return probability, rng.random((n, k)) < probability


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("shift", [-0.5, 0.0, 1.0])
def test_calibration_undoes_what_was_done_to_the_logits(slope: float, shift: float) -> None:
    probability, came_true = drawn(20_000, 3, 1)
    logits = np.clip(np.log(probability / (1 - probability)), -20, 20)
    found = fit((logits - shift) / slope, came_true)
    np.testing.assert_allclose(found, [slope, slope, shift], rtol=0.1, atol=0.2)


def test_calibration_bends_where_the_two_ends_differ() -> None:
    """Too sure of what is there, not sure enough of what is not: one line cannot mend both."""
    probability, came_true = drawn(40_000, 4, 5)
    logits = np.clip(np.log(probability / (1 - probability)), -20, 20)
    grid = np.linspace(-60, 60, 100_000)
    wrong = np.interp(logits, calibrated(grid, np.array([2.5, 0.4, -0.3])), grid)
    found = 1 / (1 + np.exp(-calibrated(wrong, fit(wrong, came_true))))
    error = calibration_error(reliability(found.ravel(), came_true.ravel()))
    before = calibration_error(reliability(1 / (1 + np.exp(-wrong)).ravel(), came_true.ravel()))
    assert error is not None
    assert before is not None
    assert error < 0.01 < 0.1 < before


def test_the_calibration_error_of_right_and_of_wrong_confidences() -> None:
    probability, came_true = drawn(20_000, 1, 2)
    table = reliability(probability[:, 0], came_true[:, 0])
    assert sum(row["n"] for row in table) == 20_000
    assert [row["confidence"] for row in table] == sorted(row["confidence"] for row in table)
    exact = calibration_error(table)
    assert exact is not None
    assert exact < 0.02
    wrong = calibration_error(reliability(np.clip(probability[:, 0] + 0.2, 0, 1), came_true[:, 0]))
    assert wrong is not None
    assert wrong > 0.1
    assert calibration_error([]) is None


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 60), st.just(3)), elements=st.floats(0, 1, width=32)),
    st.integers(0, 2**32 - 1),
)
def test_the_best_threshold_is_beaten_by_none_and_cutoffs_rise(probability: np.ndarray, seed: int) -> None:
    present = np.random.default_rng(seed).random(probability.shape) < 0.4
    best = micro_f1(probability >= np.float32(best_threshold(probability, present)), present) or 0.0
    for other in np.unique(probability):
        assert best >= (micro_f1(probability >= other, present) or 0.0) - 1e-9
    found = cutoffs(probability, present)
    assert len(found) == len(PRECISIONS)
    assert np.all(np.diff(found[np.isfinite(found)]) >= 0)
    for wanted, cutoff in zip(PRECISIONS, found, strict=True):
        if np.isfinite(cutoff):
            given_ = probability >= cutoff
            assert present[given_].mean() >= wanted - 1e-9
            assert wanted < 1  # no sample shows that labels are always right
            if wanted >= 0.9:
                assert given_.sum() >= 25  # fewer would not show it if all of them were right


def test_cutoffs_keep_what_was_asked_on_new_labels_nine_times_in_ten() -> None:
    kept = []
    for seed in range(40):
        probability, came_true = drawn(300, 3, seed)
        cutoff = cutoffs(probability, came_true)[80]
        new, new_true = drawn(20_000, 3, 1000 + seed)
        kept.append(not np.isfinite(cutoff) or new_true[new >= cutoff].mean() >= 0.8)
    assert np.mean(kept) >= 0.9


def test_a_teacher_that_is_unsure_is_not_taken_for_right() -> None:
    probability = np.repeat(np.linspace(0.1, 0.9, 9), 200)[:, None]
    found = cutoffs(probability, np.full_like(probability, 0.7))
    assert np.isfinite(found[65])
    assert np.isinf(found[75])


def teacher(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings, and labels that depend on them by chance."""
    rng = np.random.default_rng(seed)
    x = rng.normal(3, 2, (n, 6)).astype(np.float32)
    probability = 1 / (1 + np.exp(-2.0 * (x[:, :3] - 4)))
    return x, (rng.random((n, 3)) < probability).astype(np.float32)


@pytest.fixture(scope="module")
def student() -> IntentLabeler:
    x, y = teacher(4000)
    return IntentLabeler(StudentConfig(hidden=16, epochs=15), seed=3).fit(x, y, ["a", "b", "c"])


def test_confidences_hold_on_new_sessions_and_so_do_cutoffs(student: IntentLabeler) -> None:
    x, y = teacher(6000, seed=1)
    found = student.predict_proba(x)
    assert found.min() >= 0
    assert found.max() <= 1
    error = calibration_error(reliability(found.ravel(), y.ravel()))
    assert error is not None
    assert error < 0.03
    shares = []
    for precision in (0.7, 0.9, 0.95):
        kept = found >= student.cutoff(precision)
        assert y[kept].mean() == pytest.approx(precision, abs=0.05) or y[kept].mean() > precision
        shares.append(kept.any(axis=1).mean())
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[-1] > 0
    assert student.cutoff(0.0) <= student.cutoff(0.5)
    with pytest.raises(ValueError, match="from 0 to 1"):
        student.cutoff(1.5)


def test_the_metrics_by_intent_and_by_precision(student: IntentLabeler) -> None:
    metrics = student.metrics
    assert metrics["ece"] < 0.06
    assert sum(row["n"] for row in metrics["reliability"]) == metrics["n_test"] == 600
    assert all(0.4 < slope < 2.5 for slope in metrics["calibration"][:2])
    for figures in metrics["intents"].values():
        assert {"precision", "recall", "f1", "average_precision", "support"} == set(figures)
        assert figures["average_precision"] > 0.7
        both = 2 * figures["precision"] * figures["recall"] / (figures["precision"] + figures["recall"])
        assert figures["f1"] == pytest.approx(both)
    shares = [row["sessions_labelled"] for row in metrics["abstention"]]
    assert shares == sorted(shares, reverse=True)


def test_more_labels_are_better_and_the_last_point_is_the_student(student: IntentLabeler) -> None:
    x, y = teacher(4000)
    curve = learning_curve(x, y, student)
    assert [point["n_train"] for point in curve] == [350, 700, 1400, 2800]
    assert curve[-1]["micro_f1_vs_teacher"] == pytest.approx(student.metrics["micro_f1_vs_teacher"])
    assert curve[-1]["micro_f1_vs_teacher"] > curve[0]["micro_f1_vs_teacher"] - 0.01
    assert learning_curve(x[:20], y[:20], student) == []


# --- one graph


@pytest.fixture(scope="module")
def sessions() -> pa.Table:
    rows = [factories.session(n, factories.THEMES[n % 4] * 3) for n in range(300)]
    for n, row in enumerate(rows):
        row["events"] = row["events"][: n % 13]  # type: ignore[index]
        row["n_events"] = n % 13
    return factories.sessions(rows)


@pytest.fixture(scope="module", params=["gru", "transformer"])
def encoder(request: pytest.FixtureRequest, quick_export: None, sessions: pa.Table) -> SessionEncoder:
    config = EncoderConfig(
        cell=request.param,
        dim=8,
        width=16,
        heads=2,
        epochs=1,
        max_sessions=500,
        text_dim=8,
        text_buckets=64,
        max_events=10,
    )
    return SessionEncoder(config, seed=1).fit(sessions)


def labeler(encoder: SessionEncoder, sessions: pa.Table) -> IntentLabeler:
    vectors = encoder.embed(sessions)
    targets = np.zeros((len(vectors), 4), np.float32)
    targets[np.arange(len(vectors)), np.arange(len(vectors)) % 4] = 1
    return IntentLabeler(StudentConfig(hidden=8, epochs=3)).fit(vectors, targets, ["a", "b", "c", "d"])


def test_one_graph_is_the_two_steps(encoder: SessionEncoder, sessions: pa.Table, tmp_path: Path) -> None:
    student = labeler(encoder, sessions)
    export_graph(encoder, student, tmp_path / "intents.onnx")
    graph = IntentGraph(tmp_path / "intents.onnx", encoder)
    assert graph.intent_ids == student.intent_ids
    assert graph.threshold == student.threshold
    vectors = encoder.embed(sessions)
    expected = student.predict_proba(vectors)
    for workers in (1, 2):
        embedded, found = graph.label(sessions, workers=workers)
        assert found.dtype == np.float32
        np.testing.assert_allclose(embedded, vectors, atol=1e-5)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    for row in range(26):  # every length twice, alone; 0 and more than max_events among them
        _, alone = graph.label(sessions.slice(row, 1))
        np.testing.assert_allclose(alone[0], expected[row], atol=1e-5)
    assert graph.label(sessions.slice(0, 0))[1].shape == (0, 4)


def test_graphs_that_do_not_fit_are_refused(
    encoder: SessionEncoder, sessions: pa.Table, tmp_path: Path
) -> None:
    path = tmp_path / "intents.onnx"
    export_graph(encoder, labeler(encoder, sessions), path)
    other = SessionEncoder(encoder.config, seed=2).fit(sessions)
    with pytest.raises(ArtifactError, match="was made of encoder"):
        IntentGraph(path, other)
    with pytest.raises(ArtifactError, match="clickintent distill"):
        IntentGraph(tmp_path / "nowhere.onnx", encoder)
    path.write_bytes(encoder.onnx)
    with pytest.raises(ArtifactError, match="not a readable graph"):
        IntentGraph(path, encoder)
    x, y = teacher(50)
    narrow = IntentLabeler(StudentConfig(epochs=1)).fit(x, y, ["a", "b", "c"])
    with pytest.raises(DataError, match="width 6"):
        export_graph(encoder, narrow, path)


def test_running_the_graph_needs_neither_torch_nor_onnx(
    encoder: SessionEncoder, sessions: pa.Table, tmp_path: Path
) -> None:
    student = labeler(encoder, sessions)
    encoder.save(tmp_path / "encoder")
    export_graph(encoder, student, tmp_path / "intents.onnx")
    pq.write_table(sessions, tmp_path / "sessions.parquet")
    script = textwrap.dedent(
        """
        import sys
        class Block:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("torch", "onnx", "openai"):
                    raise ModuleNotFoundError(name, name=name)
        sys.meta_path.insert(0, Block())
        import numpy as np, pyarrow.parquet as pq
        from clickintent import SessionEncoder
        from clickintent.taxonomy import IntentGraph
        graph = IntentGraph("intents.onnx", SessionEncoder.load("encoder"))
        np.save("out.npy", graph.label(pq.read_table("sessions.parquet"))[1])
        """
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    expected = student.predict_proba(encoder.embed(sessions))
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-5)
