"""From session embeddings to intents in words: the taxonomy, its labels, and the student that learns them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from clickintent.config import Config
from clickintent.errors import DataError, EmptyInputError
from clickintent.taxonomy import keywords
from clickintent.taxonomy.diff import Diff, diff
from clickintent.taxonomy.generate import generate
from clickintent.taxonomy.label import Annotation, Plan, annotate, plan, soft_targets
from clickintent.taxonomy.llm import LanguageModel, OpenAIModel, estimate_tokens
from clickintent.taxonomy.narrate import narrate
from clickintent.taxonomy.sample import cluster, within_budget
from clickintent.taxonomy.student import IntentLabeler
from clickintent.taxonomy.taxonomy import Intent, Taxonomy, approve

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
    "soft_targets",
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
        if order:
            rows = np.random.default_rng(config.seed + order).permutation(sessions.num_rows)
            sessions, embeddings = sessions.take(rows), embeddings[rows]
        return keywords.draft(sessions, embeddings, wanted.intents, seed=config.seed + order)
    with OpenAIModel(config.llm, cache) as model:
        narratives = _sampled(sessions, cluster(embeddings, wanted.intents, seed=config.seed), config)
        return generate(narratives, model, wanted, seed=config.seed + order)


def _sampled(sessions: pa.Table, clusters: np.ndarray, config: Config) -> list[str]:
    """Narratives of a sample of all clusters that fits into the configured number of tokens."""

    def cost(rows: np.ndarray) -> np.ndarray:
        return np.asarray([estimate_tokens(text) for text in narrate(sessions.take(rows))])

    wanted = config.taxonomy
    sample = within_budget(clusters, wanted.sample, wanted.sample_tokens, cost, seed=config.seed)
    return narrate(sessions.take(sample.rows))
