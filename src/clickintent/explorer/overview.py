"""What the first page needs: data/overview.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from clickintent.explorer.rates import difference, rates, rounded, shares
from clickintent.explorer.sessions import Sessions
from clickintent.explorer.tally import people
from clickintent.report.views import DAY_US, time_unit
from clickintent.taxonomy import Intent, Taxonomy

_MONDAY_US = 4 * DAY_US  # 5 January 1970: weeks begin on Mondays
_WEEK = 7
_EDGE = 12  # a bin was seen as a whole if a session began in its first (last) twelfth: of a day, two hours
_LATE_US = DAY_US - DAY_US // _EDGE  # a day whose last session begins before was not seen to its end
_RISK = 0.05  # that any interval of a change is wrong
_FEWEST = 100  # sessions in each of two windows that are compared


def overview(
    sessions: Sessions, taxonomy: Taxonomy, about: Mapping[str, Any], *, min_people: int, sure: float | None
) -> dict[str, Any]:
    """Counts over all sessions.

    Args:
        about: what is not counted: title, made_at, versions, outcome, shown, points, shard.
        min_people: visitors or accounts that an intent must have for their number to be told; those of known
            outcome for its rate.
        sure: the confidence from which on an intent counts as present; None: not known.
    """
    unit, first, bins = binned(sessions.start)
    n_bins, k = int(bins.max()) + 1, len(sessions.intent_ids)
    used = sessions.intent >= 0
    series = np.bincount(sessions.intent[used] * n_bins + bins[used], minlength=k * n_bins).reshape(k, n_bins)
    known = sessions.is_known
    outcome = sessions.intent[known], sessions.is_converted[known], sessions.cluster[known]
    by_intent, overall = rates(*outcome, k), rates(np.zeros_like(outcome[0]), *outcome[1:], 1)
    per = {
        "sessions": np.bincount(sessions.intent[used], minlength=k),
        "linked": np.bincount(sessions.intent[used & sessions.is_linked], minlength=k),
        "confidence": np.bincount(sessions.intent[used], sessions.confidence[used], minlength=k),
    }
    visitors, accounts = (people(sessions.intent, who, k) for who in (sessions.visitor, sessions.account))
    has_links = any(link != "none" for link in set(sessions.link.tolist()))
    windows = compared(sessions.start)
    changes = _changes(sessions, windows)
    named = {intent.id: intent for intent in taxonomy.intents}
    gone = {retired.id: retired.name for retired in taxonomy.retired}
    rows = []
    for i, id_ in enumerate(sessions.intent_ids):
        n = int(per["sessions"][i])
        rows.append(
            {
                **_words(id_, named.get(id_), gone.get(id_, id_)),
                "sessions": n,
                "visitors": int(visitors[i]) if visitors[i] >= min_people else None,
                "accounts": int(accounts[i]) if accounts[i] >= min_people else None,
                "confidence": rounded(per["confidence"][i] / n) if n else None,
                "rate": by_intent.rate(i) if by_intent.clusters[i] >= min_people else None,
                "linked": rounded(per["linked"][i] / n) if n and has_links else None,
                "series": series[i].tolist(),
                "change": changes[i] if changes else None,
            }
        )
    links, counts = np.unique(sessions.link.astype(str), return_counts=True)
    return {
        "format": 1,
        **about,
        "sessions": sessions.n,
        "visitors": int(sessions.visitor.max(initial=-1)) + 1,
        "links": dict(zip(links.tolist(), counts.tolist(), strict=True)),
        "rate": overall.rate(0),
        "bin": unit,
        "bins": first,
        "partial": partly_seen(sessions.start, first),
        "from": int(sessions.start.min()) // 1000,
        "to": int(sessions.start.max()) // 1000,
        "total": np.bincount(bins, minlength=n_bins).tolist(),
        "compared": windows[0] if changes and windows else None,
        "unlabelled": int((~used).sum()),
        "sure": None if sure is None else _sure(sessions, sure),
        "intents": rows,
    }


def binned(start: np.ndarray) -> tuple[str, list[int], np.ndarray]:
    """Hours, days or weeks (UTC): their name, their starts in ms, and the bin of each session (n,)."""
    unit, length = time_unit(start)
    offset = _MONDAY_US if length > DAY_US else 0
    bins = (start - offset) // length
    first = int(bins.min())
    starts = [((first + i) * length + offset) // 1000 for i in range(int(bins.max()) - first + 1)]
    return unit, starts, bins - first


def partly_seen(start: np.ndarray, bins: Sequence[int]) -> list[int]:
    """Which of the bins (their starts, ms) may have had more sessions than were read: the first, the last."""
    _, length = time_unit(start)
    edge = length // _EDGE
    from_start = int(start.min()) - bins[0] * 1000
    to_end = bins[-1] * 1000 + length - int(start.max())
    ends = ((0, from_start), (len(bins) - 1, to_end))
    return sorted({place for place, missing in ends if missing > edge})


def compared(start: np.ndarray) -> tuple[str, np.ndarray, np.ndarray] | None:
    """Two windows of time that are compared: in words, and which sessions are in each (n,).

    The last seven whole days (UTC) with the seven before, so that every day of the week counts the same; the
    halves of a shorter period. None if it is shorter than two days.
    """
    earliest, latest = int(start.min()), int(start.max())
    end = latest // DAY_US + (1 if latest % DAY_US >= _LATE_US else 0)
    begin = earliest // DAY_US + (0 if earliest % DAY_US < DAY_US - _LATE_US else 1)
    if end - begin >= 2 * _WEEK:
        day = start // DAY_US
        after = (day >= end - _WEEK) & (day < end)
        before = (day >= end - 2 * _WEEK) & (day < end - _WEEK)
        return "the last 7 days with the 7 days before", before, after
    if latest - earliest < 2 * DAY_US:
        return None
    late = start >= (earliest + latest) // 2
    return "the later half of the period with the earlier half", ~late, late


def _changes(
    sessions: Sessions, windows: tuple[str, np.ndarray, np.ndarray] | None
) -> list[dict[str, float]] | None:
    if windows is None or min(windows[1].sum(), windows[2].sum()) < _FEWEST:
        return None
    k = len(sessions.intent_ids)
    (before, worth_before), (after, worth_after) = (
        shares(sessions.intent[window], sessions.visitor[window], k) for window in windows[1:]
    )
    z = NormalDist().inv_cdf(1 - _RISK / (2 * max(k, 1)))  # Bonferroni: all k intervals hold together
    low, high = difference((before, worth_before), (after, worth_after), z)
    return [
        {"before": rounded(p, 5), "after": rounded(q, 5), "low": rounded(lo, 5), "high": rounded(hi, 5)}
        for p, q, lo, hi in zip(before, after, low, high, strict=True)
    ]


def _sure(sessions: Sessions, threshold: float) -> dict[str, Any]:
    enough = (sessions.intent >= 0) & (sessions.confidence >= threshold)
    # a precision that is never reached has an infinite threshold: no session reaches it
    return {"threshold": rounded(min(threshold, 1.0)), "sessions": int(enough.sum())}


def _words(id_: str, intent: Intent | None, otherwise: str) -> dict[str, Any]:
    return {
        "id": id_,
        "name": intent.name if intent else otherwise,
        "area": (intent.area if intent else None) or "",
        "definition": intent.definition if intent else "",
        "is_approved": bool(intent and intent.is_approved),
    }
