"""Google Analytics 4, as its BigQuery export writes it: one row per event, parameters nested.

Schema: https://support.google.com/analytics/answer/7029846. Parameter keys differ between exports, so all
are optional. Outcomes such as ``user_ltv`` are not read.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from clickintent.config import SourceConfig
from clickintent.errors import DataError
from clickintent.events.engine import POSITION, Engine, Rows
from clickintent.events.readers.base import dig, need, number, staged

_NEEDED = ("user_pseudo_id", "event_timestamp", "event_name", "event_params")
_KEYS = (
    "page_location",
    "page_title",
    "page_text",
    "page_referrer",
    "search_term",
    "campaign",
    "ga_session_id",
    "value",
    "firebase_screen",
)


def read(engine: Engine, _source: SourceConfig, path: str) -> Rows:
    """Stage one file of the GA4 export. See ``base.Reader``."""
    rows = engine.read(path)
    table = rows.table
    need(path, table, _NEEDED)
    params = table["event_params"]
    if not isinstance(params, ir.ArrayValue) or not isinstance(params[0], ir.StructValue):
        raise DataError(
            f"{path}: 'event_params' is {params.type()}, not a list of key and value. "
            "Export from BigQuery as Parquet."
        )
    # each parameter becomes (key, text): one pass over the list, and then cheap look-ups in a map
    wanted = params.filter(lambda p: p["key"].isin(_KEYS))
    table = table.mutate(
        _keys=wanted.map(lambda p: p["key"]), _values=wanted.map(lambda p: _text(p["value"]))
    )
    table = table.select(
        *(c for c in table.columns if c != "event_params"),
        **{f"_p_{key}": _lookup(table, key) for key in _KEYS},
    )
    time = table["event_timestamp"]
    ts = time.try_cast("int64") if isinstance(time, ir.StringValue) else time.cast("int64")
    search = table["_p_search_term"]
    return Rows(
        table.select(
            staged(
                position=table[POSITION],
                visitor_id=table["user_pseudo_id"],
                account_id=dig(table, "user_id"),
                ts=ts,
                ts_given=time.notnull(),
                event_type=table["event_name"],
                url=table["_p_page_location"],
                page=ibis.ifelse(
                    table["_p_page_location"].isnull(), table["_p_firebase_screen"], ibis.null("string")
                ),
                title=table["_p_page_title"],
                text=search.coalesce(table["_p_page_text"]),
                referrer=table["_p_page_referrer"],
                campaign=table["_p_campaign"].coalesce(
                    dig(table, "collected_traffic_source.manual_campaign_name")
                ),
                device=dig(table, "device.category"),
                country=dig(table, "geo.country"),
                value=number(table["_p_value"]).coalesce(dig(table, "ecommerce.purchase_revenue", "float64")),
                session_key=table["_p_ga_session_id"],
                user_agent=dig(table, "device.web_info.browser"),  # all that the export keeps of it
                consent=dig(table, "privacy_info.analytics_storage"),
            )
        ),
        rows.refused,
    )


def _text(value: ir.StructValue) -> ir.StringValue:
    kinds = [k for k in ("string_value", "int_value", "double_value", "float_value") if k in value.names]
    return ibis.coalesce(*(value[k].cast("string") for k in kinds))


def _lookup(table: ir.Table, key: str) -> ir.StringValue:
    at = table["_keys"].index(key)
    return ibis.ifelse(at >= 0, table["_values"][at], ibis.null("string"))
