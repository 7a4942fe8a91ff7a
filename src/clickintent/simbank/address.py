"""The strings of an export: a pool of texts, and the concrete address of every page view.

Strings are handled as codes into one pool for each chunk; only addresses that are unique (an id, a query
string, leaked data) are put together, by Arrow, for those views alone.
"""

from __future__ import annotations

from urllib.parse import quote_plus

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clickintent.simbank.dirt import GARBAGE, TERM_LEAK_SHARE, TITLE_LEAK_SHARE, URL_LEAK_SHARE, Leaks
from clickintent.simbank.intents import CAMPAIGNS
from clickintent.simbank.latent import Ints
from clickintent.simbank.pages import PAGES, Page
from clickintent.simbank.site import AFFILIATE, BRAND, CHANNELS, HOST, Site
from clickintent.simbank.web import Sessions, Views

_TOKEN_SHARE = 0.2  # of log in and application pages carry a session token in the address
_NO_CAMPAIGN = {"(none)": "(direct)", "organic": "(organic)", "referral": "(referral)"}

_HEX = pa.array([f"{i:04x}" for i in range(65536)])
_ZIPS = pa.array([str(z) for z in range(94102, 94102 + 7 * 260, 7)])
_JOBS = pa.array([str(j) for j in range(21004, 21004 + 13 * 90, 13)])
_REFERRERS = (
    "https://www.google.com/",
    "https://www.bing.com/",
    "https://www.dailyledger.example/money/",
    "https://l.facebook.com/",
    "https://www.cardscout.example/reviews/best-cards",
    "https://www.ratewatcher.example/deposits/top-yields",
    "https://www.homepath.example/loans/compare",
    "https://www.plainmoney.example/guides",
)
_REFERRER_OF_CHANNEL = np.array([-1, 0, 1, 0, -1, 2, 3, -1])  # affiliates by theme, below
_AFFILIATE_OF_THEME = {
    "cards": 4,
    "study": 4,
    "borrow": 6,
    "save": 5,
    "everyday": 5,
    "home": 6,
    "vehicle": 6,
}
_FILES = ("direct-deposit-form.pdf", "schedule-of-fees.pdf", "rates-and-terms.pdf", "checklist.pdf")


class Pool:
    """Texts by code. Codes stay valid while more are added."""

    def __init__(self) -> None:
        self._parts: list[pa.Array] = []
        self._size = 0

    def add(self, texts: pa.Array | list[str] | tuple[str, ...]) -> int:
        """Add texts; returns the code of the first, the others follow."""
        part = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.string())
        first = self._size
        self._parts.append(part)
        self._size += len(part)
        return first

    def values(self) -> pa.Array:
        return pa.concat_arrays(self._parts)


class Texts:
    """The texts that do not change, each kind from its first code on."""

    def __init__(self, pool: Pool, site: Site, leaks: Leaks, pages: tuple[Page, ...] = PAGES) -> None:
        self.pool, self.pages = pool, pages
        self.urls = pool.add([HOST + page.path for page in pages])
        self.titles = pool.add([f"{page.title} | {BRAND}" for page in pages])
        self.bodies = pool.add([page.text for page in pages])
        self.referrers = pool.add(_REFERRERS)
        self.sources = pool.add([source for _, source, _ in CHANNELS])
        self.mediums = pool.add([medium for _, _, medium in CHANNELS])
        self.campaigns = pool.add(list(CAMPAIGNS))
        self.no_campaigns = pool.add([_NO_CAMPAIGN.get(medium, "(not set)") for _, _, medium in CHANNELS])
        self.terms = pool.add(site.terms)
        self.leaked_terms = pool.add(leaks.terms)
        self.leaked_titles = pool.add(pc.binary_join_element_wise(leaks.titles, BRAND, " | "))
        self.garbage = pool.add(GARBAGE)
        self.forms = pool.add(
            [page.path.split("/")[2] if page.role == "apply" else page.key for page in pages]
        )
        self.calls = pool.add([f"{HOST}/apply?from={page.key}" for page in pages])
        self.files = pool.add([f"/documents/{page.key.replace('_', '-')}/{_FILES[0]}" for page in pages])
        self.method = pool.add(["password"])


