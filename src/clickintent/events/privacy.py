"""Redaction: personal data in titles, texts, search terms and campaigns become placeholders.

What is found: e-mail addresses, phone, social security, card and bank account numbers, dates, IP addresses,
links, long numbers, numbers after a word that says whose, and tokens that no person writes. Text is decoded
first (percent escapes, HTML entities, full-width and invisible characters), because personal data arrive
encoded, and the decoded text is what stays. Names of people are not found.

``redact`` errs on the side of taking out: a price of seven digits goes with the phone numbers.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from clickintent.events import paths

#: Text that fails this is looked at; the rest, most of it, cannot hold what ``redact`` looks for.
#: The same expression runs inside the engine, so it stays within RE2.
SUSPICIOUS = r"(?i)[0-9@%&\\]|[^ -~]|[^ ]{20,}|[(\[{] ?at ?[)\]}]|://|www\.|  |^ | $"

_SUSPICIOUS = re.compile(SUSPICIOUS)
_INVISIBLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_SPACES = re.compile(r"\s+")
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})")
_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—―−﹣－", "-"))

_URL = re.compile(r"\b(?:[a-z][a-z0-9+.-]*://|www\.)\S+", re.IGNORECASE)
_AT = r"(?:@|\(\s*at\s*\)|\[\s*at\s*\]|\{\s*at\s*\})"
_DOT = r"(?:\.|\(\s*dot\s*\)|\[\s*dot\s*\])"
_NAME = r"[^\s@<>()\[\],;:\"]+"
_EMAIL = re.compile(
    rf"(?:{_NAME})?[^\s@]@{_NAME}"  # whatever is joined by an at sign
    rf"|{_NAME}\s*{_AT}\s*[\w.-]+?(?:\s*{_DOT}\s*\w{{2,}})+\b",  # or parts it by spaces, but has a domain
    re.IGNORECASE,
)
_HANDLE = re.compile(r"@\w{2,}")
_UUID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
_IPV4 = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])")
_IPV6 = re.compile(
    r"(?<![\w:])(?=[0-9a-f:]*(?:::|(?::[0-9a-f]+){4}))(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{1,4}(?![\w:])", re.I
)
_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,4})?(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_CARD = re.compile(r"\d(?:[ ./_-]{0,2}\d){12,18}")
_SSN = re.compile(r"(?<!\d)\d{3}[ ._-]\d{2}[ ._-]\d{4}(?!\d)")
_DATE = re.compile(
    r"(?<!\d)(?:(?:19|20)\d\d[-/. ]\d{1,2}[-/. ]\d{1,2}|\d{1,2}[-/. ]\d{1,2}[-/. ](?:19|20)\d\d)(?!\d)"
)
_YEARS = re.compile(r"(?<!\d)(?:19|20)\d\d\s*[-/ ]\s*(?:19|20)\d\d(?![\d-])")
_PHONE = re.compile(r"\+?\(?\d(?:[ ().\-/_]{0,3}\d){5,}")
_LONG_NUMBER = re.compile(r"\d{6,}|\d{1,3}(?:,\d{3}){3,}")
_OWNED_NUMBER = re.compile(
    r"\b(account|acct|a/c|card|pin|code|otp|cvv|cvc|ssn|social security|ending|ends|member|policy|claim|case"
    r"|order|reference|ref|customer|client|loan|user|ticket|invoice|passport|licen[cs]e|zip|postcode|phone|tel|mobile)\b"
    r"((?:[\s:#.=*xX•-]|\b(?:no|nr|num|number|id|is|in|with|code)\b){0,12})\d[\d -]{1,}\d(?=\D|$)",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"[A-Za-z0-9_\-+/=.~]{16,}|[A-Za-z0-9]{8,15}")


def redact(text: str | None) -> str | None:
    """Replace personal data by placeholders such as ``[email]``; None for nothing or white space.

    The result never holds an ``@``, a number of six or more digits, or a percent-encoded form of either.
    Applying it twice changes nothing.
    """
    if text is None:
        return None
    if not _SUSPICIOUS.search(text):
        return text or None
    return _redact(text)


@lru_cache(maxsize=50_000)
def _redact(text: str) -> str | None:
    text = _decoded(text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = text.replace("@", " ")
    return _SPACES.sub(" ", text).strip() or None


def _decoded(text: str) -> str:
    for _ in range(4):
        plain = html.unescape(paths.decode(text))
        plain = _ESCAPED.sub(lambda m: chr(int(m[1] or m[2], 16)), plain)
        plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", plain)).translate(_DASHES)
        # digits of every script become ours
        if not plain.isascii():
            plain = "".join(str(unicodedata.digit(c, c)) for c in plain)
        if plain == text:
            break
        text = plain
    text = "".join(c if c.isprintable() or c.isspace() else " " for c in text)
    return _SPACES.sub(" ", text).strip()


def _card(match: re.Match[str]) -> str:
    digits = [int(c) for c in match[0] if c.isdigit()]
    doubled = (d if i % 2 == 0 else d * 2 - 9 * (d > 4) for i, d in enumerate(reversed(digits)))
    return "[card]" if sum(doubled) % 10 == 0 else "[number]"


def _iban(match: re.Match[str]) -> str:
    plain = re.sub(r"[ -]", "", match[0]).upper()
    if sum(c.isdigit() for c in plain) >= 10:
        return "[iban]"
    if len(plain) < 15:
        return match[0]
    number = int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4]))
    return "[iban]" if number % 97 == 1 else match[0]


def _phone(match: re.Match[str]) -> str:
    n = sum(c.isdigit() for c in match[0])
    if n == 8 and _YEARS.fullmatch(match[0].strip()):
        return match[0]
    return "[phone]" if 7 <= n <= 15 else "[number]"


def _owned(match: re.Match[str]) -> str:
    return f"{match[1]}{match[2]}[number]"


def _token(match: re.Match[str]) -> str:
    """A long token goes if it mixes letters and digits, or is longer than words joined by hyphens are."""
    token = match[0]
    if token.startswith("[") or token.endswith("]"):
        return token
    letters, digits = sum(c.isalpha() for c in token), sum(c.isdigit() for c in token)
    changes = len(re.findall(r"[A-Za-z](?=\d)|\d(?=[A-Za-z])", token))
    if digits >= 3 and letters >= 2 and changes >= 2:
        return "[token]"
    parts = [p for p in re.split(r"[-_/.+=~]+", token) if p]
    if any(len(p) > 24 or (len(p) >= 12 and paths._is_random(p.lower())) for p in parts):
        return "[token]"
    return token


_Replacement = str | Callable[[re.Match[str]], str]
_RULES: tuple[tuple[re.Pattern[str], _Replacement], ...] = (
    (_EMAIL, "[email]"),  # before links: a link may hold one
    (_URL, "[url]"),
    (_HANDLE, "[handle]"),
    (_UUID, "[token]"),
    (_IPV4, "[ip]"),
    (_IBAN, _iban),
    (_CARD, _card),
    (_SSN, "[ssn]"),
    (_DATE, "[date]"),
    (_OWNED_NUMBER, _owned),
    (_PHONE, _phone),
    (_IPV6, "[ip]"),
    (_LONG_NUMBER, "[number]"),
    (_TOKEN, _token),
)
