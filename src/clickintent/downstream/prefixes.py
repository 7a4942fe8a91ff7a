"""Outcomes inside the session, predicted from its first k events: how early can it be seen?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickintent.downstream.conversion import evaluate_conversion
from clickintent.downstream.features import FeatureSet, Matrix, PageCounts, concatenate, evening_features
from clickintent.downstream.splits import Split
from clickintent.errors import ConfigError
from clickintent.events.prefix import first_events

#: From sessions to features by method. Called with sessions that are already cut.
FeaturesOf = Callable[[pa.Table], Mapping[str, Matrix]]


def evaluate_prefixes(
    sessions: pa.Table,
    features_of: FeaturesOf,
    *,
    prefixes: Sequence[int],
    at: int,
    seed: int,
    bootstrap: int,
    page: str | None = None,
    event_type: str | None = None,
) -> dict[str, Any]:
    """For each k: from the first k events, will the session reach the outcome afterwards?

    Sessions with fewer than k events, or which reached the outcome within them, are left out. Sessions
    that ended before ``at`` train, those that started from then on test. The methods ``page_counts`` and
    ``evening``, and ``embedding_page_counts`` if there is an embedding, are made here, with
    vocabularies from the training sessions of that k.

    Args:
        features_of: gets sessions cut to k events, nothing else; returns features by method.
        page, event_type: the outcome; exactly one of them.

    Returns:
        ``{"outcome": …, "prefixes": {"1": result of evaluate_conversion with n and reached, …}}``.

    Raises:
        ConfigError: if not exactly one of page and event_type is given.
    """
    if (page is None) == (event_type is None):
        raise ConfigError("evaluate_prefixes: give exactly one of page and event_type as the outcome.")
    reached_at = _first_outcome(sessions, page, event_type)
    lengths = sessions["n_events"].to_numpy()
    results: dict[str, Any] = {}
    for k in prefixes:
        kept = (lengths >= k) & (reached_at >= k)
        whole = sessions.filter(pa.array(kept))
        labels = reached_at[kept] < lengths[kept]
        start, end = whole["start"].to_numpy(), whole["end"].to_numpy()
        split = Split(train=end < at, test=start >= at, at=at)
        counted = {"n": len(labels), "reached": int(labels.sum())}
        cut = first_events(whole, np.full(len(labels), k))
        if not split.train.any() or not split.test.any():
            side = "test" if split.train.any() else "train"
            results[str(k)] = counted | {"skipped": f"no session with {k} events or more to {side} on"}
            continue
        results[str(k)] = counted | evaluate_conversion(
            _features(cut, features_of, split.train),
            labels,
            split,
            seed=seed,
            bootstrap=bootstrap,
            times=start,
            clusters=whole["visitor_id"].combine_chunks().dictionary_encode().indices.to_numpy(),
        )
    return {"outcome": page if page is not None else event_type, "prefixes": results}


def _features(cut: pa.Table, features_of: FeaturesOf, train: np.ndarray) -> dict[str, FeatureSet]:
    past = cut.filter(pa.array(train))
    counts = FeatureSet("page_counts", PageCounts.fit(past).transform(cut))
    given = {name: FeatureSet.of(name, matrix) for name, matrix in features_of(cut).items()}
    made = {"page_counts": counts, **given}
    if "embedding" in made:
        made["embedding_page_counts"] = concatenate("embedding_page_counts", made["embedding"], counts)
    made["evening"] = FeatureSet("evening", evening_features(cut, fit_on=past))
    return made


def _first_outcome(sessions: pa.Table, page: str | None, event_type: str | None) -> np.ndarray:
    """Position of the outcome's first event in each session, from 0; very large if it never comes."""
    name, wanted = ("page", page) if page is not None else ("event_type", event_type)
    events = sessions["events"]
    hit = pc.fill_null(pc.equal(pc.struct_field(pc.list_flatten(events), name), wanted), False).to_numpy()
    lengths = pc.fill_null(pc.list_value_length(events), 0).to_numpy()
    row = np.repeat(np.arange(sessions.num_rows), lengths)
    place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    first = np.full(sessions.num_rows, np.iinfo(np.int64).max)
    np.minimum.at(first, row[hit], place[hit])
    return first
