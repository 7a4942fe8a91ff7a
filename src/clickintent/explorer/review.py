"""The taxonomy as people decide on it: its intents, what is proposed, what became of others, who decided.

Read from small files, without the workspace's lock, so that the service can answer it at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from clickintent.config import Config
from clickintent.errors import WorkspaceError
from clickintent.taxonomy import Taxonomy, history, novelty
from clickintent.taxonomy.novelty import Proposal
from clickintent.taxonomy.review import seen
from clickintent.taxonomy.taxonomy import Intent
from clickintent.workspace import Workspace

_TAXONOMY, _PROPOSALS = "taxonomy.yaml", "proposals.yaml"
_HISTORY, _LABELS = "taxonomies/history.jsonl", "labels/teacher.parquet"
_TRIES = 5


def review_document(workspace: Path | Workspace, config: Config) -> dict[str, object]:
    """What ``Review`` is in the explorer's ``data.ts``.

    Its ``digest`` is what a decision must be made on (``pipeline.reviewing.decide``). All files are as they
    were at one time, unless somebody writes them again and again. Without ``explore.sessions`` it holds no
    examples: they are single sessions.

    Raises:
        WorkspaceError: if there is no taxonomy.
        ArtifactError: if a file is not valid; says where.
    """
    root = workspace.root if isinstance(workspace, Workspace) else workspace
    for _ in range(_TRIES):
        before = stamp(root)
        document = _read(root, with_examples=config.explore.sessions)
        if stamp(root) == before:
            break
    return document


def stamp(root: Path) -> tuple[tuple[int, int, int] | None, ...]:
    """Changes when a file that the document is made of does."""
    return tuple(_of_file(root / name) for name in (_TAXONOMY, _PROPOSALS, _HISTORY, _LABELS))


def _of_file(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(root: Path, *, with_examples: bool) -> dict[str, object]:
    if not (root / _TAXONOMY).exists():
        raise WorkspaceError(f"{root / _TAXONOMY} is not there. Run 'clickintent taxonomy draft' first.")
    taxonomy = Taxonomy.load(root / _TAXONOMY)
    proposals = novelty.load(root / _PROPOSALS)
    labelled = _counts(root / _LABELS)
    valid = taxonomy.is_approved
    return {
        "version": taxonomy.version,
        "digest": seen(taxonomy, proposals),
        "approved_by": taxonomy.approved_by if valid else None,
        "approved_at": taxonomy.approved_at if valid else None,
        "intents": [_intent(intent, labelled, with_examples) for intent in taxonomy.intents],
        "proposals": [_proposal(proposal, with_examples) for proposal in proposals],
        "retired": [{"id": r.id, "name": r.name, "into": list(r.into)} for r in taxonomy.retired],
        "history": [
            {
                "at": made.at,
                "by": made.by,
                "action": made.action,
                "version": made.version,
                "intent": made.intent,
                "what": made.what,
                "why": made.why,
            }
            for made in reversed(history.read(root / _HISTORY))
        ],
    }


def _counts(path: Path) -> Mapping[str, int]:
    """Sessions that the teacher labelled, by intent."""
    if not path.exists():
        return {}
    counted = pc.value_counts(pq.read_table(path, columns=["intent_id"])["intent_id"])
    return dict(zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True))


def _intent(intent: Intent, labelled: Mapping[str, int], with_examples: bool) -> dict[str, object]:
    return {
        "id": intent.id,
        "name": intent.name,
        "definition": intent.definition,
        "area": intent.area,
        "includes": list(intent.includes),
        "excludes": list(intent.excludes),
        "examples": list(intent.examples) if with_examples else [],
        "sessions": labelled.get(intent.id),
        "is_approved": intent.is_approved,
        "approved_by": intent.approved.by if intent.approved else None,
    }


def _proposal(proposal: Proposal, with_examples: bool) -> dict[str, object]:
    return {
        "id": proposal.id,
        "name": proposal.name,
        "definition": proposal.definition,
        "sessions": proposal.evidence.sessions,
        "examples": list(proposal.examples) if with_examples else [],
    }
