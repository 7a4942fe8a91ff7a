"""The lines of a W3C extended log: fields between white space, named by a ``#Fields`` directive.

A server writes a new directive when its configuration changes, so the fields may change within a file.
Values hold no white space: IIS writes ``+`` and CloudFront ``%20`` for a space in a user agent. Times are
UTC.
"""

from __future__ import annotations

from collections.abc import Sequence

import ibis
import ibis.expr.types as ir

from clickintent.errors import DataError, MissingColumnsError
from clickintent.events.engine import POSITION, Engine

_DIRECTIVE = "#Fields:"
_NEEDED = ("date", "time", "c-ip")


def requests(engine: Engine, lines: ir.Table, path: str) -> ir.Table:
    """One row per request: ``whole`` (whether the line could be cut), ``address``, ``user``, ``time``,
    ``method``, ``target``, ``status``, ``referrer`` and ``user_agent``, null where nothing is said.

    Raises:
        DataError: if a line comes before the first directive.
        MissingColumnsError: if the log does not say when, who or what.
    """
    text = lines["line"]
    found = engine.arrow(
        lines.filter(text.startswith(_DIRECTIVE)).order_by(POSITION).select(POSITION, "line")
    )
    starts: list[tuple[int, list[str]]] = []
    for position, line in zip(found[POSITION].to_pylist(), found["line"].to_pylist(), strict=True):
        names = line.removeprefix(_DIRECTIVE).lower().split()
        if not starts or starts[-1][1] != names:
            starts.append((position, names))
    if not starts:
        raise DataError(f"{path}: has no line '#Fields: …' that says what its fields are.")
    rows = lines.filter(~text.startswith("#") | text.isnull())
    ends = [position for position, _ in starts[1:]] + [None]
    parts: list[ir.Table] = []
    for (start, names), end in zip(starts, ends, strict=True):
        missing = [name for name in _NEEDED if name not in names]
        missing += [] if {"cs-uri-stem", "cs-uri"} & set(names) else ["cs-uri-stem"]
        if missing:
            raise MissingColumnsError(path, missing, names)
        # lines before the first directive have no other names to go by
        after = rows[POSITION] >= (start if parts else 0)
        parts.append(_cut(rows.filter(after if end is None else after & (rows[POSITION] < end)), names))
    return ibis.union(*parts) if len(parts) > 1 else parts[0]


def _cut(lines: ir.Table, names: Sequence[str]) -> ir.Table:
    cut = lines.select(POSITION, part=lines["line"].strip().re_split(r"\s+"))

    def field(*wanted: str) -> ir.StringValue:
        found = [cut["part"][names.index(name)].nullif("-") for name in wanted if name in names]
        return ibis.coalesce(*found) if found else ibis.null("string")

    target = field("cs-uri-stem", "cs-uri") + ibis.coalesce("?" + field("cs-uri-query"), "")
    agent = field("cs(user-agent)").re_replace(r"\+|%20", " ")
    return cut.select(
        POSITION,
        whole=(cut["part"].length() == len(names)) & field("date").notnull() & field("c-ip").notnull(),
        address=field("c-ip"),
        user=field("cs-username"),
        time=field("date") + " " + field("time"),
        # logs that leave these out hold nothing but views
        method=field("cs-method") if "cs-method" in names else ibis.literal("GET"),
        target=target,
        status=field("sc-status") if "sc-status" in names else ibis.literal("200"),
        referrer=field("cs(referer)"),
        user_agent=agent,
    )
