"""The text of a raw file as UTF-8 bytes: unpacked, verified and transcoded as it streams by.

DuckDB unpacks too, but takes a file that was cut short for a whole one, and ignores the checksum of gzip.

What a damaged file still yields: of one that is **cut short**, everything before the cut. Of one whose bytes
are **wrong**, only what a checksum vouches for: a changed byte seldom makes the packed data invalid, it makes
wrong text of what follows, and nothing tells from where on. So all rows of a gzip member (most files have
one, concatenated ones many) that does not fit its checksum are refused, and those of a zstd file from its
start. zstd files need not have checksums; in those without, wrong bytes may go unnoticed, whoever unpacks.
"""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Generator, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO

import pyarrow as pa

_BLOCK = 1 << 20
_PACKED_BLOCK = 1 << 16

#: Stand for a line that cannot be trusted, or is too long to read. No UTF-8 text holds these bytes.
DAMAGED_LINE = b"\xfe\xffdamaged"
LONG_LINE = b"\xfe\xfflong"

_STOPS = "the packed data stop in the middle"
_WRONG = "the packed data are damaged"
_BEHIND = "something else follows the packed data"


class DamagedError(Exception):
    """The file ends here, early; what was yielded before is all that it has."""


class WrongError(DamagedError):
    """Some of what was yielded is not what was packed, and more may follow: read again, salvaging."""


#: Bytes, or the verdict on all bytes since the last verdict: whether they are what was packed.
_Event = bytes | bool


def text(path: Path, packing: str | None, *, salvage: bool = False) -> Iterator[bytes]:
    """The file as UTF-8, in blocks of any size, without a byte order mark.

    Args:
        packing: ``gzip``, ``zstd`` or None.
        salvage: write ``DAMAGED_LINE`` instead of every line that cannot be trusted, and go on behind it. The
            file is read twice.

    Raises:
        WrongError: if wrong bytes were yielded, which does not happen when salvaging.
        DamagedError: at the end of what there is, if the file is cut short or damaged.
        UnicodeError: if the encoding is one that is not read.
        OSError: if the file cannot be read, or is not packed at all.
    """
    return _utf8(_judged(path, packing) if salvage else _unjudged(_events(path, packing)))


def is_plain_utf8(path: Path, packing: str | None) -> bool:
    """Whether the bytes of the file are its text already."""
    if packing:
        return False
    with path.open("rb") as file:
        return not file.read(4).startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE))


def _events(path: Path, packing: str | None) -> Iterator[_Event]:
    return {"gzip": _gzip, "zstd": _zstd}.get(packing or "", _plain)(path)


def _plain(path: Path) -> Iterator[_Event]:
    with path.open("rb") as file:
        start = file.read(4)
        for magic, name, suffix in ((b"\x1f\x8b", "gzip", ".gz"), (b"\x28\xb5\x2f\xfd", "zstd", ".zst")):
            if start.startswith(magic):
                raise OSError(f"it is packed with {name}; let its name end in {suffix}")
        file.seek(0)
        while block := file.read(_BLOCK):
            yield block


def _gzip(path: Path) -> Iterator[_Event]:
    """Member after member, each with its verdict; zeros may pad the end."""
    with path.open("rb") as file:
        block = file.read(_PACKED_BLOCK)
        if not block:
            raise DamagedError("it is empty")
        first = True
        while block:
            block = yield from _member(file, block, first)
            first = False
            while not (block := block.lstrip(b"\0")):
                block = file.read(_PACKED_BLOCK)
                if not block:
                    return


def _member(file: IO[bytes], block: bytes, first: bool) -> Generator[_Event, None, bytes]:
    """One member, which starts with ``block``; returns what was read behind it."""
    decoder = zlib.decompressobj(wbits=31)
    while True:
        before = decoder.copy()
        try:
            data = decoder.decompress(block)
        except zlib.error as error:
            why = str(error)
            if "header" in why or "method" in why:  # there is no member here
                if first:
                    raise OSError("it is not packed with gzip, as its name says") from None
                raise DamagedError(_BEHIND) from None
            return (yield from _broken(file, before, block, why))
        yield data
        if decoder.eof:
            yield True
            return bytes(decoder.unused_data)
        block = file.read(_PACKED_BLOCK)
        if not block:
            raise DamagedError(_STOPS)


