"""Sessions table → flat numpy arrays of events → padded batches.

Everything is vectorised over the list offsets; nothing loops over events. What the model may see of an event
at the end of a window is decided here, once, for training and for embedding alike: see :func:`pad`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clickintent.encoder.tables import event_columns, list_lengths

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
#: What the exported graph is given, by name.
Inputs = dict[str, npt.NDArray[Any]]

#: Ids before the first real value of a vocabulary.
PAD, OOV, MASK = 0, 1, 2
_RESERVED = 3
#: The output layers grow with the vocabulary; rarer pages beyond this are known by their text.
MAX_PAGES = 20_000

#: Columns of the numeric input.
DWELL, GAP, NO_DWELL, NO_GAP = range(4)
CALENDAR = slice(4, 12)
NUMERIC_WIDTH = 12

_HOUR_US = 3_600_000_000


def _calendar() -> Floats:
    """(168, 8): two harmonics each of the hour and of the weekday, by hour of the week from Monday 00:00 UTC.

    Whole hours on purpose: a finer clock would give away the masked dwell between two events.
    """
    hour = np.arange(168) % 24 / 24
    weekday = np.arange(168) // 24 / 7
    angles = 2 * np.pi * np.stack([hour, 2 * hour, weekday, 2 * weekday], axis=1)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


CALENDAR_TABLE = _calendar()


@dataclass(frozen=True)
class Vocabulary:
    """Values seen often enough in training; ids start after ``PAD``, ``OOV`` and ``MASK``."""

    values: tuple[str, ...]

    @classmethod
    def build(cls, column: pa.Array, *, min_count: int = 1, max_size: int | None = None) -> Vocabulary:
        """The values of ``column`` with at least ``min_count`` occurrences, the most frequent first."""
        counted = pc.value_counts(column.drop_null()).to_pylist()
        counts = {c["values"]: c["counts"] for c in counted}
        return cls.of_counts(counts, min_count=min_count, max_size=max_size)

    @classmethod
    def of_counts(
        cls, counts: Mapping[str, int], *, min_count: int = 1, max_size: int | None = None
    ) -> Vocabulary:
        """The same of values that are counted already."""
        kept = sorted((-n, value) for value, n in counts.items() if n >= min_count)
        return cls(tuple(value for _, value in kept[:max_size]))

    def __len__(self) -> int:
        return len(self.values) + _RESERVED

    @cached_property
    def _array(self) -> pa.Array:
        return pa.array(self.values, pa.string())

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each value."""
        return {value: i for i, value in enumerate(self.values, _RESERVED)}

    def encode(self, column: pa.Array) -> Ints:
        """Ids of ``column``; ``OOV`` for null and for unknown values."""
        found = pc.index_in(column, value_set=self._array, skip_nulls=True)
        found = found.fill_null(OOV - _RESERVED).to_numpy(zero_copy_only=False)
        ids: Ints = found.astype(np.int64) + _RESERVED
        return ids


@dataclass(frozen=True)
class FlatEvents:
    """The events of n sessions one after the other: session i has events ``offsets[i]:offsets[i + 1]``."""

    offsets: Ints  # (n + 1,)
    page: pa.Array
    event_type: pa.Array
    log_dwell: Floats  # ln(1 + seconds); NaN where not known
    log_gap: Floats
    hour_of_week: Ints  # UTC, 0 = Monday 00:00
    text: Ints  # index into texts
    texts: tuple[str, ...]  # distinct; the first one is empty

    @property
    def lengths(self) -> Ints:
        return self.offsets[1:] - self.offsets[:-1]


