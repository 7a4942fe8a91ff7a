"""A load generator for ``serving.py``: HTTP/1.1 over keep-alive connections, in a process of its own.

Open loop: requests are due at fixed times, and a latency counts from when the request was due, not from
when a slow server let it be sent. Closed loop: each connection sends its next request when the answer is
there.

    python serving_load.py PORT PATH BODIES SECONDS CONNECTIONS [RATE]

BODIES: a file with one JSON body a line, sent in turn; in it, ``@N`` becomes the number of the request (from
``--first``), ``@V`` an eighth of that (a visitor who does eight things), ``@T`` the time in µs.
Prints a JSON object: ``latencies_ms``, ``statuses``, ``seconds``, ``sent`` (how many), ``answered`` (numbers
of the requests that were answered with 200, with ``--answered``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path

import uvloop


class Load:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.bodies = [line for line in Path(options.bodies).read_bytes().split(b"\n") if line]
        self.latencies: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.answered: list[int] = []
        self.next = 0

    async def run(self) -> dict[str, object]:
        options = self.options
        self.due: asyncio.Queue[float | None] = asyncio.Queue()
        self.stop = time.perf_counter() + options.seconds
        started = time.perf_counter()
        tasks = [asyncio.create_task(self.connection()) for _ in range(options.connections)]
        if options.rate:
            await self.schedule()
        await asyncio.gather(*tasks)
        return {
            "seconds": time.perf_counter() - started,
            "latencies_ms": [round(1000 * value, 3) for value in self.latencies],
            "statuses": dict(self.statuses),
            "sent": self.next,
            "answered": self.answered if options.answered else [],
        }

    async def schedule(self) -> None:
        start = time.perf_counter()
        for i in range(round(self.options.seconds * self.options.rate)):
            at = start + i / self.options.rate
            wait = at - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            self.due.put_nowait(at)
        for _ in range(self.options.connections):
            self.due.put_nowait(None)

    async def connection(self) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.options.port)
            while (at := await self.turn()) is not None:
                number = self.next
                self.next += 1
                body = self.body(number)
                head = f"POST {self.options.path} HTTP/1.1\r\nHost: localhost\r\n"
                head += f"Content-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                answer = await reader.readuntil(b"\r\n\r\n")
                length = answer.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]
                body = await reader.readexactly(int(length))
                status = answer[9:12].decode()
                if status == "200" and self.options.expect.encode() not in body:
                    status = "200 without it"
                self.latencies.append(time.perf_counter() - at)
                self.statuses[status] += 1
                if status == "200" and self.options.answered:
                    self.answered.append(number + self.options.first)
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            self.statuses["cut"] += 1

    def body(self, number: int) -> bytes:
        body, n = self.bodies[number % len(self.bodies)], number + self.options.first
        if b"@" not in body:
            return body
        body = body.replace(b"@N", b"%d" % n).replace(b"@V", b"%d" % (n // 8))
        return body.replace(b"@T", b"%d" % (time.time_ns() // 1000))

    async def turn(self) -> float | None:
        """When the next request is due; None when there is none."""
        if self.options.rate:
            return await self.due.get()
        now = time.perf_counter()
        return now if now < self.stop and self.next < (self.options.most or self.next + 1) else None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("bodies")
    parser.add_argument("seconds", type=float)
    parser.add_argument("connections", type=int)
    parser.add_argument("rate", type=float, nargs="?", default=0.0)
    parser.add_argument("--most", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--expect", default="", help="what an answer of 200 must hold")
    parser.add_argument("--answered", action="store_true")
    json.dump(uvloop.run(Load(parser.parse_args()).run()), sys.stdout)


if __name__ == "__main__":
    main()
