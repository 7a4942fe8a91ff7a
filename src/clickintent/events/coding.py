"""Values as codes: every string of an event is carried as a keyed 64-bit hash until it may be published.

Sorting and joining integers is several times as fast as strings, and a value that too few people share
(see ``published``) stays unreadable at rest: without the key a code tells nothing. Visitor and account ids
are hashed with HMAC-SHA256 (RFC 2104), the rest with keyed BLAKE2b (RFC 7693), each under a key of its own.
Two of a billion visitors get the same 64-bit code with a probability of about 3 %, of 100 million 0.03 %.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clickintent.config import PrivacyConfig
from clickintent.errors import ConfigError

#: Fields that hold who somebody is: HMAC.
IDENTIFIERS = ("visitor", "account")
#: Fields in the order of the coded columns; ``session_key`` is the source's own session number.
FIELDS = (
    *IDENTIFIERS,
    "session_key",
    "source",
    "channel",
    "event_type",
    "page",
    "title",
    "text",
    "referrer",
    "campaign",
    "device",
    "country",
)

_MIN_KEY = 16
_NO_KEY = b"clickintent without a key"


@dataclass(frozen=True)
class Keys:
    """The secrets of one workspace, derived from the key in the environment."""

    identifiers: bytes = field(repr=False)
    values: bytes = field(repr=False)
    events: str = field(repr=False)  # hexadecimal, goes in front of what is hashed inside the engine
    check: str = ""  # tells keys apart without telling them

    def identifier(self, value: str) -> int:
        """The code of a visitor or account id."""
        digest = hmac.digest(self.identifiers, value.encode(errors="surrogatepass"), "sha256")
        return int.from_bytes(digest[:8], "big", signed=True)

    def given(self, id_: str) -> list[int]:
        """The codes that a visitor or account id may have: of a raw one, and of one as the tables show it."""
        id_ = id_.strip()
        codes = [self.identifier(id_)]
        if len(id_) == 16 and set(id_) <= set("0123456789abcdef"):
            codes.append(int.from_bytes(bytes.fromhex(id_), "big", signed=True))
        return codes

    def value(self, value: str) -> int:
        """The code of any other string."""
        text = value.encode(errors="surrogatepass")
        return int.from_bytes(
            hashlib.blake2b(text, digest_size=8, key=self.values).digest(), "big", signed=True
        )


def keys(config: PrivacyConfig) -> Keys:
    """The keys that a configuration asks for.

    Raises:
        ConfigError: if ids are to be hashed and the environment holds no key, or one that is too short.
    """
    secret = os.environ.get(config.key_env, "").encode()
    if not secret and config.ids == "plain":
        secret = _NO_KEY
    if not secret:
        raise ConfigError(
            f'privacy.ids = "hmac" hashes visitor and account ids with the key in the environment variable '
            f"{config.key_env}, which is not set. Set it (for example: export {config.key_env}=$(openssl "
            'rand -hex 32)) and keep it: another key is another set of ids. Or write ids = "plain" under '
            "[privacy]."
        )
    if len(secret) < _MIN_KEY:
        raise ConfigError(
            f"the key in {config.key_env} has {len(secret)} characters; give at least {_MIN_KEY}."
        )
    return derive(secret)


def derive(secret: bytes) -> Keys:
    """The keys that follow from one secret."""
    derived = [hmac.digest(secret, purpose, "sha256") for purpose in (b"ids", b"values", b"events", b"check")]
    return Keys(derived[0], derived[1], derived[2].hex()[:32], derived[3].hex()[:12])


def pseudonyms(ids: pa.ChunkedArray | pa.Array, config: PrivacyConfig) -> pa.Array:
    """Raw visitor or account ids (n,) as they stand in the tables: hashed, unless ids are to stay.

    For tables from elsewhere that are to be joined, such as conversions by account.

    Raises:
        ConfigError: if the environment holds no key.
    """
    column = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    column = column.cast(pa.string())
    if config.ids == "plain":
        return column
    secret = keys(config)
    encoded = column.dictionary_encode()
    codes = [secret.identifier(raw.strip()) for raw in encoded.dictionary.to_pylist()]
    return hexadecimal(np.array(codes, np.int64)).take(encoded.indices)


def hexadecimal(codes: npt.NDArray[np.int64]) -> pa.Array:
    """Codes (n,) as strings of 16 hexadecimal digits."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    raw = codes.astype(">i8").view(np.uint8).reshape(-1, 8)
    text = digits[np.stack([raw >> 4, raw & 15], axis=2)].reshape(-1)
    offsets = np.arange(0, 16 * (len(codes) + 1), 16, dtype=np.int64)
    return pa.StringArray.from_buffers(
        len(codes), pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(np.ascontiguousarray(text))
    )
