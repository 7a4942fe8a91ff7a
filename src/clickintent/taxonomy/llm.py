"""Language models: a small protocol, and the one backend, any OpenAI-compatible endpoint.

``complete`` sends a system and a user text and returns an answer that was checked against a pydantic
model. An answer that does not fit is sent back once with the reason. Valid answers are cached by the
content of the request, so that a killed run repeats no call. No key is ever written or logged.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from clickintent.config import LlmConfig
from clickintent.errors import LanguageModelError, require
from clickintent.taxonomy.cache import AnswerCache
from clickintent.taxonomy.prompts import prompt

Answer = TypeVar("Answer", bound=BaseModel)
Work = TypeVar("Work")
Result = TypeVar("Result")

CHARS_PER_TOKEN = 4.0  # a usual ratio for English text; only for estimates


class InvalidAnswerError(LanguageModelError):
    """The model answered, twice, with something that is not what was asked for."""


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
        paid_in = self.input_tokens * self.price_per_million_input
        return (paid_in + self.output_tokens * self.price_per_million_output) / 1e6

    def as_dict(self) -> dict[str, float]:
        """The counters and the cost, for ``metrics.json``."""
        names = ("calls", "cached", "repaired", "input_tokens", "output_tokens", "seconds", "cost")
        return {name: getattr(self, name) for name in names}


class LanguageModel(Protocol):
    """Something that answers a prompt with a valid instance of a pydantic model."""

    name: str
    usage: Usage

    def complete(self, system: str, user: str, schema: type[Answer]) -> Answer:
        """Answer ``user`` under the instructions ``system``.

        Raises:
            InvalidAnswerError: if the answer does not fit ``schema`` even after one repair.
            LanguageModelError: if the endpoint cannot be used.
        """
        ...


@dataclass(frozen=True)
class _Reply:
    text: str
    cut_off: bool
    input_tokens: int
    output_tokens: int


class OpenAIModel:
    """A model behind an OpenAI-compatible endpoint: cloud, vLLM, Ollama, llama.cpp and others.

    The key comes from the environment variable that ``config.api_key_env`` names. A server on this
    machine (a loopback ``base_url``) needs none. Status 429, 5xx, timeouts and broken connections are tried
    again ``config.retries`` times, with exponential backoff and jitter, by the SDK.

    Raises:
        LanguageModelError: if the key is not set.
        MissingDependencyError: if the package ``openai`` is not installed.
    """

    def __init__(self, config: LlmConfig, cache: Path | None = None) -> None:
        self.name = config.model
        self.usage = Usage(
            price_per_million_input=config.price_per_million_input,
            price_per_million_output=config.price_per_million_output,
        )
        self._config = config
        self._endpoint = config.base_url or os.environ.get("OPENAI_BASE_URL") or ""
        self._key = _api_key(config, self._endpoint)
        self._openai = require("openai", "llm")
        options: dict[str, Any] = {}
        if is_loopback(self._endpoint):  # a proxy for other machines must not stand between
            options["http_client"] = self._openai.DefaultHttpxClient(trust_env=False)
        self._client = self._openai.OpenAI(
            api_key=self._key,
            base_url=self._endpoint or None,
            timeout=config.timeout_s,
            max_retries=config.retries,
            **options,
        )
        self._cache = AnswerCache(cache / "answers.sqlite3") if cache else None
        #: Answer formats that the server has not refused yet, the strictest first.
        self._formats: tuple[str, ...] = ("json_schema", "json_object", "text")

    def complete(self, system: str, user: str, schema: type[Answer]) -> Answer:
        """See ``LanguageModel.complete``."""
        json_schema = strict_schema(schema)
        key = _content_key(self._endpoint, self.name, system, user, json_schema)
        stored = self._cache.get(key) if self._cache else None
        if stored is not None:
            self.usage.add(cached=1)
            return schema.model_validate_json(stored)
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        reply = self._ask(messages, schema.__name__, json_schema)
        try:
            answer = _parse(reply, schema)
        except _NotValidError as problem:
            messages += [
                {"role": "assistant", "content": reply.text},
                {"role": "user", "content": prompt("repair", problem=str(problem))},
            ]
            reply = self._ask(messages, schema.__name__, json_schema)
            try:
                answer = _parse(reply, schema)
            except _NotValidError as again:
                raise InvalidAnswerError(
                    f"{self.name} gave no usable {schema.__name__}, also when asked again: {again}. "
                    "Try smaller requests (taxonomy.minibatch), a larger output limit on the server, or "
                    "another model."
                ) from again
            self.usage.add(repaired=1)
        if self._cache:
            self._cache.put(key, answer.model_dump_json())
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and the cache."""
        self._client.close()
        if self._cache:
            self._cache.close()

    def _ask(self, messages: list[dict[str, str]], name: str, json_schema: dict[str, Any]) -> _Reply:
        """One call, in the strictest answer format that the server knows."""
        refused: Exception | None = None
        formats = self._formats
        for place, format_ in enumerate(formats):
            started = time.monotonic()
            try:
                response = self._client.chat.completions.create(
                    **_request(format_, self.name, messages, name, json_schema)
                )
            except (self._openai.BadRequestError, self._openai.UnprocessableEntityError) as error:
                refused = refused or error  # the first refusal is the one about what we really want
                continue
            except self._openai.OpenAIError as error:
                raise self._problem(error) from None  # its chain holds the request, and that the key
            finally:
                self.usage.add(calls=1, seconds=time.monotonic() - started)
            self._formats = formats[place:]
            reply = _read(response, messages)
            self.usage.add(input_tokens=reply.input_tokens, output_tokens=reply.output_tokens)
            return reply
        raise self._problem(refused) from None

    def _problem(self, error: Exception | None) -> LanguageModelError:
        where = self._endpoint or "the default OpenAI endpoint"
        text = str(error).replace(self._key, "[key]") if self._key else str(error)
        sdk = self._openai
        if isinstance(error, sdk.AuthenticationError | sdk.PermissionDeniedError):
            advice = f"Check the key in the environment variable {self._config.api_key_env}."
        elif isinstance(error, sdk.NotFoundError):
            advice = "Check llm.model and llm.base_url (it usually ends in /v1)."
        elif isinstance(error, sdk.RateLimitError):
            advice = "Lower llm.concurrency, raise llm.retries, or check the quota."
        elif isinstance(error, sdk.APITimeoutError):
            advice = f"Raise llm.timeout_s (now {self._config.timeout_s:g})."
        elif isinstance(error, sdk.APIConnectionError):
            advice = "Is the server running, and llm.base_url right?"
        else:
            advice = "The server's own log may say more."
        tries = f" after {self._config.retries + 1} attempts" if self._config.retries else ""
        final = isinstance(error, sdk.APIStatusError) and error.status_code < 500 and error.status_code != 429
        return LanguageModelError(
            f"{self.name} at {where}{'' if final else tries}: {text} {advice} "
            "Answers so far are kept; the same command goes on where it stopped."
        )


