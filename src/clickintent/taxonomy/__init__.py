"""From session embeddings to intents in words: the taxonomy, its labels, and the student that learns them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from clickintent.config import Config
from clickintent.errors import DataError, EmptyInputError
from clickintent.taxonomy import keywords
from clickintent.taxonomy.backends import open_model
from clickintent.taxonomy.generate import generate
from clickintent.taxonomy.label import Annotation, annotate, soft_targets
from clickintent.taxonomy.llm import LanguageModel
from clickintent.taxonomy.narrate import narrate
from clickintent.taxonomy.openai_model import OpenAIModel
from clickintent.taxonomy.plans import Plan, plan, plan_draft
from clickintent.taxonomy.sample import cluster, stratified
from clickintent.taxonomy.student import IntentLabeler
from clickintent.taxonomy.taxonomy import Diff, Intent, Taxonomy, approve, diff

__all__ = [
    "Annotation",
    "Diff",
    "Intent",
    "IntentLabeler",
    "LanguageModel",
    "OpenAIModel",
    "Plan",
    "Taxonomy",
    "annotate",
    "approve",
    "diff",
    "draft",
    "narrate",
    "plan",
    "plan_draft",
    "soft_targets",
    "to_draft_from",
]


def draft(sessions: pa.Table, embeddings: np.ndarray, config: Config, cache: Path) -> Taxonomy:
    """Draft a taxonomy of at most ``config.taxonomy.intents`` intents, by the backend of ``config.llm``.

    Args:
        sessions: table of the sessions schema.
        embeddings: (n, dim), a row per session.
        cache: folder for the answers of the language model.

    Raises:
        EmptyInputError: if there is no session.
        DataError: if embeddings and sessions do not fit together.
        AnswersNeededError: if requests were written that have to be answered first (batch files).
        LanguageModelError: if the endpoint cannot be used.
    """
    if config.llm.backend == "keywords":
        _check(sessions, embeddings)
        return keywords.draft(sessions, embeddings, config.taxonomy.intents, seed=config.seed)
    narratives = to_draft_from(sessions, embeddings, config)
    with open_model(config, cache) as model:
        return generate(narratives, model, config.taxonomy, seed=config.seed, prompts=config.llm.prompts)


def to_draft_from(sessions: pa.Table, embeddings: np.ndarray, config: Config) -> list[str]:
    """Narratives of the sessions that a language model drafts from: some of every cluster.

    Raises:
        EmptyInputError: if there is no session.
        DataError: if embeddings and sessions do not fit together.
    """
    _check(sessions, embeddings)
    clusters = cluster(embeddings, config.taxonomy.intents, seed=config.seed)
    sample = stratified(clusters, config.taxonomy.sample, seed=config.seed)
    return narrate(sessions.take(sample.rows))


def _check(sessions: pa.Table, embeddings: np.ndarray) -> None:
    if sessions.num_rows == 0:
        raise EmptyInputError(
            "no session to draft a taxonomy from; see the section 'sessions' of metrics.json."
        )
    if len(embeddings) != sessions.num_rows:
        raise DataError(f"{sessions.num_rows:,} sessions but {len(embeddings):,} embeddings to draft from.")
