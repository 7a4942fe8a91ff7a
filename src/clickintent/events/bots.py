"""Robots, told by what they say of themselves and by how they behave: flagged with a reason, never deleted.

Whoever trains on people filters ``is_bot``; whoever counts traffic does not. The rule looks at one session
alone, so it can be asked again of a session that was cut short.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

MIN_EVENTS = 10  # below, nothing is said about pace
MAX_EVENTS = 300
FAST_S = 1.0  # mean gap; not the median, because one page view may send several events at once
STEP_S = 0.1  # a shorter gap is no step of anybody: events that one page view sends
MIN_STEPS = 5  # below, nothing is said about regularity
REGULAR = 0.1  # standard deviation of the steps over their mean; people vary by 1 and more
BROAD_PAGES = 40
BROAD_SHARE = 0.9  # different pages over events: a crawl hardly repeats
MIN_WITHOUT_ASSETS = 3  # pages without one style sheet, script or picture: no browser

REASONS = ("declared", "no assets", "volume", "rate", "regularity", "breadth")


def evidence(events: ir.Table) -> dict[str, ir.Value]:
    """Aggregations over the events of a session that ``reason`` needs.

    Args:
        events: ``page``, ``gap_s``, ``declared`` (the user agent says so) and ``assets`` (requests for assets
            by the visitor, null where the source cannot know).
    """
    gap = events["gap_s"]
    step = gap >= STEP_S
    # sums of whole numbers are the same in whatever order an engine adds up; means differ in a last bit
    ms = (gap * 1000 + 0.5).floor().cast("float64")
    return {
        "bot_n": events.count(),
        "bot_pages": events["page"].nunique(),
        "bot_gaps": gap.count(),
        "bot_ms": ms.sum(),
        "bot_steps": gap.count(where=step),
        "bot_step_ms": ms.sum(where=step),
        "bot_step_squares": (ms * ms).sum(where=step),
        "bot_declared": events["declared"].any(),
        "bot_assets": events["assets"].max(),
    }


def reason(sessions: ir.Table) -> ir.StringValue:
    """The first rule of ``REASONS`` that a session with such evidence breaks; null for people."""
    n, pages = sessions["bot_n"], sessions["bot_pages"]
    steps, in_all = sessions["bot_steps"], sessions["bot_step_ms"]
    # standard deviation < REGULAR × mean, without dividing
    even = sessions["bot_step_squares"] * steps < (1 + REGULAR**2) * in_all * in_all
    return ibis.cases(
        (sessions["bot_declared"], "declared"),
        ((n >= MIN_WITHOUT_ASSETS) & (sessions["bot_assets"] == 0), "no assets"),
        (n > MAX_EVENTS, "volume"),
        ((n >= MIN_EVENTS) & (sessions["bot_ms"] < FAST_S * 1000 * sessions["bot_gaps"]), "rate"),
        ((steps >= MIN_STEPS) & even, "regularity"),
        ((pages >= BROAD_PAGES) & (pages >= BROAD_SHARE * n), "breadth"),
        else_=ibis.null("string"),
    )
