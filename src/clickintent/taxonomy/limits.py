"""What a run may spend and how fast it may ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from clickintent.config import LlmConfig
from clickintent.errors import BudgetError
from clickintent.taxonomy.cache import AnswerCache
from clickintent.taxonomy.llm import Usage

_FIRST_ANSWER = 1000  # tokens that an answer is expected to take, before there was one


class Budget:
    """The caps ``llm.max_tokens`` and ``llm.max_cost``, on all that a workspace ever spent.

    What a call is expected to take is set aside before it is made, so that calls in flight cannot pass a cap
    together. The estimate is four characters a token, and for the answer the mean of those before.
    """

    def __init__(self, config: LlmConfig, cache: AnswerCache, usage: Usage) -> None:
        self._config, self._cache, self._usage = config, cache, usage
        self._aside = (0, 0.0)
        self._lock = threading.Lock()

    @contextmanager
    def reserve(self, input_tokens: Sequence[int]) -> Iterator[None]:
        """Set aside what requests of so many tokens may take.

        Raises:
            BudgetError: if that would pass a cap.
        """
        received, calls = self._usage.output_tokens, self._usage.calls
        answer = round(received / calls) if received and calls else _FIRST_ANSWER
        tokens = sum(input_tokens) + answer * len(input_tokens)
        cost = self._usage.cost_of(sum(input_tokens), answer * len(input_tokens))
        with self._lock:
            self._check(tokens, cost)
            self._aside = (self._aside[0] + tokens, self._aside[1] + cost)
        try:
            yield
        finally:
            with self._lock:
                self._aside = (self._aside[0] - tokens, self._aside[1] - cost)

    def _check(self, tokens: int, cost: float) -> None:
        spent = self._cache.spent()
        for name, cap, used, aside, more in (
            ("max_tokens", self._config.max_tokens, spent[0], self._aside[0], tokens),
            ("max_cost", self._config.max_cost, spent[1], self._aside[1], cost),
        ):
            if cap is not None and used + aside + more > cap:
                raise BudgetError(
                    f"llm.{name} = {cap:,.10g} would be passed: this workspace has spent {used:,.6g}, calls "
                    f"under way may take {aside:,.6g}, and what is asked next about {more:,.6g}. Answers so "
                    f"far are kept. Raise llm.{name} and give the same command again to go on."
                )


class RateLimit:
    """At most so many requests and tokens a minute, evenly spaced. Threads wait their turn.

    Args:
        clock, sleep: of the time in seconds.
    """

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._request_s = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._token_s = 60.0 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock, self._sleep = clock, sleep
        self._free = clock()  # when the next request may start
        self._lock = threading.Lock()

    def wait(self, tokens: int) -> None:
        """Return when a request of so many tokens may be sent."""
        with self._lock:
            now = self._clock()
            start = max(now, self._free)
            self._free = start + max(self._request_s, tokens * self._token_s)
        if start > now:
            self._sleep(start - now)
