"""The detectors of personal data, and what each of them calls what it takes out of a text.

``scan`` expects a text whose encodings are undone (``encoded.plain``). Card numbers are told by the Luhn
check digit (ISO/IEC 7812-1), bank account numbers by length and check digits (ISO 13616).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from clickintent.events import encoded

#: All names that ``scan`` reports.
NAMES = ("email", "url", "handle", "token", "ip", "iban", "card", "ssn", "date", "number", "phone")

_SPACES = re.compile(r"\s+")
_NAME = r"[^\s@<>()\[\],;:\"]+"
_START = r"(?<![^\s@<>()\[\],;:\"])"  # names are tried from their first character only: linear time
_AT = r"(?:@|\(\s*at\s*\)|\[\s*at\s*\]|\{\s*at\s*\})"
_DOT = r"(?:\.|\(\s*dot\s*\)|\[\s*dot\s*\])"
_EMAIL = re.compile(
    rf"(?:{_START}{_NAME})?[^\s@]@{_NAME}"  # whatever is joined by an at sign
    rf"|{_START}{_NAME}\s*{_AT}\s*[\w.-]+?(?:\s*{_DOT}\s*\w{{2,}})+\b",  # or apart, but with a domain
    re.IGNORECASE,
)
_URL = re.compile(r"\b(?:[a-z][a-z0-9+.-]{0,30}://|www\.)\S+", re.IGNORECASE)
_HANDLE = re.compile(r"@\w{2,}")
_UUID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
_IPV4 = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])")
_IPV6 = re.compile(
    r"(?<![\w:])(?=[0-9a-f:]*(?:::|(?::[0-9a-f]+){4}))(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{1,4}(?![\w:])", re.I
)
_IBAN_START = re.compile(r"([A-Z]{2})\d\d(?=(?:[ -]?[A-Z0-9]){11})", re.IGNORECASE)
_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,4})?(?![A-Za-z0-9])",
    re.IGNORECASE,
)
#: Country → characters of its IBAN (the SWIFT registry of ISO 13616).
_IBAN_LENGTH = {
    country: int(length)
    for country, length in re.findall(
        r"([A-Z]{2})(\d\d)",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28"
        " EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26"
        " IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28"
        " NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25"
        " SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30",
    )
}
_CARD = re.compile(
    r"\+?\(?\d(?:[ ./_+-]{0,2}\d){12,}"
    r"|\d{4}(\W{1,3})\d{4}\1\d{4}\1\d{1,7}|\d{4}(\W{1,3})\d{6}\2\d{4,5}"  # in groups, whatever parts them
)
_CARD_DIGITS = (16, 15)  # tried where an expiry date or a code follows
_SSN = re.compile(r"(?<!\d)\d{3}[ ._+-]\d{2}[ ._+-]\d{4}(?!\d)")
_DATE = re.compile(
    r"(?<![\d+])(?<!\d[-/.])"
    r"(?:(?:19|20)\d\d[-/. ](\d{1,2})[-/. ](\d{1,2})|(\d{1,2})[-/. ](\d{1,2})[-/. ](?:19|20)\d\d)"
    r"(?![-/.]?\d)"
)
_YEARS = re.compile(r"(?<!\d)(?:19|20)\d\d\s*[-/ ]\s*(?:19|20)\d\d(?![\d-])")
_PHONE = re.compile(r"\+?\(?\d(?:[ ().\-/_+]{0,3}\d){5,}")
_LONG_NUMBER = re.compile(r"\d{6,}|\d{1,3}(?:,\d{3}){3,}")
_OWNED_NUMBER = re.compile(
    r"\b(?:account|acct|a/c|card|pin|code|otp|cvv|cvc|ssn|social security|ending|ends|member|policy|claim"
    r"|case|order|reference|ref|customer|client|loan|user|ticket|invoice|passport|licen[cs]e|zip|postcode|phone|tel"
    r"|mobile)\b(?:[\s:#.=*xX•-]|\b(?:no|nr|num|number|id|is|in|with|code)\b){0,12}(\d[\d -]{1,}\d)(?=\D|$)",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"[A-Za-z0-9_\-+/=.~]{16,}|[A-Za-z0-9]{8,15}")
_TOKEN_CHARACTER = re.compile(r"[A-Za-z0-9_\-+/=.~]")
_TOKEN_PARTS = re.compile(r"[-_/.+=~]+")
_DIGIT_CHANGE = re.compile(r"[A-Za-z](?=\d)|\d(?=[A-Za-z])")
_SHORTEST_TOKEN = 12
_LONGEST_WORD = 24  # letters
_SHORTEST_MEAN = {16: 3.0, 25: 3.5}  # characters → mean length of words; of random ones, 2.2 are of one kind
_CASE_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
#: Letters and digits that touch what was taken out are part of it: the rest of an account number, a name.
_GLUED = re.compile(rf"[^\W_]*\[({'|'.join(NAMES)})\][^\W_]*")

_WORD_PARTS = re.compile(r"[-_+.,~!&'’()|*]+")
_HEX_WORD = re.compile(r"[a-f]{8,}")
_CONSONANTS = re.compile(r"[b-df-hj-np-tv-xz]{6}", re.IGNORECASE)
_VOWEL = re.compile(r"[aeiouy]")

#: In bytes that read as text by chance only what no chance gives.
_SEPARATOR = rb"(?:[ ().\-/_+]|%(?:25)*2[0-9A-Fa-f]){0,3}"
_CERTAIN = re.compile(
    rb"[\w.+%'-]{1,64}(?:@|%(?:25)*40|&#(?:64|x40);|&commat;)[a-z0-9-]+(?:\.[a-z0-9-]+)+"
    rb"|[a-z]{2}\d\d(?:[ -]?[a-z0-9]){11,30}"
    rb"|\+?\(?\d(?:" + _SEPARATOR + rb"\d){6,}"
    rb"|[a-z0-9+/_-]{8,}",  # base64 again
    re.IGNORECASE,
)
_DEPTH = 3  # base64 of base64 of base64


class Hidden(NamedTuple):
    """Personal data found in base64: where in the text (characters), and what."""

    start: int
    end: int
    names: tuple[str, ...]


class _Rule(NamedTuple):
    """``name`` says what a match is, None for nothing; ``group`` of it goes."""

    pattern: re.Pattern[str]
    name: Callable[[re.Match[str]], str | None]
    group: int = 0


def scan(text: str, depth: int = 0) -> tuple[str, tuple[str, ...]]:
    """Replace what is found by its name in brackets.

    Args:
        text: with encodings undone.
        depth: how often base64 was read to get here.

    Returns:
        The text without any ``@``, and one name per replacement, in the order of the detectors. For a token
        that hides personal data in base64, ``token`` and the names of what it hides.
    """
    found: list[str] = []
    text = _replace(_Rule(_EMAIL, _always("email")), text, found)  # before links: a link may hold one
    text = _replace_ibans(text, found)  # before links, which end at the first space of a number
    text = _replace(_Rule(_URL, _always("url")), text, found)
    text = _replace_hidden(text, depth, found)  # before all that would take a part of a token
    text = _replace(_Rule(_HANDLE, _always("handle")), text, found)
    text = _SPACES.sub(" ", text.replace("@", " "))
    for rule in _RULES:
        text = _replace(rule, text, found)
    if found:
        text = _GLUED.sub(r"[\1]", text)
    return text, tuple(found)


def hidden(text: str, depth: int = 0) -> list[Hidden]:
    """Personal data in base64, in the order of the text; places may overlap."""
    if depth >= _DEPTH:
        return []
    places = []
    for reading in encoded.readings(text):
        names = scan(encoded.plain(reading.text), depth + 1)[1] if reading.text else ()
        if names:
            places.append(Hidden(*reading.run, names))
            continue
        for match in _CERTAIN.finditer(reading.data):
            names = scan(encoded.plain(match[0].decode("latin-1")), depth + 1)[1]
            if names:
                start, end = (reading.start + at // 3 * 4 for at in (match.start(), match.end() + 2))
                places.append(Hidden(start, min(end, reading.run[1]), names))
    return sorted(places)


def is_random(text: str) -> bool:
    """Lower-case letters that are no word: hexadecimal, or hardly a vowel among many."""
    for token in _WORD_PARTS.split(text):
        if len(token) < 8 or not token.isascii():
            continue
        if _HEX_WORD.fullmatch(token) or len(_VOWEL.findall(token)) < 0.15 * len(token):
            return True
    return False


def is_jumbled(text: str) -> bool:
    """Letters in an order of cases and digits that no word has, nor words joined likeThis."""
    if len(text) < _SHORTEST_TOKEN:
        return False
    parts = [_CASE_PIECE.findall(part) for part in _TOKEN_PARTS.split(text)]
    # a word between hyphens is as short as it likes
    pieces = [len(piece) for part in parts if len(part) > 1 for piece in part]
    if sum(pieces) < _SHORTEST_TOKEN:
        return False
    short = sum(n <= 2 for n in pieces)
    if short >= 3 and 2 * short >= len(pieces):
        return True
    if len(pieces) >= 4 and sum(pieces) >= 16 and _CONSONANTS.search(text):
        return True
    mean = sum(pieces) / len(pieces)
    return any(sum(pieces) >= n and mean < shortest for n, shortest in _SHORTEST_MEAN.items())


def _replace(rule: _Rule, text: str, found: list[str]) -> str:
    def replacement(match: re.Match[str]) -> str:
        name = rule.name(match)
        if name is None:
            return match[0]
        found.append(name)
        start, end = (at - match.start() for at in match.span(rule.group))
        return f"{match[0][:start]}[{name}]{match[0][end:]}"

    return rule.pattern.sub(replacement, text)


def _replace_hidden(text: str, depth: int, found: list[str]) -> str:
    """Tokens that hide personal data in base64 go as a whole."""
    kept: list[str] = []
    done = 0
    for place in hidden(text, depth):
        if place.start < done:  # in the token that went before
            found += place.names
            continue
        start, end = place.start, place.end
        while start > done and _TOKEN_CHARACTER.match(text, start - 1):
            start -= 1
        while end < len(text) and _TOKEN_CHARACTER.match(text, end):
            end += 1
        kept += text[done:start], "[token]"
        done = end
        found += "token", *place.names
    return "".join(kept) + text[done:]


def _replace_ibans(text: str, found: list[str]) -> str:
    """Numbers with the right length and check digits, whatever touches them."""
    kept: list[str] = []
    done = 0
    for match in _IBAN_START.finditer(text):
        length = _IBAN_LENGTH.get(match[1].upper())
        if match.start() < done or length is None:
            continue
        end = match.end()
        plain = match[0]
        while len(plain) < length and end < len(text) and (text[end] in " -" or text[end].isalnum()):
            plain += text[end] if text[end].isalnum() else ""
            end += 1
        if len(plain) == length and plain.isascii() and _mod97(plain):
            kept += text[done : match.start()], "[iban]"
            done = end
            found.append("iban")
    return "".join(kept) + text[done:]


def _mod97(iban: str) -> bool:
    return int("".join(str(int(c, 36)) for c in iban[4:] + iban[:4])) % 97 == 1


def _luhn(digits: str) -> bool:
    doubled = (int(d) if i % 2 == 0 else int(d) * 2 - 9 * (d > "4") for i, d in enumerate(reversed(digits)))
    return sum(doubled) % 10 == 0


def _card(match: re.Match[str]) -> str | None:
    digits = "".join(c for c in match[0] if c.isdigit())
    if digits[0] == "0" or match[0][0] in "+(":  # no issuer's number begins with zero
        return _phone(match)
    if len(digits) <= 19 and _luhn(digits):
        return "card"
    for n in _CARD_DIGITS:
        if len(digits) > n and _luhn(digits[:n]) and not re.match(rf"(?:\D*\d){{{n}}}\d", match[0]):
            return "card"
    return _phone(match)


def _iban(match: re.Match[str]) -> str | None:
    plain = re.sub(r"[ -]", "", match[0])
    if not (plain.isupper() or plain.islower()):
        return None  # a token
    if sum(c.isdigit() for c in plain) >= 10:
        return "iban"
    return "iban" if len(plain) >= 15 and _mod97(plain) else None


def _date(match: re.Match[str]) -> str | None:
    """Day and month in either order; else it may be a phone number."""
    day_or_month = sorted(int(n) for n in match.groups() if n)
    return "date" if day_or_month[0] <= 12 and day_or_month[1] <= 31 else None


def _phone(match: re.Match[str]) -> str | None:
    n = sum(c.isdigit() for c in match[0])
    if n == 8 and _YEARS.fullmatch(match[0].strip()):
        return None
    return "phone" if 7 <= n <= 15 else "number"


def _jumbled(match: re.Match[str]) -> str | None:
    return "token" if is_jumbled(match[0]) else None


def _token(match: re.Match[str]) -> str | None:
    """A long token goes if it mixes letters and digits, or reads like no words."""
    token = match[0]
    letters, digits = sum(c.isalpha() for c in token), sum(c.isdigit() for c in token)
    changes = len(_DIGIT_CHANGE.findall(token))
    if (digits >= 3 and letters >= 2 and changes >= 2) or (changes >= 4 and len(token) >= 16):
        return "token"
    for part in _TOKEN_PARTS.split(token):
        if len(part) >= _SHORTEST_TOKEN and is_random(part.lower()):
            return "token"
        if any(len(piece) > _LONGEST_WORD for piece in _CASE_PIECE.findall(part)):
            return "token"
    return None


def _always(name: str) -> Callable[[re.Match[str]], str]:
    return lambda _: name


_RULES = (
    _Rule(_UUID, _always("token")),
    _Rule(_TOKEN, _jumbled),
    _Rule(_IPV4, _always("ip")),
    _Rule(_IBAN, _iban),
    _Rule(_CARD, _card),
    _Rule(_SSN, _always("ssn")),
    _Rule(_DATE, _date),
    _Rule(_OWNED_NUMBER, _always("number"), group=1),
    _Rule(_PHONE, _phone),
    _Rule(_IPV6, _always("ip")),
    _Rule(_LONG_NUMBER, _always("number")),
    _Rule(_TOKEN, _token),
)
