"""The prompts, as text files beside this one. ``$name`` is filled in; the values are never scanned again."""

from __future__ import annotations

from functools import cache
from importlib import resources
from string import Template


def prompt(name: str, **values: object) -> str:
    """The prompt in ``NAME.txt`` with its ``$variables`` filled.

    Raises:
        KeyError: if a variable has no value.
    """
    return _template(name).substitute({key: str(value) for key, value in values.items()})


@cache
def _template(name: str) -> Template:
    return Template(resources.files(__package__).joinpath(f"{name}.txt").read_text(encoding="utf-8").strip())
