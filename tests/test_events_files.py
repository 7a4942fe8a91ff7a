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
    max_examples=60,
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
    path = write(
        tmp_path / ("x.csv.gz" if packed else "x.csv"), gzip.compress(content) if packed else content
    )
    assert found(engine, engine.read(path)) == (kept, refused)
    # only what is read must be in order
    kept_a, refused_a = found(engine, engine.read(path, {"a": "who"}))
    assert set(kept_a) >= set(kept)
    assert {at: row[:1] for at, row in kept.items()}.items() <= kept_a.items()
    assert refused_a.items() <= refused.items()


@pytest.mark.usefixtures("blocks")
@QUICK
@given(
    st.lists(
        st.sampled_from([b"a", b"b\tc", b"1\t2\t3", b"\xff", b" ", b"\r", b"\xc3\xa9\t", b""]), max_size=20
    ),
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
        st.sampled_from(
            [b'{"a": 1}', b'  {"a": "\xc3\xa9"} ', b"[1]", b"null", b"{", b"", b"  ", b'{"a": "\xff"}']
        ),
        max_size=20,
    )
)
def test_ndjson(engine: Engine, tmp_path: Path, raw: list[bytes]) -> None:
    rows = [line for line in raw if line.strip()]
    kept = {
        at: ("1" if b"1" in row else "é",)
        for at, row in enumerate(rows)
        if b"a" in row and b"\xff" not in row
    }
    refused = {
        at: "not UTF-8" if b"\xff" in row else "malformed row"
        for at, row in enumerate(rows)
        if at not in kept
    }
    path = write(tmp_path / "raw.ndjson", b"\n".join(raw))
    objects, same = found(engine, engine.read_objects(path))
    assert ({at: (str(json.loads(row[0])["a"]),) for at, row in objects.items()}, same) == (kept, refused)
    if kept:
        assert found(engine, engine.read(path)) == (kept, refused)
    else:
        with pytest.raises(DataError, match=r"raw\.ndjson: holds no JSON object"):
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


def test_a_line_without_end_is_refused(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    rows = [
        (f"v{i}", "".join(chance.choices('abcdefgh ,"\n', k=chance.randrange(1, 60))).strip())
        for i in range(N)
    ]
    if kind == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("who", "what"), *rows])
        return text.getvalue().encode(), [(who, what or None) for who, what in rows]
    if kind == "ndjson":
        return "".join(json.dumps({"who": a, "what": b}) + "\n" for a, b in rows).encode(), [
            (what, who) for who, what in rows
        ]
    words = [(who, what.replace("\n", " ")) for who, what in rows]
    return "".join(f"{who}\t{what}\n" for who, what in words).encode(), [
        (who, what or None) for who, what in words
    ]


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
    cuts = [
        0,
        1,
        5,
        12,
        30,
        len(packed) - 9,
        len(packed) - 1,
        *(chance.randrange(len(packed)) for _ in range(12)),
    ]
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
def test_what_follows_the_packed_data_is_refused(
    engine: Engine, tmp_path: Path, kind: str, pack: str
) -> None:
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
        except DataError:
            # without a right header, or one right object, there are no columns
            assert (kind, hit) in (("csv", 0), ("ndjson", 0))
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


def test_wrong_bytes_in_zstd_with_a_checksum(engine: Engine, tmp_path: Path) -> None:
    # by the command line tool, which writes a checksum, as pyarrow does not: {"n": 0} … {"n": 11}
    packed = bytes.fromhex(
        "28b52ffd04685d0100b07b226e223a20307d0a31323334353637383931317d0a0ba810f07a0eb013eb1024011e07de082a5d9301"
        "09369c63"
    )
    truth = [f'{{"n": {i}}}' for i in range(12)]
    path = write(tmp_path / "x.log.zst", packed)
    assert found(engine, engine.read_lines(path)) == (dict(enumerate(zip(truth, strict=True))), {})
    for at in range(len(packed)):
        bad = bytearray(packed)
        bad[at] ^= 0x10
        path = write(tmp_path / "x.log.zst", bytes(bad))
        try:
            kept, refused = found(engine, engine.read_lines(path))
        except DataError:
            assert at < 4  # of the mark that says that it is zstd
            engine.forget_raw()
        else:
            assert [row for (row,) in kept.values()] == truth[: len(kept)]
            assert refused or len(kept) == 12  # a flag that means nothing


