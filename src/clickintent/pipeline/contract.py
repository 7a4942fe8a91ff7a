"""The taxonomy in the workspace: its versions, its history, and labels that follow it.

``taxonomy.yaml`` is what people edit. ``taxonomies/vN.yaml`` are the versions as they were, and
``taxonomies/history.jsonl`` says who made them. Whatever is found in ``taxonomy.yaml`` that no version
holds is made the next one before anything is done with it, so that a version number always says which
intents it means.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clickintent import schema
from clickintent.config import Config
from clickintent.errors import ChangedError, WorkspaceError
from clickintent.pipeline.inputs import embeddings_of, needed
from clickintent.progress import say
from clickintent.taxonomy import (
    Annotation,
    Taxonomy,
    annotate,
    annotation_of,
    answered_of,
    diff,
    narrate,
    site_of,
)
from clickintent.taxonomy.edit import settle
from clickintent.taxonomy.history import Decision, append, decided, read
from clickintent.taxonomy.llm import endpoint_of
from clickintent.taxonomy.prompts import hashed
from clickintent.taxonomy.relabel import Carried, Change, carry, joined, near_examples
from clickintent.workspace import Workspace

TAXONOMY, HISTORY = "taxonomy.yaml", "taxonomies/history.jsonl"
ANSWERS = ".llm"  # of language models
BY_HAND = "unknown (the file was edited)"
_MADE_FROM, _VERSION = b"made_from", b"taxonomy_version"  # metadata of annotated.parquet


def asked(config: Config) -> list[str | None]:
    """What a model's answers depend on; not how fast, or at what cost, they come."""
    llm = config.llm
    if llm.backend == "keywords":
        return ["keywords"]
    return ["llm", endpoint_of(llm), llm.model, hashed(llm.prompts)]  # whichever way answers come


def archived(workspace: Workspace, version: int) -> Path:
    return workspace.path(f"taxonomies/v{version}.yaml")


def latest(workspace: Workspace) -> Taxonomy | None:
    """The newest version that was kept."""
    found = [re.fullmatch(r"v(\d+)\.yaml", p.name) for p in workspace.path("taxonomies").glob("v*.yaml")]
    numbers = [int(match[1]) for match in found if match]
    return Taxonomy.load(archived(workspace, max(numbers))) if numbers else None


def history(workspace: Workspace) -> list[Decision]:
    return read(workspace.path(HISTORY))


def current(workspace: Workspace, needed_by: str) -> Taxonomy:
    """The taxonomy as it stands. What was changed by hand since becomes the next version first, and a version
    that a review was making is complete with this.

    Raises:
        WorkspaceError: if there is none.
        ArtifactError: if it is not valid, or gives an id anew that was retired.
    """
    taxonomy, is_open = standing(workspace, needed_by)
    if is_open:
        taxonomy.save(archived(workspace, taxonomy.version))
    return taxonomy


def standing(workspace: Workspace, needed_by: str) -> tuple[Taxonomy, bool]:
    """The taxonomy as it stands, and whether its version is still being made: a review began it, and nothing
    used it since. What was changed by hand becomes the next version first.

    Raises:
        WorkspaceError, ArtifactError: as ``current``.
    """
    path = needed(workspace, TAXONOMY, needed_by, "taxonomy draft")
    taxonomy = Taxonomy.load(path)
    last = latest(workspace)
    if last is not None and taxonomy.digest == last.digest and taxonomy.version == last.version:
        return taxonomy, False
    if last is None:
        taxonomy.save(archived(workspace, taxonomy.version))
        return taxonomy, False
    decisions = history(workspace)
    if decisions and decisions[-1].digest == taxonomy.digest and taxonomy.version == last.version + 1:
        return taxonomy, True
    edited = settle(last, taxonomy)
    keep(workspace, edited, decided(by=BY_HAND, action="edit", version=edited.version, digest=edited.digest))
    edited.save(archived(workspace, edited.version))
    say(f"  taxonomy.yaml was edited; it is version {edited.version} now")
    return edited, False


