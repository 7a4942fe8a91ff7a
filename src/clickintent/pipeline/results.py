"""Stages from labels to results: the two downstream tasks, and the report.

Only ``evaluate`` opens the simulator's truth, and only to score an oracle beside the models.
"""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from clickintent._version import __version__
from clickintent.config import AccountConversion, Config, InSessionConversion
from clickintent.errors import require
from clickintent.pipeline.inputs import embedding_matrix, model_sessions, needed, split_at
from clickintent.pipeline.known import outcomes, outside_files, top_intents
from clickintent.taxonomy import Taxonomy, narrate
from clickintent.workspace import Metrics, Workspace, file_fingerprint, fingerprint, write_text


def evaluate(workspace: Workspace, config: Config, force: bool) -> Metrics:
    require("lightgbm", "downstream")
    from clickintent.pipeline import measure

    def work() -> Metrics:
        sessions = model_sessions(workspace, config, "evaluate")
        at = split_at(sessions, config)
        match config.conversion:
            case AccountConversion() as outcome:
                conversion = measure.account_conversion(workspace, config, outcome, sessions, at)
            case InSessionConversion() as outcome:
                conversion = measure.in_session_conversion(workspace, config, outcome, sessions, at)
            case None:
                conversion = {"skipped": "no [conversion] in the configuration"}
        tiles = (
            measure.tiles(workspace, config, config.tiles, sessions, at)
            if config.tiles
            else {"skipped": "no [tiles] in the configuration"}
        )
        return {"conversion": conversion, "tiles": tiles}

    made_from = [
        __version__,
        config.conversion,
        config.tiles,
        config.evaluate,
        config.split,
        config.seed,
        [file_fingerprint(path) for path in outside_files(config)],
        *(workspace.record(stage) for stage in ("embed", "label", "distill")),
    ]
    return workspace.stage("evaluate", work, made_from=made_from, outputs=[], force=force)


def write_report(workspace: Workspace, config: Config, force: bool) -> Metrics:
    require("altair", "report")
    from clickintent.report import ReportData, build

    def work() -> Metrics:
        sessions = model_sessions(workspace, config, "report")
        labels = pq.read_table(needed(workspace, "labels/student.parquet", "report", "distill"))
        top = top_intents(labels)
        data = ReportData(
            title=config.report.title,
            metrics=workspace.metrics(),
            sessions=_all_sessions(workspace),
            top_intents=top,
            taxonomy=Taxonomy.load(needed(workspace, "taxonomy.yaml", "report", "taxonomy draft")),
            map_points=_map_points(workspace, config, sessions, top),
            outcomes=outcomes(config, sessions),
            made_at=datetime.now(UTC),
            versions={"clickintent": __version__, "python": platform.python_version()}
            | {name: version(name) for name in ("duckdb", "onnxruntime", "lightgbm")}
            | {"configuration": fingerprint(config)},
        )
        write_text(build(data), workspace.path("report.html"))
        return {"report": {"bytes": workspace.path("report.html").stat().st_size}}

    made_from = [
        __version__,
        config.report,
        config.seed,
        *(
            workspace.record(stage)
            for stage in ("ingest", "embed", "taxonomy", "label", "distill", "evaluate")
        ),
    ]
    return workspace.stage("report", work, made_from=made_from, outputs=["report.html"], force=force)


def _all_sessions(workspace: Workspace) -> pa.Table:
    columns = [name for name in ds.dataset(workspace.path("sessions")).schema.names if name != "events"]
    return pq.read_table(workspace.path("sessions"), columns=columns)


def _map_points(workspace: Workspace, config: Config, sessions: pa.Table, top: pa.Table) -> pa.Table:
    from clickintent.report import project

    n = min(sessions.num_rows, config.report.max_points)
    rng = np.random.default_rng(config.seed)
    sample = sessions.take(pa.array(np.sort(rng.choice(sessions.num_rows, n, replace=False))))
    stored = ds.dataset(needed(workspace, "embeddings", "report", "embed")).to_table()
    index = pc.index_in(sample["session_id"], value_set=stored["session_id"].combine_chunks()).to_numpy()
    xy = project(embedding_matrix(stored)[index], seed=config.seed)
    at = pc.index_in(sample["session_id"], value_set=top["session_id"].combine_chunks())
    return pa.table(
        {
            "session_id": sample["session_id"],
            "x": xy[:, 0],
            "y": xy[:, 1],
            "intent_id": top["intent_id"].take(at),
            "confidence": top["confidence"].take(at),
            "narrative": pa.array(narrate(sample), pa.string()),
        }
    )
