"""The taxonomy as people decide on it, over HTTP: what there is to decide, and one decision at a time.

It is read from and written to the workspace in threads; the model in use follows when it next looks there.
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import Mapping

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from clickintent.config import Config
from clickintent.errors import ArtifactError, ChangedError, ConfigError, InUseError, WorkspaceError
from clickintent.explorer.review import review_document, stamp
from clickintent.pipeline.reviewing import decide
from clickintent.serve.door import Context, HttpError, body_of, is_json, key_of, unlimited
from clickintent.serve.wire import NewDecision, Problem, encode
from clickintent.taxonomy.review import CommandError, Wanted

_DECISION = msgspec.json.Decoder(NewDecision)
_OF_KEY = re.compile(r"\(\s*key\s", re.IGNORECASE)  # what is added to a name that a key stands behind
_MOMENT = 5  # seconds until a stage may be done
_TAKES_VALUE = ("rename", "redefine", "move", "merge", "accept")


class Reviews:
    """What the routes of the review share.

    Attributes:
        deciding: held by who decides; two at once would find the workspace in use.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self.deciding = asyncio.Lock()
        self._known: tuple[object, bytes] | None = None  # the document, and the state of the files it is of

    def document(self) -> bytes:
        """The ``Review`` as JSON.

        Raises:
            HttpError: if there is no taxonomy, or a file is not valid.
        """
        state, known = stamp(self._config.workspace), self._known
        if known is None or known[0] != state:
            try:
                known = state, encode(review_document(self._config.workspace, self._config))
            except (ArtifactError, WorkspaceError, OSError) as error:
                raise self._told(error) from error
            self._known = known
        return known[1]

    def decide(self, asked: NewDecision, key: str | None) -> bytes:
        """Make a decision; the ``Review`` afterwards.

        Args:
            key: the name of the key that was given.

        Raises:
            HttpError: if it cannot be made; says why.
        """
        by = " ".join(_printable(asked.by).split())
        if not by:
            raise HttpError(422, Problem("invalid", "say who decides.", "by"))
        if _OF_KEY.search(unicodedata.normalize("NFKC", by)):
            message = "a name must not look like a key's: leave out '(key …'."
            raise HttpError(422, Problem("invalid", message, "by"))
        by = by if key is None else f"{by} (key {key})"
        wanted = _wanted(asked)
        try:
            decide(self._config, by, wanted, asked.digest)
        except (ArtifactError, ConfigError, WorkspaceError, OSError) as error:
            raise self._told(error) from error
        return self.document()

    def _told(self, error: Exception) -> HttpError:
        """What is told of an error; paths as they are in the workspace."""
        message = str(error).replace(f"{self._config.workspace}/", "")
        if isinstance(error, CommandError):
            return HttpError(422, Problem("invalid", message, error.field))
        if isinstance(error, InUseError):
            message = "a stage is at work on the workspace, or somebody else decides; try again in a moment."
            return HttpError(503, Problem("busy", message), _MOMENT)
        if isinstance(error, ChangedError):
            return HttpError(409, Problem("conflict", message))
        if isinstance(error, OSError):
            message = f"the workspace cannot be read or written: {error.strerror}."
            return HttpError(503, Problem("unavailable", message), _MOMENT)
        if isinstance(error, WorkspaceError):
            return HttpError(404, Problem("not_found", message))
        return HttpError(409, Problem("conflict", message))  # a file that somebody edited is not valid


async def review(context: Context, _: Request) -> Response:
    return _json(await asyncio.to_thread(context.reviews.document))


async def decision(context: Context, request: Request) -> Response:
    is_json(request)
    asked = await body_of(context, request, _DECISION)
    key, reviews = key_of(context, request), context.reviews
    async with reviews.deciding:
        unlimited(request.scope)  # a thread cannot be called back: what it writes is written
        return _json(await asyncio.to_thread(reviews.decide, asked, None if key is None else key.name))


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _wanted(asked: NewDecision) -> Wanted | None:
    """The decision that is asked for; None: to sign the whole.

    Raises:
        HttpError: if a field is missing, or means nothing to the action.
    """
    action = asked.action
    takes: Mapping[str, bool] = {
        "intent": action != "approve_all",
        "value": action in _TAKES_VALUE,
        "parts": action == "split",
    }
    for field, is_taken in takes.items():
        if not is_taken and getattr(asked, field) is not None:
            raise HttpError(422, Problem("invalid", f"{action} takes no {field}.", field))
    if action == "approve_all":
        return None
    if asked.intent is None:
        raise HttpError(422, Problem("invalid", f"{action} needs the id of an intent or proposal.", "intent"))
    parts = tuple((part.name, part.definition) for part in asked.parts or ())
    why = " ".join(_printable(asked.why or "").split()) or None
    return Wanted(action, asked.intent, asked.value, parts, why)


def _printable(text: str) -> str:
    """On one line, without what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)
