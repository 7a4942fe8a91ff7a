"""The prompts, as text files beside this one. ``$name`` is filled in; the values are never scanned again.

A folder of one's own may replace any of them: a file there takes the place of the packaged one of that name.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from pathlib import Path
from string import Template

from clickintent.errors import ConfigError
from clickintent.workspace import fingerprint, write_text

_FILES = resources.files(__package__)
NAMES = tuple(sorted(f.name.removesuffix(".txt") for f in _FILES.iterdir() if f.name.endswith(".txt")))

_QUOTED_WORDS = 7  # in a row, from which on a text quotes a prompt


def prompt(name: str, folder: Path | None = None, /, **values: object) -> str:
    """The prompt in ``NAME.txt`` with its ``$variables`` filled.

    Args:
        folder: of files that replace packaged ones.

    Raises:
        ConfigError: if the file in ``folder`` cannot be used.
        KeyError: if a variable has no value.
    """
    return _template(name, folder).substitute({key: str(value) for key, value in values.items()})


def check(folder: Path | None) -> None:
    """See that every file in ``folder`` can be used.

    Raises:
        ConfigError: if there is no such folder, a file has no prompt's name, or its variables are not those
            of the packaged prompt.
    """
    if folder is None:
        return
    if not folder.is_dir():
        raise ConfigError(
            f"llm.prompts: {folder} is not a folder. 'clickintent taxonomy prompts {folder}' makes it."
        )
    for path in sorted(folder.glob("*.txt")):
        if path.stem not in NAMES:
            raise ConfigError(f"{path}: there is no prompt of that name. They are {', '.join(NAMES)}.")
    for name in NAMES:
        _template(name, folder)


def hashed(folder: Path | None) -> str:
    """Changes whenever a prompt does."""
    check(folder)
    return fingerprint(prompt_text(folder))


def copy_to(folder: Path) -> list[Path]:
    """Write the packaged prompts into a folder; those that are there stay. Returns the new ones."""
    written = []
    for name in NAMES:
        path = folder / f"{name}.txt"
        if not path.exists():
            write_text(f"{_packaged(name)}\n", path)
            written.append(path)
    return written


def prompt_text(folder: Path | None = None) -> str:
    """All prompts, their variables unfilled."""
    return "\n".join(_template(name, folder).template for name in NAMES)


def quotes_prompt(text: str, folder: Path | None = None) -> bool:
    """Whether seven words of ``text`` in a row stand in a prompt, in whatever case and punctuation."""
    return not _runs(prompt_text(folder)).isdisjoint(_in_a_row(_words(text)))


@cache
def _runs(text: str) -> frozenset[tuple[str, ...]]:
    return frozenset(_in_a_row(_words(text)))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _in_a_row(words: list[str]) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + _QUOTED_WORDS]) for at in range(len(words) - _QUOTED_WORDS + 1)]


def _template(name: str, folder: Path | None) -> Template:
    packaged = Template(_packaged(name))
    path = folder / f"{name}.txt" if folder else None
    if path is None or not path.is_file():
        return packaged
    try:
        own = Template(path.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a prompt: {error}") from error
    if not own.template:
        raise ConfigError(f"{path}: the prompt is empty. Delete the file to use the packaged one.")
    if not own.is_valid():
        raise ConfigError(f"{path}: a $ that begins no variable; write $$ for the sign itself.")
    missing = sorted(set(packaged.get_identifiers()) - set(own.get_identifiers()))
    unknown = sorted(set(own.get_identifiers()) - set(packaged.get_identifiers()))
    if missing:
        raise ConfigError(
            f"{path}: the variable ${missing[0]} is missing; without it the prompt is not whole."
        )
    if unknown:
        known = ", ".join(f"${n}" for n in packaged.get_identifiers()) or "none"
        raise ConfigError(f"{path}: unknown variable ${unknown[0]}; this prompt has {known}.")
    return own


@cache
def _packaged(name: str) -> str:
    return _FILES.joinpath(f"{name}.txt").read_text(encoding="utf-8").strip()
