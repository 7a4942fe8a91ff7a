"""The two downstream tasks on a workspace's tables: which rows, which features, which labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clickintent.config import AccountConversion, Config, InSessionConversion, PrivacyConfig, TilesConfig
from clickintent.downstream import (
    METHODS,
    FeatureSet,
    PageCounts,
    Split,
    account_outcomes,
    concatenate,
    evaluate_conversion,
    evaluate_prefixes,
    evaluate_tiles,
    evening_features,
    latest_session,
    read_slates,
    temporal_split,
)
from clickintent.downstream.features import Matrix
from clickintent.downstream.truth import conversion_oracle, tile_oracle
from clickintent.errors import DataError, EmptyInputError
from clickintent.events.coding import pseudonyms
from clickintent.events.prefix import events_before
from clickintent.pipeline import contract
from clickintent.pipeline.inputs import embeddings_of, load_encoder, needed
from clickintent.taxonomy import IntentLabeler, soft_targets
from clickintent.workspace import Metrics, Workspace


def read_outside(path: Path, key: str, privacy: PrivacyConfig) -> pa.Table:
    """Read a Parquet file that the configuration names; its account ids as they stand in our tables.

    Raises:
        ConfigError: if ids are hashed and the environment holds no key.
        DataError: if it is missing or not Parquet.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise DataError(f"{key}: no such file: {path}") from error
    except pa.ArrowInvalid as error:
        raise DataError(f"{key}: {path} is not a readable Parquet file: {error}") from error
    at = table.schema.get_field_index("account_id")
    return table if at < 0 else table.set_column(at, "account_id", pseudonyms(table["account_id"], privacy))


def account_conversion(
    workspace: Workspace, config: Config, outcome: AccountConversion, sessions: pa.Table, at: int
) -> Metrics:
    """Which product, if any, the account of a linked session takes within the horizon."""
    try:
        found = account_outcomes(
            sessions, read_outside(outcome.path, "conversion.path", config.privacy), outcome.horizon_days
        )
    except EmptyInputError as error:
        return {"kind": "account", "skipped": str(error)}
    linked = sessions.take(pa.array(found.rows))
    split = temporal_split(found.predicted_at, at, embargo_us=found.horizon_us)
    truth = config.evaluate.truth
    result = evaluate_conversion(
        _features(workspace, config, linked, split.train),
        found.labels,
        split,
        seed=config.seed,
        bootstrap=config.evaluate.bootstrap,
        oracle=conversion_oracle(truth, linked) if truth else None,
        times=found.predicted_at,
        clusters=found.account,
    )
    return {"kind": "account", "main_metric": "auc", "rows": found.counts, **result}


def in_session_conversion(
    workspace: Workspace, config: Config, outcome: InSessionConversion, sessions: pa.Table, at: int
) -> Metrics:
    """Whether the session reaches the outcome, from the events before it and from the first k events."""
    cut, reached = events_before(sessions, page=outcome.page, event_type=outcome.event_type)
    # A session that straddles the split is in neither part; the outcome ends within the whole session.
    start, end = cut["start"].to_numpy(), _whole_end(sessions, cut)
    split = Split(train=end < at, test=start >= at, at=at)
    result = evaluate_conversion(
        _features(workspace, config, cut, split.train),
        reached,
        split,
        seed=config.seed,
        bootstrap=config.evaluate.bootstrap,
        times=start,
        clusters=_visitors(cut),
    )
    prefixes = evaluate_prefixes(
        sessions,
        _prefix_features(workspace),
        prefixes=outcome.prefixes,
        at=at,
        seed=config.seed,
        bootstrap=config.evaluate.bootstrap,
        page=outcome.page,
        event_type=outcome.event_type,
    )
    return {"kind": "in_session", "main_metric": "auc", **prefixes, **result}


def tiles(
    workspace: Workspace, config: Config, settings: TilesConfig, sessions: pa.Table, at: int
) -> Metrics:
    """Which of the shown tiles the account taps, from its latest web session as of then."""
    slates = read_slates(read_outside(settings.path, "tiles.path", config.privacy))
    index = latest_session(slates, sessions, settings.lookback_days)
    # Page counts and head learn from sessions that ended before the split; one that is the latest of a
    # training slate has.
    is_past = pc.less(sessions["end"], at).to_numpy()
    truth = config.evaluate.truth
    used, index = _only_used(index)
    return evaluate_tiles(
        slates,
        index,
        _features(workspace, config, sessions.take(pa.array(used)), is_past[used]),
        temporal_split(slates.ts, at),
        seed=config.seed,
        bootstrap=config.evaluate.bootstrap,
        oracle=tile_oracle(truth, slates) if truth else None,
    )


def _only_used(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sessions that occur in an index, and the index into those; −1 stays."""
    used = np.unique(index[index >= 0])
    return used, np.where(index >= 0, np.searchsorted(used, index), -1)


def _features(
    workspace: Workspace, config: Config, sessions: pa.Table, train: np.ndarray
) -> dict[str, FeatureSet]:
    """Every method's features of sessions that show nothing of the outcome."""
    embedding = embeddings_of(workspace, config, sessions, "evaluate")
    student = IntentLabeler.load(needed(workspace, "student", "evaluate", "distill"))
    past = sessions.filter(pa.array(train))
    counts = FeatureSet("page_counts", PageCounts.fit(past).transform(sessions))
    embedded = FeatureSet.of("embedding", embedding)
    made = {
        "page_counts": counts,
        "embedding": embedded,
        "llm_labels": FeatureSet.of("llm_labels", _teacher_labels(workspace, sessions)),
        "student_labels": FeatureSet.of("student_labels", student.predict_proba(embedding)),
        "embedding_page_counts": concatenate("embedding_page_counts", embedded, counts),
        "evening": FeatureSet("evening", evening_features(sessions, fit_on=past)),
    }
    assert set(METHODS) <= set(made)
    return made


def _teacher_labels(workspace: Workspace, sessions: pa.Table) -> np.ndarray:
    """The teacher's confidences (n, intents); NaN for sessions that it was not asked about."""
    taxonomy, labels, annotated = contract.with_labels(workspace, "evaluate")
    found = soft_targets(labels, sessions["session_id"].to_pylist(), taxonomy.intent_ids)
    asked = pc.is_in(sessions["session_id"], value_set=annotated["session_id"].combine_chunks()).to_numpy()
    found[~asked] = np.nan
    return found


def _prefix_features(workspace: Workspace) -> Callable[[pa.Table], Mapping[str, Matrix]]:
    """Features of sessions cut to their first events. A language model is not asked about those."""
    encoder = load_encoder(workspace, "evaluate")
    student = IntentLabeler.load(needed(workspace, "student", "evaluate", "distill"))

    def features_of(cut: pa.Table) -> Mapping[str, Matrix]:
        embedding = encoder.embed(cut)
        return {"embedding": embedding, "student_labels": student.predict_proba(embedding)}

    return features_of


def _whole_end(sessions: pa.Table, cut: pa.Table) -> np.ndarray:
    index = pc.index_in(cut["session_id"], value_set=sessions["session_id"].combine_chunks())
    found: np.ndarray = sessions["end"].to_numpy()[index.to_numpy()]
    return found


def _visitors(sessions: pa.Table) -> np.ndarray:
    found: np.ndarray = sessions["visitor_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    return found
