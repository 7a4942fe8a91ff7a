"""From session embeddings to intents in words: the taxonomy, its labels, and the student that learns them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from clickintent.config import Config
from clickintent.errors import DataError, EmptyInputError
from clickintent.taxonomy import keywords
from clickintent.taxonomy.generate import generate
from clickintent.taxonomy.graph import IntentGraph, export_graph
from clickintent.taxonomy.label import Annotation, Plan, annotate, answered_of, plan, soft_targets
from clickintent.taxonomy.llm import LanguageModel, OpenAIModel
from clickintent.taxonomy.narrate import narrate
from clickintent.taxonomy.sample import cluster, stratified
from clickintent.taxonomy.student import IntentLabeler
from clickintent.taxonomy.taxonomy import Diff, Intent, Taxonomy, approve, diff

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
    "answered_of",
    "approve",
    "diff",
    "draft",
    "export_graph",
    "narrate",
    "plan",
    "soft_targets",
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
        LanguageModelError: if the endpoint cannot be used.
    """
    if sessions.num_rows == 0:
        raise EmptyInputError(
            "no session to draft a taxonomy from; see the section 'sessions' of metrics.json."
        )
    if len(embeddings) != sessions.num_rows:
        raise DataError(f"{sessions.num_rows:,} sessions but {len(embeddings):,} embeddings to draft from.")
    wanted = config.taxonomy
    if config.llm.backend == "keywords":
        return keywords.draft(sessions, embeddings, wanted.intents, seed=config.seed)
    with OpenAIModel(config.llm, cache) as model:
        clusters = cluster(embeddings, wanted.intents, seed=config.seed)
        sample = stratified(clusters, wanted.sample, seed=config.seed)
        return generate(narrate(sessions.take(sample.rows)), model, wanted, seed=config.seed)