class _NotValidError(Exception):
    """Why an answer does not fit, in words for the model."""


def _parse(reply: _Reply, schema: type[Answer]) -> Answer:
    try:
        return schema.model_validate_json(json_text(reply.text))
    except ValidationError as error:
        if reply.cut_off:
            raise _NotValidError(
                f"the answer was cut off by the output limit after {reply.output_tokens} tokens"
            ) from error
        found = [f"{'.'.join(str(p) for p in e['loc']) or 'answer'}: {e['msg']}" for e in error.errors()[:5]]
        raise _NotValidError("; ".join(found)) from error


def json_text(text: str) -> str:
    """The JSON object inside an answer: without thinking, code fences, or words around it."""
    text = text.rsplit("</think>", 1)[-1].strip()
    fenced = re.search(r"```(?:json)?\s*(.*?)```", text, re.DOTALL)
    if fenced:
        text = fenced[1]
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1] if 0 <= start < end else text


def _read(response: Any, messages: Sequence[dict[str, str]]) -> _Reply:
    choice = response.choices[0] if getattr(response, "choices", None) else None
    text = (choice.message.content if choice and choice.message else None) or ""
    usage = getattr(response, "usage", None)
    sent = "".join(message["content"] for message in messages)
    return _Reply(
        text=text,
        cut_off=bool(choice and choice.finish_reason == "length"),
        input_tokens=getattr(usage, "prompt_tokens", None) or estimate_tokens(sent),
        output_tokens=getattr(usage, "completion_tokens", None) or estimate_tokens(text),
    )


def _request(
    format_: str, model: str, messages: list[dict[str, str]], name: str, json_schema: dict[str, Any]
) -> dict[str, Any]:
    """Arguments of the call. Without a schema in the protocol, the schema stands in the system text."""
    if format_ == "json_schema":
        described = {"name": name, "schema": json_schema, "strict": True}
        return {
            "model": model,
            "messages": messages,
            "response_format": {"type": "json_schema", "json_schema": described},
        }
    told = prompt("schema", schema=json.dumps(json_schema))
    messages = [{"role": "system", "content": f"{messages[0]['content']}\n\n{told}"}, *messages[1:]]
    request: dict[str, Any] = {"model": model, "messages": messages}
    if format_ == "json_object":
        request["response_format"] = {"type": "json_object"}
    return request


def strict_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a pydantic model in the subset that structured output takes: every property is
    required and no other is allowed.
    """
    schema = model.model_json_schema()

    def close(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object" and "properties" in node:
                node["required"] = list(node["properties"])
                node["additionalProperties"] = False
            for name in ("title", "default"):
                if not isinstance(node.get(name), dict):
                    node.pop(name, None)
            for child in node.values():
                close(child)
        elif isinstance(node, list):
            for child in node:
                close(child)

    close(schema)
    return schema


def estimate_tokens(text: str) -> int:
    """Tokens by the rule of thumb of four characters each."""
    return round(len(text) / CHARS_PER_TOKEN)


def is_loopback(url: str) -> bool:
    """Whether a URL is of this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _api_key(config: LlmConfig, endpoint: str) -> str:
    key = os.environ.get(config.api_key_env, "").strip()
    if key:
        return key
    if is_loopback(endpoint):
        return "none"
    raise LanguageModelError(
        f"llm.backend is 'openai', but the environment variable {config.api_key_env} (llm.api_key_env) is "
        'not set. Set it to the key, or use backend = "keywords", which needs none.'
    )


def _content_key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def in_threads(
    work: Callable[[Work], Result], items: Sequence[Work], threads: int
) -> Iterator[tuple[int, Result | InvalidAnswerError]]:
    """Do ``work`` on every item in threads; yield (index, result) as they finish.

    An ``InvalidAnswerError`` is a result; any other error stops what has not begun and is raised.
    """
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
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
