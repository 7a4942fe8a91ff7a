"""Stages from embeddings to intent labels of every session."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clickintent import schema
from clickintent._version import __version__
from clickintent.config import Config, InSessionConversion
from clickintent.errors import EmptyInputError
from clickintent.pipeline import contract
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
    draft,
    export_graph,
    plan,
    plan_draft,
    site_of,
    soft_targets,
    to_draft_from,
)
from clickintent.taxonomy.distill import learning_curve
from clickintent.taxonomy.edit import succeed
from clickintent.workspace import Metrics, Workspace, atomically, fingerprint, write_table

_LINKED_SHARE = 2 / 3  # of the sessions that an LLM annotates: those whose owner is known


def draft_taxonomy(workspace: Workspace, config: Config, force: bool) -> Metrics:
    path = workspace.path("taxonomy.yaml")

    def work() -> Metrics:
        there = Taxonomy.load(path) if path.exists() else None
        if there and not force and contract.is_a_persons(workspace, there):
            say("  keeping taxonomy.yaml, which a person changed or approved; --force drafts a new one")
            return {"taxonomy": {**_metrics(there), "kept": True}}
        sessions, embeddings = _to_draft_from(workspace, config)
        drafted = draft(sessions, embeddings, config, workspace.path(contract.ANSWERS))
        # a file that was deleted still has its versions, whose numbers and ids are taken
        previous = contract.current(workspace, "taxonomy draft") if there else contract.latest(workspace)
        if previous:  # the same draft again, as after a kill, is no new version
            drafted = succeed(previous, drafted)
        contract.drafted(workspace, drafted)
        return {"taxonomy": {**_metrics(drafted), "kept": False}}

    made_from = [
        __version__,
        contract.asked(config),
        config.taxonomy,
        config.seed,
        config.split,
        _outcome(config),
        workspace.record("embed"),
    ]
    return workspace.stage("taxonomy", work, made_from=made_from, outputs=["taxonomy.yaml"], force=force)


def plan_drafting(config: Config) -> Plan:
    workspace = Workspace(config.workspace)
    sessions, embeddings = _to_draft_from(workspace, config)
    return plan_draft(to_draft_from(sessions, embeddings, config), config, workspace.path(contract.ANSWERS))


def plan_labelling(config: Config) -> Plan:
    workspace = Workspace(config.workspace)
    drafted = Taxonomy.load(needed(workspace, "taxonomy.yaml", "label", "taxonomy draft"))
    sessions = _to_annotate(before_outcome(model_sessions(workspace, config, "label"), config), config)
    carried = contract.carried_over(workspace, config, sessions, drafted, _beside_taxonomy(workspace, config))
    asked = sessions.filter(pa.array(carried.ask)) if carried else sessions
    cache = workspace.path(contract.ANSWERS)
    return plan(asked, drafted, config, cache, site=site_of(sessions))


def label(workspace: Workspace, config: Config, force: bool) -> Metrics:
    taxonomy = contract.current(workspace, "label")
    key = _beside_taxonomy(workspace, config)

    def work() -> Metrics:
        everything = before_outcome(model_sessions(workspace, config, "label"), config)
        sessions = _to_annotate(everything, config)
        annotation = contract.labelled(workspace, config, sessions, taxonomy, key, force)
        with atomically(workspace.path("labels")) as folder:
            folder.mkdir()
            write_table(annotation.labels, folder / "teacher.parquet")
            write_table(
                contract.annotated_table(everything, sessions, annotation, key, taxonomy.version),
                folder / "annotated.parquet",
            )
        return {"labels": annotation.metrics}

    made_from = [key, config.relabel, taxonomy.version, taxonomy.digest]
    return workspace.stage(
        "label", work, made_from=made_from, outputs=["labels/teacher.parquet"], force=force
    )


def _beside_taxonomy(workspace: Workspace, config: Config) -> str:
    """A fingerprint of all that labels depend on beside the taxonomy: if it changes, all are asked again."""
    return fingerprint(
        __version__,
        contract.asked(config),
        config.labels.model_dump(exclude={"min_precision"}),  # which is the student's
        config.seed,
        _outcome(config),
        workspace.record("embed"),
    )


def distill(workspace: Workspace, config: Config, force: bool) -> Metrics:
    taxonomy, labels, annotated = contract.with_labels(workspace, "distill")

    def work() -> Metrics:
        ids = taxonomy.intent_ids
        everything = model_sessions(workspace, config, "distill")
        at = split_at(everything, config)
        sessions = rows_of(before_outcome(everything, config), annotated["session_id"].combine_chunks())
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
            curve = learning_curve(embeddings, targets, student)
        with atomically(workspace.path("student")) as folder:
            student.save(folder)
            if workspace.path("encoder").exists():  # it may be elsewhere, with embeddings brought here
                export_graph(load_encoder(workspace, "distill"), student, folder / "intents.onnx")

        stored = pq.read_table(needed(workspace, "embeddings", "distill", "embed"))
        wanted, cutoff = config.labels.min_precision, config.labels.min_confidence
        if wanted:
            cutoff = max(cutoff, student.cutoff(wanted))
        found = _labels(student, stored, cutoff, not wanted, taxonomy.version)
        write_table(found, workspace.path("labels/student.parquet"))
        counts = {
            "sessions": stored.num_rows,
            "sessions_labelled": len(found["session_id"].unique()),
            "labels": found.num_rows,
            "cutoff": cutoff if np.isfinite(cutoff) else None,
        }
        return {"student": {**student.metrics, "learning_curve": curve, **counts}}

    made_from = [
        __version__,
        config.student,
        config.seed,
        config.labels,
        config.split,
        workspace.record("label"),
    ]
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


def _to_draft_from(workspace: Workspace, config: Config) -> tuple[pa.Table, np.ndarray]:
    sessions = before_outcome(model_sessions(workspace, config, "taxonomy"), config)
    sessions = past(sessions, split_at(sessions, config))
    return sessions, embeddings_of(workspace, config, sessions, "taxonomy")


def _to_annotate(sessions: pa.Table, config: Config) -> pa.Table:
    """All sessions for the keyword namer, which is free; a sample for a language model, mostly of
    sessions whose owner is known, because those can be evaluated.
    """
    budget = config.labels.max_sessions
    if config.llm.backend == "keywords" or sessions.num_rows <= budget:
        return sessions
    rng = np.random.default_rng(config.seed)
    linked = np.flatnonzero(sessions["account_id"].is_valid().to_numpy())
    first = rng.permutation(linked)[: int(budget * _LINKED_SHARE)]
    rest = np.setdiff1d(rng.permutation(sessions.num_rows), first)
    chosen = np.concatenate([first, rng.permutation(rest)[: budget - len(first)]])
    return sessions.take(np.sort(chosen))


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
