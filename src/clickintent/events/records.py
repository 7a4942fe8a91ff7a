"""Delimited text with quotes, record by record: for files that DuckDB does not read to their end.

The grammar is that of DuckDB's strict mode. Where no record can be read, one line is refused, and the next
line begins a record again: a quote that nothing closes costs one line, not the rest of the file. What follows
wrong bytes of a packed file is refused line by line, as it may begin within a quoted field.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import pyarrow as pa

from clickintent.events.lines import MALFORMED, NOT_UTF8, POSITION, Tally, blocks, is_utf8, why_not_utf8
from clickintent.events.unpack import DAMAGED_LINE, LONG_LINE, DamagedError

_LONGEST = 2 << 20  # characters of a record; DuckDB's limit, too
_BATCH = 20_000
_DAMAGED = DAMAGED_LINE.decode(errors="surrogateescape")
_LONG = LONG_LINE.decode(errors="surrogateescape")


@dataclass(frozen=True)
class Grammar:
    """How records are written."""

    delimiter: str
    quote: str = '"'

    @cached_property
    def _field(self) -> re.Pattern[str]:
        """One field and what ends it; what begins with a quote must be quoted to its end."""
        d, q = re.escape(self.delimiter), re.escape(self.quote)
        quoted = rf" ?{q}([^{q}]*+(?:{q}{q}[^{q}]*+)*+){q} *"
        plain = rf"(?! ?{q})((?:[^{d}\r\n]|\r(?!\n|\Z))*+)"
        return re.compile(rf"(?:{quoted}|{plain})({d}|\r?\n|\r?\Z)")

    @cached_property
    def _spaced(self) -> re.Pattern[str]:
        """A quote behind a space at the start of a field."""
        return re.compile(rf"(?:^|{re.escape(self.delimiter)}) {re.escape(self.quote)}")

    @cached_property
    def _dialect(self) -> type[csv.Dialect]:
        names = {"delimiter": self.delimiter, "quotechar": self.quote, "strict": True}
        return type("Dialect", (csv.excel,), names)

    @cached_property
    def _opens(self) -> re.Pattern[str]:
        q = re.escape(self.quote)
        return re.compile(rf" ?{q}[^{q}]*+(?:{q}{q}[^{q}]*+)*+\Z")

    def record(self, text: str, at: int) -> tuple[list[str] | None, int]:
        """The fields of the record that starts at ``at``, and where the next one starts.

        No record: None and the start of the next line. None that ends in ``text``: None and −1.
        """
        after = next_line(text, at)
        line = text[at:after].removesuffix("\n").removesuffix("\r")
        if self.quote not in line:
            return line.split(self.delimiter), after
        if not self._spaced.search(line):
            # fast, and the same grammar but for spaces around quotes; what it does not read is matched below
            with suppress(csv.Error):
                return next(csv.reader([line], self._dialect)), after
        fields = []
        place = at
        while match := self._field.match(text, place):
            quoted, plain, closing = match.groups()
            fields.append(plain if quoted is None else quoted.replace(self.quote * 2, self.quote))
            place = match.end()
            if closing != self.delimiter:
                return fields, place
        if len(text) - at < _LONGEST and self._opens.match(text, place):
            return None, -1
        return None, after


def next_line(text: str, at: int) -> int:
    """Where the line after the one at ``at`` starts."""
    return text.find("\n", at) + 1 or len(text)


def header(chunks: Iterable[bytes], grammar: Grammar) -> list[str] | None:
    """The fields of the first record, None if there is none.

    Raises:
        UnicodeDecodeError: if it is not UTF-8.
    """
    start = b"".join(_first(chunks)).lstrip(b"\r\n")
    if not start:
        return None
    try:
        text = start.decode()
    except UnicodeDecodeError:
        text = start[: start.find(b"\n") + 1 or None].decode()
    fields, _ = grammar.record(text, 0)
    return fields if fields else text[: next_line(text, 0)].rstrip("\r\n").split(grammar.delimiter)


def _first(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The first lines, or what there is of them."""
    try:
        for block in blocks(chunks, 1):
            yield block
            if block.strip(b"\r\n"):
                return
    except DamagedError:
        return


