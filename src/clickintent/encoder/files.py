"""Parquet in, Parquet out: sessions to embeddings in bounded memory, however large the files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from clickintent import schema
from clickintent.encoder.features import Floats
from clickintent.encoder.source import columns_of, filtered, reading
from clickintent.encoder.tables import EVENT_FIELDS, check_columns
from clickintent.errors import DataError, EmptyInputError
from clickintent.progress import progress
from clickintent.workspace import atomically

#: Sessions in one piece of work: some megabytes, and enough of each length for full calls.
ROWS = 8192
_ROW_GROUP = 32_768
#: Floats do not compress: zstd makes the file 13 % smaller and writing half as slow again.
_COMPRESSION = {"session_id": "zstd", "embedding.list.element": "none"}
#: Bytes of a column that are read at a time: a row group may be larger than memory.
_READ = 1 << 20

T = TypeVar("T")
R = TypeVar("R")


def embed_files(
    embed: Callable[[pa.Table], Floats],
    written_as: pa.Schema,
    source: Path,
    target: Path,
    *,
    keep: pc.Expression | None,
    workers: int,
) -> int:
    """See ``SessionEncoder.embed_parquet``. ``embed`` is called from several threads."""
    _check_target(source, target)
    files = _files(source)
    total = sum(_rows(file) for file in files)

    def work(sessions: pa.Table) -> tuple[int, pa.Table]:
        read = sessions.num_rows
        sessions = filtered(sessions, keep)
        return read, embeddings_table(sessions["session_id"], embed(sessions))

    waiting: list[pa.Table] = []
    done = written = 0
    with (
        progress("embed", total, "sessions") as advance,
        atomically(target) as temporary,
        pq.ParquetWriter(temporary, written_as, use_dictionary=False, compression=_COMPRESSION) as writer,
    ):
        for read, table in in_order(work, _pieces(files, keep), workers):
            waiting.append(table)
            done, written = done + read, written + table.num_rows
            if sum(t.num_rows for t in waiting) >= _ROW_GROUP:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
            advance(done)
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    return written


def embeddings_table(session_ids: pa.Array | pa.ChunkedArray, vectors: Floats) -> pa.Table:
    """``schema.embeddings`` of vectors (n, dim), which are not copied.

    Raises:
        DataError: if a session id is null.
    """
    if session_ids.null_count:
        raise DataError(f"'session_id' is null in {session_ids.null_count:,} rows; each needs one.")
    dim = vectors.shape[1]
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
    return pa.table([session_ids, lists], schema=schema.embeddings(dim))


def in_order(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """``map(work, items)`` in threads, with at most two items a worker ahead of whoever takes the results."""
    if workers == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[R]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(work, item))
                if len(ahead) >= 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _check_target(source: Path, target: Path) -> None:
    """Sessions are not to be overwritten, nor a folder, nor are embeddings to be read as sessions."""
    if target.is_dir():
        raise DataError(f"{target} is a folder. Give the path of a file to write.")
    where = target.resolve()
    if where == source.resolve() or source.resolve() in where.parents:
        raise DataError(f"{target}: the sessions are read from there. Give a path outside of {source}.")


def _files(source: Path) -> list[str]:
    with reading(source):
        files: list[str] = ds.dataset(source, format="parquet").files
    if not files:
        raise EmptyInputError(f"{source}: no Parquet file in it. Give a file or a folder of sessions.")
    return files


def _pieces(files: list[str], keep: pc.Expression | None) -> Iterator[pa.Table]:
    """The columns that are needed, some rows at a time."""
    for path in files:
        # With pre_buffer, the default, what was read of a file stays in memory until its end.
        with reading(path), pq.ParquetFile(path, pre_buffer=False, buffer_size=_READ) as file:
            columns = _columns(path, file, keep)
            for batch in file.iter_batches(ROWS, columns=columns):
                yield pa.Table.from_batches([batch])


def _rows(path: str) -> int:
    with reading(path):
        rows: int = pq.read_metadata(path).num_rows
    return rows


def _columns(path: str, file: pq.ParquetFile, keep: pc.Expression | None) -> list[str]:
    """Paths of the leaf columns to read."""
    arrow = file.schema_arrow
    check_columns(path, ("session_id", "events"), arrow.names)
    flat = {"session_id", *(columns_of(keep, arrow) if keep is not None else ())}
    leaves = [file.schema.column(i).path for i in range(len(file.schema))]
    return [
        leaf
        for leaf in leaves
        if leaf.split(".")[0] in flat or (leaf.startswith("events.") and leaf.split(".")[-1] in EVENT_FIELDS)
    ]
