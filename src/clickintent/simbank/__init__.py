"""A simulated bank: raw exports of its web site and app, and the truth behind them.

The web site's events come as GA4 exports them to BigQuery, with bots, duplicates, broken rows and leaked
personal data; the app's logs come flat. What people want changes over days (``latent``), shows in what they
look at (``site``, ``web``), and decides what they click in the app and which products they open (``app``).

    OUT/web/part-00000.parquet …       GA4 events, one file for each chunk of people, in order of time
    OUT/app/events.parquet             servicing events
    OUT/app/tile_impressions.parquet   homepage slates with propensity, position and click
    OUT/app/conversions.parquet        products opened, until 14 days after the last web session
    OUT/truth/sessions.parquet         intents and conversion odds of every web session
    OUT/truth/tiles.parquet            utility and click probability of every tile shown
    OUT/clickintent.toml               a configuration to run on all this
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clickintent.config import SimBankConfig
from clickintent.progress import progress
from clickintent.simbank import app, export, truth
from clickintent.simbank.address import Pool, Texts
from clickintent.simbank.change import change_of, fewer_visits, hurried, new_section, shorter
from clickintent.simbank.dirt import BOT_SHARE, Leaks, make_bots, make_damage, make_leaks
from clickintent.simbank.intents import TILES
from clickintent.simbank.latent import Floats, build_latent
from clickintent.simbank.people import (
    HORIZON_DAYS,
    Calendar,
    account_ids,
    app_visits,
    make_cookies,
    make_path,
    make_people,
    people_needed,
    web_visits,
)
from clickintent.simbank.site import build_site
from clickintent.simbank.web import browse, expand, joined, make_sessions
from clickintent.workspace import atomically, write_text

__all__ = ["simulate"]

_CHUNK_SESSIONS = 25_000  # web sessions in memory at a time: some 220,000 events

_TOML = """\
# A simulated bank. Written by clickintent; run it with: clickintent run clickintent.toml
workspace = "workspace"

[[sources]]
reader = "ga4"
path = "web/*.parquet"
channel = "web"

[[sources]]
reader = "table"
path = "app/events.parquet"
channel = "app"
name = "app"
ts_unit = "us"
[sources.columns]
event_id = "event_id"
visitor_id = "device_id"
account_id = "account_id"
ts = "ts"
event_type = "event_type"
page = "screen"
title = "title"

[privacy]
ids = "plain"          # nobody's; for people's, the default: hashed with the key in CLICKINTENT_KEY
allow_query = ["type"]
search_query = ["q"]

[conversion]
kind = "account"
path = "app/conversions.parquet"
horizon_days = 14

[tiles]
path = "app/tile_impressions.parquet"

[evaluate]
truth = "truth"

