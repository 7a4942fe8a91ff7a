"""From visits to page views to events, for all sessions of a chunk at once."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from clickintent.simbank.latent import STAGES, Floats, Ints, Latent
from clickintent.simbank.people import Cookies, Visits
from clickintent.simbank.site import (
    DIRECT,
    EARLY,
    ENTRY,
    EVENT,
    EXTRA_EVENTS,
    HOME,
    LATE,
    LOGIN,
    PAID_CHANNELS,
    SEARCH,
    Site,
)

US_PER_DAY = 86_400_000_000
_MAX_VIEWS = 60
_BOUNCE = 0.17
_MORE_VIEWS = np.array([2.9, 4.4, 4.3, 2.4])  # mean views after the second, by stage
_NOISE, _FOLLOW_LINK, _NEXT_STEP = 0.08, 0.20, 0.75
_JUST_LOG_IN = 0.15  # of the sessions with a login
_ONE_MIND = 0.25  # of people with two intents show only the first one in a session
_DWELL_SIGMA, _MAX_DWELL_S = 0.75, 1200.0


@dataclass(frozen=True)
class Sessions:
    """m web sessions. Bots have person, state and intents of -1."""

    person: Ints
    state: Ints
    start: Ints  # µs since 1970
    cookie: Ints
    device: Ints
    login: np.ndarray  # bool
    first: Ints  # intent
    second: Ints  # intent, -1: none shows
    weight: Floats  # of the first intent
    stage: Ints
    channel: Ints
    campaign: Ints  # -1: none
    n_views: Ints
    bot: Ints  # -1: a person; else which kind of bot


@dataclass(frozen=True)
class Views:
    """Page views, ordered by session and time."""

    session: Ints
    index: Ints  # within the session
    page: Ints
    at: Ints  # µs since 1970
    dwell: Ints  # µs
    term: Ints  # search term, -1: none

    def followed_by(self, others: Views, n_sessions: int) -> Views:
        """These views and those of other sessions, which are numbered from ``n_sessions`` on."""
        columns = [np.concatenate([getattr(self, f.name), getattr(others, f.name)]) for f in fields(Views)]
        columns[0][len(self.session) :] += n_sessions
        return Views(*columns)


@dataclass(frozen=True)
class Events:
    """Events, ordered by session and time; ``view`` points into Views."""

    view: Ints
    name: Ints
    at: Ints  # µs since 1970


def joined(a: Sessions, b: Sessions) -> Sessions:
    return Sessions(*(np.concatenate([getattr(a, f.name), getattr(b, f.name)]) for f in fields(Sessions)))


def make_sessions(
    rng: np.random.Generator,
    site: Site,
    latent: Latent,
    visits: Visits,
    cookies: Cookies,
    origin: int,
) -> Sessions:
    """What each visit is about, where it comes from and how long it is. ``origin``: µs of day 0."""
    m = len(visits.person)
    first, stage = latent.intent[visits.state], latent.stage[visits.state]
    second = np.where(rng.random(m) < _ONE_MIND, -1, latent.second[visits.state])
    channel = site.channel(rng, stage)
    paid = np.isin(channel, PAID_CHANNELS)
    campaign = np.where(paid, site.campaign(rng, first), -1)
    # Display, social and affiliate links are not all advertisements.
    campaign[(channel >= 5) & (rng.random(m) < 0.35)] = -1
    more = rng.geometric(1 / _MORE_VIEWS[stage])
    n_views = np.where(rng.random(m) < _BOUNCE, 1, np.minimum(1 + more, _MAX_VIEWS))
    short = cookies.login & (rng.random(m) < _JUST_LOG_IN)
    n_views = np.where(short, 1, n_views) + cookies.login
    return Sessions(
        person=visits.person,
        state=visits.state,
        start=origin + (visits.day * US_PER_DAY).astype(np.int64),
        cookie=cookies.cookie,
        device=cookies.device,
        login=cookies.login,
        first=first,
        second=second,
        weight=np.where(second >= 0, rng.uniform(0.55, 0.9, m), 1.0),
        stage=stage,
        channel=np.where(short, DIRECT, channel),
        campaign=np.where(short, -1, campaign),
        n_views=n_views,
        bot=np.full(m, -1),
    )


def browse(rng: np.random.Generator, site: Site, sessions: Sessions) -> Views:
    """Draw the pages of people's sessions, one step of all sessions at a time.

    The next page follows the current intent, stage and phase of the visit, or a link on the page, or the
    steps of an application, or nothing in particular. A session turns from one intent to the other once.
    """
    n = sessions.n_views
    offset = np.concatenate([[0], np.cumsum(n)])
    page = np.empty(offset[-1], dtype=np.int64)
    used = np.empty(offset[-1], dtype=np.int64)
    order = np.argsort(-n, kind="stable")
    turn = np.round(sessions.weight * n)
    first_first = rng.random(len(n)) < 0.7
    current = np.empty(0, dtype=np.int64)
    for k in range(int(n.max(initial=0))):
        alive = order[: np.searchsorted(-n[order], -k, side="left")]  # n > k
        s_first, s_second = sessions.first[alive], sessions.second[alive]
        in_first = np.where(first_first[alive], k < turn[alive], k >= n[alive] - turn[alive])
        intent = np.where(in_first | (s_second < 0), s_first, s_second)
        stage = _stage_of(site, sessions.stage[alive], intent)
        phase = ENTRY if k == 0 else np.where(k < n[alive] / 2, EARLY, LATE)
        row = (intent * len(STAGES) + stage) * 3 + phase
        drawn = site.browse(rng, row)
        if k == 0:
            drawn = _landing(rng, site, sessions, alive, drawn)
        else:
            before = current[: len(alive)]
            u = rng.random(len(alive))
            noisy, linked = u < _NOISE, (u >= _NOISE) & (u < _NOISE + _FOLLOW_LINK)
            drawn[noisy] = site.noise(rng, np.zeros(noisy.sum(), dtype=np.int64))
            drawn[linked] = site.link(rng, before[linked])
            again = drawn == before
            drawn[again] = site.browse(rng, row[again])
            step = site.next_step[before]
            drawn = np.where((step >= 0) & (rng.random(len(alive)) < _NEXT_STEP), step, drawn)
        drawn[sessions.login[alive] & (k == n[alive] - 1)] = LOGIN
        current = drawn
        page[offset[alive] + k] = drawn
        used[offset[alive] + k] = intent
    session = np.repeat(np.arange(len(n)), n)
    index = np.arange(offset[-1]) - offset[session]
    stage = _stage_of(site, sessions.stage[session], used)
    median = site.dwell_s[stage, page] * site.pace[used]
    dwell = np.clip(rng.lognormal(np.log(median), _DWELL_SIGMA), 0.8, _MAX_DWELL_S)
    searched = page == SEARCH
    term = np.full(len(page), -1)
    term[searched] = site.term(rng, used[searched])
    return _timed(sessions, session, index, page, (dwell * 1e6).astype(np.int64), term)


def _stage_of(site: Site, stage: Ints, intent: Ints) -> Ints:
    """The stage as it applies to ``intent``, which may be of another kind than the session's first one."""
    serving = site.service[intent]
    service = len(STAGES) - 1
    return np.where(serving, service, np.where(stage == service, 0, stage))


