"""Small reports for tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from clickintent.report import ReportData
from clickintent.taxonomy import Intent, Taxonomy

START = 1_767_225_600_000_000
HOUR = 3_600_000_000
NAMES = ("Travel card", "Mortgage rates", "Savings", "Log in")
PRODUCTS = ("card", "mortgage", "savings", "none")


def interval(value: float, half: float = 0.01) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def result(main: str, values: dict[str, float], gap: dict[str, float]) -> dict[str, Any]:
    """A downstream result: the metric of each method, and the difference of those in ``gap``."""
    methods = {
        name: {main: interval(value), "n_train": 900, "n_test": 300, "coverage": 1.0}
        | ({"difference": {main: interval(gap[name])}} if name in gap else {})
        for name, value in values.items()
    }
    return {"main_metric": main, "methods": methods, "n_train": 900, "n_test": 300}


def comparison(main: str, difference: float) -> dict[str, Any]:
    """Page counts at 0.6, the embedding at ``difference`` more, half an interval being 0.01."""
    return result(main, {"page_counts": 0.6, "embedding": 0.6 + difference}, {"embedding": difference})


def metrics(**sections: Any) -> dict[str, Any]:
    counts = {"read": 1000, "events": 950, "duplicates": 20, "quarantined": 30}
    return {
        "events": {**counts, "by_source": {"web": counts}, "quarantine_reasons": {"no time": 30}},
        "sessions": {"sessions": 420, "events_per_session": {"mean": 2.4}, "bots": 20},
        "taxonomy": {"source": "llm", "version": 1, "intents": 4},
        "labels": {"source": "llm", "sessions": 400},
        "student": student(),
        "conversion": {"kind": "account", **comparison("micro_f1", 0.05)},
        "tiles": comparison("macro_recall_at_1", -0.05),
    } | sections


def student(**changes: object) -> dict[str, object]:
    """A student's section of the metrics."""
    return {
        "n_train": 700,
        "n_test": 150,
        "micro_f1_vs_teacher": 0.812,
        "top1_agreement": 0.84,
        "ece": 0.0213,
        "reliability": [{"n": 10, "confidence": c, "right": c - 0.05} for c in (0.2, 0.5, 0.9)],
        "learning_curve": [
            {"n_train": 350, "micro_f1_vs_teacher": 0.79},
            {"n_train": 700, "micro_f1_vs_teacher": 0.812},
        ],
        "abstention": [
            {"wanted": 0.9, "cutoff": 0.61, "precision": 0.91, "sessions_labelled": 0.42},
            {"wanted": 0.95, "cutoff": None, "precision": None, "sessions_labelled": 0.0},
        ],
        "intents": {
            "i1": {"precision": 0.7, "recall": 0.5, "f1": 0.583, "support": 40},
            "i2": {"precision": 0.9, "recall": 0.8, "f1": 0.847, "support": 40},
            "i3": {"precision": None, "recall": 0.0, "f1": 0.0, "support": 3},
        },
        **changes,
    }


def taxonomy(names: tuple[str, ...] = NAMES, **changes: Any) -> Taxonomy:
    intents = tuple(
        Intent(
            id=f"i{n}", name=name, definition=f"They want: {name}.", area="an area", keywords=(f"word{n}",)
        )
        for n, name in enumerate(names, 1)
    )
    return Taxonomy(**({"source": "llm", "model": "a-model", "intents": intents} | changes))


def report(n: int = 400, *, narrative: str = "Home → Cards", **changes: Any) -> ReportData:
    """A report of ``n`` sessions, two hours apart, of four intents in turn; half are tied to an account."""
    ids = [f"s{i:04d}" for i in range(n)]
    intent = [f"i{1 + i % 4}" for i in range(n)]
    rng = np.random.default_rng(1)
    at = {"session_id": ids, "intent_id": intent, "confidence": [0.9] * n}
    given = {
        "title": "What visitors wanted",
        "metrics": metrics(),
        "sessions": pa.table(
            {
                "session_id": pa.array(ids, pa.string()),
                "start": pa.array([START + 2 * i * HOUR for i in range(n)], pa.int64()),
                "account_link": pa.array(["in_session" if i % 2 else "none" for i in range(n)], pa.string()),
                "is_bot": pa.array([False] * n, pa.bool_()),
            }
        ),
        "top_intents": pa.table(
            {
                "session_id": pa.array(ids, pa.string()),
                "intent_id": pa.array(intent, pa.string()),
                "confidence": pa.array([0.9] * n, pa.float32()),
            }
        ),
        "taxonomy": taxonomy(),
        "map_points": pa.table(
            {
                "session_id": pa.array(ids, pa.string()),
                "x": pa.array(rng.normal(size=n), pa.float32()),
                "y": pa.array(rng.normal(size=n), pa.float32()),
                "intent_id": pa.array(at["intent_id"], pa.string()),
                "confidence": pa.array(at["confidence"], pa.float32()),
                "narrative": pa.array([f"{narrative} {i % 7}" for i in range(n)], pa.string()),
            }
        ),
        "outcomes": pa.table(
            {
                "session_id": pa.array(ids[1::2], pa.string()),
                "outcome": pa.array([PRODUCTS[(i // 8) % 4] for i in range(1, n, 2)], pa.string()),
            }
        ),
        "made_at": datetime(2026, 3, 2, 12, tzinfo=UTC),
        "versions": {"clickintent": "0.1.0", "configuration": "0123456789abcdef"},
    }
    return ReportData(**(given | changes))
