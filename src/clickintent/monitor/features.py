"""What is compared: one row per session, one column per value, which says how often the session has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from clickintent.encoder.features import hour_of_week
from clickintent.monitor.measures import Measure

Group = Literal["input", "embedding", "label"]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NONE, OTHER, UNLABELLED = "(none)", "(all others)", "(unlabelled)"
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
#: Rarer values are counted together: by themselves they would tell of chance alone.
_LEAST_SHARE, _MOST_VALUES = 0.002, 200
_BINS = 10


@dataclass(frozen=True)
class Feature:
    """n sessions and k values. Of ``mmd`` the columns are Fourier features, and have no names."""

    name: str
    group: Group
    measure: Measure
    values: tuple[str, ...]
    x: sparse.csr_matrix | npt.NDArray[np.float32]  # (n, k)


def inputs(sessions: pa.Table, is_before: Bools) -> list[Feature]:
    """Features of a sessions table. Values are named, and bins are cut, by the sessions ``is_before``."""
    lengths = sessions["n_events"].to_numpy()
    row = np.repeat(np.arange(len(lengths)), lengths)
    start = hour_of_week(sessions["start"].to_numpy())
    found = [_named(name, row, is_before, of_events(sessions, name)) for name in ("page", "event_type")]
    found += [_of_sessions(sessions, name, is_before) for name in ("device", "referrer", "country")]
    hours, days = tuple(f"{h:02d}:00 UTC" for h in range(24)), _WEEKDAYS
    found.append(_coded("hour", "input", "psi", hours, start % 24, np.arange(len(start)), len(start)))
    found.append(_coded("weekday", "input", "psi", days, start // 24, np.arange(len(start)), len(start)))
    found.append(_binned("events", "input", lengths.astype(float), np.arange(len(lengths)), is_before, ""))
    found.append(_binned("dwell", "input", of_events(sessions, "dwell_s").to_numpy(), row, is_before, " s"))
    return found


def of_events(sessions: pa.Table, name: str) -> pa.ChunkedArray:
    """A field of all events, one after the other; in chunks: the strings of many do not fit into one."""
    return pc.struct_field(pc.list_flatten(sessions["events"]), name)


def coded(column: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """Index per row into the distinct strings, −1 for null, and those strings."""
    found = column.dictionary_encode().combine_chunks()
    code = pc.fill_null(found.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return code, found.dictionary.to_pylist()


def channels(sessions: pa.Table, is_before: Bools) -> Feature:
    """The channel of sessions of all channels."""
    return _of_sessions(sessions, "channel", is_before)


def labels(
    probability: npt.NDArray[np.float32],
    names: Sequence[str],
    is_before: Bools,
    cutoff: float | None,
    learned: Bools | None = None,
) -> list[Feature]:
    """The student's surest intent, and how sure it is.

    Args:
        probability: (n, k)
        cutoff: below it a session has no label; None: every session has one.
        learned: (n,) sessions that the student learned from; they are left out of how sure it is.
    """
    n, rows = len(probability), np.arange(len(probability))
    top, confidence = probability.argmax(axis=1), probability.max(axis=1)
    how_sure = confidence.astype(float) if learned is None else np.where(learned, np.nan, confidence)
    sure = _binned("confidence", "label", how_sure, rows, is_before, "")
    if cutoff is None:
        return [_coded("intent", "label", "js", tuple(names), top, rows, n), sure]
    without = confidence < cutoff
    top = np.where(without, len(names), top)
    kinds = ("(labelled)", UNLABELLED)
    return [
        _coded("intent", "label", "js", (*names, UNLABELLED), top, rows, n),
        _coded("unlabelled", "label", "js", kinds, without.astype(np.int64), rows, n),
        sure,
    ]


def _of_sessions(sessions: pa.Table, name: str, is_before: Bools) -> Feature:
    return _named(name, np.arange(sessions.num_rows), is_before, sessions[name])


def _named(name: str, row: Ints, is_before: Bools, column: pa.ChunkedArray) -> Feature:
    """Of strings: the frequent ones have a column each."""
    code, names = coded(pc.fill_null(column, NONE))
    counts = np.bincount(code[is_before[row]], minlength=len(names))
    order = np.argsort(-counts, kind="stable")[:_MOST_VALUES]
    kept = order[counts[order] >= max(1.0, _LEAST_SHARE * counts.sum())]
    place = np.full(max(len(names), 1), len(kept))
    place[kept] = np.arange(len(kept))
    values = (*(names[i] for i in kept), OTHER)
    return _coded(name, "input", "psi", values, place[code], row, len(is_before))


def _binned(
    name: str, group: Group, values: npt.NDArray[np.float64], row: Ints, is_before: Bools, unit: str
) -> Feature:
    """Of numbers: tenths of the earlier ones; NaN is left out."""
    known = ~np.isnan(values)
    values, row = values[known], row[known]
    before = values[is_before[row]]
    edges = np.unique(np.quantile(before, np.arange(1, _BINS) / _BINS)) if len(before) else np.empty(0)
    code = np.searchsorted(edges, values, side="right")
    shown = [f"{edge:.3g}" for edge in edges]
    names = [f"{a} to {b}{unit}" for a, b in pairwise(shown)]
    ends = [f"below {shown[0]}{unit}", *names, f"{shown[-1]}{unit} or more"] if shown else ["any"]
    return _coded(name, group, "psi", tuple(ends), code, row, len(is_before))


def _coded(
    name: str, group: Group, measure: Measure, values: tuple[str, ...], code: Ints, row: Ints, n: int
) -> Feature:
    x = sparse.csr_matrix((np.ones(len(code), np.float32), (row, code)), shape=(n, len(values)))
    return Feature(name, group, measure, values, x)
