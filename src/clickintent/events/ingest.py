"""Raw exports in; events, quarantine, pages and sessions out."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from clickintent import schema
from clickintent.config import Config, SourceConfig
from clickintent.errors import ConfigError, DataError, EmptyInputError
from clickintent.events import canonical, readers
from clickintent.events import engine as engines
from clickintent.events.engine import Engine
from clickintent.events.sessionize import sessionize
from clickintent.progress import progress, say
from clickintent.workspace import atomically

OUTPUTS = ("events", "quarantine", "pages.parquet", "sessions")

_BUCKET_EVENTS = 4_000_000  # sessions of so many events are cut at once; more go by hash of visitor
_COUNTS = ("read", "events", "duplicates", "quarantined")


@dataclass(frozen=True)
class IngestResult:
    """What an ingest did: ``metrics`` has the sections ``events`` and ``sessions``."""

    metrics: dict[str, Any] = field(default_factory=dict)


def ingest(config: Config, out: Path) -> IngestResult:
    """Read all sources; write ``events/``, ``quarantine/``, ``pages.parquet`` and ``sessions/`` into ``out``.

    Sessions are sorted by ``(start, session_id)`` and events by ``(ts, event_id)``. Equal input gives equal
    output. Memory is bounded: what does not fit goes to a temporary folder in ``out``, which is removed.

    Raises:
        ConfigError: if a source's column mapping cannot be right.
        DataError: if a file is missing, or is not what its name says.
        MissingColumnsError: if a file lacks columns that its reader needs.
        EmptyInputError: if not one usable event is left; says what became of the rows.
    """
    _check(config.sources)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".tmp-ingest-") as scratch, ExitStack() as stack:
        engine = stack.enter_context(engines.open_engine(Path(scratch)))
        counted = _read(engine, config)
        rows = engine.parquet(Path(scratch) / "clean-*.parquet")
        events = engine.spill(_unique(rows), "unique")
        metrics = _event_metrics(engine, rows, events, counted)
        if metrics["events"] == 0:
            raise EmptyInputError(_why_empty(metrics))

        target = {name: stack.enter_context(atomically(out / name)) for name in OUTPUTS}
        say(f"  events: {_summary(metrics)}")
        refused = rows.filter(rows["reason"].notnull()).order_by("source", "file", "position")
        engine.write(refused, target["quarantine"] / "part-0.parquet", schema.QUARANTINE)
        engine.write(events.order_by("ts", "event_id"), target["events"] / "part-0.parquet", schema.EVENTS)
        engine.write(_pages(events), target["pages.parquet"], schema.PAGES)
        path = target["sessions"] / "part-0.parquet"
        _write_sessions(engine, events, config, metrics["events"], path)
        sessions = _session_metrics(engine, engine.parquet(path))
    return IngestResult({"events": metrics, "sessions": sessions})


def _check(sources: Sequence[SourceConfig]) -> None:
    if not sources:
        raise ConfigError("there are no [[sources]]: nothing to read. Add one with a reader and a path.")
    labels = [source.label for source in sources]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(
                f"two sources are called {label!r}. Give each its own 'name' under [[sources]]."
            )
    for source in sources:
        if source.reader == "table":
            readers.table.check(source)
        elif source.columns or source.constants:
            raise ConfigError(
                f"source {source.label!r}: reader {source.reader!r} knows its columns. Remove 'columns' and "
                "'constants', or use reader = \"table\"."
            )


def _read(engine: Engine, config: Config) -> dict[str, int]:
    """Stage and clean every file into the scratch folder; returns the number of raw rows by source."""
    found = [(i, s, list(enumerate(engines.files(s.path)))) for i, s in enumerate(config.sources)]
    counted = dict.fromkeys((s.label for s in config.sources), 0)
    total = sum(len(files) for _, _, files in found)
    done = 0
    with progress("reading", total, "files") as advance:
        for number, source, files in found:
            read = readers.reader(source.reader)
            for index, path in files:
                with engine.reading(path):
                    rows = read(engine, source, str(path))
                    staged = engine.temporary(canonical.prepare(rows.table, config.privacy), "staged")
                counted[source.label] += int(engine.arrow(staged.count()).as_py()) + len(rows.malformed)
                clean, temporary = canonical.clean(
                    engine, staged, source, config.privacy, number=(number, index), path=path
                )
                engine.spill(clean, f"clean-{number:03d}-{index:06d}")
                engine.drop(staged, *temporary)
                engine.forget_raw()
                if rows.malformed:
                    bad = canonical.malformed(clean.schema(), source, path, rows.malformed)
                    engine.spill(bad, f"clean-{number:03d}-{index:06d}-malformed")
                done += 1
                advance(done, path.name)
    return counted


def _unique(rows: ir.Table) -> ir.Table:
    """The good rows, once each, with unique ids.

    Of duplicates the first in the file stays. A source's own event id is kept behind the source's name;
    without one, the id is a hash of the private content, numbered where redaction made rows alike.
    """
    good = rows.filter(rows["reason"].isnull())
    same = ibis.window(group_by=["source", "raw_key"], order_by="order")
    good = good.mutate(_again=ibis.row_number().over(same))
    good = good.filter(good["_again"] == 0)
    content = canonical.content(good, tuple(f.name for f in schema.EVENTS if f.name != "event_id")).hexdigest(
        "md5"
    )
    good = good.mutate(_content=content)
    alike = ibis.window(group_by="_content", order_by=["raw_key"])
    good = good.mutate(_nth=ibis.row_number().over(alike))
    hashed = ibis.ifelse(
        good["_nth"] == 0, good["_content"], good["_content"] + "-" + good["_nth"].cast("string")
    )
    own = good["source"] + ":" + good["event_id"]
    return good.mutate(event_id=own.coalesce(hashed)).select(*schema.EVENTS.names, "order")


def _event_metrics(
    engine: Engine, rows: ir.Table, events: ir.Table, counted: dict[str, int]
) -> dict[str, Any]:
    """The accounts of the rows, which must balance for every source."""
    reasons = rows.group_by(["source", "reason"]).agg(n=rows.count())
    kept = events.group_by("source").agg(n=events.count())
    by_source = {label: {**dict.fromkeys(_COUNTS, 0), "read": n} for label, n in counted.items()}
    for row in engine.arrow(kept).to_pylist():
        by_source[row["source"]]["events"] = row["n"]
    by_reason: dict[str, int] = {}
    for row in sorted(engine.arrow(reasons).to_pylist(), key=lambda r: (-r["n"], r["reason"] or "")):
        of_source = by_source[row["source"]]
        if row["reason"] is None:
            of_source["duplicates"] = row["n"] - of_source["events"]
        else:
            of_source["quarantined"] += row["n"]
            by_reason[row["reason"]] = by_reason.get(row["reason"], 0) + row["n"]
    for label, n in by_source.items():
        if n["read"] != n["events"] + n["duplicates"] + n["quarantined"]:
            raise DataError(
                f"source {label!r}: the rows do not add up ({_summary(n)}). This is an error of clickintent, "
                "or a file changed while it was read."
            )
    totals = {name: sum(n[name] for n in by_source.values()) for name in _COUNTS}
    return {**totals, "by_source": by_source, "quarantine_reasons": by_reason}


def _summary(n: dict[str, Any]) -> str:
    return (
        f"{n['read']:,} read = {n['events']:,} events + {n['duplicates']:,} duplicates "
        f"+ {n['quarantined']:,} quarantined"
    )


def _why_empty(metrics: dict[str, Any]) -> str:
    if metrics["read"] == 0:
        return "the sources hold no rows at all. Check 'path' under [[sources]]."
    reasons = ", ".join(f"{n:,} × {reason}" for reason, n in metrics["quarantine_reasons"].items())
    return f"not one of {metrics['read']:,} rows can be used: {reasons}. Check 'columns' under [[sources]]."


def _pages(events: ir.Table) -> ir.Table:
    """One row per page: its most frequent title; its text if most of its events with a text have that one.

    A text that only some events share is what a visitor typed, not what the page says.
    """
    pages = events.group_by("page").agg(n_events=events.count(), n_visitors=events["visitor_id"].nunique())
    for name in ("title", "text"):
        counts = events.filter(events[name].notnull()).group_by("page", name).agg(_n=ibis._.count())
        first = ibis.window(group_by="page", order_by=[ibis.desc("_n"), name])
        counts = counts.mutate(
            _rank=ibis.row_number().over(first), _all=counts["_n"].sum().over(group_by="page")
        )
        best = counts.filter(counts["_rank"] == 0)
        if name == "text":
            best = best.filter(best["_n"] * 2 > best["_all"])
        best = best.select(_page=best["page"], **{name: best[name]})
        pages = pages.left_join(best, pages["page"] == best["_page"])
        pages = pages.drop("_page")
    return pages.order_by(ibis.desc("n_events"), "page")


def _write_sessions(engine: Engine, events: ir.Table, config: Config, n: int, path: Path) -> None:
    buckets = -(-n // _BUCKET_EVENTS)
    if buckets <= 1:
        sessions = sessionize(events, config.sessions)
    else:
        with progress("sessions", buckets, "parts") as advance:
            for b in range(buckets):
                part = events.filter(events["visitor_id"].hash().abs() % buckets == b)
                engine.spill(sessionize(part, config.sessions), f"sessions-{b:04d}")
                advance(b + 1)
        sessions = engine.parquet(engine.scratch / "sessions-*.parquet")
    engine.write(sessions.order_by("start", "session_id"), path, schema.SESSIONS)


def _session_metrics(engine: Engine, sessions: ir.Table) -> dict[str, Any]:
    n = sessions["n_events"]
    row = engine.arrow(
        sessions.agg(
            sessions=sessions.count(),
            mean=n.mean(),
            p50=n.quantile(0.5),
            p95=n.quantile(0.95),
            bots=sessions["is_bot"].sum(),
            visitors=sessions["visitor_id"].nunique(),
            accounts=sessions["account_id"].nunique(),
            start=sessions["start"].min(),
            end=sessions["end"].max(),
        )
    ).to_pylist()[0]

    def by(name: str) -> dict[str, int]:
        table: pa.Table = engine.arrow(sessions.group_by(name).agg(n=sessions.count()).order_by(name))
        return dict(zip(table[name].to_pylist(), table["n"].to_pylist(), strict=True))

    links = by("account_link")
    return {
        "sessions": row["sessions"],
        "events_per_session": {name: round(float(row[name]), 3) for name in ("mean", "p50", "p95")},
        "bots": int(row["bots"]),
        "by_link": {link: links.get(link, 0) for link in schema.ACCOUNT_LINKS},
        "by_channel": by("channel"),
        "visitors": row["visitors"],
        "accounts": row["accounts"],
        "start": row["start"],
        "end": row["end"],
    }
