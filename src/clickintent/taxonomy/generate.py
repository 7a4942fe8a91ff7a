"""Drafting the taxonomy with a language model: generate, update, review.

The way of TnT-LLM (Wan et al. 2024) and of PAPER's third step: the first minibatch of sessions gives a draft,
each further one changes it until none does, a review brings it down to the wanted size. Updates and the
review answer with changes, not with the whole list, so that an intent is never lost because the model forgot
to repeat it. Whatever refers to an id or a session that was not given is dropped and counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clickintent.config import TaxonomyConfig
from clickintent.errors import LanguageModelError
from clickintent.progress import progress, say
from clickintent.taxonomy.board import Board, Draft, DraftIntent, Revision, scripts, scripts_in
from clickintent.taxonomy.content import fold
from clickintent.taxonomy.llm import LanguageModel
from clickintent.taxonomy.prompts import prompt, prompt_text
from clickintent.taxonomy.taxonomy import Intent, Taxonomy

_WHILE_DRAFTING = 1.5  # times as many intents as wanted in the end may stand until the review
REVIEWS = 3  # at most


def generate(
    narratives: Sequence[str],
    model: LanguageModel,
    config: TaxonomyConfig,
    *,
    seed: int,
    prompts: Path | None = None,
) -> Taxonomy:
    """Draft a taxonomy of at most ``config.intents`` intents from narratives of sampled sessions.

    Every request is a function of the answers before it: with those in the model's cache, a draft that was
    stopped goes on at the first request without an answer.

    Args:
        prompts: folder of prompts that replace packaged ones.

    Raises:
        LanguageModelError: if the model cannot be reached, or names no usable intent.
    """
    system = prompt("system", prompts)
    batches = minibatches(narratives, config.minibatch, seed=seed)
    wide = widest(config)
    board = Board(prompts, scripts_in(narratives) | {*scripts(prompt_text(prompts))})
    quiet = 0  # minibatches in a row that changed nothing
    with progress("draft", len(batches) + 1, "requests") as advance:
        for number, batch in enumerate(batches):
            sessions, before = as_data(batch), described(board.intents())
            if not board.entries:
                user = prompt("generate", prompts, limit=wide, final=config.intents, sessions=sessions)
                drafted = model.complete(system, user, Draft)
                board.apply(Revision(intents=_new(drafted), merges=[], remove=[]), batch)
            else:
                user = prompt(
                    "update", prompts, limit=wide, final=config.intents, sessions=sessions, taxonomy=before
                )
                board.apply(model.complete(system, user, Revision), batch)
                quiet = quiet + 1 if described(board.intents()) == before else 0
            advance(number + 1, f"({len(board.entries)} intents)")
            if quiet == config.patience and number + 1 < len(batches):
                unseen = sum(len(later) for later in batches[number + 1 :])
                say(f"  nothing changed in {quiet} minibatches: {unseen} sessions were not needed")
                break
        if not board.entries:
            raise LanguageModelError(
                f"{model.name} named no intent that any session supports, in {len(batches)} requests. Try "
                "another model, or prompts of your own (llm.prompts)."
            )
        _review(board, model, system, config.intents, prompts)
        advance(len(batches) + 1, f"({len(board.entries)} intents)")
    dropped = ", ".join(f"{n} {what}" for what, n in sorted(board.dropped.items()) if n)
    if dropped:
        say(f"  dropped from the answers: {dropped}")
    return Taxonomy(source="llm", model=model.name, intents=_numbered(board))


def minibatches(narratives: Sequence[str], size: int, *, seed: int) -> list[list[str]]:
    """The narratives in random order, so that every minibatch sees all clusters."""
    order = np.random.default_rng(seed).permutation(len(narratives))
    return [[narratives[i] for i in order[at : at + size]] for at in range(0, len(order), size)]


def widest(config: TaxonomyConfig) -> int:
    """How many intents may stand until the review."""
    return max(config.intents, math.ceil(_WHILE_DRAFTING * config.intents))


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
        lines.append(line + (f" ({support[n]})" if support else ""))
    return "\n".join(lines)


def _review(board: Board, model: LanguageModel, system: str, limit: int, prompts: Path | None) -> None:
    for _ in range(REVIEWS):
        entries = list(board.entries.values())
        listed = described([e.intent for e in entries], [e.support for e in entries])
        user = prompt("review", prompts, taxonomy=listed, limit=limit, count=len(entries))
        board.apply(model.complete(system, user, Revision), [], may_add=False)
        if len(board.entries) <= limit:
            return
    too_many = len(board.entries) - limit
    weakest = sorted(board.entries, key=lambda i: (board.entries[i].support, i))[:too_many]
    for id_ in weakest:
        del board.entries[id_]
    say(
        f"  [yellow]the review left {too_many} intents too many; those with the fewest examples were cut[/]",
        markup=True,
    )


def _new(draft: Draft) -> list[DraftIntent]:
    return [intent.model_copy(update={"id": ""}) for intent in draft.intents]


def _numbered(board: Board) -> tuple[Intent, ...]:
    """By area in the order of its first intent, renumbered without gaps."""
    intents = board.intents()
    areas = list(dict.fromkeys(fold(intent.area or "") for intent in intents))
    ordered = sorted(intents, key=lambda intent: areas.index(fold(intent.area or "")))
    return tuple(intent.model_copy(update={"id": f"i{n:02d}"}) for n, intent in enumerate(ordered, 1))
