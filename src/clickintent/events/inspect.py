"""Look into a raw export: what it is, and how its first sessions would come out."""

from __future__ import annotations

import json
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clickintent.config import Config, PrivacyConfig, SourceConfig
from clickintent.errors import DataError
from clickintent.events import coding, files, remote, staging
from clickintent.events import engine as engines
from clickintent.events.clean import Cleaner
from clickintent.events.ingest import read_file, rewrite
from clickintent.events.readers import table
from clickintent.events.readers.recognise import guess_columns, names, recognise
from clickintent.events.staging import RawFile
from clickintent.events.store import Manifest

_ROWS = 50_000


@dataclass(frozen=True)
class Inspection:
    """What a file is, the accounts of its rows, and its first sessions (``schema.SESSIONS``)."""

    source: SourceConfig
    metrics: dict[str, Any]
    sessions: pa.Table
    is_sample: bool  # the file has more rows than were looked at

    def shown(self, n: int) -> list[dict[str, Any]]:
        """``n`` sessions that show most: people's before robots', of about eight events before others."""
        rows = self.sessions.select(["n_events", "is_bot"]).to_pylist()
        best = sorted(range(len(rows)), key=lambda i: (rows[i]["is_bot"], abs(rows[i]["n_events"] - 8), i))[
            :n
        ]
        found: list[dict[str, Any]] = self.sessions.take(best).to_pylist()
        return found

    def toml(self) -> str:
        """The ``[[sources]]`` block that reads such files."""
        lines = ["[[sources]]"]
        lines += [f"{key} = {json.dumps(getattr(self.source, key))}" for key in ("reader", "path")]
        for name in ("columns", "constants"):
            mapping = getattr(self.source, name)
            if mapping:
                lines.append(f"[sources.{name}]")
                lines += [f"{key} = {json.dumps(value)}" for key, value in mapping.items()]
        return "\n".join(lines)


def inspect(path: str, *, reader: str | None = None, rows: int = _ROWS) -> Inspection:
    """Read the first rows of a file as ``ingest`` would, and throw away what was made.

    Nothing is written but to a temporary folder. Ids are hashed with a key that is forgotten at the end, and
    rare pages are shown, which ``ingest`` would generalise.

    Args:
        path: a file, folder or glob, of which the first file is taken.
        reader: the name of the reader, if it shall not be recognised.

    Raises:
        DataError: if the format is not recognised, or nothing can be read.
    """
    first = files.files(path)[0]
    privacy = PrivacyConfig(min_people=1)
    keys = coding.derive(secrets.token_bytes(32))
    with tempfile.TemporaryDirectory(prefix="clickintent-") as folder:
        scratch, made = Path(folder) / "scratch", Path(folder) / "made"
        with engines.open_engine(scratch) as engine:
            source = _source(path, str(engine.local(first)), reader)
            config = Config(workspace=made, sources=(source,), privacy=privacy)
            cleaner = Cleaner(keys, privacy)
            file = RawFile(0, first, source)
            account = staging.stage(engine, cleaner, file, scratch, limit=rows)
            manifest = Manifest(files=[read_file(file, account)])
            manifest.add_removed(cleaner.removed)
            coded, refused = scratch / "coded-*.parquet", scratch / "quarantine-*.parquet"
            rewrite(engine, config, keys, manifest, [coded], [refused], cleaner.values, {}, made, quiet=True)
        sessions = pq.read_table(made / "sessions")
    return Inspection(source, manifest.metrics, sessions, account.read >= rows)


def _source(path: str, local: str, reader: str | None) -> SourceConfig:
    """How to read the file; of a table, with the columns that its names suggest."""
    found = reader or recognise(local)
    if found is None:
        raise DataError(
            f"{remote.shown(path)}: the format is not recognised. Name it with --reader, or make it a table "
            "with named columns."
        )
    source = SourceConfig(reader=found, path=path)
    if found != "table":
        return source
    columns = guess_columns(names(local))
    if not {"page", "url"} & set(columns) and "event_type" in columns:
        columns["page"] = columns["event_type"]  # an app's events, named after its screens
    constants = {} if "event_type" in columns else {"event_type": "page_view"}
    source = source.model_copy(update={"columns": columns, "constants": constants})
    table.check(source)
    return source
