"""Pages that training never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickintent.monitor.features import Bools, Ints, coded, of_events
from clickintent.monitor.hours import Floats, Hours

_MOST_PAGES = 100


@dataclass(frozen=True)
class NewPage:
    page: str
    title: str | None  # the most frequent
    sessions: int  # of the current window
    share: float  # of its sessions
    first_seen: int  # µs


@dataclass(frozen=True)
class Pages:
    """The events of n sessions: whose they are, and which page of p they are on. −1: no page."""

    sessions: pa.Table
    row: Ints  # (e,)
    code: Ints  # (e,)
    names: list[str]
    is_known: Bools  # (p,) seen before the split

    @classmethod
    def of(cls, sessions: pa.Table, is_before: Bools) -> Pages:
        code, names = coded(of_events(sessions, "page"))
        row = np.repeat(np.arange(sessions.num_rows), sessions["n_events"].to_numpy())
        is_known = np.zeros(len(names), bool)
        is_known[code[is_before[row] & (code >= 0)]] = True
        return cls(sessions, row, code, names, is_known)

    def counts(self, hours: Hours, rows: Bools, windows: Sequence[tuple[int, int]]) -> Floats:
        """For each window of ``hours`` the events on known and on new pages (w, 2)."""
        mine = rows[self.row] & (self.code >= 0)
        slot = hours.slot(self.sessions["start"].to_numpy())[self.row[mine]]
        kind = np.where(self.is_known[self.code[mine]], 0, 1)
        by_hour = np.zeros((len(hours), 2))
        np.add.at(by_hour, (slot, kind), 1)
        return np.array([by_hour[begin:end].sum(axis=0) for begin, end in windows]).reshape(-1, 2)

    def alone(self, hours: Hours, rows: Bools, windows: Sequence[tuple[int, int]]) -> Floats:
        """The same where all is known: new is what occurs in no other hour of ``rows`` than the window's."""
        mine = rows[self.row] & (self.code >= 0)
        slot = hours.slot(self.sessions["start"].to_numpy())[self.row[mine]]
        code = self.code[mine]
        first, last = np.full(len(self.names), len(hours)), np.full(len(self.names), -1)
        np.minimum.at(first, code, slot)
        np.maximum.at(last, code, slot)
        views, total = np.bincount(code, minlength=len(self.names)), np.bincount(slot, minlength=len(hours))
        found = []
        for begin, end in windows:
            new = views[(first >= begin) & (last < end) & (last >= 0)].sum()
            found.append((total[begin:end].sum() - new, new))
        return np.array(found, dtype=float).reshape(-1, 2)

    def new(self, is_after: Bools, is_now: Bools) -> list[NewPage]:
        """The new pages of the sessions ``is_now``, the most visited first; first seen among ``is_after``."""
        known = np.append(self.is_known, True)  # of −1
        at = np.flatnonzero(~known[self.code] & is_after[self.row])
        row = self.row[at]
        table = pa.table(
            {
                **{
                    name: of_events(self.sessions, name).take(pa.array(at))
                    for name in ("page", "title", "ts")
                },
                "session": pa.array(np.where(is_now[row], row, -1), pa.int64()),
            }
        )
        first = table.group_by("page").aggregate([("ts", "min")])
        table = table.filter(pc.greater_equal(table["session"], 0))
        visits = table.group_by("page").aggregate([("session", "count_distinct")])
        titles = (
            table.filter(table["title"].is_valid()).group_by(["page", "title"]).aggregate([("ts", "count")])
        )
        by_page = dict(zip(*(first[name].to_pylist() for name in ("page", "ts_min")), strict=True))
        ordered = titles.sort_by([("ts_count", "ascending"), ("title", "descending")])
        title = dict(zip(*(ordered[name].to_pylist() for name in ("page", "title")), strict=True))
        n = max(int(is_now.sum()), 1)
        found = [
            NewPage(page, title.get(page), k, k / n, by_page[page])
            for page, k in zip(*(visits[x].to_pylist() for x in visits.column_names), strict=True)
        ]
        return sorted(found, key=lambda new: (-new.sessions, new.page))[:_MOST_PAGES]
