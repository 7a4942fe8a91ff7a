"""What can go wrong, as a tree. Every message says what was wrong, where, and what to do.

ClickintentError
├── ConfigError            a key, value or file in clickintent.toml
├── DataError              input that cannot be used at all
│   ├── MissingColumnsError
│   └── EmptyInputError
├── WorkspaceError         a stage out of order, a folder damaged
│   ├── InUseError         another process has the workspace open
│   └── ChangedError       somebody else changed the taxonomy in the meantime
├── ArtifactError          a saved encoder, taxonomy or student that cannot be read
├── LanguageModelError     the configured LLM endpoint
│   ├── AnswersNeededError requests were written to a file; the run goes on when they are answered
│   └── BudgetError        the next call would pass a cap on tokens or money
└── MissingDependencyError an optional package is not installed
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from types import ModuleType


class ClickintentError(Exception):
    """Base of every error that clickintent raises on purpose."""


class ConfigError(ClickintentError):
    """A configuration file, key or value cannot be used."""


class DataError(ClickintentError):
    """Input data cannot be used at all (single bad rows go to quarantine instead)."""


class MissingColumnsError(DataError):
    """A table lacks columns that the reader needs."""

    def __init__(
        self,
        where: str,
        missing: Iterable[str],
        found: Iterable[str],
        what_to_do: str = "Correct the mapping under [sources.columns] in the configuration.",
    ) -> None:
        self.missing = tuple(missing)
        super().__init__(
            f"{where}: no column {', '.join(repr(name) for name in self.missing)}; "
            f"it has {', '.join(repr(name) for name in found) or 'no columns'}. "
            f"{what_to_do}"
        )


class EmptyInputError(DataError):
    """Nothing is left to work on."""


class WorkspaceError(ClickintentError):
    """A stage was called out of order, or the workspace is in use or damaged."""


class InUseError(WorkspaceError):
    """Another process has the workspace open; it may be free in a moment."""


class ChangedError(WorkspaceError):
    """What was decided on is no longer what is there."""


class ArtifactError(ClickintentError):
    """A saved encoder, taxonomy or student cannot be read."""


class LanguageModelError(ClickintentError):
    """The configured language model did not give a usable answer."""


class AnswersNeededError(LanguageModelError):
    """Requests were written to a file and have to be answered before the run can go on."""


class BudgetError(LanguageModelError):
    """The next call would pass the configured cap on tokens or money."""


class MissingDependencyError(ClickintentError):
    """An optional dependency is not installed."""


def error_of(name: str, text: str) -> Exception:
    """The error of that name that another process raised; a ``RuntimeError`` if it was none of ours."""
    kind = globals().get(name)
    if not (isinstance(kind, type) and issubclass(kind, ClickintentError)):
        kind = RuntimeError
    error: Exception = kind.__new__(kind)  # some have a constructor of their own, which made the text
    error.args = (text,)
    return error


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say how to install it.

    Raises:
        MissingDependencyError: if the module cannot be found.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and not module.startswith(error.name):
            raise  # the package is there, something inside it is broken
        raise MissingDependencyError(
            f"This step needs the package {module!r}. Install it with: pip install 'clickintent[{extra}]'"
        ) from error
