"""The accounts of an ingest: rows that must balance, sessions, and what was removed; never a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc

from clickintent import schema
from clickintent.config import PrivacyConfig
from clickintent.errors import DataError
from clickintent.events.clean import NO_CONSENT
from clickintent.events.store import Manifest, ReadFile
from clickintent.events.tables import Tables

_COUNTS = ("read", "events", "duplicates", "quarantined")


def accounts(files: Sequence[ReadFile], kept: Mapping[int, int]) -> pa.Table:
    """``schema.FILES``: what became of every file's rows.

    Args:
        kept: file number → events that are in the tables.

    Raises:
        DataError: if the rows do not add up.
    """
    rows = [
        {
            "source": file.source,
            "file": file.path,
            "read": file.read,
            "events": kept.get(file.number, 0),
            "duplicates": file.read - file.quarantined - kept.get(file.number, 0),
            "quarantined": file.quarantined,
        }
        for file in files
    ]
    table = pa.Table.from_pylist(rows, schema=schema.FILES)
    wrong = table.filter(pc.less(table["duplicates"], 0))
    if wrong.num_rows or sum(kept.values()) != pc.sum(table["events"]).as_py():
        raise DataError(
            f"the rows of {wrong['file'][0] if wrong.num_rows else 'some file'} do not add up. This is an "
            "error of clickintent, or a file changed while it was read: ingest again with --force."
        )
    return table


def events(table: pa.Table, manifest: Manifest) -> dict[str, Any]:
    """Sums of ``accounts``, in all and by source, and the reasons for quarantine."""
    by_source: dict[str, dict[str, int]] = {}
    for row in table.to_pylist():
        of_source = by_source.setdefault(row["source"], dict.fromkeys(_COUNTS, 0))
        for name in _COUNTS:
            of_source[name] += row[name]
    reasons: dict[str, int] = {}
    for file in manifest.files:
        for reason, n in file.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + n
    totals = {name: sum(n[name] for n in by_source.values()) for name in _COUNTS}
    ordered = dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
    return {**totals, "files": table.num_rows, "by_source": by_source, "quarantine_reasons": ordered}


def line(n: dict[str, Any]) -> str:
    """The account in one line."""
    return (
        f"{n['read']:,} read = {n['events']:,} events + {n['duplicates']:,} duplicates "
        f"+ {n['quarantined']:,} quarantined"
    )


def why_empty(manifest: Manifest) -> str:
    """Why there is not one event."""
    read = sum(file.read for file in manifest.files)
    if read == 0:
        return "the sources hold no rows at all. Check 'path' under [[sources]]."
    reasons: dict[str, int] = {}
    for file in manifest.files:
        for reason, n in file.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + n
    listed = ", ".join(
        f"{n:,} × {reason}" for reason, n in sorted(reasons.items(), key=lambda i: (-i[1], i[0]))
    )
    return f"not one of {read:,} rows can be used: {listed}. Check 'columns' under [[sources]]."


def privacy(
    config: PrivacyConfig, manifest: Manifest, taken: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    """What ``privacy.json`` holds: what was removed, by field and detector: counts, never values."""
    refused = sum(file.reasons.get(NO_CONSENT, 0) for file in manifest.files)
    return {
        "ids": "keyed hashes (HMAC-SHA256)" if config.ids == "hmac" else "as in the source",
        "removed": {
            column: dict(sorted(detectors.items())) for column, detectors in sorted(manifest.removed.items())
        },
        "min_people": config.min_people,
        "too_few_people": {name: dict(n) for name, n in sorted(taken.items())},
        "rows_refused_without_consent": refused,
        "people_forgotten": len(manifest.forgotten),
        "query_parameters_kept": sorted(config.allow_query),
        "query_parameters_read_as_search_terms": sorted(config.search_query),
        "templates_by_hand": list(config.templates),
    }


def sessions(engine: Tables, table: ir.Table) -> dict[str, Any]:
    """Counts, lengths, links and robots."""
    n = table["n_events"]
    row = engine.arrow(
        table.agg(
            sessions=table.count(),
            mean=n.mean(),
            p50=n.quantile(0.5),
            p95=n.quantile(0.95),
            bots=table["is_bot"].sum(),
            visitors=table["visitor_id"].nunique(),
            accounts=table["account_id"].nunique(),
            start=table["start"].min(),
            end=table["end"].max(),
        )
    ).to_pylist()[0]

    def by(name: str) -> dict[str, int]:
        found: pa.Table = engine.arrow(table.group_by(name).agg(n=table.count()).order_by(name))
        return dict(zip(found[name].to_pylist(), found["n"].to_pylist(), strict=True))

    links, reasons = by("account_link"), by("bot_reason")
    return {
        "sessions": row["sessions"],
        "events_per_session": {name: round(float(row[name] or 0), 3) for name in ("mean", "p50", "p95")},
        "bots": int(row["bots"] or 0),
        "bot_reasons": {reason: count for reason, count in reasons.items() if reason is not None},
        "by_link": {link: links.get(link, 0) for link in schema.ACCOUNT_LINKS},
        "by_channel": by("channel"),
        "visitors": row["visitors"],
        "accounts": row["accounts"],
        "start": row["start"],
        "end": row["end"],
    }