def _broken(
    file: IO[bytes], decoder: zlib._Decompress, block: bytes, why: str
) -> Generator[_Event, None, bytes]:
    """The end of a damaged member, and the verdict."""
    found = []
    at = 0
    try:
        while True:
            found.append(decoder.decompress(block[at : at + 1]))
            at += 1
    except zlib.error:
        yield b"".join(found)
    yield False
    if "check" not in why:
        raise DamagedError(_WRONG)
    # the member came to its end, and only its content is wrong: the next one may be sound
    rest = block[at + 1 :]
    if "data check" in why:  # the length is still to come
        rest += file.read(4)
        rest = rest[4:]
    return rest or file.read(_PACKED_BLOCK) or b"\0"


def _zstd(path: Path, skip: int = 0, step: int = _BLOCK) -> Iterator[_Event]:
    with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
        at = 0
        while at < skip:
            at += len(stream.read(min(_BLOCK, skip - at)))
        while True:
            try:
                block = stream.read(step)
            except OSError as error:
                why = str(error)
                break
            if not block:
                if at == 0 and path.stat().st_size == 0:
                    raise DamagedError("it is empty")
                yield True
                return
            yield block
            at += len(block)
    if step > 1:
        # what the failed call had unpacked is lost: take smaller steps from there
        yield from _zstd(path, at, step >> 10)
    elif "Truncated" in why:
        raise DamagedError(_STOPS)
    elif "Unknown frame" in why:
        if at == 0:
            raise OSError("it is not packed with zstd, as its name says")
        yield True
        raise DamagedError(_BEHIND)
    else:
        yield False
        raise DamagedError(_WRONG)


#: Bytes, and whether they can be trusted.
_Piece = tuple[bytes, bool]


def _unjudged(events: Iterable[_Event]) -> Iterator[_Piece]:
    for event in events:
        if isinstance(event, bytes):
            yield event, True
        elif not event:
            raise WrongError(_WRONG)


def _judged(path: Path, packing: str | None) -> Iterator[_Piece]:
    bad = _bad(path, packing)
    at = 0
    for event in _events(path, packing):
        if not isinstance(event, bytes):
            continue
        start, end = at, at + len(event)
        for low, high in bad:
            if low < end and high > at:
                yield event[at - start : max(low, at) - start], True
                yield event[max(low, at) - start : min(high, end) - start], False
                at = min(high, end)
        yield event[at - start :], True
        at = end


def _bad(path: Path, packing: str | None) -> list[tuple[int, int]]:
    """Where, in the unpacked file, the bytes are wrong."""
    bad = []
    at = judged = 0
    try:
        for event in _events(path, packing):
            if isinstance(event, bytes):
                at += len(event)
                continue
            if not event:
                bad.append((judged, at))
            judged = at
    except DamagedError:
        pass  # it comes again when the file is read
    return bad


def _utf8(pieces: Iterator[_Piece]) -> Iterator[bytes]:
    start: list[_Piece] = []
    ended: DamagedError | None = None
    try:
        while sum(len(block) for block, _ in start) < 4:
            start.append(next(pieces))
    except StopIteration:
        pass
    except DamagedError as error:
        ended = error
    mark = b"".join(block for block, _ in start)[:4]
    if mark.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise UnicodeError("it is UTF-32; convert it to UTF-8")
    wide = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}.get(mark[:2])
    skip = 3 if mark.startswith(codecs.BOM_UTF8) else 2 if wide else 0
    # half a surrogate pair becomes bytes that are no UTF-8, and its line is refused for that
    decoder = codecs.getincrementaldecoder(wide)("surrogatepass") if wide else None
    for block, sound in chain(start, pieces):
        if skip:
            block, skip = block[skip:], max(0, skip - len(block))
        if decoder:
            block = decoder.decode(block).encode("utf-8", "surrogatepass")
        yield block if sound else re.sub(rb"[^\r\n]+", DAMAGED_LINE, block)
    if ended:
        raise ended
    if decoder and decoder.getstate()[0]:
        raise DamagedError("it stops in the middle of a character")
