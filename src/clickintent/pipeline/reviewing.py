"""Review and approval on a workspace: each decision is on disk before the next one is asked for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clickintent.config import Config
from clickintent.errors import ChangedError, ConfigError
from clickintent.pipeline import contract
from clickintent.pipeline.inputs import before_outcome, model_sessions, needed, rows_of
from clickintent.taxonomy import Taxonomy, narrate, novelty, site_of
from clickintent.taxonomy.history import decided
from clickintent.taxonomy.novelty import Proposal
from clickintent.taxonomy.review import Made, Walk, Wanted, seen
from clickintent.taxonomy.review import decide as decide_on
from clickintent.workspace import Workspace, open_workspace

PROPOSALS = "proposals.yaml"
_SUREST, _ANY = 3, 2  # sessions shown of an intent: its clearest, and others at random


@dataclass
class Review:
    """A walk through the workspace's taxonomy.

    The workspace is locked while a decision is written and not in between, so that a review of an afternoon
    stops no nightly run.
    """

    config: Config
    walk: Walk
    _sessions: dict[str, tuple[str, ...]]
    _counts: dict[str, int]

    def sessions(self, intent_id: str) -> tuple[str, ...]:
        """Redacted narratives of sessions that were labelled with it; none before anything was labelled."""
        return self._sessions.get(intent_id, ())

    def count(self, intent_id: str) -> int | None:
        """How many sessions were labelled with it; None if none was."""
        return self._counts.get(intent_id)

    def follow(self, line: str) -> Made | str | None:
        """See ``Walk.follow``. What was decided is on disk when this returns.

        Raises:
            ArtifactError: if the line cannot be followed; nothing was changed.
            WorkspaceError: if somebody else changed the taxonomy in the meantime, or the workspace is in use.
        """
        if not self.walk.decides(line):
            return self.walk.follow(line)
        with open_workspace(self.config.workspace) as workspace, _uninterrupted():
            contract.unchanged(workspace, self.walk.taxonomy)
            if contract.archived(workspace, self.walk.taxonomy.version).exists():
                self.walk.next_version()  # a nightly run may have labelled with what was decided so far
            made = self.walk.follow(line)
            if isinstance(made, Made):
                _keep(workspace, made, self.walk.by)
            return made

    def finish(self) -> Taxonomy:
        """Close the version that was made; the next change makes another one."""
        with open_workspace(self.config.workspace) as workspace:
            return contract.current(workspace, "taxonomy review")


def review(config: Config, by: str, *, everything: bool = False) -> Review:
    """Begin a review.

    Args:
        by: who decides; stands in the history.
        everything: also intents that are approved as they read now.

    Raises:
        ConfigError: if ``by`` is empty.
        WorkspaceError: if there is no taxonomy.
    """
    by = _named(by)
    with open_workspace(config.workspace) as workspace:
        taxonomy = contract.current(workspace, "taxonomy review")
        walk = Walk(taxonomy, by, novelty.load(workspace.path(PROPOSALS)), everything)
        return Review(config, walk, *_labelled_sessions(workspace, config))


def decide(config: Config, by: str, wanted: Wanted | None, digest: str) -> None:
    """Make one decision, and keep it as a review does. None: sign the whole taxonomy.

    All decisions after one another make one version, until something uses it: a stage, another review, or the
    signature under the whole.

    Args:
        digest: of what was looked at (``taxonomy.review.seen``).

    Raises:
        ConfigError: if ``by`` is empty.
        ChangedError: if somebody else changed the taxonomy or the proposals since.
        CommandError: if the decision cannot be made; nothing was changed.
        InUseError: if a stage is running.
        ArtifactError, WorkspaceError: if the taxonomy is not there, or not valid.
    """
    by = _named(by)
    _as_seen(Workspace(config.workspace), digest)  # before any lock is taken
    with open_workspace(config.workspace) as workspace, _uninterrupted():
        proposals = _as_seen(workspace, digest)
        if wanted is None:
            _sign(workspace, by)
            return
        taxonomy, is_open = contract.standing(workspace, "taxonomy review")
        _keep(workspace, decide_on(taxonomy, proposals, wanted, by, is_open=is_open), by)


def approve(config: Config, by: str) -> Taxonomy:
    """Sign the taxonomy as it stands, with name and time, in the file and in the history.

    Raises:
        ArtifactError: if ``by`` is empty, or the file is not valid.
        WorkspaceError: if there is no taxonomy.
    """
    with open_workspace(config.workspace) as workspace, _uninterrupted():
        return _sign(workspace, by)


def _sign(workspace: Workspace, by: str) -> Taxonomy:
    approved = contract.current(workspace, "taxonomy approve").approve(by)
    assert approved.approved_by is not None
    decision = decided(
        by=approved.approved_by, action="approve", version=approved.version, digest=approved.digest
    )
    contract.keep(workspace, approved, decision)
    return approved


def _keep(workspace: Workspace, made: Made, by: str) -> None:
    decision = decided(
        by=by,
        action=made.action,
        version=made.taxonomy.version,
        digest=made.taxonomy.digest,
        intent=made.intent,
        what=made.what,
        why=made.why,
    )
    contract.keep(workspace, made.taxonomy, decision)
    if made.action in ("accept", "dismiss"):
        novelty.save(made.proposals, workspace.path(PROPOSALS))


def _as_seen(workspace: Workspace, digest: str) -> tuple[Proposal, ...]:
    """The open proposals, if they and the taxonomy are those that were looked at."""
    path = needed(workspace, contract.TAXONOMY, "taxonomy review", "taxonomy draft")
    taxonomy, proposals = Taxonomy.load(path), novelty.load(workspace.path(PROPOSALS))
    if seen(taxonomy, proposals) != digest:
        raise ChangedError("the taxonomy was changed since it was looked at; look again, then decide.")
    return proposals


def _named(by: str) -> str:
    by = " ".join(by.split())
    if not by:
        raise ConfigError("review needs the name of who reviews: --by NAME.")
    return by


def _labelled_sessions(
    workspace: Workspace, config: Config
) -> tuple[dict[str, tuple[str, ...]], dict[str, int]]:
    """For each intent that was labelled: narratives of some of its sessions, and how many there are."""
    path = workspace.path("labels/teacher.parquet")
    if not path.exists():
        return {}, {}
    labels = pq.read_table(path, columns=["session_id", "intent_id", "confidence"])
    rng = np.random.default_rng(config.seed)
    ids, intents = labels["session_id"].to_numpy(), labels["intent_id"].to_numpy()
    confidence = labels["confidence"].to_numpy()
    chosen: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    for intent in np.unique(intents).tolist():
        mine = np.flatnonzero(intents == intent)
        mine = mine[np.argsort(-confidence[mine], kind="stable")]
        others = mine[_SUREST:]
        drawn = rng.choice(others, min(_ANY, len(others)), replace=False)
        chosen[intent] = [*ids[mine[:_SUREST]], *ids[drawn]]
        counts[intent] = len(mine)
    wanted = pa.array(sorted({id_ for some in chosen.values() for id_ in some}), pa.string())
    everything = before_outcome(model_sessions(workspace, config, "taxonomy review"), config)
    site = site_of(rows_of(everything, pc.unique(labels["session_id"])))
    sessions = rows_of(everything, wanted)
    told = dict(zip(sessions["session_id"].to_pylist(), narrate(sessions, site=site), strict=True))
    shown = {
        intent: tuple(dict.fromkeys(told[id_] for id_ in some if id_ in told))
        for intent, some in chosen.items()
    }
    return shown, counts


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until what is being written is written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[int] = []

    def later(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal calls it
        pending.append(number)

    before = signal.signal(signal.SIGINT, later)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pending:
        raise KeyboardInterrupt
