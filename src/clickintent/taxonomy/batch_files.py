"""Requests and responses as files: OpenAI Batch JSONL, for any service or offline tool that reads it.

A run takes what answers there are, writes all requests that can be asked next, and stops. Responses are
matched by ``custom_id``, a hash of the request, so that none can be taken for the answer to a changed one.
Nothing in a responses file is trusted: a line that cannot be used is counted with its reason and listed,
without its content, in ``refused.jsonl``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from clickintent.config import LlmConfig
from clickintent.errors import AnswersNeededError
from clickintent.progress import say
from clickintent.taxonomy.answers import PATH, Answer, NotValidError, Reply, Request, clean, reply_in
from clickintent.taxonomy.limits import Budget
from clickintent.taxonomy.llm import RecordedModel
from clickintent.workspace import write_text

_LONGEST_LINE = 16 << 20  # bytes
_LARGEST_FILE = 50_000, 180 << 20  # requests and bytes in one file, under the limits of batch services
_USED, _BEFORE, _CLOSED = "used", "answered before", "custom_id of no request that is open"


@dataclass(frozen=True)
class Line:
    """One line of a responses file: where it stands, and what it holds or why it cannot be used."""

    file: str
    number: int
    custom_id: str
    reply: Reply | None
    problem: str = ""


def read_responses(paths: Iterable[Path]) -> Iterator[Line]:
    """Every line that is not blank, in order."""
    for path in paths:
        with path.open("rb") as file:
            for number, raw in enumerate(_lines(file), 1):
                if raw is None:
                    yield Line(path.name, number, "", None, f"longer than {_LONGEST_LINE >> 20} MiB")
                elif raw.strip():
                    yield _read(path.name, number, raw)


def _lines(file: IO[bytes]) -> Iterator[bytes | None]:
    """Lines; None for one that is too long."""
    while raw := file.readline(_LONGEST_LINE):
        if len(raw) < _LONGEST_LINE or raw.endswith(b"\n"):
            yield raw
            continue
        while (rest := file.readline(_LONGEST_LINE)) and not rest.endswith(b"\n"):
            pass
        yield None


def _refused_before(path: Path, responses: Sequence[Path]) -> dict[tuple[str, int], str]:
    """Why lines of these responses were refused when an earlier stage read them, by file and line."""
    if not path.exists() or any(p.stat().st_mtime_ns > path.stat().st_mtime_ns for p in responses):
        return {}
    refused = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {(row["file"], row["line"]): row["reason"] for row in refused}


def _read(file: str, number: int, raw: bytes) -> Line:
    def refused(problem: str, custom_id: str = "") -> Line:
        return Line(file, number, custom_id, None, problem)

    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # also not UTF-8
        return refused("not JSON")
    if not isinstance(value, dict) or not isinstance(value.get("custom_id"), str):
        return refused("no custom_id")
    custom_id = value["custom_id"]
    if "content" in value:
        content = value["content"]
        if isinstance(content, Mapping):
            content = json.dumps(content)
        if not isinstance(content, str):
            return refused("content is neither text nor an object", custom_id)
        return Line(file, number, custom_id, Reply(clean(content)))
    response = value.get("response")
    response = response if isinstance(response, dict) else {}
    status = response.get("status_code", 200)
    if value.get("error") or status != 200:
        return refused(f"error, status {status}" if _is_status(status) else "error", custom_id)
    reply = reply_in(response.get("body"))
    return Line(file, number, custom_id, reply) if reply else refused("no answer in it", custom_id)


def _is_status(value: Any) -> bool:
    return isinstance(value, int) and 100 <= value <= 599 and value != 200


def write_requests(requests: Sequence[Request[Any]], folder: Path) -> list[Path]:
    """Write ``requests.jsonl``, and ``requests-2.jsonl`` and so on if one file would be too large for a batch
    service. Files of an earlier round go. Returns the paths.
    """
    parts: list[list[str]] = []
    size = 0
    for request in requests:
        line = json.dumps(
            {"custom_id": request.key, "method": "POST", "url": PATH, "body": request.body()},
            ensure_ascii=False,
        )
        n_bytes = len(line.encode()) + 1
        if not parts or len(parts[-1]) == _LARGEST_FILE[0] or size + n_bytes > _LARGEST_FILE[1]:
            parts.append([])
            size = 0
        parts[-1].append(f"{line}\n")
        size += n_bytes
    names = [f"requests{'' if n == 1 else f'-{n}'}.jsonl" for n in range(1, len(parts) + 1)]
    for name, part in zip(names, parts, strict=True):
        write_text("".join(part), folder / name)
    for old in folder.glob("requests*.jsonl"):
        if old.name not in names:
            old.unlink()
    return [folder / name for name in names]


class BatchModel(RecordedModel):
    """Answers from ``responses*.jsonl``; what they lack is written by ``finish`` as ``requests.jsonl``.

    Args:
        folder: of both.
    """

    def __init__(self, config: LlmConfig, cache: Path | None, folder: Path) -> None:
        super().__init__(config, cache, read_only=False)
        self._folder = folder
        self._budget = Budget(config, self._cache, self.usage)
        paths = sorted(folder.glob("responses*.jsonl"))
        self._lines = list(read_responses(paths))
        self._refused_before = _refused_before(folder / "refused.jsonl", paths)
        self._fate: dict[int, str] = {n: line.problem for n, line in enumerate(self._lines) if line.problem}
        self._by_id: dict[str, list[tuple[int, Reply]]] = {}
        for n, line in enumerate(self._lines):
            if line.reply:
                self._by_id.setdefault(line.custom_id, []).append((n, line.reply))

    def finish(self) -> None:
        """Write what is still to be asked, and say what became of the lines of the responses.

        Raises:
            AnswersNeededError: if anything is to be asked; says what to do next.
            BudgetError: if that would pass a cap; then no requests are written.
        """
        report = self.report()
        requests = list(self.open.values())
        if not requests:
            write_requests([], self._folder)
            say(f"  {report}")
            return
        with self._budget.reserve([request.input_tokens for request in requests]):
            written = write_requests(requests, self._folder)
        tokens = sum(request.input_tokens for request in requests)
        repairs = sum(request.repair is not None for request in requests)
        again = f", {repairs:,} of them because the answer before could not be used" if repairs else ""
        what = f"{len(requests):,} request{'s' if len(requests) > 1 else ''} to {self.name}"
        raise AnswersNeededError(
            f"{what} (about {tokens:,} tokens{again}) written to {', '.join(map(str, written))}. Nothing was "
            "sent. Send the file to a batch service, or run it through a model of your own; put the answers "
            f"at {self._folder / 'responses.jsonl'} (or several files, responses*.jsonl) and give the same "
            f"command again. {report}"
        )

    def _obtain(self, request: Request[Answer]) -> Reply:
        received = self._by_id.get(request.key, [])
        first: Reply | None = None  # of the replies that are not valid
        for place, (n, reply) in enumerate(received):
            try:
                request.parse(reply)
            except NotValidError as problem:
                self._fate[n] = problem.kind
                first = first or reply
                continue
            self._fate[n] = _USED
            for other, _ in received[place + 1 :]:
                self._fate[other] = "a second answer to the same request"
            self._count(request, reply)
            return reply
        kept = self._cache.refused(request.key)
        if kept is None and first is not None:
            self._count(request, first)
            return first
        return super()._obtain(request)

    def _count(self, request: Request[Answer], reply: Reply) -> None:
        if self._cache.refused(request.key) != reply:
            self.usage.add(calls=1)
            self._paid(request, reply)

    def report(self) -> str:
        """Write ``refused.jsonl``; the lines by what became of them, which add up."""
        counts: Counter[str] = Counter()
        refused = []
        for n, line in enumerate(self._lines):
            known = self._cache.get(line.custom_id) is not None
            before = self._refused_before.get((line.file, line.number))
            fate = self._fate.get(n) or before or (_BEFORE if known else _CLOSED)
            counts[fate] += 1
            if fate not in (_USED, _BEFORE):
                refused.append(json.dumps({"file": line.file, "line": line.number, "reason": fate}) + "\n")
        path = self._folder / "refused.jsonl"
        path.unlink(missing_ok=True)
        if not self._lines:
            return "There are no responses yet."
        good = f"{counts.pop(_USED, 0):,} used + {counts.pop(_BEFORE, 0):,} {_BEFORE}"
        text = f"Responses: {len(self._lines):,} lines = {good} + {len(refused):,} refused"
        if refused:
            write_text("".join(refused), path)
            reasons = ", ".join(f"{n:,} × {reason}" for reason, n in counts.most_common())
            text += f" ({reasons}; see {path})"
        return f"{text}."
