"""Redis or Valkey as the store, for several instances of the service behind one address.

An append is one transaction (MULTI … EXEC) that fails and is tried again if the visitor changed meanwhile
(WATCH), so instances may write side by side. What is acknowledged is as safe as the server makes it: it must
run with ``appendonly yes`` and ``appendfsync always``, which ``open_redis`` checks.

Keys: ``ci:e:VISITOR`` (hash: event → body), ``ci:a:VISITOR`` (hash: account → since when),
``ci:v:ACCOUNT`` (hash: visitor → since when), ``ci:x:CODE`` (forgotten). Codes only; what is old expires.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError, WatchError

from clickintent.config import ServeConfig
from clickintent.errors import ConfigError, WorkspaceError
from clickintent.progress import say
from clickintent.serve.live import Stored
from clickintent.serve.state import Appended, BusyError, Forgotten, Outcome, UnavailableError

_ATTEMPTS = 20
_T = TypeVar("_T")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Stored).decode


async def open_redis(url: str, config: ServeConfig) -> RedisStore:
    """Connect.

    Raises:
        WorkspaceError: if nobody answers.
        ConfigError: if the server would acknowledge what it has not written.
    """
    where = urlsplit(url).hostname
    client = Redis.from_url(url, socket_timeout=config.timeout_s, socket_connect_timeout=config.timeout_s)
    try:
        await client.ping()
        try:
            told = {**await client.config_get("appendonly"), **await client.config_get("appendfsync")}
        except RedisError:  # hosted servers do not tell
            say(f"{where} does not tell whether it writes before it answers; make sure of it.")
            told = {}
    except (RedisError, OSError) as error:
        await client.aclose()
        raise WorkspaceError(f"serve.store: {where} does not answer ({type(error).__name__}).") from error
    if told and (told.get("appendonly") != "yes" or told.get("appendfsync") != "always"):
        await client.aclose()
        raise ConfigError(
            f"serve.store: {where} acknowledges events before they are on the disk. Start it with "
            "--appendonly yes --appendfsync always."
        )
    return RedisStore(client, config)


class RedisStore:
    """See the module."""

    def __init__(self, client: Any, config: ServeConfig) -> None:
        self._redis = client
        self._most = config.max_events_per_visitor
        self._keep_s = round(config.keep_days * 86_400)

    async def append(self, events: Sequence[Stored]) -> Appended:
        outcomes: dict[int, Outcome] = {}
        visitors: dict[int, Sequence[Stored]] = {}
        by_visitor: dict[int, list[int]] = {}
        for place, event in enumerate(events):
            by_visitor.setdefault(event.visitor, []).append(place)
        for visitor, places in by_visitor.items():
            found, kept = await self._guarded(self._append(visitor, [events[place] for place in places]))
            outcomes.update(zip(places, found, strict=True))
            visitors[visitor] = kept
        return Appended([outcomes[place] for place in range(len(events))], visitors)

    async def link(self, visitor: int, account: int, at: int) -> bool:
        return await self._guarded(self._link(visitor, account, at))

    async def events(self, visitor: int) -> Sequence[Stored]:
        found: dict[bytes, bytes] = await self._guarded(self._redis.hgetall(_events(visitor)))
        return [_decode(body) for body in found.values()]

    async def accounts(self, visitor: int) -> Mapping[int, int]:
        found: dict[bytes, bytes] = await self._guarded(self._redis.hgetall(_accounts(visitor)))
        return {int(account): int(at) for account, at in found.items()}

    async def visitors(self, account: int) -> Sequence[int]:
        found: list[bytes] = await self._guarded(self._redis.hkeys(_visitors(account)))
        return sorted(int(visitor) for visitor in found)

    async def forget(self, *, visitors: Sequence[int], account: int | None) -> Forgotten:
        return await self._guarded(self._forget(visitors, account))

    async def expire(self, before: int) -> int:
        """Visitors expire as wholes, ``keep_days`` after their last event: the server sees to it. Here go the
        older events of those that came back.
        """
        return await self._guarded(self._expire(before))

    async def check(self) -> None:
        await self._guarded(self._redis.ping())

    async def close(self) -> None:
        await self._redis.aclose()

    async def _guarded(self, work: Awaitable[_T]) -> _T:
        try:
            return await work
        except (RedisError, OSError) as error:
            raise UnavailableError(f"the store does not answer ({type(error).__name__}).") from error

    async def _append(self, visitor: int, events: Sequence[Stored]) -> tuple[list[Outcome], list[Stored]]:
        codes = [visitor, *{e.account for e in events if e.account is not None}]
        key = _events(visitor)
        async with self._redis.pipeline() as pipe:
            for _ in range(_ATTEMPTS):
                try:
                    await pipe.watch(key, *map(_gone, codes))
                    known = await pipe.hgetall(key)
                    gone = {code for code in codes if await pipe.exists(_gone(code))}
                    kept = {int(event): _decode(body) for event, body in known.items()}
                    outcomes, new = _sort_out(visitor, events, kept, gone, self._most)
                    pipe.multi()
                    if new:
                        pipe.hset(key, mapping={str(e.event): _encode(e) for e in new})
                        pipe.expire(key, self._keep_s)
                    for event in new:
                        if event.account is not None:
                            self._tie(pipe, visitor, event.account, event.ts)
                    await pipe.execute()
                    return outcomes, list(kept.values())
                except WatchError:  # another instance wrote: look again
                    continue
        raise BusyError("a visitor's events are written by too many at once; try again.")

    async def _link(self, visitor: int, account: int, at: int) -> bool:
        async with self._redis.pipeline() as pipe:
            for _ in range(_ATTEMPTS):
                try:
                    await pipe.watch(_gone(visitor), _gone(account))
                    if await pipe.exists(_gone(visitor), _gone(account)):
                        return False
                    pipe.multi()
                    self._tie(pipe, visitor, account, at)
                    await pipe.execute()
                    return True
                except WatchError:
                    continue
        raise BusyError("a visitor is written by too many at once; try again.")

    def _tie(self, pipe: Any, visitor: int, account: int, at: int) -> None:
        """The earliest time stays."""
        for key, field in ((_accounts(visitor), account), (_visitors(account), visitor)):
            pipe.eval(_EARLIEST, 1, key, str(field), str(at), str(self._keep_s))

    async def _forget(self, visitors: Sequence[int], account: int | None) -> Forgotten:
        codes = [*visitors, *([] if account is None else [account])]
        for code in codes:  # first: nothing of them is taken from here on
            await self._redis.set(_gone(code), b"1")
        events = links = 0
        for visitor in visitors:
            events += await self._redis.hlen(_events(visitor))
            for other in await self._redis.hkeys(_accounts(visitor)):
                links += await self._redis.hdel(_visitors(int(other)), str(visitor))
            await self._redis.delete(_events(visitor), _accounts(visitor))
        if account is not None:
            for raw in await self._redis.hkeys(_visitors(account)):
                visitor = int(raw)
                kept = await self._redis.hgetall(_events(visitor))
                of_it = [event for event, body in kept.items() if _decode(body).account == account]
                events += await self._redis.hdel(_events(visitor), *of_it) if of_it else 0
                links += await self._redis.hdel(_accounts(visitor), str(account))
            await self._redis.delete(_visitors(account))
        return Forgotten(events, links)

    async def _expire(self, before: int) -> int:
        total = 0
        async for key in self._redis.scan_iter("ci:e:*", count=1000):
            kept = await self._redis.hgetall(key)
            old = [event for event, body in kept.items() if _decode(body).ts < before]
            total += await self._redis.hdel(key, *old) if old else 0
        return total


#: Set a field to the smaller of what it is and what is given.
_EARLIEST = """
local known = redis.call('HGET', KEYS[1], ARGV[1])
if not known or tonumber(ARGV[2]) < tonumber(known) then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
redis.call('EXPIRE', KEYS[1], ARGV[3])
"""


def _sort_out(
    visitor: int, events: Sequence[Stored], kept: dict[int, Stored], gone: set[int], most: int
) -> tuple[list[Outcome], list[Stored]]:
    """What becomes of a visitor's events; the new ones are added to ``kept``."""
    outcomes: list[Outcome] = []
    new = []
    for event in events:
        if visitor in gone or event.account in gone:
            outcomes.append("forgotten")
        elif event.event in kept:
            outcomes.append("duplicate")
        elif len(kept) >= most:
            outcomes.append("too many")
        else:
            outcomes.append("accepted")
            kept[event.event] = event
            new.append(event)
    return outcomes, new


def _events(visitor: int) -> str:
    return f"ci:e:{visitor}"


def _accounts(visitor: int) -> str:
    return f"ci:a:{visitor}"


def _visitors(account: int) -> str:
    return f"ci:v:{account}"


def _gone(code: int) -> str:
    return f"ci:x:{code}"
