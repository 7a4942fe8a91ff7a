"""A model behind an OpenAI-compatible endpoint: cloud, vLLM, Ollama, llama.cpp and others."""

from __future__ import annotations

import ipaddress
import json
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from clickintent.config import LlmConfig
from clickintent.errors import LanguageModelError, require
from clickintent.taxonomy.answers import Answer, Reply, Request, estimate_tokens, reply_in
from clickintent.taxonomy.limits import Budget, RateLimit
from clickintent.taxonomy.llm import CachedModel, InvalidAnswerError, endpoint_of
from clickintent.taxonomy.prompts import prompt

#: Statuses that are about a request, such as its length or what a content filter finds in it.
_REFUSED = (400, 413, 422)


class OpenAIModel(CachedModel):
    """See the module.

    The key comes from the environment variable that ``config.api_key_env`` names, and is never written or
    logged; neither are user and password in ``base_url``, which are sent as Basic authentication in place of
    the key. A server on this machine (a loopback ``base_url``) needs no key. Status 429, 5xx, timeouts and
    broken connections are tried again ``config.retries`` times, with exponential backoff and jitter, by the
    SDK; the rate limit holds for these attempts, too.

    A request that got no usable answer is asked anew by the next run: the server may have been changed. One
    that the server refuses in every answer format has none; others may.

    Raises:
        LanguageModelError: if the key is not set, or ``base_url`` is no URL.
        MissingDependencyError: if the package ``openai`` is not installed.
    """

    def __init__(self, config: LlmConfig, cache: Path | None = None) -> None:
        self._url, login = without_login(endpoint_of(config))
        self._key = _api_key(config, self._url)
        self._openai = require("openai", "llm")
        super().__init__(config, cache)
        self.concurrency = config.concurrency
        self._budget = Budget(config, self._cache, self.usage)
        limit = RateLimit(config.requests_per_minute, config.tokens_per_minute)

        def wait(request: Any) -> None:
            limit.wait(estimate_tokens(request.content.decode("utf-8", "replace")))

        self._client = self._openai.OpenAI(
            api_key=self._key,
            base_url=self._url or None,
            timeout=config.timeout_s,
            max_retries=config.retries,
            http_client=self._openai.DefaultHttpxClient(
                auth=login,
                event_hooks={"request": [wait]},
                trust_env=not is_loopback(self._url),  # a proxy for others must not stand between
            ),
        )
        #: Answer formats that the server has not refused yet, the strictest first.
        self._formats: tuple[str, ...] = ("json_schema", "json_object", "text")

    def close(self) -> None:
        """Close the connections and the cache."""
        self._client.close()
        super().close()

    def _obtain(self, request: Request[Answer]) -> Reply:
        kept = self._cache.refused(request.key)
        if kept is not None and not self._cache.failed(request.key):
            return kept
        with self._budget.reserve([request.input_tokens]):
            return self._ask(request)

    def _ask(self, request: Request[Answer]) -> Reply:
        """One call, in the strictest answer format that the server knows.

        Raises:
            InvalidAnswerError: if the server refuses this request in every format.
            LanguageModelError: if it would not answer any other one either.
        """
        refused: Exception | None = None
        formats = self._formats
        for place, format_ in enumerate(formats):
            started = time.monotonic()
            try:
                response = self._client.chat.completions.with_raw_response.create(
                    **self._arguments(request, format_)
                )
            except self._openai.OpenAIError as error:
                if getattr(error, "status_code", None) not in _REFUSED:
                    raise self._problem(error) from None  # its chain holds the request, and that the key
                refused = refused or error  # the first refusal is the one about what we really want
                continue
            finally:
                self.usage.add(calls=1, seconds=time.monotonic() - started)
            self._formats = formats[place:]
            reply = _read(response.content)
            self._paid(request, reply)
            return reply
        raise InvalidAnswerError(
            f"{self.name} at {self._where} refused a {request.task} request: {self._told(refused)} If that "
            "is about its length or a content filter, try smaller requests (taxonomy.minibatch)."
        ) from None

    def _arguments(self, request: Request[Answer], format_: str) -> dict[str, Any]:
        """Of the call. Without a schema in the protocol, the schema stands in the system text."""
        body = request.body()
        if format_ == "json_schema":
            return body
        told = prompt("schema", self._config.prompts, schema=json.dumps(request.json_schema))
        first, *others = body["messages"]
        messages = [{"role": "system", "content": f"{first['content']}\n\n{told}"}, *others]
        arguments: dict[str, Any] = {"model": self.name, "messages": messages}
        if format_ == "json_object":
            arguments["response_format"] = {"type": "json_object"}
        return arguments

    @property
    def _where(self) -> str:
        return self._url or "the default OpenAI endpoint"

    def _told(self, error: Exception | None) -> str:
        return str(error).replace(self._key, "[key]")

    def _problem(self, error: Exception) -> LanguageModelError:
        sdk = self._openai
        if isinstance(error, sdk.AuthenticationError | sdk.PermissionDeniedError):
            advice = f"Check the key in the environment variable {self._config.api_key_env}."
        elif isinstance(error, sdk.NotFoundError):
            advice = "Check llm.model and llm.base_url (it usually ends in /v1)."
        elif isinstance(error, sdk.RateLimitError):
            advice = "Lower llm.concurrency, set llm.requests_per_minute, or check the quota."
        elif isinstance(error, sdk.APITimeoutError):
            advice = f"Raise llm.timeout_s (now {self._config.timeout_s:g})."
        elif isinstance(error, sdk.APIConnectionError):
            advice = "Is the server running, and llm.base_url right?"
        else:
            advice = "The server's own log may say more."
        tries = f" after {self._config.retries + 1} attempts" if self._config.retries else ""
        final = isinstance(error, sdk.APIStatusError) and error.status_code < 500 and error.status_code != 429
        return LanguageModelError(
            f"{self.name} at {self._where}{'' if final else tries}: {self._told(error)} {advice} "
            "Answers so far are kept; the same command goes on where it stopped."
        )


def _read(content: bytes) -> Reply:
    """The reply in a response; one without text, which is not a valid answer, if it is no completion."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    return reply_in(body) or Reply("")


def without_login(url: str) -> tuple[str, tuple[str, str] | None]:
    """A URL without user and password, which would show in logs and errors, and these two, if it has any.

    Raises:
        LanguageModelError: if the two cannot be told from the rest; does not repeat them.
    """
    try:
        parts = urlsplit(url)
        login, _, host = parts.netloc.rpartition("@")
        bare = parts._replace(netloc=host).geturl()
        if "@" in bare:  # a password with a slash in it, or no scheme before it
            raise ValueError
    except ValueError:
        raise LanguageModelError(
            "llm.base_url is not of the form https://HOST/PATH or https://USER:PASSWORD@HOST/PATH. "
            "Elsewhere, @ is written %40; in a user or password, / is written %2F, # is %23 and ? is %3F."
        ) from None
    user, _, password = login.partition(":")
    return (bare, (unquote(user), unquote(password))) if login else (url, None)


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
