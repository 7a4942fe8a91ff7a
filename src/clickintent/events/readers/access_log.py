"""Access logs of web servers: Apache's common and combined format, nginx' combined, and W3C extended (IIS).

Formats: https://httpd.apache.org/docs/current/logs.html#accesslog,
https://nginx.org/en/docs/http/ngx_http_log_module.html, https://www.w3.org/TR/WD-logfile.html and
https://learn.microsoft.com/windows/win32/http/w3c-logging. The first lines tell which it is.

A server sees requests, not people: a visitor is an address with a user agent, so that people behind one
address with the same browser are taken for one, and one person on the move for several. A page view is a
successful GET of something that is no part of a page; all other requests are excluded, with the reason.
Lines with directives (``#Fields:``) are no rows and are not counted.
"""

from __future__ import annotations

import re

import ibis
import ibis.expr.types as ir

from clickintent.config import SourceConfig
from clickintent.errors import DataError
from clickintent.events.engine import POSITION, Engine, Rows
from clickintent.events.readers import access_log_w3c
from clickintent.events.readers.base import microseconds, staged
from clickintent.events.reading import MALFORMED

#: Address, identity, user, time: what stands before the request. A virtual host may come first, and the
#: addresses of proxies after that of the client.
_WHO = r"^(?:\S+:\d+ )?([^\s,-][^\s,]*)(?:, ?[^\s,]+)* \S+ "
_HEAD = _WHO + r"(.+?) \[(\d{2}/[A-Z][a-z]{2}/\d{4}:\d{2}:\d{2}:\d{2} [+-]\d{4})\] $"
_TAIL = r"^ (\d{3}) (?:\d+|-)(?: .*)?$"
_REQUEST = r"^([A-Za-z-]+) (.+?)(?: HTTP/[0-9.]+)?$"
#: A whole line of the common or combined format, for whoever has to recognise it.
LINE = _WHO + r'.+? \[\d{2}/[A-Z][a-z]{2}/\d{4}:[0-9:]{8} [+-]\d{4}\] ".*" \d{3} (?:\d+|-)'
_TIME = r"^(\d{2})/([A-Z][a-z]{2})/(\d{4}):(\S+) ([+-]\d{2})(\d{2})$"
_MONTHS = {"JanFebMarAprMayJunJulAugSepOctNovDec"[3 * i : 3 * i + 3]: f"{i + 1:02}" for i in range(12)}
#: A quote that is part of a field, and a backslash, while a line is cut at the other quotes.
_QUOTE, _BACKSLASH = "\x01", "\x02"
_LOOK_AT = 100  # lines that tell the format

