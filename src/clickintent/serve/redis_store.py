"""Redis or Valkey as the store, for several instances of the service behind one address.

An append is one transaction (MULTI … EXEC) that fails and is tried again if the visitor changed meanwhile
(WATCH), so instances may write side by side. What is acknowledged is as safe as the server makes it: one
server, not a cluster, that writes before it answers, which ``open_redis`` checks.

Keys: ``ci:e:VISITOR`` (hash: event → body), ``ci:a:VISITOR`` (hash: account → first and last seen),
``ci:v:ACCOUNT`` (hash: visitor → the same), ``ci:x:CODE`` (forgotten). Codes only; what is old expires.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError, ResponseError, WatchError

from clickintent.config import ServeConfig
from clickintent.errors import ConfigError, WorkspaceError
from clickintent.progress import say
from clickintent.serve.live import Stored, decode, encode
from clickintent.serve.state import (
    Appended,
    Belonging,
    BusyError,
    Forgotten,
    Outcome,
    UnavailableError,
    sort_out,
)

_ATTEMPTS = 20
_CONNECTIONS = 64
#: Settings without which the server may lose what it has acknowledged, or bring back who was forgotten.
_NEEDED = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}
_T = TypeVar("_T")


async def open_redis(url: str, config: ServeConfig) -> RedisStore:
    """Connect.

    Raises:
        WorkspaceError: if nobody answers.
        ConfigError: if the server would acknowledge what it has not written, or throw away what it has.
    """
    where = urlsplit(url).hostname
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=config.timeout_s,
        socket_timeout=config.timeout_s,
        socket_connect_timeout=config.timeout_s,
    )
    client = Redis.from_pool(pool)
    told: dict[Any, Any] = {}
    try:
        await client.ping()
        for name in _NEEDED:
            try:
                told |= await client.config_get(name)
            except ResponseError:  # hosted servers do not tell
                say(f"{where} does not tell its {name}; see to it that it is {_NEEDED[name]}.")
    except (RedisError, OSError) as error:
        await client.aclose()
        raise WorkspaceError(f"serve.store: {where} does not answer ({type(error).__name__}).") from error
    wrong = [f"--{name} {wanted}" for name, wanted in _NEEDED.items() if told.get(name, wanted) != wanted]
    if wrong:
        await client.aclose()
        raise ConfigError(
            f"serve.store: {where} would lose what it has acknowledged. Start it with {' '.join(wrong)}."
        )
    return RedisStore(client, config)


class RedisStore:
    """See the module."""

    def __init__(self, client: Any, config: ServeConfig) -> None:
        self._redis = client
        self._most = config.max_events_per_visitor
        self._keep_s = round(config.keep_days * 86_400)
        self._waiting, self._most_waiting = 0, config.max_waiting

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
        return [decode(body) for body in found.values()]

    async def accounts(self, visitor: int) -> Mapping[int, int]:
        return _times(await self._guarded(self._redis.hgetall(_accounts(visitor))))

    async def visitors(self, account: int) -> Sequence[int]:
        found: list[bytes] = await self._guarded(self._redis.hkeys(_visitors(account)))
        return sorted(int(visitor) for visitor in found)

    async def forget_visitor(self, visitor: int) -> Forgotten:
        found = await self._guarded(self._forget_visitor(visitor))
        await self._rewrite()
        return found

    async def forget_account(self, account: int, belonging: Belonging) -> Forgotten:
        found = await self._guarded(self._forget_account(account, belonging))
        await self._rewrite()
        return found

    async def expire(self, before: int) -> int:
        """Visitors expire as wholes, ``keep_days`` after their last event: the server sees to it. Here go the
        older events and links of those that came back.
        """
        return await self._guarded(self._expire(before))

    async def check(self) -> None:
        await self._guarded(self._redis.ping())

    async def close(self) -> None:
        await self._redis.aclose()

    async def _guarded(self, work: Awaitable[_T]) -> _T:
        if self._waiting >= self._most_waiting:
            if isinstance(work, Coroutine):
                work.close()
            raise BusyError("too many requests wait for the store; try again in a second.")
        self._waiting += 1
        try:
            return await work
        except (RedisError, OSError) as error:
            raise UnavailableError(f"the store does not answer ({type(error).__name__}).") from error
        finally:
            self._waiting -= 1

    async def _append(self, visitor: int, events: Sequence[Stored]) -> tuple[list[Outcome], list[Stored]]:
        codes = [visitor, *{e.account for e in events if e.account is not None}]
        key = _events(visitor)
        async with self._redis.pipeline() as pipe:
            for _ in range(_ATTEMPTS):
                try:
                    await pipe.watch(key, *map(_gone, codes))
                    known = await pipe.hgetall(key)
                    gone = {code for code in codes if await pipe.exists(_gone(code))}
                    kept = {int(event): decode(body) for event, body in known.items()}
                    outcomes, new = sort_out(visitor, events, kept, gone, self._most)
                    pipe.multi()
                    if new:
                        pipe.hset(key, mapping={str(e.event): encode(e) for e in new})
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
        for key, field in ((_accounts(visitor), account), (_visitors(account), visitor)):
            pipe.eval(_SEEN, 1, key, str(field), str(at), str(self._keep_s))

    async def _forget_visitor(self, visitor: int) -> Forgotten:
        await self._redis.set(_gone(visitor), b"1")  # first: nothing of it is taken from here on
        accounts = [int(raw) for raw in await self._redis.hkeys(_accounts(visitor))]
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hlen(_events(visitor))
            for account in accounts:
                pipe.hdel(_visitors(account), str(visitor))
            pipe.delete(_events(visitor), _accounts(visitor))
            found = await pipe.execute()
        return Forgotten(found[0], len(accounts))

    async def _forget_account(self, account: int, belonging: Belonging) -> Forgotten:
        """Visitor by visitor, each at once; one that was interrupted is found again by its link."""
        await self._redis.set(_gone(account), b"1")
        events = links = 0
        for raw in await self._redis.hkeys(_visitors(account)):
            found = await self._forget_in(int(raw), account, belonging)
            events, links = events + found.events, links + found.links
        await self._redis.delete(_visitors(account))
        return Forgotten(events, links)

    async def _forget_in(self, visitor: int, account: int, belonging: Belonging) -> Forgotten:
        async with self._redis.pipeline() as pipe:
            for _ in range(_ATTEMPTS):
                try:
                    await pipe.watch(_events(visitor), _accounts(visitor))
                    kept = [decode(body) for body in (await pipe.hgetall(_events(visitor))).values()]
                    chosen = belonging(kept, _times(await pipe.hgetall(_accounts(visitor))))
                    if chosen is None:
                        await pipe.unwatch()
                        return await self._forget_visitor(visitor)
                    pipe.multi()
                    if chosen:
                        pipe.hdel(_events(visitor), *map(str, chosen))
                    pipe.hdel(_accounts(visitor), str(account))
                    pipe.hdel(_visitors(account), str(visitor))
                    await pipe.execute()
                    return Forgotten(len(chosen), 1)
                except WatchError:
                    continue
        raise BusyError("a visitor is written by too many at once; ask again.")

    async def _rewrite(self) -> None:
        """Have the server's log of commands written anew: what was forgotten still stands in the old one."""
        try:
            await self._redis.bgrewriteaof()
        except ResponseError as error:  # one is under way, or the server is a hosted one
            say(f"the store's append-only file was not rewritten: {type(error).__name__}")
        except (RedisError, OSError) as error:
            raise UnavailableError(
                f"it is removed, but still stands in the store's log ({type(error).__name__})."
            ) from error

    async def _expire(self, before: int) -> int:
        total = 0
        async for key in self._redis.scan_iter("ci:e:*", count=1000):
            kept = await self._redis.hgetall(key)
            old = [event for event, body in kept.items() if decode(body).ts < before]
            total += await self._redis.hdel(key, *old) if old else 0
        for pattern in ("ci:a:*", "ci:v:*"):
            async for key in self._redis.scan_iter(pattern, count=1000):
                seen = await self._redis.hgetall(key)
                old = [field for field, times in seen.items() if int(times.split(b" ")[1]) < before]
                if old:
                    await self._redis.hdel(key, *old)
        return total


#: Keep the first and the last time that a field was seen.
_SEEN = """
local known = redis.call('HGET', KEYS[1], ARGV[1])
local first, last = ARGV[2], ARGV[2]
if known then
    local a, b = string.match(known, '(%S+) (%S+)')
    if tonumber(a) < tonumber(first) then first = a end
    if tonumber(b) > tonumber(last) then last = b end
end
redis.call('HSET', KEYS[1], ARGV[1], first .. ' ' .. last)
redis.call('EXPIRE', KEYS[1], ARGV[3])
"""


def _times(found: Mapping[bytes, bytes]) -> dict[int, int]:
    """Since when each is known."""
    return {int(code): int(times.split(b" ")[0]) for code, times in found.items()}


def _events(visitor: int) -> str:
    return f"ci:e:{visitor}"


def _accounts(visitor: int) -> str:
    return f"ci:a:{visitor}"


def _visitors(account: int) -> str:
    return f"ci:v:{account}"


def _gone(code: int) -> str:
    return f"ci:x:{code}"
