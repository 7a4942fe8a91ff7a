"""The taxonomy of intents: a versioned YAML file that people read, edit and approve.

It is the contract between whoever names intents (a language model, the keyword namer, a person) and
whoever uses them. Ids never change their meaning; a changed set of intents is a new version.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
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
from clickintent.taxonomy.diff import Diff, diff
from clickintent.workspace import write_text

_UNAPPROVED = {"approved_by": None, "approved_at": None, "approved_digest": None}

_ID = re.compile(r"[A-Za-z][\w-]*")
NO_INTENT = "none"  # what people write who label, for "none of these"; no intent may be called so

_HEADER = """\
# The taxonomy of intents. Edit names, definitions and lists freely; keep the ids: labels refer to them.
# keywords: a list, or a mapping of keyword to weight (0 to 1); they are what the keyword namer matches.
# An intent that goes leaves its id and name under retired, and no other intent may ever have that id.
# into: the ids of the intents that took its place (one: merged, several: split, none: it was no intent).
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


Id = Annotated[str, AfterValidator(_is_id)]
Time = Annotated[str, BeforeValidator(_time)]  # ISO 8601


class Approval(_Frozen):
    """Who stands for an intent as it read then."""

    by: Line
    at: Time
    digest: str  # of what was approved: an edit afterwards shows


class Intent(_Frozen):
    """What some sessions want, in words."""

    id: Id
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
    approved: Approval | None = None

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

    @property
    def digest(self) -> str:
        """Changes with everything that says what the intent is; not with its examples and its approval."""
        return _digest(self.model_dump(mode="json", exclude={"approved", "examples"}))

    @property
    def is_approved(self) -> bool:
        """Whether somebody approved the intent as it reads now."""
        return self.approved is not None and self.approved.digest == self.digest


class Retired(_Frozen):
    """The id of an intent that is no more, so that it is never given to another one."""

    id: Id
    name: Line
    version: Annotated[int, Field(ge=1)] | None = None  # the first without it
    into: Annotated[tuple[Id, ...], BeforeValidator(_as_tuple)] = ()


class _InconsistentError(ValueError):
    """Values that do not go together, each with its place in the file."""

    def __init__(self, mistakes: list[tuple[marked_yaml.Path, str]]) -> None:
        self.mistakes = mistakes
        super().__init__(mistakes[0][1])


class Taxonomy(_Frozen):
    """A version of the intents. Immutable: ``revised`` and ``approve`` return new ones."""

    version: Annotated[int, Field(ge=1)] = 1
    source: Literal["llm", "keywords", "human"]
    model: Line | None = None  # of the language model that drafted it
    approved_by: Line | None = None
    approved_at: Time | None = None
    approved_digest: str | None = None
    #: Keyword namer: confidence = logistic(a · similarity + b · its share among intents + c).
    calibration: Annotated[tuple[Annotated[float, Field(strict=False)], ...], BeforeValidator(_as_tuple)] = ()
    intents: Annotated[tuple[Intent, ...], BeforeValidator(_as_tuple), Field(min_length=1)]

    retired: Annotated[tuple[Retired, ...], BeforeValidator(_as_tuple)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Taxonomy:
        mistakes = list(_mistakes(self))
        if mistakes:
            raise _InconsistentError(mistakes)
        return self

    @property
    def intent_ids(self) -> tuple[str, ...]:
        return tuple(intent.id for intent in self.intents)

    @property
    def digest(self) -> str:
        """Changes with what the intents are and the ids that are retired; not with the version, who approved
        it and the examples, which go when a person is forgotten.
        """
        data = self.model_dump(mode="json", include={"source", "model", "calibration"})
        data["intents"] = [intent.digest for intent in self.intents]
        data["retired"] = [(retired.id, retired.into) for retired in self.retired]
        return _digest(data)

    @property
    def is_approved(self) -> bool:
        """Whether somebody approved the taxonomy as it reads now."""
        return self.approved_by is not None and self.approved_digest in (None, self.digest)

    def intent(self, id_: str) -> Intent:
        """The intent of that id.

        Raises:
            ArtifactError: if there is none; says what became of it.
        """
        for intent in self.intents:
            if intent.id == id_:
                return intent
        gone = next((retired for retired in self.retired if retired.id == id_), None)
        if gone is None:
            raise ArtifactError(f"there is no intent {id_!r}; the ids are {', '.join(self.intent_ids)}.")
        into = ", ".join(self.successors(id_))
        raise ArtifactError(f"{id_} ({gone.name}) is retired" + (f"; see {into}." if into else "."))

    def successors(self, id_: str) -> tuple[str, ...]:
        """The present intents that an id stands for: itself, those that took its place, or none."""
        if id_ in self.intent_ids:
            return (id_,)
        into = next((retired.into for retired in self.retired if retired.id == id_), ())
        return tuple(dict.fromkeys(found for next_ in into for found in self.successors(next_)))

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
                f"  line {document.line(place)}: {what}"
                for e in error.errors()
                for place, what in _places(e, document.value)
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
            if intent.approved is None:
                del raw["approved"]
            raw["keywords"] = intent.weighted_keywords() if intent.keyword_weights else list(intent.keywords)
        if not self.retired:
            del data["retired"]
        return _HEADER + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)

    def revised(self, **changes: Any) -> Taxonomy:
        """The next version, with ``changes``; nobody has approved it yet.

        Raises:
            ArtifactError: if the changes do not make a valid taxonomy.
        """
        data = self.model_dump() | _UNAPPROVED | changes
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
    approval = approval_of(taxonomy.digest, by)
    return taxonomy.model_copy(
        update={
            "approved_by": approval.by,
            "approved_at": approval.at,
            "approved_digest": approval.digest,
        }
    )


