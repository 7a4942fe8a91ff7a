"""uvicorn with the application: one process, until it is told to stop."""

from __future__ import annotations

import uvicorn

from clickintent.config import Config
from clickintent.progress import say
from clickintent.serve import api_keys
from clickintent.serve.app import check_exposure, create_app


def serve(config: Config, *, shadow: Config | None = None) -> None:
    """Serve a workspace until SIGTERM or Ctrl-C; requests that have begun are answered.

    Raises:
        ArtifactError, ConfigError, WorkspaceError: if it cannot start; says what to do.
    """
    keys = api_keys.load(config.workspace)
    check_exposure(config.serve.host, keys)
    app = create_app(config, shadow=shadow)
    door = f"{len(keys)} keys" if keys else "no keys: open to this machine"
    say(f"serving {config.workspace} on http://{config.serve.host}:{config.serve.port} ({door})")
    uvicorn.run(
        app,
        host=config.serve.host,
        port=config.serve.port,
        access_log=False,  # paths hold account ids
        log_level="warning",
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=10,
    )
