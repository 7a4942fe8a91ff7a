"""``clickintent keys``: who may use the service."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import App, Parameter

from clickintent.cli_taxonomy import File
from clickintent.config import load_config
from clickintent.serve import api_keys

keys_app = App(name="keys", help="Keys of the service (clickintent serve).")


@keys_app.command
def add(
    file: File,
    name: Annotated[str, Parameter(help="Whose key it is, to know it by later.")],
    *,
    scope: Annotated[
        tuple[str, ...], Parameter(help="read, write, admin; give it several times for several.")
    ] = ("read",),
) -> None:
    """Make a key and print it. It cannot be shown again."""
    sys.stdout.write(f"{api_keys.add(load_config(file).workspace, name, scope)}\n")


@keys_app.command(name="list")
def list_(file: File) -> None:
    """List names, scopes and dates."""
    for key in api_keys.load(load_config(file).workspace):
        sys.stdout.write(f"{key.name}\t{','.join(key.scopes)}\t{key.created_at}\n")


@keys_app.command
def revoke(file: File, name: str) -> None:
    """Delete a key; a running service notices within serve.reload_seconds."""
    api_keys.revoke(load_config(file).workspace, name)