@pytest.mark.parametrize(
    "name", ["x.csv.gz", "x.ndjson.gz", "x.log.gz", "x.csv.zst", "x.ndjson.zst", "x.log.zst"]
)
def test_what_is_not_packed_as_its_name_says_is_an_error(engine: Engine, tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, b"who,what\n1,2\n")
    with pytest.raises(
        DataError, match=f"{name}: cannot be read: it is not packed with (gzip|zstd), as its name says"
    ):
        engine.read_lines(path) if ".log" in name else engine.read(path)
    engine.forget_raw()


@pytest.mark.parametrize("pack", [".gz", ".zst"])
def test_what_is_packed_but_does_not_say_so_is_an_error(engine: Engine, tmp_path: Path, pack: str) -> None:
    path = write(tmp_path / "x.csv", PACK[pack](b"who,what\n1,2\n"))
    for read in (engine.read, engine.read_lines):
        with pytest.raises(DataError, match=rf"x\.csv: .* let its name end in \{pack}"):
            read(path)


# --- CSV headers ---


def test_csv_headers(engine: Engine, tmp_path: Path) -> None:
    for name, content, why in [
        ("empty.csv", b"", "not even a header line"),
        ("blank.csv", b"\n \n", "not even a header line"),
        ("twice.csv", b"who,what,who\n1,2,3\n", "names 'who' more than once"),
        ("x.csv.gz", gzip.compress(b""), "not even a header line"),
    ]:
        with pytest.raises(DataError, match=rf"{name}: .*{why}"):
            engine.read(write(tmp_path / name, content))
    path = write(tmp_path / "a.csv", b'\n\n "a;b" ; what;What;\n1;2;3;\n4;5;6\n"7;\n";8;9;\n')
    with pytest.raises(MissingColumnsError, match=r"a\.csv: no column 'who'; it has 'a;b', 'what', 'What'\."):
        engine.read(path, {"who": "visitor_id"})
    kept, refused = found(engine, engine.read(path, {"What": "page", "a;b": "visitor_id"}))
    assert (kept, refused) == ({0: ("3", "1"), 2: ("9", "7;\n")}, {1: "malformed row"})
    path = write(tmp_path / "b.csv", b'who\n1\n\n""\n2\n')
    assert found(engine, engine.read(path)) == ({0: ("1",), 1: (None,), 2: ("2",)}, {})
    path = write(tmp_path / "c.csv", b"a,b\r1,2\r3,4\r")
    assert found(engine, engine.read(path)) == ({0: ("1", "2"), 1: ("3", "4")}, {})
    path = write(tmp_path / "d.csv", b"a,b\n1,2\r\n3,4\n")
    assert found(engine, engine.read(path)) == ({0: ("1", "2"), 1: ("3", "4")}, {})
    path = write(tmp_path / "e.csv", b"a,b")
    assert found(engine, engine.read(path)) == ({}, {})


# --- Parquet ---


def table(n: int = 1000) -> pa.Table:
    chance = random.Random(1)
    return pa.table(
        {
            "who": [f"visitor-{chance.random()}" for _ in range(n)],
            "n": range(n),
            "hits": [[{"page": f"/{chance.random()}", "time": i}] for i in range(n)],
        }
    )


def use(engine: Engine, path: str, needed: dict[str, str] | None = None) -> Found:
    """As ingest does."""
    try:
        return found(engine, engine.read(path, needed))
    except duckdb.Error:
        engine.forget_raw()
        with engine.salvaging(), engine.reading(path):
            return found(engine, engine.read(path, needed))
    finally:
        engine.forget_raw()


@pytest.mark.parametrize("compression", ["snappy", "zstd", "gzip", "none"])
def test_row_groups_that_cannot_be_read_are_refused(engine: Engine, tmp_path: Path, compression: str) -> None:
    truth = [tuple(row.values()) for row in table().to_pylist()]
    pq.write_table(
        table(),
        tmp_path / "whole.parquet",
        row_group_size=300,
        compression=compression,
        write_page_checksum=True,
    )
    whole = (tmp_path / "whole.parquet").read_bytes()
    assert use(engine, str(tmp_path / "whole.parquet")) == (dict(enumerate(truth)), {})
    chance = random.Random(compression)
    for hit in range(4):
        group = pq.ParquetFile(tmp_path / "whole.parquet").metadata.row_group(hit)
        column = group.column(0)
        start = column.dictionary_page_offset or column.data_page_offset
        bad = bytearray(whole)
        for at in range(start + 60, start + column.total_compressed_size - 10, 7):
            bad[at] = chance.randrange(256)
        path = write(tmp_path / "x.parquet", bytes(bad))
        lost = range(hit * 300, min(1000, hit * 300 + 300))
        expected = (
            {at: row for at, row in enumerate(truth) if at not in lost},
            dict.fromkeys(lost, "unreadable row group"),
        )
        assert use(engine, path) == expected
        with engine.salvaging():
            assert found(engine, engine.read(path)) == expected
            kept, refused = found(engine, engine.read(path, {"n": "page"}))  # in another column
            assert (kept, refused) == ({i: (i,) for i in range(1000)}, {})


