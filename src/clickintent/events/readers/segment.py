"""Raw calls of Segment and RudderStack: NDJSON, as both archive it in buckets.

Fields: https://www.twilio.com/docs/segment/connections/spec/common and the pages on ``page``, ``screen``,
``track``, ``identify``, ``group`` and ``alias`` beside it; for RudderStack
https://www.rudderstack.com/docs/event-spec/standard-events/common-fields/. Consent:
https://www.twilio.com/docs/segment/privacy/consent-management/consent-in-segment-connections and
https://www.rudderstack.com/docs/data-governance/consent-management/passing-consent/.

Their warehouse tables are flat: reader ``table`` reads those.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from clickintent.config import SourceConfig
from clickintent.events.engine import POSITION, Engine, Rows
from clickintent.events.readers.base import NO_PAGE, microseconds, number, staged, texts
from clickintent.events.reading import json_key

#: Calls that say what a visitor did, and calls that say who a visitor is. ``group`` says neither.
ACTIONS = ("page", "screen", "track")
IDENTITY = ("identify", "alias")

_PATHS = {
    "type": "type",
    "anonymous": "anonymousId",
    "user": "userId",
    "previous": "previousId",
    "id": "messageId",
    "timestamp": "timestamp",
    "original": "originalTimestamp",
    "received": "receivedAt",
    "event": "event",
    "name": "name",
    "p_name": "properties.name",
    "p_url": "properties.url",
    "p_path": "properties.path",
    "p_title": "properties.title",
    "p_referrer": "properties.referrer",
    "p_query": "properties.query",
    "p_revenue": "properties.revenue",
    "p_value": "properties.value",
    "c_url": "context.page.url",
    "c_path": "context.page.path",
    "c_title": "context.page.title",
    "c_referrer": "context.page.referrer",
    "campaign": "context.campaign.name",
    "device": "context.device.type",
    "mobile": "context.userAgentData.mobile",
    "country": "context.location.country",
    "agent": "context.userAgent",
    "session": "context.sessionId",
    "categories": "context.consent.categoryPreferences",
    "allowed": "context.consentManagement.allowedConsentIds",
    "denied": "context.consentManagement.deniedConsentIds",
}


def read(engine: Engine, source: SourceConfig, path: str) -> Rows:
    """Stage one file of calls. See ``base.Reader``."""
    rows = engine.read_objects(path)
    paths = {name: f"$.{where}" for name, where in _PATHS.items()}
    if source.consent_category:
        paths["category"] = f"$.{_PATHS['categories']}{json_key(source.consent_category)[1:]}"
    call = rows.table.select(POSITION, **texts(rows.table["json"], paths))
    kind = call["type"].lower()
    name = call["name"].coalesce(call["p_name"])
    # properties.url is the page's own only in a page call; a track call may use it for anything
    is_page = kind == "page"
    url = ibis.ifelse(is_page, call["p_url"].coalesce(call["c_url"]), call["c_url"])
    where = ibis.cases(
        (is_page, call["p_path"].coalesce(call["c_path"], name)),
        (kind == "screen", name),
        else_=call["c_path"],
    )
    time = call["timestamp"].coalesce(call["original"], call["received"])
    no_event = ~kind.isin([*ACTIONS, *IDENTITY])
    return Rows(
        call.select(
            staged(
                position=call[POSITION],
                event_id=call["id"],
                # an alias ties the id that a visitor had to the one of the account
                visitor_id=call["anonymous"].coalesce(call["previous"], call["user"]),
                account_id=call["user"],
                ts=microseconds(time),
                ts_given=time.notnull(),
                event_type=kind.cases(
                    ("page", "page_view"),
                    ("screen", "screen_view"),
                    ("track", call["event"]),
                    else_=kind,
                ),
                url=url,
                page=ibis.ifelse(
                    url.isnull() & ~no_event,
                    where.coalesce(ibis.ifelse(kind.isin(IDENTITY), "(" + kind + ")", NO_PAGE)),
                    ibis.null("string"),
                ),
                title=ibis.ifelse(is_page, call["p_title"].coalesce(call["c_title"]), call["c_title"]),
                text=ibis.ifelse(kind == "track", call["p_query"], ibis.null("string")),
                referrer=ibis.ifelse(
                    is_page, call["p_referrer"].coalesce(call["c_referrer"]), call["c_referrer"]
                ),
                campaign=call["campaign"],
                device=call["device"].coalesce(
                    call["mobile"].cases(("true", "mobile"), ("false", "desktop"), else_=ibis.null("string"))
                ),
                country=call["country"],
                value=number(call["p_revenue"]).coalesce(number(call["p_value"])),
                session_key=call["session"],
                user_agent=call["agent"],
                consent=_consent(call, source.consent_category),
                excluded=ibis.ifelse(
                    no_event, "no event of a visitor (call of another kind)", ibis.null("string")
                ),
            )
        ),
        rows.refused,
    )


def _consent(call: ir.Table, category: str) -> ir.StringValue:
    """``true`` or ``false``; null where the call says nothing about the category, or about any."""
    allowed, denied, categories = (
        call[n].nullif("[]").nullif("{}") for n in ("allowed", "denied", "categories")
    )
    if category:
        quoted = json_key(category)[2:]  # as it stands in a JSON list
        of_lists = ibis.cases(
            (denied.contains(quoted), "false"), (allowed.contains(quoted), "true"), else_=ibis.null("string")
        )
        return call["category"].coalesce(of_lists)
    return ibis.cases(
        (categories.re_search(r":\s*false\b"), "false"),
        (denied.notnull(), "false"),
        (categories.notnull() | allowed.notnull(), "true"),
        else_=ibis.null("string"),
    )
