"""Stretches of time in whole hours, and how to compare two of them like with like.

Visits follow the hour and the day of the week. A Monday is compared with Mondays: every hour of the week
gets, in the earlier stretch, the weight with which it occurs in the later one; what one of them never saw is
left out. So no window differs from another merely because its days are others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from clickintent.encoder.features import hour_of_week

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

HOUR_US = 3_600_000_000
_CELLS = 168  # hours of a week


@dataclass(frozen=True)
class Hours:
    """h hours one after the other."""

    first: int  # hours since 1970
    exposure: Floats  # (h,) how much of the hour was watched, 0 to 1

    @classmethod
    def of(cls, begin: int, end: int) -> Hours:
        """From ``begin`` to ``end``, in µs; hours at the edges in part."""
        first, last = begin // HOUR_US, max(-(-end // HOUR_US), begin // HOUR_US + 1)
        starts = np.arange(first, last) * HOUR_US
        inside = np.minimum(starts + HOUR_US, end) - np.maximum(starts, begin)
        return cls(int(first), np.maximum(inside, 1) / HOUR_US)

    def __len__(self) -> int:
        return len(self.exposure)

    @property
    def cell(self) -> Ints:
        """(h,) the hour of the week."""
        return hour_of_week((self.first + np.arange(len(self))) * HOUR_US)

    def slot(self, us: Ints) -> Ints:
        """Which of the hours holds each time, in µs."""
        found: Ints = us // HOUR_US - self.first
        return found

    def us(self, slot: int) -> int:
        """When an hour begins, in µs."""
        return (self.first + slot) * HOUR_US

    def only(self, begin: int, end: int) -> Hours:
        """Nothing but the hours ``begin`` to ``end - 1`` was watched."""
        at = np.arange(len(self))
        return replace(self, exposure=np.where((at >= begin) & (at < end), self.exposure, 0.0))

    def without(self, begin: int, end: int) -> Hours:
        at = np.arange(len(self))
        return replace(self, exposure=np.where((at >= begin) & (at < end), 0.0, self.exposure))


def like_with_like(before: Hours, now: Hours) -> tuple[Floats, Floats]:
    """A weight for each hour of ``before`` and of ``now``, so that they hold the same hours of the week."""
    b, n = (np.bincount(hours.cell, hours.exposure, _CELLS) for hours in (before, now))
    both = (b > 0) & (n > 0)
    weight = np.where(both, n / np.where(both, b, 1.0), 0.0)
    seen = both[now.cell] & (now.exposure > 0)
    return weight[before.cell] * (before.exposure > 0), seen.astype(np.float64)
