"""SimBank's ideal reader: what is the most that a session's pages say about its intents?

A session of two pages that many intents share does not show which one it was; nobody who reads it can tell.
This reader knows the simulator's own tables (``simbank.site``) and gives the posterior probability that
each intent shows, from the pages in order, the search terms and the campaign (Bayes' rule, summed over the
second intent, the stage, and when the session turns from one intent to the other). It approximates the
generator where that redraws a repeated page or cuts a short visit, and does not look at dwell.

It is a teacher for ``labels.py`` and a yardstick beside it: no model is given anything of it but its labels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clickintent.simbank.intents import CAMPAIGNS, INTENTS
from clickintent.simbank.latent import STAGES, Draw
from clickintent.simbank.pages import PAGES
from clickintent.simbank.site import (
    BRAND,
    DIRECT,
    EARLY,
    ENTRY,
    HOME,
    LATE,
    LOGIN,
    PAID_CHANNELS,
    Site,
    build_site,
)

IDS = tuple(intent.name for intent in INTENTS)
_NOISE, _LINK, _NEXT_STEP = 0.08, 0.20, 0.75  # as in simbank.web
_FIRST_FIRST = 0.7  # of sessions with two intents begin with the main one
_DIRECT_HOME, _DIRECT_LOGIN, _LANDS = 0.5, 0.05, 0.93
_OFTEN_NO_CAMPAIGN, _HAS_CAMPAIGN = 5, 0.65  # of display, social and affiliate links
_SHARES = np.linspace(0.55, 0.9, 8)  # of the main intent in a session
_FLOOR = 1e-9
_SESSIONS = 4_000  # at a time


def posterior(sessions: pa.Table, truth: Path, before_us: int, *, sees_campaigns: bool = True) -> np.ndarray:
    """Probability that each of the 35 intents shows in each session, (n, 35) float32.

    Args:
        sees_campaigns: as a language model does; without, it knows what the embedding is made of.
        truth: the simulator's truth; how frequent states are is counted in its sessions that start before
            ``before_us``, and nothing else is read from it.
    """
    site, states = build_site(), _states(truth, before_us)
    parts = [
        _posterior(sessions.slice(at, _SESSIONS), site, states, sees_campaigns)
        for at in range(0, sessions.num_rows, _SESSIONS)
    ]
    return np.concatenate(parts).astype(np.float32)


def _states(truth: Path, before_us: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Main intent, second intent (−1: none), stage, and the log of its share, of every state seen."""
    table = pq.read_table(truth / "sessions.parquet", columns=["start_us", "intents", "stage"])
    table = table.filter(
        pc.and_(pc.less(table["start_us"], before_us), pc.greater(pc.list_value_length(table["intents"]), 0))
    )
    rows = table.select(["intents", "stage"]).to_pylist()
    keys = [
        (IDS.index(r["intents"][0]), IDS.index(r["intents"][1]) if r["intents"][1:] else -1, r["stage"])
        for r in rows
    ]
    found, counts = np.unique([(a, b, STAGES.index(c)) for a, b, c in keys], axis=0, return_counts=True)
    first, second, stage = found.T
    return first, second, stage, np.log(counts / counts.sum())


