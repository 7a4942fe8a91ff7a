"""The taxonomy of intents: a versioned YAML file that people read, edit and approve.

It is the contract between whoever names intents (a language model, the keyword namer, a person) and
whoever uses them. Ids never change their meaning; a changed set of intents is a new version.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from clickintent.errors import ArtifactError
from clickintent.taxonomy import marked_yaml
from clickintent.workspace import write_text

_ID = re.compile(r"[A-Za-z][\w-]*")

_HEADER = """\
# The taxonomy of intents. Edit names, definitions and lists freely; keep the ids: labels refer to them.
# keywords: a list, or a mapping of keyword to weight (0 to 1); they are what the keyword namer matches.
# Then: clickintent taxonomy diff OLD NEW, and clickintent taxonomy approve FILE.toml --by NAME
"""


def _line(value: Any) -> Any:
    """Text on one line, without characters that do not print."""
    if not isinstance(value, str):
        return value
    return " ".join("".join(c if c.isprintable() else " " for c in value).split())


def _is_id(value: str) -> str:
    if not _ID.fullmatch(value):
        raise ValueError("an id is a letter, then letters, digits, - or _")
    return value


def _time(value: Any) -> Any:
    if isinstance(value, datetime):  # unquoted in the file
        return value.isoformat()
    if isinstance(value, str):
        datetime.fromisoformat(value)
    return value


Line = Annotated[str, BeforeValidator(_line), Field(min_length=1)]
Lines = tuple[Line, ...]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Intent(_Frozen):
    """What some sessions want, in words."""

    id: Annotated[str, AfterValidator(_is_id)]
    name: Line
    definition: Line
    area: Line | None = None
    includes: Annotated[Lines, BeforeValidator(_as_tuple)] = ()
    excludes: Annotated[Lines, BeforeValidator(_as_tuple)] = ()
    keywords: Annotated[Lines, BeforeValidator(_as_tuple)] = ()
    #: One per keyword, or none at all, which means 1 for every one of them.
    keyword_weights: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1, strict=False)], ...], BeforeValidator(_as_tuple)
    ] = ()
    examples: Annotated[Lines, BeforeValidator(_as_tuple)] = ()  # redacted narratives

    @model_validator(mode="before")
    @classmethod
    def _weights_beside_keywords(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("keywords"), dict):
            data = {**data, "keyword_weights": tuple(data["keywords"].values())}
            data["keywords"] = tuple(data["keywords"])
        return data

    @model_validator(mode="after")
    def _complete(self) -> Intent:
        if self.keyword_weights and len(self.keyword_weights) != len(self.keywords):
            raise ValueError(f"{len(self.keyword_weights)} weights for {len(self.keywords)} keywords")
        if len(set(self.keywords)) != len(self.keywords):
            raise ValueError("the same keyword twice")
        return self

    def weighted_keywords(self) -> dict[str, float]:
        """Keyword → weight in (0, 1]."""
        weights = self.keyword_weights or (1.0,) * len(self.keywords)
        return dict(zip(self.keywords, weights, strict=True))


class Taxonomy(_Frozen):
    """A version of the intents. Immutable: ``revised`` and ``approve`` return new ones."""

    version: Annotated[int, Field(ge=1)] = 1
    source: Literal["llm", "keywords", "human"]
    model: Line | None = None  # of the language model that drafted it
    approved_by: Line | None = None
    approved_at: Annotated[str, BeforeValidator(_time)] | None = None  # ISO 8601
    #: Keyword namer: confidence = logistic(a · similarity + b · its share among intents + c).
    calibration: Annotated[tuple[Annotated[float, Field(strict=False)], ...], BeforeValidator(_as_tuple)] = ()
    intents: Annotated[tuple[Intent, ...], BeforeValidator(_as_tuple), Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Taxonomy:
        for what, values in (
            ("id", [i.id for i in self.intents]),
            ("name", [i.name.casefold() for i in self.intents]),
        ):
            twice = [value for value, n in Counter(values).items() if n > 1]
            if twice:
                raise ValueError(f"the {what} {twice[0]!r} is given to two intents")
        if len(self.calibration) not in (0, 3):
            raise ValueError("calibration is three numbers, or left out")
        return self

    @property
    def intent_ids(self) -> tuple[str, ...]:
        return tuple(intent.id for intent in self.intents)

    @classmethod
    def load(cls, path: Path | str) -> Taxonomy:
        """Read and check a taxonomy file.

        Raises:
            ArtifactError: if it is missing or wrong; gives the line of every mistake.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ArtifactError(f"{path}: cannot be read as a taxonomy: {error}") from error
        document = marked_yaml.parse(text, str(path))
        try:
            return cls.model_validate(document.value)
        except ValidationError as error:
            mistakes = "\n".join(
                f"  line {document.line(_place(e['loc'], document.value))}: {_what(e['loc'], e)}"
                for e in error.errors()
            )
            raise ArtifactError(f"{path} is not a valid taxonomy:\n{mistakes}") from error

    def save(self, path: Path | str) -> None:
        """Write the YAML file, atomically; the same taxonomy always gives the same bytes.

        Raises:
            ArtifactError: if the taxonomy is inconsistent (after ``model_copy``), such as a name given twice.
        """
        try:
            Taxonomy.model_validate(self.model_dump())
        except ValidationError as error:
            first = error.errors()[0]
            raise ArtifactError(f"{path} was not written: {_what(first['loc'], first)}") from error
        write_text(self.to_yaml(), Path(path))

    def to_yaml(self) -> str:
        """The file's text."""
        data = self.model_dump(mode="json")
        data["calibration"] = list(self.calibration)
        for raw, intent in zip(data["intents"], self.intents, strict=True):
            del raw["keyword_weights"]
            raw["keywords"] = intent.weighted_keywords() if intent.keyword_weights else list(intent.keywords)
        return _HEADER + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)

    def revised(self, **changes: Any) -> Taxonomy:
        """The next version, with ``changes``; nobody has approved it yet.

        Raises:
            ArtifactError: if the changes do not make a valid taxonomy.
        """
        data = self.model_dump() | {"approved_by": None, "approved_at": None} | changes
        data["version"] = self.version + 1
        data["intents"] = [i.model_dump() if isinstance(i, Intent) else i for i in data["intents"]]
        try:
            return Taxonomy.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            raise ArtifactError(f"the changed taxonomy is not valid: {_what(first['loc'], first)}") from error

    def approve(self, by: str) -> Taxonomy:
        """The same version with ``by``'s name and the time under it."""
        return approve(self, by)

    def diff(self, new: Taxonomy) -> Diff:
        """What changed from this taxonomy to ``new``."""
        return diff(self, new)


