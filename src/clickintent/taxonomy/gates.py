"""Is the taxonomy good enough? Numbers that are computed from labels and definitions, not asked of a model.

Each gate has a number, a limit, what the number means, and what to do if it is on the wrong side. Shares are
weighted, so that they hold for all sessions and not for the sample that was labelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from clickintent.taxonomy.agreement import kappa
from clickintent.taxonomy.taxonomy import Taxonomy

_SHOWN = 5  # of the worst intents or pairs
_MATCHED = 0.5  # share of common sessions (Jaccard) from which two intents count as the same one
_MIN_POSITIVE = 10  # sessions with an intent below which its own number says little


@dataclass(frozen=True)
class Gate:
    """One number and what it says.

    Attributes:
        value: None if it could not be computed.
        at_least: whether ``limit`` is the least that passes; otherwise it is the most.
        worst: what fails the gate, or is nearest to it, in words.
    """

    name: str
    value: float | None
    limit: float
    at_least: bool
    meaning: str
    advice: str
    worst: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the number is on the right side; one that could not be computed is not."""
        if self.value is None:
            return False
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def as_dict(self) -> dict[str, Any]:
        """For ``metrics.json``."""
        return {**asdict(self), "worst": list(self.worst), "passed": self.passed}


def other(present: np.ndarray, weights: np.ndarray, limit: float) -> Gate:
    """The share of sessions that no intent fits.

    Args:
        present: (n, k) bool, which sessions were labelled with which intent.
        weights: (n,) how many sessions each stands for.
    """
    return Gate(
        "other",
        _share(present.sum(axis=1) == 0, weights),
        limit,
        False,
        "share of sessions that no intent fits",
        "Look at what they have in common: clickintent taxonomy propose.",
    )


def together(present: np.ndarray, weights: np.ndarray, taxonomy: Taxonomy, limit: float) -> Gate:
    """The highest share of an intent's sessions that also have one certain other intent, over pairs.

    Intents of fewer than ten labelled sessions are left out: their shares are noise.
    """
    weighted = present * weights[:, None]
    both = weighted.T @ present.astype(float)  # (k, k)
    sizes = np.diag(both)
    share = both / np.maximum(sizes[:, None], 1e-12)  # of the row's sessions, how many have the column
    few = present.sum(axis=0) < _MIN_POSITIVE
    share[few] = 0
    np.fill_diagonal(share, 0)
    return Gate(
        "together",
        float(share.max(initial=0.0)),
        limit,
        False,
        "highest share of an intent's sessions that also have one certain other intent",
        "Merge the two, or say in both definitions what sets them apart.",
        _pairs(share, taxonomy, lambda s: f"{s:.0%} of"),
    )


def alike(taxonomy: Taxonomy, limit: float) -> Gate:
    """The highest cosine of two intents' words (TF-IDF of names, definitions and what they include)."""
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer  # slow to import

    texts = [" ".join([i.name, i.definition, *i.includes]) for i in taxonomy.intents]
    counts = HashingVectorizer(norm=None, alternate_sign=False, token_pattern=r"(?u)\b\w\w+\b").transform(
        texts
    )
    words = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    cosine = np.triu((words @ words.T).toarray(), 1)
    return Gate(
        "alike",
        float(cosine.max(initial=0.0)),
        limit,
        False,
        "highest similarity of two definitions, from 0 to 1",
        "Merge the two, or define them in other words.",
        _pairs(cosine, taxonomy, lambda s: f"{s:.2f}:"),
    )


def smallest(present: np.ndarray, weights: np.ndarray, taxonomy: Taxonomy, limit: float) -> Gate:
    """The share of sessions that the rarest intent has."""
    shares = np.asarray([_share(column, weights) for column in present.T])
    order = np.argsort(shares, kind="stable")[:_SHOWN]
    return Gate(
        "smallest",
        float(shares.min()),
        limit,
        True,
        "share of sessions that the rarest intent has",
        "Merge it into a wider one or reject it, unless it must be known however rare it is.",
        tuple(f"{_called(taxonomy, j)}: {shares[j]:.2%}" for j in order),
    )


