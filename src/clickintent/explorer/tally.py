"""Counts of values by intent, of which only those are told that enough people share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tally:
    """How many sessions of a group have a value: r rows, by group and then by value.

    Attributes:
        group: (r,)
        value: (r,)
        sessions: (r,)
    """

    group: np.ndarray
    value: np.ndarray
    sessions: np.ndarray

    def of(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """Values and sessions of a group, the most frequent first."""
        first, stop = np.searchsorted(self.group, [group, group + 1])
        order = np.argsort(-self.sessions[first:stop], kind="stable")
        return self.value[first:stop][order], self.sessions[first:stop][order]


def tally(group: np.ndarray, value: np.ndarray, visitor: np.ndarray, *, min_people: int) -> Tally:
    """Count; all arrays have one entry per session and value.

    Args:
        group: (m,) −1: counted in none.
        value: (m,) from 0; −1: not counted.
        visitor: (m,) from 0.
        min_people: what fewer visitors of a group share is left out.
    """
    used = (group >= 0) & (value >= 0)
    group, value, visitor = (a[used].astype(np.int64) for a in (group, value, visitor))
    k = int(value.max(initial=0)) + 1
    rows, which, sessions = np.unique(group * k + value, return_inverse=True, return_counts=True)
    people = int(visitor.max(initial=0)) + 1
    pairs = np.unique(which.ravel() * people + visitor)
    enough = np.bincount(pairs // people, minlength=len(rows)) >= min_people
    rows, sessions = rows[enough], sessions[enough]
    return Tally(rows // k, rows % k, sessions)


def people(group: np.ndarray, who: np.ndarray, k: int) -> np.ndarray:
    """How many different people each of k groups has; of n sessions, −1 is no group, or nobody."""
    used = (group >= 0) & (who >= 0)
    most = int(who.max(initial=0)) + 1
    pairs = np.unique(group[used].astype(np.int64) * most + who[used])
    return np.bincount(pairs // most, minlength=k)


def once(session: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each pair of session and value once."""
    if len(value) == 0:
        return session, value
    k = int(value.max()) + 1
    pairs = np.unique(session.astype(np.int64) * k + value)
    return pairs // k, pairs % k
