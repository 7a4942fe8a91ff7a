"""Web events in the GA4 BigQuery export schema: one row per event, parameters as a list of structs.

The schema is Google's, https://support.google.com/analytics/answer/7029846, less the columns for shops and
apps. ``page_text`` is a custom parameter, as sites with a content layer send it.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clickintent.simbank.address import Texts, view_texts
from clickintent.simbank.dirt import GARBAGE, Damage, Leaks
from clickintent.simbank.intents import INTENTS
from clickintent.simbank.latent import Ints
from clickintent.simbank.site import EVENT, EVENT_NAMES, Site
from clickintent.simbank.web import US_PER_DAY, Events, Sessions, Views

_VALUE = pa.struct(
    [
        ("string_value", pa.string()),
        ("int_value", pa.int64()),
        ("float_value", pa.float64()),
        ("double_value", pa.float64()),
    ]
)
_PARAMS = pa.list_(pa.struct([("key", pa.string()), ("value", _VALUE)]))
_DEVICE = pa.struct(
    [
        ("category", pa.string()),
        ("operating_system", pa.string()),
        ("language", pa.string()),
        ("web_info", pa.struct([("browser", pa.string()), ("browser_version", pa.string())])),
    ]
)
_GEO = pa.struct(
    [("continent", pa.string()), ("country", pa.string()), ("region", pa.string()), ("city", pa.string())]
)
_TRAFFIC = pa.struct([("name", pa.string()), ("medium", pa.string()), ("source", pa.string())])

#: Columns of ``web/*.parquet``.
SCHEMA = pa.schema(
    [
        ("event_date", pa.string()),
        ("event_timestamp", pa.int64()),  # µs since 1970
        ("event_name", pa.string()),
        ("event_params", _PARAMS),
        ("event_bundle_sequence_id", pa.int64()),
        ("user_id", pa.string()),
        ("user_pseudo_id", pa.string()),
        ("user_first_touch_timestamp", pa.int64()),
        ("device", _DEVICE),
        ("geo", _GEO),
        ("traffic_source", _TRAFFIC),
        ("stream_id", pa.int64()),
        ("platform", pa.string()),
    ]
)

_KEYS = (
    "ga_session_id",
    "ga_session_number",
    "page_location",
    "page_title",
    "page_referrer",
    "page_text",
    "engagement_time_msec",
    "search_term",
    "source",
    "medium",
    "campaign",
    "percent_scrolled",
    "link_url",
    "content_id",
    "file_name",
    "form_id",
    "method",
)
_KEY = {key: i for i, key in enumerate(_KEYS)}

# category, system, language, browser, version; how frequent. The last three are bots.
_DEVICES = (
    ("mobile", "iOS", "en-us", "Safari", "19.2", 0.31),
    ("mobile", "Android", "en-us", "Chrome", "145.0", 0.20),
    ("mobile", "Android", "es-us", "Chrome", "144.0", 0.04),
    ("desktop", "Windows", "en-us", "Chrome", "145.0", 0.20),
    ("desktop", "Windows", "en-us", "Edge", "145.0", 0.09),
    ("desktop", "Macintosh", "en-us", "Safari", "19.2", 0.07),
    ("desktop", "Macintosh", "en-us", "Chrome", "145.0", 0.05),
    ("tablet", "iOS", "en-us", "Safari", "19.1", 0.04),
    ("desktop", "Linux", "en", "Googlebot", "2.1", 0.0),
    ("desktop", "Linux", "en-us", "HeadlessChrome", "140.0", 0.0),
    ("desktop", "Windows", "en-us", "Chrome", "139.0", 0.0),
)
_BOT_DEVICE = np.array([8, 9, 10, 10])  # by kind of bot
_PLACES = (
    ("Americas", "United States", "California", "San Francisco", 0.34),
    ("Americas", "United States", "California", "Oakland", 0.20),
    ("Americas", "United States", "Oregon", "Portland", 0.14),
    ("Americas", "United States", "Nevada", "Reno", 0.10),
    ("Americas", "United States", "Texas", "Austin", 0.08),
    ("Americas", "United States", "New York", "New York", 0.06),
    ("Americas", "Mexico", "Baja California", "Tijuana", 0.04),
    ("Americas", "Canada", "British Columbia", "Vancouver", 0.04),
)


def web_table(
    rng: np.random.Generator,
    site: Site,
    texts: Texts,
    leaks: Leaks,
    sessions: Sessions,
    views: Views,
    events: Events,
    damage: Damage,
    cookie_names: pa.Array,
    owners: pa.Array,
    sequence: int,
) -> pa.Table:
    """The export of one chunk.

    Args:
        cookie_names: ``user_pseudo_id`` by cookie.
        owners: account id by person.
        sequence: first ``event_bundle_sequence_id``.
    """
    view = events.view
    session = views.session[view]
    at = events.at
    first_seen = _first_seen(sessions)
    urls, titles, referrers, terms = view_texts(
        rng, texts, site, leaks, sessions, views, np.array([intent.theme for intent in INTENTS])
    )
    time_order = np.argsort(at, kind="stable")
    rows = time_order[damage.rows]

    params = _Params(len(rows), texts)
    _fill_params(params, texts, sessions, views, events, rows, (urls, titles, referrers, terms), damage)
    event_params = params.build()

    time = at[rows]
    time[damage.zero_time] = 0
    time[damage.far_time] += 400 * 365 * US_PER_DAY
    no_time = np.zeros(len(rows), dtype=bool)
    no_time[damage.no_time] = True
    cookie = sessions.cookie[session[rows]]
    no_cookie = np.zeros(len(rows), dtype=bool)
    no_cookie[damage.no_visitor] = True
    name = events.name[rows]
    person = np.where(name == EVENT["login"], sessions.person[session[rows]], -1)
    devices, places = _devices(rng, sessions), _places(sessions)
    columns = [
        _dates(at[rows]),
        pa.array(time, mask=no_time),
        _coded(name, pa.array(EVENT_NAMES)),
        event_params,
        pa.array((sequence + np.arange(len(at)))[rows]),
        _coded(person, owners),
        _coded(np.where(no_cookie, -1, cookie), cookie_names),
        pa.array(sessions.start[first_seen][session[rows]]),
        _device_column(devices[session[rows]]),
        _struct(places[session[rows]], _GEO, [p[:4] for p in _PLACES]),
        _traffic(texts, sessions, first_seen, session[rows]),
        pa.array(np.full(len(rows), 2_418_330_117)),
        _coded(np.zeros(len(rows), dtype=np.int64), pa.array(["WEB"])),
    ]
    return pa.table(columns, names=SCHEMA.names)


def _fill_params(
    params: _Params,
    texts: Texts,
    sessions: Sessions,
    views: Views,
    events: Events,
    rows: Ints,
    strings: tuple[Ints, Ints, Ints, Ints],
    damage: Damage,
) -> None:
    urls, titles, referrers, terms = strings
    view, name = events.view[rows], events.name[rows]
    session, page = views.session[view], views.page[view]
    url = urls[view]
    # Only this row is broken: other events of the page view keep its address.
    url[damage.bad_page] = texts.garbage + damage.bad_page % len(GARBAGE)
    landing = (views.index[view] == 0) & (name <= EVENT["page_view"])
    browser = landing & (sessions.bot[session] < 0)  # bots come from nowhere
    viewed = name == EVENT["page_view"]
    channel, campaign = sessions.channel[session], sessions.campaign[session]
    params.number("ga_session_id", sessions.start[session] // 1_000_000)
    params.number("ga_session_number", _session_number(sessions)[session])
    params.text("page_location", url)
    params.text("page_title", titles[view])
    params.text("page_referrer", referrers[view], referrers[view] >= 0)
    params.text("page_text", texts.bodies + page, viewed)
    since = _since_previous(views, events)[rows]
    params.number("engagement_time_msec", (since * 0.8).astype(np.int64) // 1000, since > 0)
    params.text("search_term", terms[view], (name == EVENT["view_search_results"]) & (terms[view] >= 0))
    params.text("source", texts.sources + channel, browser)
    params.text("medium", texts.mediums + channel, browser)
    named = np.where(campaign >= 0, texts.campaigns + campaign, texts.no_campaigns + channel)
    params.text("campaign", named, browser)
    params.number("percent_scrolled", np.full(len(rows), 90), name == EVENT["scroll"])
    params.text("link_url", texts.calls + page, name == EVENT["click"])
    params.text("content_id", texts.forms + page, name == EVENT["select_content"])
    params.text("file_name", texts.files + page, name == EVENT["file_download"])
    form = (name == EVENT["form_start"]) | (name == EVENT["form_submit"])
    params.text("form_id", texts.forms + page, form)
    params.text("method", np.full(len(rows), texts.method), name == EVENT["login"])


class _Params:
    """Collects parameters column by column, and lays them out as one list per event."""

    def __init__(self, n: int, texts: Texts) -> None:
        self._n, self._texts = n, texts
        self._there = np.zeros((n, len(_KEYS)), dtype=bool)
        self._columns: list[tuple[int, bool, Ints]] = []

    def text(self, key: str, codes: Ints, where: npt.NDArray[np.bool_] | None = None) -> None:
        self._add(key, False, codes, where)

    def number(self, key: str, values: Ints, where: npt.NDArray[np.bool_] | None = None) -> None:
        self._add(key, True, values, where)

    def _add(self, key: str, number: bool, values: Ints, where: npt.NDArray[np.bool_] | None) -> None:
        column = _KEY[key]
        self._there[:, column] = True if where is None else where
        self._columns.append((column, number, values if where is None else values[where]))

    def build(self) -> pa.Array:
        lengths = self._there.sum(1)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        total = int(offsets[-1])
        key = (np.flatnonzero(self._there.ravel()) % len(_KEYS)).astype(np.int8)
        codes = np.zeros(total, dtype=np.int32)
        numbers = np.zeros(total, dtype=np.int64)
        is_number = np.isin(key, [c for c, number, _ in self._columns if number])
        before = np.zeros(self._n, dtype=np.int64)  # parameters of the event in columns before this one
        for column in range(len(_KEYS)):
            there = self._there[:, column]
            at = offsets[:-1][there] + before[there]
            for c, number, values in self._columns:
                if c == column:
                    (numbers if number else codes)[at] = values
            before += there
        absent = pa.nulls(total, pa.float64())
        value = pa.StructArray.from_arrays(
            [
                pa.DictionaryArray.from_arrays(pa.array(codes, mask=is_number), self._texts.pool.values()),
                pa.array(numbers, mask=~is_number),
                absent,
                absent,
            ],
            names=[f.name for f in _VALUE],
        )
        keys = pa.DictionaryArray.from_arrays(pa.array(key), pa.array(_KEYS))
        entries = pa.StructArray.from_arrays([keys, value], names=["key", "value"])
        return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), entries)


def _first_seen(sessions: Sessions) -> Ints:
    """For each session, the first session of its cookie."""
    order = np.lexsort((sessions.start, sessions.cookie))
    _, first, inverse = np.unique(sessions.cookie[order], return_index=True, return_inverse=True)
    found = np.empty(len(order), dtype=np.int64)
    found[order] = order[first][inverse]
    return found


def _session_number(sessions: Sessions) -> Ints:
    """1 for the first session of a cookie, 2 for the second …"""
    order = np.lexsort((sessions.start, sessions.cookie))
    _, first, inverse = np.unique(sessions.cookie[order], return_index=True, return_inverse=True)
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.arange(len(order)) - first[inverse] + 1
    return number


def _since_previous(views: Views, events: Events) -> Ints:
    """µs since the session's previous event; 0 for its first."""
    session = views.session[events.view]
    since = np.diff(events.at, prepend=events.at[:1])
    since[np.diff(session, prepend=-1) != 0] = 0
    return np.maximum(since, 0)


