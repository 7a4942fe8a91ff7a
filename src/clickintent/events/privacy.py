"""Redaction: personal data in titles, texts, search terms and campaigns become placeholders.

What is found: e-mail addresses, phone, social security, card and bank account numbers, dates, IP addresses,
links, long numbers, numbers after a word that says whose, and tokens that no person writes. Text is decoded
first (percent escapes, HTML entities, full-width and invisible characters), because personal data arrive
encoded, and the decoded text is what stays. Tokens are read as base64. Names of people are not found.

Redaction errs on the side of taking out: a price of seven digits goes with the phone numbers.
"""

from __future__ import annotations

import re
from functools import lru_cache

from clickintent.events import detectors, encoded

#: Text that fails this is looked at; the rest, most of it, cannot hold what ``redact`` looks for.
#: The same expression may run inside the engine, so it stays within RE2.
SUSPICIOUS = (
    r"(?i)[0-9@%&\\]|[^ -~]|[^ ]{20,}|[(\[{] ?at ?[)\]}]|://|www\.|  |^ | $|" + encoded.INNER_CAPITALS
)

_ROUNDS = 4  # what goes may have touched what only then is seen for what it is
_SUSPICIOUS = re.compile(SUSPICIOUS)


def redact(text: str | None) -> str | None:
    """Replace personal data by placeholders such as ``[email]``; None for nothing or white space.

    The result never holds an ``@``, a number of six or more digits, or a percent-encoded form of either.
    Applying it twice changes nothing.
    """
    return None if text is None else redacted(text)[0]


def redacted(text: str) -> tuple[str | None, tuple[str, ...]]:
    """What ``redact`` gives, and which detectors fired.

    Returns:
        The clean text, and one of ``detectors.NAMES`` per replacement. A token that hides personal data in
        base64 gives ``token`` and the names of what it hides.
    """
    if not _SUSPICIOUS.search(text):
        return text or None, ()
    return _redacted(text)


@lru_cache(maxsize=50_000)
def _redacted(text: str) -> tuple[str | None, tuple[str, ...]]:
    found: list[str] = []
    for _ in range(_ROUNDS):
        text, names = detectors.scan(encoded.plain(text))
        if not names:
            break
        found += names
    return text.strip() or None, tuple(found)
