"""Decisions on a taxonomy, and the walk through it: commands on one intent after the other, as text.

``decide`` makes one decision. ``Walk`` knows where it is and what a line means, without a terminal; whoever
drives it shows what it says, gives it lines, and keeps each decision before the next line is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from clickintent.errors import ArtifactError
from clickintent.taxonomy import edit
from clickintent.taxonomy.novelty import Proposal
from clickintent.taxonomy.taxonomy import Intent, Taxonomy

HELP = """\
approve                           it is right as it stands
rename NAME                       another name
redefine DEFINITION               another definition
move AREA                         to another area
merge ID                          it is the same as ID, which stays
split NAME: DEFINITION | NAME: DEFINITION …
reject                            it is no intent
skip (or an empty line), back, go ID, list, help, quit
The first letters are enough where no other command begins with them: a, mo AREA, q.
For a proposal: accept, or accept NAME; dismiss.
A reason may follow any of them, after two dashes: reject -- nobody could act on it
"""
_WALKING = ("skip", "back", "go", "list", "help", "quit")
OnIntent = Literal["approve", "rename", "redefine", "move", "merge", "split", "reject"]
OnProposal = Literal["accept", "dismiss"]
_DECIDING: tuple[OnIntent, ...] = get_args(OnIntent)
_PROPOSED: tuple[OnProposal, ...] = get_args(OnProposal)
#: What ``Wanted.value`` is, where there must be one.
_VALUES = {"rename": "a name", "redefine": "a definition", "move": "an area", "merge": "an id to merge into"}


class CommandError(ArtifactError):
    """A decision that cannot be made, or a line that cannot be followed. Nothing was changed.

    Attributes:
        field: of ``Wanted``, where that is known.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Wanted:
    """A decision that somebody wants to be made.

    Attributes:
        intent: the id of the intent or the proposal.
        value: the new name, definition or area; the id to merge into; the name to accept under, where it is
            not the proposal's own.
        parts: names and definitions of what it is split into.
    """

    action: OnIntent | OnProposal
    intent: str
    value: str | None = None
    parts: tuple[tuple[str, str], ...] = ()
    why: str | None = None


@dataclass(frozen=True)
class Made:
    """What was decided."""

    action: str
    intent: str  # the id of the intent or the proposal
    what: str | None
    why: str | None
    taxonomy: Taxonomy  # as it is afterwards
    proposals: tuple[Proposal, ...]  # still open


@dataclass
class Walk:
    """A review in progress.

    Attributes:
        taxonomy: as it is now; the first decision that changes more than signatures begins the next version.
        proposals: new intents that are still to be decided.
        everything: also look at intents that are approved as they read now.
        queue: ids of the intents and proposals to be looked at, in their order.
        at: where in the queue.
    """

    taxonomy: Taxonomy
    by: str
    proposals: tuple[Proposal, ...] = ()
    everything: bool = False
    queue: list[str] = field(default_factory=list)
    at: int = 0
    said: str = ""  # what the last line wants to be shown
    _changed: bool = False

    def __post_init__(self) -> None:
        intents = [i.id for i in self.taxonomy.intents if self.everything or not i.is_approved]
        self.queue = [*intents, *(proposal.id for proposal in self.proposals)]

    @property
    def here(self) -> Intent | Proposal | None:
        """What is being looked at; None at the end."""
        while self.at < len(self.queue):
            found = self._find(self.queue[self.at])
            if found is not None:
                return found
            self.at += 1  # it was merged into another one, on the way
        return None

    def decides(self, line: str) -> bool:
        """Whether a line, if it can be followed, decides something."""
        words = line.partition(" -- ")[0].split(maxsplit=1)
        return self._verb(words[0] if words else "") not in _WALKING

    def next_version(self) -> None:
        """Let the next change begin another version, because the present one is in use."""
        self._changed = False

    def follow(self, line: str) -> Made | Literal["quit"] | None:
        """Do what a line says; None if it decided nothing.

        Raises:
            CommandError: if it is no command, or cannot be done; nothing was changed.
        """
        self.said = ""
        command, _, why = line.strip().partition(" -- ")
        verb, rest = (*command.split(maxsplit=1), "", "")[:2]
        rest, here = rest.strip(), self.here
        verb = self._verb(verb)
        if verb == "quit":
            return "quit"
        if verb in _WALKING:
            self._walk(verb, rest)
            return None
        if here is None:
            raise CommandError("there is nothing left to decide on; go ID, or quit.")
        if (verb in _PROPOSED) != isinstance(here, Proposal):
            raise CommandError(f"{verb} does not go with {here.id}; see help.")
        made = self._decide(_wanted(verb, here.id, rest, why.strip() or None))
        if verb not in ("rename", "redefine", "move"):  # after those, one may go on with the same intent
            self.at += 1
        return made

    def _verb(self, word: str) -> str:
        """The command that a word is, or of those that go with what is looked at the only one it begins."""
        verbs: tuple[str, ...] = (*_WALKING, *_DECIDING, *_PROPOSED)
        if not word:
            return "skip"
        if word in verbs:
            return word
        fitting: tuple[str, ...] = (*_WALKING, *(_PROPOSED if isinstance(self.here, Proposal) else _DECIDING))
        begun = [verb for verb in fitting if verb.startswith(word)]
        if len(begun) != 1:
            several = f" {word!r} may be {' or '.join(begun)}." if begun else ""
            raise CommandError(f"{word!r} is none of {', '.join(fitting)}.{several}")
        return begun[0]

    def _walk(self, verb: str, rest: str) -> None:
        if verb == "skip":
            self.at = min(self.at + 1, len(self.queue))
        elif verb == "back":
            before = [n for n in range(min(self.at, len(self.queue))) if self._find(self.queue[n])]
            self.at = before[-1] if before else self.at
        elif verb == "go":
            if self._find(rest) is None:
                raise CommandError(f"there is no intent or proposal {rest!r}; list shows all.")
            if rest not in self.queue:
                self.queue.insert(self.at, rest)
            self.at = self.queue.index(rest)
        elif verb == "list":
            self.said = "\n".join(f"{found.id}  {found.name}" for found in self._everything())
        else:
            self.said = HELP

    def _decide(self, wanted: Wanted) -> Made:
        made = decide(self.taxonomy, self.proposals, wanted, self.by, is_open=self._changed)
        new = [id_ for id_ in made.taxonomy.intent_ids if id_ not in self.taxonomy.intent_ids]
        at = self.at + 1 if wanted.action == "split" else len(self.queue)
        self.queue[at:at] = new
        self._changed = self._changed or made.taxonomy.version != self.taxonomy.version
        self.taxonomy, self.proposals = made.taxonomy, made.proposals
        return made

    def _find(self, id_: str) -> Intent | Proposal | None:
        return next((found for found in self._everything() if found.id == id_), None)

    def _everything(self) -> list[Intent | Proposal]:
        return [*self.taxonomy.intents, *self.proposals]


