"""What must be known of all sessions before training, in two passes over the pieces of a source.

The first reads times only, and says which sessions are the last ones and are held out. The second counts
values over the others. What is kept does not grow with the number of sessions: beyond the limits below,
quantiles and samples are of a part of the rows (see ``sampling``), and rare values are forgotten.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clickintent.config import EncoderConfig
from clickintent.encoder.features import (
    MAX_PAGES,
    FeatureSpace,
    Ints,
    Vocabulary,
    flatten,
    quantile_edges,
)
from clickintent.encoder.sampling import Counts, Sample, uniform
from clickintent.encoder.source import Source
from clickintent.errors import DataError, EmptyInputError
from clickintent.progress import progress

_HELD_OUT = 0.05
#: Exact up to so many starts, and so many dwells and gaps.
_VALUES = 1_000_000
#: Distinct pages, event types and texts that are counted at a time.
_DISTINCT = 500_000
#: Texts whose vectors of a sentence model are kept; those of others are made when they are needed.
_TEXTS = 100_000
#: Sessions kept to measure on, to know the trained model's output by, and to count what follows what.
HELD_OUT_SAMPLE, TRAIN_SAMPLE, FLOOR_SAMPLE = 20_000, 20_000, 100_000

_TIE, _STARTS, _DWELLS, _HELD, _TRAIN, _FLOOR = range(6)  # salts


@dataclass(frozen=True)
class Split:
    """Held out are the sessions after ``start``, and of those at ``start`` the ones ``uniform`` puts last."""

    start: int
    tie: float

    def held_out(self, start: Ints, rows: Ints) -> npt.NDArray[np.bool_]:
        """(n,); rows: the sessions' numbers in the source."""
        found: npt.NDArray[np.bool_] = (start > self.start) | (
            (start == self.start) & (uniform(rows, _TIE) >= self.tie)
        )
        return found


@dataclass(frozen=True)
class Times:
    """The first pass. Sessions are those with an event which pass the source's filter."""

    counts: Ints  # sessions per piece
    first: int  # µs, the earliest start
    last: int
    split: Split

    @property
    def sessions(self) -> int:
        return int(self.counts.sum())

    def rows(self, piece: int) -> Ints:
        """The numbers in the source of the sessions of a piece."""
        begin = int(self.counts[:piece].sum())
        return np.arange(begin, begin + int(self.counts[piece]))


@dataclass(frozen=True)
class Statistics:
    """Both passes; counts and samples are of the training sessions if not said otherwise."""

    times: Times
    space: FeatureSpace
    counts: Ints  # sessions per piece
    events: Ints  # events per piece
    texts: tuple[str, ...]  # the most frequent; the first is empty. Of a sentence model only.
    held_out: pa.Table | None  # a sample of the held-out sessions
    sample: pa.Table
    pages: pa.Array  # a larger sample: the pages of each session, a list
    digest: str  # of all that training reads

    @property
    def sessions(self) -> int:
        return int(self.counts.sum())


def load(source: Source, piece: int, times: Times) -> tuple[pa.Table, pa.Table]:
    """The training and the held-out sessions of a piece.

    Raises:
        DataError: if the source has changed since the first pass, or cannot be read.
    """
    table = source.load(piece)
    if table.num_rows != times.counts[piece]:
        raise DataError(
            "the sessions have changed while they were read. Start again when they do not change."
        )
    held = times.split.held_out(table["start"].to_numpy(), times.rows(piece))
    if not held.any():
        return table, table.slice(0, 0)
    return table.filter(pa.array(~held)), table.filter(pa.array(held))


