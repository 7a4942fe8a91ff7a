"""Training sessions in chunks drawn from all over the data, the next one prepared while one is trained on.

A chunk has tens of thousands of sessions and is what is in memory; two are, at most. Which pieces of the
source are in which chunk is a function of (seed, epoch) and the number of processes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickintent.encoder.features import Encoded, FeatureSpace, Ints, flatten
from clickintent.encoder.source import Source
from clickintent.encoder.statistics import Statistics, load
from clickintent.encoder.text_modules import Prepared

#: At most about so many sessions and events in a chunk: with 44 bytes an event, some 50 MB.
CHUNK_SESSIONS, CHUNK_EVENTS = 65_536, 1_048_576

Prepare = Callable[[Sequence[str]], Prepared]


@dataclass(frozen=True)
class Chunk:
    """Training sessions, each with at least one event."""

    events: Encoded
    texts: Prepared  # of the texts that ``events.text`` counts
    following: Ints  # (n,): the row of the same visitor's next session, −1 for none in this chunk


@dataclass(frozen=True)
class TrainingData:
    """What training works on: where the sessions are, and what is known of all of them."""

    source: Source
    statistics: Statistics

    @property
    def space(self) -> FeatureSpace:
        return self.statistics.space


class Chunks:
    """The chunks of one of ``size`` processes. All processes have equally many in an epoch.

    Where there are fewer pieces than processes, some have the same ones.
    """

    def __init__(self, data: TrainingData, prepare: Prepare, seed: int, rank: int = 0, size: int = 1) -> None:
        self._data, self._prepare = data, prepare
        self._seed, self._rank, self._size = seed, rank, size
        self._pieces = np.flatnonzero(data.statistics.counts)
        sessions, events = data.statistics.sessions, int(data.statistics.events.sum())
        each = size * max(-(-sessions // (size * CHUNK_SESSIONS)), -(-events // (size * CHUNK_EVENTS)))
        self._number = min(each, len(self._pieces))
        self.per_epoch = -(-self._number // size)

    def pieces(self, epoch: int, chunk: int) -> tuple[int, ...]:
        """The pieces of the source that a chunk of an epoch consists of."""
        order = np.random.default_rng([self._seed, epoch]).permutation(self._pieces)
        mine = np.array_split(order, self._number)[(chunk * self._size + self._rank) % self._number]
        return tuple(sorted(mine.tolist()))

    def stream(self, epoch: int, chunk: int) -> Generator[Chunk]:
        """This chunk and all that follow, without end."""
        pieces = self.pieces(epoch, chunk)
        with ThreadPoolExecutor(1) as thread:
            ready: Future[Chunk] = thread.submit(self._load, pieces)
            while True:
                found = ready.result()
                epoch, chunk = (epoch, chunk + 1) if chunk + 1 < self.per_epoch else (epoch + 1, 0)
                following = self.pieces(epoch, chunk)
                if following != pieces:  # on small data it is the same chunk always
                    pieces = following
                    ready = thread.submit(self._load, pieces)
                yield found

    def _load(self, pieces: tuple[int, ...]) -> Chunk:
        return load_chunk(self._data, pieces, self._prepare)


def load_chunk(data: TrainingData, pieces: Sequence[int], prepare: Prepare) -> Chunk:
    """The training sessions of some pieces, one piece after the other."""
    tables = (load(data.source, piece, data.statistics.times)[0] for piece in pieces)
    return chunk_of(tables, data.space, prepare)


def chunk_of(tables: Iterable[pa.Table], space: FeatureSpace, prepare: Prepare) -> Chunk:
    """The sessions of at least one table; ``visitor_id`` may be absent."""
    texts: dict[str, int] = {"": 0}
    parts: list[Encoded] = []
    keys: list[pa.Table] = []
    for table in tables:
        flat = flatten(table)
        index = np.array([texts.setdefault(text, len(texts)) for text in flat.texts])
        encoded = space.encode(flat)
        parts.append(replace(encoded, text=index[encoded.text]))
        keys.append(table.drop_columns(["events"]))
    return Chunk(_joined(parts), prepare(tuple(texts)), next_sessions(pa.concat_tables(keys)))


def _joined(parts: Sequence[Encoded]) -> Encoded:
    lengths = np.concatenate([part.lengths for part in parts])
    names = [field.name for field in fields(Encoded) if field.name != "offsets"]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Encoded(offsets=np.concatenate([[0], np.cumsum(lengths)]), **columns)


def next_sessions(sessions: pa.Table) -> Ints:
    """(n,): of each session the row of its visitor's next one by start, −1 for none.

    Without a column ``visitor_id``, and where it is null, nothing is known to follow.
    """
    following = np.full(sessions.num_rows, -1, dtype=np.int64)
    if "visitor_id" not in sessions.column_names:
        return following
    coded = sessions["visitor_id"].combine_chunks().dictionary_encode().indices
    visitor = pc.fill_null(coded, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    order = np.lexsort((sessions["start"].to_numpy(), visitor))
    before, after = order[:-1], order[1:]
    same = (visitor[before] == visitor[after]) & (visitor[before] >= 0)
    following[before[same]] = after[same]
    return following
