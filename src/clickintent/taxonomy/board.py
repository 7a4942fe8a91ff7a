"""The intents while they are drafted: what a model answers, and what of that is accepted."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel

from clickintent.taxonomy.content import fold, redact, shorten
from clickintent.taxonomy.injection import WITHHELD
from clickintent.taxonomy.prompts import quotes_prompt
from clickintent.taxonomy.taxonomy import Intent

_EXAMPLES = 3  # kept per intent
_NAME, _DEFINITION, _ITEM = 80, 400, 160  # longest accepted texts, in characters
_FOREIGN = 0.3  # of an intent's letters, from which on it is in the wrong language


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
class Entry:
    intent: Intent
    support: int  # sessions that were named as examples of it


@dataclass
class Board:
    """The intents so far, by id, and what had to be dropped from answers.

    Nothing of an answer is trusted: what refers to an unknown id or session, quotes the prompt, reads as an
    instruction, or is in a script that no session is in, is dropped and counted.
    """

    prompts: Path | None = None
    scripts: frozenset[str] = frozenset()  # that the sessions are written in
    entries: dict[str, Entry] = field(default_factory=dict)
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
        area = _clean(draft.area, _NAME)
        includes, excludes = _clean_all(draft.includes), _clean_all(draft.excludes)
        problem = self._problem([name, definition, area, *includes, *excludes])
        if problem:
            self.dropped[problem] += 1
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
            area=area or None,
            includes=includes,
            excludes=excludes,
            examples=examples,
        )
        self.entries[id_] = Entry(intent, (old.support if old else 0) + len(shown))

    def _problem(self, texts: Sequence[str]) -> str | None:
        """Why what the model wrote must not stand in the taxonomy."""
        if any(quotes_prompt(text, self.prompts) for text in texts):
            return "intents that quote the prompt"
        if any(WITHHELD in text for text in texts):
            return "intents that read as instructions"
        letters = [script for text in texts for script in scripts(text)]
        foreign = sum(script not in self.scripts for script in letters)
        if self.scripts and foreign > _FOREIGN * len(letters):
            return "intents in a script that no session is in"
        return None

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
            self.entries[merge.into] = Entry(intent, kept.support + gone.support)

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


def scripts_in(texts: Iterable[str]) -> frozenset[str]:
    """The scripts (LATIN, CYRILLIC, CJK, …) of at least one letter in a hundred."""
    counts: Counter[str] = Counter()
    for letter, n in Counter(c for text in texts for c in text).items():
        for script in scripts(letter):
            counts[script] += n
    return frozenset(script for script, n in counts.items() if n >= 0.01 * counts.total())


def scripts(text: str) -> Iterator[str]:
    """The script of every letter."""
    return (unicodedata.name(c, "?").split()[0] for c in text if c.isalpha())


def _clean(text: str, length: int) -> str:
    return shorten(redact(text) or "", length)


def _clean_all(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(c for c in (_clean(text, _ITEM) for text in texts) if c))
