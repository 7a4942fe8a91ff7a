"""The service over HTTP: routes, who may use them, limits, and errors that say which field is wrong.

Starlette and msgspec: of three frameworks measured, the one that takes least of a request's time
(``docs/architecture.md``). Paths hold account ids, so there is no access log; ``/metrics`` counts by route.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clickintent.config import Config
from clickintent.errors import ClickintentError, WorkspaceError
from clickintent.progress import say
from clickintent.serve import api_keys
from clickintent.serve.api_keys import ApiKey
from clickintent.serve.model import Models
from clickintent.serve.openapi import document
from clickintent.serve.scorer import Scorer
from clickintent.serve.service import InvalidError, NotFoundError, Service, now_us
from clickintent.serve.sqlite_store import SqliteStore
from clickintent.serve.state import BusyError, Store, UnavailableError
from clickintent.serve.telemetry import Telemetry
from clickintent.serve.wire import (
    EventsRequest,
    IdentifyRequest,
    Problem,
    ScoreRequest,
    Status,
    Versions,
    encode,
)

_EXPIRE_SECONDS = 600
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_AT = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")

_T = TypeVar("_T")
_Handler = Callable[["Context", Request], Awaitable[Response]]


class _HttpError(Exception):
    def __init__(self, status: int, problem: Problem, retry_after: int | None = None) -> None:
        super().__init__(problem.message)
        self.status, self.problem, self.retry_after = status, problem, retry_after


@dataclass
class Context:
    """What the routes share; made when the service starts."""

    config: Config
    service: Service
    telemetry: Telemetry
    keys: Sequence[ApiKey]
    #: Whether a key must be given. Decided when the service starts: a key that is revoked opens nothing.
    is_closed: bool
    failures: Counter[str]  # of work in the background, by its name
    #: key name → (tokens left, when they were counted)
    buckets: dict[str, tuple[float, float]] = field(default_factory=dict)


def create_app(
    config: Config,
    *,
    shadow: Config | None = None,
    models: Models | None = None,
    clock: Callable[[], int] = now_us,
) -> Starlette:
    """The ASGI application of a workspace.

    Args:
        shadow: another workspace, whose model scores along and is compared in ``/metrics``.
        models: to be used instead of loading the workspace's.
        clock: what time it is, µs since 1970 UTC.

    Raises:
        ArtifactError: if the workspace has no model that can be used.
        ConfigError: if ids are hashed and the environment holds no key.
    """
    loaded = models or Models(config, shadow)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            keys = api_keys.load(config.workspace)
            check_exposure(config.serve.host, keys)
            store = await _open_store(config)
        except ClickintentError as error:
            app.state.refused = error  # for ``run.serve``, which says it better than a server's log
            raise
        scorer = Scorer(loaded, config.serve.max_waiting)
        service = Service(config, loaded, store, scorer, clock)
        failures: Counter[str] = Counter()
        telemetry = Telemetry(service, failures)
        context = Context(config, service, telemetry, keys, bool(keys), failures)
        app.state.context = context
        often = config.serve.reload_seconds
        tasks = [
            asyncio.create_task(_again(context, "model", often, loaded.look)),
            asyncio.create_task(_again(context, "keys", often, partial(_look_at_keys, context))),
            asyncio.create_task(_again(context, "expiry", _EXPIRE_SECONDS, service.expire)),
        ]
        door = f"{len(keys)} keys" if keys else "no keys: open to this machine"
        say(f"serving {config.workspace} on http://{config.serve.host}:{config.serve.port} ({door})")
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await scorer.close()
            await store.close()

    app = Starlette(
        routes=[_route(*route) for route in ROUTES],
        lifespan=lifespan,
        exception_handlers={HTTPException: _no_route},
    )
    app.router.redirect_slashes = False  # it would answer with the id in a header
    app.add_middleware(_Guard)
    return app


async def _open_store(config: Config) -> Store:
    if config.serve.store != "sqlite":
        from clickintent.serve.redis_store import open_redis

        return await open_redis(config.serve.store, config.serve)
    path = config.workspace / "serve" / "live.sqlite3"
    return SqliteStore(
        path, most_events=config.serve.max_events_per_visitor, waiting=config.serve.max_waiting
    )


async def _again(context: Context, name: str, seconds: float, work: Callable[[], Awaitable[object]]) -> None:
    """Do something again and again. What fails is counted and said, and tried again."""
    while True:
        try:
            await work()
        except Exception as error:
            context.failures[name] += 1
            say(f"{name}: {error if isinstance(error, ClickintentError) else type(error).__name__}")
        await asyncio.sleep(seconds)


async def _look_at_keys(context: Context) -> None:
    context.keys = await asyncio.to_thread(api_keys.load, context.config.workspace)
    context.is_closed = context.is_closed or bool(context.keys)


# --- routes ---


async def _score(context: Context, request: Request) -> Response:
    return _json(await context.service.score(await _body(context, request, _SCORE)))


async def _events(context: Context, request: Request) -> Response:
    return _json(await context.service.append(await _body(context, request, _EVENTS)))


async def _identify(context: Context, request: Request) -> Response:
    return _json(await context.service.identify(await _body(context, request, _IDENTIFY)))


async def _account(context: Context, request: Request) -> Response:
    return _json(await context.service.account(request.path_params["id"]))


async def _forget_account(context: Context, request: Request) -> Response:
    return _json(await context.service.forget_account(request.path_params["id"]))


async def _forget_visitor(context: Context, request: Request) -> Response:
    return _json(await context.service.forget_visitor(request.path_params["id"]))


async def _taxonomy(context: Context, _: Request) -> Response:
    return _json(context.service.taxonomy())


async def _health(_: Context, __: Request) -> Response:
    return _json(Status("alive"))


async def _ready(context: Context, _: Request) -> Response:
    """Whether requests can be served: the store answers. A model that could not be replaced is told, too."""
    await context.service.store.check()
    model = context.service.models.current
    versions = Versions(model.encoder.version, model.student, model.taxonomy.version)
    problem = "a new model cannot be used; the log says why" if context.service.models.problem else None
    return _json(Status("ready", versions, problem))


async def _metrics(context: Context, _: Request) -> Response:
    text = context.telemetry.text()
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def _openapi(_: Context, __: Request) -> Response:
    return Response(document(), media_type="application/json")


_SCORE = msgspec.json.Decoder(ScoreRequest)
_EVENTS = msgspec.json.Decoder(EventsRequest)
_IDENTIFY = msgspec.json.Decoder(IdentifyRequest)

_Scopes = tuple[api_keys.Scope, ...]


class _Id(Convertor[str]):
    """Whatever an id may hold, slashes and line breaks included."""

    regex = r"[\s\S]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("id", _Id())

#: method, path, scopes of which a key must have one (none: no key is needed), what it does
ROUTES: tuple[tuple[str, str, _Scopes, _Handler], ...] = (
    ("POST", "/v1/score", api_keys.SCOPES, _score),
    ("POST", "/v1/events", ("write",), _events),
    ("POST", "/v1/identify", ("write",), _identify),
    ("GET", "/v1/accounts/{id:id}/intent", ("read",), _account),
    ("DELETE", "/v1/accounts/{id:id}", ("admin",), _forget_account),
    ("DELETE", "/v1/visitors/{id:id}", ("admin",), _forget_visitor),
    ("GET", "/v1/taxonomy", api_keys.SCOPES, _taxonomy),
    ("GET", "/metrics", api_keys.SCOPES, _metrics),
    ("GET", "/healthz", (), _health),
    ("GET", "/readyz", (), _ready),
    ("GET", "/openapi.json", (), _openapi),
)


def _route(method: str, path: str, scopes: _Scopes, handler: _Handler) -> Route:
    async def endpoint(request: Request) -> Response:
        context: Context = request.app.state.context
        started, response = time.perf_counter(), None
        try:
            _admit(context, request, scopes)
            async with asyncio.timeout(context.config.serve.timeout_s):
                response = await handler(context, request)
        except _HttpError as error:
            response = _problem(error)
        except ClientDisconnect:
            response = Response(status_code=499)
        except TimeoutError:
            response = _problem(_HttpError(503, Problem("timeout", "it took too long; try again."), 1))
        except Exception as error:
            response = _problem(_known(error))
        finally:
            status = 500 if response is None else response.status_code
            context.telemetry.request(path, status, time.perf_counter() - started)
        return response

    return Route(path, endpoint, methods=[method], name=f"{method} {path}")


def _known(error: Exception) -> _HttpError:
    if isinstance(error, InvalidError):
        return _HttpError(422, Problem("invalid", str(error), error.field))
    if isinstance(error, NotFoundError):
        return _HttpError(404, Problem("not_found", str(error)))
    if isinstance(error, BusyError):
        code = "unavailable" if isinstance(error, UnavailableError) else "busy"
        if code == "unavailable":
            say(str(error))
        return _HttpError(503, Problem(code, str(error)), error.retry_after)
    # the kind alone: a message may quote what was sent
    say(f"a request failed: {type(error).__name__}")
    return _HttpError(500, Problem("internal", "the service failed; this is a defect of it."))


def _admit(context: Context, request: Request, scopes: _Scopes) -> None:
    """Raise unless the key that was given may use the route, and not too often."""
    if not scopes:
        return
    name = ""
    if context.is_closed:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        key = api_keys.find(context.keys, given.strip()) if kind.lower() == "bearer" else None
        if key is None:
            raise _HttpError(401, Problem("unauthorized", "give a key: Authorization: Bearer …"))
        if not set(scopes) & set(key.scopes):
            raise _HttpError(403, Problem("forbidden", f"this key lacks the scope {' or '.join(scopes)}."))
        name = key.name
    rate = context.config.serve.requests_per_second
    if rate:
        most, now = max(rate, 1.0), time.monotonic()
        tokens, before = context.buckets.get(name, (most, now))
        tokens = min(most, tokens + (now - before) * rate)
        context.buckets[name] = (max(tokens - 1, 0.0) if tokens >= 1 else tokens, now)
        if tokens < 1:
            wait = math.ceil((1 - tokens) / rate)
            raise _HttpError(
                429, Problem("too_many_requests", f"more than {rate:g} requests a second."), wait
            )


async def _body(context: Context, request: Request, decoder: msgspec.json.Decoder[_T]) -> _T:
    """The body, if it is not too large and says what it must."""
    most = context.config.serve.max_body_kib * 1024
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise _HttpError(413, Problem("too_large", f"the body is larger than {most // 1024} KiB."))
        parts.append(part)
    try:
        return decoder.decode(b"".join(parts))
    except msgspec.ValidationError as error:
        message = str(error)
        found = _AT.search(message)
        where = found[1] if found else None
        raise _HttpError(422, Problem("invalid", _AT.sub("", message), where or None)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise _HttpError(400, Problem("not_json", "the body is not JSON in UTF-8.")) from None


def _json(value: object) -> Response:
    return Response(encode(value), media_type="application/json")


def _problem(error: _HttpError) -> Response:
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(encode(error.problem), error.status, headers, "application/json")


async def _no_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "there is no such path.", 405: "this path has no such method."}
    code = "not_found" if error.status_code == 404 else "not_allowed"
    response = _problem(
        _HttpError(error.status_code, Problem(code, words.get(error.status_code, error.detail)))
    )
    response.headers.update(error.headers or {})
    return response


class _Guard:
    """Security headers on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        await self._app(scope, receive, with_headers)


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
