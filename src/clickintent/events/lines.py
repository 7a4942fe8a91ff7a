"""Text cut into lines, as Arrow, with the place of every one that is refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickintent.events.unpack import DAMAGED_LINE, LONG_LINE, DamagedError

MALFORMED = "malformed row"
NOT_UTF8 = "not UTF-8"
DAMAGED = "damaged data"
LONG = "row longer than 16 MB"

#: Name of the row number that the readers of this module add, from 0.
POSITION = "_position"

_BLOCK = 8 << 20
_LONGEST_LINE = 16 << 20

LINES = pa.schema([("line", pa.string()), (POSITION, pa.int64())])


@dataclass(frozen=True, slots=True)
class Refused:
    """Rows of a file that could not be read."""

    position: int  # of the first, in the file, from 0
    reason: str
    rows: int = 1


@dataclass
class Tally:
    """Counts the rows of a file while they stream by, and gathers those that are refused."""

    rows: int = 0
    _refused: list[Refused] = field(default_factory=list)

    def refuse(self, position: int, reason: str, rows: int = 1) -> None:
        """Refuse ``rows`` rows from ``position`` on."""
        last = self._refused[-1] if self._refused else None
        if last and last.reason == reason and last.position + last.rows == position:
            self._refused[-1] = Refused(last.position, reason, last.rows + rows)
        else:
            self._refused.append(Refused(position, reason, rows))

    def refuse_next(self, reason: str) -> None:
        """Count one more row, and refuse it."""
        self.refuse(self.rows, reason)
        self.rows += 1

    def refused(self) -> tuple[Refused, ...]:
        """What was refused, in order; neighbours for the same reason as one."""
        found = Tally()
        for one in sorted(self._refused, key=lambda r: r.position):
            found.refuse(one.position, one.reason, one.rows)
        return tuple(found._refused)


def blocks(chunks: Iterable[bytes], size: int | None = None) -> Iterator[bytes]:
    """The same bytes in blocks of whole lines; a line that is too long becomes ``LONG_LINE``.

    Old Mac text, which ends lines with a carriage return alone, gets line feeds.

    Raises:
        DamagedError: if ``chunks`` does, after all whole lines; what follows them is dropped.
    """
    size = _BLOCK if size is None else size
    waiting: list[bytes] = []
    length = 0
    skipping = False  # the rest of a line that is too long
    mac: bool | None = None
    try:
        for chunk in chunks:
            if mac is None and chunk:
                mac = b"\r" in chunk[:-1] and b"\n" not in chunk
            if mac:
                chunk = chunk.replace(b"\r", b"\n")
            if skipping:
                end = chunk.find(b"\n")
                if end < 0:
                    continue
                chunk, skipping = chunk[end:], False
            waiting.append(chunk)
            length += len(chunk)
            if length < size:
                continue
            whole, rest = _whole_lines(waiting)
            if whole:
                yield whole
            waiting, length = [rest], len(rest)
            if length > _LONGEST_LINE:
                waiting, length, skipping = [LONG_LINE], len(LONG_LINE), True
    except DamagedError:
        whole, _ = _whole_lines(waiting)
        if whole:
            yield whole
        raise
    if last := b"".join(waiting):
        yield last


def lines(
    chunks: Iterable[bytes], tally: Tally, *, blank: bool = False
) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Lines and their positions, in blocks. Empty lines do not count; those that are no UTF-8 are refused.

    Args:
        blank: lines of nothing but white space do not count either.

    Raises:
        DamagedError: if ``chunks`` does, after all whole lines.
    """
    for block in blocks(chunks):
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n").removesuffix(b"\r")
        bad = not is_utf8(block)
        if bad:
            block, bad_at = _without_bad(block, blank)
        offsets = pa.py_buffer(np.array([0, len(block)], np.int32))
        text = pa.StringArray.from_buffers(1, offsets, pa.py_buffer(block))
        found = pc.split_pattern(text, "\n").values
        there = pc.utf8_trim_whitespace(found) if blank else found
        found = found.filter(pc.greater(pc.binary_length(there), 0))
        positions = np.arange(tally.rows, tally.rows + len(found))
        if bad:
            positions = np.delete(np.arange(tally.rows, tally.rows + len(found) + len(bad_at)), list(bad_at))
            for at, reason in bad_at.items():
                tally.refuse(tally.rows + at, reason)
            tally.rows += len(bad_at)
        tally.rows += len(found)
        yield found, pa.array(positions, pa.int64())


def line_batches(chunks: Iterable[bytes], tally: Tally, *, blank: bool = False) -> Iterator[pa.RecordBatch]:
    """Record batches of ``LINES``. See ``lines``."""
    for found, positions in lines(chunks, tally, blank=blank):
        yield pa.record_batch([found, positions], schema=LINES)


def delimited_batches(
    chunks: Iterable[bytes], tally: Tally, delimiter: str, fields: range
) -> Iterator[pa.RecordBatch]:
    """Record batches of ``LINES`` with a number of fields that is in ``fields``; others are refused."""
    for found, positions in lines(chunks, tally):
        number = pc.add(pc.count_substring(found, delimiter), 1)
        fits = pc.and_(pc.greater_equal(number, fields.start), pc.less(number, fields.stop))
        for at in positions.filter(pc.invert(fits)).to_pylist():
            tally.refuse(at, MALFORMED)
        yield pa.record_batch([found.filter(fits), positions.filter(fits)], schema=LINES)


def is_utf8(content: bytes) -> bool:
    """Whether bytes are valid UTF-8."""
    try:
        return content.isascii() or bool(content.decode()) or True
    except UnicodeDecodeError:
        return False


def why_not_utf8(line: bytes) -> str:
    """The reason to refuse a line that is not UTF-8."""
    return DAMAGED if DAMAGED_LINE in line else LONG if LONG_LINE in line else NOT_UTF8


def _without_bad(block: bytes, blank: bool) -> tuple[bytes, dict[int, str]]:
    """The block without the lines that are not UTF-8, and these: their place among those that count → why."""
    good = []
    bad = {}
    at = 0
    for line in block.split(b"\n"):
        if not is_utf8(line):
            bad[at] = why_not_utf8(line)
        elif not line or (blank and not line.decode().strip()):
            continue
        else:
            good.append(line)
        at += 1
    return b"\n".join(good), bad


def _whole_lines(waiting: list[bytes]) -> tuple[bytes, bytes]:
    block = b"".join(waiting)
    cut = block.rfind(b"\n") + 1
    return block[:cut], block[cut:]
