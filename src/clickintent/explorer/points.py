"""The map's columns as bytes: a browser makes typed arrays of them without a copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from clickintent.explorer.sessions import Sessions

NO_INTENT = 65_535
_TYPES = {"f32": "<f4", "u32": "<u4", "u16": "<u2", "u8": "u1"}
#: Larger types first, so that every column begins at a multiple of its size.
_COLUMNS = {
    **{"x": "f32", "y": "f32", "start": "u32", "intent": "u16"},
    **{"confidence": "u8", "outcome": "u8", "linked": "u8", "events": "u8"},
}
_MINUTE_US = 60_000_000


def pack(columns: Mapping[str, np.ndarray], dim: int | None) -> tuple[bytes, dict[str, Any]]:
    """The bytes, and ``PointColumns``.

    Args:
        columns: arrays (n,) by the names of the contract, values within their types.
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
        "vectors": None if dim is None else {"dim": dim},
    }


def columns_of(
    sessions: Sessions, shown: np.ndarray, xy: np.ndarray, n_events: np.ndarray
) -> dict[str, np.ndarray]:
    """The columns of the rows ``shown`` (s,).

    Args:
        xy: (s, 2)
        n_events: (s,)
    """
    intent = sessions.intent[shown]
    outcome = np.minimum(sessions.outcome[shown] + 1, 2)
    return {
        "x": xy[:, 0],
        "y": xy[:, 1],
        "start": np.clip(sessions.start[shown] // _MINUTE_US, 0, 2**32 - 1),
        "intent": np.where(intent >= 0, intent, NO_INTENT),
        "confidence": np.round(np.clip(sessions.confidence[shown], 0, 1) * 255),
        "outcome": outcome,
        "linked": sessions.is_linked[shown],
        "events": np.minimum(n_events, 255),
    }


def quantized(embeddings: np.ndarray) -> bytes:
    """Rows scaled to length 127 and rounded to int8: (n, dim) bytes. Dot products become cosines.

    ``benchmarks/explorer.py`` measures how many nearest neighbours change by it.
    """
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    scaled = np.round(embeddings / np.maximum(length, 1e-12) * 127.0)
    raw: bytes = scaled.astype(np.int8).tobytes()
    return raw
