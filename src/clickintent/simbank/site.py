"""How people move through the site: tables of pages by intent, stage and phase of a visit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from clickintent.simbank.intents import CAMPAIGNS, INTENTS, weights
from clickintent.simbank.latent import Draw, Floats, Ints
from clickintent.simbank.pages import PAGES, ROLES

HOST = "https://www.larkfieldbank.example"
BRAND = "Larkfield Bank"

#: Where sessions come from: name, source, medium.
CHANNELS = (
    ("direct", "(direct)", "(none)"),
    ("organic", "google", "organic"),
    ("organic", "bing", "organic"),
    ("paid", "google", "cpc"),
    ("email", "newsletter", "email"),
    ("display", "dailyledger.example", "display"),
    ("social", "facebook", "social"),
    ("affiliate", "affiliate", "referral"),
)
DIRECT, EMAIL, AFFILIATE = 0, 4, 7
PAID_CHANNELS = (3, 4, 5, 6, 7)
_CHANNEL_BY_STAGE = (  # learn, compare, apply, service
    (0.20, 0.38, 0.06, 0.12, 0.07, 0.06, 0.06, 0.05),
    (0.26, 0.31, 0.06, 0.14, 0.08, 0.03, 0.03, 0.09),
    (0.42, 0.24, 0.05, 0.11, 0.10, 0.02, 0.02, 0.04),
    (0.55, 0.30, 0.05, 0.02, 0.04, 0.01, 0.02, 0.01),
)
_AIMED = 0.65  # of advertisements reach someone whom they suit

EVENT_NAMES = (
    "session_start",
    "page_view",
    "view_search_results",
    "scroll",
    "click",
    "select_content",
    "file_download",
    "form_start",
    "form_submit",
    "login",
)
EVENT = {name: i for i, name in enumerate(EVENT_NAMES)}

# One number per role, in the order of ROLES:
# home hub product rates calculator compare article qualify apply help search login branch info
_STAGE_ROLE = np.array(
    [
        [0.5, 1.6, 1.2, 0.8, 1.0, 0.8, 2.4, 0.35, 0.05, 0.7, 1.0, 0.2, 0.6, 1.0],
        [0.5, 0.9, 1.3, 1.9, 1.5, 2.2, 0.8, 0.7, 0.2, 0.7, 1.0, 0.3, 0.7, 0.8],
        [0.6, 0.5, 1.0, 0.8, 0.6, 0.7, 0.25, 1.8, 2.2, 1.0, 0.6, 1.0, 1.1, 0.5],
        [0.6, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.3, 1.0, 1.0, 1.0, 1.0, 1.0],
    ]
)
ENTRY, EARLY, LATE = range(3)
_PHASE_ROLE = np.array(
    [
        [2.5, 1.8, 1.0, 0.9, 0.6, 0.5, 1.5, 0.5, 0.05, 1.0, 0.3, 0.3, 0.9, 0.8],
        [0.5, 1.3, 1.2, 1.0, 0.9, 0.9, 1.2, 0.6, 0.3, 1.0, 1.3, 0.2, 1.0, 1.0],
        [0.3, 0.6, 1.0, 1.0, 1.1, 1.1, 0.7, 1.3, 2.0, 1.0, 0.7, 0.5, 1.1, 1.0],
    ]
)
_DWELL_S = np.array([12, 18, 40, 30, 70, 55, 85, 45, 75, 40, 9, 14, 22, 30], dtype=float)  # medians
_DWELL_STAGE = np.array(
    [
        [1.0, 1.1, 1.1, 0.9, 1.0, 0.9, 1.4, 0.9, 0.7, 1.0, 1.0, 1.0, 1.0, 1.0],
        [0.9, 0.9, 1.2, 1.4, 1.2, 1.4, 0.9, 0.9, 0.8, 1.0, 1.0, 1.0, 1.0, 0.9],
        [0.8, 0.7, 0.8, 0.8, 0.8, 0.8, 0.6, 1.2, 1.3, 0.9, 0.9, 1.0, 1.0, 0.8],
        [0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.9, 0.8, 0.9, 1.1, 1.0, 1.0, 1.0, 1.0],
    ]
)
# Everyone passes here now and then, whatever they came for.
_EVERYONE = weights(
    "home:1.6 search:1.3 login:0.3 help:0.15 offers:0.25 rates:0.25 calculators:0.2 contact:0.1"
)
# What page views lead to besides scrolling, by role: chance of a click, selected content, a download.
_EXTRAS = {
    "home": (0.15, 0.25, 0.0),
    "hub": (0.15, 0.15, 0.0),
    "product": (0.25, 0.05, 0.02),
    "rates": (0.08, 0.10, 0.04),
    "calculator": (0.05, 0.60, 0.0),
    "compare": (0.15, 0.30, 0.0),
    "article": (0.10, 0.0, 0.03),
    "qualify": (0.20, 0.10, 0.0),
    "help": (0.12, 0.0, 0.08),
    "search": (0.45, 0.0, 0.0),
    "branch": (0.20, 0.10, 0.0),
    "info": (0.08, 0.0, 0.05),
}

PAGE = {page.key: i for i, page in enumerate(PAGES)}
HOME, LOGIN, SEARCH = PAGE["home"], PAGE["login"], PAGE["search"]


@dataclass(frozen=True)
class Site:
    """Tables over p pages, 35 intents, 4 stages and 3 phases of a visit."""

    browse: Draw  # rows (intent, stage, phase), in that order of significance
    noise: Draw  # one row
    link: Draw  # row: the page one comes from
    dwell_s: Floats  # (4, p) median seconds by stage
    pace: Floats  # (35,)
    scrolls: Floats  # (p,) chance of a scroll
    extra: Draw  # row: page; outcomes 0 none, else index into EXTRA_EVENTS + 1
    next_step: Ints  # (p,) the page after this one in an application; -1: none
    channel: Draw  # row: stage
    campaign: Draw  # row: intent
    landing: Ints  # (campaigns,) page
    term: Draw  # row: intent; column: term
    terms: tuple[str, ...]
    service: np.ndarray  # (35,) bool


#: What may follow a page view, besides a scroll.
EXTRA_EVENTS = ("click", "select_content", "file_download", "form_start", "form_submit")


@cache
def build_site() -> Site:
    """The site; the same for every seed."""
    role = np.array([ROLES.index(page.role) for page in PAGES])
    next_step = np.full(len(PAGES), -1)
    for page, i in PAGE.items():
        if page.startswith("apply_"):
            next_step[i] = PAGE.get(f"{page[:-1]}{int(page[-1]) + 1}", -1)
    base, phases = _page_weights()
    table = (
        base[:, None, None, :]
        * _STAGE_ROLE[:, role][None, :, None, :]
        * _PHASE_ROLE[:, role][None, None, :, :]
        * phases[:, None, :, :]
    )
    share = np.array([intent.share for intent in INTENTS])
    noise = (share[:, None] * base / base.sum(1, keepdims=True)).sum(0) / share.sum()
    noise[HOME] += 0.08
    first_pages = np.array([p.role != "apply" or p.key.endswith("_1") for p in PAGES])
    noise = np.where(first_pages, noise + 0.2 / len(PAGES), 0.0)

    names = list(CAMPAIGNS)
    spend = np.array([CAMPAIGNS[name][1] for name in names])
    campaign = np.tile(spend / spend.sum(), (len(INTENTS), 1))
    for i, intent in enumerate(INTENTS):
        if intent.campaigns:
            aimed = np.isin(names, intent.campaigns) * spend
            campaign[i] = _AIMED * aimed / aimed.sum() + (1 - _AIMED) * campaign[i]
    terms, term = _terms()
    return Site(
        browse=Draw(table.reshape(-1, len(PAGES))),
        noise=Draw(noise[None]),
        link=Draw(_links()),
        dwell_s=(_DWELL_S * _DWELL_STAGE)[:, role],
        pace=np.array([intent.pace for intent in INTENTS]),
        scrolls=np.where(np.isin(role, [ROLES.index(r) for r in ("login", "search", "home")]), 0.15, 0.45),
        extra=Draw(_extras()),
        next_step=next_step,
        channel=Draw(_CHANNEL_BY_STAGE),
        campaign=Draw(campaign),
        landing=np.array([PAGE[CAMPAIGNS[name][0]] for name in names]),
        term=Draw(term),
        terms=terms,
        service=np.array([intent.kind == "service" for intent in INTENTS]),
    )


def _page_weights() -> tuple[Floats, Floats]:
    """Base weights (35, p); factors (35, 3, p) for pages an intent comes to sooner or later than usual."""
    base = np.zeros((len(INTENTS), len(PAGES)))
    phases = np.ones((len(INTENTS), 3, len(PAGES)))
    for i, intent in enumerate(INTENTS):
        for key, value in _EVERYONE.items():
            base[i, PAGE[key]] += value * (
                0.6 if intent.kind == "service" and key in ("offers", "rates") else 1.0
            )
        for key, value in weights(intent.pages).items():
            base[i, PAGE[key]] += value
        for key in intent.early.split():
            phases[i, :, PAGE[key]] = (2.0, 1.8, 0.5)
        for key in intent.late.split():
            phases[i, :, PAGE[key]] = (0.3, 0.5, 2.0)
    return base, phases


def _links() -> Floats:
    """Links from page to page: within an area, up to its hub, and back home."""
    links = np.zeros((len(PAGES), len(PAGES)))
    for i, source in enumerate(PAGES):
        for j, target in enumerate(PAGES):
            if i == j or target.role in ("apply", "search"):
                continue
            if source.area == target.area:
                links[i, j] = 1.8 if target.role == "hub" else 1.0
            elif target.role == "hub" and source.area == "home":
                links[i, j] = 0.7
        links[i, HOME] += 0.6
    links[HOME, HOME] = 0.0
    return links


def _extras() -> Floats:
    table = np.zeros((len(PAGES), 1 + len(EXTRA_EVENTS)))
    for i, page in enumerate(PAGES):
        table[i, 1:4] = _EXTRAS.get(page.role, (0.0, 0.0, 0.0))
        if page.role == "apply":
            table[i, 4 if page.key.endswith("1") else 5] = {"1": 0.85, "2": 0.0, "3": 0.6}[page.key[-1]]
    table[:, 0] = 1 - table.sum(1)
    return table


def _terms() -> tuple[tuple[str, ...], Floats]:
    """Search terms, each also with a slip of the finger, and how likely each intent types them."""
    terms = list(dict.fromkeys(term for intent in INTENTS for term in intent.terms))
    slips = [term[: len(term) // 2] + term[len(term) // 2 + 1 :] for term in terms]
    table = np.zeros((len(INTENTS), len(terms)))
    for i, intent in enumerate(INTENTS):
        for rank, term in enumerate(intent.terms):
            table[i, terms.index(term)] = 1 / (1 + rank)
    table /= table.sum(1, keepdims=True)
    table = 0.88 * table + 0.12 * table.mean(0)
    return (*terms, *slips), np.concatenate([0.93 * table, 0.07 * table], axis=1)
