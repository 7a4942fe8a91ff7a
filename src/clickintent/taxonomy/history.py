"""Who decided what about the taxonomy, and when: one JSON object per line, only ever appended to."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from clickintent.errors import ArtifactError


class Decision(BaseModel):
    """One line of the history."""

    model_config = ConfigDict(frozen=True)

    at: str  # ISO 8601, UTC
    by: str
    #: draft, edit (the file, by hand), approve, or what a review did to an intent or a proposal.
    action: str
    version: int  # of the taxonomy that it made
    digest: str  # of that taxonomy
    intent: str | None = None
    what: str | None = None  # in words: the new name, what it was merged into, …
    why: str | None = None


def decided(**fields: Any) -> Decision:
    """A decision of now."""
    return Decision(at=datetime.now(UTC).isoformat(timespec="seconds"), **fields)


def append(path: Path, decision: Decision) -> None:
    """Add a decision; it is on disk when this returns. Does not touch what is there, even a damaged line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(decision.model_dump(exclude_none=True), ensure_ascii=False) + "\n"
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a process was killed while it wrote
                line = "\n" + line
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[Decision]:
    """All decisions, in their order; none if there is no file. A line that was cut off is left out.

    Raises:
        ArtifactError: if a whole line is not a decision; gives its number.
    """
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        try:
            raw = json.loads(line) if line.strip() else None
        except ValueError:
            continue  # cut off: the change itself is in the taxonomy, and is noticed there
        if raw is None:
            continue
        try:
            found.append(Decision.model_validate(raw))
        except ValidationError as error:
            raise ArtifactError(
                f"{path}, line {number}: not a decision; {error.errors()[0]['msg']}."
            ) from error
    return found
