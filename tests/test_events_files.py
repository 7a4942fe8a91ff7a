"""Raw files, sound and damaged: what is read, what is refused, and at which position."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from clickintent.errors import DataError, MissingColumnsError, MissingDependencyError
from clickintent.events import files, lines, remote, unpack
from clickintent.events.engine import POSITION, Engine, Rows, open_engine

CUT = "file ends early"
QUICK = settings(
    deadline=None,
    max_examples=150,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with open_engine(tmp_path_factory.mktemp("scratch"), threads=2) as opened:
        yield opened


@pytest.fixture(params=["usual blocks", "small blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few bytes: every line is somewhere cut in two."""
    if request.param == "small blocks":
        monkeypatch.setattr(unpack, "_BLOCK", 7)
        monkeypatch.setattr(unpack, "_PACKED_BLOCK", 5)
        monkeypatch.setattr(lines, "_BLOCK", 11)


Found = tuple[dict[int, tuple[Any, ...]], dict[int, str]]


def found(engine: Engine, rows: Rows) -> Found:
    """Position → the fields, and position → why not; every position once, none left out."""
    table = engine.arrow(rows.table.order_by(POSITION))
    columns = [table[name].to_pylist() for name in table.column_names if name != POSITION]
    kept = dict(zip(table[POSITION].to_pylist(), zip(*columns, strict=True), strict=True))
    refused = {r.position + i: r.reason for r in rows.refused for i in range(r.rows)}
    assert len(refused) == sum(r.rows for r in rows.refused)
    assert len(kept) == table.num_rows
    assert sorted([*kept, *refused]) == list(range(len(kept) + len(refused)))
    engine.forget_raw()
    assert not [path for path in engine.scratch.rglob("*") if path.is_file()]
    return kept, refused


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def zst(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


PACK: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zst}

# --- text that is in order, and text that is not ---


def reference(text: str, width: int) -> Found:
    """Records as Python's csv module reads them; a line where none begins is refused."""
    kept: dict[int, tuple[Any, ...]] = {}
    refused: dict[int, str] = {}
    todo = text.splitlines(keepends=True)
    position = 0
    while todo:
        if not todo[0].strip("\r\n"):
            todo.pop(0)
            continue
        fields, used = None, 1
        for used in range(1, len(todo) + 1):
            try:
                (fields,) = csv.reader(io.StringIO("".join(todo[:used]), newline=""), strict=True)
            except csv.Error as error:
                if "unexpected end of data" in str(error):
                    continue
                used = 1
            break
        else:
            used = 1
        while fields and len(fields) > width and not fields[-1]:
            fields.pop()  # delimiters at the end of the line
        if fields and len(fields) == width:
            kept[position] = tuple(field or None for field in fields)
        else:
            refused[position] = "malformed row"
        del todo[:used]
        position += 1
    return kept, refused


@pytest.mark.usefixtures("blocks")
@QUICK
@given(st.lists(st.sampled_from(["a", "b", ",", ",", '"', '""', "\n", "\n", "é"]), max_size=40).map("".join))
@example('1,2\n"x\ny",3\n4\n"p\n\nq",5\n6,7,8\n')
@example('1,2\n5,"z\n6,7\n8,9\n')
@example('1,2\n5,"z\n6,7\n8,"9"\n')
@example('1,"2\n')
@example('1,2,\n"",\n,\n\n\n1\n')
def test_csv_is_read_like_python_does(engine: Engine, tmp_path: Path, text: str) -> None:
    expected = reference(text, 2)
    path = write(tmp_path / "raw.csv", b"h,i\n" + text.encode())
    assert found(engine, engine.read(path)) == expected
    path = write(tmp_path / "crlf.csv", b"h,i\r\n" + text.replace("\n", "\r\n").encode())
    kept, refused = found(engine, engine.read(path))
    same = {at: tuple(f and f.replace("\r\n", "\n") for f in row) for at, row in kept.items()}
    assert (same, refused) == expected
    path = write(tmp_path / "raw.txt", text.encode())
    assert found(engine, engine.read_delimited(path, ["a", "b"], delimiter=",", quote='"')) == expected


GOOD = st.tuples(*[st.text(st.sampled_from('ab ,"\n'), max_size=6).map(str.strip)] * 3)
#: No record begins with these, and no quote of another row can close theirs.
BROKEN = st.sampled_from(
    [b"x", b"x,y", b"x,y,z,w", b'x,"y"z,w', b'"x"" ,y,z"', b"x,y,\xff", b"\xfe\xff,y,z", b"x,y\xc3,z"]
)