def _coded(codes: Ints, values: pa.Array) -> pa.Array:
    """A dictionary array; negative codes are null."""
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32), mask=codes < 0), values)


def _dates(at: Ints) -> pa.Array:
    days, code = np.unique(at // US_PER_DAY, return_inverse=True)
    texts = [datetime.fromtimestamp(int(d) * 86_400, UTC).strftime("%Y%m%d") for d in days]
    return _coded(code, pa.array(texts, pa.string()))


def _devices(rng: np.random.Generator, sessions: Sessions) -> Ints:
    share = np.array([d[5] for d in _DEVICES])
    k = int(sessions.device.max(initial=0)) + 1
    of_device = rng.choice(len(_DEVICES), k, p=share / share.sum())
    return np.where(sessions.bot >= 0, _BOT_DEVICE[sessions.bot], of_device[sessions.device])


def _places(sessions: Sessions) -> Ints:
    """Where people live; bots run anywhere."""
    share = np.cumsum([p[4] for p in _PLACES])
    who = np.where(sessions.person >= 0, sessions.person, sessions.cookie)
    u = (who * 0.618_033_988_75) % 1.0  # an even spread without a table
    return np.minimum(np.searchsorted(share, u), len(_PLACES) - 1)


def _struct(code: Ints, kind: pa.StructType, rows: list[tuple[str, ...]]) -> pa.Array:
    columns = [_coded(code, pa.array(column)) for column in zip(*rows, strict=True)]
    return pa.StructArray.from_arrays(columns, names=[f.name for f in kind])


def _device_column(code: Ints) -> pa.Array:
    category, system, language, browser, version = (
        _coded(code, pa.array([d[i] for d in _DEVICES])) for i in range(5)
    )
    web = pa.StructArray.from_arrays([browser, version], names=["browser", "browser_version"])
    return pa.StructArray.from_arrays([category, system, language, web], names=[f.name for f in _DEVICE])


def _traffic(texts: Texts, sessions: Sessions, first_seen: Ints, session: Ints) -> pa.Array:
    """Where the visitor first came from, which is what GA4 calls traffic_source."""
    channel, campaign = sessions.channel[first_seen][session], sessions.campaign[first_seen][session]
    pool = texts.pool.values()
    name = np.where(campaign >= 0, texts.campaigns + campaign, texts.no_campaigns + channel)
    few = pool.slice(texts.sources, texts.terms - texts.sources)
    codes = [name, texts.mediums + channel, texts.sources + channel]
    return pa.StructArray.from_arrays(
        [_coded(c - texts.sources, few) for c in codes], names=[f.name for f in _TRAFFIC]
    )


def cookie_names(rng: np.random.Generator, sessions: Sessions) -> pa.Array:
    """GA4 client ids by cookie: a random number and the second of the first visit."""
    k = int(sessions.cookie.max(initial=-1)) + 1
    first = np.full(k, np.iinfo(np.int64).max)
    np.minimum.at(first, sessions.cookie, sessions.start)
    number = pa.array(rng.integers(10**8, 2**31, k))
    second = pa.array(first // 1_000_000)
    return pc.binary_join_element_wise(number.cast(pa.string()), second.cast(pa.string()), ".")


def session_ends(sessions: Sessions, views: Views, events: Events) -> Ints:
    """Time of every session's last event, in µs."""
    session = views.session[events.view]
    last = np.diff(session, append=-1) != 0
    ends = sessions.start.copy()
    ends[session[last]] = events.at[last]
    return ends
