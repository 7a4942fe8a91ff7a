"""Slates: the tiles that an account's homepage showed at one moment, and the session that came before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickintent.errors import DataError, EmptyInputError, MissingColumnsError

_COLUMNS = ("slate_id", "account_id", "ts", "tile", "position", "propensity", "clicked")
_DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Slates:
    """n slates over t tiles, in the order of (ts, slate_id)."""

    slate_id: np.ndarray  # (n,) str
    account: np.ndarray  # (n,) str
    ts: np.ndarray  # (n,) int64 µs
    tiles: tuple[str, ...]
    position: np.ndarray  # (n, t) int32, −1 where the tile was not shown
    propensity: np.ndarray  # (n, t) of the logging policy to show the tile there; NaN where not shown
    clicked: np.ndarray  # (n,) index of the tile clicked, the topmost if several; −1 if none

    @property
    def shown(self) -> np.ndarray:
        """(n, t) bool."""
        found: np.ndarray = self.position >= 0
        return found


def read_slates(impressions: pa.Table) -> Slates:
    """Gather impressions (one row per tile shown: see ``TilesConfig``) into slates.

    Raises:
        MissingColumnsError: if a column is absent.
        EmptyInputError: if there are no rows.
        DataError: if a value is null, a position negative or a propensity outside (0, 1].
    """
    missing = [c for c in _COLUMNS if c not in impressions.column_names]
    if missing:
        raise MissingColumnsError("tile impressions", missing, impressions.column_names)
    if impressions.num_rows == 0:
        raise EmptyInputError("tile impressions: the table has no rows.")
    for name in _COLUMNS:
        if impressions[name].null_count:
            raise DataError(
                f"tile impressions: {impressions[name].null_count:,} rows have no {name!r}; "
                "every shown tile needs all columns."
            )
    propensity = impressions["propensity"].to_numpy().astype(np.float64)
    wrong = ~((propensity > 0) & (propensity <= 1))
    if wrong.any():
        raise DataError(
            f"tile impressions: {int(wrong.sum()):,} propensities lie outside (0, 1], such as "
            f"{propensity[wrong][0]:g}; log the policy's probability of showing the tile at its position."
        )
    position = impressions["position"].to_numpy().astype(np.int64)
    if position.min() < 0:
        raise DataError(
            f"tile impressions: position {position.min()} is negative; positions count from 0, the topmost."
        )

    slate_id, first, slate = np.unique(
        _dictionary(impressions["slate_id"]), return_index=True, return_inverse=True
    )
    ts = impressions["ts"].to_numpy().astype(np.int64)[first]
    rank = np.empty(len(ts), np.int64)
    order = np.lexsort((slate_id, ts))
    rank[order] = np.arange(len(ts))
    row = rank[slate.ravel()]
    names, tile = np.unique(_dictionary(impressions["tile"]), return_inverse=True)
    tile = tile.ravel()

    shape = (len(ts), len(names))
    positions = np.full(shape, -1, np.int32)
    propensities = np.full(shape, np.nan)
    positions[row, tile] = position
    propensities[row, tile] = propensity
    hit = np.flatnonzero(impressions["clicked"].cast(pa.bool_()).to_numpy())
    hit = hit[np.argsort(-position[hit], kind="stable")]  # the topmost is written last and stays
    clicked = np.full(len(ts), -1, np.int64)
    clicked[row[hit]] = tile[hit]
    account = _dictionary(impressions["account_id"])[first]
    return Slates(
        slate_id[order], account[order], ts[order], tuple(names.tolist()), positions, propensities, clicked
    )


def latest_session(slates: Slates, sessions: pa.Table, lookback_days: float) -> np.ndarray:
    """For each slate, the account's latest session as it was known at that moment (as-of join).

    A session counts if it had ended, its account was known (``account_linked_at``), and it ended no
    more than ``lookback_days`` before the slate. Of several the one that ended last.

    Returns:
        (n,) index into ``sessions``, −1 where there is none.
    """
    out = np.full(len(slates.ts), -1, np.int64)
    linked = pc.and_(sessions["account_id"].is_valid(), sessions["account_linked_at"].is_valid()).to_numpy()
    rows = np.flatnonzero(linked)
    if len(rows) == 0 or len(out) == 0:
        return out
    taken = sessions.select(["account_id", "account_linked_at", "end"]).take(pa.array(rows))
    end = taken["end"].to_numpy().astype(np.int64)
    known_at = np.maximum(end, taken["account_linked_at"].to_numpy())
    owner = _dictionary(taken["account_id"])

    # Time and account become ranks, so that (account, time) is one sortable number.
    account = np.unique(np.concatenate([owner, slates.account]), return_inverse=True)[1].ravel()
    moment = np.unique(np.concatenate([known_at, slates.ts]), return_inverse=True)[1].ravel()
    key = account.astype(np.int64) * (len(moment) + 1) + moment
    m = len(rows)

    by_end = np.lexsort((end, account[:m]))  # of equal ends, the later row
    rank = np.empty(m, np.int64)
    rank[by_end] = np.arange(m)
    by_known = np.argsort(key[:m], kind="stable")
    # Ranks grow with the account, so the running maximum needs no restart: the latest end known so far.
    best = by_end[np.maximum.accumulate(rank[by_known])]
    last = np.searchsorted(key[:m][by_known], key[m:], side="right") - 1
    found = np.flatnonzero(last >= 0)
    candidate = best[last[found]]
    fits = (account[:m][candidate] == account[m:][found]) & (
        slates.ts[found] - end[candidate] <= int(lookback_days * _DAY_US)
    )
    out[found[fits]] = rows[candidate[fits]]
    return out


def _dictionary(column: pa.ChunkedArray) -> np.ndarray:
    """Strings as a numpy array, each distinct one converted once."""
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    values = np.asarray(encoded.dictionary.to_pylist(), dtype=object).astype(str)
    found: np.ndarray = values[encoded.indices.to_numpy()]
    return found
