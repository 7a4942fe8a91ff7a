"""What a language model would be asked, and what that would cost, before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from clickintent.config import Config
from clickintent.taxonomy.answers import CHARS_PER_TOKEN, Request, estimate_tokens
from clickintent.taxonomy.generate import REVIEWS, generate, minibatches, widest
from clickintent.taxonomy.label import annotate_with
from clickintent.taxonomy.llm import RecordedModel, UnansweredError
from clickintent.taxonomy.narrate import narrate
from clickintent.taxonomy.prompts import check
from clickintent.taxonomy.taxonomy import Taxonomy

# characters of answers, for the estimates only
_PER_SESSION = 110.0  # one to two labels with evidence, as JSON
_PER_INTENT = 450.0  # as drafted, or listed in a prompt
_CHANGES = 6  # intents in a usual answer to an update or a review


@dataclass(frozen=True)
class Plan:
    """What is still to be asked; what has a recorded answer is not asked again. Tokens are estimates at four
    characters each.
    """

    backend: str
    model: str
    sessions: int
    distinct: int  # sessions that read the same are asked once
    calls: int
    input_tokens: int
    output_tokens: int
    cost: float  # in the currency of the configured prices; 0 if none are configured
    answered: int = 0  # requests with a recorded answer
    requests: tuple[Request[Any], ...] = ()  # as far as they are known before there are answers

    @property
    def sample_prompt(self) -> str:
        """The system and the user text of the first request."""
        return f"{self.requests[0].system}\n\n{self.requests[0].user}" if self.requests else ""

    def shown(self, n: int | None) -> str:
        """The first ``n`` requests, or all of them, exactly as they would be sent."""
        of = len(self.requests)
        later = f" known so far, {self.calls} in all" if self.calls > of else ""
        parts = [
            f"=== request {number} of {of}{later}: {request.key}\n\n{request}\n"
            for number, request in enumerate(self.requests[:n], 1)
        ]
        return "\n".join(parts) or f"{self._about()}: nothing would be sent."

    def __str__(self) -> str:
        if not self.calls:
            return f"{self._about()}: no calls, no cost."
        cost = f"{self.cost:,.2f}" if self.cost else "unknown: set llm.price_per_million_input and _output"
        most = "at most " if self.calls > len(self.requests) else ""  # later ones depend on the answers
        return (
            f"{self._about()}\n"
            f"calls          {most}{self.calls:,}\n"
            f"input tokens   {self.input_tokens:,} (estimated)\n"
            f"output tokens  {self.output_tokens:,} (estimated)\n"
            f"cost           {cost}\n"
            f"Nothing was sent. The first request would be:\n\n{self.sample_prompt}"
        )

    def _about(self) -> str:
        if self.backend == "keywords":
            return f"{self.sessions:,} sessions, by the keyword namer"
        answered = f"; {self.answered:,} requests are answered already" if self.answered else ""
        return f"{self.sessions:,} sessions, {self.distinct:,} of them different, to {self.model}{answered}"


def plan(
    sessions: pa.Table,
    taxonomy: Taxonomy,
    config: Config,
    cache: Path | None = None,
    *,
    site: frozenset[str] | None = None,
) -> Plan:
    """Calls, tokens and cost of ``annotate``, and its requests. Sends nothing and needs no key.

    Args:
        cache: folder of recorded answers; it is not changed.
    """
    if config.llm.backend == "keywords" or sessions.num_rows == 0:
        return _nothing(config, sessions.num_rows)
    check(config.llm.prompts)
    with RecordedModel(config.llm, cache) as model:
        with suppress(UnansweredError):
            annotate_with(model, sessions, taxonomy, config, site=site, give_up=False)
        requests = list(model.open.values())
        labelled = sum(request.user.count("</session>") for request in requests)
        received = round(labelled * _PER_SESSION / CHARS_PER_TOKEN)
        sent = sum(request.input_tokens for request in requests)
        return _plan(config, model, narrate(sessions, site=site), len(requests), (sent, received))


def plan_draft(narratives: Sequence[str], config: Config, cache: Path | None = None) -> Plan:
    """Calls, tokens and cost of drafting a taxonomy from narratives, and its next request; the later ones
    depend on the answers. Sends nothing and needs no key.

    Args:
        cache: folder of recorded answers; it is not changed.
    """
    if config.llm.backend == "keywords":
        return _nothing(config, len(narratives))
    check(config.llm.prompts)
    with RecordedModel(config.llm, cache) as model:
        with suppress(UnansweredError):
            generate(narratives, model, config.taxonomy, seed=config.seed, prompts=config.llm.prompts)
        if not model.open:
            return _plan(config, model, narratives, 0, (0, 0))
        batches = minibatches(narratives, config.taxonomy.minibatch, seed=config.seed)
        done = model.usage.cached
        calls = max(1, len(batches) + REVIEWS - done)
        listed = round(widest(config.taxonomy) * _PER_INTENT / CHARS_PER_TOKEN)
        first = next(iter(model.open.values())).input_tokens
        rest = sum(estimate_tokens("".join(batch)) for batch in batches[done + 1 :]) + (calls - 1) * listed
        change = round(_CHANGES * _PER_INTENT / CHARS_PER_TOKEN)
        received = change * (calls - 1) + (change if done else listed)
        return _plan(config, model, narratives, calls, (first + rest, received))


def _nothing(config: Config, n: int) -> Plan:
    return Plan(config.llm.backend, config.llm.model, n, n, 0, 0, 0, 0.0)


def _plan(
    config: Config, model: RecordedModel, narratives: Sequence[str], calls: int, tokens: tuple[int, int]
) -> Plan:
    return Plan(
        backend=config.llm.backend,
        model=config.llm.model,
        sessions=len(narratives),
        distinct=len(set(narratives)),
        calls=calls,
        input_tokens=tokens[0],
        output_tokens=tokens[1],
        cost=model.usage.cost_of(*tokens),
        answered=model.usage.cached,
        requests=tuple(model.open.values()),
    )
