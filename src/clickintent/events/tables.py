"""What an engine must be able to do so that the tables can be made on it: DuckDB in this process, or Spark.

Everything else is Ibis expressions, the same on both.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import ibis.expr.types as ir
import pyarrow as pa

from clickintent.events.decode import Published

#: A batch of coded rows → the rows that are published; see ``decode``.
Decode = Callable[[pa.Table, Published], pa.Table]


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

    def ranges(self, events: int, at_once: int) -> int:
        """Into how many ranges of visitors so many events must be cut."""

    def arrow(self, rows: ir.Table) -> pa.Table:
        """Rows as an Arrow table, in memory."""

    def keep(self, rows: ir.Table, folder: Path, name: str) -> ir.Table:
        """Compute ``rows`` into files ``NAME*.parquet`` of ``folder``, and return them as a table."""

    def write(
        self, rows: ir.Table, folder: Path, name: str, schema: pa.Schema, decode: Decode, published: Published
    ) -> None:
        """Write ``rows``, decoded, into files ``NAME*.parquet`` of ``folder``, of exactly ``schema``.

        In the order of the rows, where they have one: within a file, and from file to file by name.
        """
