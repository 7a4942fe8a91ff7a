"""What changed between two versions of a taxonomy, in the terms in which people change one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clickintent.taxonomy.taxonomy import Intent, Taxonomy

MEANING = ("definition", "includes", "excludes")


@dataclass(frozen=True)
class Diff:
    """What changed between two taxonomies; intents are the same if their ids are.

    What was merged and split stands in the new taxonomy's ``retired``, so it is known and not guessed. Pairs
    are (old, new); an intent can be in several of them.
    """

    added: tuple[Intent, ...]  # took no other one's place
    removed: tuple[Intent, ...]  # nothing took their place
    renamed: tuple[tuple[Intent, Intent], ...]
    redefined: tuple[tuple[Intent, Intent], ...]  # another definition, or list of what is in and out
    moved: tuple[tuple[Intent, Intent], ...]  # to another area
    rekeyed: tuple[tuple[Intent, Intent], ...]  # other keywords, which only the keyword namer reads
    merged: tuple[tuple[tuple[Intent, ...], Intent], ...]  # those that are gone, what they are now
    split: tuple[tuple[Intent, tuple[Intent, ...]], ...]  # what is gone, what it is now

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__dataclass_fields__)

    def __str__(self) -> str:
        lines = [f"+ {i.id} {i.name}: {i.definition}" for i in self.added]
        lines += [f"- {i.id} {i.name}" for i in self.removed]
        lines += [f"merged: {_listed(gone)} → {_called(now)}" for gone, now in self.merged]
        lines += [f"split: {_called(gone)} → {_listed(now)}" for gone, now in self.split]
        lines += [f"~ {new.id} {old.name} → {new.name}" for old, new in self.renamed]
        lines += [
            f"> {_called(new)}: area {old.area or 'none'} → {new.area or 'none'}" for old, new in self.moved
        ]
        for old, new in self.redefined:
            lines.append(f"* {_called(new)}")
            for field in MEANING:
                before, after = getattr(old, field), getattr(new, field)
                if before != after:
                    lines += [f"    {field}: {_shown(before)}", f"    {' ' * len(field)}→ {_shown(after)}"]
        for old, new in self.rekeyed:
            before, after = old.weighted_keywords(), new.weighted_keywords()
            changed = [f"+{word}" for word in after if word not in before]
            changed += [f"-{word}" for word in before if word not in after]
            changed += [
                f"{w} {before[w]:g} → {after[w]:g}" for w in after if before.get(w, after[w]) != after[w]
            ]
            lines.append(f"# {_called(new)}: keywords {', '.join(changed) or 'in another order'}")
        return "\n".join(lines) or "no differences"

    @property
    def reasked(self) -> frozenset[str]:
        """Ids that sessions may carry and that no longer say what they did: removed, split or redefined.

        An intent that others were merged into is not among them for having gained what they were: of theirs
        it is known which sessions show it.
        """
        widened = {now.id for _, now in self.merged}
        changed = {new.id for old, new in self.redefined if not (new.id in widened and _only_wider(old, new))}
        merged = {intent.id for gone, now in self.merged if now.id in changed for intent in gone}
        return frozenset({i.id for i in self.removed} | {i.id for i, _ in self.split} | changed | merged)


def diff(old: Taxonomy, new: Taxonomy) -> Diff:
    """Compare two taxonomies intent by intent, by id and by what the new one says of ids that are gone."""
    before = {intent.id: intent for intent in old.intents}
    after = {intent.id: intent for intent in new.intents}
    both = [(before[i], after[i]) for i in before if i in after]
    places = {i: tuple(after[s] for s in new.successors(i)) for i in before if i not in after}
    targets: dict[str, list[Intent]] = {}
    for id_, now in places.items():
        if len(now) == 1:
            targets.setdefault(now[0].id, []).append(before[id_])
    heirs = {intent.id for now in places.values() for intent in now}
    return Diff(
        added=tuple(intent for i, intent in after.items() if i not in before and i not in heirs),
        removed=tuple(before[i] for i, now in places.items() if not now),
        renamed=tuple((a, b) for a, b in both if a.name != b.name),
        redefined=tuple((a, b) for a, b in both if _differ(a, b, MEANING)),
        moved=tuple((a, b) for a, b in both if a.area != b.area),
        rekeyed=tuple((a, b) for a, b in both if _differ(a, b, ("keywords", "keyword_weights"))),
        merged=tuple((tuple(gone), after[i]) for i, gone in targets.items()),
        split=tuple((before[i], now) for i, now in places.items() if len(now) > 1),
    )


def _differ(a: Intent, b: Intent, fields: Sequence[str]) -> bool:
    return any(getattr(a, field) != getattr(b, field) for field in fields)


def _only_wider(old: Intent, new: Intent) -> bool:
    return not _differ(old, new, ("definition", "excludes")) and set(old.includes) <= set(new.includes)


def _called(intent: Intent) -> str:
    return f"{intent.id} {intent.name}"


def _listed(intents: Sequence[Intent]) -> str:
    return ", ".join(_called(intent) for intent in intents)


def _shown(value: Any) -> str:
    return "; ".join(value) if isinstance(value, tuple) else str(value or "none")