def record_batches(
    chunks: Iterable[bytes],
    tally: Tally,
    grammar: Grammar,
    width: int,
    keep: Sequence[int],
    *,
    has_header: bool,
    pad: bool,
) -> Iterator[pa.RecordBatch]:
    """Record batches of the fields ``keep``, named ``c0``, ``c1``, …, and ``POSITION``.

    Args:
        width: how many fields a record must have; as in DuckDB, more may follow if they are empty.
        pad: fewer fields will do.

    Raises:
        DamagedError: if ``chunks`` does, after all records that are complete.
    """
    schema = pa.schema([*((f"c{i}", pa.string()) for i in keep), (POSITION, pa.int64())])
    rows: list[list[str | None]] = []
    positions: list[int] = []
    ended: DamagedError | None = None
    source = _records(chunks, grammar)
    if has_header:
        next(source, None)
    while True:
        try:
            one = next(source, None)
        except DamagedError as error:
            one, ended = None, error
        if (one is None or len(rows) == _BATCH) and rows:
            yield pa.record_batch([*map(list, zip(*rows, strict=True)), positions], schema=schema)
            rows, positions = [], []
        if ended:
            raise ended
        if one is None:
            return
        found = _kept(one, width, keep, pad)
        if isinstance(found, str):
            tally.refuse_next(found)
        else:
            rows.append(found)
            positions.append(tally.rows)
            tally.rows += 1


_Record = tuple[str, list[str] | None, bool]


def _kept(one: _Record, width: int, keep: Sequence[int], pad: bool) -> list[str | None] | str:
    """The fields to keep, or why the record is refused."""
    raw, fields, bad = one
    if bad and (_DAMAGED in raw or _LONG in raw):
        return why_not_utf8(raw.encode(errors="surrogateescape"))
    while fields and len(fields) > width and not fields[-1]:
        fields.pop()
    if fields is None or len(fields) > width or (len(fields) < width and not pad):
        return MALFORMED
    kept = [(fields[i] or None) if i < len(fields) else None for i in keep]
    if bad and not is_utf8("".join(field or "" for field in kept).encode(errors="surrogateescape")):
        return NOT_UTF8
    return kept


def _records(chunks: Iterable[bytes], grammar: Grammar) -> Iterator[_Record]:
    """Every record as it is written, its fields if it is one, and whether it may hold what is not UTF-8."""
    text, bad = "", False
    behind: bytes | None = None  # the first wrong bytes, and what follows them
    ended: DamagedError | None = None
    source = blocks(chunks)
    while behind is None:
        try:
            block = next(source, None)
        except DamagedError as error:
            block, ended = None, error
        if block is not None:
            if DAMAGED_LINE in block:
                start = block.rfind(b"\n", 0, block.find(DAMAGED_LINE)) + 1
                block, behind = block[:start], block[start:]
            bad = (bad and bool(text)) or not is_utf8(block)
            text += block.decode(errors="surrogateescape")
        at = 0
        while at < len(text):
            if text.startswith(("\n", "\r\n"), at) or (at == len(text) - 1 and text[at] == "\r"):
                at = next_line(text, at)
                continue
            fields, after = grammar.record(text, at)
            if after < 0:
                if block is not None or ended:
                    break
                after = next_line(text, at)
            yield text[at:after], fields, bad
            at = after
        text = text[at:]
        if ended:
            raise ended
        if block is None:
            return
    # whether what follows begins within a quoted field, nothing tells
    if text:
        yield _DAMAGED, None, True
    for block in chain([behind], source):
        for line in block.split(b"\n"):
            if line.strip(b"\r"):
                yield _DAMAGED, None, True
