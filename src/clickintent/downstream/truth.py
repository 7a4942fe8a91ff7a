"""The simulator's truth, as oracles beside the models. Only ``evaluate`` may open it.

The folder holds ``sessions.parquet`` (user_pseudo_id, start_us, end_us, products, p: the true probability
of each product, or "none", within the horizon after the session) and ``tiles.parquet`` (slate_id, tile,
p_click_given_click: the true probability that a click on the slate is on that tile).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clickintent.downstream.conversion import Oracle
from clickintent.downstream.slates import Slates
from clickintent.errors import DataError

_SLACK_US = 60_000_000  # our session may start a little off: its first event may have been a broken row


def _read(folder: Path, name: str, columns: list[str]) -> pa.Table:
    path = folder / name
    if not path.exists():
        raise DataError(f"evaluate.truth: no {path}; give the simulator's truth folder, or leave it out.")
    return pq.read_table(path, columns=columns)


def conversion_oracle(folder: Path, sessions: pa.Table) -> Oracle:
    """True probabilities for each session: the truth session of the same cookie that it overlaps.

    Raises:
        DataError: if the folder does not hold the truth.
    """
    truth = _read(folder, "sessions.parquet", ["user_pseudo_id", "start_us", "end_us", "products", "p"])
    truth = truth.filter(truth["products"].is_valid())  # bots take no products
    truth = truth.sort_by([("user_pseudo_id", "ascending"), ("start_us", "ascending")])
    names = pc.list_flatten(truth["products"]).combine_chunks().dictionary_encode()
    classes = tuple(names.dictionary.to_pylist())
    row = np.repeat(np.arange(truth.num_rows), pc.list_value_length(truth["products"]).to_numpy())
    true = np.zeros((truth.num_rows, len(classes)))
    true[row, names.indices.to_numpy()] = pc.list_flatten(truth["p"]).to_numpy()

    at, fits = _matched(truth, sessions)
    return Oracle(classes, np.where(fits[:, None], true[at], np.nan))


def shown_intents(folder: Path, sessions: pa.Table) -> pa.Array:
    """All intents that show in each session, the main one first: (n,) lists of strings, null where unknown.

    Raises:
        DataError: if the folder does not hold the truth.
    """
    truth = _read(folder, "sessions.parquet", ["user_pseudo_id", "start_us", "end_us", "intents"])
    truth = truth.filter(pc.greater(pc.list_value_length(truth["intents"]), 0))  # bots have none
    truth = truth.sort_by([("user_pseudo_id", "ascending"), ("start_us", "ascending")])
    at, fits = _matched(truth, sessions)
    return truth["intents"].combine_chunks().take(pa.array(at, mask=~fits))


def main_intents(folder: Path, sessions: pa.Table) -> pa.Array:
    """The intent that each session was mostly about, (n,) strings; null where the truth is not known.

    Raises:
        DataError: if the folder does not hold the truth.
    """
    return pc.list_element(shown_intents(folder, sessions), 0)


def _matched(truth: pa.Table, sessions: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """For each session the truth's row of the same cookie that it overlaps, and whether there is one.

    ``truth`` is sorted by cookie and start.
    """
    cookies = pc.unique(truth["user_pseudo_id"])
    theirs = pc.index_in(truth["user_pseudo_id"], value_set=cookies).to_numpy()
    ours = pc.fill_null(pc.index_in(sessions["visitor_id"], value_set=cookies), -1).to_numpy()
    zero = pc.min(truth["start_us"]).as_py() - 10 * _SLACK_US
    span = max(pc.max(truth["end_us"]).as_py(), pc.max(sessions["end"]).as_py()) - zero + 10 * _SLACK_US
    starts = theirs.astype(np.int64) * span + truth["start_us"].to_numpy() - zero
    asked = ours.astype(np.int64) * span + sessions["start"].to_numpy() + _SLACK_US - zero
    found = np.searchsorted(starts, asked, side="right") - 1
    at = np.maximum(found, 0)
    fits = (found >= 0) & (theirs[at] == ours)
    fits &= truth["end_us"].to_numpy()[at] + _SLACK_US >= sessions["start"].to_numpy()
    return at, fits


def tile_oracle(folder: Path, slates: Slates) -> np.ndarray:
    """True click probability of each tile as shown, (n slates, n tiles); NaN where unknown.

    Raises:
        DataError: if the folder does not hold the truth.
    """
    truth = _read(folder, "tiles.parquet", ["slate_id", "tile", "p_click_given_click"])
    slate = pc.index_in(truth["slate_id"], value_set=pa.array(slates.slate_id, pa.string()))
    tile = pc.index_in(truth["tile"], value_set=pa.array(slates.tiles, pa.string()))
    known = pc.and_(slate.is_valid(), tile.is_valid()).to_numpy()
    out = np.full((len(slates.slate_id), len(slates.tiles)), np.nan)
    rows, columns = (pc.fill_null(i, 0).to_numpy()[known] for i in (slate, tile))
    out[rows, columns] = truth["p_click_given_click"].to_numpy()[known]
    return out
