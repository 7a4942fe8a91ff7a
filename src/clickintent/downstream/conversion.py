"""Conversion: does the session's visitor take a product afterwards, and which?

Micro F1 over all classes, "none" included, is accuracy when every row has one label: with rare
conversions "none" for everyone is hard to beat by it. The paper's figure is reported as ``micro_f1``;
more telling are ``micro_f1_products`` (micro F1 of the products without "none"), ``log_loss`` and ``auc``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickintent.downstream import metrics
from clickintent.downstream.comparison import BASELINE, Estimates, compare
from clickintent.downstream.features import FeatureSet, Matrix
from clickintent.downstream.head import Task, fit_and_predict, log_frequencies, side_by_side, softmax
from clickintent.downstream.splits import Split
from clickintent.errors import EmptyInputError, MissingColumnsError

NONE = "none"
FLOOR = "prior"
_DAY_US = 86_400_000_000
_COVERED = 0.99  # below this coverage of any method, all are measured on the covered rows as well
_ORACLE_COVERED = 0.9
_MIN_TRAIN = 20
#: Metrics by which the oracle is the best there can be; true probabilities do not maximise macro F1.
_GAINS = ("micro_f1", "micro_f1_products", "log_loss", "auc")


@dataclass(frozen=True)
class Outcomes:
    """What happened after sessions whose account is known; m of the sessions given."""

    rows: np.ndarray  # (m,) index into the sessions table
    labels: np.ndarray  # (m,) str, product or "none"
    predicted_at: np.ndarray  # (m,) int64 µs: when the session was over and its account known
    account: np.ndarray  # (m,) str
    horizon_us: int  # the label is known at predicted_at + horizon_us
    counts: dict[str, int] = field(default_factory=dict)  # sessions, linked, unobserved, used


@dataclass(frozen=True)
class Oracle:
    """The true probabilities of a simulator; NaN rows where they are not known."""

    classes: Sequence[str]
    probabilities: np.ndarray  # (n, len(classes))


def account_outcomes(
    sessions: pa.Table, conversions: pa.Table, horizon_days: float, *, observed_until: int | None = None
) -> Outcomes:
    """Label each linked session with the first product its account takes within the horizon, or "none".

    The prediction is made when the session is over and its account known: max(end, account_linked_at).
    Only conversions after that moment count. Sessions whose horizon is not observed to its end are left
    out, because "none" would be a guess.

    Args:
        conversions: account_id, ts (µs), product.
        observed_until: µs, until when conversions were logged; the last conversion if not given.

    Raises:
        MissingColumnsError: if conversions lack a column.
        EmptyInputError: if no session is linked to an account, or none was observed to its horizon.
    """
    missing = [c for c in ("account_id", "ts", "product") if c not in conversions.column_names]
    if missing:
        raise MissingColumnsError("conversions", missing, conversions.column_names)
    horizon = int(horizon_days * _DAY_US)
    linked = pc.and_(sessions["account_id"].is_valid(), sessions["account_linked_at"].is_valid()).to_numpy()
    rows = np.flatnonzero(linked)
    if len(rows) == 0:
        raise EmptyInputError("conversion: no session is linked to an account, so no outcome can be known.")
    taken = sessions.select(["account_id", "account_linked_at", "end"]).take(pa.array(rows))
    at = np.maximum(taken["end"].to_numpy(), taken["account_linked_at"].to_numpy()).astype(np.int64)
    account = _text(taken["account_id"])

    kept = conversions.select(["account_id", "ts", "product"]).drop_null()
    if observed_until is None:
        last = pc.max(kept["ts"]).as_py() if kept.num_rows else pc.max(sessions["end"]).as_py()
        observed_until = int(last)
    label = _first_after(account, at, horizon, kept)
    observed = at + horizon <= observed_until
    counts = {
        "sessions": sessions.num_rows,
        "linked": len(rows),
        "unobserved": int((~observed).sum()),
        "used": int(observed.sum()),
    }
    if not observed.any():
        raise EmptyInputError(
            f"conversion: {len(rows):,} sessions are linked to an account, but conversions were not logged "
            f"for {horizon_days:g} days after any of them; use a shorter conversion.horizon_days."
        )
    return Outcomes(rows[observed], label[observed], at[observed], account[observed], horizon, counts)


def evaluate_conversion(
    features: Mapping[str, FeatureSet],
    labels: np.ndarray,
    split: Split,
    *,
    seed: int,
    bootstrap: int,
    oracle: Oracle | None = None,
    times: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
) -> dict[str, Any]:
    """Train and test one head per method; all inputs have the same n rows.

    Args:
        features: by method. Differences are taken against ``page_counts`` if it is there.
        labels: (n,) str with "none" for no outcome, or bool (an outcome inside the session).
        bootstrap: number of resamples.
        times: (n,) µs, for the validation slice (the last training rows); row order if not given.
        clusters: (n,) account or visitor: drawn together in the bootstrap.

    Returns:
        ``methods``: for each method and for ``prior`` (class frequencies, no features): ``micro_f1``,
        ``micro_f1_products``, ``macro_f1``, ``log_loss``, ``auc`` (two classes: of the outcome; more:
        mean one-against-rest), each ``{"value", "low", "high"}``; n_train, n_test, coverage, rounds;
        ``difference``, ``change_percent`` and ``share_of_gain`` as in ``comparison.compare``.
        ``oracle``: its metrics. ``classes``: test rows by class. ``covered``: the same evaluation on only
        the rows that every method covers, if some method lacks rows.
        ``micro_f1`` uses the most probable class; ``micro_f1_products`` and ``macro_f1`` use the most
        probable product where p(any product) passes the threshold that maximised micro_f1_products on
        the validation slice, because with rare outcomes "none" is nearly always the most probable.
        ``{"skipped": reason}`` if there is nothing to train or test on.
    """
    labels = np.where(labels, "converted", NONE) if labels.dtype == bool else np.asarray(labels).astype(str)
    why = _unusable(labels, split)
    if why:
        return {"skipped": why}
    result = _evaluate(features, labels, split, seed, bootstrap, oracle, times, clusters)
    if min((f.coverage for f in features.values()), default=1.0) < _COVERED:
        result["covered"] = _on_covered(features, labels, split, seed, bootstrap, oracle, times, clusters)
    return result


def _evaluate(
    features: Mapping[str, FeatureSet],
    labels: np.ndarray,
    split: Split,
    seed: int,
    bootstrap: int,
    oracle: Oracle | None,
    times: np.ndarray | None,
    clusters: np.ndarray | None,
) -> dict[str, Any]:
    known = set(labels[split.train])  # classes: "none", what training saw, what only the test has
    classes = [NONE, *sorted(known - {NONE}), *sorted(set(labels[split.test]) - known - {NONE})]
    target = np.searchsorted(sorted(classes), labels, side="left")
    target = np.array([classes.index(c) for c in sorted(classes)])[np.minimum(target, len(classes) - 1)]
    trained = 1 + len(known - {NONE})
    train, test = np.flatnonzero(split.train), np.flatnonzero(split.test)
    if times is not None:
        train = train[np.argsort(times[train], kind="stable")]
    prior = log_frequencies(target, trained, train)
    task = Task(target, np.tile(prior, (len(target), 1)), train, seed)
    resamples = metrics.Resamples.draw(
        len(test), bootstrap, seed, None if clusters is None else clusters[test]
    )
    truth = target[test]

    def measure(validation: np.ndarray, probabilities: np.ndarray) -> Estimates:
        unseen = np.zeros((len(probabilities), len(classes) - probabilities.shape[1]))
        probabilities = np.hstack([probabilities, unseen])
        threshold = best_threshold(target[task.validation], validation)
        best = probabilities.argmax(axis=1)
        product = decide(probabilities, threshold)
        score = metrics.auc(truth != 0, 1 - probabilities[:, 0], resamples)
        return {
            "micro_f1": metrics.accuracy(truth, best, resamples),
            "micro_f1_products": metrics.micro_f1(truth, product, 0, resamples),
            "macro_f1": metrics.macro_f1(truth, product, len(classes), resamples),
            "log_loss": metrics.log_loss(truth, probabilities, resamples),
            "auc": score if len(classes) == 2 else metrics.macro_auc(truth, probabilities, resamples),
        }

    def method(matrix: Matrix) -> tuple[Estimates, int]:
        found = fit_and_predict(matrix, task, test)
        return measure(found.validation, found.test), found.rounds

    floor = softmax(task.offset)
    found = side_by_side("conversion", {name: partial(method, f.matrix) for name, f in features.items()})
    estimates = {FLOOR: measure(floor[task.validation], floor[test])}
    estimates |= {name: estimate for name, (estimate, _) in found.items()}

    ceiling, coverage = None, 0.0
    if oracle is not None:
        true, coverage = _oracle_probabilities(oracle, classes, floor, test)
        ceiling = measure(true[task.validation], true[test]) if coverage >= _ORACLE_COVERED else None
    methods = compare(estimates, floor=FLOOR, ceiling=ceiling, gains=_GAINS)
    for name, result in methods.items():
        result |= {
            "n_train": len(train),
            "n_test": len(test),
            "coverage": features[name].coverage if name in features else 1.0,
            "rounds": found[name][1] if name in found else 0,
        }
    table: dict[str, Any] = {
        "methods": methods,
        "baseline": BASELINE,
        "floor": FLOOR,
        "n_train": len(train),
        "n_test": len(test),
        "split_at": split.at,
        "classes": {c: int((truth == i).sum()) for i, c in enumerate(classes)},
    }
    if ceiling is not None:
        table["oracle"] = {m: e.interval() for m, e in ceiling.items()} | {"coverage": coverage}
    elif oracle is not None:
        table["oracle"] = {"skipped": f"the truth is known of only {coverage:.0%} of the test rows"}
    return table


def _on_covered(
    features: Mapping[str, FeatureSet],
    labels: np.ndarray,
    split: Split,
    seed: int,
    bootstrap: int,
    oracle: Oracle | None,
    times: np.ndarray | None,
    clusters: np.ndarray | None,
) -> dict[str, Any]:
    kept = np.logical_and.reduce([f.present for f in features.values()])
    part = split.within(kept)
    why = _unusable(labels[kept], part)
    if why:
        return {"skipped": why}
    return _evaluate(
        {name: f.take(kept) for name, f in features.items()},
        labels[kept],
        part,
        seed,
        bootstrap,
        None if oracle is None else Oracle(oracle.classes, oracle.probabilities[kept]),
        None if times is None else times[kept],
        None if clusters is None else clusters[kept],
    )


def decide(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """The most probable product where p(not none) reaches the threshold, else "none" (class 0)."""
    if probabilities.shape[1] < 2:
        return np.zeros(len(probabilities), np.int64)
    product = 1 + probabilities[:, 1:].argmax(axis=1)
    return np.where(1 - probabilities[:, 0] >= threshold, product, 0)


def best_threshold(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """The threshold of ``decide`` with the highest micro F1 of products; 0.5 if nothing can tell."""
    if not (truth > 0).any() or probabilities.shape[1] < 2:
        return 0.5
    score = 1 - probabilities[:, 0]
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum((1 + probabilities[:, 1:].argmax(axis=1) == truth)[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + (truth > 0).sum())
    ends = np.append(np.diff(score[order]) != 0, True)  # the last of equal scores
    best = np.flatnonzero(ends)[f1[ends].argmax()]
    return float(score[order][best])


def _first_after(account: np.ndarray, at: np.ndarray, horizon: int, conversions: pa.Table) -> np.ndarray:
    """Product of the first conversion of the account in (at, at + horizon], else "none"."""
    their, ts, product = (
        _text(conversions["account_id"]),
        conversions["ts"].to_numpy().astype(np.int64),
        _text(conversions["product"]),
    )
    code = np.unique(np.concatenate([account, their]), return_inverse=True)[1].ravel()
    moment = np.unique(np.concatenate([at, ts]), return_inverse=True)[1].ravel()
    key = code.astype(np.int64) * (len(moment) + 1) + moment
    asked, happened = key[: len(account)], key[len(account) :]
    order = np.lexsort((product, happened))
    found = np.searchsorted(happened[order], asked, side="right")
    label = np.full(len(account), NONE, dtype=object)
    there = np.flatnonzero(found < len(order))
    hit = order[found[there]]
    right = (their[hit] == account[there]) & (ts[hit] - at[there] <= horizon)
    label[there[right]] = product[hit[right]]
    return label.astype(str)


def _oracle_probabilities(
    oracle: Oracle, classes: list[str], floor: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, float]:
    """Probabilities in the order of ``classes``; rows that the oracle does not know get the floor's."""
    column = {c: i for i, c in enumerate(oracle.classes)}
    n = len(oracle.probabilities)
    true = np.column_stack(
        [oracle.probabilities[:, column[c]] if c in column else np.zeros(n) for c in classes]
    )
    known = np.isfinite(true).all(axis=1) & (true.sum(axis=1) > 0)
    padded = np.hstack([floor, np.zeros((n, len(classes) - floor.shape[1]))])
    true = np.where(known[:, None], true, padded)
    return true / true.sum(axis=1, keepdims=True), float(known[test].mean())


def _unusable(labels: np.ndarray, split: Split) -> str | None:
    """Why nothing can be learned or measured, if so."""
    n_train, n_test = int(split.train.sum()), int(split.test.sum())
    if n_train < _MIN_TRAIN:
        return f"only {n_train} labelled rows before the split; {_MIN_TRAIN} are needed to train"
    if n_test == 0:
        return "no labelled row after the split; move split.at back, or give more data"
    if len(set(labels[split.train])) < 2:
        return f"all labels before the split are {str(labels[split.train][0])!r}; nothing can be learned"
    return None


def _text(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.to_pylist(), dtype=object).astype(str)
