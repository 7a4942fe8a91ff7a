"""Accounts, the paths of what their owners want, and when they visit the web site and the app."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickintent.simbank.latent import ACTIVITY, Draw, Floats, Ints, Latent

#: Days after the last web session for which conversions are logged, so that every session has an outcome.
HORIZON_DAYS = 14
#: Web sessions per person and day, before activity; app visits per account and day.
WEB_RATE, APP_RATE = 0.075, 0.12
_MEAN_ACTIVITY = 1.19  # over people and time, relative to WEB_RATE; keeps config.sessions roughly true
_APP_ONLY = 0.12  # of accounts are never seen on the web site
_HAS_APP = 0.88
_NEVER_LOGS_IN = 0.10  # on the web site

_BURST_SIGMA = 0.9  # visits come in bursts
_COOKIE_DAYS = 90.0  # mean life of a cookie before it is cleared
_SECOND_DEVICE = 0.42
_SHARED_DEVICE = 0.07

# Visits by hour of the week, Monday first: mornings, lunch and evenings; quieter at weekends.
_HOUR = np.array(
    [3, 2, 1, 1, 1, 2, 5, 9, 12, 13, 13, 14, 15, 13, 12, 12, 12, 13, 14, 15, 15, 13, 9, 5], dtype=float
)
_WEEKDAY = np.array([1.12, 1.10, 1.07, 1.04, 1.0, 0.80, 0.87])


class Calendar:
    """Turns days into activity and back, so that visits follow the hour and the day of the week."""

    def __init__(self, days: int, first_weekday: int) -> None:
        weekday = _WEEKDAY[(first_weekday + np.arange(days)) % 7]
        hourly = (weekday[:, None] / _WEEKDAY.mean() * _HOUR / _HOUR.mean()).ravel() / 24
        self._activity = np.concatenate([[0.0], np.cumsum(hourly)])
        self._days = np.arange(len(self._activity)) / 24

    def activity(self, days: Floats) -> Floats:
        return np.asarray(np.interp(days, self._days, self._activity))

    def days(self, activity: Floats) -> Floats:
        return np.asarray(np.interp(activity, self._activity, self._days))


@dataclass(frozen=True)
class People:
    """n people, each with one account. Web rates of zero: seen in the app only."""

    number: Ints  # (n,) over all chunks
    class_: Ints  # (n,) row of the latent tables
    web_rate: Floats  # (n,) visits a day
    app_rate: Floats
    logs_in: np.ndarray  # (n,) bool: ever, on the web site
    taste: Floats  # (n, 14) liking of each tile


@dataclass(frozen=True)
class Path:
    """Stretches of constant state, in days since the export's first; and products opened."""

    person: Ints
    state: Ints
    begin: Floats
    end: Floats
    burst: Floats  # how active the person is meanwhile
    conversion_person: Ints
    conversion_day: Floats
    conversion_product: Ints


@dataclass(frozen=True)
class Visits:
    """m visits by person, then time."""

    person: Ints
    day: Floats
    state: Ints


def make_people(rng: np.random.Generator, latent: Latent, first: int, n: int, n_tiles: int) -> People:
    web = rng.random(n) >= _APP_ONLY
    return People(
        number=np.arange(first, first + n),
        class_=rng.choice(len(latent.class_share), n, p=latent.class_share),
        web_rate=np.where(web, WEB_RATE * rng.gamma(1.6, 1 / 1.6, n), 0.0),
        app_rate=np.where((rng.random(n) < _HAS_APP) | ~web, APP_RATE * rng.gamma(1.2, 1 / 1.2, n), 0.0),
        logs_in=rng.random(n) >= _NEVER_LOGS_IN,
        taste=rng.normal(0.0, 0.45, (n, n_tiles)),
    )


def people_needed(sessions: float, days: int) -> int:
    """How many people make about ``sessions`` web sessions in ``days``."""
    return max(1, round(sessions / ((1 - _APP_ONLY) * WEB_RATE * _MEAN_ACTIVITY * days)))