def keep(workspace: Workspace, taxonomy: Taxonomy, decision: Decision) -> None:
    """Write the taxonomy, then who decided so. A version that was kept already only gains signatures."""
    taxonomy.save(workspace.path(TAXONOMY))
    path = archived(workspace, taxonomy.version)
    if path.exists():
        taxonomy.save(path)
    append(workspace.path(HISTORY), decision)


def drafted(workspace: Workspace, taxonomy: Taxonomy) -> None:
    """Keep a fresh draft as a version of its own.

    The history comes first and the version last: killed in between, what is there is the taxonomy before, or
    the draft that the history speaks of; ``current`` tells the two apart from an edit by hand.
    """
    decisions = history(workspace)
    if not decisions or decisions[-1].digest != taxonomy.digest:
        by = taxonomy.model or "the keyword namer"
        append(
            workspace.path(HISTORY),
            decided(by=by, action="draft", version=taxonomy.version, digest=taxonomy.digest),
        )
    taxonomy.save(workspace.path(TAXONOMY))
    taxonomy.save(archived(workspace, taxonomy.version))


def is_a_persons(workspace: Workspace, taxonomy: Taxonomy) -> bool:
    """Whether somebody approved the taxonomy or changed it since it was drafted."""
    decisions = history(workspace)
    if taxonomy.approved_by is not None or (decisions and decisions[-1].action != "draft"):
        return True
    path = archived(workspace, taxonomy.version)
    return not path.exists() or path.read_bytes() != workspace.path(TAXONOMY).read_bytes()


def labelled(
    workspace: Workspace, config: Config, sessions: pa.Table, taxonomy: Taxonomy, made_from: str, force: bool
) -> Annotation:
    """Annotate sessions; those whose labels a change of the taxonomy does not touch keep them.

    Args:
        made_from: a fingerprint of what, beside the taxonomy, the labels depend on.
        force: ask about all of them.
    """
    cache, site = workspace.path(ANSWERS), site_of(sessions)
    carried = None if force else carried_over(workspace, config, sessions, taxonomy, made_from)
    if carried is None:
        found = annotate(sessions, taxonomy, config, cache)
        n = sessions.num_rows
        everything = {"sessions": n, "kept": 0, "mapped": 0, "asked": n}
        return replace(found, metrics={**found.metrics, "relabelled": everything})
    counts = carried.counts
    say(
        f"  {counts['kept']:,} sessions keep their labels, {counts['mapped']:,} are mapped, "
        f"{counts['asked']:,} are asked again"
    )
    ids = sessions["session_id"].combine_chunks()
    if carried.ask.any():
        # a few that nobody can answer must not keep all others from their labels
        few = sessions.filter(pa.array(carried.ask))
        again = annotate(few, taxonomy, config, cache, site=site, give_up=False)
    else:  # without the key that a model would need
        source = "keywords" if config.llm.backend == "keywords" else "llm"
        again = annotation_of(schema.LABELS.empty_table(), [], [], source, {})
    states = dict(zip(*(again.states[name].to_pylist() for name in ("session_id", "state")), strict=True))
    every = ids.to_pylist()
    table = joined([carried.labels, again.labels], ids)
    together = annotation_of(
        table, every, [states.get(id_, "none_of_these") for id_ in every], again.metrics["source"], {}
    )
    metrics = {**again.metrics, **together.metrics, "relabelled": counts}
    return replace(together, metrics=metrics)


def carried_over(
    workspace: Workspace, config: Config, sessions: pa.Table, taxonomy: Taxonomy, made_from: str
) -> Carried | None:
    """The labels that stay, and the sessions to ask; None if all must be asked, because the labels that are
    there depend on something else that changed.
    """
    old = _labels_to_keep(workspace, made_from)
    if old is None:
        return None
    labels, answered, before = old
    found, by_keywords = diff(before, taxonomy), config.llm.backend == "keywords"
    if by_keywords and (
        before.calibration != taxonomy.calibration or any(not new.keywords for _, new in found.renamed)
    ):
        return None  # an intent without keywords is known by its name; and asking costs nothing
    change = Change.of(found, by_keywords=by_keywords)
    ids = sessions["session_id"].combine_chunks()
    near = np.zeros(len(ids), bool)
    if any(change.added):
        embeddings = embeddings_of(workspace, config, sessions, "label")
        near = near_examples(narrate(sessions), embeddings, change.added, config.relabel.nearest)
    return carry(labels, ids, answered, change, version=taxonomy.version, config=config.relabel, near=near)


