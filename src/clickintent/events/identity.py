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

import ibis
import ibis.expr.types as ir


def link(events: ir.Table, sessions: ir.Table, keys: list[str]) -> ir.Table:
    """Link sessions to accounts.

    Args:
        events: ``visitor_id``, ``account_id``, ``ts`` and ``keys`` (what names a session) of every event.
        sessions: ``keys``, ``visitor_id`` and ``start`` of every session.

    Returns:
        ``keys``, ``account_id``, ``account_link``, ``account_linked_at`` of the sessions that have a link;
        the others are absent.
    """
    seen = events.filter(events["account_id"].notnull())

    inside = seen.group_by([*keys, "account_id"]).agg(first=seen["ts"].min())
    inside = inside.group_by(keys).agg(
        in_n=inside.count(), in_account=inside["account_id"].min(), in_last=inside["first"].max()
    )

    links = seen.group_by(["visitor_id", "account_id"]).agg(first=seen["ts"].min())
    pairs = sessions.select(*keys, "start", _visitor=sessions["visitor_id"])
    pairs = pairs.inner_join(links, pairs["_visitor"] == links["visitor_id"])
    known = pairs["first"] < pairs["start"]
    around = pairs.group_by(keys).agg(
        before_n=known.sum(),
        before_account=pairs["account_id"].min(where=known),
        before_last=pairs["first"].max(where=known),
        after_n=(~known).sum(),
        after_account=pairs["account_id"].min(where=~known),
        after_last=pairs["first"].max(where=~known),
    )
    # whoever has events with an account inside has a link around, too, so nothing is lost by a left join
    both = around.left_join(inside, keys)
    in_n, before_n, after_n = both["in_n"].coalesce(0), both["before_n"], both["after_n"]
    nobody = ibis.null("string")
    several = (in_n > 1) | ((in_n == 0) & ((before_n > 1) | ((before_n == 0) & (after_n > 1))))
    return both.select(
        *keys,
        account_id=ibis.cases(
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