def make_path(rng: np.random.Generator, latent: Latent, people: People, days: float) -> Path:
    """Simulate the chain of every person, event by event, all people at once."""
    n, states = len(people.class_), latent.n_states
    n_products = latent.hazard.shape[2]
    rates = np.concatenate(
        [
            np.broadcast_to(
                np.stack([latent.advance, latent.back, latent.end], 1), (*latent.hazard.shape[:2], 3)
            ),
            latent.hazard,
        ],
        axis=2,
    ).reshape(-1, 3 + n_products)
    total = rates.sum(1)
    what = Draw(rates)
    where = Draw(latent.entry.reshape(-1, states))
    n_intents = latent.entry.shape[1]

    alive = np.arange(n)
    state = Draw(latent.start)(rng, latent.segment[people.class_])
    now = np.zeros(n)
    stretches: list[tuple[Ints, Ints, Floats, Floats]] = []
    opened: list[tuple[Ints, Floats, Ints]] = []
    while len(alive):
        row = people.class_[alive] * states + state
        until = now + rng.standard_exponential(len(alive)) / total[row]
        stretches.append((alive, state, now, np.minimum(until, days)))
        going = until < days
        alive, state, now, row = alive[going], state[going], until[going], row[going]
        event = what(rng, row)
        sold = event >= 3
        opened.append((alive[sold], now[sold], event[sold] - 3))
        segment = latent.segment[people.class_[alive]]
        anew = where(rng, segment * n_intents + latent.intent[state])
        state = np.select([event == 0, event == 1], [latent.forward[state], latent.backward[state]], anew)

    person, state, begin, end = (np.concatenate(x) for x in zip(*stretches, strict=True))
    order = np.lexsort((begin, person))
    sold_person, sold_day, product = (np.concatenate(x) for x in zip(*opened, strict=True))
    burst = rng.lognormal(-(_BURST_SIGMA**2) / 2, _BURST_SIGMA, len(person))
    return Path(person[order], state[order], begin[order], end[order], burst, sold_person, sold_day, product)


def make_visits(
    rng: np.random.Generator, path: Path, rate: Floats, calendar: Calendar, days: float, activity: Floats
) -> Visits:
    """Visits as a Poisson process whose rate follows the state, the burst and the calendar.

    A visit depends on the present only, never on what the person will do: otherwise the oracle's odds,
    which condition on the state at the visit, would be biased.
    """
    begin = calendar.activity(np.minimum(path.begin, days))
    end = calendar.activity(np.minimum(path.end, days))
    expected = rate[path.person] * activity * path.burst * (end - begin)
    stretch = np.repeat(np.arange(len(expected)), rng.poisson(expected))
    at = begin[stretch] + rng.random(len(stretch)) * (end - begin)[stretch]
    person = path.person[stretch]
    order = np.lexsort((at, person))
    stretch = stretch[order]
    return Visits(person[order], calendar.days(at[order]), path.state[stretch])


def web_visits(
    rng: np.random.Generator, latent: Latent, people: People, path: Path, calendar: Calendar, days: float
) -> Visits:
    return make_visits(rng, path, people.web_rate, calendar, days, ACTIVITY[latent.stage[path.state]])


def app_visits(
    rng: np.random.Generator, people: People, path: Path, calendar: Calendar, days: float
) -> Visits:
    return make_visits(rng, path, people.app_rate, calendar, days, np.ones(len(path.state)))


@dataclass(frozen=True)
class Cookies:
    """The cookie of every visit, and whether the person logs in at its end."""

    cookie: Ints  # (m,) 0 … k - 1
    device: Ints  # (m,) 0 … : browsers and machines; several cookies over time each
    login: np.ndarray  # (m,) bool


def make_cookies(rng: np.random.Generator, people: People, visits: Visits) -> Cookies:
    """Devices are shared and cookies cleared; of all cookies about four fifths see a login."""
    n = len(people.number)
    devices = np.arange(2 * n).reshape(n, 2)
    shared = np.flatnonzero(rng.random(n) < _SHARED_DEVICE)
    devices[shared[shared > 0], 0] = devices[shared[shared > 0] - 1, 0]  # with the neighbour in the numbering
    second = (rng.random(n) < _SECOND_DEVICE)[visits.person] & (rng.random(len(visits.person)) < 0.4)
    device = devices[visits.person, second.astype(np.int64)]
    cleared = np.cumsum(rng.exponential(_COOKIE_DAYS, (2 * n, 4)), axis=1)
    generation = (visits.day[:, None] > cleared[device]).sum(1)
    _, cookie = np.unique(device * 5 + generation, return_inverse=True)

    k = int(cookie.max()) + 1 if len(cookie) else 0
    may = people.logs_in[visits.person] & (rng.random(k) < 0.89)[cookie]
    login = may & (rng.random(len(may)) < 0.22)
    # Every cookie that may see a login sees one, at a visit drawn at random.
    shuffled = rng.permutation(np.flatnonzero(may))
    _, pick = np.unique(cookie[shuffled], return_index=True)
    login[shuffled[pick]] = True
    return Cookies(cookie.astype(np.int64), device, login)


_ODD = 2_654_435_761  # odd, so multiplication modulo 2³² is one-to-one and hides the order of accounts


def account_ids(number: Ints, seed: int) -> pa.Array:
    """Opaque account ids, one for each number below 2³²."""
    mixed = (number.astype(np.uint64) * np.uint64(_ODD) + np.uint64(seed * 7919 + 12345)) % np.uint64(2**32)
    digits = pc.utf8_lpad(pc.cast(pa.array(mixed), pa.string()), 10, "0")
    return pc.binary_join_element_wise("A", digits, "")
