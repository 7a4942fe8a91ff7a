"""Embedding on Spark: the same encoder, in every worker, on its part of the sessions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from clickintent import schema
from clickintent.encoder import SessionEncoder
from clickintent.encoder.files import embeddings_table
from clickintent.events.spark import read_parquet, write_parts
from clickintent.workspace import file_fingerprint


def embed_on_spark(
    spark: Any, sessions: Path, encoder: Path, out: Path, *, channel: str | None = None
) -> int:
    """Embed the people's sessions of a folder, and return how many they are.

    All folders must be seen by the driver and all workers.

    Args:
        spark: a session of Spark, classic or Connect.
        sessions: a folder of ``schema.SESSIONS``.
        encoder: a saved encoder.
        out: where files of ``schema.embeddings`` are written.
        channel: only the sessions of this one.

    Raises:
        ArtifactError: if the encoder cannot be read.
        WorkspaceError: if the workers do not see the folders.
    """
    loaded = SessionEncoder.load(encoder)
    frame = read_parquet(spark, sessions / "*.parquet").filter("NOT is_bot")
    if channel is not None:
        frame = frame.filter(frame["channel"] == channel)
    frame = frame.select("session_id", "events")
    embedding = _Embedding(str(encoder.resolve()), file_fingerprint(encoder))
    return write_parts(frame, out, "part", schema.embeddings(loaded.config.dim, loaded.version), embedding)


@dataclass(frozen=True)
class _Embedding:
    encoder: str
    made: str  # which encoder: workers may live longer than the one in the folder

    def __call__(self, sessions: pa.Table) -> pa.Table:
        vectors = _load(self.encoder, self.made).embed(sessions, workers=1)  # Spark has one per core itself
        return embeddings_table(sessions["session_id"], vectors)


@lru_cache(maxsize=1)
def _load(folder: str, made: str) -> SessionEncoder:  # noqa: ARG001 (part of the key)
    return SessionEncoder.load(Path(folder))