def annotated_table(
    everything: pa.Table, sessions: pa.Table, annotation: Annotation, made_from: str, version: int
) -> pa.Table:
    """``annotation.states`` with a column ``weight``: how many sessions each one that was answered stands
    for; 0 for the others.

    A sample takes more of the sessions whose owner is known, so each of the two kinds has its weight:
    sessions of the kind over those answered (Horvitz–Thompson, after the fact). Weights sum to the number
    of sessions, if both kinds were answered.

    Args:
        everything: all that could have been asked about.
        sessions: those that were, in the order of the states.
    """
    states = annotation.states
    answered = pc.is_in(states["session_id"], value_set=answered_of(states)).to_numpy()
    linked = sessions["account_id"].is_valid().to_numpy()
    all_linked = everything["account_id"].is_valid().to_numpy()
    weights = np.zeros(states.num_rows)
    for kind in (True, False):
        mine = answered & (linked == kind)
        if mine.any():
            weights[mine] = (all_linked == kind).sum() / mine.sum()
    table = states.append_column("weight", pa.array(weights))
    return table.replace_schema_metadata({_MADE_FROM: made_from, _VERSION: str(version)})


def labels_version(workspace: Workspace) -> int | None:
    """The version of the taxonomy that ``labels/teacher.parquet`` follows."""
    path = workspace.path("labels/annotated.parquet")
    metadata = pq.read_schema(path).metadata or {} if path.exists() else {}
    return int(metadata[_VERSION]) if _VERSION in metadata else None


def with_labels(workspace: Workspace, needed_by: str) -> tuple[Taxonomy, pa.Table, pa.Table]:
    """The present taxonomy, the labels under it, and the sessions that were answered, with their weights.

    Raises:
        WorkspaceError: if there are none yet.
    """
    taxonomy = current(workspace, needed_by)
    if labels_version(workspace) != taxonomy.version:
        raise WorkspaceError(
            f"{needed_by}: version {taxonomy.version} of the taxonomy has no labels yet. Run 'clickintent "
            "label FILE.toml' first."
        )
    labels, annotated = (
        pq.read_table(needed(workspace, f"labels/{name}.parquet", needed_by, "label"))
        for name in ("teacher", "annotated")
    )
    answered = pc.is_in(annotated["session_id"], value_set=answered_of(annotated))
    return taxonomy, labels, annotated.filter(answered)


def _labels_to_keep(workspace: Workspace, made_from: str) -> tuple[pa.Table, pa.Array, Taxonomy] | None:
    """Labels, the sessions they speak of, and the taxonomy they follow, if all else is as it was."""
    labels, annotated = (workspace.path(f"labels/{name}.parquet") for name in ("teacher", "annotated"))
    version = labels_version(workspace)
    if version is None or not labels.exists() or not archived(workspace, version).exists():
        return None
    if (pq.read_schema(annotated).metadata or {}).get(_MADE_FROM) != made_from.encode():
        return None
    answered = answered_of(pq.read_table(annotated))
    return pq.read_table(labels), answered, Taxonomy.load(archived(workspace, version))


def unchanged(workspace: Workspace, seen: Taxonomy) -> None:
    """Check that nobody wrote the taxonomy since ``seen`` was read.

    Raises:
        ChangedError: if somebody did.
    """
    path = workspace.path(TAXONOMY)
    now = Taxonomy.load(path)
    if now != seen:  # signatures, too, which the digest leaves out
        raise ChangedError(
            f"{path} was changed while it was being reviewed. What was decided so far is kept; start "
            "the review again."
        )
