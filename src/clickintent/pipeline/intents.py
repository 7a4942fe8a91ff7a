"""Stages from embeddings to intent labels of every session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clickintent import schema
from clickintent._version import __version__
from clickintent.config import Config, InSessionConversion
from clickintent.errors import EmptyInputError
from clickintent.pipeline.inputs import (
    before_outcome,
    embedding_matrix,
    embeddings_of,
    load_encoder,
    model_sessions,
    needed,
    past,
    rows_of,
    split_at,
)
from clickintent.progress import say
from clickintent.taxonomy import (
    IntentLabeler,
    Plan,
    Taxonomy,
    annotate,
    answered_of,
    draft,
    export_graph,
    plan,
    soft_targets,
)
from clickintent.taxonomy.distill import learning_curve
from clickintent.workspace import Metrics, Workspace, atomically, write_table

_LINKED_SHARE = 2 / 3  # of the sessions that an LLM annotates: those whose owner is known


def draft_taxonomy(workspace: Workspace, config: Config, force: bool) -> Metrics:
    path = workspace.path("taxonomy.yaml")

    def work() -> Metrics:
        previous = Taxonomy.load(path) if path.exists() else None
        if previous and not force and _is_a_persons(workspace, previous):
            say("  keeping taxonomy.yaml, which a person changed or approved; --force drafts a new one")
            return {"taxonomy": {**_metrics(previous), "kept": True}}
        sessions = before_outcome(model_sessions(workspace, config, "taxonomy"), config)
        sessions = past(sessions, split_at(sessions, config))
        embeddings = embeddings_of(workspace, config, sessions, "taxonomy")
        drafted = draft(sessions, embeddings, config, workspace.path(".llm"))
        if previous:  # the same draft again, as after a kill, is no new version
            drafted = drafted.model_copy(update={"version": previous.version})
            if drafted != previous:
                drafted = drafted.model_copy(update={"version": previous.version + 1})
        drafted.save(_archived(workspace, drafted))
        drafted.save(path)
        return {"taxonomy": {**_metrics(drafted), "kept": False}}

    made_from = [
        __version__,
        config.llm,
        config.taxonomy,
        config.seed,
        config.split,
        _outcome(config),
        workspace.record("embed"),
    ]
    return workspace.stage("taxonomy", work, made_from=made_from, outputs=["taxonomy.yaml"], force=force)


def plan_labels(config: Config) -> Plan:
    workspace = Workspace(config.workspace)
    drafted = Taxonomy.load(needed(workspace, "taxonomy.yaml", "label", "taxonomy draft"))
    return plan(_to_annotate(workspace, config), drafted, config)


def label(workspace: Workspace, config: Config, force: bool) -> Metrics:
    path = needed(workspace, "taxonomy.yaml", "label", "taxonomy draft")

    def work() -> Metrics:
        drafted = Taxonomy.load(path)
        sessions = _to_annotate(workspace, config)
        annotation = annotate(sessions, drafted, config, workspace.path(".llm"))
        with atomically(workspace.path("labels")) as folder:
            folder.mkdir()
            write_table(annotation.labels, folder / "teacher.parquet")
            write_table(annotation.states, folder / "annotated.parquet")
        return {"labels": annotation.metrics}

    made_from = [
        __version__,
        config.llm,
        config.labels,
        config.seed,
        _outcome(config),
        path.read_text(encoding="utf-8"),
        workspace.record("embed"),
    ]
    return workspace.stage(
        "label", work, made_from=made_from, outputs=["labels/teacher.parquet"], force=force
    )


def distill(workspace: Workspace, config: Config, force: bool) -> Metrics:
    def work() -> Metrics:
        drafted = Taxonomy.load(needed(workspace, "taxonomy.yaml", "distill", "taxonomy draft"))
        labels = pq.read_table(needed(workspace, "labels/teacher.parquet", "distill", "label"))
        annotated = pq.read_table(needed(workspace, "labels/annotated.parquet", "distill", "label"))
        ids = [intent.id for intent in drafted.intents]
        everything = model_sessions(workspace, config, "distill")
        at = split_at(everything, config)
        sessions = rows_of(before_outcome(everything, config), answered_of(annotated))
        embeddings = embeddings_of(workspace, config, sessions, "distill")
        targets = soft_targets(labels, sessions["session_id"].to_pylist(), ids)
        is_past = pc.less(sessions["end"], at).to_numpy()
        if not is_past.any():
            raise EmptyInputError("distill: no annotated session ends before the split.")
        embeddings, targets = embeddings[is_past], targets[is_past]
        student = IntentLabeler(config.student, seed=config.seed)
        student.fit(embeddings, targets, ids)
        curve = []
        if config.student.learning_curve:
            curve = learning_curve(embeddings, targets, config.student, config.seed)
        with atomically(workspace.path("student")) as folder:
            student.save(folder)
            export_graph(load_encoder(workspace, "distill"), student, folder / "intents.onnx")

        stored = pq.read_table(needed(workspace, "embeddings", "distill", "embed"))
        wanted, cutoff = config.labels.min_precision, config.labels.min_confidence
        if wanted:
            cutoff = max(cutoff, student.cutoff(wanted))
        found = _labels(student, stored, cutoff, not wanted, drafted.version)
        write_table(found, workspace.path("labels/student.parquet"))
        counts = {
            "sessions": stored.num_rows,
            "sessions_labelled": len(found["session_id"].unique()),
            "labels": found.num_rows,
            "cutoff": cutoff if np.isfinite(cutoff) else None,
        }
        return {"student": {**student.metrics, "learning_curve": curve, **counts}}

    made_from = [__version__, config.student, config.seed, config.labels, workspace.record("label")]
    outputs = ["student", "labels/student.parquet"]
    return workspace.stage("distill", work, made_from=made_from, outputs=outputs, force=force)


def _labels(student: IntentLabeler, stored: pa.Table, cutoff: float, always: bool, version: int) -> pa.Table:
    """The student's labels: all of at least ``cutoff``; if ``always``, the best one of every session, too."""
    confidences = student.predict_proba(embedding_matrix(stored))
    keep = confidences >= cutoff
    if always:
        keep[np.arange(len(keep)), confidences.argmax(axis=1)] = True
    session, intent = np.nonzero(keep)
    n = len(session)
    return pa.table(
        [
            stored["session_id"].take(pa.array(session)),
            pa.array(np.asarray(student.intent_ids, dtype=object)[intent], pa.string()),
            pa.array(confidences[session, intent], pa.float32()),
            pa.array(np.full(n, "student", dtype=object), pa.string()),
            pa.array(np.full(n, version), pa.int64()),
            pa.nulls(n, pa.string()),
            pa.nulls(n, pa.list_(pa.int64())),
        ],
        schema=schema.LABELS,
    )


