"""URL → page template: what page it is, without whose.

An allow-list in spirit: a segment stays only if it reads like words (``step_1``, ``401k``, ``529-plan``,
``men's+shirts``); all else, numbers, identifiers, e-mail addresses, becomes ``{id}``. Host, fragment and
query go, save the query parameters that are allowed by name and single-page routes (``#/path``). What went
is counted by kind.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from clickintent.events import privacy
from clickintent.events.detectors import hidden, is_jumbled, is_random
from clickintent.events.encoded import INNER_CAPITALS, unquoted

ID = "{id}"

_ESCAPE = re.compile(r"%[0-9a-fA-F]{2}")
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):")
_HOST = re.compile(r"(?:[^\s/?#]*@)?([^\s/?#@:\[\]]+|\[[0-9a-fA-F:.]+\])(?::\d*)?(?=[/?#]|$)")
_HOST_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)+[a-z][a-z0-9-]*[a-z0-9]")
_LOCAL_NAME = re.compile(r"[\w-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u200b-\u200f\u2028-\u202e\u2060\ufeff\u00ad]")
_INDEX = re.compile(r"(?:index|default)\.(?:html?|php\d?|aspx?|jsp|cfm)")
_EXTENSION = re.compile(
    r"\.(?:s?html?|xhtml|php\d?|aspx?|jspx?|jsf|cfm|cgi|do|action|pdf|docx?|xlsx?|xml|json|js|css|txt|csv|rss"
    r"|png|jpe?g|gif|svg|webp|ico|mp4|woff2?)$"
)
_SPLIT = re.compile(r"[-_+.,~!&'’()|*]+")
_SEGMENT = re.compile(r"[\w\-+.,~!&'’()|*]+")
_PLAIN = re.compile(r"[a-z]{1,15}(?:[-_+][a-z]{1,15})*(?:\.html?)?")
#: A word with a small number: 401k, 30yr, 5th, step1, v2, q4.
_WORD_WITH_NUMBER = re.compile(r"\d{1,3}[a-z]{1,2}|\d{1,2}[a-z]{3,12}|[a-z]{1,20}\d{1,2}")
#: Years and the numbers of tax forms are words of this trade.
_KNOWN_NUMBER = re.compile(r"19\d\d|20\d\d|10(?:40|65|9[5-9])|5498|1120|8606|8949")
#: What stands before a number that says whose.
_OWNER = frozenset(
    (
        "id",
        "uid",
        "user",
        "userid",
        "usr",
        "member",
        "client",
        "customer",
        "cust",
        "account",
        "acct",
        "acc",
        "order",
        "case",
        "ticket",
        "ref",
        "reference",
        "invoice",
        "txn",
        "transaction",
        "session",
        "sid",
        "token",
        "ssn",
        "phone",
        "tel",
        "mobile",
        "zip",
        "pin",
        "otp",
        "code",
        "card",
        "policy",
        "claim",
        "loan",
        "application",
        "app",
        "lead",
        "contact",
        "person",
        "profile",
        "number",
        "no",
        "nr",
        "num",
    )
)
_YEARS_AT_MOST = 8  # digits of years and forms in one segment: more is a number in groups
_PLUS_ADDRESS = re.compile(r"\+[^@]*@")
_CAPITALS = re.compile(rf"(?i){INNER_CAPITALS}")


@dataclass(frozen=True)
class Template:
    """What page a URL is, and what was taken out to say it.

    Attributes:
        page: the template, with ``?name=value`` for allowed parameters.
        term: what the visitor searched for, redacted.
        removed: one name per thing removed. ``path_id``: a segment became ``{id}``; ``query_id``: an allowed
            value did; ``path_parameter``: what followed a semicolon in a segment; ``query_parameter``,
            ``fragment``, ``userinfo`` (before an ``@`` in the host) were dropped. Names of detectors
            (``detectors.NAMES``) tell in addition what was seen in what became ``{id}``, and behind
            ``search_`` what was removed from the term.
    """

    page: str
    term: str | None
    removed: tuple[str, ...]


def host(url: str | None) -> str | None:
    """The host of a URL, lower-case, without port, user or ``www.``; None for an IP address or no host.

    Labels below the domain that look like identifiers are dropped. None, too, for a domain that holds
    personal data, and for what may be an e-mail address written as a link.
    """
    if not url:
        return None
    text = _CONTROL.sub("", unquoted(url)).strip()
    scheme = _SCHEME.match(text)
    if scheme and text.startswith("://", scheme.end(1)):
        text = text[scheme.end(1) + 3 :]
    elif text.startswith("//"):
        text = text[2:]
    elif (
        "@" in text
        or text.startswith("/")
        or (scheme and not text[scheme.end() : scheme.end() + 1].isdigit())
    ):
        return None
    match = _HOST.match(text)
    if not match:
        return None
    name = match[1].rstrip(".")
    user, at, _ = match[0].rpartition("@")
    if at and ":" not in user:
        return None
    if not _HOST_NAME.fullmatch(name.lower()):
        return None  # an IP address, localhost, or no host at all
    labels = name.split(".")
    if labels[0].lower() == "www":
        labels.pop(0)
    if any(privacy.redacted(_international(label))[1] for label in labels[-2:]):
        return None
    kept = [label for label in labels[:-2] if segment(label) != ID]
    return ".".join(kept + labels[-2:]).lower()


def segment(raw: str) -> str:
    """One path segment or query value: itself in lower case if it reads like words, or ``{id}``."""
    return _segment(raw)[0]


def _international(label: str) -> str:
    """What an ``xn--`` label of a host stands for."""
    try:
        return label.encode().decode("idna")
    except UnicodeError:
        return label


@lru_cache(maxsize=200_000)
def _segment(raw: str) -> tuple[str, tuple[str, ...]]:
    """The segment, and the detectors that fired on what became ``{id}``."""
    text = raw.lower()
    if _PLAIN.fullmatch(text) and not _CAPITALS.search(raw) and not is_random(text):
        return text, ()
    if text == ID:
        return ID, ()
    text = _words(raw)
    if text != ID:
        return text, ()
    return ID, privacy.redacted(raw)[1]


def _words(raw: str) -> str:
    text = unquoted(raw)
    if _ESCAPE.search(text) or "\ufffd" in text:
        return ID
    text = unicodedata.normalize("NFKC", _CONTROL.sub("", text)).strip().split(";", 1)[0]  # ;jsessionid=…
    if is_jumbled(text) or hidden(text):
        return ID
    text = re.sub(r"\s+", "+", text.lower())
    if not text:
        return "" if not raw.strip() else ID
    if not _SEGMENT.fullmatch(text):
        return ID
    if text.startswith("~"):
        return ID  # somebody's own pages
    if _EXTENSION.search(text):
        stem = _EXTENSION.sub("", text)
    elif "." in text.strip(".") and re.search(r"[^\W\d]\.[^\W\d]", text):
        return ID  # first.last, or a host
    else:
        stem = text
    return text if _reads_like_words(stem) else ID


def _reads_like_words(text: str) -> bool:
    tokens = [token for token in _SPLIT.split(text) if token]
    if not tokens or len(text) > 100:
        return False
    counted = known = 0
    worded = False
    before = ""
    for token in tokens:
        if not token.isascii() and any(c.isdigit() and not c.isascii() for c in token):
            return False
        digits = sum(c.isdigit() for c in token)
        if digits == 0:
            if len(token) > 24 or is_random(token):
                return False
            worded = worded or len(token) > 1
        elif digits == len(token):
            if before in _OWNER:
                return False
            if _KNOWN_NUMBER.fullmatch(token):
                known += digits
            elif digits > 3:
                return False
            else:
                counted += digits
        else:
            if (
                not _WORD_WITH_NUMBER.fullmatch(token)
                or before in _OWNER
                or token.rstrip("0123456789") in _OWNER
            ):
                return False
            worded = True
            counted += digits
        before = token
    return (worded and counted <= 4 and known <= _YEARS_AT_MOST) or (len(tokens) == 1 and tokens[0].isalpha())


def _path(raw: str, removed: list[str]) -> str:
    spans = hidden(raw) if "/" in raw and _CAPITALS.search(raw) else []
    kept = []
    at = 0
    for part in raw.split("/"):
        text, names = _segment(part) if part else ("", ())
        if text and text != ID and any(s.start < at + len(part) and s.end > at for s in spans):
            text = ID  # base64 with a slash in it
            names = next(s.names for s in spans if s.start < at + len(part) and s.end > at)
        if text == ID and part.lower() != ID:
            removed += "path_id", *names
        elif ";" in part:
            removed.append("path_parameter")
        if text:
            kept.append(text)
        at += len(part) + 1
    if kept and _INDEX.fullmatch(kept[-1]):
        kept.pop()
    return "/" + "/".join(kept)


def _means_plus(value: str) -> bool:
    """Base64 and addresses have plus signs that are no spaces, and must stay whole until they are seen."""
    return bool(_PLUS_ADDRESS.search(value) or hidden(value))


def _pairs(query: str) -> list[tuple[str, str]]:
    """Names in lower case and values, of which all but the plus signs of spaces is still encoded."""
    pairs = []
    for part in re.split(r"[&;]", query):
        name, _, value = part.partition("=")
        if part:
            if "+" in value and not _means_plus(unquoted(value)):
                value = value.replace("+", " ")
            pairs.append((unquoted(name).strip().lower(), value))
    return pairs


def templated(
    url: str, allow_query: Collection[str] = (), search_query: Collection[str] = ()
) -> Template | None:
    """Page template and search term of a URL, or None if it is not the URL of a page.

    Args:
        url: absolute (http, https), host-relative (``//host/path``), or a path (``/path``).
        allow_query: parameters that stay, as ``?name=value`` sorted by name, values treated like segments.
        search_query: parameters that hold a search term.
    """
    found = _template(url, allow_query, search_query)
    if found is None:
        return None
    page, term, removed = found
    if term:
        term, names = privacy.redacted(term)
        removed += (f"search_{name}" for name in names)
    return Template(page, term or None, tuple(removed))


def template(
    url: str, allow_query: Collection[str] = (), search_query: Collection[str] = ()
) -> tuple[str, str | None] | None:
    """Page and term as ``templated`` gives them, but the term is returned as it is: redact it."""
    found = _template(url, allow_query, search_query)
    return found[:2] if found else None


def _template(
    url: str, allow_query: Collection[str], search_query: Collection[str]
) -> tuple[str, str | None, list[str]] | None:
    text = _CONTROL.sub("", url).strip()
    scheme = _SCHEME.match(text)
    if scheme and text.startswith("://", scheme.end(1)):
        if scheme[1].lower() not in ("http", "https"):
            return None
        rest = text[scheme.end(1) + 3 :]
    elif text.startswith("//"):
        rest = text[2:]
    elif text.startswith(("/", "?", "#/", "#!/")):
        rest = ""
    else:
        rest = text
        name = re.split(r"[/?#:]", rest, maxsplit=1)[0].lower()
        if not _HOST_NAME.fullmatch(name):  # without a scheme only what is plainly a host
            return None
    removed: list[str] = []
    if rest or not text.startswith(("/", "?", "#")) or text.startswith("//"):
        match = _HOST.match(rest)
        if not match or not (match[1].startswith("[") or _valid_host(match[1])):
            return None
        if "@" in match[0]:
            removed.append("userinfo")
        text = rest[match.end() :]
    text, _, fragment = text.partition("#")
    route, _, query = text.partition("?")
    if fragment.startswith(("/", "!/")):  # a single-page application's own path
        fragment, _, more = fragment.lstrip("!").partition("?")
        route, query = f"{route.rstrip('/')}/{fragment}", f"{query}&{more}"
    elif fragment:
        removed.append("fragment")
    page = _path(route, removed)
    if not query:
        return page, None, removed
    searched = {name.lower() for name in search_query}
    allowed = {name.lower() for name in allow_query}
    term = None
    kept = set()
    for name, value in _pairs(query):
        if name in searched and value and term is None:
            term = unquoted(value)
        if name in allowed and value:
            text, names = _segment(value)
            kept.add(f"{name}={text}")
            if text == ID != value.lower():
                removed += "query_id", *names
        elif name not in searched:
            removed.append("query_parameter")
    page += "?" + "&".join(sorted(kept)) if kept else ""
    return page, term, removed


def _valid_host(name: str) -> bool:
    name = unquoted(name).lower().rstrip(".")
    return bool(
        _HOST_NAME.fullmatch(name)
        or _LOCAL_NAME.fullmatch(name)
        or re.fullmatch(r"\d{1,3}(?:\.\d{1,3}){3}", name)
        or (not name.isascii() and "." in name)
    )
