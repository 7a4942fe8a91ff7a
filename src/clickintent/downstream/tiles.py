"""Tile ranking: which of the homepage tiles shown does the account tap, given its latest web session?

A conditional choice among the tiles shown on slates with a click: the softmax over them of

    log position effect + tile popularity + what the features say (one boosted score per tile).

The first two are the offset that LightGBM starts from (−30 for tiles not shown), the same for every
method; alone they are the floor ``popularity``. They are a conditional logit with one constant per
position and one per tile (McFadden 1974), so a tile that is tapped because it stands on top is not
taken for a good one. It is given what was shown, so it needs no propensity weights; weights by the
tapped tile's inverse propensity would depend on the outcome, and were measured to pull tile constants
by 0.04 to 0.18 towards zero where none does without them.

``macro_recall_at_1`` and ``log_loss`` predict the tap on the slate as it was shown, positions included.
``debiased_recall_at_1`` ranks without the position effect and weighs each tap by the clipped inverse
propensity of the tile's placement: how often the tapped tile would come first if the logging policy had
placed tiles at random (Joachims et al. 2017).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import minimize

from clickintent.downstream import metrics
from clickintent.downstream.comparison import BASELINE, Estimates, compare
from clickintent.downstream.features import FeatureSet
from clickintent.downstream.head import Task, fit_and_predict, side_by_side, softmax
from clickintent.downstream.slates import Slates
from clickintent.downstream.splits import Split

FLOOR = "popularity"
NOT_SHOWN = -30.0
_WEIGHT_CLIP = 5.0  # times the mean inverse propensity
_COVERED = 0.99
_MIN_TRAIN = 20


def evaluate_tiles(
    slates: Slates,
    session_index: np.ndarray,
    features: Mapping[str, FeatureSet],
    split: Split,
    *,
    seed: int,
    bootstrap: int,
    oracle: np.ndarray | None = None,
) -> dict[str, Any]:
    """Train and test one head per method on the slates with a click and a session before them.

    Args:
        session_index: (n slates,) row of the features, −1 for none, see ``slates.latest_session``.
        features: by method; rows are sessions.
        split: masks over the slates, by their time.
        oracle: (n slates, n tiles) the simulator's click probability of each tile as shown.

    Returns:
        ``methods``: for each method and ``popularity``: ``macro_recall_at_1`` (mean over tiles of how often
        the tapped tile had the highest probability), ``recall_at_1``, ``debiased_recall_at_1`` and
        ``log_loss``, each ``{"value", "low", "high"}``, resampled by account; ``change_percent`` against
        page counts (the paper's form), ``difference`` and ``share_of_gain`` as in
        ``comparison.compare``. ``slates``: how many were left out, and why. ``covered``: the same on only
        the slates whose session every method covers, if some method lacks sessions.
        ``{"skipped": reason}`` if there is nothing to train or test on.
    """
    result = _evaluate(slates, session_index, features, split, seed, bootstrap, oracle)
    if "skipped" in result:
        return result
    has_session = session_index >= 0
    present = np.logical_and.reduce(
        [np.ones(len(has_session), bool), *(f.present[session_index] for f in features.values())]
    )
    usable = has_session & (slates.clicked >= 0) & (split.train | split.test)
    if present[usable].mean() < _COVERED:
        kept = np.where(present, session_index, -1)
        result["covered"] = _evaluate(slates, kept, features, split, seed, bootstrap, oracle)
    return result


def _evaluate(
    slates: Slates,
    session_index: np.ndarray,
    features: Mapping[str, FeatureSet],
    split: Split,
    seed: int,
    bootstrap: int,
    oracle: np.ndarray | None,
) -> dict[str, Any]:
    usable = (session_index >= 0) & (slates.clicked >= 0)
    rows = np.flatnonzero(usable & (split.train | split.test))
    n_train, n_test = int((usable & split.train).sum()), int((usable & split.test).sum())
    counts = {
        "slates": len(slates.ts),
        "with_click": int((slates.clicked >= 0).sum()),
        "with_click_and_session": int(usable.sum()),
        "train": n_train,
        "test": n_test,
    }
    if n_train < _MIN_TRAIN or n_test == 0:
        return {
            "skipped": f"{n_train} slates with a click and a session before it to train on "
            f"(of {_MIN_TRAIN} needed), {n_test} to test on",
            "slates": counts,
        }
    clicked, shown = slates.clicked[rows], slates.shown[rows]
    train, test = np.flatnonzero(split.train[rows]), np.flatnonzero(split.test[rows])
    effect, popularity = position_and_popularity(slates, split.train)
    offset = np.where(shown, effect[slates.position[rows]] + popularity, NOT_SHOWN)
    task = Task(clicked, offset, train, seed)
    resamples = metrics.Resamples.draw(len(test), bootstrap, seed, slates.account[rows[test]])
    truth = clicked[test]
    weight = _weights(slates.propensity[rows[test], truth])
    at_position = np.exp(effect[slates.position[rows[test]]])

    def measure(probabilities: np.ndarray) -> Estimates:
        probabilities = np.where(shown[test], probabilities, 0)
        best = probabilities.argmax(axis=1)
        anywhere = (probabilities / at_position).argmax(axis=1)
        return {
            "macro_recall_at_1": metrics.macro_recall(truth, best, len(slates.tiles), resamples),
            "recall_at_1": metrics.accuracy(truth, best, resamples),
            "debiased_recall_at_1": metrics.accuracy(truth, anywhere, resamples, weight),
            "log_loss": metrics.log_loss(truth, probabilities, resamples),
        }

    def method(feature_set: FeatureSet) -> tuple[Estimates, int, float]:
        taken = feature_set.take(session_index[rows])
        found = fit_and_predict(taken.matrix, task, test)
        return measure(found.test), found.rounds, taken.coverage

    found = side_by_side("tiles", {name: partial(method, f) for name, f in features.items()})
    estimates = {FLOOR: measure(softmax(offset[test]))}
    estimates |= {name: estimate for name, (estimate, _, _) in found.items()}

    ceiling = None
    if oracle is not None:
        true = np.where(shown[test], np.nan_to_num(oracle[rows[test]]), 0)
        ceiling = measure(true / np.maximum(true.sum(axis=1, keepdims=True), 1e-12))
    methods = compare(estimates, floor=FLOOR, ceiling=ceiling, gains=tuple(estimates[FLOOR]))
    for name, result in methods.items():
        result |= {
            "n_train": n_train,
            "n_test": n_test,
            "coverage": found[name][2] if name in found else 1.0,
            "rounds": found[name][1] if name in found else 0,
        }
    table: dict[str, Any] = {
        "methods": methods,
        "baseline": BASELINE,
        "floor": FLOOR,
        "n_train": n_train,
        "n_test": n_test,
        "split_at": split.at,
        "slates": counts,
        "tiles": {tile: int((truth == i).sum()) for i, tile in enumerate(slates.tiles)},
        "position_effect": [float(e) for e in np.exp(effect)],
    }
    if ceiling is not None:
        table["oracle"] = {m: e.interval() for m, e in ceiling.items()}
    return table


def position_and_popularity(slates: Slates, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Constants of the conditional logit on the clicked slates among ``rows`` (mask).

    Returns:
        Log effect of each position against the topmost (positions,), and of each tile (t,), mean 0.
    """
    index = np.flatnonzero(rows & (slates.clicked >= 0))
    position, shown, clicked = slates.position[index], slates.shown[index], slates.clicked[index]
    n, t = position.shape
    k = int(slates.position.max(initial=0)) + 1
    each = np.arange(n)
    chosen = np.concatenate(
        [np.bincount(position[each, clicked], minlength=k), np.bincount(clicked, minlength=t)]
    )

    def loss(constants: np.ndarray) -> tuple[float, np.ndarray]:
        p = softmax(np.where(shown, constants[:k][position] + constants[k:], NOT_SHOWN))
        picked = np.log(np.maximum(p[each, clicked], 1e-300))
        expected = p * shown
        by_position = np.bincount(position[shown], expected[shown], k)
        # A wide normal prior keeps what was never tapped finite.
        gradient = np.concatenate([by_position, expected.sum(axis=0)]) - chosen + 0.1 * constants
        return float(-picked.sum() + 0.05 * constants @ constants), gradient

    found = minimize(loss, np.zeros(k + t), jac=True, method="L-BFGS-B").x
    return found[:k] - found[0], found[k:] - found[k:].mean()


def _weights(propensity: np.ndarray) -> np.ndarray:
    """Inverse propensities, clipped, mean 1."""
    inverse = 1 / propensity
    clipped = np.minimum(inverse, _WEIGHT_CLIP * inverse.mean()) if len(inverse) else inverse
    weight: np.ndarray = clipped / clipped.mean() if len(clipped) else clipped
    return weight