def test_damage_that_shows_late_is_an_error_of_duckdb_too(engine: Engine, tmp_path: Path) -> None:
    values = pa.array([f"{i * 7919 % 1_000_003}-{i}" for i in range(400_000)])
    pq.write_table(
        pa.table({"a": values}), tmp_path / "x.parquet", row_group_size=50_000, use_dictionary=False
    )
    column = pq.ParquetFile(tmp_path / "x.parquet").metadata.row_group(7).column(0)
    bad = bytearray((tmp_path / "x.parquet").read_bytes())
    start = column.data_page_offset + 100
    bad[start : start + 1000] = b"\xff" * 1000
    path = write(tmp_path / "x.parquet", bytes(bad))
    batches = engine.batches(engine.read(path).table, 10_000)
    with pytest.raises(duckdb.Error, match="Snappy decompression failure"):
        for batch in batches:
            assert batch.num_rows
    engine.forget_raw()


def test_one_wrong_byte_is_found_by_a_checksum_only(engine: Engine, tmp_path: Path) -> None:
    """DuckDB does not look at checksums; salvaging does."""
    pq.write_table(
        table(), tmp_path / "x.parquet", row_group_size=300, write_page_checksum=True, compression="none"
    )
    column = pq.ParquetFile(tmp_path / "x.parquet").metadata.row_group(1).column(1)
    bad = bytearray((tmp_path / "x.parquet").read_bytes())
    bad[column.data_page_offset + 80] ^= 1
    path = write(tmp_path / "x.parquet", bytes(bad))
    with engine.salvaging():
        kept, refused = found(engine, engine.read(path))
    assert (len(kept), set(refused)) == (700, set(range(300, 600)))


def test_text_in_parquet_that_is_not_utf8_is_refused_row_by_row(engine: Engine, tmp_path: Path) -> None:
    good = pa.array([f"v{i}".encode() for i in range(2000)])
    bad = good.to_pylist()
    for at in (0, 777, 1999):
        bad[at] = b"\xff\xfe"
    column = pa.array(bad)
    for name, values in (
        ("unmarked", column),
        ("marked", column.view(pa.string())),
        ("nested", pa.StructArray.from_arrays([column.view(pa.string())], ["x"])),
    ):
        pq.write_table(pa.table({"a": values}), tmp_path / f"{name}.parquet", row_group_size=900)
        kept, refused = use(engine, str(tmp_path / f"{name}.parquet"))
        assert refused == dict.fromkeys((0, 777, 1999), "not UTF-8")
        expected = {
            at: {"x": f"v{at}"} if name == "nested" else f"v{at}" for at in range(2000) if at not in refused
        }
        assert {at: row for at, (row,) in kept.items()} == expected


def test_parquet_that_cannot_be_read_at_all(engine: Engine, tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "x.parquet")
    whole = (tmp_path / "x.parquet").read_bytes()
    damaged = bytearray(whole)
    size = int.from_bytes(whole[-8:-4], "little")
    damaged[-8 - size : -8] = bytes(size)
    for name, content, why in [
        ("text.parquet", b"who,what\n", "is not a Parquet file"),
        ("empty.parquet", b"", "is not a Parquet file"),
        ("cut.parquet", whole[:-20], "is cut short"),
        ("half.parquet", whole[: len(whole) // 2], "is cut short"),
        ("footer.parquet", bytes(damaged), "cannot be read"),
    ]:
        path = write(tmp_path / name, content)
        for salvage in (False, True):
            with pytest.raises(DataError, match=f"{name}: {why}"):
                if salvage:
                    with engine.salvaging():
                        engine.read(path)
                else:
                    engine.read(path)
    with pytest.raises(
        MissingColumnsError, match=r"x\.parquet: no column 'client'; it has 'who', 'n', 'hits'"
    ):
        engine.read(str(tmp_path / "x.parquet"), {"client": "account_id"})
    engine.forget_raw()


def test_errors_do_not_quote_the_file(engine: Engine, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([b"secret\xff"])}), tmp_path / "x.parquet")
    with (
        pytest.raises(DataError, match="cannot be read") as error,
        engine.reading(str(tmp_path / "x.parquet")),
    ):
        engine.arrow(engine.read(str(tmp_path / "x.parquet")).table)
    assert "secret" not in str(error.value)
    engine.forget_raw()


