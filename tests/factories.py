"""Small tables for tests."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from clickintent import schema

START = 1_767_225_600_000_000  # 2026-01-01 00:00 UTC
MINUTE = 60_000_000
DAY = 24 * 60 * MINUTE

TITLES = {
    "/": "Home | Example Bank",
    "/cards": "Credit cards | Example Bank",
    "/cards/travel": "Travel rewards card | Example Bank",
    "/mortgage": "Mortgages | Example Bank",
    "/mortgage/rates": "Mortgage rates today | Example Bank",
    "/savings": "Savings accounts | Example Bank",
    "/savings/cd": "Certificates of deposit | Example Bank",
    "/help": "Help centre | Example Bank",
    "/login": "Log in | Example Bank",
}


def session(
    number: int,
    pages: Sequence[str],
    *,
    start: int | None = None,
    seconds: float = 20.0,
    visitor: str | None = None,
    account: str | None = None,
    link: str = "none",
    linked_at: int | None = None,
    channel: str = "web",
    is_bot: bool = False,
    event_type: str = "page_view",
    titles: bool = True,
) -> dict[str, object]:
    """One row of the sessions table: the pages in order, ``seconds`` apart."""
    start = START + number * MINUTE if start is None else start
    step = int(seconds * 1e6)
    events = [
        {
            "ts": start + i * step,
            "event_type": event_type,
            "page": page,
            "title": TITLES.get(page, page.strip("/").replace("/", " ")) if titles else None,
            "text": None,
            "dwell_s": seconds if i < len(pages) - 1 else None,
            "gap_s": seconds if i else None,
            "value": None,
        }
        for i, page in enumerate(pages)
    ]
    return {
        "session_id": f"s{number:06d}",
        "visitor_id": visitor or f"v{number % 97:03d}",
        "account_id": account,
        "account_link": link,
        "account_linked_at": linked_at,
        "channel": channel,
        "start": start,
        "end": start + step * (len(pages) - 1),
        "n_events": len(pages),
        "is_bot": is_bot,
        "bot_reason": "rate" if is_bot else None,
        "referrer": None,
        "campaign": None,
        "device": "desktop",
        "country": "US",
        "events": events,
    }


def sessions(rows: Sequence[dict[str, object]]) -> pa.Table:
    """A sessions table of such rows."""
    return pa.Table.from_pylist(list(rows), schema=schema.SESSIONS)


THEMES = (
    ("/", "/cards", "/cards/travel", "/cards"),
    ("/", "/mortgage", "/mortgage/rates", "/mortgage/rates"),
    ("/", "/savings", "/savings/cd"),
    ("/help", "/login"),
)


def themed_sessions(n: int) -> pa.Table:
    """``n`` sessions of four evident themes (number modulo 4), of one to eight events each."""
    rows = []
    for i in range(n):
        theme = THEMES[i % len(THEMES)]
        length = 1 + (i * 7919) % 8
        pages = [theme[(j + i // 4) % len(theme)] for j in range(length)]
        rows.append(session(i, pages, seconds=5.0 + i % 50))
    return sessions(rows)