_ASSET = (
    r"\.(css|js|mjs|map|png|jpe?g|gif|svg|ico|webp|avif|bmp|cur|woff2?|ttf|otf|eot|mp[34]|m4[av]|webm|og[gv]|"
    r"wav|flv|swf|webmanifest)$"
)
#: Read by programs, not by people.
_MACHINE = r"(^/robots\.txt|\.(xml|json|rss|atom|txt)|/feed/?)$"
_DOCUMENT = r"\.(pdf|docx?|xlsx?|pptx?|csv|zip|gz|exe|dmg|ics|vcf)$"
#: Others are called ``other``: a reason must not carry what a stranger sent.
_METHODS = ("HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "PROPFIND")


def read(engine: Engine, _source: SourceConfig, path: str) -> Rows:
    """Stage one access log. See ``base.Reader``.

    Raises:
        DataError: if its first lines are of no known format.
    """
    rows = engine.read_lines(path)
    lines = rows.table
    top = engine.arrow(lines.filter(lines["line"].notnull()).order_by(POSITION).limit(_LOOK_AT))
    first = top["line"].to_pylist()
    if first and first[0].startswith("#"):
        requests = access_log_w3c.requests(engine, lines, path)
    elif first and not any(re.search(LINE, line) for line in first):
        raise DataError(
            f"{path}: not one of the first {len(first)} lines is of the common, combined or W3C format. "
            "Correct 'reader' or 'path' under [[sources]]."
        )
    else:
        requests = _combined(lines)
    return Rows(_staged(requests), rows.refused)


def _combined(lines: ir.Table) -> ir.Table:
    """Lines of the common and combined format as requests, see ``access_log_w3c.requests``."""
    line = lines["line"].replace("\\\\", _BACKSLASH).replace('\\"', _QUOTE)
    cut = lines.select(POSITION, part=line.split('"'))
    cut = cut.select(
        POSITION, head=cut["part"][0], asked=cut["part"][1], tail=cut["part"][2], part=cut["part"]
    )
    head, asked, tail = cut["head"], cut["asked"], cut["tail"]
    time = head.re_extract(_HEAD, 3)
    month = time.re_extract(_TIME, 2).cases(*_MONTHS.items(), else_=ibis.null("string"))
    iso = time.re_extract(_TIME, 3) + "-" + month + "-" + time.re_replace(_TIME, r"\1 \4\5:\6")
    return cut.select(
        POSITION,
        whole=head.re_search(_HEAD) & tail.re_search(_TAIL),
        address=head.re_extract(_HEAD, 1),
        user=_said(head.re_extract(_HEAD, 2)),
        time=iso,
        method=asked.re_extract(_REQUEST, 1).nullif(""),
        target=_unescaped(asked.re_extract(_REQUEST, 2)).nullif(""),
        status=tail.re_extract(_TAIL, 1),
        referrer=_said(_unescaped(cut["part"][3])),
        user_agent=_said(_unescaped(cut["part"][5])),
    )


def _staged(requests: ir.Table) -> ir.Table:
    """Requests as staged rows."""
    path = requests["target"].re_replace(r"[?#].*$", "").lower()
    method, status = requests["method"].upper(), requests["status"]
    requests = requests.mutate(
        _visitor=requests["address"] + " " + requests["user_agent"].coalesce(""),
        _path=path,
        _asset=path.re_search(_ASSET).coalesce(False),
        _get=(method == "GET").coalesce(False),
        _seen=status.re_search(r"^(2\d\d|304)$").coalesce(False),
    )
    known = ibis.ifelse(method.isin(_METHODS), method, "other")
    code = ibis.ifelse(status.re_search(r"^\d{3}$"), status, "unknown")
    excluded = ibis.cases(
        (~requests["whole"].coalesce(False), MALFORMED),
        (method.isnull(), "no HTTP request"),
        (~requests["_get"], "method " + known),
        (requests["_asset"], "asset request"),
        (~requests["_seen"], "status " + code.coalesce("unknown")),
        (requests["_path"].re_search(_MACHINE), "request of a machine-readable file"),
        else_=ibis.null("string"),
    )
    download = requests["_path"].re_search(_DOCUMENT)
    asked = (requests["_asset"] & requests["_get"]).cast("int64")
    # where assets come from another server, nobody asks for one here: that says nothing about anybody
    here = asked.sum().as_scalar() > 0
    return requests.select(
        staged(
            position=requests[POSITION],
            visitor_id=requests["_visitor"].strip(),
            account_id=requests["user"],
            ts=microseconds(requests["time"]),
            ts_given=requests["time"].notnull(),
            event_type=ibis.ifelse(download.coalesce(False), "file_download", "page_view"),
            url=requests["target"],
            referrer=requests["referrer"],
            user_agent=requests["user_agent"],
            excluded=excluded,
            assets=ibis.ifelse(here, asked.sum().over(group_by=requests["_visitor"]), ibis.null("int64")),
        )
    )


def _said(value: ir.StringValue) -> ir.StringValue:
    """A hyphen stands for nothing."""
    return value.nullif("").nullif("-")


def _unescaped(value: ir.StringValue) -> ir.StringValue:
    return value.replace(_QUOTE, '"').replace(_BACKSLASH, "\\")