def survey(source: Source, config: EncoderConfig) -> Statistics:
    """Make both passes.

    Raises:
        EmptyInputError: if there is no session with an event.
        DataError: if a file cannot be read.
    """
    times = _times(source)
    pages, event_types, texts = Counts(_DISTINCT), Counts(_DISTINCT), Counts(_DISTINCT)
    seconds = {name: Sample(_VALUES, _DWELLS) for name in ("log_dwell", "log_gap")}
    held_out, sample = Sample(HELD_OUT_SAMPLE, _HELD), Sample(TRAIN_SAMPLE, _TRAIN)
    floor = Sample(FLOOR_SAMPLE, _FLOOR)
    counts, events = np.zeros((2, len(times.counts)), dtype=np.int64)
    digest = hashlib.blake2b(digest_size=16)
    with progress("count", times.sessions, "sessions") as advance:
        for piece in range(len(counts)):
            train, held = load(source, piece, times)
            first, first_event = int(counts.sum()), int(events.sum())
            done = int(times.counts[:piece].sum())
            advance(done)
            held_out.add(held, np.arange(done - first, done - first + held.num_rows))
            if not train.num_rows:
                continue
            flat = flatten(train)
            counts[piece], events[piece] = train.num_rows, len(flat.text)
            rows = np.arange(first, first + train.num_rows)
            sample.add(train, rows)
            floor.add(_pages(flat.offsets, flat.page), rows)
            numbers = np.arange(first_event, first_event + len(flat.text))
            for name, found in seconds.items():
                found.add(pa.table({name: getattr(flat, name)}), numbers)
            page, event_type = _coded(flat.page), _coded(flat.event_type)
            pages.add(*_counted(page))
            event_types.add(*_counted(event_type))
            if config.text not in ("none", "hashed"):
                texts.add(flat.texts, np.bincount(flat.text, minlength=len(flat.texts)))
            _update(digest, flat.offsets, flat.log_dwell, flat.log_gap, flat.hour_of_week, flat.text)
            _update(digest, train["start"].to_numpy(), flat.texts, *page, *event_type)
            _update(digest, *_coded(train["visitor_id"].combine_chunks()))
    edges = {name: _edges(found, name) for name, found in seconds.items()}
    kept = sample.table()
    pages_of = floor.table()
    assert kept is not None  # at least one session is not held out
    assert pages_of is not None
    return Statistics(
        times=times,
        space=FeatureSpace(
            pages=Vocabulary.of_counts(pages.counts, min_count=config.min_page_count, max_size=MAX_PAGES),
            event_types=Vocabulary.of_counts(event_types.counts),
            dwell_edges=edges["log_dwell"],
            gap_edges=edges["log_gap"],
        ),
        counts=counts,
        events=events,
        texts=("", *(text for text, _ in texts.top(_TEXTS) if text)),
        held_out=held_out.table(),
        sample=kept,
        pages=pages_of["pages"].combine_chunks(),
        digest=digest.hexdigest(),
    )


def _times(source: Source) -> Times:
    starts = Sample(_VALUES, _STARTS)
    counts = np.zeros(len(source.rows), dtype=np.int64)
    first, last = np.iinfo(np.int64).max, np.iinfo(np.int64).min
    with progress("read times", sum(source.rows), "sessions") as advance:
        for piece in range(len(counts)):
            table = source.load(piece, times_only=True)
            begin = int(counts.sum())
            counts[piece] = table.num_rows
            if table.num_rows:
                start = table["start"].to_numpy()
                rows = np.arange(begin, begin + table.num_rows)
                starts.add(pa.table({"start": start, "tie": uniform(rows, _TIE)}), rows)
                first, last = min(first, int(start.min())), max(last, int(start.max()))
            advance(sum(source.rows[: piece + 1]))
    table = starts.table()
    if table is None:
        raise EmptyInputError("no session with an event to train the encoder on. Check what was ingested.")
    return Times(counts, first, last, _split(table["start"].to_numpy(), table["tie"].to_numpy()))


def _split(start: Ints, tie: npt.NDArray[np.float64]) -> Split:
    held = int(len(start) * _HELD_OUT)
    if not held:
        return Split(np.iinfo(np.int64).max, 1.0)
    at = np.lexsort((tie, start))[len(start) - held]
    return Split(int(start[at]), float(tie[at]))


def _pages(offsets: Ints, page: pa.Array) -> pa.Table:
    return pa.table({"pages": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), page)})


def _edges(values: Sample, name: str) -> tuple[float, ...]:
    table = values.table()
    assert table is not None
    return quantile_edges(table[name].to_numpy(), FeatureSpace.BINS)


def _coded(column: pa.Array) -> tuple[Ints, list[str]]:
    """Index per row into the distinct values, −1 for null, and those values."""
    coded = column.dictionary_encode()
    index = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return index, coded.dictionary.to_pylist()


def _counted(coded: tuple[Ints, list[str]]) -> tuple[list[str], Ints]:
    index, values = coded
    return values, np.bincount(index[index >= 0], minlength=len(values))


def _update(digest: Any, *parts: npt.NDArray[Any] | list[str] | tuple[str, ...]) -> None:
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(np.ascontiguousarray(part))
        else:
            digest.update("\0".join(part).encode())
