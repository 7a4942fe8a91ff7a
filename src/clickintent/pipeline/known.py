"""What is known of sessions once all stages ran: their surest intent, and what followed them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from clickintent.config import AccountConversion, Config, InSessionConversion
from clickintent.errors import EmptyInputError
from clickintent.events.prefix import events_before


def top_intents(labels: pa.Table) -> pa.Table:
    """The most confident intent of each session: ``session_id``, ``intent_id``, ``confidence``."""
    session = labels["session_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.lexsort((-labels["confidence"].to_numpy(), session))
    ordered = session[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return labels.select(["session_id", "intent_id", "confidence"]).take(pa.array(order[is_first]))


def outcomes(config: Config, sessions: pa.Table) -> pa.Table | None:
    """What is known to have happened, by session: session_id, outcome ("none" included)."""
    match config.conversion:
        case AccountConversion() as outcome:
            return account_outcomes_of(config, outcome, sessions)
        case InSessionConversion() as outcome:
            cut, reached = events_before(sessions, page=outcome.page, event_type=outcome.event_type)
            found = np.where(reached, outcome_name(outcome), "none")
            return pa.table({"session_id": cut["session_id"], "outcome": pa.array(found, pa.string())})
    return None


def account_outcomes_of(config: Config, outcome: AccountConversion, sessions: pa.Table) -> pa.Table | None:
    """The same of what accounts do later; None if it is known of no session.

    Args:
        sessions: the columns ``session_id``, ``account_id``, ``account_linked_at`` and ``end`` are used.
    """
    from clickintent.downstream import account_outcomes
    from clickintent.pipeline.measure import read_outside

    conversions = read_outside(outcome.path, "conversion.path", config.privacy)
    try:
        found = account_outcomes(sessions, conversions, outcome.horizon_days)
    except EmptyInputError:
        return None
    ids = sessions["session_id"].take(pa.array(found.rows))
    return pa.table({"session_id": ids, "outcome": pa.array(found.labels, pa.string())})


def outcome_name(outcome: InSessionConversion) -> str:
    return str(outcome.page or outcome.event_type)


def outside_files(config: Config) -> list[Path]:
    """Files beside the workspace that the results depend on."""
    found = []
    if isinstance(config.conversion, AccountConversion):
        found.append(config.conversion.path)
    if config.tiles:
        found.append(config.tiles.path)
    if config.evaluate.truth:
        found.append(config.evaluate.truth)
    return [path for path in found if path.exists()]
