"""Sessions as callers have them: whatever holds the same values gives the same vectors, or a clear error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import factories
from clickintent import SessionEncoder, visitor_history
from clickintent.config import EncoderConfig
from clickintent.errors import DataError, MissingColumnsError

pytestmark = pytest.mark.usefixtures("quick_export")

SMALL = EncoderConfig(
    dim=16, width=32, layers=1, heads=2, text_dim=16, text_buckets=512, epochs=1, min_page_count=2
)
TABLE = factories.themed_sessions(120)
EVENTS = TABLE["events"].combine_chunks()


@pytest.fixture(scope="module")
def encoder() -> SessionEncoder:
    return SessionEncoder(SMALL).fit(TABLE)


def with_field(name: str, change: Callable[[pa.Array], pa.Array], table: pa.Table = TABLE) -> pa.Table:
    """The table with one field of its events changed."""
    lists = table["events"].combine_chunks()
    columns = dict(zip(lists.type.value_type.names, lists.flatten().flatten(), strict=True))
    columns[name] = change(columns[name])
    structs = pa.StructArray.from_arrays(list(columns.values()), names=list(columns))
    lists = pa.ListArray.from_arrays(lists.offsets, structs)
    return table.set_column(table.column_names.index("events"), "events", lists)


def cast(kind: pa.DataType) -> Callable[[pa.Array], pa.Array]:
    return lambda column: column.cast(kind)


SAME: list[tuple[str, Callable[[pa.Array], pa.Array]]] = [
    ("ts", cast(pa.timestamp("us"))),
    ("ts", lambda c: c.cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("ns", "UTC"))),
    ("ts", lambda c: c.cast(pa.timestamp("us")).cast(pa.timestamp("s"))),  # all are at whole seconds
    ("ts", cast(pa.float64())),
    ("page", cast(pa.large_string())),
    ("title", lambda c: c.dictionary_encode()),
    ("text", lambda c: pa.nulls(len(c))),
    ("dwell_s", cast(pa.float32())),
]


def test_types_that_hold_the_same(encoder: SessionEncoder) -> None:
    vectors, all_changed = encoder.embed(TABLE), TABLE
    for name, change in SAME:
        np.testing.assert_array_equal(encoder.embed(with_field(name, change)), vectors, err_msg=name)
    for name, change in dict(SAME).items():
        all_changed = with_field(name, change, all_changed)
    assert SessionEncoder(SMALL).fit(all_changed).version == encoder.version


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("ts", lambda c: pc.if_else(pc.equal(c, c[0]), None, c), "'ts' is null in"),
        ("ts", cast(pa.string()), "'ts' is of type string; whole µs"),
        ("page", lambda c: pa.array(range(len(c))), "'page' is of type int64; strings are needed"),
        (
            "gap_s",
            lambda c: pa.array(["soon"] * len(c)),
            "'gap_s' is of type string and cannot be read as double",
        ),
    ],
)
def test_types_that_cannot_be_meant(
    encoder: SessionEncoder, name: str, change: Callable[[pa.Array], pa.Array], said: str
) -> None:
    for use in (encoder.embed, SessionEncoder(SMALL).fit):
        with pytest.raises(DataError, match=said):
            use(with_field(name, change))


def test_other_columns_of_other_types(encoder: SessionEncoder) -> None:
    def changed(name: str, column: Any, table: pa.Table = TABLE) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, column)

    same = changed("start", TABLE["start"].cast(pa.timestamp("us")).cast(pa.timestamp("ns", "Europe/Berlin")))
    same = changed("visitor_id", TABLE["visitor_id"].combine_chunks().dictionary_encode(), same)
    assert SessionEncoder(SMALL).fit(same).version == encoder.version
    SessionEncoder(SMALL).fit(changed("visitor_id", pa.array(range(TABLE.num_rows))))
    SessionEncoder(SMALL).fit(TABLE.drop_columns(["visitor_id"]))
    for column, said in (
        (pa.array(["now"] * TABLE.num_rows), "'start' is of type string"),
        (pa.nulls(TABLE.num_rows, pa.int64()), "'start' is null"),
    ):
        with pytest.raises(DataError, match=said):
            SessionEncoder(SMALL).fit(changed("start", column))
    with pytest.raises(DataError, match="'events' is of type"):
        encoder.embed(changed("events", pa.nulls(TABLE.num_rows)))
    with pytest.raises(MissingColumnsError, match="Give sessions as"):
        encoder.embed(TABLE.drop_columns(["events"]))

    vectors = encoder.embed(TABLE)
    ends = TABLE["end"].cast(pa.timestamp("us"))
    for end in (ends, ends.cast(pa.timestamp("ns"))):
        np.testing.assert_array_equal(
            visitor_history(changed("end", end), vectors), visitor_history(TABLE, vectors)
        )
    with pytest.raises(DataError, match="'end' is null"):
        visitor_history(changed("end", pa.nulls(TABLE.num_rows, pa.int64())), vectors)


def test_files_of_several_writers(tmp_path: Path) -> None:
    """Another order of fields, other types of strings, no rows, a column more or less."""
    pq.write_table(TABLE.slice(0, 40), tmp_path / "a.parquet")
    rows = TABLE.slice(40, 40).to_pylist()
    for row in rows:
        row["events"] = [dict(reversed(event.items())) for event in row["events"]]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b.parquet")  # ``text`` is null throughout
    pq.write_table(TABLE.slice(0, 0), tmp_path / "c.parquet")
    large = with_field("page", cast(pa.large_string()), TABLE.slice(80))
    pq.write_table(large.drop_columns(["device"]), tmp_path / "d.parquet")
    encoder = SessionEncoder(SMALL).fit(tmp_path)
    assert encoder.metrics["sessions"] + encoder.metrics["held_out_sessions"] == 120
    assert encoder.embed_parquet(tmp_path, tmp_path.parent / "vectors.parquet") == 120
    found = pq.read_table(tmp_path.parent / "vectors.parquet")["embedding"].combine_chunks()
    np.testing.assert_array_equal(found.flatten().to_numpy().reshape(-1, 16), encoder.embed(TABLE))


def test_filters_that_cannot_be_applied(encoder: SessionEncoder, tmp_path: Path) -> None:
    path = tmp_path / "sessions.parquet"
    pq.write_table(TABLE, path)
    wrong = pc.field("chanel") == "web"
    for use in (
        lambda: SessionEncoder(SMALL).fit(TABLE, filter=wrong),
        lambda: SessionEncoder(SMALL).fit(path, filter=wrong),
        lambda: encoder.embed_parquet(path, tmp_path / "out.parquet", filter=wrong),
    ):
        with pytest.raises(DataError, match="chanel"):
            use()
    with pytest.raises(DataError, match="filter to fit"):
        SessionEncoder(SMALL).fit(ds.dataset(path).filter(pc.field("channel") == "web"))
    no_id = TABLE.set_column(0, "session_id", pa.nulls(TABLE.num_rows, pa.string()))
    pq.write_table(no_id, path)
    with pytest.raises(DataError, match="'session_id' is null in 120 rows"):
        encoder.embed_parquet(path, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()
