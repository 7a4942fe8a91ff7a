"""What people do to a taxonomy: pure functions that return a new one.

Ids are stable: an intent keeps its id through renaming, moving and redefining. Merging, splitting and
rejecting retire ids, and no id is ever given to another intent. Every change takes the signature from the
taxonomy and from the intent that it touches. The version is not counted up here: changes are made to the
next version, which ``taxonomy.revised()`` begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError

from clickintent.errors import ArtifactError
from clickintent.taxonomy.content import fold
from clickintent.taxonomy.taxonomy import Intent, Retired, Taxonomy, approval_of

_EXAMPLES = 3  # kept of merged intents
_NUMBERED = re.compile(r"i(\d+)")


def rename(taxonomy: Taxonomy, id_: str, name: str) -> Taxonomy:
    """Call an intent something else.

    Raises:
        ArtifactError: if there is no such intent, or the name is empty or taken.
    """
    return _with(taxonomy, id_, name=name)


def redefine(
    taxonomy: Taxonomy,
    id_: str,
    *,
    definition: str | None = None,
    includes: Sequence[str] | None = None,
    excludes: Sequence[str] | None = None,
) -> Taxonomy:
    """Say anew what an intent is; what is None stays.

    Raises:
        ArtifactError: if there is no such intent, or a text is empty.
    """
    changes = {"definition": definition, "includes": includes, "excludes": excludes}
    return _with(taxonomy, id_, **{key: value for key, value in changes.items() if value is not None})


def move(taxonomy: Taxonomy, id_: str, area: str) -> Taxonomy:
    """Put an intent into another area.

    Raises:
        ArtifactError: if there is no such intent, or the area is empty.
    """
    return _with(taxonomy, id_, area=area)


def merge(taxonomy: Taxonomy, ids: Iterable[str], into: str) -> Taxonomy:
    """Make several intents one, which keeps the id, name and definition of ``into``.

    It includes the others by their names, and knows their keywords.

    Raises:
        ArtifactError: if one of them is not there, or none is given beside ``into``.
    """
    kept = taxonomy.intent(into)
    gone = [taxonomy.intent(id_) for id_ in dict.fromkeys(ids) if id_ != into]
    if not gone:
        raise ArtifactError(f"merge needs an intent other than {into} to merge into it.")
    all_of_them = [kept, *gone]
    keywords: dict[str, float] = {}
    for intent in all_of_them:
        for word, weight in intent.weighted_keywords().items():
            keywords[word] = max(weight, keywords.get(word, 0.0))
    weighted = any(intent.keyword_weights for intent in all_of_them)
    wider = _changed(
        kept,
        includes=tuple(dict.fromkeys([*kept.includes, *(intent.name for intent in gone)])),
        keywords=tuple(keywords),
        keyword_weights=tuple(keywords.values()) if weighted else (),
        examples=tuple(dict.fromkeys(text for intent in all_of_them for text in intent.examples))[:_EXAMPLES],
    )
    left = [
        wider if intent.id == into else intent
        for intent in taxonomy.intents
        if intent.id not in {g.id for g in gone}
    ]
    return _checked(taxonomy, left, [_retired(taxonomy, intent, (into,)) for intent in gone])


def split(taxonomy: Taxonomy, id_: str, parts: Sequence[tuple[str, str]]) -> Taxonomy:
    """Make several intents of one, in its place and area, with new ids.

    Args:
        parts: name and definition of each.

    Raises:
        ArtifactError: if there is no such intent, or there are fewer than two parts.
    """
    gone = taxonomy.intent(id_)
    if len(parts) < 2:
        raise ArtifactError(f"splitting {id_} needs at least two names and definitions.")
    others = [intent for intent in taxonomy.intents if intent.id != id_]
    ids = new_ids(taxonomy, len(parts))
    new = [_intent(id=i, name=n, definition=d, area=gone.area) for i, (n, d) in zip(ids, parts, strict=True)]
    at = taxonomy.intent_ids.index(id_)
    return _checked(taxonomy, [*others[:at], *new, *others[at:]], [_retired(taxonomy, gone, tuple(ids))])


def reject(taxonomy: Taxonomy, id_: str) -> Taxonomy:
    """Take an intent out; nothing takes its place.

    Raises:
        ArtifactError: if there is no such intent, or it is the last one.
    """
    gone = taxonomy.intent(id_)
    left = [intent for intent in taxonomy.intents if intent.id != id_]
    if not left:
        raise ArtifactError(f"{id_} is the last intent; a taxonomy needs one.")
    return _checked(taxonomy, left, [_retired(taxonomy, gone, ())])


def add(taxonomy: Taxonomy, name: str, definition: str, **more: Any) -> Taxonomy:
    """Add an intent with a new id at the end.

    Args:
        more: further fields of ``Intent``.

    Raises:
        ArtifactError: if a text is empty or the name is taken.
    """
    (id_,) = new_ids(taxonomy, 1)
    return _checked(taxonomy, [*taxonomy.intents, _intent(id=id_, name=name, definition=definition, **more)])


def approve_intent(taxonomy: Taxonomy, id_: str, by: str) -> Taxonomy:
    """Sign one intent as it reads now. The signature of the whole taxonomy is not touched.

    Raises:
        ArtifactError: if there is no such intent, or ``by`` is empty.
    """
    intent = taxonomy.intent(id_)
    signed = intent.model_copy(update={"approved": approval_of(intent.digest, by)})
    intents = tuple(signed if i.id == id_ else i for i in taxonomy.intents)
    return taxonomy.model_copy(update={"intents": intents})


def new_ids(taxonomy: Taxonomy, count: int) -> list[str]:
    """Ids that no intent has, or ever had."""
    used = [*taxonomy.intent_ids, *(retired.id for retired in taxonomy.retired)]
    last = max((int(m[1]) for m in map(_NUMBERED.fullmatch, used) if m), default=0)
    return [f"i{last + n:02d}" for n in range(1, count + 1)]


def settle(previous: Taxonomy, edited: Taxonomy) -> Taxonomy:
    """The next version, from a file that somebody edited by hand.

    Ids that were simply deleted are retired, and ids that were retired before stay so.

    Raises:
        ArtifactError: if an intent was given an id that was retired before.
    """
    known = {retired.id: retired for retired in previous.retired}
    back = [id_ for id_ in edited.intent_ids if id_ in known]
    if back:
        raise ArtifactError(
            f"{back[0]} was the id of {known[back[0]].name!r} and may not be given to another intent. Take a "
            f"new one, such as {new_ids(previous, 1)[0]}."
        )
    version = previous.version + 1
    known |= {retired.id: retired for retired in edited.retired}
    for intent in previous.intents:
        if intent.id not in edited.intent_ids and intent.id not in known:
            known[intent.id] = Retired(id=intent.id, name=intent.name)
    retired = [r if r.version else r.model_copy(update={"version": version}) for r in known.values()]
    return _checked(edited.model_copy(update={"version": version}), edited.intents, retired, keep=())


def succeed(previous: Taxonomy, drafted: Taxonomy) -> Taxonomy:
    """A fresh draft as the next version of the taxonomy that it replaces; that one if nothing differs.

    A draft numbers its intents from one, so ids are given anew: an intent of a name that was there keeps that
    one's id, and every other one gets an id that was never used.
    """
    by_name = {fold(intent.name): intent.id for intent in previous.intents}
    fresh = iter(new_ids(previous, len(drafted.intents)))
    intents, taken = [], set()
    for intent in drafted.intents:
        id_ = by_name.get(fold(intent.name))
        id_ = next(fresh) if id_ is None or id_ in taken else id_
        taken.add(id_)
        intents.append(intent.model_copy(update={"id": id_}))
    renumbered = drafted.model_copy(update={"intents": tuple(intents), "retired": previous.retired})
    if renumbered.digest == previous.digest:
        return previous
    return settle(previous, renumbered)


def _with(taxonomy: Taxonomy, id_: str, **changes: Any) -> Taxonomy:
    changed = _changed(taxonomy.intent(id_), **changes)
    return _checked(taxonomy, [changed if intent.id == id_ else intent for intent in taxonomy.intents])


def _changed(intent: Intent, **changes: Any) -> Intent:
    new = _intent(**(intent.model_dump() | changes))
    return new if new.digest == intent.digest else new.model_copy(update={"approved": None})


def _intent(**fields: Any) -> Intent:
    try:
        return Intent.model_validate(fields)
    except ValidationError as error:
        raise ArtifactError(_first(error)) from error


def _retired(taxonomy: Taxonomy, intent: Intent, into: tuple[str, ...]) -> Retired:
    return Retired(id=intent.id, name=intent.name, version=taxonomy.version, into=into)


def _checked(
    taxonomy: Taxonomy,
    intents: Sequence[Intent],
    retired: Sequence[Retired] = (),
    *,
    keep: Sequence[Retired] | None = None,
) -> Taxonomy:
    """The taxonomy with these intents, and ``retired`` beside those that it keeps (by default all it has)."""
    data = taxonomy.model_dump() | {"approved_by": None, "approved_at": None, "approved_digest": None}
    data["intents"] = [intent.model_dump() for intent in intents]
    data["retired"] = [r.model_dump() for r in (*(taxonomy.retired if keep is None else keep), *retired)]
    try:
        return Taxonomy.model_validate(data)
    except ValidationError as error:
        raise ArtifactError(_first(error)) from error


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    where = f"{first['loc'][-1]} " if first["loc"] else ""
    return f"{where}{str(first['msg']).removeprefix('Value error, ')}".removesuffix(".") + "."