# --- finding files ---


def test_names_that_mean_something_to_a_glob(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "day[1]"
    folder.mkdir()
    pq.write_table(pa.table({"a": ["1"]}), folder / "x?.parquet")
    write(folder / "x*.csv", b"a,b\n1,2\n")
    write(folder / "xy.csv", b"a,b\n3,4\n")
    assert found(engine, engine.read(str(folder / "x?.parquet"))) == ({0: ("1",)}, {})
    assert found(engine, engine.read(str(folder / "x*.csv"))) == ({0: ("1", "2")}, {})
    assert files.files(str(folder / "x*.csv")) == [str(folder / "x*.csv")]


def lay_out(root: Path) -> None:
    for name in (
        "b.csv",
        "a/2.ndjson.gz",
        "a/1.parquet",
        "a/_SUCCESS",
        "a/.x.csv",
        "_temporary/0.csv",
        "readme.md",
    ):
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_bytes(b"")
    for name in ("logs/access.log", "logs/access.log.2.gz", "odd/part-0", "odd/part-1.gz", "none/_x"):
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_bytes(b"")


FILES = [
    ("b.csv", ["b.csv"]),
    ("a", ["a/1.parquet", "a/2.ndjson.gz"]),
    ("a/*.parquet", ["a/1.parquet"]),
    ("**/*.csv", ["b.csv"]),
    ("logs", ["logs/access.log", "logs/access.log.2.gz"]),
    ("odd", ["odd/part-0", "odd/part-1.gz"]),
    ("o*/", ["odd/part-0", "odd/part-1.gz"]),
]


@pytest.mark.parametrize(("path", "expected"), FILES)
def test_a_path_means_files(tmp_path: Path, path: str, expected: list[str]) -> None:
    lay_out(tmp_path)
    (tmp_path / "_temporary/0.csv").unlink()
    (tmp_path / "a/.x.csv").unlink()
    assert files.files(str(tmp_path / path)) == [str(tmp_path / name) for name in expected]
    assert files.files(f"file://{tmp_path / path}") == [str(tmp_path / name) for name in expected]


def test_no_file(tmp_path: Path) -> None:
    lay_out(tmp_path)
    for path, why in (("absent.csv", "no such file"), ("none", "no such file"), ("*.x", "no file matches")):
        with pytest.raises(DataError, match=why):
            files.files(str(tmp_path / path))
    with pytest.raises(DataError, match=r"x\.docx: unknown kind of file"):
        files.file_format("x.docx")


@pytest.mark.parametrize(
    ("name", "kind", "packed"),
    [
        ("x.CSV", ".csv", None),
        ("x.csv.GZ", ".csv", "gzip"),
        ("x.ndjson.zst", ".ndjson", "zstd"),
        ("x.json.zstd", ".json", "zstd"),
        ("access.log.3.gz", ".log", "gzip"),
        ("part-0.snappy.parquet", ".parquet", None),
        ("https://h/x.csv.gz?sig=a.b", ".csv", "gzip"),
        ("s3://b/x?.csv", ".csv", None),
        ("dir.d/x", "", None),
    ],
)
def test_what_names_say(name: str, kind: str, packed: str | None) -> None:
    assert (files.suffix(name), files.packing(name)) == (kind, packed)


def test_content_hash(tmp_path: Path) -> None:
    a, b, c = (write(tmp_path / name, content) for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")))
    assert files.content_hash(a) == files.content_hash(b) != files.content_hash(c)
    fsspec.filesystem("memory").pipe("/hash/x", b"1")
    assert files.content_hash("memory://hash/x") == files.content_hash(a)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        files.content_hash(str(tmp_path / "d"))


# --- remote files ---


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("s3://bucket/day=1/x.csv", "s3://bucket/day=1/x.csv"),
        ("s3://KEY:SECRET@bucket/x@1.csv", "s3://bucket/x@1.csv"),
        ("https://user@host/x.csv?sig=SECRET#a", "https://host/x.csv"),
        ("https://host?sig=SECRET", "https://host"),
        ("abfs://box@account.dfs.core.windows.net/x.csv", "abfs://box@account.dfs.core.windows.net/x.csv"),
        ("sftp://user:SECRET@host/x.csv", "sftp://host/x.csv"),
        ("/a/b:c@d.csv", "/a/b:c@d.csv"),
    ],
)
def test_no_secret_of_an_address_is_told(path: str, said: str) -> None:
    assert remote.shown(path) == said