def decide(
    taxonomy: Taxonomy, proposals: Sequence[Proposal], wanted: Wanted, by: str, *, is_open: bool
) -> Made:
    """Make one decision.

    Args:
        proposals: those that are open.
        is_open: the version of ``taxonomy`` is still being made; otherwise a decision that changes more than
            signatures begins the next one.

    Raises:
        CommandError: if it cannot be made; says which field of ``wanted`` is wrong.
    """
    on, id_, value = wanted.action, wanted.intent, (wanted.value or "").strip()
    if on in _VALUES and not value:
        raise CommandError(f"{on} needs {_VALUES[on]}.", "value")
    proposal = next((p for p in proposals if p.id == id_), None)
    if on in _PROPOSED:
        if proposal is None:
            raise CommandError(f"there is no proposal {id_!r}.", "intent")
    else:
        _there(taxonomy, id_)
    left = tuple(p for p in proposals if p is not proposal) if on in _PROPOSED else tuple(proposals)
    what: str | None = value or None
    try:
        if on == "approve":
            return Made(on, id_, None, wanted.why, edit.approve_intent(taxonomy, id_, by), left)
        if on == "dismiss":
            assert proposal is not None
            return Made(on, id_, proposal.name, wanted.why, taxonomy, left)
        base = taxonomy if is_open else taxonomy.revised()
        if on == "rename":
            after = edit.rename(base, id_, value)
        elif on == "redefine":
            after = edit.redefine(base, id_, definition=value)
        elif on == "move":
            after = edit.move(base, id_, value)
        elif on == "merge":
            after, what = edit.merge(base, [id_], value), f"into {value}"
        elif on == "split":
            after = edit.split(base, id_, wanted.parts)
            what = f"into {', '.join(i for i in after.intent_ids if i not in base.intent_ids)}"
        elif on == "reject":
            after, what = edit.reject(base, id_), None
        else:
            assert proposal is not None
            after = edit.add(base, value or proposal.name, proposal.definition, **proposal.fields())
            what = f"as {after.intent_ids[-1]} {after.intents[-1].name}"
    except ArtifactError as error:
        field = "parts" if on == "split" else "intent" if on == "reject" else "value"
        raise CommandError(str(error), field) from error
    return Made(on, id_, what, wanted.why, after, left)


def seen(taxonomy: Taxonomy, proposals: Sequence[Proposal]) -> str:
    """A digest of what a decision is made on: the taxonomy, and the proposals where there are any.

    It tells whether somebody changed them in the meantime. Proposals are numbered anew whenever they are
    looked for, so their ids alone do not say which is meant.
    """
    if not proposals:
        return taxonomy.digest
    text = json.dumps([proposal.model_dump(mode="json") for proposal in proposals], sort_keys=True)
    return f"{taxonomy.digest}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _there(taxonomy: Taxonomy, id_: str) -> None:
    try:
        taxonomy.intent(id_)
    except ArtifactError as error:
        raise CommandError(str(error), "intent") from error


def _wanted(verb: str, id_: str, rest: str, why: str | None) -> Wanted:
    """What a line wants."""
    if verb in (*_VALUES, "split") and not rest:
        raise CommandError(f"{verb} needs something after it; see help.")
    if verb in ("approve", "reject", "dismiss") and rest:
        raise CommandError(
            f"{verb} is about {id_}, which is shown, and takes nothing after it but a reason, after two "
            "dashes. For another intent: go ID first."
        )
    action = next(known for known in (*_DECIDING, *_PROPOSED) if known == verb)
    if action == "split":
        return Wanted(action, id_, parts=tuple(_parts(rest)), why=why)
    return Wanted(action, id_, rest or None, why=why)


def _parts(text: str) -> Sequence[tuple[str, str]]:
    parts = []
    for part in text.split("|"):
        name, colon, definition = part.partition(":")
        if not colon or not name.strip() or not definition.strip():
            raise CommandError("split wants NAME: DEFINITION for each part, and | between them.")
        parts.append((name.strip(), definition.strip()))
    return parts