def _landing(rng: np.random.Generator, site: Site, sessions: Sessions, alive: Ints, drawn: Ints) -> Ints:
    u = rng.random(len(alive))
    campaign = sessions.campaign[alive]
    direct = sessions.channel[alive] == DIRECT
    drawn = np.where(direct & (u < 0.5), HOME, drawn)
    drawn = np.where(direct & (u > 0.95), LOGIN, drawn)
    short = sessions.login[alive] & (sessions.n_views[alive] == 2)
    drawn = np.where(short & (u < 0.9), HOME, drawn)
    return np.where((campaign >= 0) & (u < 0.93), site.landing[campaign], drawn)


def _timed(sessions: Sessions, session: Ints, index: Ints, page: Ints, dwell: Ints, term: Ints) -> Views:
    since = np.cumsum(dwell) - dwell
    starts = np.flatnonzero(index == 0)
    at = sessions.start[session] + since - since[starts][session]
    return Views(session, index, page, at, dwell, term)


def timed_views(sessions: Sessions, page: Ints, dwell: Ints) -> Views:
    """Views of sessions whose pages and dwell (µs) are given, flat in the order of sessions."""
    n = sessions.n_views
    session = np.repeat(np.arange(len(n)), n)
    offset = np.cumsum(n) - n
    index = np.arange(len(page)) - offset[session]
    return _timed(sessions, session, index, page, dwell, np.full(len(page), -1))


_SLOTS = ("session_start", "page_view", "view_search_results", "scroll", "extra", "login")


def expand(rng: np.random.Generator, site: Site, sessions: Sessions, views: Views) -> Events:
    """Turn page views into events: GA4's session_start and page_view, and what people do on the page."""
    m = len(views.page)
    human = sessions.bot[views.session] < 0
    last = views.index == sessions.n_views[views.session] - 1
    extra = site.extra(rng, views.page)
    name = np.empty((m, len(_SLOTS)), dtype=np.int64)
    name[:] = [EVENT.get(slot, 0) for slot in _SLOTS]
    name[:, 4] = np.array([0, *(EVENT[e] for e in EXTRA_EVENTS)])[extra]
    there = np.empty((m, len(_SLOTS)), dtype=bool)
    there[:, 0] = (views.index == 0) & (rng.random(m) < 0.88)
    there[:, 1] = True
    there[:, 2] = views.page == SEARCH
    there[:, 3] = human & (rng.random(m) < site.scrolls[views.page])
    there[:, 4] = human & (extra > 0)
    there[:, 5] = last & sessions.login[views.session]
    wait = np.empty((m, len(_SLOTS)))
    wait[:, 0] = 0.0
    wait[:, 1] = np.where(there[:, 0], 2e3, 0.0)
    wait[:, 2] = 4e3 + 0.01 * views.dwell
    wait[:, 3] = 6e3 + views.dwell * rng.uniform(0.1, 0.6, m)
    wait[:, 4] = 8e3 + views.dwell * rng.uniform(0.62, 0.9, m)
    wait[:, 5] = 9e3 + views.dwell * 0.95
    view = np.repeat(np.arange(m), there.sum(1))
    return Events(view, name[there], views.at[view] + wait[there].astype(np.int64))
