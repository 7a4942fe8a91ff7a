"""The stage that looks for drift on a workspace. It opens no truth, and learns nothing."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from clickintent._version import __version__
from clickintent.config import Config
from clickintent.monitor import Drift, Intents, find_drift
from clickintent.monitor.drift import COLUMNS, TRAFFIC
from clickintent.pipeline.inputs import iso, model_sessions, needed, split_at, stored_embeddings
from clickintent.taxonomy import IntentLabeler, Taxonomy
from clickintent.workspace import Metrics, Workspace, write_json

DRIFT = "drift.json"


def drift(workspace: Workspace, config: Config, force: bool) -> Metrics:
    def work() -> Metrics:
        sessions = model_sessions(workspace, config, "drift", ["session_id", *COLUMNS])
        at = _trained_until(workspace, config, sessions)
        embeddings = stored_embeddings(workspace, sessions["session_id"], "drift")
        student = IntentLabeler.load(needed(workspace, "student", "drift", "distill"))
        intents = Intents(
            student.predict_proba(embeddings),
            _names(workspace, student),
            _cutoff(config, student),
            _learned(workspace, sessions),
        )
        found = find_drift(
            sessions,
            at,
            config.drift,
            embeddings=embeddings,
            intents=intents,
            traffic=_traffic(workspace),
            seed=config.seed,
        )
        write_json(found.to_json(datetime.now(UTC)), workspace.path(DRIFT))
        return {"drift": _metrics(found, config)}

    made_from = [
        __version__,
        config.drift,
        config.labels,
        config.sessions,
        config.split,
        config.seed,
        *(workspace.record(stage) for stage in ("ingest", "pretrain", "embed", "taxonomy", "distill")),
    ]
    return workspace.stage("drift", work, made_from=made_from, outputs=[DRIFT], force=force)


def _trained_until(workspace: Workspace, config: Config, sessions: pa.Table) -> int:
    """Where the encoder's training window ends, in µs.

    A split that follows from the share of the sessions moves when more of them come, and the encoder does
    not: what counts is where it was when the encoder was trained.
    """
    recorded = workspace.metrics().get("encoder", {}).get("split_at")
    if recorded is None:
        return split_at(sessions, config)
    return int(datetime.fromisoformat(recorded).timestamp()) * 1_000_000


def _names(workspace: Workspace, student: IntentLabeler) -> tuple[str, ...]:
    """The intents in words, or else their ids: the taxonomy may be newer than the student."""
    path = workspace.path("taxonomy.yaml")
    known = {intent.id: intent.name for intent in Taxonomy.load(path).intents} if path.exists() else {}
    return tuple(known.get(id_, id_) for id_ in student.intent_ids)


def _cutoff(config: Config, student: IntentLabeler) -> float | None:
    """Below it ``distill`` gives no label; None: every session has one."""
    wanted = config.labels.min_precision
    return max(config.labels.min_confidence, student.cutoff(wanted)) if wanted else None


def _learned(workspace: Workspace, sessions: pa.Table) -> npt.NDArray[np.bool_] | None:
    """The sessions that the teacher annotated."""
    path = workspace.path("labels/annotated.parquet")
    if not path.exists():
        return None
    annotated = pq.read_table(path, columns=["session_id"])["session_id"].combine_chunks()
    found = pc.is_in(sessions["session_id"], value_set=annotated)
    return np.asarray(found.to_numpy(), dtype=bool)


def _traffic(workspace: Workspace) -> pa.Table:
    sessions = ds.dataset(needed(workspace, "sessions", "drift", "ingest"))
    return sessions.to_table(list(TRAFFIC), filter=~pc.field("is_bot"))


def _metrics(found: Drift, config: Config) -> Metrics:
    return {
        "verdict": found.verdict,
        "alarms": list(found.alarms),
        "measures": {
            m.name: {"measure": m.measure, "value": m.value, "alarm": m.alarm} for m in found.measures
        },
        "new_pages": len(found.new_pages),
        "new_page_share": found.new_page_share,
        "trained_until": iso(found.reference.end),
        "current_from": iso(found.current.begin),
        "current_to": iso(found.current.end),
        "reference_sessions": found.reference.sessions,
        "current_sessions": found.current.sessions,
        "min_sessions": config.drift.min_sessions,
    }
