"""Drafting the taxonomy with a language model: generate, update, review.

The way of TnT-LLM (Wan et al. 2024) and of PAPER's third step: the first minibatch of sessions gives a draft,
each further one changes it, a review brings it down to the wanted size. Updates and the review answer with
changes, not with the whole list, so that an intent is never lost because the model forgot to repeat it.
Whatever refers to an id or a session that was not given is dropped and counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from pydantic import BaseModel

from clickintent.config import TaxonomyConfig
from clickintent.errors import LanguageModelError
from clickintent.progress import progress, say
from clickintent.taxonomy.content import fold, redact, shorten
from clickintent.taxonomy.llm import LanguageModel
from clickintent.taxonomy.prompts import prompt
from clickintent.taxonomy.taxonomy import Intent, Taxonomy

_EXAMPLES = 3  # kept per intent
_NAME, _DEFINITION, _ITEM = 80, 400, 160  # longest accepted texts, in characters
_WHILE_DRAFTING = 1.5  # times as many intents as wanted in the end may stand until the review
_REVIEWS = 3


class DraftIntent(BaseModel):
    """An intent as the model writes it."""

    id: str
    area: str
    name: str
    definition: str
    includes: list[str]
    excludes: list[str]
    examples: list[int]


class Draft(BaseModel):
    """Answer to the first minibatch."""

    intents: list[DraftIntent]


class Merge(BaseModel):
    """Intents that mean the same."""

    into: str
    ids: list[str]


class Revision(BaseModel):
    """Answer to a further minibatch, and to the review: changes only."""

    intents: list[DraftIntent]
    merges: list[Merge]
    remove: list[str]


@dataclass(frozen=True)
class _Entry:
    intent: Intent
    support: int  # sessions that were named as examples of it


@dataclass
class _Board:
    """The intents so far, by id, and what had to be dropped from answers."""

    entries: dict[str, _Entry] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    issued: int = 0

    def intents(self) -> list[Intent]:
        return [entry.intent for entry in self.entries.values()]

    def apply(self, revision: Revision, narratives: Sequence[str], *, may_add: bool = True) -> None:
        for draft in revision.intents:
            self._write(draft, narratives, may_add)
        for merge in revision.merges:
            self._merge(merge)
        for id_ in revision.remove:
            if self._known(id_) and len(self.entries) > 1:
                del self.entries[id_]

    def _write(self, draft: DraftIntent, narratives: Sequence[str], may_add: bool) -> None:
        name, definition = _clean(draft.name, _NAME), _clean(draft.definition, _DEFINITION)
        if not name or not definition:
            self.dropped["intents without a name or definition"] += 1
            return
        shown = self._examples(draft.examples, narratives)
        id_ = draft.id.strip() or self._id_of(name) or ""
        if id_ and not self._known(id_):
            return
        if not id_:
            if not may_add or not shown:
                self.dropped["new intents without an example session"] += 1
                return
            self.issued += 1
            id_ = f"i{self.issued:02d}"
        other = self._id_of(name)
        if other not in (None, id_):  # renamed to what another one is already called
            self.dropped["names given twice"] += 1
            return
        old = self.entries.get(id_)
        examples = tuple(dict.fromkeys([*(old.intent.examples if old else ()), *shown]))[:_EXAMPLES]
        intent = Intent(
            id=id_,
            name=name,
            definition=definition,
            area=_clean(draft.area, _NAME) or None,
            includes=_clean_all(draft.includes),
            excludes=_clean_all(draft.excludes),
            examples=examples,
        )
        self.entries[id_] = _Entry(intent, (old.support if old else 0) + len(shown))

    def _merge(self, merge: Merge) -> None:
        if not self._known(merge.into):
            return
        for id_ in merge.ids:
            if id_ == merge.into or not self._known(id_):
                continue
            kept, gone = self.entries[merge.into], self.entries.pop(id_)
            examples = tuple(dict.fromkeys(kept.intent.examples + gone.intent.examples))[:_EXAMPLES]
            includes = tuple(dict.fromkeys([*kept.intent.includes, gone.intent.name]))
            intent = kept.intent.model_copy(update={"examples": examples, "includes": includes})
            self.entries[merge.into] = _Entry(intent, kept.support + gone.support)

    def _examples(self, numbers: Sequence[int], narratives: Sequence[str]) -> list[str]:
        known = [n for n in dict.fromkeys(numbers) if 1 <= n <= len(narratives)]
        self.dropped["unknown session numbers"] += len(set(numbers)) - len(known)
        return [narratives[n - 1] for n in known]

    def _known(self, id_: str) -> bool:
        if id_ in self.entries:
            return True
        self.dropped["unknown intent ids"] += 1
        return False

    def _id_of(self, name: str) -> str | None:
        return next((i for i, e in self.entries.items() if fold(e.intent.name) == fold(name)), None)


def generate(
    narratives: Sequence[str], model: LanguageModel, config: TaxonomyConfig, *, seed: int
) -> Taxonomy:
    """Draft a taxonomy of at most ``config.intents`` intents from narratives of sampled sessions.

    Raises:
        LanguageModelError: if the model cannot be reached, or names no usable intent.
    """
    system = prompt("system")
    order = np.random.default_rng(seed).permutation(len(narratives))  # every minibatch sees all clusters
    size = config.minibatch
    batches = [[narratives[i] for i in order[at : at + size]] for at in range(0, len(order), size)]
    wide = max(config.intents, math.ceil(_WHILE_DRAFTING * config.intents))
    board = _Board()
    with progress("draft", len(batches) + 1, "requests") as advance:
        for number, batch in enumerate(batches):
            sessions = as_data(batch)
            if not board.entries:
                user = prompt("generate", limit=wide, sessions=sessions)
                drafted = model.complete(system, user, Draft)
                board.apply(Revision(intents=_new(drafted), merges=[], remove=[]), batch)
            else:
                user = prompt("update", limit=wide, sessions=sessions, taxonomy=described(board.intents()))
                board.apply(model.complete(system, user, Revision), batch)
            advance(number + 1, f"({len(board.entries)} intents)")
        if not board.entries:
            raise LanguageModelError(
                f"{model.name} named no intent that any session supports, in {len(batches)} requests. Try "
                "another model; the prompts are in the folder taxonomy/prompts of the package."
            )
        _review(board, model, system, config.intents)
        advance(len(batches) + 1, f"({len(board.entries)} intents)")
    dropped = ", ".join(f"{n} {what}" for what, n in sorted(board.dropped.items()) if n)
    if dropped:
        say(f"  dropped from the answers: {dropped}")
    return Taxonomy(source="llm", model=model.name, intents=_numbered(board))


def as_data(narratives: Sequence[str]) -> str:
    """Narratives as numbered, delimited data; their text holds no angle bracket that could close a tag."""
    lines = (text.replace("<", "‹").replace(">", "›") for text in narratives)
    return "\n".join(f'<session n="{n}">{text}</session>' for n, text in enumerate(lines, 1))


def described(intents: Sequence[Intent], support: Sequence[int] | None = None) -> str:
    """The taxonomy as a language model reads it, one intent per line."""
    lines = []
    for n, intent in enumerate(intents):
        line = f"{intent.id} [{intent.area or '-'}] {intent.name}: {intent.definition}"
        if intent.includes:
            line += f" Includes: {'; '.join(intent.includes)}."
        if intent.excludes:
            line += f" Excludes: {'; '.join(intent.excludes)}."
        lines.append(line + (f" ({support[n]} sessions)" if support else ""))
    return "\n".join(lines)


def _review(board: _Board, model: LanguageModel, system: str, limit: int) -> None:
    for _ in range(_REVIEWS):
        entries = list(board.entries.values())
        listed = described([e.intent for e in entries], [e.support for e in entries])
        user = prompt("review", taxonomy=listed, limit=limit, count=len(entries))
        board.apply(model.complete(system, user, Revision), [], may_add=False)
        if len(board.entries) <= limit:
            return
    too_many = len(board.entries) - limit
    weakest = sorted(board.entries, key=lambda i: (board.entries[i].support, i))[:too_many]
    for id_ in weakest:
        del board.entries[id_]
    say(f"  [yellow]the review left {too_many} intents too many; those with the fewest examples were cut[/]")


def _new(draft: Draft) -> list[DraftIntent]:
    return [intent.model_copy(update={"id": ""}) for intent in draft.intents]


def _numbered(board: _Board) -> tuple[Intent, ...]:
    """By area in the order of its first intent, renumbered without gaps."""
    intents = board.intents()
    areas = list(dict.fromkeys(fold(intent.area or "") for intent in intents))
    ordered = sorted(intents, key=lambda intent: areas.index(fold(intent.area or "")))
    return tuple(intent.model_copy(update={"id": f"i{n:02d}"}) for n, intent in enumerate(ordered, 1))


def _clean(text: str, length: int) -> str:
    return shorten(redact(text) or "", length)


def _clean_all(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(c for c in (_clean(text, _ITEM) for text in texts) if c))
