"""The stages of a run, in order: each reads the workspace, works, writes, and records its metrics.

Every command of the CLI is a function here, of the same name or nearly (``taxonomy draft`` is
``draft_taxonomy``, ``report`` is ``write_report``: modules have the shorter names). A stage whose
inputs and configuration have not changed is skipped; ``force`` does it again. Only one process may write
to a workspace at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clickintent import events
from clickintent.config import Config, SimBankConfig, load_config
from clickintent.encoder.distributed import team
from clickintent.events import Forgotten
from clickintent.pipeline import encode, exploring, intents, monitoring, results
from clickintent.pipeline.human import agreement, export_labels, import_labels
from clickintent.pipeline.judging import check
from clickintent.pipeline.proposing import propose
from clickintent.pipeline.reviewing import Review, approve, review
from clickintent.workspace import Metrics, Workspace, open_workspace, write_text

__all__ = [
    "Review",
    "agreement",
    "approve",
    "check",
    "demo",
    "distill",
    "draft_taxonomy",
    "drift",
    "embed",
    "evaluate",
    "explore",
    "export_labels",
    "forget",
    "import_labels",
    "ingest",
    "label",
    "metrics",
    "plan",
    "plan_draft",
    "pretrain",
    "propose",
    "review",
    "run",
    "simulate",
    "write_report",
]

if TYPE_CHECKING:
    from clickintent.taxonomy import Plan


def simulate(config: Config, *, force: bool = False) -> Metrics:
    """Write the simulated bank's raw exports, app logs and truth to ``simbank.out``.

    Raises:
        ConfigError: if the configuration has no ``[simbank]``.
    """
    with open_workspace(config.workspace) as workspace:
        return encode.simulate(workspace, config, force)


def ingest(config: Config, *, force: bool = False) -> Metrics:
    """Read what is new in the raw exports, and make all tables of events and sessions anew.

    See ``clickintent.events.ingest``.

    Raises:
        ConfigError: if no source is configured.
        DataError: if a file is missing or cannot be read, or nothing usable is in it.
    """
    with open_workspace(config.workspace) as workspace:
        return encode.ingest(workspace, config, force)


def forget(config: Config, *, visitor: str | None = None, account: str | None = None) -> Forgotten:
    """Remove a visitor, or an account and all that is tied to it, from every table of the workspace.

    See ``clickintent.events.forget``.

    Raises:
        ValueError: if not exactly one of the two is given.
        WorkspaceError: if the workspace has no events.
    """
    with open_workspace(config.workspace) as workspace:
        done = events.forget(config, visitor=visitor, account=account)
        workspace.update_metrics("ingest", done.metrics)
        return done


def pretrain(config: Config, *, force: bool = False) -> Metrics:
    """Train the session encoder on the sessions that end before the split; write ``encoder/``.

    Processes that ``torchrun`` started train it together: ``torchrun --nproc-per-node 4 -m clickintent
    pretrain FILE.toml``. The first one writes; the metrics of the others are empty.

    Raises:
        EmptyInputError: if no session ends before the split.
    """
    with team() as processes:
        if processes.rank:
            encode.help_to_pretrain(Workspace(config.workspace), config, processes)
            return {}
        with open_workspace(config.workspace) as workspace:
            return encode.pretrain(workspace, config, force, processes)


def embed(config: Config, *, force: bool = False) -> Metrics:
    """Embed every session of the configured channel; write ``embeddings/``."""
    with open_workspace(config.workspace) as workspace:
        return encode.embed(workspace, config, force)


def draft_taxonomy(config: Config, *, force: bool = False) -> Metrics:
    """Draft ``taxonomy.yaml``. A taxonomy that a person changed or approved is kept unless forced."""
    with open_workspace(config.workspace) as workspace:
        return intents.draft_taxonomy(workspace, config, force)


def plan(config: Config) -> Plan:
    """What ``label`` would ask the language model: calls, tokens, cost, a sample prompt. Sends nothing."""
    return intents.plan_labelling(config)


def plan_draft(config: Config) -> Plan:
    """What ``draft_taxonomy`` would ask the language model. Sends nothing."""
    return intents.plan_drafting(config)


def label(config: Config, *, force: bool = False) -> Metrics:
    """Annotate sessions with intents by the configured backend; write ``labels/teacher.parquet``."""
    with open_workspace(config.workspace) as workspace:
        return intents.label(workspace, config, force)


def distill(config: Config, *, force: bool = False) -> Metrics:
    """Train the student on the labels; write ``student/`` and its labels of every session."""
    with open_workspace(config.workspace) as workspace:
        return intents.distill(workspace, config, force)


def evaluate(config: Config, *, force: bool = False) -> Metrics:
    """Measure conversion and tile ranking on the sessions after the split."""
    with open_workspace(config.workspace) as workspace:
        return results.evaluate(workspace, config, force)


def write_report(config: Config, *, force: bool = False) -> Metrics:
    """Write ``report.html``."""
    with open_workspace(config.workspace) as workspace:
        return results.write_report(workspace, config, force)


def explore(config: Config, *, force: bool = False) -> Metrics:
    """Write ``explorer/``: a page and its data, for any web server.

    Raises:
        WorkspaceError: if there are no sessions, embeddings, taxonomy or student's labels.
    """
    with open_workspace(config.workspace) as workspace:
        return exploring.explore(workspace, config, force)


def drift(config: Config, *, force: bool = False) -> Metrics:
    """Compare the latest sessions with those that the models learned from; write ``drift.json``.

    Raises:
        WorkspaceError: if there are no sessions, embeddings or student.
    """
    with open_workspace(config.workspace) as workspace:
        return monitoring.drift(workspace, config, force)


def metrics(config: Config) -> Metrics:
    """All metrics of the workspace so far, by section: what ``metrics.json`` holds."""
    return Workspace(config.workspace).metrics()


def run(config: Config, *, force: bool = False) -> Metrics:
    """All stages, from the raw exports to report, drift and explorer; returns all metrics by section."""
    stages = (
        encode.ingest,
        encode.pretrain,
        encode.embed,
        intents.draft_taxonomy,
        intents.label,
        intents.distill,
        results.evaluate,
        results.write_report,
        monitoring.drift,
        exploring.explore,
    )
    with open_workspace(config.workspace) as workspace:
        if config.simbank:
            encode.simulate(workspace, config, force)
        for stage in stages:
            stage(workspace, config, force)
        return workspace.metrics()


def demo(workspace: Path, *, sessions: int = 60_000, seed: int = 7, force: bool = False) -> Metrics:
    """Simulate a bank of about ``sessions`` web sessions in ``workspace`` and run every stage on it.

    Every other command goes on with what it made from ``simbank/clickintent.toml`` in the workspace.
    """
    workspace = workspace.resolve()
    bank = SimBankConfig(out=workspace / "simbank", sessions=sessions)
    simulate(Config(workspace=workspace, seed=seed, simbank=bank), force=force)
    path = bank.out / "clickintent.toml"
    alone = path.read_text(encoding="utf-8")
    write_text(alone.replace('workspace = "workspace"', f'workspace = ".."\nseed = {seed}'), path)
    return run(load_config(path), force=force)
