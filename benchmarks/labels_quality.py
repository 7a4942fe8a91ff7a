"""How good the student's labels are, of one simulated bank: estimates by name, for ``labels.py``.

An estimate is measured on all test rows and on bootstrap resamples of their visitors. Decisions are made by
thresholds chosen on the past: the student's by itself, a teacher's and a rival's for the best micro F1 there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.metrics import normalized_mutual_info_score

from clickintent.config import StudentConfig
from clickintent.downstream.metrics import Estimate, Resamples
from clickintent.taxonomy import IntentLabeler, annotate, draft, soft_targets
from clickintent.taxonomy.calibration import best_of_session, best_threshold, summary
from clickintent.taxonomy.distill import split, teacher_labels
from clickintent.taxonomy.sample import cluster
from labels_data import IDS, LabelData, noisy
from labels_rivals import RIVALS

RESAMPLES = 300
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
PRECISIONS = (0.7, 0.8, 0.9)
Estimates = dict[str, Estimate]


def student_of(data: LabelData, targets: np.ndarray, config: StudentConfig | None = None) -> IntentLabeler:
    """A student of a teacher's confidences (n, 35) of the past's sessions."""
    student = IntentLabeler(config, seed=data.seed)
    return student.fit(data.embeddings[data.past], targets[data.past], IDS)


class Judge:
    """Micro F1 against the truth on the test rows."""

    def __init__(self, data: LabelData) -> None:
        self.truth = data.truth[data.test] > 0
        self.resamples = Resamples.draw(len(data.test), RESAMPLES, data.seed, data.visitors)

    def f1(self, given: np.ndarray) -> Estimate:
        """Of labels (test rows, 35)."""
        sums = np.column_stack(
            [2 * (given & self.truth).sum(axis=1), given.sum(axis=1) + self.truth.sum(axis=1)]
        )
        whole, drawn = sums.sum(axis=0), self.resamples.sums(sums)
        return Estimate(float(whole[0] / whole[1]), drawn[:, 0] / drawn[:, 1])


def ratio(a: Estimate, b: Estimate) -> Estimate:
    return Estimate(a.value / b.value, a.replicates / b.replicates)


def students(data: LabelData) -> tuple[Estimates, dict[str, Any]]:
    """The student of four teachers: the truth itself, the ideal reader, and worse copies of both."""
    judge, found = Judge(data), {}
    teachers = {
        "truth": data.truth,
        "reader": data.readers["reader"],
        "noisy truth": noisy(data.truth, data.seed),
        "noisy reader": noisy(data.readers["reader"], data.seed),
    }
    details: dict[str, Any] = {}
    for name, targets in teachers.items():
        if name == "truth":
            teacher = as_labels = judge.f1(judge.truth)
        else:
            chosen = best_threshold(targets[data.past], data.truth[data.past] > 0)
            teacher = judge.f1(targets[data.test] >= chosen)
            as_labels = judge.f1(teacher_labels(targets[data.test]))
        student = student_of(data, targets)
        probability = student.predict_proba(data.embeddings[data.test])
        f1 = judge.f1(probability >= student.threshold)
        calibrated = summary(probability, judge.truth)
        found |= {
            f"{name}: teacher f1": teacher,
            f"{name}: teacher f1, labels of at least 0.5": as_labels,
            f"{name}: student f1": f1,
            f"{name}: student f1, threshold 0.5 (paper)": judge.f1(probability >= 0.5),
            f"{name}: kept": ratio(f1, teacher),
            f"{name}: kept of labels of at least 0.5": ratio(f1, as_labels),
            f"{name}: gain": f1.minus(teacher),
            f"{name}: ece": _plain(calibrated["ece"]),
            f"{name}: ece of all pairs": _plain(calibrated["ece_all"]),
        }
        if name == "reader":
            confidence, right = best_of_session(targets[data.test], judge.truth)
            found["reader: its own ece"] = _plain(float(abs(confidence.mean() - right.mean())))
            events = data.readers["reader_of_events"]
            chosen = best_threshold(events[data.past], data.truth[data.past] > 0)
            ceiling = judge.f1(events[data.test] >= chosen)
            found["reader of events alone: f1"] = ceiling
            found["reader: kept of a reader of events alone"] = ratio(f1, ceiling)
            details = _details(student, probability, judge.truth) | {"reliability": calibrated["reliability"]}
            for precision in PRECISIONS:
                given = probability >= student.cutoff(precision)
                found[f"reader: precision where {precision} was asked"] = _plain(
                    float(judge.truth[given].mean())
                )
                found[f"reader: labelled where {precision} was asked"] = _plain(
                    float(given.any(axis=1).mean())
                )
    return found, details


def _details(student: IntentLabeler, probability: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    given = probability >= student.threshold
    right, there = (given & truth).sum(axis=0), truth.sum(axis=0)
    return {
        "intents": {
            name: {
                "precision": float(right[i] / max(given[:, i].sum(), 1)),
                "recall": float(right[i] / max(there[i], 1)),
                "f1": float(2 * right[i] / max(given[:, i].sum() + there[i], 1)),
                "support": int(there[i]),
            }
            for i, name in enumerate(IDS)
        }
    }


def curve(data: LabelData) -> Estimates:
    """The ideal reader's student by the number of labelled sessions of the past."""
    judge, found = Judge(data), {}
    targets = data.readers["reader"]
    order = np.random.default_rng(data.seed).permutation(data.past)
    for share in SHARES:
        rows = order[: int(share * len(order))]
        student = IntentLabeler(seed=data.seed).fit(data.embeddings[rows], targets[rows], IDS)
        probability = student.predict_proba(data.embeddings[data.test])
        found[f"student of {share:g} of the past"] = judge.f1(probability >= student.threshold)
    last, before = (found[f"student of {share:g} of the past"] for share in SHARES[:-3:-1])
    found["last doubling"] = last.minus(before)
    return found


