"""Staged rows → clean rows: every row checked, every field made private, or refused with a reason.

Cleaning works on distinct values: each distinct URL, title or search term is cleaned once, in Python, and
joined back by the engine. The result has ``EVENTS`` without unique ids yet, ``file``, ``position``,
``reason`` (null: the row is good), ``order`` (see below) and ``raw_key``, the identity of the raw content
that duplicates share, taken before redaction makes different things look the same.

Order within one microsecond is the order of the export: most write oldest first, some newest first, which
is recognised for every file by what successive rows of one visitor mostly do.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from clickintent.config import PrivacyConfig, SourceConfig
from clickintent.events import paths, privacy
from clickintent.events.engine import Engine
from clickintent.events.readers.base import STAGED

EARLIEST = 788_918_400_000_000  # 1995-01-01 in µs: before the first web analytics
_DAY = 86_400_000_000

#: Written instead of nothing.
NOTHING = (
    "",
    "null",
    "none",
    "nan",
    "undefined",
    "(not set)",
    "(none)",
    "(data deleted)",
    "<other>",
    "<obfuscated>",
    "not available in demo dataset",
)
_LONGEST = max(map(len, NOTHING))

#: Reasons for quarantine.
MALFORMED = "malformed row"
NO_VISITOR = "missing visitor"
NO_TS = "missing timestamp"
BAD_TS = "unparseable timestamp"
EARLY_TS = "timestamp before 1995"
LATE_TS = "timestamp in the future"
NO_TYPE = "missing event type"
NO_PAGE = "missing page and url"
BAD_URL = "url not parseable"

_BITS_POSITION = 36
_BITS_FILE = 18
_LOOK_AT = 50_000  # rows that tell which way a file is written
_CHECKED = ("event_id", "visitor_id", "account_id", "session_key", "event_type", "url", "page")
_TEXTS = ("title", "text", "campaign", "device", "country")
_RAW = tuple(name for name in STAGED if name not in ("position", "ts_given", "event_id"))


def prepare(rows: ir.Table, config: PrivacyConfig) -> ir.Table:
    """Staged rows with ``raw_key``, and URLs short of what is dropped anyway.

    Words that say nothing become null where they would hide that who, what or where is missing; those in
    titles and texts go when these are cleaned.
    """
    table = rows.mutate(**{name: _something(rows[name]) for name in _CHECKED})
    raw_key = content(table, _RAW).hexdigest("md5")
    return table.mutate(
        raw_key=ibis.ifelse(table["event_id"].notnull(), "id:" + table["event_id"], raw_key),
        url=_short(table["url"], config),
    )


def clean(
    engine: Engine,
    table: ir.Table,
    source: SourceConfig,
    config: PrivacyConfig,
    *,
    number: tuple[int, int],
    path: Path,
) -> tuple[ir.Table, list[ir.Table]]:
    """Check and clean the rows of one file.

    Args:
        table: what ``prepare`` gives, computed.
        number: of the source and of the file in it, for the order of rows.

    Returns:
        The clean rows as an expression, and the temporary tables to drop when it was computed.
    """
    late, newest_first = _facts(engine, table)
    before = (number[0] << (_BITS_POSITION + _BITS_FILE)) + (number[1] << _BITS_POSITION)

    def url(value: str) -> tuple[str | None, str | None]:
        found = paths.template(value, config.allow_query, config.search_query)
        return (found[0], privacy.redact(found[1])) if found else (None, None)

    # raw column → how to clean one value, and the names of the one or two columns that come of it
    cleaning: dict[str, tuple[Clean, tuple[str, ...]]] = {
        "url": (url, ("_from_url", "_term")),
        "page": (lambda v: (_page(v, config), None), ("_from_page",)),
        "event_type": (lambda v: (_event_type(v), None), ("_event_type",)),
        "referrer": (lambda v: (paths.host(v), None), ("_referrer",)),
        **{name: (lambda v: (_text(v), None), (f"_{name}",)) for name in _TEXTS},
    }
    temporary: list[ir.Table] = []
    uncleaned = table
    for column, (clean_one, names) in cleaning.items():
        values = _distinct(engine, uncleaned, column, clean_one)
        if values is None:
            table = table.mutate(**{name: ibis.null("string") for name in names})
            continue
        temporary.append(values)
        values = values.select(
            _raw=values["raw"], **dict(zip(names, (values["one"], values["two"]), strict=False))
        )
        table = table.left_join(values, table[column] == values["_raw"]).drop("_raw")

    page = table["_from_page"].coalesce(table["_from_url"])
    reason = ibis.cases(
        (table["visitor_id"].isnull(), NO_VISITOR),
        (~table["ts_given"].coalesce(False), NO_TS),
        (table["ts"].isnull(), BAD_TS),
        (table["ts"] < EARLIEST, EARLY_TS),
        (table["ts"] > late, LATE_TS),
        (table["_event_type"].isnull(), NO_TYPE),
        (table["url"].isnull() & table["page"].isnull(), NO_PAGE),
        (page.isnull(), BAD_URL),
        else_=ibis.null("string"),
    )
    return (
        table.select(
            *(table[name] for name in ("event_id", "visitor_id", "account_id", "ts")),
            channel=ibis.literal(source.channel),
            event_type=table["_event_type"],
            page=page,
            title=table["_title"],
            text=table["_text"].coalesce(table["_term"]),
            referrer=table["_referrer"],
            campaign=table["_campaign"],
            device=table["_device"],
            country=table["_country"],
            value=table["value"],
            session_key=table["session_key"],
            source=ibis.literal(source.label),
            file=ibis.literal(str(path)),
            position=table["position"],
            reason=reason,
            order=before
            + ((1 << _BITS_POSITION) - 1 - table["position"] if newest_first else table["position"]),
            raw_key=table["raw_key"],
        ),
        temporary,
    )


def _something(value: ir.StringValue) -> ir.StringValue:
    """Text without white space around it, null if it says nothing."""
    value = value.strip()
    # the length first: it is cheap, and most values are longer
    nothing = (value.length() <= _LONGEST) & value.lower().isin(NOTHING)
    return ibis.ifelse(nothing, ibis.null("string"), value)


def content(table: ir.Table, columns: tuple[str, ...]) -> ir.StringValue:
    """The columns as one text that differs when they differ."""
    parts = [table[name].cast("string").coalesce("\x02") for name in columns]
    return ibis.literal("\x1f").join(parts)


def malformed(like: ibis.Schema, source: SourceConfig, path: Path, positions: tuple[int, ...]) -> ir.Table:
    """Rows of the columns ``like`` for what the engine could not even split into fields."""
    rows = ibis.memtable(pa.table({"position": pa.array(positions, pa.int64())}))
    given = {
        "position": rows["position"],
        "source": ibis.literal(source.label),
        "file": ibis.literal(str(path)),
        "reason": ibis.literal(MALFORMED),
    }
    return rows.select(**{name: given.get(name, ibis.null()).cast(kind) for name, kind in like.items()})


def _facts(engine: Engine, table: ir.Table) -> tuple[int, bool]:
    """The latest plausible time, and whether the file is written newest first.

    A time is implausible after tomorrow, unless the whole file lies there (a simulation): then after a year
    past its median.
    """
    late = int(time.time() * 1e6) + _DAY
    good = table.filter(table["ts"] >= EARLIEST)
    median = engine.arrow(good["ts"].cast("float64").approx_median()).as_py()
    if median is not None:
        late = max(late, int(median) + 366 * _DAY)
    top = good.filter(good["position"] < _LOOK_AT)
    before = ibis.window(order_by="position")
    step = top["ts"] - top["ts"].lag().over(before)
    steps = top.select(step=ibis.ifelse(top["visitor_id"].lag().over(before) == top["visitor_id"], step, 0))
    facts = engine.arrow(steps.agg(down=(steps["step"] < 0).sum(), up=(steps["step"] > 0).sum())).to_pylist()[
        0
    ]
    return late, (facts["down"] or 0) > (facts["up"] or 0)


def _short(url: ir.StringValue, config: PrivacyConfig) -> ir.StringValue:
    """The URL without a query and fragment that would be dropped anyway: far fewer distinct values."""
    kept = [re.escape(name) for name in (*config.allow_query, *config.search_query)]
    keep = url.re_search(r"#!?/|%")
    if kept:
        keep = keep | url.lower().re_search(rf"[?&;]({'|'.join(kept).lower()})=")
    return ibis.ifelse(keep, url, url.re_replace(r"[?#].*$", ""))


Clean = Callable[[str], tuple[str | None, str | None]]


def _distinct(engine: Engine, table: ir.Table, column: str, clean: Clean) -> ir.Table | None:
    """A temporary table raw → one, two with every distinct value of ``column`` cleaned; None for no value."""
    values = table.select(raw=table[column]).filter(ibis._.raw.notnull()).distinct()
    raw: list[pa.Array] = []
    one: list[pa.Array] = []
    two: list[pa.Array] = []
    for batch in engine.batches(values, 50_000):
        cleaned = [clean(value) for value in batch.column(0).to_pylist()]
        raw.append(batch.column(0))
        one.append(pa.array([c[0] for c in cleaned], pa.string()))
        two.append(pa.array([c[1] for c in cleaned], pa.string()))
    if not raw:
        return None
    names = {"raw": raw, "one": one, "two": two}
    return engine.temporary(
        pa.table({n: pa.chunked_array(chunks, pa.string()) for n, chunks in names.items()}), "clean"
    )


def _text(value: str) -> str | None:
    return None if value.strip().lower() in NOTHING else privacy.redact(value)


def _page(value: str, config: PrivacyConfig) -> str | None:
    """A page given as such: a path or URL becomes a template, the name of a screen is redacted."""
    if value.startswith(("/", "#/", "#!/")) or "://" in value:
        found = paths.template(value, config.allow_query, ())
        return found[0] if found else None
    return privacy.redact(value)


def _event_type(value: str) -> str | None:
    """``Add to Cart`` → ``add_to_cart``."""
    return re.sub(r"[^\w]+", "_", (privacy.redact(value) or "").lower()).strip("_") or None
