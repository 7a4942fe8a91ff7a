"""API keys: random, shown once, kept as hashes, each with scopes.

A key has 256 bits of randomness, so a plain SHA-256 of it is as good as a slow password hash: there is
nothing to guess.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import secrets
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from clickintent.errors import ArtifactError, ConfigError, WorkspaceError
from clickintent.workspace import atomically

#: read: what accounts wanted, the explorer; write: events, logins; admin: forget people, decide on the
#: taxonomy. Each may score, and read metrics.
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
    except OSError as error:
        raise WorkspaceError(f"{path} cannot be read: {error.strerror}. See whose file it is.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path} is damaged ({error}). Restore it, or delete it and make new keys."
        ) from error


def add(workspace: Path, name: str, scopes: Collection[str]) -> str:
    """Make a key, and return it: this is the only time that it can be read.

    Raises:
        ConfigError: if the name is taken, or a scope is unknown.
    """
    if unknown := sorted(set(scopes) - set(SCOPES)):
        raise ConfigError(f"unknown scope {', '.join(unknown)}; there are {', '.join(SCOPES)}.")
    if not scopes or not name.strip():
        raise ConfigError("a key needs a name and at least one scope.")
    secret = _PREFIX + secrets.token_urlsafe(32)
    kept = tuple(scope for scope in SCOPES if scope in scopes)
    made = ApiKey(name, kept, _hash(secret), datetime.now(UTC).isoformat(timespec="seconds"))
    with _changing(workspace) as keys:
        if any(key.name == name for key in keys):
            raise ConfigError(f"there is a key {name!r} already; revoke it first, or choose another name.")
        keys.append(made)
    return secret


def revoke(workspace: Path, name: str) -> None:
    """Delete a key. A running service notices within ``serve.reload_seconds``.

    Raises:
        ConfigError: if there is none of that name.
    """
    with _changing(workspace) as keys:
        found = next((key for key in keys if key.name == name), None)
        if found is None:
            known = ", ".join(key.name for key in keys) or "none"
            raise ConfigError(f"there is no key {name!r}; there are {known}.")
        keys.remove(found)


def find(keys: Sequence[ApiKey], given: str) -> ApiKey | None:
    """The key that was given. All are compared, in constant time."""
    hashed, found = _hash(given), None
    for key in keys:
        if hmac.compare_digest(key.sha256, hashed):
            found = key
    return found


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


@contextmanager
def _changing(workspace: Path) -> Iterator[list[ApiKey]]:
    """The keys, to be changed by one process at a time, and then written for the owner's eyes only."""
    path = workspace / _FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = list(load(workspace))
            yield keys
            with atomically(path) as temporary:
                temporary.touch(mode=0o600)
                temporary.write_text(json.dumps({"keys": [asdict(key) for key in keys]}, indent=2) + "\n")
    except OSError as error:
        raise WorkspaceError(f"{path} cannot be written: {error.strerror}.") from error
