"""Stages from raw exports to embeddings."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pyarrow.compute as pc

from clickintent._version import __version__
from clickintent.config import Config
from clickintent.encoder import SessionEncoder
from clickintent.encoder.distributed import ALONE, Team
from clickintent.errors import ArtifactError, ConfigError
from clickintent.events import OUTPUTS, files
from clickintent.pipeline.inputs import (
    iso,
    load_encoder,
    model_dataset,
    model_sessions,
    past,
    split_at,
)
from clickintent.progress import say
from clickintent.workspace import Metrics, Workspace, atomically


def simulate(workspace: Workspace, config: Config, force: bool) -> Metrics:
    if config.simbank is None:
        raise ConfigError("simulate needs a [simbank] section in the configuration; an empty one will do.")
    bank = config.simbank

    def work() -> Metrics:
        from clickintent.simbank import simulate

        return {"simulate": simulate(bank, seed=config.seed)}

    missing = not (bank.out / "clickintent.toml").exists()
    made_from = [__version__, bank, config.seed]
    return workspace.stage("simulate", work, made_from=made_from, outputs=[], force=force or missing)


def ingest(workspace: Workspace, config: Config, force: bool) -> Metrics:
    if not config.sources:
        raise ConfigError("no [[sources]] in the configuration; give at least one raw export to read.")

    def work() -> Metrics:
        from clickintent.events.ingest import ingest

        return ingest(config, workspace.root, force=force).metrics

    stamps = [files.stamp(path) for source in config.sources for path in files.files(source.path)]
    made_from = [__version__, *config.sources, config.privacy, config.sessions, stamps]
    return workspace.stage("ingest", work, made_from=made_from, outputs=OUTPUTS, force=force)


def pretrain(workspace: Workspace, config: Config, force: bool, team: Team = ALONE) -> Metrics:
    checkpoints = workspace.path(".checkpoints")
    is_done = True

    def work() -> Metrics:
        nonlocal is_done
        is_done = team.same(False)
        if force:
            shutil.rmtree(checkpoints, ignore_errors=True)
        encoder, at = _fit(workspace, config)
        encoder.save(workspace.path("encoder"))
        shutil.rmtree(checkpoints, ignore_errors=True)
        return {"encoder": {"version": encoder.version, "split_at": iso(at), **encoder.metrics}}

    made_from = [__version__, config.encoder, config.seed, config.split, workspace.record("ingest")]
    metrics = workspace.stage("pretrain", work, made_from=made_from, outputs=["encoder"], force=force)
    if is_done:
        team.same(True)
    return metrics


def help_to_pretrain(workspace: Workspace, config: Config, team: Team) -> None:
    """What the other processes do while the first one of the team is in ``pretrain``."""
    if not team.same(False):
        _fit(workspace, config)


def _fit(workspace: Workspace, config: Config) -> tuple[SessionEncoder, int]:
    """The encoder, and where the past ends, in µs."""
    dataset, keep = model_dataset(workspace, config, "pretrain")
    times = model_sessions(workspace, config, "pretrain", ["start", "end"])
    at = split_at(times, config)
    past(times, at)  # says so if there is none
    encoder = SessionEncoder(config.encoder, seed=config.seed)
    is_past = keep & (pc.field("end") < at)
    fitted = encoder.fit(
        dataset,
        filter=is_past,
        checkpoints=workspace.path(".checkpoints"),
        previous=_previous(workspace.path("encoder")),
    )
    return fitted, at


def _previous(folder: Path) -> SessionEncoder | None:
    """The encoder in use so far; none that cannot be read, which is no reason not to train another."""
    if not folder.exists():
        return None
    try:
        return SessionEncoder.load(folder)
    except ArtifactError as error:
        say(f"the new encoder will not be aligned to the one before: {error}")
        return None


def embed(workspace: Workspace, config: Config, force: bool) -> Metrics:
    def work() -> Metrics:
        encoder = load_encoder(workspace, "embed")
        _, keep = model_dataset(workspace, config, "embed")
        started = time.monotonic()
        with atomically(workspace.path("embeddings")) as folder:
            folder.mkdir()
            if config.engine == "spark":
                done = _embed_on_spark(workspace, config, folder)
            else:
                done = encoder.embed_parquet(
                    workspace.path("sessions"), folder / "part-00000.parquet", filter=keep
                )
        seconds = time.monotonic() - started
        return {
            "embed": {
                "sessions": done,
                "dim": encoder.config.dim,
                "encoder": encoder.version,
                "seconds": seconds,
                "sessions_per_second": round(done / seconds),
            }
        }

    made_from = [__version__, config.sessions, workspace.record("ingest"), workspace.record("pretrain")]
    return workspace.stage("embed", work, made_from=made_from, outputs=["embeddings"], force=force)


def _embed_on_spark(workspace: Workspace, config: Config, folder: Path) -> int:
    from clickintent.events.spark_session import open_session
    from clickintent.pipeline.spark_embed import embed_on_spark

    sessions, encoder = workspace.path("sessions"), workspace.path("encoder")
    with open_session(config.spark) as spark:
        return embed_on_spark(spark, sessions, encoder, folder, channel=config.sessions.channel)
