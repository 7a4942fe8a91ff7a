"""What an engine must be able to do so that the tables can be made on it: DuckDB in this process, or Spark.

Everything else is Ibis expressions, the same on both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import ibis.expr.types as ir
import pyarrow as pa

from clickintent.events.decode import Published

#: A batch of coded rows → the rows that are published; see ``decode``.
Decode = Callable[[pa.Table, Published], pa.Table]


def at_once(schema: pa.Schema) -> int:
    """Rows that go into a row group, and are in memory at a time; a session has some ten events."""
    return 20_000 if "events" in schema.names else 200_000


class Tables(Protocol):
    """An engine that makes tables. See ``engine.Engine`` and ``spark.SparkEngine``."""

    def parquet(self, path: Path | str) -> ir.Table:
        """Parquet files of our own, one or a glob in the file's name."""

    def small(self, rows: pa.Table, name: str) -> ir.Table:
        """A table that fits into memory, to join with."""

    def temporary(self, rows: ir.Table, prefix: str = "t") -> ir.Table:
        """Compute ``rows`` once and keep them until the end of the scope."""

    def scope(self) -> AbstractContextManager[None]:
        """Temporary tables made inside are dropped at the end."""

    def together(self, rows: ir.Table, column: str) -> ir.Table:
        """The same rows, in one place those with the same value of ``column``.

        What follows is grouped by it, and by whatever else, without moving rows about again.
        """

    def ranges(self, events: int, at_once: int) -> int:
        """Into how many ranges of visitors so many events must be cut."""

    def arrow(self, rows: ir.Table) -> pa.Table:
        """Rows as an Arrow table, in memory."""

    def keep(self, rows: ir.Table, folder: Path, name: str) -> ir.Table:
        """Compute ``rows`` into files ``NAME*.parquet`` of ``folder``, and return them as a table."""

    def write(
        self,
        rows: ir.Table,
        folder: Path,
        name: str,
        schema: pa.Schema,
        decode: Decode,
        published: Published,
        order: Sequence[str] = (),
    ) -> None:
        """Write ``rows``, decoded, into files ``NAME*.parquet`` of ``folder``, of exactly ``schema``.

        Args:
            order: columns of ``rows`` that each file is sorted by.
        """
