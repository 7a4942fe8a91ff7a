"""The walk through a taxonomy: commands on one intent after the other, as text, without a terminal.

``Walk`` knows where it is and what a line means; whoever drives it shows what it says, gives it lines, and
keeps each decision before the next line is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

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
_DECIDING = ("approve", "rename", "redefine", "move", "merge", "split", "reject")
_PROPOSED = ("accept", "dismiss")


class CommandError(ArtifactError):
    """A line of a review that cannot be followed. Nothing was changed."""


@dataclass(frozen=True)
class Made:
    """What a line decided."""

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
        made = self._decide(verb, here.id, rest, why.strip() or None)
        self.taxonomy, self.proposals = made.taxonomy, made.proposals
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

    def _decide(self, verb: str, id_: str, rest: str, why: str | None) -> Made:
        if verb in ("rename", "redefine", "move", "merge", "split") and not rest:
            raise CommandError(f"{verb} needs something after it; see help.")
        if verb in ("approve", "reject", "dismiss") and rest:
            raise CommandError(
                f"{verb} is about {id_}, which is shown, and takes nothing after it but a reason, after two "
                "dashes. For another intent: go ID first."
            )
        if verb == "approve":
            return Made(
                verb, id_, None, why, edit.approve_intent(self.taxonomy, id_, self.by), self.proposals
            )
        if verb == "dismiss":
            name = next(p.name for p in self.proposals if p.id == id_)
            return Made(verb, id_, name, why, self.taxonomy, self._without(id_))
        base = self.taxonomy if self._changed else self.taxonomy.revised()
        what: str | None = rest or None
        proposals = self.proposals
        if verb == "rename":
            after = edit.rename(base, id_, rest)
        elif verb == "redefine":
            after = edit.redefine(base, id_, definition=rest)
        elif verb == "move":
            after = edit.move(base, id_, rest)
        elif verb == "merge":
            after, what = edit.merge(base, [id_], rest), f"into {rest}"
        elif verb == "split":
            after = edit.split(base, id_, _parts(rest))
            new = [i for i in after.intent_ids if i not in base.intent_ids]
            what = f"into {', '.join(new)}"
            self.queue[self.at + 1 : self.at + 1] = new
        elif verb == "reject":
            after = edit.reject(base, id_)
        else:
            proposal = next(p for p in self.proposals if p.id == id_)
            after = edit.add(base, rest or proposal.name, proposal.definition, **proposal.fields())
            what = f"as {after.intent_ids[-1]} {after.intents[-1].name}"
            self.queue.append(after.intent_ids[-1])
            proposals = self._without(id_)
        self._changed = True
        return Made(verb, id_, what, why, after, proposals)

    def _without(self, id_: str) -> tuple[Proposal, ...]:
        return tuple(proposal for proposal in self.proposals if proposal.id != id_)

    def _find(self, id_: str) -> Intent | Proposal | None:
        return next((found for found in self._everything() if found.id == id_), None)

    def _everything(self) -> list[Intent | Proposal]:
        return [*self.taxonomy.intents, *self.proposals]


def _parts(text: str) -> Sequence[tuple[str, str]]:
    parts = []
    for part in text.split("|"):
        name, colon, definition = part.partition(":")
        if not colon or not name.strip() or not definition.strip():
            raise CommandError("split wants NAME: DEFINITION for each part, and | between them.")
        parts.append((name.strip(), definition.strip()))
    return parts
