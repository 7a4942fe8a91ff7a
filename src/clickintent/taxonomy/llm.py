"""Language models: a small protocol, and what all backends share.

``complete`` sends a system and a user text and returns an answer that was checked against a pydantic
model. An answer that does not fit is sent back once with the reason. Valid answers are cached by the
content of the request, so that a killed run repeats no call.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from pydantic import ValidationError

from clickintent.config import LlmConfig
from clickintent.errors import LanguageModelError
from clickintent.taxonomy.answers import Answer, NotValidError, Reply, Request, estimate_tokens
from clickintent.taxonomy.cache import AnswerCache
from clickintent.taxonomy.prompts import prompt

Work = TypeVar("Work")
Result = TypeVar("Result")

_FILE = "answers.sqlite3"


class InvalidAnswerError(LanguageModelError):
    """The model answered, twice, with something that is not what was asked for."""


class UnansweredError(LanguageModelError):
    """There is no answer yet, and none can be had now."""


@dataclass
class Usage:
    """What was spent. ``input_tokens`` and ``output_tokens`` are the server's numbers where it gives any."""

    calls: int = 0
    cached: int = 0  # answers that came from the cache instead of a call
    repaired: int = 0  # answers that were only right at the second attempt
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0  # waiting for answers, summed over threads
    price_per_million_input: float = 0.0
    price_per_million_output: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, **numbers: float) -> None:
        """Add to the counters; safe to call from several threads."""
        with self._lock:
            for name, number in numbers.items():
                setattr(self, name, getattr(self, name) + number)

    @property
    def cost(self) -> float:
        """In the currency of the configured prices."""
        return self.cost_of(self.input_tokens, self.output_tokens)

    def cost_of(self, input_tokens: int, output_tokens: int) -> float:
        """What so many tokens cost."""
        paid = input_tokens * self.price_per_million_input + output_tokens * self.price_per_million_output
        return paid / 1e6

    def as_dict(self) -> dict[str, float]:
        """The counters and the cost, for ``metrics.json``."""
        names = ("calls", "cached", "repaired", "input_tokens", "output_tokens", "seconds", "cost")
        return {name: getattr(self, name) for name in names}


class LanguageModel(Protocol):
    """Something that answers a prompt with a valid instance of a pydantic model."""

    name: str
    usage: Usage
    concurrency: int  # requests at a time

    def complete(self, system: str, user: str, schema: type[Answer]) -> Answer:
        """Answer ``user`` under the instructions ``system``.

        Raises:
            InvalidAnswerError: if the answer does not fit ``schema`` even after one repair.
            UnansweredError: if the answer has to be fetched in another way first.
            LanguageModelError: if the endpoint cannot be used.
        """
        ...


class CachedModel(ABC):
    """Cache, check, one repair; a backend adds where replies come from.

    Args:
        cache: folder of the cache; None keeps it in memory.
        read_only: leave the cache as it is.
    """

    concurrency = 1

    def __init__(self, config: LlmConfig, cache: Path | None, *, read_only: bool = False) -> None:
        self.name = config.model
        self.usage = Usage(
            price_per_million_input=config.price_per_million_input,
            price_per_million_output=config.price_per_million_output,
        )
        self._config = config
        self._endpoint = endpoint_of(config)
        self._cache = AnswerCache(cache / _FILE if cache else None, read_only=read_only)

    @abstractmethod
    def _obtain(self, request: Request[Answer]) -> Reply:
        """A reply to a request that has no valid answer in the cache."""

    def complete(self, system: str, user: str, schema: type[Answer]) -> Answer:
        """See ``LanguageModel.complete``."""
        request = Request(self.name, system, user, schema, self._endpoint)
        stored = self._stored(request)
        if stored is not None:
            self.usage.add(cached=1)
            return stored
        try:
            answer = self._attempt(request)
        except _UnusableError as first:
            told = prompt("repair", self._config.prompts, problem=first.problem)
            repair = request.repaired(first.reply, told)
            try:
                answer = self._attempt(repair)
            except _UnusableError as again:
                self._cache.fail(request.key, repair.key)
                raise InvalidAnswerError(
                    f"{self.name} gave no usable {request.task}, also when asked again: {again.problem}. "
                    "Try smaller requests (taxonomy.minibatch), a larger output limit on the server, or "
                    "another model."
                ) from again
            self.usage.add(repaired=1)
            self._cache.put(repair.key, answer.model_dump_json())
        self._cache.put(request.key, answer.model_dump_json())
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the cache."""
        self._cache.close()

    def _attempt(self, request: Request[Answer]) -> Answer:
        reply = self._obtain(request)
        try:
            return request.parse(reply)
        except NotValidError as problem:
            if self._cache.refused(request.key) != reply:
                self._cache.refuse(request.key, reply)
            raise _UnusableError(reply, str(problem)) from problem

    def _stored(self, request: Request[Answer]) -> Answer | None:
        stored = self._cache.get(request.key)
        try:
            return None if stored is None else request.schema.model_validate_json(stored)
        except ValidationError:  # damaged
            return None

    def _paid(self, request: Request[Answer], reply: Reply) -> None:
        """Count the tokens of a reply, here and in the cache."""
        sent = reply.input_tokens or request.input_tokens
        received = reply.output_tokens or estimate_tokens(reply.text)
        self.usage.add(input_tokens=sent, output_tokens=received)
        self._cache.spend(sent + received, self.usage.cost_of(sent, received))


class RecordedModel(CachedModel):
    """Recorded answers only, never a call: for replays, and to see what would be asked.

    ``open`` holds the requests that have no answer, by key, in the order in which they were asked.
    """

    def __init__(self, config: LlmConfig, cache: Path | None, *, read_only: bool = True) -> None:
        super().__init__(config, cache, read_only=read_only)
        self.open: dict[str, Request[Any]] = {}
        self._lock = threading.Lock()

    def _obtain(self, request: Request[Answer]) -> Reply:
        kept = self._cache.refused(request.key)
        if kept is not None:
            return kept
        with self._lock:
            self.open[request.key] = request
        raise UnansweredError(f"there is no recorded answer to this {request.task} request.")


class _UnusableError(Exception):
    def __init__(self, reply: Reply, problem: str) -> None:
        self.reply, self.problem = reply, problem
        super().__init__(problem)


def endpoint_of(config: LlmConfig) -> str:
    """The base URL, from the configuration or the environment; empty for the SDK's own default."""
    return config.base_url or os.environ.get("OPENAI_BASE_URL") or ""


def in_threads(
    work: Callable[[Work], Result], items: Sequence[Work], threads: int
) -> Iterator[tuple[int, Result | InvalidAnswerError]]:
    """Do ``work`` on every item in threads; yield (index, result) as they finish.

    An ``InvalidAnswerError`` is a result. An ``UnansweredError`` is raised when all items were asked; any
    other error stops what has not begun and is raised.
    """
    unanswered: UnansweredError | None = None
    with ThreadPoolExecutor(max_workers=max(1, threads)) as executor:
        running: dict[Future[Result], int] = {executor.submit(work, item): i for i, item in enumerate(items)}
        try:
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    index = running.pop(future)
                    try:
                        yield index, future.result()
                    except InvalidAnswerError as error:
                        yield index, error
                    except UnansweredError as error:
                        unanswered = error
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
    if unanswered:
        raise unanswered
