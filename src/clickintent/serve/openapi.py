"""The OpenAPI 3.1 document, from the structs of ``wire``."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from clickintent._version import __version__
from clickintent.serve import wire

_ANY = "Needs a key where keys are asked for."
_READ = "Needs a key with the scope `read` where keys are asked for."
_WRITE = "Needs a key with the scope `write` where keys are asked for."
_READ_OR_ADMIN = "Needs a key with the scope `read` or `admin` where keys are asked for."
_ADMIN = "Needs a key with the scope `admin` where keys are asked for."

#: method, path, summary, description, body, answer, statuses besides 200
_OPERATIONS: tuple[tuple[str, str, str, str, type | None, type, tuple[int, ...]], ...] = (
    (
        "post", "/v1/score", "Score one session",
        f"Embedding and intents of the events of one session. Nothing of it is kept. {_ANY}",
        wire.ScoreRequest, wire.ScoreAnswer, (400, 401, 403, 413, 422, 429, 503),
    ),
    (
        "post", "/v1/events", "Append to live sessions",
        "Keeps events, each once, and answers the intent of the sessions that their visitors are in. "
        f"When the answer is there, what was accepted is on the disk. {_WRITE}",
        wire.EventsRequest, wire.EventsAnswer, (400, 401, 403, 413, 422, 429, 503),
    ),
    (
        "post", "/v1/identify", "Tie a visitor to an account", f"As of now. {_WRITE}",
        wire.IdentifyRequest, wire.IdentifyAnswer, (400, 401, 403, 413, 422, 429, 503),
    ),
    (
        "get", "/v1/accounts/{id}/intent", "What an account's visitors wanted lately",
        f"Intents and visitor embedding over its sessions, recent ones weighing more, with evidence. {_READ}",
        None, wire.AccountAnswer, (401, 403, 404, 422, 429, 503),
    ),
    (
        "delete", "/v1/accounts/{id}", "Forget an account",
        "Removes it and the visitors that are tied to no other account, and refuses what comes of them "
        f"later. Tables of batch are another matter: `clickintent forget`. {_ADMIN}",
        None, wire.ForgetAnswer, (401, 403, 422, 429, 503),
    ),
    (
        "delete", "/v1/visitors/{id}", "Forget a visitor",
        f"Removes what is kept of it, and refuses what comes of it later. {_ADMIN}",
        None, wire.ForgetAnswer, (401, 403, 422, 429, 503),
    ),
    (
        "get", "/v1/taxonomy", "The intents in use", _ANY,
        None, wire.TaxonomyAnswer, (401, 403, 429, 503),
    ),
    (
        "get", "/v1/taxonomy/review", "What there is to decide on",
        f"The taxonomy as it stands in the workspace, what is proposed, and the history. {_READ_OR_ADMIN}",
        None, wire.Review, (401, 403, 404, 409, 429, 503),
    ),
    (
        "post", "/v1/taxonomy/decisions", "Decide on an intent or proposal",
        "Makes one decision as `clickintent taxonomy review` does, and answers what there is to decide on "
        f"then. It must be sent as application/json. {_ADMIN}",
        wire.NewDecision, wire.Review, (400, 401, 403, 404, 409, 413, 415, 422, 429, 503),
    ),
    ("get", "/healthz", "Is the process alive?", "", None, wire.Status, ()),
    ("get", "/readyz", "Can it serve?", "The store answers.", None, wire.Status, (503,)),
)  # fmt: skip

_MEANING = {
    200: "Done.",
    400: "The body is not JSON.",
    401: "No key, or an unknown one.",
    403: "The key lacks the scope; or no key is asked for, and the request does not come from this machine.",
    404: "Nothing is known of it.",
    409: "It was changed in the meantime, or a file in the workspace is not valid: look again.",
    413: "The body is too large.",
    415: "The body was not sent as application/json.",
    422: "The body, or an id, is not what it must be; `field` says where.",
    429: "Too many requests with this key; see Retry-After.",
    503: "It cannot be done now; see Retry-After.",
}


@cache
def document() -> bytes:
    """The document as JSON."""
    kinds = [wire.Problem, *(kind for operation in _OPERATIONS for kind in operation[4:6] if kind)]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    ref = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for method, path, summary, description, body, answer, statuses in _OPERATIONS:
        operation: dict[str, Any] = {
            "summary": summary,
            "operationId": f"{method}{path.replace('/', '_').replace('{', '').replace('}', '')}",
            "responses": {
                str(status): {
                    "description": _MEANING[status],
                    "content": {
                        "application/json": {"schema": ref[wire.Problem if status != 200 else answer]}
                    },
                }
                for status in (200, *statuses)
            },
        }
        if description:
            operation["description"] = description
        if body:
            operation["requestBody"] = {
                "required": True, "content": {"application/json": {"schema": ref[body]}}
            }  # fmt: skip
        if "{id}" in path:
            about = {
                "name": "id",
                "in": "path",
                "required": True,
                "schema": {"type": "string", "minLength": 1},
            }
            operation["parameters"] = [about]
        if path.startswith("/v1"):
            operation["security"] = [{"key": []}, {}]
        paths.setdefault(path, {})[method] = operation
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "clickintent",
                "version": __version__,
                "description": "Clickstream in; embeddings and intents out. Times are µs since 1970 UTC.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
        }
    )
