"""Who may come in, with what, and what is told to those who may not: keys, limits, bodies, errors."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clickintent.config import Config
from clickintent.errors import WorkspaceError
from clickintent.progress import say
from clickintent.serve import api_keys
from clickintent.serve.api_keys import ApiKey
from clickintent.serve.service import InvalidError, NotFoundError, Service
from clickintent.serve.state import BusyError, UnavailableError
from clickintent.serve.telemetry import Telemetry
from clickintent.serve.wire import Problem, encode

if TYPE_CHECKING:
    from clickintent.serve.reviews import Reviews

Headers = tuple[tuple[bytes, bytes], ...]

#: On every answer that has none of its own (``with_headers``).
HEADERS: Headers = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_OWN, _LIMIT = "clickintent.headers", "clickintent.limit"  # in an ASGI scope
_AT = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")
_LOCAL = re.compile(rb"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)

_T = TypeVar("_T")


class HttpError(Exception):
    """A request that is answered with a ``Problem``.

    Attributes:
        retry_after: seconds, where it may go better later.
    """

    def __init__(self, status: int, problem: Problem, retry_after: int | None = None) -> None:
        super().__init__(problem.message)
        self.status, self.problem, self.retry_after = status, problem, retry_after


@dataclass
class Context:
    """What the routes share; made when the service starts."""

    config: Config
    service: Service
    telemetry: Telemetry
    reviews: Reviews
    keys: Sequence[ApiKey]
    #: Whether a key must be given. Decided when the service starts: a key that is revoked opens nothing.
    is_closed: bool
    failures: Counter[str]  # of work in the background, by its name
    #: key name → (tokens left, when they were counted)
    buckets: dict[str, tuple[float, float]] = field(default_factory=dict)


Handler = Callable[[Context, Request], Awaitable[Response]]
Scopes = tuple[api_keys.Scope, ...]
#: method, path, scopes of which a key must have one (none: no key is needed), what it does
RouteOf = tuple[str, str, Scopes, Handler]


def admit(context: Context, request: Request, scopes: Scopes) -> None:
    """Let a request pass if it may use the route, and not too often.

    Raises:
        HttpError: if it may not.
    """
    if not scopes:
        return
    name = ""
    if context.is_closed:
        key = key_of(context, request)
        if key is None:
            raise HttpError(401, Problem("unauthorized", "give a key: Authorization: Bearer …"))
        if not set(scopes) & set(key.scopes):
            raise HttpError(403, Problem("forbidden", f"this key lacks the scope {' or '.join(scopes)}."))
        name = key.name
    else:
        _from_here(request.scope)
    rate = context.config.serve.requests_per_second
    if rate:
        most, now = max(rate, 1.0), time.monotonic()
        tokens, before = context.buckets.get(name, (most, now))
        tokens = min(most, tokens + (now - before) * rate)
        context.buckets[name] = (max(tokens - 1, 0.0) if tokens >= 1 else tokens, now)
        if tokens < 1:
            wait = math.ceil((1 - tokens) / rate)
            raise HttpError(429, Problem("too_many_requests", f"more than {rate:g} requests a second."), wait)


def key_of(context: Context, request: Request) -> ApiKey | None:
    """The key that was given, where keys are asked for."""
    if not context.is_closed:
        return None
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    return api_keys.find(context.keys, given.strip()) if kind.lower() == "bearer" else None


def _from_here(scope: Scope) -> None:
    """Where no key is asked for, a page of another site could let the browser of who sits here ask: by a name
    of its own that leads to this machine, which ``Host`` tells, or straight away, which ``Origin`` tells.

    Raises:
        HttpError: if it is so.
    """
    host = origin = None
    for name, value in scope["headers"]:
        if name == b"host":
            host = value
        elif name == b"origin":
            origin = value
    if host is None or _LOCAL.fullmatch(host) is None:
        message = "without keys the service answers to localhost alone; make a key, or ask http://localhost."
        raise HttpError(403, Problem("forbidden", message))
    if origin is not None and origin.partition(b"://")[2].lower() != host.lower():
        raise HttpError(403, Problem("forbidden", "without keys no page of another site may ask."))


async def body_of(context: Context, request: Request, decoder: msgspec.json.Decoder[_T]) -> _T:
    """The body, if it is not too large and says what it must.

    Raises:
        HttpError: if not; says which field is wrong.
    """
    most = context.config.serve.max_body_kib * 1024
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise HttpError(413, Problem("too_large", f"the body is larger than {most // 1024} KiB."))
        parts.append(part)
    try:
        return decoder.decode(b"".join(parts))
    except msgspec.ValidationError as error:
        message = str(error)
        found = _AT.search(message)
        where = found[1] if found else None
        raise HttpError(422, Problem("invalid", _AT.sub("", message), where or None)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise HttpError(400, Problem("not_json", "the body is not JSON in UTF-8.")) from None


def is_json(request: Request) -> None:
    """Check that the body is sent as JSON, which no form and no script of another site can do unasked.

    Raises:
        HttpError: if it is not.
    """
    kind = request.headers.get("content-type", "").partition(";")[0]
    if kind.strip().lower() != "application/json":
        message = "send the body with Content-Type: application/json."
        raise HttpError(415, Problem("not_json", message))


def known(error: Exception) -> HttpError:
    """What is told of an error of the service."""
    if isinstance(error, InvalidError):
        return HttpError(422, Problem("invalid", str(error), error.field))
    if isinstance(error, NotFoundError):
        return HttpError(404, Problem("not_found", str(error)))
    if isinstance(error, BusyError):
        code = "unavailable" if isinstance(error, UnavailableError) else "busy"
        if code == "unavailable":
            say(str(error))
        return HttpError(503, Problem(code, str(error)), error.retry_after)
    # the kind alone: a message may quote what was sent
    say(f"a request failed: {type(error).__name__}")
    return HttpError(500, Problem("internal", "the service failed; this is a defect of it."))


def json_answer(value: object) -> Response:
    return Response(encode(value), media_type="application/json")


def problem(error: HttpError, more: Mapping[str, Any] | None = None) -> Response:
    """The answer that says so.

    Args:
        more: further headers.
    """
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(encode(error.problem), error.status, headers | dict(more or {}), "application/json")


def with_headers(scope: Scope, headers: Headers) -> None:
    """Let the answer have these headers, and not ``HEADERS``."""
    scope[_OWN] = headers


def limited(scope: Scope, seconds: float) -> asyncio.Timeout:
    """The time that a request may take; ``unlimited`` lifts it."""
    limit: asyncio.Timeout = asyncio.timeout(seconds)
    scope[_LIMIT] = limit
    return limit


def unlimited(scope: Scope) -> None:
    """From here on the request is done to its end: whoever asked must not be told that it was not."""
    scope[_LIMIT].reschedule(None)


class Guard:
    """Security headers on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *scope.get(_OWN, HEADERS)]
            await send(message)

        await self._app(scope, receive, guarded)


def check_exposure(host: str, keys: Sequence[ApiKey]) -> None:
    """Without keys the service listens on this machine alone.

    Raises:
        WorkspaceError: if it would be open to others.
    """
    if not keys and host not in ("127.0.0.1", "::1", "localhost"):
        raise WorkspaceError(
            f"the service would listen on {host} without keys, open to whoever reaches it. Make a key first "
            "(clickintent keys add), or listen on 127.0.0.1."
        )
