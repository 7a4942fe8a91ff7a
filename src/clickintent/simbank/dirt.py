"""What real exports are full of: bots, duplicates, broken rows, and personal data where it does not belong.

Everything is made up: social security numbers begin with 9, which none does; telephone numbers are from
the range reserved for fiction; cards and IBANs pass their checks and belong to no one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from clickintent.simbank.latent import Ints
from clickintent.simbank.pages import PAGES
from clickintent.simbank.site import PAGE
from clickintent.simbank.web import US_PER_DAY, Sessions, Views, timed_views

#: Of all web sessions.
BOT_SHARE = 0.072
DUPLICATE_SHARE = 0.005
BROKEN_SHARE = 0.001
#: Of page views. Search terms leak more often than the rest, because people type anything.
URL_LEAK_SHARE, TITLE_LEAK_SHARE, TERM_LEAK_SHARE = 0.002, 0.001, 0.03

#: Kinds of bots: one that gives its name, one in a headless browser, and two that claim nothing.
BOT_KINDS = ("crawler", "headless", "crawl", "scraper")


def make_bots(
    rng: np.random.Generator, n_people_sessions: int, first_cookie: int, days: int, origin: int
) -> tuple[Sessions, Views]:
    """Sessions of bots: fast, regular and broad. About ``BOT_SHARE`` of all sessions."""
    m = int(rng.poisson(n_people_sessions * BOT_SHARE / (1 - BOT_SHARE)))
    cookie = np.sort(rng.integers(0, max(1, m // 2), m))
    kind = rng.choice(4, max(1, m // 2), p=[0.3, 0.25, 0.3, 0.15])[cookie]
    n_views = np.minimum(4 + rng.geometric(1 / 11, m), 120)
    none = np.full(m, -1)
    sessions = Sessions(
        person=none,
        state=none,
        start=origin + (rng.random(m) * days * US_PER_DAY).astype(np.int64),
        cookie=first_cookie + cookie,
        device=none,
        login=np.zeros(m, dtype=bool),
        first=none,
        second=none,
        weight=np.ones(m),
        stage=none,
        channel=np.where(rng.random(m) < 0.9, 0, 1),
        campaign=none,
        n_views=n_views,
        bot=kind,
    )
    session = np.repeat(np.arange(m), n_views)
    index = np.arange(len(session)) - (np.cumsum(n_views) - n_views)[session]
    in_order = (rng.integers(0, len(PAGES), m)[session] + index) % len(PAGES)
    anywhere = rng.integers(0, len(PAGES), len(session))
    priced = np.array([i for i, page in enumerate(PAGES) if page.role in ("rates", "product")])
    prices = priced[rng.integers(0, len(priced), len(session))]
    page = np.select([kind[session] == 3, (kind[session] % 2 == 0)], [prices, in_order], anywhere)
    page = np.where(page == PAGE["search"], PAGE["home"], page)
    interval = rng.lognormal(np.log(1.0), 0.6, m)[session]  # seconds
    dwell = interval * (1 + 0.03 * rng.standard_normal(len(session)).clip(-3, 3))
    return sessions, timed_views(sessions, page, (dwell * 1e6).astype(np.int64))


@dataclass(frozen=True)
class Damage:
    """Rows of the export, in order (duplicates follow their original), and what is broken in which."""

    rows: Ints
    no_time: Ints  # positions in ``rows``
    zero_time: Ints
    far_time: Ints
    no_visitor: Ints
    bad_page: Ints


def make_damage(rng: np.random.Generator, n: int) -> Damage:
    """Repeat and break rows. A broken row is not repeated, so that duplicates are duplicates of good rows."""
    u = rng.random(n)
    repeats = 1 + (u < DUPLICATE_SHARE).astype(np.int64)
    rows = np.repeat(np.arange(n), repeats)
    broken = np.flatnonzero((u > 1 - BROKEN_SHARE)[rows])
    which = rng.integers(0, 5, len(broken))
    return Damage(rows, *(broken[which == i] for i in range(5)))


#: What stands where the address of a page should be.
GARBAGE = ("", "about:blank", "null", "undefined", "%%%", "http://", "://", "chrome-error://chromewebdata/")

_FIRST = (
    *("Ana", "Ben", "Carla", "David", "Elena", "Frank", "Grace", "Hugo", "Irene", "James"),
    *("Kofi", "Laura", "Miguel", "Nadia", "Oscar", "Priya", "Ruth", "Samuel"),
)
_LAST = (
    *("Alvarez", "Brown", "Chen", "Diaz", "Evans", "Fischer", "Garcia", "Hughes", "Ito"),
    *("Johnson", "Khan", "Lopez", "Miller", "Novak", "Okafor", "Patel"),
)


@dataclass(frozen=True)
class Leaks:
    """Pools of personal data: as query strings, as titles, and as search terms."""

    queries: pa.Array
    titles: pa.Array
    terms: pa.Array


def make_leaks(rng: np.random.Generator, n: int = 600) -> Leaks:
    """Invent ``n`` of each."""
    queries, titles, terms = [], [], []
    for _ in range(n):
        first, last = _FIRST[rng.integers(len(_FIRST))], _LAST[rng.integers(len(_LAST))]
        host = ("example.com", "mail.example.org")[rng.integers(2)]
        mail = f"{first}.{last}{rng.integers(1, 99)}@{host}".lower()
        phone = f"{rng.integers(201, 989)}-555-01{rng.integers(0, 100):02d}"
        social = f"{rng.integers(900, 1000)}-{rng.integers(10, 99)}-{rng.integers(1000, 9999)}"
        account = str(rng.integers(10**9, 10**10))
        card, bank = _card(rng), _iban(rng)
        queries.append(
            (
                f"email={mail.replace('@', '%40')}",
                f"email={mail}",
                f"phone={phone}",
                f"ssn={social}",
                f"name={first}+{last}&acct={account}",
                f"card={card}",
                f"iban={bank}",
            )[rng.integers(7)]
        )
        titles.append(
            (
                f"Welcome back, {first} {last}",
                f"Application of {first} {last}, account {account}",
                f"Messages for {mail}",
                f"Card {card} details",
            )[rng.integers(4)]
        )
        terms.append(
            (
                mail,
                f"{first} {last} {account}",
                f"card declined {card}",
                f"my ssn is {social}",
                f"call me {phone}",
                f"transfer to {bank}",
                f"where is my card {' '.join(card[i : i + 4] for i in range(0, 16, 4))}",
            )[rng.integers(7)]
        )
    return Leaks(pa.array(queries), pa.array(titles), pa.array(terms))


def _card(rng: np.random.Generator) -> str:
    """Sixteen digits that pass the Luhn check."""
    digits = [4, *rng.integers(0, 10, 14).tolist()]
    doubled = [d if i % 2 else (2 * d - 9 if d > 4 else 2 * d) for i, d in enumerate(digits)]
    return "".join(map(str, digits)) + str(-sum(doubled) % 10)


def _iban(rng: np.random.Generator) -> str:
    """A German IBAN with right check digits (ISO 13616)."""
    account = "".join(map(str, rng.integers(0, 10, 18).tolist()))
    return f"DE{98 - int(account + '131400') % 97:02d}{account}"