def approve(taxonomy: Taxonomy, by: str) -> Taxonomy:
    """Sign a version. What is approved is a version, so approving makes no new one.

    Raises:
        ArtifactError: if ``by`` is empty.
    """
    name = _line(by)
    if not name:
        raise ArtifactError("approve needs the name of who approves.")
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return taxonomy.model_copy(update={"approved_by": name, "approved_at": at})


@dataclass(frozen=True)
class Diff:
    """What changed between two taxonomies; intents are the same if their ids are."""

    added: tuple[Intent, ...]
    removed: tuple[Intent, ...]
    renamed: tuple[tuple[Intent, Intent], ...]  # old, new
    redefined: tuple[tuple[Intent, Intent], ...]  # another definition, area, or list of what is in and out

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.renamed or self.redefined)

    def __str__(self) -> str:
        lines = [f"+ {i.id} {i.name}: {i.definition}" for i in self.added]
        lines += [f"- {i.id} {i.name}" for i in self.removed]
        lines += [f"~ {new.id} {old.name} → {new.name}" for old, new in self.renamed]
        for old, new in self.redefined:
            lines.append(f"* {new.id} {new.name}")
            for field in _MEANING:
                before, after = getattr(old, field), getattr(new, field)
                if before != after:
                    lines += [f"    {field}: {_shown(before)}", f"    {' ' * len(field)}→ {_shown(after)}"]
        return "\n".join(lines) or "no differences"


_MEANING = ("definition", "area", "includes", "excludes")


def diff(old: Taxonomy, new: Taxonomy) -> Diff:
    """Compare two taxonomies intent by intent (by id)."""
    before = {intent.id: intent for intent in old.intents}
    after = {intent.id: intent for intent in new.intents}
    both = [(before[i], after[i]) for i in before if i in after]
    return Diff(
        added=tuple(intent for i, intent in after.items() if i not in before),
        removed=tuple(intent for i, intent in before.items() if i not in after),
        renamed=tuple((a, b) for a, b in both if a.name != b.name),
        redefined=tuple((a, b) for a, b in both if any(getattr(a, f) != getattr(b, f) for f in _MEANING)),
    )


def _place(loc: tuple[int | str, ...], data: Any) -> tuple[int | str, ...]:
    """Where the value of an error stands in the file: a keyword's weight stands beside the keyword."""
    if len(loc) == 4 and loc[2] == "keyword_weights":
        keywords = data["intents"][loc[1]].get("keywords")
        if isinstance(keywords, dict):
            return (*loc[:2], "keywords", list(keywords)[int(loc[3])])
    return loc


def _shown(value: Any) -> str:
    return "; ".join(value) if isinstance(value, tuple) else str(value or "none")


def _what(loc: tuple[int | str, ...], error: Any) -> str:
    where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in loc).lstrip(".")
    kind = error["type"]
    if kind == "extra_forbidden":
        problem = "unknown key; check its spelling"
    elif kind == "missing":
        problem = "is required"
    elif kind == "string_type":
        problem = f"must be text (got {error['input']!r}); put it in quotes"
    elif kind in ("string_too_short", "too_short"):
        problem = "must not be empty"
    else:
        problem = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {problem}" if where else problem
