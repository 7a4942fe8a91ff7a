"""Plain YAML with the line of every value, so that a mistake in a hand-edited file can be pointed at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from clickintent.errors import ArtifactError

if TYPE_CHECKING:
    _Loader = yaml.SafeLoader | yaml.CSafeLoader

Path = tuple[int | str, ...]
#: libyaml's is several times as fast, where there is one; what it says of mistakes is less clear, and it lets
#: tabs pass.
_FAST: type[_Loader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Marked:
    """A parsed document."""

    value: Any
    lines: dict[Path, int]  # from 1

    def line(self, path: Sequence[int | str]) -> int:
        """The line of the value at ``path``, or of the nearest one above it."""
        for length in range(len(path), 0, -1):
            found = self.lines.get(tuple(path[:length]))
            if found is not None:
                return found
        return 1


def parse(text: str, where: str) -> Marked:
    """Parse one YAML document of mappings, lists and scalars.

    Raises:
        ArtifactError: if it is not YAML, repeats a key, or uses anchors or tags; gives the line.
    """
    try:
        try:
            return _parse(text, where, yaml.SafeLoader if "\t" in text else _FAST)
        except yaml.YAMLError:
            return _parse(text, where, yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
        raise ArtifactError(f"{where}{at}: not valid YAML: {problem}.") from error


def _parse(text: str, where: str, kind: type[_Loader]) -> Marked:
    loader = kind(text)
    try:
        for event in yaml.parse(text, Loader=kind):
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise ArtifactError(f"{where}, line {line}: aliases (*name) are not allowed.")
        root = loader.get_single_node()
        lines: dict[Path, int] = {}
        value = None if root is None else _build(loader, root, (), lines, where)
    finally:
        loader.dispose()
    return Marked(value, lines)


def _build(loader: _Loader, node: yaml.Node, path: Path, lines: dict[Path, int], where: str) -> Any:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, child, (*path, i), lines, where) for i, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key, child in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ArtifactError(f"{where}, line {line}: a key must be plain text.")
            if key.value in result:
                raise ArtifactError(f"{where}, line {line}: the key {key.value!r} is there twice.")
            result[key.value] = _build(loader, child, (*path, key.value), lines, where)
            lines[(*path, key.value)] = line
        return result
    try:
        return loader.construct_object(node)
    except (ValueError, TypeError) as error:  # such as a date of month 13
        raise ArtifactError(
            f"{where}, line {node.start_mark.line + 1}: {error}; put it in quotes."
        ) from error
