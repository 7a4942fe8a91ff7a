"""uvicorn with the application: one process, until it is told to stop."""

from __future__ import annotations

import gc

import uvicorn

from clickintent.config import Config
from clickintent.errors import WorkspaceError
from clickintent.serve.app import create_app


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