def view_texts(
    rng: np.random.Generator,
    texts: Texts,
    site: Site,
    leaks: Leaks,
    sessions: Sessions,
    views: Views,
    themes: npt.NDArray[np.str_],
) -> tuple[Ints, Ints, Ints, Ints]:
    """Codes of the address, title, referrer (-1: none) and search term (-1: none) of every view."""
    human = sessions.bot[views.session] < 0
    m = len(views.page)
    title = texts.titles + views.page
    leaked = human & (rng.random(m) < TITLE_LEAK_SHARE)
    title[leaked] = texts.leaked_titles + rng.integers(0, len(leaks.titles), leaked.sum())

    term = np.where(views.term >= 0, texts.terms + views.term, -1)
    typed = (views.term >= 0) & (rng.random(m) < TERM_LEAK_SHARE)
    term[typed] = texts.leaked_terms + rng.integers(0, len(leaks.terms), typed.sum())

    url = _addresses(rng, texts, leaks, site, sessions, views, term, human)
    before = np.concatenate([[-1], url[:-1]])
    outside = _REFERRER_OF_CHANNEL[sessions.channel]
    aimed = np.array([_AFFILIATE_OF_THEME.get(t, 7) for t in themes])[sessions.first]
    anyone = rng.integers(4, 8, len(aimed))
    affiliate = np.where(rng.random(len(aimed)) < 0.75, aimed, anyone)
    outside = np.where(sessions.channel == AFFILIATE, affiliate, outside)
    outside = np.where(outside >= 0, texts.referrers + outside, -1)
    referrer = np.where(views.index == 0, outside[views.session], before)
    return url, title, referrer, term


def _addresses(
    rng: np.random.Generator,
    texts: Texts,
    leaks: Leaks,
    site: Site,
    sessions: Sessions,
    views: Views,
    term: Ints,
    human: npt.NDArray[np.bool_],
) -> Ints:
    """Static addresses as codes of the pool; the others are put together and added to it."""
    m = len(views.page)
    path = np.array(["{" in page.path for page in texts.pages])[views.page]
    role_token = np.array([page.role in ("apply", "login") for page in texts.pages])[views.page]
    token = human & role_token & (rng.random(m) < _TOKEN_SHARE)
    campaign = sessions.campaign[views.session]
    landed = (views.index == 0) & (campaign >= 0)
    searched = views.term >= 0
    leak = human & ~searched & (rng.random(m) < URL_LEAK_SHARE)

    code = texts.urls + views.page
    rows = np.flatnonzero(path | token | landed | searched | leak)
    base = _with_ids(rng, texts, sessions, views, rows)
    empty = pa.array([""] * 1)

    def query(where: npt.NDArray[np.bool_], values: pa.Array) -> pa.Array:
        """``values`` belong to the rows where ``where``; other rows get nothing."""
        index = np.where(where[rows], np.cumsum(where[rows]), 0)
        return pa.concat_arrays([empty, values.cast(pa.string())]).take(pa.array(index))

    n_tokens = int(token[rows].sum())
    parts = [
        query(landed, _landing_queries(rng, sessions, views.session[rows][landed[rows]])),
        query(
            searched, _search_queries(rng, texts, site, leaks, sessions, views, term, rows[searched[rows]])
        ),
        query(token, pc.binary_join_element_wise("&sid=", _hex(rng, n_tokens), _hex(rng, n_tokens), "")),
        query(
            leak, pc.binary_join_element_wise("&", leaks.queries.take(_some(rng, leaks.queries, leak)), "")
        ),
    ]
    tail = pc.binary_join_element_wise(*parts, "")
    # The first "&" of a query begins it.
    tail = pc.replace_substring_regex(tail, "^&", "?")
    code[rows] = texts.pool.add(pc.binary_join_element_wise(base, tail, "")) + np.arange(len(rows))
    return code


