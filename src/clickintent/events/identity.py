"""Which account a session belongs to, as of the session's time.

A cookie is tied to an account by an event that carries both. Every link says when it became known
(``account_linked_at``), because a link that comes later must not reach a model that acts earlier:

- ``in_session``: events of the session carry one account (known from the first of them on);
- ``before``: none does, and before its start the visitor had been tied to exactly one account;
- ``after``: none does, none was known at its start, and later exactly one became known;
- ``ambiguous``: several accounts in the session, or before it, or (none before) after it: a shared device.
  The account is null, and ``account_linked_at`` is when it was certain that there are several;
- ``none``.

What is known before a session starts decides alone: a second account that appears later changes nothing
about a ``before`` session.
"""

from __future__ import annotations

from dataclasses import dataclass

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from clickintent import schema


def inside(events: ir.Table, keys: list[str]) -> ir.Table:
    """Which accounts occur in which session, and since when: ``keys``, ``account``, ``known_at`` (µs)."""
    seen = events.filter(events["account"].notnull())
    return seen.group_by([*keys, "account"]).agg(known_at=seen["ts"].min())


def link(sightings: ir.Table, sessions: ir.Table, keys: list[str]) -> ir.Table:
    """Link sessions to accounts.

    Args:
        sightings: ``visitor``, ``account``, ``known_at`` and ``keys`` (what names a session); see ``inside``.
        sessions: ``keys``, ``visitor`` and ``start`` of every session.

    Returns:
        ``keys``, ``account``, ``account_link``, ``account_linked_at`` of the sessions that have a link;
        the others are absent.
    """
    within = sightings.group_by(keys).agg(
        in_n=sightings.count(), in_account=sightings["account"].min(), in_last=sightings["known_at"].max()
    )
    links = sightings.group_by(["visitor", "account"]).agg(first=sightings["known_at"].min())
    pairs = sessions.select(*[key for key in keys if key != "visitor"], "visitor", "start")
    links = links.rename(_visitor="visitor")
    pairs = pairs.inner_join(links, pairs["visitor"] == links["_visitor"])
    known = pairs["first"] < pairs["start"]
    around = pairs.group_by(keys).agg(
        before_n=known.sum(),
        before_account=pairs["account"].min(where=known),
        before_last=pairs["first"].max(where=known),
        after_n=(~known).sum(),
        after_account=pairs["account"].min(where=~known),
        after_last=pairs["first"].max(where=~known),
    )
    # whoever has events with an account inside has a link around, too, so nothing is lost by a left join
    within = within.rename({f"_in_{key}": key for key in keys})
    both = around.left_join(within, [around[key] == within[f"_in_{key}"] for key in keys])
    in_n, before_n, after_n = both["in_n"].coalesce(0), both["before_n"], both["after_n"]
    nobody = ibis.null(sightings["account"].type().copy(nullable=True))
    several = (in_n > 1) | ((in_n == 0) & ((before_n > 1) | ((before_n == 0) & (after_n > 1))))
    return both.select(
        *keys,
        account=ibis.cases(
            (several, nobody),
            (in_n == 1, both["in_account"]),
            (before_n == 1, both["before_account"]),
            else_=both["after_account"],
        ),
        account_link=ibis.cases(
            (several, "ambiguous"), (in_n == 1, "in_session"), (before_n == 1, "before"), else_="after"
        ),
        account_linked_at=ibis.cases(
            # the first event of the last newcomer: where there is one account, simply its first event
            (in_n > 0, both["in_last"]),
            (before_n > 0, both["before_last"]),
            else_=both["after_last"],
        ),
    )


@dataclass(frozen=True)
class Identities:
    """``table`` (``schema.IDENTITIES``), and the coverage in numbers."""

    table: pa.Table
    counts: dict[str, int]


def identities(links: pa.Table, as_of: int | None = None) -> Identities:
    """Which cookies and accounts belong together.

    A component holds every cookie and account that can be reached from one another over links; with a shared
    device in it, it holds several people. Connected components after SciPy's ``csgraph``.

    Args:
        links: ``schema.LINKS``.
        as_of: use only what was known by then, µs since 1970.
    """
    if as_of is not None:
        links = links.filter(pc.less_equal(links["known_at"], as_of))
    pairs = links.group_by(["visitor_id", "account_id"]).aggregate([("known_at", "min"), ("known_at", "max")])
    pairs = pairs.sort_by([("visitor_id", "ascending"), ("account_id", "ascending")])
    visitors = pairs["visitor_id"].combine_chunks().dictionary_encode()
    accounts = pairs["account_id"].combine_chunks().dictionary_encode()
    n_visitors, n_accounts = len(visitors.dictionary), len(accounts.dictionary)
    one, other = visitors.indices.to_numpy(), accounts.indices.to_numpy()
    n = n_visitors + n_accounts
    graph = coo_array((np.ones(len(one), np.int8), (one, other + n_visitors)), shape=(n, n))
    n_components, component = connected_components(graph, directed=False) if n else (0, np.array([], int))
    # a component is called after its first visitor
    _, first = np.unique(component[:n_visitors], return_index=True)
    per_visitor, per_account = (
        np.bincount(one, minlength=n_visitors),
        np.bincount(other, minlength=n_accounts),
    )
    table = pa.table(
        [
            pairs["visitor_id"],
            pairs["account_id"],
            pairs["known_at_min"],
            pairs["known_at_max"],
            visitors.dictionary.take(pa.array(first[component[one]] if len(one) else np.array([], int))),
            pa.array(per_visitor[one] > 1),
        ],
        schema=schema.IDENTITIES,
    )
    counts = {
        "linked_visitors": n_visitors,
        "accounts": n_accounts,
        "links": len(one),
        "accounts_with_several_visitors": int((per_account > 1).sum()),
        "visitors_with_several_accounts": int((per_visitor > 1).sum()),
        "components": int(n_components),
        "largest_component": int(np.bincount(component).max()) if n else 0,
    }
    return Identities(table, counts)


def link_as_of(sessions: pa.Table, links: pa.Table, as_of: int) -> pa.Table:
    """The sessions with the account links that were known at a time: no later login shows.

    Whoever trains a model that acts at time t must not use a link that became known after it; serving uses
    what is known now. A session that has not ended by then is linked by what was seen of it so far.

    Args:
        sessions: ``schema.SESSIONS``.
        links: ``schema.LINKS`` of the same workspace.
        as_of: µs since 1970 UTC.

    Returns:
        The same sessions in their order, with ``account_id``, ``account_link`` and ``account_linked_at`` as
        of then.
    """
    known = links.filter(pc.less_equal(links["known_at"], as_of))
    con = ibis.duckdb.connect(":memory:")
    try:
        slim = sessions.select(["session_id", "visitor_id", "start"])
        ours = con.create_table("sessions", slim, temp=True).rename(visitor="visitor_id")
        seen = con.create_table("links", known, temp=True).rename(visitor="visitor_id", account="account_id")
        found = con.to_pyarrow(link(seen, ours, ["session_id"]))
    finally:
        con.disconnect()
    at = pc.index_in(sessions["session_id"], value_set=found["session_id"].combine_chunks())
    new = {
        "account_id": found["account"].take(at),
        "account_link": pc.fill_null(found["account_link"].take(at), "none"),
        "account_linked_at": found["account_linked_at"].take(at),
    }
    columns = [new.get(name, sessions[name]) for name in sessions.column_names]
    return pa.table(columns, schema=sessions.schema)
