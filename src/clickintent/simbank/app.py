"""The app's side: servicing events, homepage slates shown by a logged policy, clicks, conversions.

**The policy.** A slate has 8 to 12 of the 14 tiles, its length L drawn uniformly. Position 0 is drawn from

    q(tile) = (1 - ε) · softmax(popularity)(tile) + ε / 14,

the remaining positions are filled with the other 13 tiles in an order drawn uniformly. Therefore the
probability of a tile at a position, which is what ``propensity`` logs, is exact and the same for every L:
q(tile) at position 0, and (1 - q(tile)) / 13 at each other position.

**The click.** Multinomial logit over the tiles shown and no click at all. The utility of a tile is what the
person wants now × the tile's fit, plus popularity, the person's own taste and the effect of the position.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickintent.simbank.intents import INTENTS, PRODUCTS, TILE_POPULARITY, TILES, weights
from clickintent.simbank.latent import FIRST_WEIGHT, SECOND_WEIGHT, Draw, Floats, Ints, Latent
from clickintent.simbank.people import Path, People, Visits
from clickintent.simbank.web import US_PER_DAY

_EXPLORE = 0.2
MIN_TILES, MAX_TILES = 8, 12
_SLATE_SHARE = 0.75  # of visits pass the homepage; others open at a notification
_FIT, _POPULARITY = 3.2, 0.5
_POSITION = np.array([0.45, *(-0.09 * np.arange(1, MAX_TILES))])
_NO_CLICK = 4.1  # utility of doing nothing with the slate

# Screen, title, event type, how frequent among the actions of a visit.
_ACTIONS = (
    ("balance", "Accounts and Balances", "view_balance", 5.0),
    ("transactions", "Recent Transactions", "view_transactions", 4.0),
    ("transfer", "Transfer Money", "transfer", 2.0),
    ("pay-bill", "Pay a Bill", "pay_bill", 2.2),
    ("deposit-check", "Deposit a Check", "deposit_check", 1.0),
    ("send-money", "Send Money to a Person", "send_money", 1.5),
    ("card-controls", "Card Controls", "card_controls", 0.8),
    ("statements", "Statements and Documents", "view_statement", 0.7),
    ("credit-score", "Your Credit Score", "view_credit_score", 0.9),
    ("dispute", "Dispute a Transaction", "dispute", 0.15),
    ("messages", "Secure Messages", "view_message", 0.6),
    ("profile", "Profile and Settings", "update_profile", 0.3),
    ("atm", "Branches and Cash Machines", "find_branch", 0.3),
)
# The little that servicing says of what people want.
_LEANS = {
    "dispute a charge": {"dispute": 6.0, "transactions": 1.5},
    "fraud or lost card": {"card-controls": 5.0, "transactions": 1.5},
    "log in problems": {"profile": 3.0},
    "statements and tax forms": {"statements": 4.0},
    "wires and routing numbers": {"transfer": 2.0},
    "find a branch": {"atm": 4.0},
    "credit card pre-approval": {"credit-score": 1.8},
    "first credit card": {"credit-score": 2.0},
    "debt consolidation": {"credit-score": 1.5},
    "mortgage pre-approval": {"credit-score": 1.5, "statements": 1.5},
}
_SCREENS = (("sign-in", "Sign In", "login"), ("home", "Home", "view_home"), *(a[:3] for a in _ACTIONS))

EVENTS_SCHEMA = pa.schema(
    [
        ("event_id", pa.string()),
        ("device_id", pa.string()),
        ("account_id", pa.string()),
        ("ts", pa.int64()),
        ("event_type", pa.string()),
        ("screen", pa.string()),
        ("title", pa.string()),
    ]
)
IMPRESSIONS_SCHEMA = pa.schema(
    [
        ("slate_id", pa.string()),
        ("account_id", pa.string()),
        ("ts", pa.int64()),
        ("tile", pa.string()),
        ("position", pa.int32()),
        ("propensity", pa.float64()),
        ("clicked", pa.bool_()),
    ]
)
TILE_TRUTH_SCHEMA = pa.schema(
    [
        ("slate_id", pa.string()),
        ("tile", pa.string()),
        ("utility", pa.float64()),  # without the effect of the position
        ("p_click", pa.float64()),  # of this tile, no click being possible
        ("p_click_given_click", pa.float64()),  # of this tile, if one of the slate is clicked
    ]
)
CONVERSIONS_SCHEMA = pa.schema([("account_id", pa.string()), ("ts", pa.int64()), ("product", pa.string())])


@dataclass(frozen=True)
class AppLogs:
    slates: int
    events: pa.Table
    impressions: pa.Table
    tile_truth: pa.Table
    conversions: pa.Table


def make_app_logs(
    rng: np.random.Generator,
    latent: Latent,
    people: People,
    path: Path,
    visits: Visits,
    accounts: pa.Array,
    origin: int,
    first_slate: int,
) -> AppLogs:
    """All logs of one chunk. ``first_slate`` numbers its slates, so that ids do not repeat across chunks."""
    start = origin + (visits.day * US_PER_DAY).astype(np.int64)
    slates = np.flatnonzero(rng.random(len(start)) < _SLATE_SHARE)
    impressions, truth = _slates(rng, latent, people, visits, slates, start, accounts, first_slate)
    order = np.argsort(path.conversion_day, kind="stable")
    conversions = pa.table(
        [
            accounts.take(pa.array(path.conversion_person[order])),
            origin + (path.conversion_day[order] * US_PER_DAY).astype(np.int64),
            pa.array(PRODUCTS).take(pa.array(path.conversion_product[order])),
        ],
        schema=CONVERSIONS_SCHEMA,
    )
    events = _events(rng, latent, people, visits, start, accounts)
    return AppLogs(len(slates), events, impressions, truth, conversions)


def _events(
    rng: np.random.Generator, latent: Latent, people: People, visits: Visits, start: Ints, accounts: pa.Array
) -> pa.Table:
    n = 2 + rng.geometric(0.45, len(start))
    visit = np.repeat(np.arange(len(start)), n)
    index = np.arange(len(visit)) - (np.cumsum(n) - n)[visit]
    intent = latent.intent[visits.state][visit]
    table = np.array([[a[3] * _LEANS.get(i.name, {}).get(a[0], 1.0) for a in _ACTIONS] for i in INTENTS])
    screen = np.where(index < 2, index, 2 + Draw(table)(rng, intent))
    wait = np.where(index == 0, 0.0, rng.lognormal(2.7, 0.8, len(visit)).clip(1, 900))
    since = np.cumsum(wait)
    at = start[visit] + ((since - since[index == 0][visit]) * 1e6).astype(np.int64)
    order = np.argsort(at, kind="stable")
    person = visits.person[visit][order]
    # Account and index within the account's events: unique, and known without looking at other chunks.
    by_person = np.empty(len(person), dtype=np.int64)
    grouped = np.argsort(person, kind="stable")
    counts = np.bincount(person, minlength=len(people.number))
    by_person[grouped] = np.arange(len(person)) - np.repeat(np.cumsum(counts) - counts, counts)
    account = accounts.take(pa.array(person))
    # Most people have one phone; some change it, or use a tablet too.
    tablet = (people.number[person] % 9 == 0) & (by_person % 3 == 0)
    device = pc.binary_join_element_wise(
        "d", pc.utf8_slice_codeunits(account, 1), pa.array(["m", "t"]).take(pa.array(tablet.astype(int))), "-"
    )
    number = pc.cast(pa.array(by_person), pa.string())
    columns = [pa.array(column) for column in zip(*_SCREENS, strict=True)]
    code = pa.array(screen[order])
    return pa.table(
        [
            pc.binary_join_element_wise("e", account, number, "-"),
            device,
            account,
            at[order],
            columns[2].take(code),
            columns[0].take(code),
            columns[1].take(code),
        ],
        schema=EVENTS_SCHEMA,
    )


def policy() -> Floats:
    """q: the probability (14,) of each tile at position 0."""
    popular = np.exp(np.array(TILE_POPULARITY))
    return np.asarray((1 - _EXPLORE) * popular / popular.sum() + _EXPLORE / len(TILES))


def _slates(
    rng: np.random.Generator,
    latent: Latent,
    people: People,
    visits: Visits,
    slates: Ints,
    start: Ints,
    accounts: pa.Array,
    first_slate: int,
) -> tuple[pa.Table, pa.Table]:
    m, k = len(slates), len(TILES)
    slates = slates[np.argsort(start[slates], kind="stable")]
    q = policy()
    key = rng.random((m, k))
    key[np.arange(m), rng.choice(k, m, p=q)] = -1.0  # the featured tile comes first
    tile = np.argsort(key, axis=1)[:, :MAX_TILES]
    length = rng.integers(MIN_TILES, MAX_TILES + 1, m)
    position = np.arange(MAX_TILES)
    shown = position < length[:, None]
    propensity = np.where(position == 0, q[tile], (1 - q[tile]) / (k - 1))

    person, state = visits.person[slates], visits.state[slates]
    fit = np.array([[weights(i.tiles).get(t, 0.0) for t in TILES] for i in INTENTS])
    first, second = latent.intent[state], latent.second[state]
    wish = FIRST_WEIGHT * fit[first] + SECOND_WEIGHT * np.where(second[:, None] >= 0, fit[second], fit[first])
    liking = _FIT * wish + _POPULARITY * np.array(TILE_POPULARITY) + people.taste[person]
    utility = np.take_along_axis(liking, tile, axis=1)
    strength = np.where(shown, np.exp(utility + _POSITION), 0.0)
    total = strength.sum(1, keepdims=True)
    p = strength / (total + np.exp(_NO_CLICK))
    u = rng.random((m, 1))
    reached = np.cumsum(p, axis=1)
    clicked = (u < reached) & (u >= reached - p)

    slate = np.repeat(np.arange(m), length)
    number = pc.utf8_lpad(pc.cast(pa.array(first_slate + np.arange(m)), pa.string()), 9, "0")
    slate_id = pc.binary_join_element_wise("slate", number, "-").take(pa.array(slate))
    names = pa.array(TILES).take(pa.array(tile[shown]))
    impressions = pa.table(
        [
            slate_id,
            accounts.take(pa.array(person[slate])),
            start[slates][slate] + 1_500_000,
            names,
            np.broadcast_to(position.astype(np.int32), shown.shape)[shown],
            propensity[shown],
            clicked[shown],
        ],
        schema=IMPRESSIONS_SCHEMA,
    )
    truth = pa.table(
        [slate_id, names, utility[shown], p[shown], (strength / total)[shown]], schema=TILE_TRUTH_SCHEMA
    )
    return impressions, truth