def probabilities(draw: Draw) -> np.ndarray:
    """The table behind a draw, (rows, k)."""
    cumulative = draw._flat.reshape(-1, draw._k) - np.arange(len(draw._flat) // draw._k)[:, None]
    found: np.ndarray = np.diff(cumulative, axis=1, prepend=0.0)
    return found


def _views(sessions: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Page (−1: unknown) and session of every page view, in order."""
    lists = sessions["events"].combine_chunks()
    session = np.repeat(np.arange(sessions.num_rows), pc.list_value_length(lists).to_numpy())
    flat = lists.flatten()
    viewed = pc.equal(pc.struct_field(flat, "event_type"), "page_view").to_numpy(zero_copy_only=False)
    titles = pa.array([f"{page.title} | {BRAND}" for page in PAGES])
    page = pc.fill_null(pc.index_in(pc.struct_field(flat, "title"), value_set=titles), -1).to_numpy()
    return page[viewed], session[viewed]


def _posterior(
    sessions: pa.Table,
    site: Site,
    states: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    sees_campaigns: bool,
) -> np.ndarray:
    first, second, stage, prior = states
    n, k, stages = sessions.num_rows, len(IDS), len(STAGES)
    page, session = _views(sessions)
    length = np.bincount(session, minlength=n)
    index = np.arange(len(page)) - np.repeat(np.cumsum(length) - length, length)
    each = _each_view(sessions, site, page, session, index, length, sees_campaigns)
    total = np.zeros((n, length.max(initial=0) + 1, k, stages))
    total[session, index + 1] = each
    total = np.cumsum(total, axis=1)
    log = np.tile(prior, (n, 1)) + _searches(sessions, site)[:, first]
    if sees_campaigns:
        log += _origin(sessions, site)[:, first]
    rows = np.arange(n)
    other = np.where(second >= 0, second, first)

    def until(intent: np.ndarray, at: np.ndarray) -> np.ndarray:
        return np.asarray(total[rows, np.minimum(at, length)][:, intent, stage])

    whole_first, whole_other = until(first, length), until(other, length)
    mixed = np.full(log.shape, -np.inf)
    for share in _SHARES:
        turn = np.round(share * length).astype(int)
        rest = length - turn
        begins = until(first, turn) + whole_other - until(other, turn)
        ends = until(other, rest) + whole_first - until(first, rest)
        for order, value in ((_FIRST_FIRST, begins), (1 - _FIRST_FIRST, ends)):
            mixed = np.logaddexp(mixed, value + np.log(order / len(_SHARES)))
    log += np.where(second >= 0, mixed, whole_first)
    weight = np.exp(log - log.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    shows = np.zeros((len(first), k))
    shows[np.arange(len(first)), first] = 1.0
    shows[np.flatnonzero(second >= 0), second[second >= 0]] = 1.0
    return np.asarray(weight @ shows)


def _each_view(
    sessions: pa.Table,
    site: Site,
    page: np.ndarray,
    session: np.ndarray,
    index: np.ndarray,
    length: np.ndarray,
    sees_campaigns: bool,
) -> np.ndarray:
    """Log-likelihood of every view, (views, intents, stages); 0 where it says nothing."""
    k, stages = len(IDS), len(STAGES)
    browse = probabilities(site.browse).reshape(k, stages, 3, -1)
    # An intent to be served has one stage; another one shows as learning in a session of service.
    applies = np.where(site.service[:, None], stages - 1, np.minimum(np.arange(stages), stages - 1)[None])
    applies = np.where(~site.service[:, None] & (applies == stages - 1), 0, applies)
    browse = browse[np.arange(k)[:, None], applies]  # (intents, stages, phases, pages)
    noise, link = probabilities(site.noise)[0], probabilities(site.link)
    known = np.maximum(page, 0)
    before = np.where(index > 0, np.roll(page, 1), -1)
    came_from = np.maximum(before, 0)
    phase = np.where(index == 0, ENTRY, np.where(index < length[session] / 2, EARLY, LATE))
    drawn = browse[:, :, phase, known].transpose(2, 0, 1)
    aside = _NOISE * noise[known] + _LINK * link[came_from, known]
    same = browse[:, :, phase, came_from].transpose(2, 0, 1)
    # The page before is drawn again once, so its share falls to all pages.
    later = aside[:, None, None] + (1 - _NOISE - _LINK) * (1 + same) * drawn
    step = np.where(before >= 0, site.next_step[came_from], -1)
    later = np.where((step >= 0)[:, None, None], (1 - _NEXT_STEP) * later, later)
    later[(step >= 0) & (step == page)] += _NEXT_STEP
    if sees_campaigns:
        landing, direct = (of[session] for of in _landings(sessions, site))
        aimed = landing >= 0
        entry = np.where(aimed[:, None, None], (1 - _LANDS) * drawn, drawn)
        entry[aimed & (landing == page)] += _LANDS
        entry = np.where(direct[:, None, None], (1 - _DIRECT_HOME - _DIRECT_LOGIN) * entry, entry)
        entry[direct & (page == HOME)] += _DIRECT_HOME
        entry[direct & (page == LOGIN)] += _DIRECT_LOGIN
    else:
        paid, direct, lands = _entries(site)
        rest = 1 - _LANDS * paid - (_DIRECT_HOME + _DIRECT_LOGIN) * direct
        entry = drawn * rest + _LANDS * paid * lands[:, known].T[:, :, None]
        entry += np.where((page == HOME)[:, None, None], _DIRECT_HOME * direct, 0.0)
        entry += np.where((page == LOGIN)[:, None, None], _DIRECT_LOGIN * direct, 0.0)
    log = np.log(np.maximum(np.where((index == 0)[:, None, None], entry, later), _FLOOR))
    says_nothing = (page < 0) | (
        (page == LOGIN) & (index == length[session] - 1) & _log_in(sessions)[session]
    )
    log[says_nothing] = 0.0
    return np.asarray(log)


def _log_in(sessions: pa.Table) -> np.ndarray:
    lists = sessions["events"].combine_chunks()
    session = np.repeat(np.arange(sessions.num_rows), pc.list_value_length(lists).to_numpy())
    login = pc.equal(pc.struct_field(lists.flatten(), "event_type"), "login").to_numpy(zero_copy_only=False)
    found: np.ndarray = np.bincount(session, login, sessions.num_rows) > 0
    return found


def _landings(sessions: pa.Table, site: Site) -> tuple[np.ndarray, np.ndarray]:
    """The page that the campaign leads to (−1: none), and who came directly."""
    number = pc.fill_null(pc.index_in(sessions["campaign"], value_set=pa.array(CAMPAIGNS)), -1).to_numpy()
    direct = pc.fill_null(pc.equal(sessions["campaign"], "(direct)"), False).to_numpy()
    return np.where(number >= 0, site.landing[np.maximum(number, 0)], -1), direct


def _entries(site: Site) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By stage how many come by an advertisement and how many directly, (stages,) each; and the page that
    advertisements lead to, (intents, pages).
    """
    channel = probabilities(site.channel)
    kept = np.array([1.0 if c < _OFTEN_NO_CAMPAIGN else _HAS_CAMPAIGN for c in PAID_CHANNELS])
    lands = np.zeros((len(IDS), len(PAGES)))
    np.add.at(lands.T, site.landing, probabilities(site.campaign).T)
    return channel[:, list(PAID_CHANNELS)] @ kept, channel[:, DIRECT], lands


def _origin(sessions: pa.Table, site: Site) -> np.ndarray:
    """Log-likelihood of the campaign under each intent, (n, intents)."""
    number = pc.fill_null(pc.index_in(sessions["campaign"], value_set=pa.array(CAMPAIGNS)), -1).to_numpy()
    log = np.log(np.maximum(probabilities(site.campaign), _FLOOR)).T[np.maximum(number, 0)]
    return np.asarray(np.where((number >= 0)[:, None], log, 0.0))


def _searches(sessions: pa.Table, site: Site) -> np.ndarray:
    """Log-likelihood of the search terms under each intent, (n, intents)."""
    lists = sessions["events"].combine_chunks()
    session = np.repeat(np.arange(sessions.num_rows), pc.list_value_length(lists).to_numpy())
    term = pc.index_in(pc.struct_field(lists.flatten(), "text"), value_set=pa.array(site.terms))
    known = term.is_valid().to_numpy(zero_copy_only=False)
    log = np.log(np.maximum(probabilities(site.term), _FLOOR)).T
    out = np.zeros((sessions.num_rows, len(IDS)))
    np.add.at(out, session[known], log[pc.fill_null(term, 0).to_numpy()[known]])
    return out