def stability(
    first: np.ndarray, second: np.ndarray, names: tuple[Sequence[str], Sequence[str]], limit: float
) -> Gate:
    """Whether drafting again, with the sample in another order, finds the same intents.

    The same sessions are labelled with both drafts, and each session counts as of its surest intent, or of
    none. The number is the adjusted mutual information (Vinh et al. 2010) of the two partitions: 0 is chance,
    1 the same. Intents are matched one to one for the most common sessions (Hungarian method).

    Args:
        first, second: (n, k) and (n, m) confidences, 0 for no label.
        names: k and m names.
    """
    from sklearn.metrics import adjusted_mutual_info_score  # here, because it is slow to import

    a, b = (np.where(c.max(axis=1) > 0, c.argmax(axis=1), -1) for c in (first, second))
    of_a = a[:, None] == np.arange(first.shape[1])
    of_b = b[:, None] == np.arange(second.shape[1])
    common = of_a.T.astype(float) @ of_b
    union = of_a.sum(axis=0)[:, None] + of_b.sum(axis=0) - common
    jaccard = common / np.maximum(union, 1)
    rows, columns = linear_sum_assignment(jaccard, maximize=True)
    matched = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    shared = [float(jaccard[j, matched[j]]) if j in matched else 0.0 for j in range(len(names[0]))]
    found = sum(share >= _MATCHED for share in shared)
    lost = np.argsort(shared, kind="stable")[:_SHOWN].tolist()
    return Gate(
        "stability",
        float(adjusted_mutual_info_score(a, b)),
        limit,
        True,
        f"adjusted mutual information of two drafts; {found} of {len(shared)} intents were found again",
        "Draft from more sessions (taxonomy.sample), or with fewer intents.",
        tuple(
            f"{names[0][j]}: {shared[j]:.0%} in common with its match" for j in lost if shared[j] < _MATCHED
        ),
    )


def agreement(
    first: np.ndarray, second: np.ndarray, weights: np.ndarray, taxonomy: Taxonomy, limit: float
) -> Gate:
    """Whether labelling the same sessions again gives the same labels: mean of the intents' Cohen's κ.

    Intents that neither pass gave to ten sessions are left out of the mean.
    """
    found = kappa(first, second, weights[None])[0]
    enough = (np.maximum(first.sum(axis=0), second.sum(axis=0)) >= _MIN_POSITIVE) & np.isfinite(found)
    order = [j for j in np.argsort(found, kind="stable").tolist() if enough[j]][:_SHOWN]
    return Gate(
        "agreement",
        float(found[enough].mean()) if enough.any() else None,
        limit,
        True,
        f"mean κ of two labelling passes, over {int(enough.sum())} of {len(found)} intents",
        "Sharpen the definitions of those at the bottom: what is in, what is out.",
        tuple(f"{_called(taxonomy, j)}: κ {found[j]:.2f}" for j in order if found[j] < limit),
    )


def _share(mask: np.ndarray, weights: np.ndarray) -> float:
    return float(weights[mask].sum() / weights.sum())


def _pairs(share: np.ndarray, taxonomy: Taxonomy, told: Any) -> tuple[str, ...]:
    flat = np.argsort(-share, axis=None, kind="stable")[:_SHOWN]
    places = zip(*np.unravel_index(flat, share.shape), strict=True)
    return tuple(
        f"{told(share[a, b])} {_called(taxonomy, a)} and {_called(taxonomy, b)}"
        for a, b in places
        if share[a, b] > 0
    )


def _called(taxonomy: Taxonomy, j: int) -> str:
    return f"{taxonomy.intents[j].id} {taxonomy.intents[j].name}"