[report]
title = "A simulated bank: what visitors wanted"
"""


@dataclass(frozen=True)
class _Chunk:
    """Tables by file name, in the order in which they are written, and what to count."""

    tables: dict[str, pa.Table]
    counts: dict[str, int]


def simulate(config: SimBankConfig, *, seed: int) -> dict[str, Any]:
    """Write the simulated bank to ``config.out``, replacing what is there.

    The same configuration and seed give the same tables. Memory does not grow with the number of sessions.

    Returns:
        What was made: sessions, events (web and app rows, duplicates and broken ones included), web_events,
        app_events, visitors (cookies), accounts, bots (sessions), impressions, conversions, seconds and
        events_per_second.
    """
    started = time.monotonic()
    human_sessions = config.sessions * (1 - BOT_SHARE)
    people = people_needed(human_sessions, config.days)
    n_chunks = max(1, round(config.sessions / _CHUNK_SESSIONS))
    bounds = np.linspace(0, people, n_chunks + 1).astype(int)
    totals: dict[str, int] = {}
    with (
        atomically(config.out) as folder,
        _Files(folder) as files,
        progress("simulating", n_chunks, "chunks") as advance,
    ):
        odds = build_latent().within(HORIZON_DAYS)
        for i, chunk in enumerate(_chunks(config, seed, bounds, odds)):
            files.write(i, chunk.tables)
            for name, count in chunk.counts.items():
                totals[name] = totals.get(name, 0) + count
            advance(i + 1)
        files.finish()
        write_text(_TOML, folder / "clickintent.toml")
    seconds = time.monotonic() - started
    totals["events"] = totals["web_events"] + totals["app_events"]
    return {**totals, "seconds": seconds, "events_per_second": totals["events"] / seconds}


def _chunks(config: SimBankConfig, seed: int, bounds: np.ndarray, odds: Floats) -> Iterator[_Chunk]:
    leaks = make_leaks(np.random.default_rng([seed, 0]))
    slates = events = 0
    for i, (first, last) in enumerate(pairwise(bounds)):
        rng = np.random.default_rng([seed, 1 + i])
        chunk = _chunk(rng, config, seed, int(first), int(last - first), odds, leaks, slates, events)
        slates += chunk.counts.pop("slates")
        events += chunk.counts["web_events"]
        yield chunk


def _chunk(
    rng: np.random.Generator,
    config: SimBankConfig,
    seed: int,
    first: int,
    n: int,
    odds: Floats,
    leaks: Leaks,
    first_slate: int,
    first_event: int,
) -> _Chunk:
    """Simulate ``n`` people; a household never spans two chunks."""
    chain, pages, days = build_latent(), build_site(), config.days
    day_0 = datetime(config.start.year, config.start.month, config.start.day, tzinfo=UTC)
    origin = int(day_0.timestamp()) * 1_000_000
    calendar = Calendar(days, config.start.weekday())

    people = make_people(rng, chain, first, n, len(TILES))
    path = make_path(rng, chain, people, days + HORIZON_DAYS)
    accounts = account_ids(people.number, seed)
    on_web = web_visits(rng, chain, people, path, calendar, days)
    change, changing = change_of(config), np.random.default_rng([seed, first, 1])
    on_web = fewer_visits(changing, change, chain, on_web)
    cookies = make_cookies(rng, people, on_web)
    sessions = make_sessions(rng, pages, chain, on_web, cookies, origin)
    sessions = shorter(changing, change, sessions, origin)
    views = hurried(change, sessions, browse(rng, pages, sessions), origin)
    n_cookies = int(sessions.cookie.max(initial=-1)) + 1
    bots, bot_views = make_bots(rng, len(sessions.start), n_cookies, days, origin)
    views = views.followed_by(bot_views, len(sessions.start))
    sessions = joined(sessions, bots)
    events = expand(rng, pages, sessions, views)
    views = new_section(changing, change, sessions, views, origin)
    damage = make_damage(rng, len(events.at))
    names = export.cookie_names(rng, sessions)
    texts = Texts(Pool(), pages, leaks, change.site_pages)
    web = export.web_table(
        rng, pages, texts, leaks, sessions, views, events, damage, names, accounts, first_event
    )
    in_app = app_visits(rng, people, path, calendar, days)
    logs = app.make_app_logs(rng, chain, people, path, in_app, accounts, origin, first_slate)
    known = truth.session_truth(people, sessions, views, events, names, accounts, odds)
    return _Chunk(
        {
            "web": web,
            "app/events.parquet": logs.events,
            "app/tile_impressions.parquet": logs.impressions,
            "app/conversions.parquet": logs.conversions,
            "truth/sessions.parquet": known,
            "truth/tiles.parquet": logs.tile_truth,
        },
        {
            "sessions": len(sessions.start),
            "bots": len(bots.start),
            "visitors": len(names),
            "accounts": n,
            "web_events": web.num_rows,
            "app_events": logs.events.num_rows,
            "impressions": logs.impressions.num_rows,
            "conversions": logs.conversions.num_rows,
            "slates": logs.slates,
        },
    )


class _Files:
    """Writes chunks in the background, one at a time: the next is simulated meanwhile."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._stack = ExitStack()
        self._pending: Future[None] | None = None

    def __enter__(self) -> _Files:
        for name in ("web", "app", "truth"):
            (self._folder / name).mkdir(parents=True)
        self._pool = self._stack.enter_context(ThreadPoolExecutor(1))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        for writer in self._writers.values():
            writer.close()

    def write(self, number: int, tables: dict[str, pa.Table]) -> None:
        self.finish()
        self._pending = self._pool.submit(self._write, number, tables)

    def finish(self) -> None:
        """Wait for what is being written; raises what went wrong there."""
        if self._pending is not None:
            self._pending.result()

    def _write(self, number: int, tables: dict[str, pa.Table]) -> None:
        for name, table in tables.items():
            if name == "web":
                with _writer(self._folder / "web" / f"part-{number:05d}.parquet", table.schema) as writer:
                    writer.write_table(table, row_group_size=100_000)
            else:
                if name not in self._writers:
                    self._writers[name] = _writer(self._folder / name, table.schema)
                self._writers[name].write_table(table)


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    # Without the Arrow schema, dictionary columns read back as the strings they are.
    return pq.ParquetWriter(path, schema, compression="zstd", compression_level=1, store_schema=False)
