"""Shares and their intervals, rounded for people and files.

The sessions of one visitor resemble each other, and those of one account share its outcome. So intervals are
of clusters: with h hits among the n sessions of a cluster, the variance of the share p = Σh / Σn is
Σ(h − p·n)² / (Σn)², times c / (c − 1) of c clusters (the linearised ratio: W. G. Cochran, Sampling
Techniques, 3rd ed. 1977, chapters 6 and 9A; K.-Y. Liang and S. L. Zeger 1986, Biometrika 73). A share is as
sure as one of p(1 − p) / variance independent sessions, and with so many Wilson's interval (1927) is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from clickintent.report.views import Z

FEW = 5  # conversions, seen or expected: below this a ratio says nothing
Triple = list[float]  # value, low, high


@dataclass(frozen=True)
class Rates:
    """How many of the sessions with a known outcome converted, of each of k groups.

    Attributes:
        known, converted: (k,) sessions.
        clusters: (k,) visitors or accounts.
        worth: (k,) the independent sessions that the rate is as sure as.
        spread: (k,) variance of the logarithm of the rate over that of all sessions, the group's included.
        total: known and converted of all sessions.
    """

    known: np.ndarray
    converted: np.ndarray
    clusters: np.ndarray
    worth: np.ndarray
    spread: np.ndarray
    total: tuple[int, int]

    def rate(self, i: int) -> Triple | None:
        """The rate of group ``i``; None if the outcome of no session is known."""
        if not self.known[i]:
            return None
        share = self.converted[i] / self.known[i]
        low, high = wilson(share, self.worth[i])
        return [round(float(v), 5) for v in (share, low, high)]

    def lift(self, i: int) -> Triple | None:
        """Its rate over that of all sessions."""
        known, converted = self.total
        return lift(
            int(self.converted[i]),
            int(self.known[i]),
            converted,
            known,
            worth=float(self.worth[i]),
            spread=float(self.spread[i]),
        )


def rates(group: np.ndarray, hit: np.ndarray, cluster: np.ndarray, k: int) -> Rates:
    """Rates of k groups of m sessions with a known outcome.

    Args:
        group: (m,) −1: of no group, and one of all.
        hit: (m,) bool.
        cluster: (m,) numbers; sessions of one cluster are not independent.
    """
    _, cluster = np.unique(cluster, return_inverse=True)
    size = np.bincount(cluster, minlength=1)
    c, hits = len(size), np.bincount(cluster, hit, minlength=1)
    used = group >= 0
    pairs, which = np.unique(group[used] * c + cluster[used], return_inverse=True)
    g, own = pairs // c, pairs % c
    n = np.bincount(which, minlength=len(pairs)).astype(float)
    h = np.bincount(which, hit[used], minlength=len(pairs))
    known, converted = np.bincount(g, n, minlength=k), np.bincount(g, h, minlength=k)
    clusters = np.bincount(g, minlength=k)
    share = converted / np.maximum(known, 1)
    off = h - share[g] * n
    everything = hits.sum()
    off_all = (hits - everything / max(size.sum(), 1) * size) / max(everything, 1)
    # of the logarithm of a ratio of two rates: both terms for clusters of the group, the second for others
    differs = (off / np.maximum(converted, 1)[g] - off_all[own]) ** 2 - off_all[own] ** 2
    spread = (off_all**2).sum() + np.bincount(g, differs, minlength=k)
    return Rates(
        known=known.astype(np.int64),
        converted=converted.astype(np.int64),
        clusters=clusters,
        worth=_worth(share, known, clusters, np.bincount(g, off**2, minlength=k)),
        spread=np.maximum(spread, 0.0) * c / max(c - 1, 1),
        total=(len(hit), int(everything)),
    )


def shares(group: np.ndarray, cluster: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Of m ≥ 1 sessions the share of each of k groups, and the independent sessions it is as sure as: (k,).

    Args:
        group: (m,) −1: of no group.
        cluster: (m,) numbers.
    """
    _, cluster = np.unique(cluster, return_inverse=True)
    size, n = np.bincount(cluster).astype(float), len(group)
    c, used = len(size), group >= 0
    pairs, times = np.unique(group[used] * c + cluster[used], return_counts=True)
    g, own = pairs // c, pairs % c
    share = np.bincount(g, times, minlength=k) / n
    squares = (
        np.bincount(g, times**2, minlength=k)
        - 2 * share * np.bincount(g, times * size[own], minlength=k)
        + share**2 * (size**2).sum()
    )
    return share, _worth(share, np.full(k, n), np.full(k, c), squares)


