"""Made-up personal data as they leak into web logs, and whether any of it is left in a text.

For the tests of whatever must not hold any: plant ``leak.written``, then ask ``survives``.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import random
import re
import unicodedata
import uuid
from dataclasses import dataclass
from urllib.parse import quote, unquote

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

#: Letters that no words, titles or pages of the tests are made of in such an order.
_SYLLABLES = ("zix", "qov", "juk", "wex", "kyz", "vaq", "xob", "zuw", "jaq", "fyx")
_PART = 6  # characters in a row that give a secret away


@dataclass(frozen=True)
class Leak:
    """One secret.

    Attributes:
        kind: ``email``, ``phone``, ``card``, ``iban``, ``ssn``, ``number`` or ``token``.
        plain: as people write it.
        written: ``plain`` and encoded forms of it, as found in logs.
    """

    kind: str
    plain: str
    written: tuple[str, ...]


def leak(kind: str, plain: str) -> Leak:
    """The leak in all its written forms."""
    percent = quote(plain, safe="")
    every = "".join(f"%{byte:02X}" for byte in plain.encode())
    standard = base64.b64encode(plain.encode()).decode()
    url_safe = base64.urlsafe_b64encode(plain.encode()).decode()
    of_percent = base64.b64encode(every.encode()).decode()
    written = (
        plain,
        percent,
        every,
        quote(percent, safe=""),
        quote(every, safe=""),
        "".join(f"&#{ord(c)};" for c in plain),
        "".join(f"&#x{ord(c):x};" for c in plain),
        html.escape(percent),
        standard,
        standard.rstrip("="),
        url_safe,
        url_safe.rstrip("="),
        quote(standard, safe=""),
        quote(quote(standard, safe=""), safe=""),
        of_percent,
        quote(of_percent, safe=""),
        base64.b64encode(quote(percent, safe="").encode()).decode(),
        base64.b64encode(standard.encode()).decode(),
        *((plain.upper(), plain.lower()) if kind in ("email", "iban") else ()),
        "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in plain),  # full-width
    )
    return Leak(kind, plain, tuple(dict.fromkeys(written)))


def secrets() -> SearchStrategy[Leak]:
    """Secrets of every kind. They come of a random seed: digits that shrink to zeros are nobody's."""
    kinds = st.sampled_from(tuple(_MAKERS))
    return st.builds(make, kinds, st.integers(0, 2**63))


def make(kind: str, seed: int) -> Leak:
    """The secret of this kind (see ``Leak``) that a seed stands for."""
    rng = random.Random(f"{kind}{seed}")
    return leak(kind, _MAKERS[kind](rng))


def survives(leak: Leak, text: str) -> bool:
    """Whether the secret stands in a text, in clear or in one of its encodings, whatever the separators."""
    return any(needle in form for form in _forms(text) for needle in _needles(leak))


def partly_survives(leak: Leak, text: str) -> bool:
    """Whether six characters of it in a row do. Chance finds six digits in a long text: for short ones."""
    core = _squeezed(_name(leak) if leak.kind == "email" else leak.plain)
    parts = {core[i : i + _PART] for i in range(max(1, len(core) - _PART + 1))}
    return survives(leak, text) or any(part in form for form in _forms(text) for part in parts)


def _name(leak: Leak) -> str:
    return leak.plain.partition("@")[0]


