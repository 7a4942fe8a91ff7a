"""Which events a student's label rests on: leave one out and look again (Zeiler, Fergus 2014).

The student reads the embedding of a whole session, so no event has a part in it that could be read off. But
a session can be scored without it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clickintent.encoder.single import Event


def variants(events: Sequence[Event]) -> list[list[Event]]:
    """A session of n events (see ``SessionEncoder.embed_one``) without each of them in turn: n sessions."""
    return [[*events[:i], *events[i + 1 :]] for i in range(len(events))]


def shares(whole: np.ndarray, without: np.ndarray) -> np.ndarray:
    """What share of each intent's probability rests on each event: (n, k) up to 1; above 0 supports it.

    1 − p(without the event) / p(with all). Events that say the same share what they say between them: without
    one, the others are still there.

    Args:
        whole: (k,) probabilities of the session.
        without: (n, k) of its ``variants``.
    """
    found: np.ndarray = 1.0 - without / np.maximum(whole, 1e-12)
    return found
