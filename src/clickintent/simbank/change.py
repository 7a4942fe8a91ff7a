"""A bank that changes from some day on, for whoever watches for drift.

Three things, each as strong as ``drift`` says and each for itself (``drift_in``): loans go out of fashion, so
that other intents are the frequent ones; a new section takes views from pages of its kind; and people look
at fewer pages for a shorter time. What a person wants and buys stays as it was: only whether they come to
the web site and what is seen there change, so the oracle's odds stay true. Random numbers are drawn from a
stream of their own: without drift, the bank is what it always was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from clickintent.config import SimBankConfig
from clickintent.simbank.intents import INTENTS
from clickintent.simbank.latent import Floats, Ints, Latent
from clickintent.simbank.pages import NEW_PAGES, PAGES, Page
from clickintent.simbank.people import Visits
from clickintent.simbank.web import US_PER_DAY, Sessions, Views, timed_views

#: At ``drift = 1``: visits about these that stay away; views that the new section takes from pages of the
#: same role; page views after the first, and seconds on a page, that are saved.
_OUT_OF_FASHION = ("home", "vehicle", "borrow", "study")
_AWAY, _TAKEN, _SAVED_VIEWS, _SAVED_TIME = 0.8, 0.25, 0.4, 0.4


@dataclass(frozen=True)
class Change:
    """How strongly each part changes, from ``day`` on."""

    day: float
    intents: float
    pages: float
    behaviour: float

    @property
    def site_pages(self) -> tuple[Page, ...]:
        """All pages of the export; numbers of views point here."""
        return (*PAGES, *NEW_PAGES) if self.pages else PAGES


def change_of(config: SimBankConfig) -> Change:
    strength = {part: config.drift * (part in config.drift_in) for part in ("intents", "pages", "behaviour")}
    return Change(config.drift_from * config.days, **strength)


def fewer_visits(rng: np.random.Generator, change: Change, latent: Latent, visits: Visits) -> Visits:
    """Without some of the later visits about what is out of fashion."""
    if not change.intents:
        return visits
    falls = np.array([intent.theme in _OUT_OF_FASHION for intent in INTENTS])[latent.intent[visits.state]]
    away = rng.random(len(falls)) < _AWAY * change.intents
    kept = ~(falls & away & (visits.day >= change.day))
    return Visits(visits.person[kept], visits.day[kept], visits.state[kept])


def shorter(rng: np.random.Generator, change: Change, sessions: Sessions, origin: int) -> Sessions:
    """Later sessions with fewer page views; ``origin``: µs of day 0."""
    if not change.behaviour:
        return sessions
    more = (sessions.n_views - 1) * (1 - _SAVED_VIEWS * change.behaviour)
    fewer = 1 + np.floor(more + rng.random(len(more))).astype(np.int64)
    fewer = np.clip(fewer, 1 + sessions.login, sessions.n_views)  # a log in is a view of its own
    return replace(
        sessions, n_views=np.where(_later(change, sessions.start, origin), fewer, sessions.n_views)
    )


def hurried(change: Change, sessions: Sessions, views: Views, origin: int) -> Views:
    """Views of later sessions pass faster."""
    if not change.behaviour:
        return views
    later = _later(change, sessions.start, origin)[views.session]
    pace = np.where(later, 1 - _SAVED_TIME * change.behaviour, 1.0)
    timed = timed_views(sessions, views.page, (views.dwell * pace).astype(np.int64))
    return replace(timed, term=views.term)


def new_section(
    rng: np.random.Generator, change: Change, sessions: Sessions, views: Views, origin: int
) -> Views:
    """Later views of some pages are of new ones: numbers from ``len(PAGES)`` on."""
    if not change.pages:
        return views
    new = {page.role: len(PAGES) + i for i, page in enumerate(NEW_PAGES)}
    instead = np.array([new.get(page.role, -1) for page in PAGES])[views.page]
    taken = rng.random(len(instead)) < _TAKEN * change.pages
    human = sessions.bot[views.session] < 0
    moves = taken & human & (instead >= 0) & _later(change, sessions.start, origin)[views.session]
    return replace(views, page=np.where(moves, instead, views.page))


def _later(change: Change, start: Ints, origin: int) -> np.ndarray:
    days: Floats = (start - origin) / US_PER_DAY
    return days >= change.day