def flatten(sessions: pa.Table, *, last: int | None = None) -> FlatEvents:
    """Flatten the ``events`` of a sessions table.

    Args:
        last: keep at most this many events of a session, its last ones.

    Raises:
        MissingColumnsError: if there is no column ``events``, or a field of an event is missing.
        DataError: if a field is of a type that cannot be used, or a ``ts`` is null.
    """
    lists, lengths = list_lengths(sessions, "sessions")
    taken = None
    if last is not None and len(lengths) and lengths.max() > last:
        kept = np.minimum(lengths, last)
        taken = pa.array(ranges(np.cumsum(lengths) - kept, kept))
        lengths = kept
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    fields = event_columns(lists, "sessions", taken=taken)
    text, texts = _texts(fields["page"], fields["title"], fields["text"])
    return FlatEvents(
        offsets=offsets,
        page=fields["page"],
        event_type=fields["event_type"],
        log_dwell=log_seconds(fields["dwell_s"].to_numpy(zero_copy_only=False)),
        log_gap=log_seconds(fields["gap_s"].to_numpy(zero_copy_only=False)),
        hour_of_week=hour_of_week(fields["ts"].to_numpy(zero_copy_only=False)),
        text=text,
        texts=texts,
    )


def ranges(starts: Ints, lengths: Ints) -> Ints:
    """``[*range(s, s + n) for s, n in zip(starts, lengths)]`` without the loop."""
    before = np.cumsum(lengths) - lengths
    found: Ints = np.arange(lengths.sum(), dtype=np.int64) + np.repeat(starts - before, lengths)
    return found


