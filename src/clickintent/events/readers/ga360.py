"""Google Analytics 360 (Universal Analytics), as its BigQuery export writes it: one row per session.

Schema: https://support.google.com/analytics/answer/3437719. Hits are unnested to one row each; a hit's
position is its running number in the file. ``totals`` is not read: it knows how the session ends.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from clickintent.config import SourceConfig
from clickintent.errors import DataError, MissingColumnsError
from clickintent.events.engine import POSITION, Engine, Rows
from clickintent.events.readers.base import dig, need, number, staged

_NEEDED = ("fullVisitorId", "visitId", "visitStartTime", "hits")
#: ``hits.eCommerceAction.action_type`` → event type.
_ACTIONS = {
    "1": "product_click",
    "2": "view_item",
    "3": "add_to_cart",
    "4": "remove_from_cart",
    "5": "checkout",
    "6": "purchase",
    "7": "refund",
}
_TYPES = {"PAGE": "page_view", "APPVIEW": "screen_view", "SCREENVIEW": "screen_view"}


def read(engine: Engine, _source: SourceConfig, path: str) -> Rows:
    """Stage one file of the GA360 export. See ``base.Reader``."""
    rows = engine.read(path)
    table = rows.table
    need(path, table, _NEEDED)
    hits = table["hits"]
    if not isinstance(hits, ir.ArrayValue) or not isinstance(hits[0], ir.StructValue):
        raise DataError(
            f"{path}: 'hits' is {hits.type()}, not a list of hits. Export from BigQuery as Parquet."
        )
    if "time" not in hits[0].names:
        raise MissingColumnsError(path, ["hits.time"], [f"hits.{name}" for name in hits[0].names])
    # the wide hit is cut to what is read before it is unnested
    narrow = table.select(
        row=table[POSITION],
        visitor=table["fullVisitorId"].cast("string"),
        start=table["visitStartTime"].cast("int64"),
        visit=table["visitId"].cast("string"),
        account=dig(table, "userId"),
        campaign=dig(table, "trafficSource.campaign"),
        device=dig(table, "device.deviceCategory"),
        country=dig(table, "geoNetwork.country"),
        hit=hits.map(_hit),
    )
    flat = narrow.mutate(hit=narrow["hit"].unnest(), number=ibis.range(narrow["hit"].length()).unnest())
    flat = flat.select(
        *(c for c in flat.columns if c != "hit"), *(flat["hit"][n].name(f"h_{n}") for n in _FIELDS)
    )
    order = ibis.row_number().over(order_by=[flat["row"], flat["number"]])
    key = flat["visitor"] + "-" + flat["visit"] + "-" + flat["start"].cast("string")
    return Rows(
        flat.select(
            staged(
                position=order,
                visitor_id=flat["visitor"],
                account_id=flat["account"],
                ts=flat["start"] * 1_000_000 + flat["h_time"] * 1000,
                ts_given=flat["start"].notnull() & flat["h_time"].notnull(),
                event_type=_event_type(flat),
                url=flat["h_path"],
                page=ibis.ifelse(flat["h_path"].isnull(), flat["h_screen"], ibis.null("string")),
                title=flat["h_title"],
                text=ibis.coalesce(
                    flat["h_search"].nullif("(not set)"),
                    ibis.ifelse(
                        flat["h_action"].isin(["2", "3", "4"]), flat["h_product"], ibis.null("string")
                    ),
                    ibis.ifelse(flat["h_type"] == "EVENT", flat["h_label"], ibis.null("string")),
                ),
                referrer=flat["h_referrer"],
                campaign=flat["campaign"],
                device=flat["device"],
                country=flat["country"],
                value=number(flat["h_revenue"]) / 1_000_000,
                session_key=key,
            )
        ),
        rows.refused,
    )


_FIELDS = {
    "time": "int64",
    "type": "string",
    "path": "string",
    "title": "string",
    "search": "string",
    "screen": "string",
    "referrer": "string",
    "action": "string",
    "event": "string",
    "label": "string",
    "product": "string",
    "revenue": "float64",
}


def _hit(hit: ir.StructValue) -> ir.StructValue:
    product = hit["product"][0] if "product" in hit.names else None
    values = {
        "time": dig(hit, "time", "int64"),
        "type": dig(hit, "type").upper(),
        "path": dig(hit, "page.pagePath"),
        "title": dig(hit, "page.pageTitle"),
        "search": dig(hit, "page.searchKeyword"),
        "screen": dig(hit, "appInfo.screenName"),
        "referrer": dig(hit, "referer"),
        "action": dig(hit, "eCommerceAction.action_type"),
        "event": dig(hit, "eventInfo.eventAction"),
        "label": dig(hit, "eventInfo.eventLabel"),
        "product": dig(product, "v2ProductName"),
        "revenue": dig(hit, "transaction.transactionRevenue", "float64"),
    }
    return ibis.struct({name: values[name].cast(kind) for name, kind in _FIELDS.items()})


def _event_type(flat: ir.Table) -> ir.StringValue:
    by_action = flat["h_action"].cases(*_ACTIONS.items(), else_=ibis.null("string"))
    kind = flat["h_type"]
    by_type = kind.cases(*_TYPES.items(), else_=kind.lower())
    return ibis.ifelse(
        kind == "EVENT", flat["h_event"].coalesce(by_action, "event"), by_action.coalesce(by_type)
    )
