"""What is shown of one intent: data/intents/ID.json. Counts over all sessions; few people share no row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse

from clickintent.explorer.rates import Rates, rates, rounded
from clickintent.explorer.sessions import Sessions, Visits
from clickintent.explorer.tally import Tally, once, people, tally
from clickintent.report.views import DAY_US, HOUR_US
from clickintent.taxonomy import Intent

_PAGES, _ENDS, _PATHS, _SOURCES, _DEVICES, _NEIGHBOURS, _OUTCOMES, _CONFUSIONS = 15, 10, 10, 10, 6, 12, 20, 8
_SUREST, _SOME = 20, 20
_COMMON = 0.02  # of an intent's sessions that must have seen a page for its lift to be told
OTHER = "other"


@dataclass(frozen=True)
class Labels:
    """Student's and teacher's labels of the n sessions.

    Attributes:
        student: (m,) session and (m,) intent of every label of the student.
        teacher: (n,) the teacher's most confident intent, −1 where it gave none.
    """

    student: tuple[np.ndarray, np.ndarray]
    teacher: np.ndarray


@dataclass(frozen=True)
class Counts:
    """All that is counted once for all intents.

    Attributes:
        embeddings: (n, dim)
        shown: rows that are on the map, ascending; a row's place in it is its point.
        min_people: rows that fewer visitors share are left out, or are part of "other".
    """

    sessions: Sessions
    visits: Visits
    embeddings: np.ndarray
    labels: Labels
    shown: np.ndarray
    min_people: int
    seed: int

    def tally(
        self, value: np.ndarray, session: np.ndarray | None = None, who: np.ndarray | None = None
    ) -> Counted:
        """Values (m,) of sessions (m,), or of all sessions in their order.

        Args:
            who: (n,) of whom so many must share a value; visitors if it is not given.
        """
        intent, who = self.sessions.intent, self.sessions.visitor if who is None else who
        if session is not None:
            intent, who = intent[session], who[session]
        total = np.bincount(value[value >= 0], minlength=1) if len(value) else np.zeros(1, np.int64)
        return Counted(tally(intent, value, who, min_people=self.min_people), total, value, who)

    @cached_property
    def size(self) -> np.ndarray:
        """Sessions by intent."""
        s = self.sessions
        return np.bincount(s.intent[s.intent >= 0], minlength=len(s.intent_ids))

    @cached_property
    def people(self) -> np.ndarray:
        """Visitors by intent."""
        s = self.sessions
        return people(s.intent, s.visitor, len(s.intent_ids))

    @cached_property
    def rates(self) -> Rates:
        s = self.sessions
        known = s.is_known
        return rates(s.intent[known], s.is_converted[known], s.cluster[known], len(s.intent_ids))

    @cached_property
    def page(self) -> np.ndarray:
        """(m,) the page of each event, that with the most frequent title in place of all of one address.

        Titles of few people take nobody's place: a page that has no other stays one page per title.
        """
        pages, used = self.visits.pages, self.visits.page
        _, people = once(self.sessions.visitor[self.visits.session], used)
        shared = np.bincount(people, minlength=len(pages)) >= self.min_people
        times = np.bincount(used, minlength=len(pages))
        best: dict[str, int] = {}
        for place in sorted(np.flatnonzero(shared).tolist(), key=lambda p: (not pages[p][1], -times[p])):
            best.setdefault(pages[place][0], place)
        same = np.array([best.get(page, place) for place, (page, _) in enumerate(pages)], np.int64)
        return same[used] if len(used) else used

    @cached_property
    def pages(self) -> Counted:
        session, page = once(self.visits.session, self.page)
        return self.tally(page, session)

    @cached_property
    def entries(self) -> Counted:
        return self._at(self.visits.offsets[:-1])

    @cached_property
    def exits(self) -> Counted:
        return self._at(self.visits.offsets[1:] - 1)

    def _at(self, event: np.ndarray) -> Counted:
        some = np.diff(self.visits.offsets) > 0
        page = np.full(len(some), -1, np.int64)
        page[some] = self.page[event[some]]
        return self.tally(page)

    @cached_property
    def paths(self) -> tuple[Counted, np.ndarray]:
        """Runs of three pages by number, and those pages (numbers, 3). The same page again is no step."""
        page, session = self.page.astype(np.int64), self.visits.session
        steps = np.ones(len(page), bool)
        steps[1:] = (page[1:] != page[:-1]) | (session[1:] != session[:-1])
        page, session = page[steps], session[steps]
        within = session[2:] == session[:-2]
        k = int(page.max(initial=0)) + 1
        if k >= 2**21:  # three do not fit into 63 bits; nobody could read so many paths, either
            within[:] = False
        runs = ((page[:-2] * k + page[1:-1]) * k + page[2:])[within]
        different, run = np.unique(runs, return_inverse=True)
        session, run = once(session[2:][within], run.ravel())
        pages = np.stack([different // (k * k), different // k % k, different % k], axis=1)
        return self.tally(run, session), pages

    @cached_property
    def sources(self) -> tuple[Counted, list[str]]:
        return self._named(self.sessions.source)

    @cached_property
    def devices(self) -> tuple[Counted, list[str]]:
        return self._named(self.sessions.device)

    def _named(self, text: np.ndarray) -> tuple[Counted, list[str]]:
        column = pa.array(text, pa.string()).dictionary_encode()
        return self.tally(column.indices.to_numpy().astype(np.int64)), column.dictionary.to_pylist()

    @cached_property
    def neighbours(self) -> tuple[Counted, Counted]:
        """Intents of the visitor's session before and after, one added: 0 is no session."""
        s = self.sessions
        order = np.lexsort((s.start, s.visitor))
        follows = s.visitor[order][1:] == s.visitor[order][:-1]
        # a session without an intent is a session: it is counted in no row
        own = np.where(s.intent[order] >= 0, s.intent[order] + 1, len(s.intent_ids) + 1)
        before, after = np.zeros(s.n, np.int64), np.zeros(s.n, np.int64)
        before[order[1:]] = np.where(follows, own[:-1], 0)
        after[order[:-1]] = np.where(follows, own[1:], 0)
        return self.tally(before), self.tally(after)

    @cached_property
    def outcomes(self) -> Counted:
        return self.tally(self.sessions.outcome, who=self.sessions.cluster)

    @cached_property
    def similarity(self) -> np.ndarray:
        """(k, k) cosines of the mean embeddings; 0 for an intent without sessions."""
        s, k = self.sessions, len(self.sessions.intent_ids)
        used = np.flatnonzero(s.intent >= 0)
        member = sparse.csr_matrix((np.ones(len(used), np.float32), (s.intent[used], used)), shape=(k, s.n))
        mean = np.asarray(member @ self.embeddings) / np.maximum(self.size, 1)[:, None]
        mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
        found: np.ndarray = mean @ mean.T
        return found

    @cached_property
    def both(self) -> np.ndarray:
        """(k, k) sessions that have labels of both intents."""
        session, intent = self.labels.student
        shape = (self.sessions.n, len(self.sessions.intent_ids))
        has = sparse.csr_matrix((np.ones(len(session), np.int64), (session, intent)), shape=shape)
        has.data[:] = 1
        found: np.ndarray = (has.T @ has).toarray()
        return found

    @cached_property
    def confused(self) -> np.ndarray:
        """(k, k) sessions by the teacher's most confident intent and the student's."""
        k = len(self.sessions.intent_ids)
        teacher, student = self.labels.teacher, self.sessions.intent
        known = (teacher >= 0) & (student >= 0)
        return np.bincount(teacher[known] * k + student[known], minlength=k * k).reshape(k, k)


