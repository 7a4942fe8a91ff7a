"""What stages share: which sessions models see, where the past ends, and what lies before an outcome."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from clickintent.config import Config, InSessionConversion
from clickintent.encoder import SessionEncoder
from clickintent.errors import EmptyInputError, WorkspaceError
from clickintent.events.prefix import events_before
from clickintent.workspace import Workspace


def needed(workspace: Workspace, name: str, needed_by: str, made_by: str) -> Path:
    """The path of something that an earlier stage made.

    Raises:
        WorkspaceError: if it is not there; says which command makes it.
    """
    path = workspace.path(name)
    if not path.exists():
        raise WorkspaceError(
            f"{needed_by} needs {path}, which is not there. Run 'clickintent {made_by} FILE.toml' first."
        )
    return path


def model_dataset(workspace: Workspace, config: Config, needed_by: str) -> tuple[ds.Dataset, pc.Expression]:
    """The sessions folder, and the filter for the sessions that models see: one channel, no bots."""
    path = needed(workspace, "sessions", needed_by, "ingest")
    return ds.dataset(path), (pc.field("channel") == config.sessions.channel) & ~pc.field("is_bot")


def model_sessions(
    workspace: Workspace, config: Config, needed_by: str, columns: Sequence[str] | None = None
) -> pa.Table:
    """The sessions that models see, in the order of the sessions folder; all columns if none are given.

    Raises:
        EmptyInputError: if there are none.
    """
    dataset, keep = model_dataset(workspace, config, needed_by)
    sessions = dataset.to_table(columns, filter=keep)
    if sessions.num_rows == 0:
        raise EmptyInputError(
            f"{needed_by}: no session of channel {config.sessions.channel!r} that is not a bot; "
            "see the sections 'events' and 'sessions' of metrics.json, and sessions.channel."
        )
    return sessions


def split_at(sessions: pa.Table, config: Config) -> int:
    """Where the past ends, in µs: ``split.at``, or the quantile of session starts that leaves
    ``split.test_share`` of them to test.
    """
    if config.split.at_us is not None:
        return config.split.at_us
    return int(np.quantile(sessions["start"].to_numpy(), 1 - config.split.test_share))


def past(sessions: pa.Table, at: int) -> pa.Table:
    """Sessions that ended before ``at``: all that anything may be trained on.

    Raises:
        EmptyInputError: if there are none.
    """
    found = sessions.filter(pc.less(sessions["end"], at))
    if found.num_rows == 0:
        raise EmptyInputError(f"no session ends before the split at {iso(at)}; set split.at to a later time.")
    return found


def before_outcome(sessions: pa.Table, config: Config) -> pa.Table:
    """The sessions as they were before their outcome, if the outcome is an event of the session itself."""
    if not isinstance(config.conversion, InSessionConversion):
        return sessions
    outcome = config.conversion
    return events_before(sessions, page=outcome.page, event_type=outcome.event_type)[0]


def load_encoder(workspace: Workspace, needed_by: str) -> SessionEncoder:
    return SessionEncoder.load(needed(workspace, "encoder", needed_by, "pretrain"))


def embeddings_of(workspace: Workspace, config: Config, sessions: pa.Table, needed_by: str) -> np.ndarray:
    """Embeddings (n, dim) of sessions as ``before_outcome`` returned them.

    Sessions that were cut before an outcome are embedded afresh, because the stored vector has seen it.
    """
    if isinstance(config.conversion, InSessionConversion):
        return load_encoder(workspace, needed_by).embed(sessions)
    return stored_embeddings(workspace, sessions["session_id"], needed_by)


def stored_embeddings(workspace: Workspace, session_ids: pa.ChunkedArray, needed_by: str) -> np.ndarray:
    """Embeddings (n, dim) of whole sessions, as ``embed`` wrote them.

    Raises:
        WorkspaceError: if there are none, or some are not there.
    """
    stored = ds.dataset(needed(workspace, "embeddings", needed_by, "embed")).to_table()
    index = pc.index_in(session_ids, value_set=stored["session_id"].combine_chunks())
    if index.null_count:
        raise WorkspaceError(
            f"{needed_by}: {index.null_count:,} sessions have no embedding; run 'clickintent embed' again."
        )
    found: np.ndarray = embedding_matrix(stored)[index.to_numpy()]
    return found


def embedding_matrix(table: pa.Table) -> np.ndarray:
    """The embeddings column as an array (n, dim)."""
    column = table["embedding"].combine_chunks()
    values: np.ndarray = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), -1)


def rows_of(sessions: pa.Table, session_ids: Sequence[str] | pa.Array) -> pa.Table:
    """The sessions with these ids, in the table's own order."""
    return sessions.filter(pc.is_in(sessions["session_id"], value_set=pa.array(session_ids, pa.string())))


def iso(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="seconds")
