"""New intents on a workspace: who is unsure about which sessions, and what is proposed for them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickintent.config import Config
from clickintent.pipeline import contract
from clickintent.pipeline.inputs import before_outcome, embeddings_of, model_sessions
from clickintent.pipeline.reviewing import PROPOSALS
from clickintent.taxonomy import IntentLabeler, Taxonomy, novelty
from clickintent.taxonomy.novelty import Found
from clickintent.workspace import Metrics, Workspace, open_workspace


def propose(config: Config) -> Found:
    """Look for intents that the taxonomy lacks, in all sessions, and write ``proposals.yaml``.

    Proposals that were open are replaced. What was dismissed, or rejected as an intent, is not proposed under
    the same name again.

    Raises:
        WorkspaceError: if there are no labels of the present taxonomy.
    """
    with open_workspace(config.workspace) as workspace:
        taxonomy, labels, annotated = contract.with_labels(workspace, "taxonomy propose")
        sessions = before_outcome(model_sessions(workspace, config, "taxonomy propose"), config)
        embeddings = embeddings_of(workspace, config, sessions, "taxonomy propose")
        ids = sessions["session_id"].combine_chunks()
        surest = _surest(workspace, ids, embeddings, labels, annotated)
        found = novelty.propose(
            sessions, embeddings, surest, _known(workspace, taxonomy), config.novelty, seed=config.seed
        )
        novelty.save(found.proposals, workspace.path(PROPOSALS))

        def work() -> Metrics:
            return {
                "novelty": {
                    "taxonomy_version": taxonomy.version,
                    "sessions": sessions.num_rows,
                    "unsure": found.unsure,
                    "groups": found.groups,
                    "proposals": [
                        {"name": p.name, **p.evidence.model_dump(mode="json")} for p in found.proposals
                    ],
                }
            }

        workspace.stage("propose", work, made_from=[], outputs=[], force=True)
        return found


def _surest(
    workspace: Workspace, ids: pa.Array, embeddings: np.ndarray, labels: pa.Table, annotated: pa.Table
) -> np.ndarray:
    """Confidence of each session's surest label (n,): the student's, or else the teacher's.

    0 where the teacher said "none of these"; 1, which nobody looks at, where neither said anything. The
    student is asked itself: ``labels/student.parquet`` may lack labels that it is not sure enough of.
    """
    path = workspace.path("student")
    surest = np.ones(len(ids), np.float32)
    answered = pc.is_in(ids, value_set=annotated["session_id"].combine_chunks()).to_numpy(
        zero_copy_only=False
    )
    by_teacher = _highest(ids, labels)
    surest[answered] = by_teacher[answered]
    if path.exists():
        surest = IntentLabeler.load(path).predict_proba(embeddings).max(axis=1)
        surest[answered & (by_teacher == 0)] = 0
    return surest


def _highest(ids: pa.Array, labels: pa.Table) -> np.ndarray:
    row = pc.index_in(labels["session_id"], value_set=ids).combine_chunks()
    mine = row.is_valid().to_numpy(zero_copy_only=False)
    highest = np.zeros(len(ids), np.float32)
    np.maximum.at(highest, row.drop_null().to_numpy(), labels["confidence"].to_numpy()[mine])
    return highest


def _known(workspace: Workspace, taxonomy: Taxonomy) -> list[str]:
    rejected = [retired.name for retired in taxonomy.retired if not taxonomy.successors(retired.id)]
    dismissed = [d.what for d in contract.history(workspace) if d.action == "dismiss" and d.what]
    return [*(intent.name for intent in taxonomy.intents), *rejected, *dismissed]