@pytest.mark.usefixtures("blocks")
@QUICK
@given(st.lists(GOOD | BROKEN, max_size=12), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_broken_rows_are_refused_where_they_are(
    engine: Engine, tmp_path: Path, rows: list[tuple[str, ...] | bytes], end: bytes, packed: bool
) -> None:
    content = b"a,b,c" + end
    kept: dict[int, tuple[Any, ...]] = {}
    refused: dict[int, str] = {}
    for position, row in enumerate(rows):
        if isinstance(row, bytes):
            content += row + end
            sound = row.decode(errors="ignore").encode() == row
            refused[position] = "malformed row" if sound else "not UTF-8"
        else:
            line = io.StringIO()
            csv.writer(line, lineterminator="", quoting=csv.QUOTE_ALL).writerow(row)
            content += line.getvalue().encode() + end
            kept[position] = tuple(field or None for field in row)
    path = write(tmp_path / ("x.csv.gz" if packed else "x.csv"), gzip.compress(content) if packed else content)
    assert found(engine, engine.read(path)) == (kept, refused)
    # only what is read must be in order
    kept_a, refused_a = found(engine, engine.read(path, {"a": "who"}))
    assert set(kept_a) >= set(kept)
    assert {at: row[:1] for at, row in kept.items()}.items() <= kept_a.items()
    assert refused_a.items() <= refused.items()


@pytest.mark.usefixtures("blocks")
@QUICK
@given(
    st.lists(st.sampled_from([b"a", b"b\tc", b"1\t2\t3", b"\xff", b" ", b"\r", b"\xc3\xa9\t", b""]), max_size=20),
    st.sampled_from([b"\n", b"\r\n"]),
    st.booleans(),
)
def test_lines_and_unquoted_text(
    engine: Engine, tmp_path: Path, raw: list[bytes], end: bytes, last_ends: bool
) -> None:
    content = end.join(raw) + (end if last_ends else b"")
    # what counts: lines of something, without the carriage return that belongs to the line's end
    rows = [row for line in content.split(b"\n") if (row := line.removesuffix(b"\r"))]
    if b"\n" not in content and b"\r" in content[:-1]:
        rows = [row for row in content.split(b"\r") if row]  # old Mac
    good = {at: row.decode() for at, row in enumerate(rows) if b"\xff" not in row}
    not_utf8 = {at: "not UTF-8" for at, row in enumerate(rows) if b"\xff" in row}
    path = write(tmp_path / "raw.log", content)
    assert found(engine, engine.read_lines(path)) == ({at: (row,) for at, row in good.items()}, not_utf8)
    for pad in (False, True):
        kept: dict[int, tuple[Any, ...]] = {}
        refused = dict(not_utf8)
        for at, row in good.items():
            fields = [field or None for field in row.split("\t")]
            if len(fields) == 2 or (pad and len(fields) == 1):
                kept[at] = (*fields, *[None] * (2 - len(fields)))
            else:
                refused[at] = "malformed row"
        assert found(engine, engine.read_delimited(path, ["a", "b"], pad=pad)) == (kept, refused)


@pytest.mark.usefixtures("blocks")
@QUICK
@given(
    st.lists(
        st.sampled_from([b'{"a": 1}', b'  {"a": "\xc3\xa9"} ', b"[1]", b"null", b"{", b"", b"  ", b'{"a": "\xff"}']),
        max_size=20,
    )
)
def test_ndjson(engine: Engine, tmp_path: Path, raw: list[bytes]) -> None:
    rows = [line for line in raw if line.strip()]
    kept = {at: ("1" if b"1" in row else "é",) for at, row in enumerate(rows) if b"a" in row and b"\xff" not in row}
    refused = {
        at: "not UTF-8" if b"\xff" in row else "malformed row" for at, row in enumerate(rows) if at not in kept
    }
    path = write(tmp_path / "raw.ndjson", b"\n".join(raw))
    objects, same = found(engine, engine.read_objects(path))
    assert ({at: (str(json.loads(row[0])["a"]),) for at, row in objects.items()}, same) == (kept, refused)
    if kept:
        assert found(engine, engine.read(path)) == (kept, refused)
    else:
        with pytest.raises(DataError, match="raw.ndjson: holds no JSON object"):
            engine.read(path)


# --- encodings ---


@pytest.mark.parametrize("pack", PACK)
@pytest.mark.parametrize(
    ("encoding", "mark"), [("utf-8", b"\xef\xbb\xbf"), ("utf-16-le", b"\xff\xfe"), ("utf-16-be", b"\xfe\xff")]
)
@pytest.mark.usefixtures("blocks")
def test_byte_order_marks_say_how_text_is_encoded(
    engine: Engine, tmp_path: Path, pack: str, encoding: str, mark: bytes
) -> None:
    text = "a,b\n1,é\n2,€😀\n"
    path = write(tmp_path / f"x.csv{pack}", PACK[pack](mark + text.encode(encoding)))
    assert found(engine, engine.read(path)) == ({0: ("1", "é"), 1: ("2", "€😀")}, {})
    assert found(engine, engine.read_lines(path))[0] == dict(enumerate(zip(text.split(), strict=True)))


def test_wrong_utf16(engine: Engine, tmp_path: Path) -> None:
    lone = "one\n".encode("utf-16") + b"\x00\xd8" + "\ntwo\n".encode("utf-16-le")
    path = write(tmp_path / "x.log", lone)
    assert found(engine, engine.read_lines(path)) == ({0: ("one",), 2: ("two",)}, {1: "not UTF-8"})
    path = write(tmp_path / "y.log", "one\ntwo".encode("utf-16")[:-1])
    assert found(engine, engine.read_lines(path)) == (
        {0: ("one",)},
        {1: "file ends early: it stops in the middle of a character"},
    )


def test_encodings_are_not_guessed(engine: Engine, tmp_path: Path) -> None:
    for name, content, why in [
        ("latin.csv", "prénom,b\n1,2\n".encode("latin-1"), "header line is not UTF-8"),
        ("wide.csv", "a,b\n1,2\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        ("wider.csv", "a,b\n1,2\n".encode("utf-32"), "UTF-32; convert it to UTF-8"),
    ]:
        with pytest.raises(DataError, match=rf"{name}: .*{why}"):
            engine.read(write(tmp_path / name, content))


def test_a_line_without_end_is_refused(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_BLOCK", 50)
    monkeypatch.setattr(lines, "_LONGEST_LINE", 100)
    monkeypatch.setattr(unpack, "_BLOCK", 10)
    content = b"one\n" + b"x" * 1000 + b"\ntwo\n" + b"y" * 1000
    path = write(tmp_path / "x.log", content)
    long = "row longer than 16 MB"
    assert found(engine, engine.read_lines(path)) == ({0: ("one",), 2: ("two",)}, {1: long, 3: long})


# --- packed files that are damaged ---

N = 300


def rows_of(kind: str) -> tuple[bytes, list[tuple[Any, ...]]]:
    """A file's text and its rows."""
    chance = random.Random(7)
    rows = [(f"v{i}", "".join(chance.choices('abcdefgh ,"\n', k=chance.randrange(1, 60))).strip()) for i in range(N)]
    if kind == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("who", "what"), *rows])
        return text.getvalue().encode(), [(who, what or None) for who, what in rows]
    if kind == "ndjson":
        return "".join(json.dumps({"who": a, "what": b}) + "\n" for a, b in rows).encode(), [
            (what, who) for who, what in rows
        ]
    words = [(who, what.replace("\n", " ")) for who, what in rows]
    return "".join(f"{who}\t{what}\n" for who, what in words).encode(), [(who, what or None) for who, what in words]


READ: dict[str, Callable[[Engine, str], Rows]] = {
    "csv": lambda engine, path: engine.read(path),
    "ndjson": lambda engine, path: engine.read(path),
    "tsv": lambda engine, path: engine.read_delimited(path, ["who", "what"]),
    "log": lambda engine, path: engine.read_lines(path),
}


def members(text: bytes, pack: str, n: int) -> list[bytes]:
    """The text, packed in ``n`` parts whose concatenation is a file."""
    size = len(text) // n + 1
    return [PACK[pack](text[at : at + size]) for at in range(0, len(text), size)]


def unpacked(content: bytes, pack: str) -> bytes:
    """What a patient reader gets out of a file that was cut short."""
    out = b""
    if pack == ".gz":
        while content:
            decoder = zlib.decompressobj(31)
            out += decoder.decompress(content)
            content = decoder.unused_data
        return out
    stream = pa.CompressedInputStream(pa.BufferReader(content), "zstd")
    try:
        while byte := stream.read(1):
            out += byte
    except OSError:
        pass
    return out


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("pack", [".gz", ".zst"])
@pytest.mark.parametrize("kind", READ)
def test_of_a_file_that_was_cut_short_every_whole_row_stays(
    engine: Engine, tmp_path: Path, kind: str, pack: str, n: int
) -> None:
    text, truth = rows_of(kind)
    if kind == "log":
        truth = [(line,) for line in text.decode().splitlines()]
    packed = b"".join(members(text, pack, n))
    chance = random.Random(n)
    cuts = [0, 1, 5, 12, 30, len(packed) - 9, len(packed) - 1, *(chance.randrange(len(packed)) for _ in range(12))]
    for cut in cuts:
        path = write(tmp_path / f"x.{kind}{pack}", packed[:cut])
        there = unpacked(packed[:cut], pack)
        if kind in ("csv", "ndjson") and there.count(b"\n") == 0:
            with pytest.raises(DataError, match=rf"x\.{kind}{pack}: (is empty|no row can be read)"):
                READ[kind](engine, path)
            engine.forget_raw()
            continue
        kept, refused = found(engine, READ[kind](engine, path))
        assert kept == dict(enumerate(truth[: len(kept)]))
        if kind == "csv":
            whole = next(i for i in range(N, -1, -1) if len(_csv_text(truth[:i])) <= len(there))
        else:
            whole = there.count(b"\n")
        at_a_seam = n > 1 and cut in {sum(map(len, members(text, pack, n)[:i])) for i in range(1, n)}
        assert len(kept) == whole
        if not at_a_seam:
            assert list(refused) == [whole]
            assert refused[whole].startswith(CUT)


def _csv_text(rows: list[tuple[Any, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("who", "what"), *rows])
    return text.getvalue().encode()


@pytest.mark.parametrize("pack", [".gz", ".zst"])
@pytest.mark.parametrize("kind", READ)
def test_what_follows_the_packed_data_is_refused(engine: Engine, tmp_path: Path, kind: str, pack: str) -> None:
    text, truth = rows_of(kind)
    n = text.count(b"\n") if kind == "log" else len(truth)
    path = write(tmp_path / f"x.{kind}{pack}", PACK[pack](text) + b"something else")
    kept, refused = found(engine, READ[kind](engine, path))
    assert len(kept) == n
    assert refused == {n: f"{CUT}: something else follows the packed data"}
    if pack == ".gz":
        path = write(tmp_path / f"x.{kind}{pack}", PACK[pack](text) + b"\0" * 1000)  # padding is nothing
        assert found(engine, READ[kind](engine, path)) == (kept, {})


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("n", [1, 5])
def test_of_wrong_bytes_only_what_a_checksum_vouches_for_stays(
    engine: Engine, tmp_path: Path, kind: str, n: int
) -> None:
    text, truth = rows_of(kind)
    if kind == "log":
        truth = [(line,) for line in text.decode().splitlines()]
    parts = members(text, ".gz", n)
    chance = random.Random(n)
    went_on = 0
    for _ in range(25):
        hit = chance.randrange(n)
        bad = bytearray(parts[hit])
        bad[chance.randrange(10, len(bad))] ^= 1 << chance.randrange(8)
        path = write(tmp_path / f"x.{kind}.gz", b"".join([*parts[:hit], bytes(bad), *parts[hit + 1 :]]))
        before = b"".join(map(gzip.decompress, parts[:hit]))
        try:
            kept, refused = found(engine, READ[kind](engine, path))
        except DataError as error:
            # without a right header, or one right object, there are no columns
            assert hit == 0
            assert kind == "csv" or "x.ndjson.gz: no row can be read" in str(error)
            engine.forget_raw()
            continue
        # all that was before, nothing that was never written
        assert set(kept.values()) <= set(truth)
        first = min(refused)
        assert [kept[at] for at in range(first)] == truth[:first]
        assert all(why == "damaged data" or why.startswith(CUT) for why in refused.values())
        if kind == "csv":
            assert len(kept) == first
        else:
            assert first == before.count(b"\n")
            if n > 1 and not any(why.startswith(CUT) for why in refused.values()):
                behind = b"".join(map(gzip.decompress, parts[hit + 1 :])).count(b"\n")
                assert behind - 1 <= len(kept) - first <= behind
                went_on += behind
    assert went_on or n == 1 or kind == "csv"
