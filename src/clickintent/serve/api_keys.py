"""API keys: random, shown once, kept as hashes, each with scopes.

A key has 256 bits of randomness, so a plain SHA-256 of it is as good as a slow password hash: there is
nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from clickintent.errors import ArtifactError, ConfigError
from clickintent.workspace import write_json

#: read: score and look things up; write: send events, tie visitors to accounts; admin: forget people.
Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_FILE = "serve/keys.json"
_PREFIX = "ci_"


@dataclass(frozen=True)
class ApiKey:
    """A key as it is kept."""

    name: str
    scopes: tuple[Scope, ...]
    sha256: str
    created_at: str


def load(workspace: Path) -> tuple[ApiKey, ...]:
    """The keys of a workspace; none if none was ever made.

    Raises:
        ArtifactError: if the file is damaged. An empty one would open the door.
    """
    path = workspace / _FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return tuple(ApiKey(k["name"], tuple(k["scopes"]), k["sha256"], k["created_at"]) for k in raw["keys"])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path} is damaged ({error}). Restore it, or delete it and make new keys."
        ) from error


def add(workspace: Path, name: str, scopes: Collection[str]) -> str:
    """Make a key, and return it: this is the only time that it can be read.

    Raises:
        ConfigError: if the name is taken, or a scope is unknown.
    """
    keys = load(workspace)
    if unknown := sorted(set(scopes) - set(SCOPES)):
        raise ConfigError(f"unknown scope {', '.join(unknown)}; there are {', '.join(SCOPES)}.")
    if not scopes or not name.strip():
        raise ConfigError("a key needs a name and at least one scope.")
    if any(key.name == name for key in keys):
        raise ConfigError(f"there is a key {name!r} already; revoke it first, or choose another name.")
    secret = _PREFIX + secrets.token_urlsafe(32)
    kept = tuple(scope for scope in SCOPES if scope in scopes)
    _save(
        workspace, (*keys, ApiKey(name, kept, _hash(secret), datetime.now(UTC).isoformat(timespec="seconds")))
    )
    return secret


def revoke(workspace: Path, name: str) -> None:
    """Delete a key. A running service notices within ``serve.reload_seconds``.

    Raises:
        ConfigError: if there is none of that name.
    """
    keys = load(workspace)
    left = tuple(key for key in keys if key.name != name)
    if len(left) == len(keys):
        raise ConfigError(f"there is no key {name!r}; there are {', '.join(k.name for k in keys) or 'none'}.")
    _save(workspace, left)


def find(keys: Sequence[ApiKey], given: str) -> ApiKey | None:
    """The key that was given. All are compared, in constant time."""
    hashed, found = _hash(given), None
    for key in keys:
        if hmac.compare_digest(key.sha256, hashed):
            found = key
    return found


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def _save(workspace: Path, keys: Sequence[ApiKey]) -> None:
    path = workspace / _FILE
    write_json({"keys": [asdict(key) for key in keys]}, path)
    path.chmod(0o600)
