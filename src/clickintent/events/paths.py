"""URL → page template: what page it is, without whose.

An allow-list in spirit: a segment stays only if it reads like words (``step_1``, ``401k``, ``529-plan``,
``men's+shirts``); all else, numbers, identifiers, e-mail addresses, becomes ``{id}``. Host, fragment and
query go, save the query parameters that are allowed by name and single-page routes (``#/path``).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from functools import lru_cache
from urllib.parse import unquote

ID = "{id}"

_DECODE_ROUNDS = 5
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
_HEX_WORD = re.compile(r"[a-f]{8,}")
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
_VOWEL = re.compile(r"[aeiouy]")


def decode(text: str) -> str:
    """Percent-decode until nothing changes (at most five times), without plus signs becoming spaces."""
    for _ in range(_DECODE_ROUNDS):
        if "%" not in text or not _ESCAPE.search(text):
            return text
        text = unquote(text, errors="replace")
    return text


def host(url: str | None) -> str | None:
    """The host of a URL, lower-case, without port, user or ``www.``; None for an IP address or no host.

    Labels below the domain that look like identifiers are dropped.
    """
    if not url:
        return None
    text = _CONTROL.sub("", decode(url)).strip()
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
    name = match[1].lower().rstrip(".").removeprefix("www.")
    if not _HOST_NAME.fullmatch(name):
        return None  # an IP address, localhost, or no host at all
    labels = name.split(".")
    kept = [label for label in labels[:-2] if segment(label) != ID]
    return ".".join(kept + labels[-2:])


@lru_cache(maxsize=200_000)
def segment(raw: str) -> str:
    """One path segment or query value: itself in lower case if it reads like words, or ``{id}``."""
    text = raw.lower()
    if _PLAIN.fullmatch(text) and not _is_random(text):
        return text
    if text == ID:
        return ID
    text = decode(raw)
    if _ESCAPE.search(text) or "\ufffd" in text:
        return ID
    text = unicodedata.normalize("NFKC", _CONTROL.sub("", text)).strip().lower()
    text = re.sub(r"\s+", "+", text.split(";", 1)[0])  # ;jsessionid=…
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
    counted = 0
    worded = False
    before = ""
    for token in tokens:
        if not token.isascii() and any(c.isdigit() and not c.isascii() for c in token):
            return False
        digits = sum(c.isdigit() for c in token)
        if digits == 0:
            if len(token) > 24 or _is_random(token):
                return False
            worded = worded or len(token) > 1
        elif digits == len(token):
            if before in _OWNER:
                return False
            if not _KNOWN_NUMBER.fullmatch(token):
                if digits > 3:
                    return False
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
    return (worded and counted <= 4) or (len(tokens) == 1 and tokens[0].isalpha())


def _is_random(text: str) -> bool:
    """Letters that are no word: hexadecimal, or hardly a vowel among many."""
    for token in _SPLIT.split(text):
        if len(token) < 8 or not token.isascii():
            continue
        if _HEX_WORD.fullmatch(token) or len(_VOWEL.findall(token)) < 0.15 * len(token):
            return True
    return False


def _path(raw: str) -> str:
    parts = [segment(part) for part in raw.split("/") if part]
    parts = [part for part in parts if part]
    if parts and _INDEX.fullmatch(parts[-1]):
        parts.pop()
    return "/" + "/".join(parts)


def _pairs(query: str) -> list[tuple[str, str]]:
    pairs = []
    for part in re.split(r"[&;]", query):
        name, equals, value = part.partition("=")
        if equals and value:
            pairs.append((decode(name).strip().lower(), value.replace("+", " ")))
    return pairs


def template(
    url: str, allow_query: Collection[str] = (), search_query: Collection[str] = ()
) -> tuple[str, str | None] | None:
    """Page template and raw search term of a URL, or None if it is not the URL of a page.

    Args:
        url: absolute (http, https), host-relative (``//host/path``), or a path (``/path``).
        allow_query: parameters that stay, as ``?name=value`` sorted by name, values treated like segments.
        search_query: parameters that hold a search term. The term is returned as it is: redact it.
    """
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
    if rest or not text.startswith(("/", "?", "#")) or text.startswith("//"):
        match = _HOST.match(rest)
        if not match or not (match[1].startswith("[") or _valid_host(match[1])):
            return None
        text = rest[match.end() :]
    text, _, fragment = text.partition("#")
    route, _, query = text.partition("?")
    if fragment.startswith(("/", "!/")):  # a single-page application's own path
        fragment, _, more = fragment.lstrip("!").partition("?")
        route, query = f"{route.rstrip('/')}/{fragment}", f"{query}&{more}"
    page = _path(route)
    term = None
    if query and (allow_query or search_query):
        pairs = _pairs(query)
        searched = [name.lower() for name in search_query]
        term = next((decode(value) for name, value in pairs if name in searched), None)
        allowed = {name.lower() for name in allow_query}
        kept = sorted({f"{name}={segment(value)}" for name, value in pairs if name in allowed})
        page += "?" + "&".join(kept) if kept else ""
    return page, term


def _valid_host(name: str) -> bool:
    name = decode(name).lower().rstrip(".")
    return bool(
        _HOST_NAME.fullmatch(name)
        or _LOCAL_NAME.fullmatch(name)
        or re.fullmatch(r"\d{1,3}(?:\.\d{1,3}){3}", name)
        or (not name.isascii() and "." in name)
    )
