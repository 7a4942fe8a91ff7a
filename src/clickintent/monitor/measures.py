"""How far two samples are apart. All take sums of features and work along the last axis, so that many pairs
of samples (the draws of a null distribution, the weeks of a chart) cost one call.

Counts of k values are sums of indicators; embeddings become sums of Fourier features, of which the kernel's
mean embedding is made. So one machine compares both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import jensenshannon, pdist

Floats = npt.NDArray[np.float64]
Measure = Literal["psi", "js", "mmd"]

_MEDIAN_ROWS = 2_000


def psi(before: npt.ArrayLike, now: npt.ArrayLike) -> Floats:
    """Population stability index, Σ (q − p) ln(q / p) over k values, of counts (…, k): (…,).

    Never negative, the same in both directions, 0 for equal shares. Half an observation of the smaller sample
    is added to every value on both sides, so that a value that one side lacks counts much but not infinitely.

    N. Siddiqi, Credit Risk Scorecards (2006); its distribution: B. Yurdakul and J. Naranjo, Statistical
    properties of the population stability index, Journal of Risk Model Validation 14 (2020).
    """
    p, q = _smoothed(before, now)
    return np.asarray(_psi_parts(p, q).sum(axis=-1))


def jensen_shannon(before: npt.ArrayLike, now: npt.ArrayLike) -> Floats:
    """Jensen-Shannon divergence to base 2 of counts (…, k): (…,), from 0 (equal shares) to 1 (none shared).

    J. Lin, Divergence measures based on the Shannon entropy, IEEE Trans. on Information Theory 37 (1991).
    """
    p, q = np.broadcast_arrays(_shares(before), _shares(now))
    with np.errstate(invalid="ignore"):  # of empty samples, which are not apart
        return np.asarray(np.nan_to_num(jensenshannon(p, q, base=2.0, axis=-1)) ** 2)


def mmd2(before: npt.ArrayLike, now: npt.ArrayLike, *, unbiased: bool = True) -> Floats:
    """Squared maximum mean discrepancy of sums of Fourier features (…, 2 m + 1), see ``Fourier``: (…,).

    Unbiased it is 0 on average for samples of the same distribution, and so sometimes negative. NaN if a
    sample is empty.

    A. Gretton et al., A kernel two-sample test, Journal of Machine Learning Research 13 (2012), Lemma 6.
    """
    b, a = np.asarray(before, np.float64), np.asarray(now, np.float64)
    n, m = b[..., -1], a[..., -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_b, mean_a = b[..., :-1] / n[..., None], a[..., :-1] / m[..., None]
        apart = ((mean_a - mean_b) ** 2).sum(axis=-1)
        if unbiased:  # without the pairs of a row with itself, whose kernel is 1
            apart = apart - (1 - (mean_a**2).sum(-1)) / (m - 1) - (1 - (mean_b**2).sum(-1)) / (n - 1)
    return np.asarray(apart)


def distance(measure: Measure, before: npt.ArrayLike, now: npt.ArrayLike) -> Floats:
    """One of the measures; of ``mmd`` the biased one, which is never negative."""
    if measure == "mmd":
        return mmd2(before, now, unbiased=False)
    return psi(before, now) if measure == "psi" else jensen_shannon(before, now)


def contributions(measure: Measure, before: Floats, now: Floats) -> Floats:
    """What each of k values adds to ``psi`` or ``js`` of counts (k,): (k,), not negative."""
    if measure == "psi":
        return _psi_parts(*_smoothed(before, now))
    p, q = _shares(before), _shares(now)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.nan_to_num(x * np.log2(x / middle), posinf=0.0, neginf=0.0) for x in (p, q)]
    return np.asarray((parts[0] + parts[1]) / 2)


@dataclass(frozen=True)
class Fourier:
    """Random features whose products are, on average, a Gaussian kernel: every row has length 1.

    A. Rahimi and B. Recht, Random features for large-scale kernel machines (2007); sines with cosines, which
    vary less: D. Sutherland and J. Schneider, On the error of random Fourier features (2015).
    """

    frequencies: npt.NDArray[np.float32]  # (dim, m)

    @classmethod
    def fit(cls, x: npt.NDArray[np.float32], m: int, *, seed: int) -> Fourier:
        """For a kernel as wide as the median distance of rows of ``x`` (n, dim), as Gretton et al. advise."""
        rng = np.random.default_rng(seed)
        some = x[rng.permutation(len(x))[:_MEDIAN_ROWS]].astype(np.float64)
        width = float(np.median(pdist(some))) if len(some) > 1 else 0.0
        drawn = rng.standard_normal((x.shape[1], m)) / (width or 1.0)
        return cls(drawn.astype(np.float32))

    def __call__(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Features (n, 2 m + 1) of rows (n, dim); the last column is 1, and counts when rows are summed."""
        angles = np.asarray(x, np.float32) @ self.frequencies
        scale = np.float32(1 / np.sqrt(angles.shape[1]))
        ones = np.ones((len(angles), 1), np.float32)
        return np.concatenate([np.cos(angles) * scale, np.sin(angles) * scale, ones], axis=1)


def _psi_parts(p: Floats, q: Floats) -> Floats:
    return np.asarray((q - p) * np.log(q / p))


def _shares(counts: npt.ArrayLike) -> Floats:
    found = np.asarray(counts, np.float64)
    total = found.sum(axis=-1, keepdims=True)
    return np.asarray(found / np.where(total > 0, total, 1.0))


def _smoothed(before: npt.ArrayLike, now: npt.ArrayLike) -> tuple[Floats, Floats]:
    b, n = np.broadcast_arrays(np.asarray(before, np.float64), np.asarray(now, np.float64))
    smaller = np.minimum(b.sum(axis=-1, keepdims=True), n.sum(axis=-1, keepdims=True))
    half = 0.5 / np.maximum(smaller, 1.0)
    p, q = ((_shares(x) + half) / (1 + half * b.shape[-1]) for x in (b, n))
    return p, q