def approval_of(digest: str, by: str) -> Approval:
    """``by``'s signature, now, under what has this digest.

    Raises:
        ArtifactError: if ``by`` is empty.
    """
    name = _line(by)
    if not name:
        raise ArtifactError("approve needs the name of who approves.")
    return Approval(by=name, at=datetime.now(UTC).isoformat(timespec="seconds"), digest=digest)


def _mistakes(taxonomy: Taxonomy) -> Iterator[tuple[marked_yaml.Path, str]]:
    """What does not go together, and where it stands."""
    for key in ("id", "name"):
        seen: set[str] = set()
        for n, intent in enumerate(taxonomy.intents):
            value = getattr(intent, key).casefold()  # of ids, too: labels by people do not tell cases apart
            if value in seen:
                yield ("intents", n, key), f"the {key} {value!r} is given to two intents (in whatever case)"
            seen.add(value)
            if key == "id" and value == NO_INTENT:
                yield ("intents", n, key), f"the id {intent.id!r} means that no intent fits; take another one"
    if len(taxonomy.calibration) not in (0, 3):
        yield ("calibration",), "calibration is three numbers, or left out"
    yield from _mistakes_of_retired(taxonomy)


def _mistakes_of_retired(taxonomy: Taxonomy) -> Iterator[tuple[marked_yaml.Path, str]]:
    into = {retired.id: retired.into for retired in taxonomy.retired}
    seen: set[str] = set()
    for n, retired in enumerate(taxonomy.retired):
        if retired.id in taxonomy.intent_ids:
            yield ("retired", n, "id"), f"the id {retired.id!r} is retired; give the intent a new one"
        if retired.id in seen:
            yield ("retired", n, "id"), f"the id {retired.id!r} is retired twice"
        seen.add(retired.id)
        for m, target in enumerate(retired.into):
            place = ("retired", n, "into", m)
            if target not in into and target not in taxonomy.intent_ids:
                yield place, f"{target!r} is no intent and not retired; check the id"
            elif _reaches(target, retired.id, into):
                yield place, f"{retired.id!r} would take its own place, by way of {target!r}"


def _reaches(start: str, goal: str, into: dict[str, tuple[str, ...]]) -> bool:
    todo, seen = [start], set()
    while todo:
        at = todo.pop()
        if at == goal:
            return True
        if at not in seen:
            seen.add(at)
            todo.extend(into.get(at, ()))
    return False


def _digest(data: Any) -> str:
    text = json.dumps(data, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _places(error: Any, data: Any) -> list[tuple[marked_yaml.Path, str]]:
    """Where each mistake of a validation error stands, and what it is."""
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, _InconsistentError):
        return cause.mistakes
    return [(_place(error["loc"], data), _what(error["loc"], error))]


def _place(loc: tuple[int | str, ...], data: Any) -> tuple[int | str, ...]:
    """Where the value of an error stands in the file: a keyword's weight stands beside the keyword."""
    if len(loc) == 4 and loc[2] == "keyword_weights":
        keywords = data["intents"][loc[1]].get("keywords")
        if isinstance(keywords, dict):
            return (*loc[:2], "keywords", list(keywords)[int(loc[3])])
    return loc


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
