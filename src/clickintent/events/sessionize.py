"""Events → sessions: cut, ordered, with dwell and gaps, as one Ibis expression.

A session ends when its visitor does nothing on the channel for longer than the inactivity limit, or, with
``boundary = "source"``, where the export's own session number changes (events without a number fall back on
inactivity). Order is by ``ts``, then ``order`` (of the export), so equal input gives equal sessions.

Lists are made by the one construct that DuckDB and Spark agree on: structs with the time first, collected,
sorted, then mapped.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from clickintent.config import SessionsConfig
from clickintent.events import bots, identity

_KEYS = ["visitor_id", "channel", "_key", "_number"]
#: Of the first event alone: what is known of a session from its beginning.
_ENTRY = ("referrer", "campaign", "device", "country")
_FIELDS = ("ts", "event_type", "page", "title", "text", "dwell_s", "gap_s", "value")


def sessionize(events: ir.Table, config: SessionsConfig) -> ir.Table:
    """Sessions, unsorted, with the columns of ``SESSIONS``.

    Args:
        events: columns of ``EVENTS`` and ``order`` (int64, unique), which decides among events of one time.
    """
    flat = timed(events, config)
    event = ibis.struct(
        {
            "ts": flat["ts"],
            "order": flat["order"],
            **{name: flat[name] for name in _FIELDS if name != "ts"},
        }
    )
    sessions = flat.group_by(_KEYS).agg(
        _first=flat["event_id"].max(where=flat["_starts"]),
        start=flat["ts"].min(),
        end=flat["ts"].max(),
        n_events=flat.count(),
        events=event.collect(),
        **{name: flat[name].max(where=flat["_starts"]) for name in _ENTRY},
        **bots.evidence(flat),
    )
    links = identity.link(flat, sessions, _KEYS).rename({f"_of_{key}": key for key in _KEYS})
    sessions = sessions.left_join(links, [sessions[key] == links[f"_of_{key}"] for key in _KEYS])
    reason = bots.reason(sessions)
    identifier = ibis.literal("\x1f").join([sessions["visitor_id"], sessions["channel"], sessions["_first"]])
    return sessions.select(
        session_id=identifier.hexdigest("md5"),
        visitor_id=sessions["visitor_id"],
        account_id=sessions["account_id"],
        account_link=sessions["account_link"].coalesce("none"),
        account_linked_at=sessions["account_linked_at"],
        channel=sessions["channel"],
        start=sessions["start"],
        end=sessions["end"],
        n_events=sessions["n_events"],
        is_bot=reason.notnull(),
        bot_reason=reason,
        **{name: sessions[name] for name in _ENTRY},
        events=sessions["events"].sort().map(lambda e: ibis.struct({name: e[name] for name in _FIELDS})),
    )


def timed(events: ir.Table, config: SessionsConfig) -> ir.Table:
    """Events with ``_key`` and ``_number`` (which session), ``_starts``, ``gap_s`` and ``dwell_s``."""
    by_source = config.boundary == "source"
    key = events["session_key"].coalesce("") if by_source else ibis.literal("")
    flat = events.mutate(_key=key)
    limit = round(config.inactivity_minutes * 60_000_000)

    partition = ["visitor_id", "channel", "_key"]
    ordered = ibis.window(group_by=partition, order_by=["ts", "order"])
    gap = flat["ts"] - flat["ts"].lag().over(ordered)
    flat = flat.mutate(_gap=gap)
    parted = flat["_gap"] > limit
    if by_source:
        parted = parted & (flat["_key"] == "")
    flat = flat.mutate(_starts=flat["_gap"].isnull() | parted)

    so_far = ibis.cumulative_window(group_by=partition, order_by=["ts", "order"])
    ordered = ibis.window(group_by=partition, order_by=["ts", "order"])
    gap_s = ibis.ifelse(flat["_starts"], ibis.null("float64"), flat["_gap"] / 1e6)
    flat = flat.mutate(_number=flat["_starts"].cast("int64").sum().over(so_far), gap_s=gap_s)
    # the next event's gap is this one's dwell, and null where the next one starts another session
    return flat.mutate(dwell_s=flat["gap_s"].lead().over(ordered))