def _to_annotate(workspace: Workspace, config: Config) -> pa.Table:
    """All sessions for the keyword namer, which is free; a sample for a language model, mostly of
    sessions whose owner is known, because those can be evaluated.
    """
    sessions = before_outcome(model_sessions(workspace, config, "label"), config)
    budget = config.labels.max_sessions
    if config.llm.backend == "keywords" or sessions.num_rows <= budget:
        return sessions
    rng = np.random.default_rng(config.seed)
    linked = np.flatnonzero(sessions["account_id"].is_valid().to_numpy())
    first = rng.permutation(linked)[: int(budget * _LINKED_SHARE)]
    rest = np.setdiff1d(rng.permutation(sessions.num_rows), first)
    chosen = np.concatenate([first, rng.permutation(rest)[: budget - len(first)]])
    return sessions.take(np.sort(chosen))


def _is_a_persons(workspace: Workspace, taxonomy: Taxonomy) -> bool:
    archived = _archived(workspace, taxonomy)
    current = workspace.path("taxonomy.yaml")
    untouched = archived.exists() and archived.read_bytes() == current.read_bytes()
    return taxonomy.approved_by is not None or not untouched


def _archived(workspace: Workspace, taxonomy: Taxonomy) -> Path:
    return workspace.path(f"taxonomies/v{taxonomy.version}.yaml")


def _outcome(config: Config) -> InSessionConversion | None:
    return config.conversion if isinstance(config.conversion, InSessionConversion) else None


def _metrics(taxonomy: Taxonomy) -> Metrics:
    return {
        "source": taxonomy.source,
        "model": taxonomy.model,
        "version": taxonomy.version,
        "intents": len(taxonomy.intents),
        "approved_by": taxonomy.approved_by,
    }
