"""What a text says once its encodings are undone: percent escapes, HTML entities, look-alikes, base64.

Personal data reach a web log encoded, often twice, by whatever passed them on. Percent escapes and entities
are undone for good, because readers need none of them. Base64 (RFC 4648, standard or for URLs, with or
without padding) is only read, never undone: what carries it is removed as a whole or stays as it is.
"""

from __future__ import annotations

import binascii
import html
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote

_ROUNDS = 5
_PERCENT = re.compile(r"%[0-9a-fA-F]{2}")
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})")
_INVISIBLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_SPACES = re.compile(r"\s+")
_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—―−﹣－", "-"))

#: A base64 run that hides a digit string or an at sign has capitals inside: both encode to characters
#: below ``Q`` at their places. Words have none, so one search keeps most texts from being read at all.
#: Stays within RE2; digits are not asked for, as a text that has some is looked at anyway.
INNER_CAPITALS = r"(?-i:[a-z][A-Z]|[A-Z]{3}[A-Za-z+/_-]{5}|[+/_-][A-Z]{2})"

_RUN = re.compile(r"[A-Za-z0-9+/_-]{8,}")
_INNER_CAPITAL = re.compile(r"[A-Z]")
_STANDARD = str.maketrans("-_", "+/")


class Reading(NamedTuple):
    """One way to read a run of base64 characters.

    Attributes:
        start: index in the text of the character that holds ``data[0]``; three bytes take four characters.
        run: first and last + 1 index of the run.
        data: the bytes; garbage if the run is no base64, or starts elsewhere.
        text: the bytes as text if all of the run reads as printable UTF-8; else None.
    """

    start: int
    run: tuple[int, int]
    data: bytes
    text: str | None


def unquoted(text: str) -> str:
    """Percent-decode until nothing changes (at most five times), without plus signs becoming spaces."""
    for _ in range(_ROUNDS):
        if "%" not in text or not _PERCENT.search(text):
            return text
        text = unquote(text, errors="replace")
    return text


def plain(text: str) -> str:
    """All but base64 undone: one line of printable characters, digits of every script as ours."""
    for _ in range(4):
        new = html.unescape(unquoted(text))
        new = _ESCAPED.sub(lambda m: chr(int(m[1] or m[2], 16)), new)
        new = _INVISIBLE.sub("", unicodedata.normalize("NFKC", new)).translate(_DASHES)
        if not new.isascii():
            new = "".join(str(unicodedata.digit(c, c)) for c in new)
        if new == text:
            break
        text = new
    text = "".join(c if c.isprintable() or c.isspace() else " " for c in text)
    return _SPACES.sub(" ", text).strip()


def readings(text: str) -> Iterator[Reading]:
    """Every run of eight or more base64 characters, read from its first four characters on.

    From all four, because other letters may touch the encoded ones, and only every fourth starts a group.
    """
    for match in _RUN.finditer(text):
        run = match[0]
        if not _INNER_CAPITAL.search(run, 1):
            continue
        run = run.translate(_STANDARD)
        for skip in range(4):
            end = len(run) - ((len(run) - skip) % 4 == 1)  # a single character over holds no byte
            body = run[skip:end]
            data = binascii.a2b_base64(body + "=" * (-len(body) % 4))
            yield Reading(match.start() + skip, match.span(), data, None if skip else _printable(data))


def _printable(data: bytes) -> str | None:
    try:
        text = data.replace(b"\x00", b"").decode()  # without zeros, UTF-16 of plain letters is UTF-8
    except UnicodeDecodeError:
        return None
    return text if all(c.isprintable() or c.isspace() for c in text) else None