@dataclass(frozen=True)
class Counted:
    """A tally by intent, and over all sessions: (values,); and what was counted, and of whom: (m,)."""

    by_intent: Tally
    total: np.ndarray
    value: np.ndarray
    who: np.ndarray


def detail(counts: Counts, i: int, intent: Intent | None) -> dict[str, Any]:
    """``IntentDetail`` of the intent at place ``i``; pages by their place in ``Visits.pages``.

    Args:
        intent: as the taxonomy has it; None if it does not know it.
    """
    n = int(counts.size[i])
    sessions = counts.sessions
    mine = np.flatnonzero(sessions.intent == i)
    surest, some = _points(counts, i)
    told = int(counts.people[i]) >= counts.min_people  # or else hours and days are those of a few people
    start = sessions.start[mine] if told else np.zeros(0, np.int64)
    approved = intent.approved if intent and intent.is_approved else None
    return {
        "includes": list(intent.includes) if intent else [],
        "excludes": list(intent.excludes) if intent else [],
        "keywords": [[word, rounded(w)] for word, w in intent.weighted_keywords().items()] if intent else [],
        "approved": {"by": approved.by, "at": approved.at} if approved else None,
        "surest": surest,
        "some": some,
        "pages": _pages(counts, i, n),
        "entries": _ends(counts.entries, i, n, sessions.n),
        "exits": _ends(counts.exits, i, n, sessions.n),
        "sources": _names(counts, *counts.sources, mine, i, _SOURCES),
        "paths": _paths(counts, i),
        "before": _neighbours(counts.neighbours[0], i, n, sessions),
        "after": _neighbours(counts.neighbours[1], i, n, sessions),
        "outcomes": _outcomes(counts, mine, i),
        "lift": counts.rates.lift(i) if counts.rates.clusters[i] >= counts.min_people else None,
        "confusions": _confusions(counts, i),
        "hours": np.bincount(start // HOUR_US % 24, minlength=24).tolist(),
        "weekdays": np.bincount((start // DAY_US + 3) % 7, minlength=7).tolist(),
        "devices": _names(counts, *counts.devices, mine, i, _DEVICES),
    }


def _points(counts: Counts, i: int) -> tuple[list[int], list[int]]:
    """Points to look at: the most confident ones, each of another visitor, and others at random."""
    sessions, shown = counts.sessions, counts.shown
    points = np.flatnonzero(sessions.intent[shown] == i)
    order = points[np.argsort(-sessions.confidence[shown[points]], kind="stable")]
    first = np.unique(sessions.visitor[shown[order]], return_index=True)[1]
    surest = order[np.sort(first)[:_SUREST]]
    others = np.setdiff1d(points, surest)
    rng = np.random.default_rng([counts.seed, i])
    drawn = np.sort(rng.choice(others, min(_SOME, len(others)), replace=False))
    return surest.tolist(), drawn.tolist()


def _share(value: float) -> float:
    return rounded(value, 6)  # ratios are made of them, of rare ones, too


def _visited(page: int, share: float, overall: float) -> dict[str, Any]:
    return {"page": page, "share": _share(share), "overall": _share(overall)}


def _pages(counts: Counts, i: int, n: int) -> list[dict[str, Any]]:
    pages, sessions = counts.pages.by_intent.of(i)
    if not n:
        return []
    share, overall = sessions / n, counts.pages.total[pages] / counts.sessions.n
    good = (share > overall) & (share >= _COMMON)
    pages, share, overall = pages[good], share[good], overall[good]
    order = np.argsort(-share / overall, kind="stable")[:_PAGES]
    return [_visited(int(pages[j]), share[j], overall[j]) for j in order]


def _ends(counted: Counted, i: int, n: int, total: int) -> list[dict[str, Any]]:
    pages, sessions = counted.by_intent.of(i)
    rows = zip(pages[:_ENDS].tolist(), sessions[:_ENDS].tolist(), strict=True)
    return [_visited(page, some / n, counted.total[page] / total) for page, some in rows]


def _others(counts: Counts, counted: Counted, mine: np.ndarray, listed: np.ndarray) -> int:
    """Sessions of the rows ``mine`` that have a value beside the listed ones; 0 if they are of few people."""
    value = counted.value[mine]
    others = mine[(value >= 0) & ~np.isin(value, listed)]
    return len(others) if len(np.unique(counted.who[others])) >= counts.min_people else 0


def _names(
    counts: Counts, counted: Counted, names: list[str], mine: np.ndarray, i: int, most: int
) -> list[dict[str, Any]]:
    """Names with their shares; those of few people, and the rarest, together as "other"."""
    n, total = len(mine), counts.sessions.n
    values, sessions = (a[:most] for a in counted.by_intent.of(i))
    rows = [
        {"name": names[v], "share": _share(some / n), "overall": _share(counted.total[v] / total)}
        for v, some in zip(values.tolist(), sessions.tolist(), strict=True)
    ]
    rest = _others(counts, counted, mine, values)
    if rest:
        elsewhere = total - int(counted.total[values].sum())
        rows.append({"name": OTHER, "share": _share(rest / n), "overall": _share(elsewhere / total)})
    return rows


def _paths(counts: Counts, i: int) -> list[dict[str, Any]]:
    counted, pages = counts.paths
    runs, sessions = counted.by_intent.of(i)
    return [
        {"pages": pages[run].tolist(), "sessions": some}
        for run, some in zip(runs[:_PATHS].tolist(), sessions[:_PATHS].tolist(), strict=True)
    ]


def _neighbours(counted: Counted, i: int, n: int, sessions: Sessions) -> list[dict[str, Any]]:
    values, some = counted.by_intent.of(i)
    keep = values <= len(sessions.intent_ids)
    rows = zip(values[keep][:_NEIGHBOURS].tolist(), some[keep][:_NEIGHBOURS].tolist(), strict=True)
    return [
        {
            "intent": value - 1,
            "sessions": times,
            "share": _share(times / n),
            "overall": _share(counted.total[value] / sessions.n),
        }
        for value, times in rows
    ]


def _outcomes(counts: Counts, mine: np.ndarray, i: int) -> list[dict[str, Any]]:
    values, sessions = (a[:_OUTCOMES] for a in counts.outcomes.by_intent.of(i))
    names = counts.sessions.outcomes
    rows = [
        {"outcome": names[v], "sessions": n} for v, n in zip(values.tolist(), sessions.tolist(), strict=True)
    ]
    rest = _others(counts, counts.outcomes, mine, values)
    return [*rows, {"outcome": OTHER, "sessions": rest}] if rest else rows


def _confusions(counts: Counts, i: int) -> list[dict[str, Any]]:
    similarity = counts.similarity[i]
    order = [
        int(j) for j in np.argsort(-similarity, kind="stable") if j != i and counts.size[j] and counts.size[i]
    ]
    return [
        {
            "intent": j,
            "similarity": rounded(similarity[j]),
            "both": _enough(counts, counts.both[i, j]),
            "teacher": _enough(counts, counts.confused[i, j]),
        }
        for j in order[:_CONFUSIONS]
    ]


def _enough(counts: Counts, sessions: int) -> int:
    return int(sessions) if sessions >= counts.min_people else 0


def pages_in(detail: Mapping[str, Any]) -> list[int]:
    """Places in ``Visits.pages`` of the pages that a detail names."""
    visited = [row["page"] for name in ("pages", "entries", "exits") for row in detail[name]]
    return [*visited, *(page for path in detail["paths"] for page in path["pages"])]


def renumbered(detail: Mapping[str, Any], number: Callable[[int], int]) -> dict[str, Any]:
    """The same with other numbers for pages."""
    changed = dict(detail)
    for name in ("pages", "entries", "exits"):
        changed[name] = [{**row, "page": number(row["page"])} for row in detail[name]]
    changed["paths"] = [{**path, "pages": [number(p) for p in path["pages"]]} for path in detail["paths"]]
    return changed