def rivals(data: LabelData) -> Estimates:
    """Others that learn from the ideal reader's confidences; thresholds by those on the past, as ours."""
    judge, found = Judge(data), {}
    targets = data.readers["reader"]
    held = targets[data.past[split(len(data.past), data.seed).choose]]
    student = student_of(data, targets)
    ours = judge.f1(student.predict_proba(data.embeddings[data.test]) >= student.threshold)
    for name, fit in RIVALS.items():
        chosen, probability = fit(data, targets)
        f1 = judge.f1(probability >= best_threshold(chosen, held))
        found[f"{name}: f1"] = f1
        found[f"student − {name}"] = ours.minus(f1)
        found[f"{name}: ece"] = _plain(summary(probability, judge.truth)["ece"])
    return found


def taxonomy(data: LabelData) -> Estimates:
    """Groups of the test's sessions against the 35 true main intents: keyword namer, and k-means alone.

    The taxonomy is drafted from the past; a session's group is its most confident intent, or "none".
    """
    past, test = data.sessions.take(data.past), data.sessions.take(data.test)
    drafted = draft(past, data.embeddings[data.past], data.config, data.config.workspace / ".llm")
    labels = annotate(test, drafted, data.config, data.config.workspace / ".llm").labels
    confidence = soft_targets(labels, test["session_id"].to_pylist(), drafted.intent_ids)
    named = np.where(confidence.max(axis=1) > 0, confidence.argmax(axis=1), -1)
    clusters = cluster(data.embeddings, len(IDS), seed=data.seed)[data.test]
    main = data.main[data.test]
    found: Estimates = {"keywords: intents": _plain(float(len(drafted.intents)))}
    for name, groups in (("keywords", named), ("k-means", clusters)):
        found |= {f"{name}: {key}": _plain(value) for key, value in agreement(groups, main).items()}
    return found


def agreement(groups: np.ndarray, truth: np.ndarray) -> Mapping[str, float]:
    """Normalised mutual information, purity (sessions whose group is mostly of their intent), and the
    share of true intents that are the most frequent of some group.
    """
    code = np.unique(groups, return_inverse=True)[1]
    counts = np.zeros((code.max() + 1, len(IDS)))
    np.add.at(counts, (code, truth), 1)
    return {
        "nmi": float(normalized_mutual_info_score(truth, code)),
        "purity": float(counts.max(axis=1).sum() / len(truth)),
        "share recovered": len(np.unique(counts.argmax(axis=1))) / len(IDS),
        "share with a label": float((groups >= 0).mean()),
    }


def _plain(value: float | None) -> Estimate:
    """Without resamples."""
    return Estimate(float("nan") if value is None else value, np.full(RESAMPLES, np.nan))
