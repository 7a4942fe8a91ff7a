"""What was compared, and what came out: ``drift.json``, which the explorer's page of the same name reads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from clickintent.monitor.features import Group
from clickintent.monitor.measures import Measure
from clickintent.monitor.pages import NewPage

Verdict = Literal["drift", "none", "too_few"]


@dataclass(frozen=True)
class Window:
    begin: int  # µs
    end: int
    sessions: int


@dataclass(frozen=True)
class Detail:
    """A value of a feature, and its share before and now."""

    value: str
    before: float
    now: float


@dataclass(frozen=True)
class Compared:
    """One measure; ``alarm`` is the level above which it is one."""

    group: Group
    name: str
    measure: Measure
    value: float
    alarm: float
    detail: tuple[Detail, ...] = ()  # what contributes most

    @property
    def is_alarm(self) -> bool:
        return self.value > self.alarm


@dataclass(frozen=True)
class Week:
    """Values by the names of measures. Weeks before the split are compared with the rest before it."""

    window: Window
    values: dict[str, float]


@dataclass(frozen=True)
class Drift:
    """The current window beside the training window."""

    reference: Window
    current: Window
    verdict: Verdict
    measures: tuple[Compared, ...] = ()
    weeks: tuple[Week, ...] = ()
    new_pages: tuple[NewPage, ...] = ()
    new_page_share: float = 0.0  # of the current events

    @property
    def alarms(self) -> tuple[str, ...]:
        return tuple(measure.name for measure in self.measures if measure.is_alarm)

    def to_json(self, made_at: datetime) -> dict[str, Any]:
        """In the shape of ``Drift`` in the explorer's ``data.ts``."""
        return {
            "made_at": made_at.isoformat(timespec="seconds"),
            "reference": _window(self.reference),
            "current": _window(self.current),
            "verdict": self.verdict,
            "measures": [_measure(measure) for measure in self.measures],
            "weeks": [{**_window(week.window), "values": week.values} for week in self.weeks],
            "new_pages": [
                {
                    "page": new.page,
                    "title": new.title,
                    "sessions": new.sessions,
                    "share": new.share,
                    "first_seen": _iso(new.first_seen),
                }
                for new in self.new_pages
            ],
            "new_page_share": self.new_page_share,
        }


def _window(window: Window) -> dict[str, Any]:
    return {"from": _iso(window.begin), "to": _iso(window.end), "sessions": window.sessions}


def _measure(measure: Compared) -> dict[str, Any]:
    return {
        "group": measure.group,
        "name": measure.name,
        "measure": measure.measure,
        "value": measure.value,
        "alarm": measure.alarm,
        "is_alarm": measure.is_alarm,
        "detail": [{"value": d.value, "before": d.before, "now": d.now} for d in measure.detail],
    }


def _iso(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="seconds")