@functools.lru_cache(maxsize=10_000)
def _needles(leak: Leak) -> frozenset[str]:
    whole = _name(leak) if leak.kind == "email" else leak.plain
    needles = {_squeezed(leak.plain), _squeezed(whole)}
    every = "".join(f"%{byte:02X}" for byte in leak.plain.encode())
    percent = quote(leak.plain, safe="")
    standard = base64.b64encode(leak.plain.encode()).decode()
    for text in (leak.plain, every, percent, quote(percent, safe=""), standard):
        for before in range(3):
            encoded = base64.b64encode(b"\x00" * before + text.encode()).decode()
            # without the characters that share bits with what stands before and after
            inner = encoded[-(-before * 8 // 6) :].rstrip("=")[:-1]
            needles.add(_squeezed(inner))
    needles.add(leak.plain.encode().hex())
    return frozenset(needles)


@functools.lru_cache(maxsize=64)
def _forms(text: str) -> tuple[str, ...]:
    for _ in range(6):
        new = html.unescape(unquote(text))
        if new == text:
            break
        text = new
    return (_squeezed(text),)


def _squeezed(text: str) -> str:
    """Letters and digits, in lower case."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text)).lower()


def _email(rng: random.Random) -> str:
    def name(n: int) -> str:
        return "".join(rng.choice(_SYLLABLES) for _ in range(n))

    local = rng.choice(("{}.{}", "{}_{}", "{}{}", "{}-{}", "{}.{}+shop", "o'{}.{}"))
    local = local.format(name(1), name(rng.randint(1, 2))) + rng.choice(("", str(rng.randint(1, 99))))
    host = rng.choice(
        ("example.com", "mail.example.org", "example.co.uk", "web-mail.example", f"{name(2)}.de")
    )
    return rng.choice((local, local.title(), local.upper())) + "@" + host


def _digits(rng: random.Random, pattern: str) -> str:
    return "".join(str(rng.randint(1 if c == "N" else 0, 9)) if c in "NX" else c for c in pattern)


def _phone(rng: random.Random) -> str:
    formats = (
        "(NXX) NXX-XXXX",
        "NXX-NXX-XXXX",
        "NXX.NXX.XXXX",
        "NXXNXXXXXX",
        "+1 NXX NXX XXXX",
        "1-NXX-NXX-XXXX",
        "+44 20 NXXX XXXX",
        "07NXX XXXXXX",
        "0049 30 NXXXXXX",
        "030/NXXXXXX",
        "+49 (0)NXX NXXXXXX",
        "+33 6 NX XX XX XX",
        "06 NX XX XX XX",
        "+91 NXXXX XXXXX",
        "+55 11 9NXXX-XXXX",
        "+81-3-NXXX-XXXX",
    )
    return _digits(rng, rng.choice(formats))


def _card(rng: random.Random) -> str:
    prefix, length = rng.choice((("4", 16), ("51", 16), ("2221", 16), ("6011", 16), ("34", 15), ("37", 15)))
    digits = prefix + "".join(str(rng.randint(0, 9)) for _ in range(length - len(prefix) - 1))
    digits += next(d for d in "0123456789" if _luhn(digits + d))
    sizes = (4, 4, 4, 4) if length == 16 else (4, 6, 5)
    groups = [digits[sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(len(sizes))]
    return rng.choice(("", " ", "-", ".", "_", "+", "/")).join(groups)


def _luhn(digits: str) -> bool:
    total = 0
    for i, digit in enumerate(map(int, reversed(digits))):
        total += digit if i % 2 == 0 else sum(divmod(2 * digit, 10))
    return total % 10 == 0


def _iban(rng: random.Random) -> str:
    country, pattern = rng.choice(
        (
            ("DE", "N" * 18),
            ("GB", "AAAA" + "N" * 14),
            ("FR", "N" * 10 + "C" * 11 + "NN"),
            ("NL", "AAAA" + "N" * 10),
            ("CH", "N" * 5 + "C" * 12),
            ("NO", "N" * 11),
            ("ES", "N" * 20),
            ("IT", "A" + "N" * 10 + "C" * 12),
            ("MT", "AAAA" + "N" * 5 + "C" * 18),
        )
    )
    sets = {"N": "0123456789", "A": "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "C": "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
    account = "".join(rng.choice(sets[c]) for c in pattern)
    check = 98 - int("".join(str(int(c, 36)) for c in f"{account}{country}00")) % 97
    plain = f"{country}{check:02d}{account}"
    separator = rng.choice(("", " ", "-"))
    return separator.join(plain[i : i + 4] for i in range(0, len(plain), 4))


def _token(rng: random.Random) -> str:
    data = rng.randbytes(32)

    def part(text: str) -> str:
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    claims = f'{{"sub":"{rng.randint(10**6, 10**9)}","iat":{rng.randint(10**9, 2 * 10**9)}}}'
    signature = base64.urlsafe_b64encode(data).decode().rstrip("=")
    return rng.choice(
        (
            data[:16].hex(),
            hashlib.sha256(data).hexdigest(),
            str(uuid.UUID(bytes=data[:16], version=4)),
            str(uuid.UUID(bytes=data[:16], version=4)).upper(),
            base64.urlsafe_b64encode(data[:24]).decode(),
            signature,
            ".".join((part('{"alg":"HS256","typ":"JWT"}'), part(claims), signature)),
        )
    )


_MAKERS = {
    "email": _email,
    "phone": _phone,
    "card": _card,
    "iban": _iban,
    "ssn": lambda rng: rng.choice((" ", "-", ".")).join(_digits(rng, p) for p in ("NXX", "XX", "XXXX")),
    "number": lambda rng: _digits(rng, "N" + "X" * rng.randint(6, 24)),
    "token": _token,
}
