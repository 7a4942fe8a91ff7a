"""A local HTTP server that speaks the OpenAI chat-completions protocol, and misbehaves on request.

Its answers are plausible: they are derived from what the request shows, by plain rules on words. It keeps
every request, so that tests can look at what left the process.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Answer = dict[str, Any]

_SESSION = re.compile(r'<session n="(\d+)">(.*?)</session>')
_INTENT = re.compile(r"^(\S+) \[(.*?)\] (.*?): (.*)$", re.MULTILINE)


def sessions_in(user: str) -> list[tuple[int, str]]:
    """Numbers and narratives of the sessions in a prompt."""
    return [(int(number), text) for number, text in _SESSION.findall(user)]


def intents_in(user: str) -> list[tuple[str, str]]:
    """Ids and names of the intents in a prompt."""
    return [(id_, name) for id_, _, name, _ in _INTENT.findall(user.split("<session", 1)[0])]


def pages_in(narrative: str) -> list[str]:
    """The pages and searches of a narrative, without origin, dwell and repeats."""
    steps = narrative.rsplit(" · ", 1)[-1].split(" → ")
    return [re.sub(r"( ×\d+)?(, (briefly|a while|long))?$", "", step) for step in steps]


def plausible(task: str, user: str) -> Answer:
    """A reasonable answer to each of the prompts: intents are named after the pages that sessions show."""
    if task == "Labels":
        return {"sessions": [_labelled(n, text, intents_in(user)) for n, text in sessions_in(user)]}
    if task == "Draft":
        return {"intents": _named(user, known=[])}
    if "review a taxonomy" in user:
        limit = int(re.search(r"at most (\d+) intents afterwards", user)[1])  # type: ignore[index]
        ids = [id_ for id_, _ in intents_in(user)]
        merges = [{"into": ids[0], "ids": ids[limit:]}] if len(ids) > limit else []
        return {"intents": [], "merges": merges, "remove": []}
    return {"intents": _named(user, known=[n for _, n in intents_in(user)]), "merges": [], "remove": []}


def _named(user: str, known: list[str]) -> list[Answer]:
    limit = int(re.search(r"at most (\d+)", user)[1])  # type: ignore[index]
    examples: dict[str, list[int]] = {}
    for number, text in sessions_in(user):
        for page in dict.fromkeys(pages_in(text)):
            examples.setdefault(page, []).append(number)
    counts = Counter({page: len(numbers) for page, numbers in examples.items()})
    found = [page for page, _ in counts.most_common(limit) if page not in known]
    return [
        {
            "id": "",
            "area": page.split()[0],
            "name": page,
            "definition": f"The visitor looks at {page}.",
            "includes": [page],
            "excludes": [],
            "examples": examples[page][:3],
        }
        for page in found[: max(0, limit - len(known))]
    ]


def _labelled(number: int, text: str, intents: list[tuple[str, str]]) -> Answer:
    pages = pages_in(text)
    labels = [
        {"intent": id_, "confidence": round(0.5 + 0.5 * pages.count(name) / len(pages), 3), "evidence": name}
        for id_, name in intents
        if name in pages
    ]
    return {"session": number, "intents": labels}


@dataclass(frozen=True)
class Request:
    """What the server saw."""

    path: str
    headers: dict[str, str]  # names in lower case
    text: str  # the body as it was sent
    body: dict[str, Any]

    @property
    def task(self) -> str:
        """Name of the answer's schema, from the protocol or from the first words of the prompt."""
        format_ = self.body.get("response_format", {}).get("json_schema", {})
        if format_:
            return str(format_["name"])
        first = self.user.removeprefix("Task: ").split()[0]
        return {"draft": "Draft", "say": "Labels"}.get(first, "Revision")

    @property
    def system(self) -> str:
        return str(self.body["messages"][0]["content"])

    @property
    def user(self) -> str:
        return str(self.body["messages"][1]["content"])


@dataclass
class LlmServer:
    """``with LlmServer() as server:`` listens on a free port of this machine.

    Args:
        answer: (task, user prompt) → the answer.
        faults: what to do with the first requests instead of answering: a status code, ``"cut"`` (close the
            connection), ``"cut_body"`` (in the middle of the body), ``"hang"`` (say nothing until the end),
            ``"broken"`` (half a body, as if it were whole), ``"page"`` (HTML), ``"empty"`` (no choices),
            ``"truncate"`` (half an answer, finish_reason length), ``"nonsense"`` (no JSON) or ``"ok"``.
        always: what to do with all the others.
        formats: response formats that the server knows; it refuses others with 400.
        refuses: user prompts that it refuses with 400 in any format, as a content filter would.
    """

    answer: Callable[[str, str], Answer] = plausible
    faults: Iterable[int | str] = ()
    always: int | str = "ok"
    formats: tuple[str, ...] = ("json_schema", "json_object", "text")
    refuses: Callable[[str], bool] = lambda user: False
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> LlmServer:
        self._todo = deque(self.faults)
        self._lock = threading.Lock()
        self.over = threading.Event()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def next_fault(self, request: Request) -> int | str:
        with self._lock:
            self.requests.append(request)
            return self._todo.popleft() if self._todo else self.always


class _Handler(BaseHTTPRequestHandler):
    owner: LlmServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        request = Request(self.path, {k.lower(): v for k, v in self.headers.items()}, text, json.loads(text))
        fault = self.owner.next_fault(request)
        if fault == "cut":
            # a reset, not a polite end
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        if fault == "hang":
            self.owner.over.wait()
            self.close_connection = True
            return
        if fault == "page":
            self._send_bytes(200, b"<html>Please log in to the proxy</html>", "text/html")
            return
        if isinstance(fault, int):
            self._send(fault, {"error": {"message": f"fault {fault}", "type": "fault"}})
            return
        if self.owner.refuses(request.user):
            self._send(400, {"error": {"message": "this prompt is not allowed"}})
            return
        format_ = request.body.get("response_format", {"type": "text"})["type"]
        if format_ not in self.owner.formats:
            self._send(400, {"error": {"message": f"response_format {format_} is not supported"}})
            return
        content, reason = json.dumps(self.owner.answer(request.task, request.user)), "stop"
        if fault == "truncate":
            content, reason = content[: len(content) // 2], "length"
        elif fault == "nonsense":
            content = "Sure! Here is what I found: nothing."
        message = {"role": "assistant", "content": content}
        body = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": request.body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }
        if fault == "empty":
            body["choices"] = []
        data = json.dumps(body).encode()
        if fault == "broken":
            data = data[: len(data) // 2]
        if fault == "cut_body":
            self._send_bytes(200, data[: len(data) // 2], claimed=len(data))
            self.close_connection = True
            return
        self._send_bytes(200, data)

    def _send(self, status: int, body: dict[str, Any]) -> None:
        self._send_bytes(status, json.dumps(body).encode())

    def _send_bytes(
        self, status: int, data: bytes, kind: str = "application/json", claimed: int | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data) if claimed is None else claimed))
        if status == 429:
            self.send_header("retry-after-ms", "20")
        self.end_headers()
        self.wfile.write(data)

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the connection may have been cut on purpose
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        return
