"""The service over HTTP: routes, who may use them, limits, and errors that say which field is wrong.

Starlette and msgspec: of three frameworks measured, the one that takes least of a request's time
(``docs/architecture.md``). Paths hold account ids, so there is no access log; ``/metrics`` counts by route.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from clickintent.config import Config
from clickintent.errors import ClickintentError
from clickintent.progress import say
from clickintent.serve import api_keys, reviews
from clickintent.serve.door import (
    Context,
    Guard,
    Handler,
    HttpError,
    RouteOf,
    Scopes,
    admit,
    body_of,
    check_exposure,
    json_answer,
    known,
    limited,
    problem,
)
from clickintent.serve.model import Models
from clickintent.serve.openapi import document
from clickintent.serve.pages import PAGE, Pages
from clickintent.serve.scorer import Scorer
from clickintent.serve.service import Service, now_us
from clickintent.serve.sqlite_store import SqliteStore
from clickintent.serve.state import Store
from clickintent.serve.telemetry import Telemetry
from clickintent.serve.wire import (
    EventsRequest,
    IdentifyRequest,
    Problem,
    ScoreRequest,
    Status,
    Versions,
)

_EXPIRE_SECONDS = 600


def create_app(
    config: Config,
    *,
    shadow: Config | None = None,
    models: Models | None = None,
    clock: Callable[[], int] = now_us,
    page: Path = PAGE,
) -> Starlette:
    """The ASGI application of a workspace.

    Args:
        shadow: another workspace, whose model scores along and is compared in ``/metrics``.
        models: to be used instead of loading the workspace's.
        clock: what time it is, µs since 1970 UTC.
        page: the folder of the explorer's built page.

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
            store = await open_store(config)
        except ClickintentError as error:
            app.state.refused = error  # for ``run.serve``, which says it better than a server's log
            raise
        scorer = Scorer(loaded, config.serve.max_waiting)
        service = Service(config, loaded, store, scorer, clock)
        failures: Counter[str] = Counter()
        telemetry = Telemetry(service, failures)
        context = Context(
            config, service, telemetry, reviews.Reviews(config), keys, bool(keys), failures=failures
        )
        app.state.context = context
        often = config.serve.reload_seconds
        tasks = [
            asyncio.create_task(_again(context, "model", often, loaded.look)),
            asyncio.create_task(_again(context, "keys", often, partial(_look_at_keys, context))),
            asyncio.create_task(_again(context, "forgetting", often, service.follow)),
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

    pages = Pages(page, config.workspace / "explorer" / "data")
    app = Starlette(
        routes=[_route(*route) for route in (*ROUTES, *pages.routes())],
        lifespan=lifespan,
        exception_handlers={HTTPException: _no_route},
    )
    app.router.redirect_slashes = False  # it would answer with the id in a header
    app.add_middleware(Guard)
    return app


async def open_store(config: Config) -> Store:
    """Where live sessions are kept.

    Raises:
        ConfigError, WorkspaceError: if it cannot be used; says why.
    """
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
    return json_answer(await context.service.score(await body_of(context, request, _SCORE)))


async def _events(context: Context, request: Request) -> Response:
    return json_answer(await context.service.append(await body_of(context, request, _EVENTS)))


async def _identify(context: Context, request: Request) -> Response:
    return json_answer(await context.service.identify(await body_of(context, request, _IDENTIFY)))


async def _account(context: Context, request: Request) -> Response:
    return json_answer(await context.service.account(request.path_params["id"]))


async def _forget_account(context: Context, request: Request) -> Response:
    return json_answer(await context.service.forget_account(request.path_params["id"]))


async def _forget_visitor(context: Context, request: Request) -> Response:
    return json_answer(await context.service.forget_visitor(request.path_params["id"]))


async def _taxonomy(context: Context, _: Request) -> Response:
    return json_answer(context.service.taxonomy())


async def _health(_: Context, __: Request) -> Response:
    return json_answer(Status("alive"))


async def _ready(context: Context, _: Request) -> Response:
    """Whether requests can be served: the store answers. A model that could not be replaced is told, too."""
    await context.service.store.check()
    model = context.service.models.current
    versions = Versions(model.encoder.version, model.student, model.taxonomy.version)
    trouble = "a new model cannot be used; the log says why" if context.service.models.problem else None
    return json_answer(Status("ready", versions, trouble))


async def _metrics(context: Context, _: Request) -> Response:
    text = context.telemetry.text()
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def _openapi(_: Context, __: Request) -> Response:
    return Response(document(), media_type="application/json")


_SCORE = msgspec.json.Decoder(ScoreRequest)
_EVENTS = msgspec.json.Decoder(EventsRequest)
_IDENTIFY = msgspec.json.Decoder(IdentifyRequest)


class _Id(Convertor[str]):
    """Whatever an id may hold, slashes and line breaks included."""

    regex = r"[\s\S]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("id", _Id())

#: Of the API; those of the explorer's page are in ``pages``.
ROUTES: tuple[RouteOf, ...] = (
    ("POST", "/v1/score", api_keys.SCOPES, _score),
    ("POST", "/v1/events", ("write",), _events),
    ("POST", "/v1/identify", ("write",), _identify),
    ("GET", "/v1/accounts/{id:id}/intent", ("read",), _account),
    ("DELETE", "/v1/accounts/{id:id}", ("admin",), _forget_account),
    ("DELETE", "/v1/visitors/{id:id}", ("admin",), _forget_visitor),
    ("GET", "/v1/taxonomy", api_keys.SCOPES, _taxonomy),
    ("GET", "/v1/taxonomy/review", ("read", "admin"), reviews.review),
    ("POST", "/v1/taxonomy/decisions", ("admin",), reviews.decision),
    ("GET", "/metrics", api_keys.SCOPES, _metrics),
    ("GET", "/healthz", (), _health),
    ("GET", "/readyz", (), _ready),
    ("GET", "/openapi.json", (), _openapi),
)


def _route(method: str, path: str, scopes: Scopes, handler: Handler) -> Route:
    async def endpoint(request: Request) -> Response:
        context: Context = request.app.state.context
        started, response = time.perf_counter(), None
        try:
            admit(context, request, scopes)
            async with limited(request.scope, context.config.serve.timeout_s):
                response = await handler(context, request)
        except HttpError as error:
            response = problem(error)
        except ClientDisconnect:
            response = Response(status_code=499)
        except TimeoutError:
            response = problem(HttpError(503, Problem("timeout", "it took too long; try again."), 1))
        except Exception as error:
            response = problem(known(error))
        finally:
            status = 500 if response is None else response.status_code
            context.telemetry.request(path, status, time.perf_counter() - started)
        return response

    return Route(path, endpoint, methods=[method], name=f"{method} {path}")


async def _no_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "there is no such path.", 405: "this path has no such method."}
    code = "not_found" if error.status_code == 404 else "not_allowed"
    message = words.get(error.status_code, error.detail)
    return problem(HttpError(error.status_code, Problem(code, message)), error.headers)
