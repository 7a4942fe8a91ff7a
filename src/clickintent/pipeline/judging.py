"""The quality gates of the taxonomy on a workspace: what labels show at once, and what must be asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickintent.config import Config
from clickintent.errors import EmptyInputError
from clickintent.pipeline import contract
from clickintent.pipeline.inputs import (
    before_outcome,
    embeddings_of,
    model_sessions,
    past,
    rows_of,
    split_at,
)
from clickintent.taxonomy import Taxonomy, annotate, draft, gates, site_of, soft_targets
from clickintent.taxonomy.gates import Gate
from clickintent.workspace import Metrics, Workspace, fingerprint, open_workspace


def check(
    config: Config, *, stability: bool = False, agreement: bool = False, force: bool = False
) -> Metrics:
    """Measure the gates and keep them in ``metrics.json``, in the sections that begin with ``gates``.

    Args:
        stability: also draft twice, with the sample in two orders. Costs the calls of two drafts, and those
            of labelling ``gates.sessions`` sessions with each.
        agreement: also label ``gates.sessions`` sessions again. Costs their calls.

    Returns:
        By gate: its number, limit, whether it passed, what it means and what to do. Of the two that cost
        calls, the last result, as long as it is of the present labels and settings.

    Raises:
        WorkspaceError: if there are no labels of the present taxonomy.
    """
    with open_workspace(config.workspace) as workspace:
        taxonomy = contract.with_labels(workspace, "taxonomy check")[0]
        basis = [
            config.gates,
            config.seed,
            config.taxonomy,  # of the two drafts
            config.split,
            contract.asked(config),
            taxonomy.digest,
            workspace.record("label"),
        ]
        found = _kept(workspace, "gates", _of_labels, (config, taxonomy), basis, force)
        for name, measure, wanted in (
            ("stability", _stability, stability),
            ("agreement", _agreement, agreement),
        ):
            if wanted:
                found |= _kept(workspace, f"gates_{name}", measure, (config, taxonomy), basis, force)
            else:
                last = workspace.metrics().get(f"gates_{name}", {})
                if last.get("made_from") == fingerprint(*basis):
                    found |= last["gates"]
        return found


def _kept(
    workspace: Workspace,
    section: str,
    measure: Callable[[Workspace, Config, Taxonomy], Sequence[Gate]],
    arguments: tuple[Config, Taxonomy],
    basis: list[Any],
    force: bool,
) -> Metrics:
    """Gates that are measured unless they were, on the same basis, and kept under ``section``."""

    def work() -> Metrics:
        found = {gate.name: gate.as_dict() for gate in measure(workspace, *arguments)}
        return {section: {"made_from": fingerprint(*basis), "gates": found}}

    metrics = workspace.stage(section, work, made_from=basis, outputs=[], force=force)
    gates: Metrics = metrics[section]["gates"]
    return gates


def _of_labels(workspace: Workspace, config: Config, taxonomy: Taxonomy) -> list[Gate]:
    _, labels, annotated = contract.with_labels(workspace, "taxonomy check")
    ids, weights = annotated["session_id"].to_pylist(), annotated["weight"].to_numpy()
    present = soft_targets(labels, ids, taxonomy.intent_ids) > 0
    limits = config.gates
    return [
        gates.other(present, weights, limits.other),
        gates.together(present, weights, taxonomy, limits.together),
        gates.alike(taxonomy, limits.alike),
        gates.smallest(present, weights, taxonomy, limits.smallest),
    ]


def _stability(workspace: Workspace, config: Config, taxonomy: Taxonomy) -> list[Gate]:  # noqa: ARG001
    sessions = before_outcome(model_sessions(workspace, config, "taxonomy check"), config)
    sessions = past(sessions, split_at(sessions, config))
    embeddings = embeddings_of(workspace, config, sessions, "taxonomy check")
    cache = workspace.path(contract.ANSWERS)
    drafts = [draft(sessions, embeddings, config, cache, order=order) for order in (0, 1)]
    shown = sessions.take(_drawn(sessions.num_rows, config))
    ids = shown["session_id"].to_pylist()
    first, second = (
        soft_targets(annotate(shown, d, config, cache).labels, ids, d.intent_ids) for d in drafts
    )
    names = tuple([intent.name for intent in d.intents] for d in drafts)
    return [gates.stability(first, second, (names[0], names[1]), config.gates.stability)]


def _agreement(workspace: Workspace, config: Config, taxonomy: Taxonomy) -> list[Gate]:
    _, labels, annotated = contract.with_labels(workspace, "taxonomy check")
    chosen = annotated.take(_drawn(annotated.num_rows, config))
    everything = before_outcome(model_sessions(workspace, config, "taxonomy check"), config)
    sessions = rows_of(everything, chosen["session_id"].combine_chunks())
    # in another company than before, or the answers would come from the cache
    sessions = sessions.take(np.random.default_rng(config.seed).permutation(sessions.num_rows))
    site = site_of(rows_of(everything, annotated["session_id"].combine_chunks()))
    again = annotate(sessions, taxonomy, config, workspace.path(contract.ANSWERS), site=site)
    answered = pc.is_in(chosen["session_id"], value_set=pa.array(again.answered, pa.string()))
    both = chosen.filter(answered)
    if not both.num_rows:
        raise EmptyInputError("the second labelling pass answered no session; see the model's answers.")
    ids = both["session_id"].to_pylist()
    first, second = (soft_targets(t, ids, taxonomy.intent_ids) > 0 for t in (labels, again.labels))
    return [gates.agreement(first, second, both["weight"].to_numpy(), taxonomy, config.gates.agreement)]


def _drawn(n: int, config: Config) -> np.ndarray:
    size = min(n, config.gates.sessions)
    return np.sort(np.random.default_rng(config.seed).choice(n, size, replace=False))
