"""Which events a student's label rests on: leave one out and look again (Zeiler, Fergus 2014).

The student reads the embedding of a whole session, so no event has a part in it that could be read off. But
a session can be scored without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from clickintent.encoder.single import Event

#: Sessions as Python objects → (n, k) probabilities.
Score = Callable[[Sequence[Sequence[Event]]], np.ndarray]


def supports(events: Sequence[Event], intent: int, score: Score) -> np.ndarray:
    """What share of an intent's probability each event carries: (n,) from -∞ to 1; above 0 supports it.

    1 − p(without the event) / p(with all). Events that say the same share what they say between them: without
    one, the others are still there. A session of one event rests on it: 1.

    Args:
        intent: column of what ``score`` returns.
    """
    if len(events) < 2:
        return np.ones(len(events), np.float32)
    without = [[*events[:i], *events[i + 1 :]] for i in range(len(events))]
    probabilities = score([events, *without])[:, intent].astype(np.float64)
    found: np.ndarray = (1.0 - probabilities[1:] / max(probabilities[0], 1e-12)).astype(np.float32)
    return found
