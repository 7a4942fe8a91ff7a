"""What really was, for ``evaluate`` alone: intents and odds of every web session."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from clickintent.simbank.export import session_ends
from clickintent.simbank.intents import INTENTS, PRODUCTS
from clickintent.simbank.latent import STAGES, Floats
from clickintent.simbank.people import People
from clickintent.simbank.web import Events, Sessions, Views

#: Columns of ``truth/sessions.parquet``. ``p`` follows ``products``, whose last is "none"; null for bots.
SCHEMA = pa.schema(
    [
        ("user_pseudo_id", pa.string()),
        ("ga_session_id", pa.int64()),
        ("start_us", pa.int64()),
        ("end_us", pa.int64()),
        ("account_id", pa.string()),
        ("intents", pa.list_(pa.string())),  # that show in the session, the main one first
        ("weights", pa.list_(pa.float64())),
        ("stage", pa.string()),
        ("is_bot", pa.bool_()),
        ("products", pa.list_(pa.string())),
        ("p", pa.list_(pa.float64())),
        ("p_none", pa.float64()),
    ]
)


def session_truth(
    people: People,
    sessions: Sessions,
    views: Views,
    events: Events,
    cookie_names: pa.Array,
    owners: pa.Array,
    odds: Floats,
) -> pa.Table:
    """Truth of every web session, in the order of time.

    ``p`` is the probability that the first product which the person opens within 14 days after the session is
    each one, given the latent state during the session and the person's class: ``Latent.within`` gives it
    without sampling. It takes the state at the start for the state at the end; in the minutes between, it
    changes in about one session in a thousand.
    """
    order = np.argsort(sessions.start, kind="stable")
    bot = sessions.bot[order] >= 0
    first, second, weight = sessions.first[order], sessions.second[order], sessions.weight[order]
    person = sessions.person[order]
    n_shown = np.where(bot, 0, 1 + (second >= 0))
    offsets = pa.array(np.concatenate([[0], np.cumsum(n_shown)]).astype(np.int32))
    there = np.arange(2) < n_shown[:, None]
    names = pa.array([intent.name for intent in INTENTS])
    intents = names.take(pa.array(np.stack([first, second], 1)[there]))
    weights = pa.array(np.stack([weight, 1 - weight], 1)[there])

    p = odds[people.class_[person], sessions.state[order]][~bot]
    k = p.shape[1]
    of_bot = np.concatenate([[0], np.cumsum(~bot)]) * k
    filled = pa.array(of_bot.astype(np.int32), mask=np.append(bot, False))
    outcomes = pa.array([*PRODUCTS, "none"])
    return pa.table(
        [
            cookie_names.take(pa.array(sessions.cookie[order])),
            sessions.start[order] // 1_000_000,
            sessions.start[order],
            session_ends(sessions, views, events)[order],
            owners.take(pa.array(person, mask=bot)),
            pa.ListArray.from_arrays(offsets, intents),
            pa.ListArray.from_arrays(offsets, weights),
            pa.array(STAGES).take(pa.array(sessions.stage[order], mask=bot)),
            bot,
            pa.ListArray.from_arrays(filled, outcomes.take(pa.array(np.tile(np.arange(k), len(p))))),
            pa.ListArray.from_arrays(filled, pa.array(p.ravel())),
            pa.array(_spread(p[:, -1], ~bot), mask=bot),
        ],
        schema=SCHEMA,
    )


def _spread(values: Floats, where: np.ndarray) -> Floats:
    spread = np.zeros(len(where))
    spread[where] = values
    return spread
