"""Snowplow's enriched events: TSV as the pipeline streams it, or the atomic events table of a warehouse.

The 131 columns of the TSV: https://docs.snowplow.io/docs/pipeline/enriched-tsv-format, what they mean:
https://docs.snowplow.io/docs/fundamentals/canonical-event. Files named .parquet, .csv or .ndjson are read by
column names, all others as TSV.

A page ping, sent every some seconds while a page is read, is an event of its own: it says how long a visit
lasted. Whoever wants none writes ``skip_events = ["page_ping"]``.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from clickintent.config import SourceConfig
from clickintent.events.engine import POSITION, Engine, Rows
from clickintent.events.files import suffix
from clickintent.events.readers.base import NO_PAGE, dig, microseconds, need, number, parsed, staged, texts

_COLUMNS = """
    app_id platform etl_tstamp collector_tstamp dvce_created_tstamp event event_id txn_id name_tracker
    v_tracker v_collector v_etl user_id user_ipaddress user_fingerprint domain_userid domain_sessionidx
    network_userid geo_country geo_region geo_city geo_zipcode geo_latitude geo_longitude geo_region_name
    ip_isp ip_organization ip_domain ip_netspeed page_url page_title page_referrer page_urlscheme
    page_urlhost page_urlport page_urlpath page_urlquery page_urlfragment refr_urlscheme refr_urlhost
    refr_urlport refr_urlpath refr_urlquery refr_urlfragment refr_medium refr_source refr_term mkt_medium
    mkt_source mkt_term mkt_content mkt_campaign contexts se_category se_action se_label se_property
    se_value unstruct_event tr_orderid tr_affiliation tr_total tr_tax tr_shipping tr_city tr_state
    tr_country ti_orderid ti_sku ti_name ti_category ti_price ti_quantity pp_xoffset_min pp_xoffset_max
    pp_yoffset_min pp_yoffset_max useragent br_name br_family br_version br_type br_renderengine br_lang
    br_features_pdf br_features_flash br_features_java br_features_director br_features_quicktime
    br_features_realplayer br_features_windowsmedia br_features_gears br_features_silverlight br_cookies
    br_colordepth br_viewwidth br_viewheight os_name os_family os_manufacturer os_timezone dvce_type
    dvce_ismobile dvce_screenwidth dvce_screenheight doc_charset doc_width doc_height tr_currency
    tr_total_base tr_tax_base tr_shipping_base ti_currency ti_price_base base_currency geo_timezone
    mkt_clickid mkt_network etl_tags dvce_sent_tstamp refr_domain_userid refr_dvce_tstamp derived_contexts
    domain_sessionid derived_tstamp event_vendor event_name event_format event_version event_fingerprint
    true_tstamp
"""
COLUMNS = tuple(_COLUMNS.split())
#: The values of ``event``.
EVENTS = ("page_view", "page_ping", "struct", "unstruct", "transaction", "transaction_item")
_NEEDED = ("event", "collector_tstamp")
#: What the collector writes for visitors who are tracked without a cookie.
_NOBODY = "00000000-0000-0000-0000-000000000000"
#: Entities of an event that are looked at; trackers attach two to five.
_ENTITIES = 10


def read(engine: Engine, _source: SourceConfig, path: str) -> Rows:
    """Stage one file of enriched events. See ``base.Reader``."""
    named = suffix(path) in (".parquet", ".pq", ".csv", ".ndjson", ".jsonl", ".json")
    rows = engine.read(path) if named else engine.read_delimited(path, COLUMNS)
    table = rows.table
    need(path, table, _NEEDED)
    app = _app(table)
    time = _time(table, "derived_tstamp", "collector_tstamp")
    visitor = dig(table, "network_userid").nullif(_NOBODY)
    event = dig(table, "event")
    action = dig(table, "se_action").coalesce(dig(table, "se_category"))
    url = dig(table, "page_url")
    return Rows(
        table.select(
            staged(
                position=table[POSITION],
                event_id=dig(table, "event_id"),
                visitor_id=dig(table, "domain_userid").coalesce(app["user"], visitor, dig(table, "user_id")),
                account_id=dig(table, "user_id"),
                ts=time[0],
                ts_given=time[1],
                event_type=event.cases(
                    ("struct", action), ("unstruct", dig(table, "event_name")), else_=event
                ).coalesce(event),
                url=url,
                page=ibis.ifelse(url.isnull(), app["screen"].coalesce(NO_PAGE), ibis.null("string")),
                title=dig(table, "page_title"),
                text=ibis.ifelse(event == "struct", dig(table, "se_label"), ibis.null("string")),
                referrer=dig(table, "page_referrer"),
                campaign=dig(table, "mkt_campaign"),
                device=dig(table, "dvce_type"),
                country=dig(table, "geo_country"),
                value=_number(table, "tr_total").coalesce(_number(table, "se_value")),
                session_key=dig(table, "domain_sessionid").coalesce(app["session"]),
                user_agent=dig(table, "useragent"),
            )
        ),
        rows.refused,
    )


def _time(table: ir.Table, *names: str) -> tuple[ir.IntegerValue, ir.BooleanValue]:
    """The first time that is there and understood, and whether there was any."""
    given = [table[name] for name in names if name in table.columns]
    return (
        ibis.coalesce(*(microseconds(value) for value in given)),
        ibis.or_(*(value.notnull() for value in given)),
    )


def _number(table: ir.Table, name: str) -> ir.FloatingValue:
    return number(table[name]) if name in table.columns else ibis.null("float64")


def _app(table: ir.Table) -> dict[str, ir.StringValue]:
    """User, session and screen of an event of an app: it has entities instead of a cookie and a page.

    In the TSV they are JSON, a list of schema and data; in a table, each schema has a column of its own.
    """
    session = "contexts_com_snowplowanalytics_snowplow_client_session_1"
    view = dig(table, "unstruct_event_com_snowplowanalytics_mobile_screen_view_1.name")
    screen = _first(table, "contexts_com_snowplowanalytics_mobile_screen_1", "name")
    user, visit = _first(table, session, "user_id"), _first(table, session, "session_id")
    for column in ("contexts", "unstruct_event"):
        if column not in table.columns or not isinstance(table[column], ir.StringValue):
            return {"user": user, "session": visit, "screen": screen.coalesce(view)}
    wanted = ("userId", "sessionId", "name")
    found = texts(
        parsed(table["contexts"]),
        {
            f"{i} {key}": f"$.data[{i}].{key}"
            for i in range(_ENTITIES)
            for key in ("schema", *(f"data.{name}" for name in wanted))
        },
    )

    def entity(schema: str, name: str) -> ir.StringValue:
        return ibis.coalesce(
            *(
                ibis.ifelse(
                    found[f"{i} schema"].contains(schema), found[f"{i} data.{name}"], ibis.null("string")
                )
                for i in range(_ENTITIES)
            )
        )

    event = texts(parsed(table["unstruct_event"]), {"schema": "$.data.schema", "name": "$.data.data.name"})
    viewed = ibis.ifelse(event["schema"].contains("/screen_view/"), event["name"], ibis.null("string"))
    return {
        "user": user.coalesce(entity("/client_session/", "userId")),
        "session": visit.coalesce(entity("/client_session/", "sessionId")),
        "screen": screen.coalesce(entity(".mobile/screen/", "name"), view, viewed),
    }


def _first(table: ir.Table, column: str, name: str) -> ir.StringValue:
    """A field of the first of a list of structs; null where a table lacks them."""
    values = table[column] if column in table.columns else None
    return dig(values[0], name) if isinstance(values, ir.ArrayValue) else ibis.null("string")
