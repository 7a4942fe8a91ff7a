"""Which events of a session support a label: a model's quote, found again among the steps that it was shown.

Models copy with small changes: another case, a plural, the dwell beside the title, two steps in one quote.
So a quote is taken apart at arrows, semicolons and line breaks, and each part must be found: word for word
inside a step (one of a letter or two: as the whole step), or in a step that shares most of its letters in
threes (Dice coefficient of character trigrams, which forgives slips but no other words). A part found nowhere
means that the label has no support.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from clickintent.taxonomy.content import fold

_ALIKE = 0.7  # Dice coefficient from which on a part is a step with slips
_SHORTEST = 3  # characters of a part that may be found inside a step; shorter ones are in everything
_PARTS = re.compile(r"\s*(?:→|->|;|\n)\s*")
#: What a narrative adds to a step.
_ADDED = re.compile(r"(?:\s*×\s*\d+)?(?:,\s*(?:briefly|a while|long))?$", re.IGNORECASE)


def supporting(quote: str, steps: Sequence[str]) -> tuple[int, ...]:
    """Indices of the steps that a quote is found in, ascending; empty if any part of it is found in none.

    Args:
        quote: what the model gave as evidence.
        steps: the session's events in words, as ``narrate`` shows them.
    """
    folded = [fold(step) for step in steps]
    whole = _found(fold(quote), folded)
    if whole:
        return whole
    parts = [part for part in (fold(_ADDED.sub("", p)) for p in _PARTS.split(quote.strip())) if part]
    found = [_found(part, folded) for part in parts]
    return tuple(sorted({i for where in found for i in where})) if found and all(found) else ()


def _found(part: str, steps: Sequence[str]) -> tuple[int, ...]:
    if len(part) < _SHORTEST:
        return tuple(i for i, step in enumerate(steps) if part and step == part)
    inside = re.compile(rf"(?<!\w){re.escape(part)}(?!\w)")
    exact = tuple(i for i, step in enumerate(steps) if inside.search(step))
    return exact or tuple(i for i, step in enumerate(steps) if alike(part, step) >= _ALIKE)


def alike(a: str, b: str) -> float:
    """Dice coefficient of the character trigrams of two folded texts, from 0 to 1."""
    one, other = _trigrams(a), _trigrams(b)
    both = len(one) + len(other)
    return 2 * len(one & other) / both if both else 0.0


def _trigrams(text: str) -> frozenset[str]:
    """Of every word, with its ends marked, so that the order of words does not matter."""
    words = re.findall(r"\w+", text)
    return frozenset(f" {word} "[i : i + 3] for word in words for i in range(len(word)))
