"""Raw text files into DuckDB: every readable row with its position, and what was refused.

Lines, NDJSON and text without quotes stream through Arrow, a block of lines at a time. CSV with quotes is
read by DuckDB in parallel, strictly; only if it meets something that does not fit, record by record here.
For Parquet see ``rowgroups``.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import ibis.expr.types as ir
import pyarrow as pa

from clickintent.errors import DataError, MissingColumnsError
from clickintent.events import unpack
from clickintent.events.files import packing
from clickintent.events.lines import DAMAGED, LINES, Tally, delimited_batches, line_batches
from clickintent.events.lines import MALFORMED as MALFORMED
from clickintent.events.lines import POSITION as POSITION
from clickintent.events.lines import Refused as Refused
from clickintent.events.records import Grammar, header, record_batches
from clickintent.events.remote import shown
from clickintent.events.unpack import DamagedError, WrongError

if TYPE_CHECKING:
    from clickintent.events.engine import Engine

ADVICE = (
    "Check that the file is complete and of the format that its name says (.parquet, .csv, .tsv, .ndjson)"
)
CUT = "file ends early"

#: Makes the batches of one pass over a file's text.
Pass = Callable[[Iterator[bytes], Tally], Iterator[pa.RecordBatch]]


@dataclass(frozen=True)
class Rows:
    """What a file holds: its readable rows, with ``POSITION``, and those that are not.

    Neighbouring rows that were refused for the same reason are one ``Refused``.
    """

    table: ir.Table
    refused: tuple[Refused, ...] = ()


def lines(engine: Engine, path: str) -> Rows:
    """One column, ``line``. See ``Engine.read_lines``."""
    name, tally = _stream(engine, path, LINES, line_batches)
    return Rows(engine.con.table(name), tally.refused())


def objects(engine: Engine, path: str) -> Rows:
    """One column, ``json``. See ``Engine.read_objects``."""
    raw = engine.con.con

    def batches(chunks: Iterator[bytes], tally: Tally) -> Iterator[pa.RecordBatch]:
        return line_batches(chunks, tally, blank=True)

    text, tally = _stream(engine, path, LINES, batches)
    name = engine.name("raw")
    raw.execute(
        f"CREATE TEMP TABLE {name} AS SELECT CASE WHEN json_valid(line) AND json_type(line) = 'OBJECT' "
        f"THEN line::JSON END AS json, {POSITION} FROM {text}"
    )
    raw.execute(f"DROP TABLE {text}")
    for (at,) in raw.execute(f"SELECT {POSITION} FROM {name} WHERE json IS NULL ORDER BY 1").fetchall():
        tally.refuse(at, MALFORMED)
    table = engine.con.table(name)
    return Rows(table.filter(table["json"].notnull()), tally.refused())


def ndjson(engine: Engine, path: str, needed: dict[str, str] | None) -> Rows:
    """The keys of the objects as columns of text. See ``Engine.read``."""
    raw = engine.con.con
    rows = objects(engine, path)
    source = engine.con.compile(rows.table)
    keys = raw.execute(f"SELECT DISTINCT unnest(json_keys(json)) FROM ({source})").fetchall()
    found = sorted(key for (key,) in keys)
    if not found:
        broken = [r.reason for r in rows.refused if r.reason == DAMAGED or r.reason.startswith(CUT)]
        if broken:
            raise DataError(f"{shown(path)}: no row can be read ({broken[0]}). Copy or export it again.")
        raise DataError(f"{shown(path)}: holds no JSON object, one in a line is expected. {ADVICE}.")
    check(path, needed, found)
    name = engine.name("raw")
    columns = ", ".join(f"json ->> {quoted(json_key(c))} AS {identifier(c)}" for c in needed or found)
    raw.execute(f"CREATE TEMP TABLE {name} AS SELECT {columns}, {POSITION} FROM ({source})")
    return Rows(engine.con.table(name), rows.refused)


def with_header(engine: Engine, path: str, needed: dict[str, str] | None) -> Rows:
    """CSV. See ``Engine.read``."""
    local = engine.local(path)

    def start() -> Iterator[bytes]:
        return unpack.text(local, packing(path))

    try:
        top = header(start(), Grammar("\0"))
        if not top or not "".join(top).strip():
            raise DataError(f"{shown(path)}: is empty, it has not even a header line.")
        unquoted = re.sub(r'"[^"]*"', "", top[0])
        delimiter = max(",\t;|", key=unquoted.count)
        names = [name.strip() for name in header(start(), Grammar(delimiter)) or ()]
    except UnicodeDecodeError:
        raise DataError(f"{shown(path)}: its header line is not UTF-8. Convert the file to UTF-8.") from None
    if any("\0" in name for name in names):
        raise DataError(
            f"{shown(path)}: its header line holds zero bytes, as UTF-16 without a byte order mark does. "
            "Convert the file to UTF-8."
        )
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(f"{shown(path)}: the header names {', '.join(map(repr, twice))} more than once.")
    check(path, needed, names)
    keep = {name: names.index(name) for name in (needed or names) if name}
    return _quoted_text(engine, path, Grammar(delimiter), len(names), keep, has_header=True, pad=False)


def delimited(
    engine: Engine, path: str, names: Sequence[str], *, delimiter: str, quote: str, pad: bool
) -> Rows:
    """Text without a header. See ``Engine.read_delimited``."""
    if quote:
        keep = {name: i for i, name in enumerate(names)}
        grammar = Grammar(delimiter, quote)
        return _quoted_text(engine, path, grammar, len(names), keep, has_header=False, pad=pad)
    fields = range(1 if pad else len(names), len(names) + 1)

    def batches(chunks: Iterator[bytes], tally: Tally) -> Iterator[pa.RecordBatch]:
        return delimited_batches(chunks, tally, delimiter, fields)

    text, tally = _stream(engine, path, LINES, batches)
    name = engine.name("raw")
    # a view: of hundreds of columns a reader wants a few
    columns = ", ".join(f"nullif(f[{i}], '') AS {identifier(n)}" for i, n in enumerate(names, start=1))
    engine.con.con.execute(
        f"CREATE TEMP VIEW {name} AS SELECT {columns}, {POSITION} "
        f"FROM (SELECT string_split(line, {quoted(delimiter)}) AS f, {POSITION} FROM {text})"
    )
    return Rows(engine.con.table(name), tally.refused())


def _quoted_text(
    engine: Engine,
    path: str,
    grammar: Grammar,
    width: int,
    keep: dict[str, int],
    *,
    has_header: bool,
    pad: bool,
) -> Rows:
    """Text with quotes: by DuckDB if all of it is in order, else record by record."""
    columns = ", ".join(f"c{at} AS {identifier(name)}" for name, at in keep.items())
    view = engine.name("raw")
    raw = engine.con.con
    try:
        # in a file of one column DuckDB takes an empty line for a row, and one at the top for the header
        with _plain(engine, path) as file:
            if width == 1 or _starts_blank(file):
                raise DamagedError
            text = _by_duckdb(engine, file, grammar, width, has_header=has_header, pad=pad, keep=keep)
        raw.execute(f"CREATE TEMP VIEW {view} AS SELECT {columns}, rowid AS {POSITION} FROM {text}")
        return Rows(engine.con.table(view))
    except duckdb.OutOfMemoryException:
        raise
    except (duckdb.Error, DamagedError):
        pass

    def batches(chunks: Iterator[bytes], tally: Tally) -> Iterator[pa.RecordBatch]:
        at = list(keep.values())
        return record_batches(chunks, tally, grammar, width, at, has_header=has_header, pad=pad)

    schema = pa.schema([*((f"c{i}", pa.string()) for i in keep.values()), (POSITION, pa.int64())])
    text, tally = _stream(engine, path, schema, batches)
    raw.execute(f"CREATE TEMP VIEW {view} AS SELECT {columns}, {POSITION} FROM {text}")
    return Rows(engine.con.table(view), tally.refused())


def _by_duckdb(
    engine: Engine,
    file: Path,
    grammar: Grammar,
    width: int,
    keep: dict[str, int],
    *,
    has_header: bool,
    pad: bool,
) -> str:
    """A table of the columns ``keep``, named ``c0``, ``c1``, …, whose ``rowid`` is the position.

    Raises:
        duckdb.Error: if anything does not fit: nothing is guessed, nothing repaired.
    """
    name = engine.name("raw")
    types = "{" + ", ".join(f"'c{i}': 'VARCHAR'" for i in range(width)) + "}"
    engine.con.con.execute(
        f"CREATE TEMP TABLE {name} AS SELECT {', '.join(f'c{i}' for i in keep.values())} FROM read_csv("
        f"{quoted(glob.escape(str(file)))}, columns = {types}, auto_detect = false, header = {has_header}, "
        f"quote = {quoted(grammar.quote)}, escape = {quoted(grammar.quote)}, "
        f"delim = {quoted(grammar.delimiter)}, nullstr = '', strict_mode = true, null_padding = {pad})"
    )
    return name


def _starts_blank(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(1) in (b"\r", b"\n")


@contextmanager
def _plain(engine: Engine, path: str) -> Iterator[Path]:
    """The file as plain UTF-8: itself, or an unpacked copy that is gone afterwards."""
    local = engine.local(path)
    if unpack.is_plain_utf8(local, packing(path)):
        yield local
        return
    copy = engine.scratch / f"{engine.name('unpacked')}.txt"
    try:
        with copy.open("wb") as file:
            for block in unpack.text(local, packing(path)):
                file.write(block)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def _stream(engine: Engine, path: str, schema: pa.Schema, batches: Pass) -> tuple[str, Tally]:
    """Load what ``batches`` makes of the file's text into a temporary table; once more if that was wrong."""
    local = engine.local(path)
    for salvage in (False, True):
        tally = Tally()
        failed: list[BaseException] = []
        made = _until_failure(batches(unpack.text(local, packing(path), salvage=salvage), tally), failed)
        name, raw = engine.name("raw"), engine.con.con
        raw.register("arriving", pa.RecordBatchReader.from_batches(schema, made))
        try:
            raw.execute(f"CREATE TEMP TABLE {name} AS SELECT * FROM arriving")
        finally:
            raw.unregister("arriving")
        if not failed:
            break
        if not isinstance(failed[0], DamagedError):
            raise failed[0]
        if not isinstance(failed[0], WrongError):
            tally.refuse_next(f"{CUT}: {failed[0]}")
            break
        raw.execute(f"DROP TABLE {name}")
    return name, tally


def _until_failure(
    batches: Iterator[pa.RecordBatch], failed: list[BaseException]
) -> Iterator[pa.RecordBatch]:
    # an exception must not pass through DuckDB, which would hide what it was
    try:
        yield from batches
    except GeneratorExit:
        raise
    except BaseException as error:
        failed.append(error)


def check(path: str, needed: dict[str, str] | None, found: Sequence[str]) -> None:
    """Raise ``MissingColumnsError`` unless the needed columns were found."""
    missing = [column for column in needed or () if column not in found]
    if missing:
        raise MissingColumnsError(shown(path), missing, [name for name in found if name])


def quoted(value: object) -> str:
    """A text literal of SQL."""
    return "'" + str(value).replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A name of SQL."""
    return '"' + name.replace('"', '""') + '"'


def json_key(name: str) -> str:
    """The path of a key at the top of a JSON object."""
    return '$."' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def first_line(error: BaseException) -> str:
    """What an error says, short and without the values that it may quote from the file."""
    said = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"(\"|').*\1", "…", said)[:200].rstrip(".")