def hour_of_week(ts: Ints) -> Ints:
    """Hour of the week in UTC, 0 = Monday 00:00, of times in µs since 1970."""
    hours: Ints = (ts // _HOUR_US + 3 * 24) % 168  # 1 January 1970 was a Thursday
    return hours


def log_seconds(seconds: npt.ArrayLike) -> Floats:
    """ln(1 + seconds); NaN where not finite, 0 where negative."""
    known = np.array(seconds, dtype=np.float64)
    known[~np.isfinite(known)] = np.nan
    logs: Floats = np.log1p(np.maximum(known, 0.0)).astype(np.float32)
    return logs


def text_of(page: str | None, title: str | None, text: str | None) -> str:
    """What an event says, as one text: "title | text"; the path stands in for an absent title."""
    name = title if title is not None else page or ""
    return f"{name} | {text}" if text else name


def _texts(page: pa.Array, title: pa.Array, text: pa.Array) -> tuple[Ints, tuple[str, ...]]:
    """Index per event into the distinct texts of the events; see ``text_of``."""
    name = pc.coalesce(title, page, pa.scalar("")).dictionary_encode()
    extra = pc.fill_null(text, "").dictionary_encode()
    names, extras = name.dictionary.to_pylist(), extra.dictionary.to_pylist()
    many = max(len(extras), 1)
    pairs = name.indices.to_numpy().astype(np.int64) * many + extra.indices.to_numpy()
    pair = pa.array(pairs).dictionary_encode()
    texts = [text_of(None, names[p // many], extras[p % many]) for p in pair.dictionary.to_pylist()]
    return pair.indices.to_numpy().astype(np.int64) + 1, ("", *texts)


def quantile_edges(values: Floats, bins: int) -> tuple[float, ...]:
    """Ascending, at most ``bins`` + 1 and at least two, of what is not NaN."""
    known = values[~np.isnan(values)]
    if not len(known):
        return (0.0, 1.0)
    edges = np.unique(np.quantile(known.astype(np.float64), np.linspace(0, 1, bins + 1)).round(4))
    if len(edges) < 2:
        edges = np.array([edges[0], edges[0] + 1.0])
    return tuple(edges.tolist())


@dataclass(frozen=True)
class FeatureSpace:
    """What training sessions say about the inputs: vocabularies, and quantiles of dwell and gap."""

    pages: Vocabulary
    event_types: Vocabulary
    dwell_edges: tuple[float, ...]  # quantiles of ln(1 + s), ascending, at least two
    gap_edges: tuple[float, ...]

    BINS = 16

    @classmethod
    def fit(cls, flat: FlatEvents, sessions: Ints, *, min_page_count: int) -> FeatureSpace:
        """Learn from the rows ``sessions`` of ``flat``."""
        rows = ranges(flat.offsets[sessions], flat.lengths[sessions])
        taken = pa.array(rows)
        return cls(
            pages=Vocabulary.build(flat.page.take(taken), min_count=min_page_count, max_size=MAX_PAGES),
            event_types=Vocabulary.build(flat.event_type.take(taken)),
            dwell_edges=quantile_edges(flat.log_dwell[rows], cls.BINS),
            gap_edges=quantile_edges(flat.log_gap[rows], cls.BINS),
        )

    def encode(self, flat: FlatEvents) -> Encoded:
        return Encoded(
            offsets=flat.offsets,
            page=self.pages.encode(flat.page),
            event_type=self.event_types.encode(flat.event_type),
            log_dwell=flat.log_dwell,
            log_gap=flat.log_gap,
            hour_of_week=flat.hour_of_week,
            text=flat.text,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "pages": list(self.pages.values),
            "event_types": list(self.event_types.values),
            "dwell_edges": list(self.dwell_edges),
            "gap_edges": list(self.gap_edges),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> FeatureSpace:
        """The inverse of :meth:`to_json`; KeyError or TypeError if it is not one."""

        def edges(numbers: Sequence[float]) -> tuple[float, ...]:
            return tuple(float(number) for number in numbers)

        return cls(
            pages=Vocabulary(tuple(value["pages"])),
            event_types=Vocabulary(tuple(value["event_types"])),
            dwell_edges=edges(value["dwell_edges"]),
            gap_edges=edges(value["gap_edges"]),
        )


@dataclass(frozen=True)
class Encoded:
    """Flat events as numbers; fields as in :class:`FlatEvents`, pages and types as ids."""

    offsets: Ints
    page: Ints
    event_type: Ints
    log_dwell: Floats
    log_gap: Floats
    hour_of_week: Ints
    text: Ints

    @property
    def lengths(self) -> Ints:
        return self.offsets[1:] - self.offsets[:-1]


@dataclass(frozen=True)
class Batch:
    """B windows padded to L events; the arrays may be written to (masking does)."""

    page: Ints  # (B, L), PAD after the end
    event_type: Ints  # (B, L)
    numeric: Floats  # (B, L, NUMERIC_WIDTH)
    text: Ints  # (B, L), index of a text; 0 is the empty one
    lengths: Ints  # (B,)


def pad(events: Encoded, starts: Ints, lengths: Ints) -> Batch:
    """The windows ``starts[i] : starts[i] + lengths[i]`` of flat events, as a padded batch.

    Nothing outside a window enters. The dwell of a window's last event is hidden always: it lasts until
    the event after the window, so at that moment it is the future.
    """
    steps = np.arange(max(int(lengths.max(initial=1)), 1))
    inside = steps < lengths[:, None]
    index = np.where(inside, starts[:, None] + steps, 0)
    is_last = steps == lengths[:, None] - 1

    def take(values: npt.NDArray[Any], fill: int = 0) -> npt.NDArray[Any]:
        if not len(values):
            return np.full(index.shape, fill, dtype=values.dtype)
        return np.where(inside, values[index], fill)

    dwell = np.where(inside & ~is_last, take(events.log_dwell), np.nan)
    gap = np.where(inside, take(events.log_gap), np.nan)
    numeric = np.zeros((*index.shape, NUMERIC_WIDTH), dtype=np.float32)
    numeric[..., DWELL] = np.nan_to_num(dwell)
    numeric[..., GAP] = np.nan_to_num(gap)
    numeric[..., NO_DWELL] = np.isnan(dwell)
    numeric[..., NO_GAP] = np.isnan(gap)
    numeric[..., CALENDAR] = CALENDAR_TABLE[take(events.hour_of_week)] * inside[..., None]
    return Batch(take(events.page), take(events.event_type), numeric, take(events.text), lengths)