def _with_ids(
    rng: np.random.Generator, texts: Texts, sessions: Sessions, views: Views, rows: Ints
) -> pa.Array:
    """Addresses without query; placeholders are filled with a branch, a job or an application's id."""
    page = views.page[rows]
    heads, tails, kinds = [], [], []
    for p in texts.pages:
        head, _, rest = p.path.partition("{")
        kind, _, tail = rest.partition("}")
        heads.append(HOST + head)
        tails.append(tail)
        kinds.append(("", "zip", "job", "application").index(kind))
    # Pool of ids: nothing, branches, jobs, and one application number for each session.
    number = _hex(rng, len(sessions.start))
    applications = pc.binary_join_element_wise(number, _hex(rng, len(sessions.start)), "")
    ids = pa.concat_arrays([pa.array([""]), _ZIPS, _JOBS, applications])
    session = views.session[rows]
    near = np.maximum(sessions.person[session], 0) * 31 + rng.integers(0, 3, len(rows))
    pick = np.select(
        [np.array(kinds)[page] == k for k in (1, 2, 3)],
        [
            1 + near % len(_ZIPS),
            1 + len(_ZIPS) + rng.integers(0, len(_JOBS), len(rows)),
            1 + len(_ZIPS) + len(_JOBS) + session,
        ],
        0,
    )
    return pc.binary_join_element_wise(
        pa.array(heads).take(pa.array(page)),
        ids.take(pa.array(pick)),
        pa.array(tails).take(pa.array(page)),
        "",
    )


def _landing_queries(rng: np.random.Generator, sessions: Sessions, session: Ints) -> pa.Array:
    queries = [
        f"&utm_source={source.strip('()')}&utm_medium={medium.strip('()')}&utm_campaign={name}"
        for _, source, medium in CHANNELS
        for name in CAMPAIGNS
    ]
    channel = sessions.channel[session]
    query = pa.array(queries).take(pa.array(channel * len(CAMPAIGNS) + sessions.campaign[session]))
    n = len(session)
    clicks = pc.binary_join_element_wise("&gclid=Cj0KCQ", *(_hex(rng, n) for _ in range(4)), "")
    paid = pa.array([medium == "cpc" for _, _, medium in CHANNELS]).take(pa.array(channel))
    return pc.binary_join_element_wise(query, pc.if_else(paid, clicks, ""), "")


def _search_queries(
    rng: np.random.Generator,
    texts: Texts,
    site: Site,
    leaks: Leaks,
    sessions: Sessions,
    views: Views,
    term: Ints,
    rows: Ints,
) -> pa.Array:
    """``&q=…&type=…``. People who want service look in the help pages a little more often."""
    all_terms = [*site.terms, *leaks.terms.to_pylist()]  # in the order of their codes
    encoded = pa.array([f"&q={quote_plus(t)}" for t in all_terms])
    helps = np.where(site.service[sessions.first[views.session[rows]]], 0.5, 0.15)
    u = rng.random(len(rows))
    kind = np.where(u < helps, 1, np.where(u < helps + 0.2, 2, 0))
    kinds = pa.array(["&type=all", "&type=help", "&type=products"]).take(pa.array(kind))
    return pc.binary_join_element_wise(encoded.take(pa.array(term[rows] - texts.terms)), kinds, "")


def _hex(rng: np.random.Generator, n: int) -> pa.Array:
    return _HEX.take(pa.array(rng.integers(0, len(_HEX), n)))


def _some(rng: np.random.Generator, pool: pa.Array, where: npt.NDArray[np.bool_]) -> pa.Array:
    return pa.array(rng.integers(0, len(pool), int(where.sum())))
