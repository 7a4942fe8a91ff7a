"""Sessions that wait are scored together, in one thread: one call for many costs little more than for one.

No session waits for others to come: a call takes what is there, and while it runs, the next ones gather. The
number that may wait is bounded.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from clickintent.encoder.single import Event
from clickintent.serve.model import Model, Models
from clickintent.serve.state import BusyError

_TOGETHER = 64
_SHADOWED = 4  # batches that may wait for the shadow; what comes meanwhile is not compared


@dataclass(frozen=True)
class Scored:
    """A session's embedding (dim,) and probabilities (k,), and the model that they are of."""

    model: Model
    embedding: np.ndarray
    probabilities: np.ndarray


@dataclass
class Shadowed:
    """How the shadow compares: sessions that both scored, those whose likeliest intent has another name."""

    sessions: int = 0
    disagreements: int = 0
    skipped: int = 0  # the shadow was too slow for them
    failures: int = 0  # calls


@dataclass
class _Waiting:
    model: Model
    sessions: Sequence[Sequence[Event]]
    future: asyncio.Future[list[Scored]]


@dataclass
class Scorer:
    """See the module. Made inside a running event loop; ``close`` ends its threads."""

    models: Models
    most: int = 1024
    shadowed: Shadowed = field(default_factory=Shadowed)
    waiting: int = 0

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._behind: queue.Queue[tuple[list[Sequence[Event]], list[Scored]] | None] = queue.Queue(_SHADOWED)
        self._threads = [self._start(self._work, "scorer"), self._start(self._compare, "shadow")]

    async def score(self, sessions: Sequence[Sequence[Event]], model: Model | None = None) -> list[Scored]:
        """Score sessions (events as ``SessionEncoder.embed_one`` takes them) with one model, the one in use.

        Raises:
            BusyError: if too many wait.
        """
        if not sessions:
            return []
        if self.waiting + len(sessions) > self.most and self.waiting:
            raise BusyError("too many sessions wait to be scored; try again in a second.")
        future: asyncio.Future[list[Scored]] = self._loop.create_future()
        self.waiting += len(sessions)
        self._queue.put(_Waiting(model or self.models.current, sessions, future))
        return await future

    async def close(self) -> None:
        """Finish what waits, then stop."""
        self._queue.put(None)
        await asyncio.to_thread(self._threads[0].join)
        await asyncio.to_thread(self._behind.put, None)
        await asyncio.to_thread(self._threads[1].join)

    @staticmethod
    def _start(work: Callable[[], None], name: str) -> threading.Thread:
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        return thread

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, n, last = [first], len(first.sessions), False
            while n < _TOGETHER and not self._queue.empty():
                more = self._queue.get()
                if more is None:
                    last = True
                    break
                batch.append(more)
                n += len(more.sessions)
            for model in {id(one.model): one.model for one in batch}.values():
                self._score(model, [one for one in batch if one.model is model])
            if last:
                return

    def _score(self, model: Model, batch: list[_Waiting]) -> None:
        sessions = [session for one in batch for session in one.sessions]
        try:
            embeddings, probabilities = model.score(sessions)
        except Exception as error:  # whatever it is, whoever asked is told, and the thread goes on
            self._loop.call_soon_threadsafe(self._answer, batch, error)
            return
        scored = [Scored(model, e, p) for e, p in zip(embeddings, probabilities, strict=True)]
        self._loop.call_soon_threadsafe(self._answer, batch, scored)
        if self.models.shadow is not None and model is self.models.current:
            try:
                self._behind.put_nowait((sessions, scored))
            except queue.Full:
                self.shadowed.skipped += len(sessions)

    def _answer(self, batch: list[_Waiting], answer: list[Scored] | Exception) -> None:
        at = 0
        for one in batch:
            n = len(one.sessions)
            self.waiting -= n
            if one.future.done():  # whoever asked has gone
                pass
            elif isinstance(answer, Exception):
                one.future.set_exception(answer)
            else:
                one.future.set_result(answer[at : at + n])
            at += n

    def _compare(self) -> None:
        while (item := self._behind.get()) is not None:
            sessions, scored = item
            shadow = self.models.shadow
            if shadow is None:
                continue
            try:
                _, probabilities = shadow.score(sessions)
            except Exception:  # it must not disturb the service
                self.shadowed.failures += 1
                continue
            for one, other in zip(scored, probabilities, strict=True):
                self.shadowed.sessions += 1
                self.shadowed.disagreements += _top(one.model, one.probabilities) != _top(shadow, other)


def _top(model: Model, probabilities: np.ndarray) -> str:
    """The name of the likeliest intent: ids of two workspaces need not mean the same."""
    found = model.intent_ids[int(np.argmax(probabilities))]
    return model.names.get(found, (found, None))[0]
