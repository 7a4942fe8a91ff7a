"""A request to a language model, the reply to it, and whether that is the answer that was asked for."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

Answer = TypeVar("Answer", bound=BaseModel)

PATH = "/v1/chat/completions"
CHARS_PER_TOKEN = 4.0  # a usual ratio for English text; only for estimates
_QUOTED = 8000  # characters of an unusable answer that are sent back with the reason


class NotValidError(Exception):
    """Why an answer does not fit, in words for the model. ``kind`` says it without a word of the answer."""

    def __init__(self, kind: str, problem: str) -> None:
        self.kind = kind
        super().__init__(problem)


@dataclass(frozen=True)
class Reply:
    """What came back: the text, whether the output limit cut it off, and the tokens, if they were told."""

    text: str
    cut_off: bool = False
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True)
class Request(Generic[Answer]):
    """One question: the messages, and the pydantic model that the answer must fit."""

    model: str
    system: str
    user: str
    schema: type[Answer]
    endpoint: str = ""
    repair: tuple[str, str] | None = None  # an unusable answer, and what the model is told about it

    @property
    def task(self) -> str:
        """Name of the answer's schema."""
        return self.schema.__name__

    @cached_property
    def json_schema(self) -> dict[str, Any]:
        return strict_schema(self.schema)

    @property
    def messages(self) -> list[dict[str, str]]:
        messages = [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}]
        if self.repair:
            answer, told = self.repair
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": told}]
        return messages

    @cached_property
    def key(self) -> str:
        """A hash of all that the answer depends on: an answer to anything else can never be taken for it."""
        parts = [self.endpoint, self.model, self.messages, self.json_schema]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def input_tokens(self) -> int:
        """An estimate."""
        return estimate_tokens("".join(message["content"] for message in self.messages))

    def body(self) -> dict[str, Any]:
        """Of the call, in the protocol's strictest answer format."""
        described = {"name": self.task, "schema": self.json_schema, "strict": True}
        return {
            "model": self.model,
            "messages": self.messages,
            "response_format": {"type": "json_schema", "json_schema": described},
        }

    def repaired(self, reply: Reply, told: str) -> Request[Answer]:
        """The same question, with the unusable answer and what was wrong with it."""
        return Request(
            self.model, self.system, self.user, self.schema, self.endpoint, (reply.text[:_QUOTED], told)
        )

    def parse(self, reply: Reply) -> Answer:
        """The checked answer.

        Raises:
            NotValidError: if it does not fit.
        """
        try:
            return self.schema.model_validate_json(json_text(reply.text))
        except ValidationError as error:
            errors = error.errors(include_input=False, include_context=False)
            if reply.cut_off:
                told = f" after {reply.output_tokens} tokens" if reply.output_tokens else ""
                problem = f"the answer was cut off by the output limit{told}"
                raise NotValidError("cut off by the output limit", problem) from error
            if errors[0]["type"] == "json_invalid":
                raise NotValidError("answer is not JSON", f"answer: {errors[0]['msg']}") from error
            # places, not names: a name may be the answer's own
            found = [f"{_place(e['loc'])}: {e['msg']}" for e in errors[:5]]
            raise NotValidError("answer does not fit the schema", "; ".join(found)) from error

    def __str__(self) -> str:
        """All that would be sent, for people."""
        messages = "\n\n".join(f"[{m['role']}]\n{m['content']}" for m in self.messages)
        return f"{messages}\n\n[answer format: JSON schema {self.task}]\n{json.dumps(self.json_schema)}"


def _place(loc: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in loc) or "answer"


def reply_in(body: Any) -> Reply | None:
    """The reply in the body of a chat completion; None if it is not one. Nothing in it is trusted."""
    choices = body.get("choices") if isinstance(body, Mapping) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(choice, Mapping) or not isinstance(message, Mapping):
        return None
    usage = body.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    content = message.get("content")  # null if the model refused
    return Reply(
        text=clean(content) if isinstance(content, str) else "",
        cut_off=choice.get("finish_reason") == "length",
        input_tokens=_count(usage.get("prompt_tokens")),
        output_tokens=_count(usage.get("completion_tokens")),
    )


def clean(text: str) -> str:
    """Text that can be stored: without halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode()


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 40 else None


def json_text(text: str) -> str:
    """The JSON object inside an answer: without thinking, code fences, or words around it."""
    text = text.rsplit("</think>", 1)[-1].strip()
    fenced = re.search(r"```(?:json)?\s*(.*?)```", text, re.DOTALL)
    if fenced:
        text = fenced[1]
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1] if 0 <= start < end else text


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
