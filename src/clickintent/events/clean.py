"""Staged rows → coded events: every row checked, every field made private and coded, or refused.

Works on Arrow batches and on the distinct values in them: each distinct URL, title or search term is cleaned
once, in Python, and remembered. The same function runs in this process and inside Spark's workers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clickintent.config import PrivacyConfig, SourceConfig
from clickintent.events import agents, paths, privacy, templates
from clickintent.events.coding import Keys
from clickintent.events.readers.base import STAGED

EARLIEST = 788_918_400_000_000  # 1995-01-01 in µs: before the first web analytics

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
#: What Google Analytics writes as the campaign of a visit that no campaign brought.
_NO_CAMPAIGN = ("(direct)", "(organic)", "(referral)")

#: Reasons for quarantine, in the order in which they are asked; before them whatever the source says.
NO_CONSENT = "no consent"
NO_VISITOR = "missing visitor"
FORGOTTEN = "of a person who was forgotten"
NO_TS = "missing timestamp"
BAD_TS = "unparseable timestamp"
EARLY_TS = "timestamp before 1995"
LATE_TS = "timestamp in the future"
NO_TYPE = "missing event type"
NO_PAGE = "missing page and url"
BAD_URL = "url not parseable"

_CHECKED = (
    *("event_id", "visitor_id", "account_id", "session_key", "event_type", "url", "page"),
    *("consent", "excluded"),
)
_RAW = tuple(
    name for name in STAGED if name not in ("position", "ts_given", "event_id", "excluded", "assets")
)
_REMEMBERED = 400_000  # cleaned values of one column; then it starts anew

#: One event as it is carried and kept: codes (see ``coding``) instead of strings.
CODED = pa.schema(
    [
        pa.field("visitor", pa.int64(), nullable=False),
        pa.field("event", pa.int64(), nullable=False),  # unique within its visitor
        pa.field("ts", pa.int64(), nullable=False),
        pa.field("file", pa.int64(), nullable=False),  # number of the file that it came from
        pa.field("position", pa.int64(), nullable=False),  # row in that file
        pa.field("source", pa.int64(), nullable=False),
        pa.field("channel", pa.int64(), nullable=False),
        pa.field("event_type", pa.int64(), nullable=False),
        pa.field("page", pa.int64(), nullable=False),
        pa.field("title", pa.int64()),
        pa.field("text", pa.int64()),
        pa.field("referrer", pa.int64()),
        pa.field("campaign", pa.int64()),
        pa.field("device", pa.int64()),
        pa.field("country", pa.int64()),
        pa.field("account", pa.int64()),
        pa.field("session_key", pa.int64()),
        pa.field("value", pa.float64()),
        pa.field("declared", pa.bool_(), nullable=False),  # its user agent says that it is a robot
        pa.field("assets", pa.int64()),  # requests for assets by the visitor in the file, where known
    ]
)


@ibis.udf.scalar.builtin  # type: ignore[untyped-decorator]
def md5_number_lower(text: str) -> dt.uint64:
    """Half of an MD5 digest as a number."""


def prepare(rows: ir.Table, keys: Keys, config: PrivacyConfig) -> ir.Table:
    """Staged rows with ``event``, their keyed identity, and URLs short of what is dropped anyway.

    Two rows are the same event if their source's event id is the same, or without one, all that was read of
    them, before redaction makes different things look the same. Words that say nothing become null where they
    would hide that who, what or where is missing; those in titles and texts go when these are cleaned.
    """
    table = rows.mutate(**{name: _something(rows[name]) for name in _CHECKED})
    parts = [table[name].cast("string").coalesce("\x02") for name in _RAW]
    content = ibis.literal("\x1f").join([ibis.literal(keys.events), *parts])
    own = ibis.literal(keys.events) + "\x1e" + table["visitor_id"] + "\x1e" + table["event_id"]
    short = _short(table["url"], config)
    return table.mutate(
        event=md5_number_lower(ibis.ifelse(table["event_id"].notnull(), own.coalesce(""), content)),
        query_dropped=(short != table["url"]).coalesce(False),
        url=short,
    ).drop("event_id")


def _something(value: ir.StringValue) -> ir.StringValue:
    """Text without white space around it, null if it says nothing."""
    value = value.strip()
    # the length first: it is cheap, and most values are longer
    nothing = (value.length() <= _LONGEST) & value.lower().isin(NOTHING)
    return ibis.ifelse(nothing, ibis.null("string"), value)


def _short(url: ir.StringValue, config: PrivacyConfig) -> ir.StringValue:
    """The URL with the parameters that may be read, and without the rest: far fewer distinct values.

    Where that takes more than regular expressions (a route behind ``#``, an encoded path, a parameter twice),
    the URL stays whole, for ``paths`` to read.
    """
    bare = url.re_replace(r"[?#].*$", "")
    whole = url.re_search(r"#!?/") | bare.contains("%")
    names = dict.fromkeys(re.escape(name) for name in (*config.allow_query, *config.search_query))
    short = bare
    for name in names:
        found = url.re_extract(rf"(?i)[?&;]({name}=[^&;#]*)", 1)
        short = short + ibis.ifelse(found == "", "", ibis.ifelse(short == bare, "?", "&") + found)
        whole = whole | url.re_search(rf"(?i)[?&;]{name}=.*[?&;]{name}=")
    searched = [url.re_search(rf"(?i)[?&;]{re.escape(name)}=").cast("int8") for name in config.search_query]
    if len(searched) > 1:
        whole = whole | (sum(searched[1:], searched[0]) > 1)
    asked = url.re_search(rf"(?i)[?&;]({'|'.join(names)})=") if names else ibis.literal(False)
    return ibis.cases((whole, url), (asked, short), else_=bare)


@dataclass(frozen=True)
class Cleaned:
    """What became of one batch."""

    events: pa.Table  # CODED
    positions: npt.NDArray[np.int64]  # of the rows refused
    reasons: list[str]  # why, for each of them


#: A cleaned value: one or two strings (page and search term), and the names of what was removed from it.
Clean = tuple[tuple[str | None, ...], tuple[str, ...]]
_Clean = Callable[[str], Clean]


@dataclass
class Cleaner:
    """Cleans batches; remembers what it has seen.

    Attributes:
        values: field → code → text of every value it gave out: the only way back from a code.
        removed: (column, detector) → occurrences.
    """

    keys: Keys
    config: PrivacyConfig
    forgotten: Collection[int] = ()  # codes of visitors and accounts
    values: dict[str, dict[int, str]] = field(default_factory=dict)
    removed: Counter[tuple[str, str]] = field(default_factory=Counter)
    _memory: dict[str, dict[str, tuple[tuple[int | None, ...], tuple[str, ...]]]] = field(
        default_factory=dict
    )

    def clean(self, batch: pa.RecordBatch, source: SourceConfig, file: int, latest: int) -> Cleaned:
        """Check, redact and code the rows of one batch of ``prepare``.

        Args:
            file: number of the file.
            latest: a ``ts`` after it is in the future.
        """
        n = batch.num_rows
        column = {name: batch.column(i) for i, name in enumerate(batch.schema.names)}
        no_page = column["page"].is_null().to_numpy(zero_copy_only=False)
        no_url = column["url"].is_null().to_numpy(zero_copy_only=False)
        from_url, term = self._coded(
            column["url"], "url", partial(url_of, config=self.config), ("page", "text")
        )
        (from_page,) = self._coded(column["page"], "page", partial(page_of, config=self.config), ("page",))
        (text,) = self._coded(column["text"], "text", text_of, ("text",))
        page = _first(from_page, from_url)
        coded = {
            "page": page,
            "text": _first(text, term),
            "visitor": self._identifier(column["visitor_id"], "visitor"),
            "account": self._identifier(column["account_id"], "account"),
            "session_key": self._identifier(column["session_key"], "session_key"),
        }
        for name, clean in _PLAIN.items():
            (coded[name],) = self._coded(column[name], name, clean, (name,))
        self.removed["url", "query"] += int(_bools(column["query_dropped"]).sum())

        ts = column["ts"].fill_null(0).to_numpy(zero_copy_only=False)
        has_ts = column["ts"].is_valid().to_numpy(zero_copy_only=False)
        checks: list[tuple[npt.NDArray[np.bool_], str]] = [
            (~self._agreed(column["consent"]), NO_CONSENT),
            (~coded["visitor"][1], NO_VISITOR),
            (self._is_forgotten(coded["visitor"]) | self._is_forgotten(coded["account"]), FORGOTTEN),
            (~_bools(column["ts_given"]), NO_TS),
            (~has_ts, BAD_TS),
            (ts < EARLIEST, EARLY_TS),
            (ts > latest, LATE_TS),
            (~coded["event_type"][1], NO_TYPE),
            (no_url & no_page, NO_PAGE),
            (~page[1], BAD_URL),
        ]
        why = np.zeros(n, np.int64)
        for number, (wrong, _) in reversed(list(enumerate(checks, 1))):
            why[wrong] = number
        excluded = column["excluded"].is_valid().to_numpy(zero_copy_only=False)
        why[excluded] = -1
        bad = np.flatnonzero(why)
        position = column["position"].to_numpy(zero_copy_only=False)
        said = column["excluded"].take(pa.array(bad)).to_pylist()
        reasons = [s if w < 0 else checks[w - 1][1] for s, w in zip(said, why[bad], strict=True)]

        good = why == 0
        constant = {"source": source.label, "channel": source.channel}
        made: dict[str, pa.Array] = {
            "event": pa.array(column["event"].to_numpy(zero_copy_only=False).view(np.int64)),
            "ts": pa.array(ts),
            "file": pa.array(np.full(n, file)),
            "position": column["position"],
            "value": column["value"],
            "declared": pa.array(self._declared(column["user_agent"], source)),
            "assets": column["assets"],
            **{name: pa.array(np.full(n, self._code(name, text))) for name, text in constant.items()},
            **{name: pa.array(codes, mask=~valid) for name, (codes, valid) in coded.items()},
        }
        events = pa.table([made[f.name] for f in CODED], schema=CODED)
        return Cleaned(events if good.all() else events.filter(pa.array(good)), position[bad], reasons)

    def _code(self, name: str, text: str) -> int:
        """The code of a value that may be given out; remembers what it means."""
        known = self.values.setdefault(name, {})
        code = self.keys.value(text)
        known[code] = text
        return code

    def _coded(self, column: pa.Array, name: str, clean: _Clean, fields: tuple[str, ...]) -> list[_Codes]:
        """Clean the distinct values of a column; (n,) codes and whether there is any, for each field."""
        dictionary, indices = _dictionary(column)
        memory = self._memory.setdefault(name, {})
        codes = np.zeros((len(fields), len(dictionary) + 1), np.int64)
        valid = np.zeros((len(fields), len(dictionary) + 1), bool)
        marked = []
        for i, raw in enumerate(dictionary):
            found = memory.get(raw)
            if found is None:
                texts, removed = clean(raw)
                found = (
                    tuple(
                        None if t is None else self._code(f, t) for f, t in zip(fields, texts, strict=True)
                    ),
                    removed,
                )
                if len(memory) >= _REMEMBERED:
                    memory.clear()
                memory[raw] = found
            for k, code in enumerate(found[0]):
                if code is not None:
                    codes[k, i], valid[k, i] = code, True
            if found[1]:
                marked.append((i, found[1]))
        if marked:
            counts = np.bincount(indices, minlength=len(dictionary) + 1)
            for i, removed in marked:
                for detector in removed:
                    self.removed[name, detector] += int(counts[i])
        return [(codes[k][indices], valid[k][indices]) for k in range(len(fields))]

    def _identifier(self, column: pa.Array, name: str) -> _Codes:
        dictionary, indices = _dictionary(column)
        codes = np.array([*map(self.keys.identifier, dictionary), 0], np.int64)
        if self.config.ids == "plain":
            self.values.setdefault(name, {}).update(zip(codes[:-1].tolist(), dictionary, strict=True))
        return codes[indices], indices < len(dictionary)

    def _agreed(self, column: pa.Array) -> npt.NDArray[np.bool_]:
        dictionary, indices = _dictionary(column)
        yes = {value.strip().lower() for value in self.config.consent}
        said = [value.strip().lower() in yes for value in dictionary]
        return np.array([*said, not self.config.require_consent], bool)[indices]

    def _declared(self, column: pa.Array, source: SourceConfig) -> npt.NDArray[np.bool_]:
        if source.channel == "app":  # apps name the libraries that robots use, too
            return np.zeros(len(column), bool)
        dictionary, indices = _dictionary(column)
        return np.array([*map(agents.declared_bot, dictionary), False], bool)[indices]

    def _is_forgotten(self, codes: _Codes) -> npt.NDArray[np.bool_]:
        if not self.forgotten:
            return np.zeros(len(codes[0]), bool)
        return np.isin(codes[0], np.fromiter(self.forgotten, np.int64, len(self.forgotten))) & codes[1]


_Codes = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]


def _dictionary(column: pa.Array) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Distinct values, and the index of each row's; null is one past the last."""
    encoded = column.dictionary_encode()
    dictionary = encoded.dictionary.to_pylist()
    indices = encoded.indices.fill_null(len(dictionary)).to_numpy(zero_copy_only=False)
    return dictionary, indices.astype(np.int64)


def _first(one: _Codes, other: _Codes) -> _Codes:
    return np.where(one[1], one[0], other[0]), one[1] | other[1]


def _bools(column: pa.Array) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = column.fill_null(False).to_numpy(zero_copy_only=False)
    return found


def url_of(raw: str, config: PrivacyConfig) -> Clean:
    """Page template and search term of a URL, and what was removed; no page if it is not the URL of one."""
    found = paths.templated(raw, config.allow_query, config.search_query)
    if found is None:
        return (None, None), ()
    page = templates.matching(found.page, config.templates) or found.page
    return (page, found.term), found.removed


def page_of(raw: str, config: PrivacyConfig) -> Clean:
    """A page given as such: a path or URL becomes a template, the name of a screen is redacted."""
    if raw.startswith(("/", "#/", "#!/")) or "://" in raw:
        (page, _), removed = url_of(raw, config)
        return (page,), removed
    clean, removed = privacy.redacted(raw)
    return (clean,), removed


def text_of(raw: str) -> Clean:
    """A title or text, redacted; None if it says nothing."""
    if raw.strip().lower() in NOTHING:
        return (None,), ()
    clean, removed = privacy.redacted(raw)
    return (clean,), removed


def _campaign(raw: str) -> Clean:
    return ((None,), ()) if raw.strip().lower() in _NO_CAMPAIGN else text_of(raw)


def _host(raw: str) -> Clean:
    return (paths.host(raw),), ()


def event_type_of(raw: str) -> Clean:
    """``Add to Cart`` → ``add_to_cart``."""
    clean, removed = privacy.redacted(raw)
    return (re.sub(r"[^\w]+", "_", (clean or "").lower()).strip("_") or None,), removed


_PLAIN: dict[str, _Clean] = {
    "event_type": event_type_of,
    "referrer": _host,
    "title": text_of,
    "campaign": _campaign,
    "device": text_of,
    "country": text_of,
}
