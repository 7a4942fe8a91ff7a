"""Adobe Analytics data feeds: ``hit_data.tsv``, one row per server call, its columns named in a lookup file.

Columns: https://experienceleague.adobe.com/docs/analytics/export/analytics-data-feed/data-feed-contents/
datafeeds-reference.html; kinds of hits: …/datafeeds-page-event.html; escapes: …/datafeeds-spec-chars.html;
which rows are no hits: …/datafeeds-calculate.html. ``post_`` columns, which hold what Adobe itself reports,
are preferred to plain ones.

Feeds are chosen column by column, so nearly all are optional. What a company keeps in variables of its own
(customer number, search term, consent) is named in ``fields``, and its own events in ``event_ids``.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from clickintent.config import SourceConfig
from clickintent.errors import ConfigError, MissingColumnsError
from clickintent.events.engine import POSITION, Engine, Rows
from clickintent.events.readers.adobe_lookups import lookups
from clickintent.events.readers.base import STAGED, microseconds, number, staged
from clickintent.events.reading import MALFORMED

_NEEDED = ("hit_time_gmt",)
#: Number in ``event_list`` → event type: the standard events. The first that a hit has counts.
_EVENT_IDS = {
    "1": "purchase",
    "11": "checkout",
    "12": "add_to_cart",
    "13": "remove_from_cart",
    "14": "view_cart",
    "2": "view_item",
}
#: ``page_event`` (links: 10 to 12 before processing, 100 to 102 after it) → event type.
_PAGE_EVENTS = {
    "0": "page_view",
    **dict.fromkeys(("10", "100"), "link_click"),
    **dict.fromkeys(("11", "101"), "file_download"),
    **dict.fromkeys(("12", "102"), "exit_link"),
    **dict.fromkeys(("31", "76", "50", "60"), "media_start"),
    **dict.fromkeys(("51", "61"), "media_end"),
    **dict.fromkeys(("54", "64"), "media_ad"),
    **dict.fromkeys(
        ("32", "33", "77", "78", "52", "53", "55", "56", "62", "63", "65", "66"), "media_progress"
    ),
    **dict.fromkeys(("40", "80"), "survey"),
    "70": "target_activity",
}
#: What ``fields`` may fill: all text but reasons, which are no content of the row.
_OWN = {name for name, kind in STAGED.items() if kind == "string" and name != "excluded"}
#: Values of ``hit_source`` of uploaded summaries, which no visitor caused.
_UPLOADED = ("5", "7", "8", "9")
#: What stands for an escaped backslash, tab and newline while a row is cut into fields.
_BACKSLASH, _TAB, _NEWLINE = "\x01", "\x02", "\x03"


def read(engine: Engine, source: SourceConfig, path: str) -> Rows:
    """Stage one file of hits. See ``base.Reader``."""
    looked_up = lookups(path, source.lookups)
    missing = [c for c in (*_NEEDED, *source.fields.values()) if c not in looked_up.columns]
    if missing:
        raise MissingColumnsError(path, missing, looked_up.columns)
    unknown = sorted(set(source.fields) - _OWN)
    if unknown:
        raise ConfigError(
            f"source {source.label!r}: 'fields' cannot fill {', '.join(unknown)}. "
            f"Use {', '.join(sorted(_OWN))}."
        )
    rows = engine.read_lines(path)
    hit = _Hit(_joined(engine, rows.table), looked_up.columns)
    events = "," + hit.get("event_list") + ","
    ids = {**source.event_ids, **{k: v for k, v in _EVENT_IDS.items() if k not in source.event_ids}}
    # a hit repeated with the same purchase id is no second purchase
    again = hit.get("duplicate_purchase") == "1"
    done = ibis.cases(
        *(
            (events.contains(f",{n},") & (~again.coalesce(False) if n == "1" else True), kind)
            for n, kind in ids.items()
        ),
        else_=ibis.null("string"),
    )
    by_page_event = hit.get("page_event").coalesce("0").cases(*_PAGE_EVENTS.items(), else_="other")
    is_link = by_page_event.isin(["link_click", "file_download", "exit_link"])
    name = hit.get("pagename")
    time = _nonzero(hit.get("cust_hit_time_gmt")).coalesce(hit.get("hit_time_gmt"))
    mobile = hit.get("mobile_id")
    columns: dict[str, ir.Value] = {
        "position": hit.table[POSITION],
        "event_id": _pair(hit, "hitid_high", "hitid_low"),
        "visitor_id": _pair(hit, "visid_high", "visid_low").coalesce(_nonzero(hit.get("mcvisid"))),
        "ts": microseconds(time, "s"),
        "ts_given": time.notnull(),
        # its own events say more than that a page was seen
        "event_type": ibis.ifelse(by_page_event.isin(["page_view", "link_click"]), done, None).coalesce(
            by_page_event
        ),
        "url": hit.get("page_url"),
        "page": name,
        "title": name,
        "text": ibis.ifelse(is_link, hit.get("page_event_var2"), hit.get("keywords")),
        "referrer": hit.get("referrer"),
        "campaign": hit.get("campaign"),
        "device": ibis.cases(
            (mobile == "0", "desktop"), (mobile.notnull(), "mobile"), else_=ibis.null("string")
        ),
        "country": hit.get("geo_country").coalesce(
            hit.get("country").cases(*looked_up.countries.items(), else_=ibis.null("string"))
            if looked_up.countries
            else ibis.null("string")
        ),
        "value": ibis.ifelse(events.contains(",1,") & ~again.coalesce(False), _revenue(hit), None),
        "session_key": hit.get("visit_num") + "-" + hit.get("visit_start_time_gmt"),
        "user_agent": hit.get("user_agent"),
        "excluded": _excluded(hit),
    }
    columns |= {name: hit.column(column) for name, column in source.fields.items()}
    return Rows(hit.table.select(staged(**columns)), rows.refused)


class _Hit:
    """Rows cut into fields."""

    def __init__(self, lines: ir.Table, columns: tuple[str, ...]) -> None:
        line = lines["line"].replace("\\\\", _BACKSLASH).replace("\\\t", _TAB).replace("\\\n", _NEWLINE)
        self.table = lines.select(POSITION, fields=line.split("\t"))
        self._at = {name: i for i, name in enumerate(columns)}
        n = self.table["fields"].length()
        # writers drop the last field if it is empty
        self.whole = (n == len(columns)) | (n == len(columns) - 1)

    def column(self, name: str) -> ir.StringValue:
        """A column by its very name, empty ones null; null where the feed lacks it."""
        if name not in self._at:
            return ibis.null("string")
        text = self.table["fields"][self._at[name]]
        return text.replace(_BACKSLASH, "\\").replace(_TAB, "\t").replace(_NEWLINE, "\n").nullif("")

    def get(self, name: str) -> ir.StringValue:
        """The ``post_`` column if it says something, else the plain one."""
        return self.column(f"post_{name}").coalesce(self.column(name))


def _joined(engine: Engine, lines: ir.Table) -> ir.Table:
    """Rows of hits, at the positions of their first lines: one that ends in an escaped newline goes on."""
    goes_on = lines["line"].re_search(r"(?:^|[^\\])(?:\\\\)*\\$").coalesce(False)
    if not engine.arrow(lines.agg(n=goes_on.sum())).to_pylist()[0]["n"]:
        return lines
    before = ibis.window(order_by=POSITION)
    lines = lines.mutate(_first=~goes_on.lag().over(before).coalesce(False))
    lines = lines.mutate(_hit=lines["_first"].cast("int64").cumsum(order_by=POSITION))
    return lines.group_by("_hit").agg(
        **{POSITION: lines[POSITION].min(), "line": lines["line"].group_concat("\n", order_by=POSITION)}
    )


def _excluded(hit: _Hit) -> ir.StringValue:
    # numbers alone get into the reason: a damaged row may hold anything there
    excluded, uploaded = hit.get("exclude_hit"), hit.get("hit_source")
    return ibis.cases(
        (~hit.whole.coalesce(False), MALFORMED),
        (
            excluded.re_search(r"^\d{1,3}$") & (excluded != "0"),
            "excluded by the source (exclude_hit = " + excluded + ")",
        ),
        (excluded.notnull() & (excluded != "0"), "excluded by the source (exclude_hit)"),
        (uploaded.isin(_UPLOADED), "uploaded data, no hit (hit_source = " + uploaded + ")"),
        else_=ibis.null("string"),
    )


def _pair(hit: _Hit, high: str, low: str) -> ir.StringValue:
    pair = hit.get(high) + "_" + hit.get(low)
    return pair.nullif("0_0")


def _nonzero(value: ir.StringValue) -> ir.StringValue:
    return value.nullif("0")


def _revenue(hit: _Hit) -> ir.FloatingValue:
    """The prices in ``product_list`` (category;product;quantity;price;…), which are those of all pieces."""
    products = hit.get("product_list").replace("^,", " ").replace("^;", " ").split(",")
    return number(products.map(lambda p: p.split(";")[3].try_cast("float64")).sums())
