"""A language model's taxonomy and labels against the 35 true intents, and what a student makes of them.

The labels come from a run on the first seed's bank (``taxonomy draft`` and ``label`` with any backend). On
the same sessions: the keyword namer, k-means on the embedding, and the ideal reader, who knows the
simulator's tables: nobody who only sees the sessions can agree more with the truth than it does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.optimize import minimize

from clickintent.config import StudentConfig
from clickintent.taxonomy import IntentLabeler, Taxonomy, annotate, draft, soft_targets
from clickintent.taxonomy.calibration import best_of_session, calibrated, summary
from clickintent.taxonomy.distill import split
from clickintent.taxonomy.sample import cluster
from clickintent.taxonomy.student import logits
from labels_data import IDS, LabelData
from labels_quality import agreement

_HALVES, _SAID = 200, 0.2
_ANSWERED = ("labelled", "none_of_these")


def of_llm(data: LabelData, workspace: Path) -> dict[str, Any]:
    """Figures of the labels in ``workspace``, with 95 % intervals.

    Raises:
        SystemExit: if none of the sessions is in the bank.
    """
    taxonomy = Taxonomy.load(workspace / "taxonomy.yaml")
    labels = pq.read_table(workspace / "labels" / "teacher.parquet")
    states = pq.read_table(workspace / "labels" / "annotated.parquet")
    answered = states.filter(pc.is_in(states["state"], value_set=pa.array(_ANSWERED)))["session_id"]
    rows = (
        pc.index_in(answered, value_set=data.sessions["session_id"].combine_chunks()).drop_null().to_numpy()
    )
    if not len(rows):
        raise SystemExit(f"{workspace}: none of its sessions is in the bank of seed {data.seed}")
    sessions = data.sessions.take(rows)
    targets = soft_targets(labels, sessions["session_id"].to_pylist(), taxonomy.intent_ids)
    found: dict[str, Any] = {
        "intents": len(taxonomy.intents),
        "sessions": len(rows),
        "labels_per_session": labels.num_rows / len(rows),
        "states": {
            state: pc.sum(pc.equal(states["state"], state)).as_py() for state in np.unique(states["state"])
        },
    }

    cache, past = data.config.workspace / ".llm", data.sessions.take(data.past)
    drafted = draft(past, data.embeddings[data.past], data.config, cache)
    by_keywords = annotate(sessions, drafted, data.config, cache).labels
    named = soft_targets(by_keywords, sessions["session_id"].to_pylist(), drafted.intent_ids)
    clusters = cluster(data.embeddings, len(IDS), seed=data.seed)
    groups = {
        "language model": _best(targets),
        "keywords": _best(named),
        "k-means": clusters[rows],
        "ideal reader": data.readers["reader"][rows].argmax(axis=1),
    }
    found["on_labelled_sessions"] = _judged(groups, data.main[rows], data.seed)

    student = IntentLabeler(StudentConfig(), seed=data.seed)
    student.fit(data.embeddings[rows], targets, taxonomy.intent_ids)
    test = data.test
    groups = {
        "student of the language model": student.predict_proba(data.embeddings[test]).argmax(axis=1),
        "k-means": clusters[test],
        "ideal reader": data.readers["reader"][test].argmax(axis=1),
    }
    found["after_the_split"] = _judged(groups, data.main[test], data.seed)
    found["calibration"] = _calibrations(data.embeddings[rows], targets, taxonomy.intent_ids)
    return found


def _calibrations(embeddings: np.ndarray, targets: np.ndarray, ids: tuple[str, ...]) -> dict[str, Any]:
    """Students of the labels, calibrated in three ways: labels of 0.2 and more that a session gets, and the
    calibration error of the best intent of each session and of all pairs; means over five splits.
    """
    gathered: dict[str, list[dict[str, float]]] = {}
    for seed in range(1, 6):
        student = IntentLabeler(StudentConfig(learning_curve=False), seed=seed).fit(embeddings, targets, ids)
        rows = split(len(embeddings), seed)
        held, raw = (logits(student.arrays, embeddings[part]) for part in (rows.choose, rows.test))
        best = best_of_session(held, targets[rows.choose])
        ways = {
            "none": raw,
            "one line, of the best intents": _line(*best)(raw),
            "beta, of all intents (default)": calibrated(raw, student.arrays["calibration"]),
        }
        for name, found in ways.items():
            probability, truth = 1 / (1 + np.exp(-found)), targets[rows.test]
            error = summary(probability, truth)
            many = {"labels": float((probability >= _SAID).sum(axis=1).mean())}
            gathered.setdefault(name, []).append({**many, "ece": error["ece"], "ece_all": error["ece_all"]})
    means = {
        name: {key: float(np.mean([one[key] for one in some])) for key in some[0]}
        for name, some in gathered.items()
    }
    return {"labels of the teacher": float((targets >= _SAID).sum(axis=1).mean()), **means}


def _line(logit: np.ndarray, target: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Platt's slope and shift, by cross-entropy."""

    def loss(numbers: np.ndarray) -> float:
        z = logit.astype(np.float64) * np.exp(numbers[0]) + numbers[1]
        return float(np.mean(np.logaddexp(0.0, z) - target * z))

    slope, shift = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=[(-1.6, 1.6), (-2.0, 2.0)]).x
    return lambda z: z * np.exp(slope) + shift


def _best(confidence: np.ndarray) -> np.ndarray:
    """The most confident intent of each session; −1 for none."""
    found: np.ndarray = np.where(confidence.max(axis=1) > 0, confidence.argmax(axis=1), -1)
    return found


def _judged(groups: dict[str, np.ndarray], truth: np.ndarray, seed: int) -> dict[str, Any]:
    """Values, and 95 % intervals from the spread over random halves of the sessions: mutual information of a
    resample with repeats is too high, so no bootstrap.
    """
    rng = np.random.default_rng(seed)
    halves = [rng.permutation(len(truth))[: len(truth) // 2] for _ in range(_HALVES)]
    found = {}
    for name, group in groups.items():
        drawn = [agreement(group[rows], truth[rows]) for rows in halves]
        found[name] = {
            key: _around(value, [one[key] for one in drawn]) for key, value in agreement(group, truth).items()
        }
    return found


def _around(value: float, halves: list[float]) -> dict[str, float]:
    # the difference of a half to the whole varies as much as the whole does
    width = 1.96 * float(np.std(halves))
    return {"value": value, "low": max(value - width, 0.0), "high": min(value + width, 1.0)}
