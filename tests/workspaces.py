"""Small workspaces with sessions and embeddings, ready for a taxonomy."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clickintent import schema
from clickintent.config import Config, LabelsConfig, TaxonomyConfig, load_config


def bags(sessions: pa.Table) -> np.ndarray:
    """Embeddings: shares of pages with a little noise."""
    events = sessions["events"].to_pylist()
    pages = sorted({event["page"] for some in events for event in some})
    rng = np.random.default_rng(0)
    found = np.asarray([[sum(e["page"] == p for e in some) for p in pages] for some in events], np.float32)
    shares: np.ndarray = found / np.maximum(found.sum(axis=1, keepdims=True), 1)
    return (shares + rng.normal(0, 0.02, shares.shape)).astype(np.float32)


def workspace(folder: Path, sessions: pa.Table, **sections: Any) -> Config:
    """A workspace as ``embed`` leaves it, and its configuration."""
    for name in ("sessions", "embeddings"):
        (folder / name).mkdir(parents=True)
    pq.write_table(sessions, folder / "sessions" / "part.parquet")
    vectors = bags(sessions)
    table = pa.table(
        [
            sessions["session_id"].combine_chunks(),
            pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
        ],
        schema=schema.embeddings(vectors.shape[1]),
    )
    pq.write_table(table, folder / "embeddings" / "part.parquet")
    (folder.parent / f"{folder.name}.toml").write_text(
        f'workspace = "{folder}"\n[taxonomy]\nintents = 4\n[labels]\nmin_confidence = 0.2\n'
    )
    defaults = {"taxonomy": TaxonomyConfig(intents=4), "labels": LabelsConfig(min_confidence=0.2)}
    return Config(workspace=folder, **{**defaults, **sections})


def copy_of(workspace: Path, folder: Path) -> Config:
    """A copy of a workspace in ``folder``, for a test that changes it."""
    shutil.copytree(workspace, folder / "w")
    text = workspace.with_suffix(".toml").read_text()
    (folder / "w.toml").write_text(text.replace(str(workspace), "w"))
    return load_config(folder / "w.toml")


def toml(config: Config) -> str:
    """Path of its configuration."""
    return str(config.workspace.with_suffix(".toml"))