def _worth(share: np.ndarray, n: np.ndarray, clusters: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """p(1 − p) / variance: never more than n, and the clusters where the formula knows nothing.

    Args:
        squares: Σ(h − p·n)² over the clusters.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = squares / n**2 * clusters / (clusters - 1)
        found = share * (1 - share) / variance
    found = np.where((share <= 0) | (share >= 1) | (clusters < 2), clusters, found)
    worth: np.ndarray = np.minimum(np.nan_to_num(found), n)
    return worth


def wilson(
    share: np.ndarray | float, n: np.ndarray | float, z: float = Z
) -> tuple[np.ndarray | float, np.ndarray | float]:
    """The interval of Wilson 1927 around shares of n independent sessions, n need not be whole."""
    n = np.maximum(n, 1e-9)
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    return np.clip(centre - half, 0.0, share), np.clip(centre + half, share, 1.0)


def difference(
    before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray], z: float = Z
) -> tuple[np.ndarray, np.ndarray]:
    """The interval of differences of shares, after − before, from those of Wilson around both.

    R. G. Newcombe 1998, Statistics in Medicine 17, method 10. The normal one takes a rise from nothing to a
    few sessions for certain. That some visitors come in both windows is not made use of.

    Args:
        before, after: (k,) shares, and the independent sessions that they are as sure as.
    """
    (p, q), (low_p, high_p), (low_q, high_q) = (before[0], after[0]), wilson(*before, z), wilson(*after, z)
    low, high = np.hypot(q - low_q, high_p - p), np.hypot(high_q - q, p - low_p)
    return q - p - low, q - p + high


def lift(
    converted: int,
    known: int,
    all_converted: int,
    all_known: int,
    *,
    worth: float | None = None,
    spread: float = 0.0,
) -> Triple | None:
    """A group's rate over the rate of all sessions, the group's included.

    The interval is of the logarithm (delta method): with w the group's share of the sessions,
    p = w·p₁ + (1 − w)·p₂, and p₁ and p₂ independent.

    Args:
        worth: the independent sessions that the group's rate is as sure as; all of them if it is not given.
        spread: variance of the logarithm, where sessions are not independent; what is larger counts.

    Returns:
        None if fewer than five conversions were seen and fewer than five would be expected.
    """
    if not known or not all_converted or max(converted, known * all_converted / all_known) < FEW:
        return None
    overall = all_converted / all_known
    if converted == 0:
        _, high = wilson(0.0, known if worth is None else worth)
        return [0.0, 0.0, round(float(high) / overall, 4)]
    p, w = converted / known, known / all_known
    rest = all_known - known
    other = (all_converted - converted) / rest if rest else 0.0
    by_own, by_other = 1 / p - w / overall, (1 - w) / overall
    variance = by_own**2 * p * (1 - p) / known + (by_other**2 * other * (1 - other) / rest if rest else 0.0)
    value, half = p / overall, Z * math.sqrt(max(variance, spread))
    return [round(v, 4) for v in (value, value * math.exp(-half), value * math.exp(half))]


def rounded(value: float, digits: int = 4) -> float:
    """For a file; never NaN."""
    return round(float(value), digits) if np.isfinite(value) else 0.0
