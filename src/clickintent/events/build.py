"""Coded events → all public tables, in ranges of visitors.

Two passes: the first takes duplicates out and counts who shares which value, the second sessionises and
writes what may be published. Nothing crosses from one range to another but counts that add up, because a
visitor is in one range only. On DuckDB ranges bound the memory; Spark takes all visitors as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from clickintent import schema
from clickintent.config import Config
from clickintent.events import decode, identity, publish, store
from clickintent.events.coding import Keys
from clickintent.events.publish import Counted, Decision
from clickintent.events.sessionize import sessionize, timed
from clickintent.events.staging import ranges
from clickintent.events.store import ReadFile
from clickintent.events.tables import Tables
from clickintent.progress import progress

_RANGE_EVENTS = 3_000_000  # events that are sorted at once
_POSITION_BITS = 40


@dataclass(frozen=True)
class Built:
    """What was made: events by file number, what was taken away, and the tables that are small."""

    events: dict[int, int]
    decision: Decision
    identities: identity.Identities


def build(
    engine: Tables,
    coded: ir.Table,
    total: int,
    files: Sequence[ReadFile],
    values: Mapping[str, Mapping[int, str]],
    paths: Mapping[int, tuple[int, ...]],
    keys: Keys,
    config: Config,
    made: Path,
) -> Built:
    """Write ``events/``, ``sessions/``, ``links/``, ``pages.parquet`` and what ingest keeps into ``made``.

    Args:
        coded: ``clean.CODED``, duplicates included.
        total: how many rows that are, roughly.
        files: all files that the rows came from, in the order in which their events of one time stand.
        values: field → code → text, of every value whose text is known.
        paths: page code → codes of its segments, of pages whose text is not known any more.
    """
    cuts = list(ranges(engine.ranges(total, _RANGE_EVENTS)))
    order = engine.small(_order(files), "files")
    kept: list[ir.Table] = []
    by_file: list[pa.Table] = []
    counts: dict[str, list[pa.Table]] = {name: [] for name in ("page", *publish.SHARED)}
    steps = 2 * len(cuts)
    with progress("sessions", steps, "parts") as advance:
        for i, (first, last) in enumerate(cuts):
            part = coded if len(cuts) == 1 else coded.filter(coded["visitor"].between(first, last))
            unique = engine.keep(_unique(part, order), made / store.FOLDER / "coded", f"part-{i:05d}")
            kept.append(unique)
            by_file.append(engine.arrow(unique.group_by("file").agg(n=unique.count())))
            for name, parts in counts.items():
                parts.append(engine.arrow(_count(unique, name)))
            advance(i + 1)
        counted = {name: Counted.of(parts) for name, parts in counts.items()}
        seen = _seen(engine, kept, counted["page"], config.privacy.min_people)
        decision = publish.decide(values, paths, counted, seen, keys, config.privacy)
        pages = engine.small(pa.table({"page": decision.pages[0], "public": decision.pages[1]}), "pages")

        told: dict[str, list[pa.Table]] = {"page": [], "title": [], "text": []}
        for i, unique in enumerate(kept):
            with engine.scope():
                _write(engine, _public(unique, order, pages), config, decision.published, made, i, told)
            advance(len(cuts) + i + 1)
    _write_pages(told, decision.published, made / "pages.parquet")
    identities = identity.identities(pq.read_table(made / "links"))
    pq.write_table(identities.table, made / "identities.parquet", compression="zstd")
    pq.write_table(decision.values, made / store.FOLDER / "values.parquet", compression="zstd")
    events: dict[int, int] = {}
    for row in pa.concat_tables(by_file).to_pylist():
        events[row["file"]] = events.get(row["file"], 0) + row["n"]
    return Built(events, decision, identities)


def _order(files: Sequence[ReadFile]) -> pa.Table:
    """file → where its events stand among those of one time: file by file, each as it was written."""
    return pa.table(
        {
            "number": pa.array([f.number for f in files], pa.int64()),
            "before": pa.array([rank << _POSITION_BITS for rank in range(len(files))], pa.int64()),
            "sign": pa.array([-1 if f.newest_first else 1 for f in files], pa.int64()),
        }
    )


def _ordered(events: ir.Table, order: ir.Table) -> ir.Table:
    events = events.inner_join(order, events["file"] == order["number"])
    return events.mutate(order=(events["before"] + events["position"]) * events["sign"]).drop(
        "number", "before", "sign"
    )


def _unique(events: ir.Table, order: ir.Table) -> ir.Table:
    """Every event once: of duplicates, the first in the files."""
    events = _ordered(events, order)
    again = ibis.window(group_by=["visitor", "event"], order_by="order")
    events = events.mutate(_again=ibis.row_number().over(again))
    return events.filter(events["_again"] == 0).drop("_again", "order")


def _count(events: ir.Table, name: str) -> ir.Table:
    """How many visitors and events each value of a field has."""
    there = events.filter(events[name].notnull())
    return there.group_by(code=there[name]).agg(visitors=there["visitor"].nunique(), events=there.count())


def _seen(engine: Tables, parts: Sequence[ir.Table], pages: Counted, min_people: int) -> pa.Table:
    """Who saw the pages that few people saw."""
    few = pa.table({"few": pa.array(pages.codes[pages.visitors < min_people], pa.int64())})
    rare = engine.small(few, "few")
    found = [
        engine.arrow(part.semi_join(rare, part["page"] == rare["few"]).select("page", "visitor").distinct())
        for part in parts
        if few.num_rows
    ]
    return pa.concat_tables(found) if found else pa.table({"page": few["few"], "visitor": few["few"]})


def _public(events: ir.Table, order: ir.Table, pages: ir.Table) -> ir.Table:
    """Events in their order, with the pages that they are published under.

    Title and text of a page that was generalised would tell what page it was.
    """
    events = _ordered(events, order)
    pages = pages.rename(_page="page")
    events = events.inner_join(pages, events["page"] == pages["_page"])
    same = events["public"] == events["page"]
    hidden = {name: ibis.ifelse(same, events[name], ibis.null("int64")) for name in ("title", "text")}
    return events.mutate(page=events["public"], **hidden).drop("_page", "public")


def _write(
    engine: Tables,
    events: ir.Table,
    config: Config,
    published: decode.Published,
    made: Path,
    number: int,
    told: dict[str, list[pa.Table]],
) -> None:
    name = f"part-{number:05d}"
    flat, keys = timed(engine.together(events, "visitor"), config.sessions)
    flat = engine.temporary(flat)
    links, sessions = sessionize(flat, keys)
    # A visitor's sessions one after the other: training looks for the next one among those read with it.
    by_visitor = ("visitor", "start", "first")
    engine.write(sessions, made / "sessions", name, schema.SESSIONS, decode.sessions, published, by_visitor)
    by_time = ("known_at", "visitor", "first", "account")
    engine.write(links, made / "links", name, schema.LINKS, decode.sightings, published, by_time)
    in_time = ("ts", "visitor", "order")  # of those of one time as they were written
    engine.write(flat, made / "events", name, schema.EVENTS, decode.events, published, in_time)
    told["page"].append(engine.arrow(_count(flat, "page")))
    for field in ("title", "text"):
        there = flat.filter(flat[field].notnull())
        told[field].append(engine.arrow(there.group_by(["page", field]).agg(n=there.count())))


def _write_pages(told: dict[str, list[pa.Table]], published: decode.Published, path: Path) -> None:
    """One row per page: its most frequent title; its text if most of its events with a text have that one.

    A text that only some events share is what a visitor typed, not what the page says.
    """
    pages = Counted.of(told["page"])
    rows: dict[int, dict[str, Any]] = {
        code: {"n_visitors": visitors, "n_events": events, "title": None, "text": None}
        for code, visitors, events in zip(
            pages.codes.tolist(), pages.visitors.tolist(), pages.events.tolist(), strict=True
        )
    }
    for field in ("title", "text"):
        table = pa.concat_tables(told[field])
        counts = table.group_by(["page", field]).aggregate([("n", "sum")])
        texts = published.text(counts[field], field).to_pylist()
        by_page: dict[int, list[tuple[int, str | None]]] = {}
        for page, n, text in zip(counts["page"].to_pylist(), counts["n_sum"].to_pylist(), texts, strict=True):
            by_page.setdefault(page, []).append((n, text))
        for page, found in by_page.items():
            readable = [(n, text) for n, text in found if text is not None]
            if not readable:
                continue
            n, text = min(readable, key=lambda one: (-one[0], one[1]))
            if field == "title" or n * 2 > sum(n for n, _ in found):
                rows[page][field] = text
    names = published.text(pa.array(list(rows), pa.int64()), "page").to_pylist()
    table = pa.Table.from_pylist(
        [{"page": name, **row} for name, row in zip(names, rows.values(), strict=True)], schema=schema.PAGES
    )
    table = table.sort_by([("n_events", "descending"), ("page", "ascending")])
    pq.write_table(table, path, compression="zstd")