@pytest.mark.parametrize(
    ("path", "stripped", "name", "url"),
    [
        ("s3://bucket/a/*.csv", "bucket/a/*.csv", "bucket/a/x.csv", "s3://bucket/a/x.csv"),
        ("sftp://me:pw@host/a/*", "/a/*", "/a/x.csv", "sftp://me:pw@host/a/x.csv"),
        ("abfs://box@acc.dfs/a/", "box/a", "box/a/x.csv", "abfs://box@acc.dfs/a/x.csv"),
        ("az://box/a", "box/a", "box/a/x.csv", "az://box/a/x.csv"),
    ],
)
def test_a_file_found_in_a_remote_folder_has_a_url(path: str, stripped: str, name: str, url: str) -> None:
    class Fake:
        def _strip_protocol(self, path: str) -> str:
            return stripped

    assert remote._url(path, Fake(), name) == url


def test_remote_files_are_read_like_local_ones(engine: Engine, tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    pq.write_table(pa.table({"a": ["1", "2"]}), tmp_path / "x.parquet")
    for name, content in {
        "x.parquet": (tmp_path / "x.parquet").read_bytes(),
        "day=1/x.csv": b"a,b\n1,2\n3\n",
        "day=1/y.csv.gz": gzip.compress(b"a,b\n1,2\n" * 100)[:-8],
        "day=1/_SUCCESS": b"",
        "day=2/z.ndjson": b'{"a": 1}\n',
    }.items():
        fs.pipe(f"/bank/{name}", content)
    days = [f"memory://bank/day={name}" for name in ("1/x.csv", "1/y.csv.gz", "2/z.ndjson")]
    assert files.files("memory://bank") == [*days, "memory://bank/x.parquet"]
    assert files.files("memory://bank/day=*/") == days
    assert files.files("memory://bank/day=*/*.csv") == days[:1]
    assert files.files("memory://bank/x.parquet") == ["memory://bank/x.parquet"]
    assert found(engine, engine.read("memory://bank/x.parquet")) == ({0: ("1",), 1: ("2",)}, {})
    assert found(engine, engine.read(days[0])) == ({0: ("1", "2")}, {1: "malformed row"})
    kept, refused = found(engine, engine.read(days[1]))
    assert refused[len(kept)].startswith(CUT)
    assert found(engine, engine.read_objects(days[2])) == ({0: ('{"a": 1}',)}, {})
    for path, why in (("memory://bank/no.csv", "no such file"), ("memory://bank/*.no", "no file matches")):
        with pytest.raises(DataError, match=why):
            files.files(path)
    with pytest.raises(DataError, match=r"memory://bank/no\.csv: no such file"):
        engine.read("memory://bank/no.csv")


def test_a_copy_of_a_remote_file_is_made_once_and_deleted(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.filesystem("memory").pipe("/bank/x.csv", b"a,b\n1,2\n")
    copied: list[str] = []
    blocks = remote.blocks
    monkeypatch.setattr(remote, "blocks", lambda path: copied.append(path) or blocks(path))
    engine.read("memory://bank/x.csv")
    copy = engine.local("memory://bank/x.csv")
    assert copy.read_bytes() == b"a,b\n1,2\n"
    assert copied == ["memory://bank/x.csv"]
    engine.forget_raw()
    assert not copy.exists()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str) -> None:
        try:
            raise ModuleNotFoundError("No module named 's3fs'", name="s3fs")
        except ModuleNotFoundError as error:
            raise ImportError("Install s3fs to access S3") from error

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(MissingDependencyError, match=r"s3://bank/x: .*pip install 's3fs'"):
        files.files("s3://KEY:SECRET@bank/x")


def test_errors_of_a_remote_place_name_the_file_and_no_secret(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: str) -> None:
        raise PermissionError(f"403 for {path}?sig=SECRET")

    monkeypatch.setattr(fsspec.core, "url_to_fs", denied)
    with pytest.raises(DataError, match=r"https://host/x\.csv: cannot be read: PermissionError") as error:
        engine.read("https://host/x.csv?sig=SECRET")
    assert "SECRET" not in str(error.value)
    with pytest.raises(DataError, match="nope://x: cannot be read: ValueError"):
        monkeypatch.undo()
        files.files("nope://x")
    engine.forget_raw()
