"""What the command line starts: uvicorn with the application, until it is told to stop; and backfilling."""

from __future__ import annotations

import asyncio
import gc
import sys
from datetime import UTC, datetime

import uvicorn

from clickintent.config import Config
from clickintent.errors import WorkspaceError
from clickintent.serve.app import create_app, open_store
from clickintent.serve.backfill import backfill as append_history
from clickintent.serve.backfill import latest
from clickintent.serve.service import now_us


def serve(config: Config, *, shadow: Config | None = None) -> None:
    """Serve a workspace until SIGTERM or Ctrl-C; requests that have begun are answered.

    Raises:
        ArtifactError, ConfigError, WorkspaceError: if it cannot start; says what to do.
    """
    app = create_app(config, shadow=shadow)
    gc.collect()
    gc.freeze()  # what is there now stays: the collector need not look through it again and again
    settings = uvicorn.Config(
        app,
        host=config.serve.host,
        port=config.serve.port,
        access_log=False,  # paths hold account ids
        log_level="critical",  # errors are answered, counted and said by the application
        server_header=False,
        limit_concurrency=4 * config.serve.max_waiting,  # bodies that are being read
        timeout_keep_alive=75,
        timeout_graceful_shutdown=10,
    )
    try:
        uvicorn.Server(settings).run()
    except SystemExit as error:  # it could not start
        refused = getattr(app.state, "refused", None)
        if refused is None:
            refused = WorkspaceError(
                f"nothing can listen on {config.serve.host}:{config.serve.port}. Is another process there?"
            )
        raise refused from error


def backfill(config: Config, days: float) -> None:
    """Append the workspace's events of the last days to the live sessions, and print what became of them.

    Raises:
        BusyError, ConfigError, WorkspaceError: as ``serve.backfill.backfill`` and ``app.open_store``.
    """
    since = now_us() - round(days * 86_400_000_000)

    async def work() -> None:
        store = await open_store(config)
        try:
            n = await append_history(config, store, since)
        finally:
            await store.close()
        day = datetime.fromtimestamp(since / 1e6, UTC).date()
        sys.stdout.write(
            f"{n.total():,} events since {day} of visitors who are tied to an account: {n['accepted']:,} "
            f"appended, {n['duplicate']:,} were there, {n['forgotten']:,} are of people who were forgotten, "
            f"{n['too many']:,} are more than serve.max_events_per_visitor\n"
        )
        if not n and (last := latest(config)) is not None:
            said = datetime.fromtimestamp(last / 1e6, UTC).date()
            sys.stdout.write(f"The latest event of the workspace is of {said}.\n")

    asyncio.run(work())
