"""What a person wants, as a Markov chain in continuous time, and the exact odds of what they will buy.

The state is (intent, second intent or none, stage). A person learns, compares, applies, or turns back; after
some days the intent ends and another begins, often a related one. In every state each product is opened at a
constant rate, after which the person turns to something else. Because the chain has no memory, the
probability of each product within a horizon depends on the state alone (and on the person's class), and
is solved here to numerical accuracy: it is what an oracle could know at best, not an estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from clickintent.simbank.intents import INTENTS, PRODUCTS, SEGMENTS, TASTES, weights

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

STAGES = ("learn", "compare", "apply", "service")
LEARN, COMPARE, APPLY, SERVICE = range(4)

#: Days⁻¹, by stage.
_ADVANCE = np.array([0.10, 0.030, 0.0, 0.0])
_BACK = np.array([0.0, 0.04, 0.02, 0.0])
_END = np.array([0.060, 0.055, 0.050, 0.20])
_ENTRY_STAGE = np.array([0.47, 0.39, 0.14])
_START_STAGE = np.array([0.42, 0.40, 0.18])

_NO_SECOND = 0.55
_RELATED = 0.40  # of new intents are related to the one that ended
#: How strongly the first and the second intent show in decisions.
FIRST_WEIGHT, SECOND_WEIGHT = 0.8, 0.2

#: Products opened per day by a person of average readiness, by stage.
_RATE = np.array([0.0008, 0.0030, 0.170, 0.0010])
_BACKGROUND = 0.00005  # per product, whatever the intent
_APPETITE = np.array([1.1, 1.0, 0.6, 1.2, 1.1, 1.3, 0.9, 0.9, 0.8, 0.7])

#: Web visits, relative to the person's own rate, by stage.
ACTIVITY = np.array([1.0, 1.1, 1.8, 2.0])

_THEME_OF_PRODUCT = (
    "cards",
    "cards",
    "home",
    "save",
    "save",
    "everyday",
    "vehicle",
    "borrow",
    "invest",
    "protect",
)


class Draw:
    """Draws from many discrete distributions at once: row r of ``probabilities`` (rows, k)."""

    def __init__(self, probabilities: npt.ArrayLike) -> None:
        p = np.asarray(probabilities, dtype=np.float64)
        cumulative = np.cumsum(p, axis=1)
        cumulative /= cumulative[:, -1:]
        self._k = p.shape[1]
        # One ascending sequence for all rows: row r lives in (r, r + 1].
        self._flat = (cumulative + np.arange(len(p))[:, None]).ravel()

    def __call__(self, rng: np.random.Generator, rows: npt.NDArray[np.integer]) -> Ints:
        """One outcome in 0 … k - 1 for each of ``rows``."""
        found = np.searchsorted(self._flat, rng.random(len(rows)) + rows, side="right") - rows * self._k
        outcome: Ints = np.clip(found, 0, self._k - 1).astype(np.int64)
        return outcome


@dataclass(frozen=True)
class Latent:
    """Tables of the chain over s states, c classes of people (segment × taste) and 10 products."""

    intent: Ints  # (s,)
    second: Ints  # (s,), -1: none
    stage: Ints  # (s,)
    forward: Ints  # (s,) the state one stage on
    backward: Ints  # (s,)
    advance: Floats  # (s,) days⁻¹
    back: Floats
    end: Floats
    hazard: Floats  # (c, s, 10) days⁻¹
    entry: Floats  # (segments, intents, s): where people go when an intent ends
    start: Floats  # (segments, s): where they are when the export begins
    segment: Ints  # (c,)
    class_share: Floats  # (c,)

    @property
    def n_states(self) -> int:
        return len(self.intent)

    def within(self, days: float) -> Floats:
        """Probability (c, s, 11) that the next product opened within ``days`` is each one; last: none.

        Integrates the backward equation of the chain with the classical Runge-Kutta method, step ≤ 0.5 days
        (the largest error is 3e-7 in 14 days, against a step ten times as fine).
        """
        steps = max(1, int(np.ceil(days / 0.5)))
        h = days / steps
        leave = (self.advance + self.back + self.end)[None, :, None] + self.hazard.sum(2, keepdims=True)
        entry = self.entry[self.segment]
        advance, back, end = (x[None, :, None] for x in (self.advance, self.back, self.end))

        def slope(u: Floats) -> Floats:
            anew = np.matmul(entry, u)[:, self.intent]
            gain = advance * u[:, self.forward] + back * u[:, self.backward] + end * anew
            return np.asarray(gain - leave * u + self.hazard)

        u = np.zeros_like(self.hazard)
        for _ in range(steps):
            k1 = slope(u)
            k2 = slope(u + h / 2 * k1)
            k3 = slope(u + h / 2 * k2)
            k4 = slope(u + h * k3)
            u = u + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return np.concatenate([u, 1 - u.sum(2, keepdims=True)], axis=2)


def product_affinity() -> Floats:
    """How much each intent (35 rows) leads to each product (10)."""
    return np.array([[weights(i.products).get(p, 0.0) for p in PRODUCTS] for i in INTENTS])


@cache
def build_latent() -> Latent:
    """The chain; the same for every seed."""
    number = {intent.name: i for i, intent in enumerate(INTENTS)}
    rows: list[tuple[int, int, int]] = []
    chance: list[float] = []  # of the second intent, given the first
    forward: list[int] = []
    backward: list[int] = []
    for i, intent in enumerate(INTENTS):
        seconds = [-1, *(number[name] for name in intent.related)]
        stages = (SERVICE,) if intent.kind == "service" else (LEARN, COMPARE, APPLY)
        for second in seconds:
            for stage in stages:
                here = len(rows)
                rows.append((i, second, stage))
                chance.append(_NO_SECOND if second < 0 else (1 - _NO_SECOND) / (len(seconds) - 1))
                forward.append(here + (stage in (LEARN, COMPARE)))
                backward.append(here - (stage in (COMPARE, APPLY)))
    first, second, stage = np.array(rows).T

    shares = np.array([intent.share for intent in INTENTS])
    themes = [SEGMENTS[s][1] for s in SEGMENTS]
    prior = np.array([[theme.get(i.theme, 1.0) for i in INTENTS] for theme in themes]) * shares
    prior /= prior.sum(1, keepdims=True)
    related = np.array([[float(b.name in a.related) for b in INTENTS] for a in INTENTS])
    # A related intent that does not suit the segment is as unlikely as any other that does not.
    linked = related[None] * prior[:, None, :]
    linked /= linked.sum(2, keepdims=True)
    intent_entry = _RELATED * linked + (1 - _RELATED) * prior[:, None, :]
    service = stage == SERVICE
    within_entry = np.array(chance) * np.where(service, 1.0, _ENTRY_STAGE[np.minimum(stage, APPLY)])
    within_start = np.array(chance) * np.where(service, 1.0, _START_STAGE[np.minimum(stage, APPLY)])
    started = prior / np.array([_END[LEARN if i.kind == "acquire" else SERVICE] for i in INTENTS])
    started /= started.sum(1, keepdims=True)

    n_tastes = len(TASTES)
    segment = np.repeat(np.arange(len(SEGMENTS)), n_tastes)
    hazard = np.stack(
        [
            _hazard(first, second, stage, themes[c // n_tastes], *TASTES[c % n_tastes])
            for c in range(len(segment))
        ]
    )
    share = np.array([SEGMENTS[s][0] for s in SEGMENTS])
    return Latent(
        intent=first,
        second=second,
        stage=stage,
        forward=np.array(forward),
        backward=np.array(backward),
        advance=_ADVANCE[stage],
        back=_BACK[stage],
        end=_END[stage],
        hazard=hazard,
        entry=intent_entry[:, :, first] * within_entry,
        start=started[:, first] * within_start,
        segment=segment,
        class_share=share[segment] / share.sum() / n_tastes,
    )


def _hazard(
    first: Ints, second: Ints, stage: Ints, theme: dict[str, float], level: float, lean: dict[str, float]
) -> Floats:
    affinity = product_affinity()
    other = np.where(second[:, None] >= 0, affinity[second], affinity[first])
    mix = FIRST_WEIGHT * affinity[first] + SECOND_WEIGHT * other
    suits = np.sqrt([theme.get(t, 1.0) for t in _THEME_OF_PRODUCT])
    taste = level * suits * np.array([lean.get(p, 1.0) for p in PRODUCTS]) * _APPETITE
    hazard: Floats = (_RATE[stage][:, None] * mix + _BACKGROUND) * taste
    return hazard
