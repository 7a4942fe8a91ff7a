"""Bounded memory over any number of rows: uniform samples and counts of the most frequent values.

Nothing is drawn: a row's number decides, so that the same rows give the same sample in whatever pieces they
come, and all rows are in it as long as they are few enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clickintent.encoder.features import Ints

_ROW = "row"


def uniform(rows: Ints, salt: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each row number, as good as drawn (splitmix64, Steele et al. 2014)."""
    z = rows.astype(np.uint64) + np.uint64(salt + 1) * np.array([0x9E3779B97F4A7C15], np.uint64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    found: npt.NDArray[np.float64] = (z >> np.uint64(11)) * 2.0**-53
    return found


class Sample:
    """A uniform sample of rows, at most ``limit``; each time they are more, half of them go."""

    def __init__(self, limit: int, salt: int) -> None:
        self._limit, self._salt = limit, salt
        self._share = 1.0
        self._parts: list[pa.Table] = []

    def add(self, table: pa.Table, rows: Ints) -> None:
        """Offer the rows of ``table``; ``rows``: their numbers among all that are ever offered."""
        table = table.append_column(_ROW, pa.array(rows))
        self._parts.append(self._thinned(table) if self._share < 1 else table)
        while sum(part.num_rows for part in self._parts) > self._limit:
            self._share /= 2
            self._parts = [self._thinned(part) for part in self._parts]

    def table(self) -> pa.Table | None:
        """What was kept, in the order in which it was offered; None if nothing ever was."""
        return pa.concat_tables(self._parts).drop_columns([_ROW]) if self._parts else None

    def _thinned(self, table: pa.Table) -> pa.Table:
        kept = uniform(table[_ROW].to_numpy(), self._salt) < self._share
        return table.filter(pa.array(kept))


class Counts:
    """How often values occur. Of more than ``limit`` distinct ones the rarer half is forgotten."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.counts: Counter[str] = Counter()

    def add(self, values: Sequence[str], counts: Ints) -> None:
        self.counts.update({v: n for v, n in zip(values, counts.tolist(), strict=True) if n})
        if len(self.counts) > self._limit:
            self.counts = Counter(dict(self.top(self._limit // 2)))

    def top(self, n: int) -> list[tuple[str, int]]:
        """The most frequent first."""
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:n]
