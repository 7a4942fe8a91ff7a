"""The map's columns as bytes: a browser makes typed arrays of them without a copy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from clickintent.explorer.sessions import Sessions
from clickintent.explorer.shown import public_id
from clickintent.explorer.tally import people

NO_INTENT = 65_535
_TYPES = {"f32": "<f4", "u32": "<u4", "u16": "<u2", "u8": "u1"}
#: Larger types first, so that every column begins at a multiple of its size.
_COLUMNS = {
    **{"x": "f32", "y": "f32", "start": "u32", "intent": "u16"},
    **{"confidence": "u8", "outcome": "u8", "linked": "u8", "events": "u8", "device": "u8", "source": "u8"},
}
#: Columns of places in a list of names, and the place of what is not in it.
_NAMED, _OTHER, _MOST_NAMES = ("device", "source"), 255, 30
_MINUTE_US = 60_000_000


def pack(
    columns: Mapping[str, np.ndarray], names: Mapping[str, Sequence[str]], dim: int | None
) -> tuple[bytes, dict[str, Any]]:
    """The bytes, and ``PointColumns``.

    Args:
        columns: arrays (n,) by the names of the contract, values within their types.
        names: what the numbers of a column stand for.
        dim: of the vectors beside them; None: there are none.
    """
    parts, described, offset = [], {}, 0
    for name, kind in _COLUMNS.items():
        raw = np.ascontiguousarray(columns[name], dtype=_TYPES[kind]).tobytes()
        described[name] = {"type": kind, "offset": offset}
        offset += len(raw)
        parts.append(raw)
    n = len(columns["x"])
    return b"".join(parts), {
        "n": n,
        "columns": described,
        "names": {name: list(some) for name, some in names.items()},
        "vectors": None if dim is None else {"dim": dim},
    }


def columns_of(
    sessions: Sessions, shown: np.ndarray, xy: np.ndarray, n_events: np.ndarray, *, min_people: int
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """The columns of the rows ``shown`` (s,), and what the numbers in some of them stand for.

    Args:
        xy: (s, 2)
        n_events: (s,)
        min_people: visitors that a device or source must have to be named.
    """
    intent = sessions.intent[shown]
    outcome = np.minimum(sessions.outcome[shown] + 1, 2)
    columns, names = {}, {}
    for name in _NAMED:
        column, names[name] = _named(getattr(sessions, name), sessions.visitor, min_people)
        columns[name] = column[shown]
    return {
        **columns,
        "x": xy[:, 0],
        "y": xy[:, 1],
        "start": np.clip(sessions.start[shown] // _MINUTE_US, 0, 2**32 - 1),
        "intent": np.where(intent >= 0, intent, NO_INTENT),
        "confidence": np.round(np.clip(sessions.confidence[shown], 0, 1) * 255),
        "outcome": outcome,
        "linked": sessions.is_linked[shown],
        "events": np.minimum(n_events, 255),
    }, names


def _named(values: np.ndarray, visitor: np.ndarray, min_people: int) -> tuple[np.ndarray, list[str]]:
    """The place of each value (n,) among the most frequent ones, ``_OTHER`` for the rest; and those."""
    found = pa.array(values, pa.string()).dictionary_encode()
    code, k = found.indices.to_numpy().astype(np.int64), len(found.dictionary)
    visitors = people(code, visitor, k)
    order = np.argsort(-np.bincount(code, minlength=k), kind="stable")
    kept = [i for i in order.tolist() if visitors[i] >= min_people][:_MOST_NAMES]
    place = np.full(k, _OTHER, np.uint8)
    place[kept] = np.arange(len(kept))
    return place[code], found.dictionary.take(pa.array(kept, pa.int64())).to_pylist()


def ids(session_ids: Iterable[str]) -> bytes:
    """``public_id`` of each, as u64, little endian; 0 where there is none."""
    return np.array([int(public_id(one) or "0", 16) for one in session_ids], "<u8").tobytes()


def quantized(embeddings: np.ndarray) -> bytes:
    """Rows scaled to length 127 and rounded to int8: (n, dim) bytes. Dot products become cosines.

    ``benchmarks/explorer.py`` measures how many nearest neighbours change by it.
    """
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    scaled = np.round(embeddings / np.maximum(length, 1e-12) * 127.0)
    raw: bytes = scaled.astype(np.int8).tobytes()
    return raw
