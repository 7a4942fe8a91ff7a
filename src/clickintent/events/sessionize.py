"""Events → sessions: cut, ordered, with dwell and gaps, as one Ibis expression.

A session ends when its visitor does nothing on the channel for longer than the inactivity limit, or, with
``boundary = "source"``, where the export's own session number changes (events without a number fall back on
inactivity). Order is by ``ts``, then ``order`` (of the export), so equal input gives equal sessions.

Lists are made by the one construct that DuckDB and Spark agree on: structs with the time first, collected,
sorted, then mapped. Everything but times is codes (see ``coding``).
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from clickintent.config import SessionsConfig
from clickintent.events import bots, identity

#: Of the first event alone: what is known of a session from its beginning.
_ENTRY = ("referrer", "campaign", "device", "country")
#: Of every event, in the list.
EVENT_FIELDS = ("ts", "event_type", "page", "title", "text", "dwell_s", "gap_s", "value")


def timed(events: ir.Table, config: SessionsConfig) -> tuple[ir.Table, list[str]]:
    """Events with ``_number`` (which session), ``_starts``, ``gap_s`` and ``dwell_s``.

    Args:
        events: columns of ``clean.CODED`` and ``order`` (int64, unique), which decides among events of one
            time.

    Returns:
        The events, and the names of the columns that say which session an event belongs to.
    """
    by_source = config.boundary == "source"
    # joins do not find null
    flat = events.mutate(_key=events["session_key"].coalesce(0)) if by_source else events
    partition = ["visitor", "channel", *(["_key"] if by_source else [])]
    limit = round(config.inactivity_minutes * 60_000_000)

    ordered = ibis.window(group_by=partition, order_by=["ts", "order"])
    flat = flat.mutate(
        _gap=flat["ts"] - flat["ts"].lag().over(ordered), _wait=flat["ts"].lead().over(ordered) - flat["ts"]
    )
    cut = flat["_key"] == 0 if by_source else ibis.literal(True)
    flat = flat.mutate(_starts=flat["_gap"].isnull() | (cut & (flat["_gap"] > limit)))

    so_far = ibis.cumulative_window(group_by=partition, order_by=["ts", "order"])
    nothing = ibis.null("float64")
    return flat.mutate(
        _number=flat["_starts"].cast("int64").sum().over(so_far),
        gap_s=ibis.ifelse(flat["_starts"], nothing, flat["_gap"] / 1e6),
        # null where the next event starts another session, and where there is none
        dwell_s=ibis.ifelse(cut & (flat["_wait"] > limit), nothing, flat["_wait"] / 1e6),
    ).drop("_gap", "_wait"), [*partition, "_number"]


def sessionize(flat: ir.Table, keys: list[str]) -> tuple[ir.Table, ir.Table]:
    """Sessions from what ``timed`` returns.

    Returns:
        Coded links (which account was seen in which session; see ``decode.sightings``) and coded sessions
        (see ``decode.sessions``), both unsorted.
    """
    event = ibis.struct(
        {
            "ts": flat["ts"],
            "order": flat["order"],
            **{name: flat[name] for name in EVENT_FIELDS if name != "ts"},
        }
    )
    sessions = flat.group_by(keys).agg(
        first=flat["event"].max(where=flat["_starts"]),
        start=flat["ts"].min(),
        end=flat["ts"].max(),
        n_events=flat.count(),
        events=event.collect(),
        **{name: flat[name].max(where=flat["_starts"]) for name in _ENTRY},
        **bots.evidence(flat),
    )
    sightings = identity.inside(flat, keys)
    links = identity.link(sightings, sessions, keys).rename({f"_of_{key}": key for key in keys})
    sessions = sessions.left_join(links, [sessions[key] == links[f"_of_{key}"] for key in keys])
    starts = flat.filter(flat["_starts"]).select(**{f"_of_{key}": flat[key] for key in keys}, first="event")
    seen = sightings.inner_join(starts, [sightings[key] == starts[f"_of_{key}"] for key in keys])
    return seen.select("visitor", "first", "account", "known_at"), sessions.select(
        *("visitor", "channel", "first", "start", "end", "n_events", *_ENTRY),
        account=sessions["account"],
        account_link=sessions["account_link"].coalesce("none"),
        account_linked_at=sessions["account_linked_at"],
        bot_reason=bots.reason(sessions),
        events=sessions["events"].sort().map(lambda e: ibis.struct({name: e[name] for name in EVENT_FIELDS})),
    )
