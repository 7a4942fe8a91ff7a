"""What labelling gives: labels, what became of every session, and counts that add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickintent import schema
from clickintent.errors import DataError

#: Session, intent, confidence, evidence, and the events that support it.
Row = tuple[str, str, float, str | None, list[int]]


@dataclass(frozen=True)
class Annotation:
    """Labels (schema.LABELS), what became of every session (schema.ANNOTATED), and counts, which add up:
    sessions = labelled + none_of_these + unsupported + unanswered.
    """

    labels: pa.Table
    states: pa.Table
    metrics: dict[str, Any]

    @property
    def answered(self) -> list[str]:
        """Ids of the sessions of which is known what they show, which may be "none of these"."""
        ids: list[str] = answered_of(self.states).to_pylist()
        return ids


def annotation_of(
    table: pa.Table, ids: list[str], otherwise: list[str], source: str, extra: dict[str, Any]
) -> Annotation:
    """Labels with the states and the counts that belong to them.

    Args:
        table: of schema.LABELS.
        ids: the sessions.
        otherwise: the state of each session, should it have no label.
        source: of the labels.
        extra: further metrics.
    """
    labelled = set(table["session_id"].to_pylist())
    states = ["labelled" if id_ in labelled else state for id_, state in zip(ids, otherwise, strict=True)]
    counts = Counter(states)
    n = len(ids)
    metrics = {
        "source": source,
        "sessions": n,
        "answered": n - counts["unanswered"],
        **{state: counts[state] for state in schema.LABEL_STATES},
        "labels": table.num_rows,
        "labels_per_labelled_session": round(table.num_rows / len(labelled), 3) if labelled else 0.0,
        "mean_confidence": pc.mean(table["confidence"]).as_py() if table.num_rows else None,
        **extra,
    }
    columns = [pa.array(ids, pa.string()), pa.array(states, pa.string())]
    return Annotation(table, pa.table(columns, schema=schema.ANNOTATED), metrics)


def answered_of(states: pa.Table) -> pa.Array:
    """Ids of the sessions of which is known what they show: labelled, or none of these.

    Args:
        states: table of schema.ANNOTATED.
    """
    known = pc.is_in(states["state"], value_set=pa.array(["labelled", "none_of_these"]))
    return states["session_id"].filter(known).combine_chunks()


def soft_targets(labels: pa.Table, session_ids: Sequence[str], intent_ids: Sequence[str]) -> np.ndarray:
    """Confidences as a matrix (n sessions, k intents), float32; 0 where there is no label.

    Labels of other sessions are ignored; of one session and intent the highest confidence counts.

    Raises:
        DataError: if a label is of an intent that ``intent_ids`` lacks.
    """
    targets = np.zeros((len(session_ids), len(intent_ids)), np.float32)
    rows = pc.index_in(labels["session_id"], value_set=pa.array(session_ids, pa.string()))
    columns = pc.index_in(labels["intent_id"], value_set=pa.array(intent_ids, pa.string()))
    if columns.null_count:
        unknown = labels["intent_id"].filter(columns.is_null()).unique().to_pylist()
        raise DataError(
            f"labels of {', '.join(map(repr, unknown[:3]))}, which is not in the taxonomy (it has "
            f"{len(intent_ids)} intents). Run 'clickintent label' again."
        )
    mine = rows.is_valid().to_numpy(zero_copy_only=False)
    row = pc.fill_null(rows, 0).to_numpy()[mine]
    np.maximum.at(targets, (row, columns.to_numpy()[mine]), labels["confidence"].to_numpy()[mine])
    return targets


def labels_table(rows: Sequence[Row], source: str, version: int) -> pa.Table:
    """Rows as a table of schema.LABELS."""
    n = len(rows)
    columns = [[row[i] for row in rows] for i in range(5)]
    return pa.table(
        [
            pa.array(columns[0], pa.string()),
            pa.array(columns[1], pa.string()),
            pa.array(columns[2], pa.float32()),
            pa.array([source] * n, pa.string()),
            pa.array([version] * n, pa.int64()),
            pa.array(columns[3], pa.string()),
            pa.array(columns[4], pa.list_(pa.int64())),
        ],
        schema=schema.LABELS,
    )
