"""From session embeddings to intents in words: the taxonomy, its labels, and the student that learns them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from clickintent.config import Config
from clickintent.errors import DataError, EmptyInputError
from clickintent.taxonomy import keywords
from clickintent.taxonomy.annotation import Annotation, annotation_of, answered_of, soft_targets
from clickintent.taxonomy.answers import estimate_tokens
from clickintent.taxonomy.backends import open_model
from clickintent.taxonomy.diff import Diff, diff
from clickintent.taxonomy.generate import generate
from clickintent.taxonomy.graph import IntentGraph, export_graph
from clickintent.taxonomy.label import annotate
from clickintent.taxonomy.llm import LanguageModel
from clickintent.taxonomy.narrate import narrate, site_of
from clickintent.taxonomy.openai_model import OpenAIModel
from clickintent.taxonomy.plans import Plan, plan, plan_draft
from clickintent.taxonomy.sample import cluster, within_budget
from clickintent.taxonomy.student import IntentLabeler
from clickintent.taxonomy.taxonomy import Intent, Taxonomy, approve

__all__ = [
    "Annotation",
    "Diff",
    "Intent",
    "IntentGraph",
    "IntentLabeler",
    "LanguageModel",
    "OpenAIModel",
    "Plan",
    "Taxonomy",
    "annotate",
    "annotation_of",
    "answered_of",
    "approve",
    "diff",
    "draft",
    "export_graph",
    "narrate",
    "plan",
    "plan_draft",
    "site_of",
    "soft_targets",
    "to_draft_from",
]


def draft(
    sessions: pa.Table, embeddings: np.ndarray, config: Config, cache: Path, *, order: int = 0
) -> Taxonomy:
    """Draft a taxonomy of at most ``config.taxonomy.intents`` intents, by the backend of ``config.llm``.

    Args:
        sessions: table of the sessions schema.
        embeddings: (n, dim), a row per session.
        cache: folder for the answers of the language model.
        order: another number takes the same sessions in another order, to see how much that matters.

    Raises:
        EmptyInputError: if there is no session.
        DataError: if embeddings and sessions do not fit together.
        AnswersNeededError: if requests were written that have to be answered first (batch files).
        LanguageModelError: if the endpoint cannot be used.
    """
    seed = config.seed + order
    if config.llm.backend == "keywords":
        _check(sessions, embeddings)
        if order:
            rows = np.random.default_rng(seed).permutation(sessions.num_rows)
            sessions, embeddings = sessions.take(rows), embeddings[rows]
        return keywords.draft(sessions, embeddings, config.taxonomy.intents, seed=seed)
    narratives = to_draft_from(sessions, embeddings, config)
    with open_model(config, cache) as model:
        return generate(narratives, model, config.taxonomy, seed=seed, prompts=config.llm.prompts)


def to_draft_from(sessions: pa.Table, embeddings: np.ndarray, config: Config) -> list[str]:
    """Narratives of the sessions that a language model drafts from: a sample of all clusters that fits into
    the configured number of tokens.

    Raises:
        EmptyInputError: if there is no session.
        DataError: if embeddings and sessions do not fit together.
    """
    _check(sessions, embeddings)
    wanted = config.taxonomy

    def cost(rows: np.ndarray) -> np.ndarray:
        return np.asarray([estimate_tokens(text) for text in narrate(sessions.take(rows))])

    clusters = cluster(embeddings, wanted.intents, seed=config.seed)
    sample = within_budget(clusters, wanted.sample, wanted.sample_tokens, cost, seed=config.seed)
    return narrate(sessions.take(sample.rows))


def _check(sessions: pa.Table, embeddings: np.ndarray) -> None:
    if sessions.num_rows == 0:
        raise EmptyInputError(
            "no session to draft a taxonomy from; see the section 'sessions' of metrics.json."
        )
    if len(embeddings) != sessions.num_rows:
        raise DataError(f"{sessions.num_rows:,} sessions but {len(embeddings):,} embeddings to draft from.")
