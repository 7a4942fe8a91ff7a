"""Shares and their 95 % intervals, rounded for people and files."""

from __future__ import annotations

import math

import numpy as np

from clickintent.report.results import Interval
from clickintent.report.views import Z, wilson

FEW = 5  # conversions, seen or expected: below this a ratio says nothing
Triple = list[float]  # value, low, high


def rate(converted: int, known: int) -> Triple | None:
    """Converted, of the sessions whose outcome is known (Wilson 1927); None if it is of none."""
    found = wilson(converted, known)
    return None if found is None else triple(found)


def triple(interval: Interval) -> Triple:
    low, high = (interval.value if v is None else v for v in (interval.low, interval.high))
    return [round(v, 5) for v in (interval.value, low, high)]


def lift(converted: int, known: int, all_converted: int, all_known: int) -> Triple | None:
    """A group's rate over the rate of all sessions, the group's included.

    The interval is of the logarithm (delta method): with w the group's share of the sessions,
    p = w·p₁ + (1 − w)·p₂, and p₁ and p₂ independent.

    Returns:
        None if fewer than five conversions were seen and fewer than five would be expected.
    """
    if not known or not all_converted or max(converted, known * all_converted / all_known) < FEW:
        return None
    overall = all_converted / all_known
    if converted == 0:
        found = wilson(0, known)
        high = found.high if found else None
        return [0.0, 0.0, round((high or 0.0) / overall, 4)]
    p, w = converted / known, known / all_known
    rest = all_known - known
    other = (all_converted - converted) / rest if rest else 0.0
    by_own, by_other = 1 / p - w / overall, (1 - w) / overall
    variance = by_own**2 * p * (1 - p) / known + (by_other**2 * other * (1 - other) / rest if rest else 0.0)
    value, half = p / overall, Z * math.sqrt(variance)
    return [round(v, 4) for v in (value, value * math.exp(-half), value * math.exp(half))]


def rounded(value: float, digits: int = 4) -> float:
    """For a file; never NaN."""
    return round(float(value), digits) if np.isfinite(value) else 0.0
