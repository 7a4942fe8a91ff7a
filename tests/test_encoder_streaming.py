"""Sessions that are streamed from files: nothing is lost, nothing held out is learned, memory is bounded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import factories
from clickintent.config import EncoderConfig
from clickintent.encoder import SessionEncoder, chunks, source
from clickintent.encoder.chunks import Chunks, TrainingData, load_chunk
from clickintent.encoder.sampling import Counts, Sample
from clickintent.encoder.source import open_source
from clickintent.encoder.statistics import survey
from clickintent.encoder.train import train
from clickintent.errors import DataError, EmptyInputError, MissingColumnsError

pytestmark = pytest.mark.usefixtures("quick_export")

SMALL = EncoderConfig(width=32, layers=1, heads=2, text_dim=16, text_buckets=512, epochs=1, min_page_count=2)
CUT = factories.START + 60 * factories.MINUTE


def sessions(number: int = 120) -> pa.Table:
    """Of four themes; each visitor has sessions one after the other."""
    table = factories.themed_sessions(number)
    visitor = pa.array([f"v{i // 3:04d}" for i in range(number)])
    return table.set_column(table.schema.get_field_index("visitor_id"), "visitor_id", visitor)


def written(table: pa.Table, folder: Path, *, group: int = 10, files: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    step = -(-table.num_rows // files)
    for i in range(files):
        pq.write_table(table.slice(i * step, step), folder / f"{i:03d}.parquet", row_group_size=group)
    return folder


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if ten sessions were many."""
    monkeypatch.setattr(source, "PIECE_ROWS", 10)
    monkeypatch.setattr(chunks, "CHUNK_SESSIONS", 35)


def data_of(table: pa.Table | Path, config: EncoderConfig = SMALL) -> TrainingData:
    opened = open_source(table)
    return TrainingData(opened, survey(opened, config))


def test_a_table_a_file_and_a_dataset_give_the_same_encoder(tmp_path: Path) -> None:
    table = sessions()
    expected = SessionEncoder(SMALL).fit(table).embed(table)
    one = written(table, tmp_path / "one", group=7) / "000.parquet"
    many = written(table, tmp_path / "many", files=3)
    for given_as in (one, str(one), many, ds.dataset(many)):
        np.testing.assert_array_equal(SessionEncoder(SMALL).fit(given_as).embed(table), expected)


def test_a_filter_is_a_smaller_file(tmp_path: Path) -> None:
    table = sessions()
    kept = pc.field("start") < CUT
    expected = SessionEncoder(SMALL).fit(table.filter(kept))
    streamed = SessionEncoder(SMALL).fit(written(table, tmp_path / "s"), filter=kept)
    np.testing.assert_array_equal(streamed.embed(table), expected.embed(table))
    assert streamed.metrics["sessions"] == expected.metrics["sessions"]


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_an_epoch_has_every_session_once(processes: int) -> None:
    data = data_of(sessions())
    orders = []
    for epoch in (0, 1):
        found: list[int] = []
        for rank in range(processes):
            of_rank = Chunks(data, lambda texts: (), 7, rank, processes)
            assert of_rank.per_epoch > 1
            for chunk in range(of_rank.per_epoch):
                found.extend(of_rank.pieces(epoch, chunk))
        assert sorted(found) == np.flatnonzero(data.statistics.counts).tolist()
        orders.append(found)
    assert orders[0] != orders[1]


@pytest.mark.usefixtures("small_pieces")
def test_what_is_held_out_is_nowhere_in_training() -> None:
    table = sessions()
    data = data_of(table)
    split = data.statistics.times.split
    pieces = range(len(data.source.rows))
    chunk = load_chunk(data, pieces, lambda texts: ())
    assert len(chunk.events.lengths) == data.statistics.sessions == 114
    held_out = data.statistics.held_out
    assert held_out is not None
    assert held_out.num_rows == 6
    assert pc.min(held_out["start"]).as_py() >= split.start
    # A visitor's last training session has no next one, though a held-out session follows.
    assert chunk.following.max() < len(chunk.events.lengths)
    followed = chunk.following >= 0
    assert followed.sum() == 2 * 38  # three sessions each, 38 visitors with none held out


@pytest.mark.usefixtures("small_pieces")
def test_next_sessions_are_the_same_visitors_in_order() -> None:
    table = sessions()
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))
    following = chunks.next_sessions(shuffled)
    visitor, start = shuffled["visitor_id"].to_pylist(), shuffled["start"].to_pylist()
    for row, after in enumerate(following.tolist()):
        later = [s for v, s in zip(visitor, start, strict=True) if v == visitor[row] and s > start[row]]
        assert (after < 0) == (not later)
        if later:
            assert (visitor[after], start[after]) == (visitor[row], min(later))
    nobody = shuffled.set_column(
        shuffled.schema.get_field_index("visitor_id"), "visitor_id", pa.nulls(shuffled.num_rows, pa.string())
    )
    assert (chunks.next_sessions(nobody) == -1).all()
    assert (chunks.next_sessions(shuffled.drop_columns(["visitor_id"])) == -1).all()


@pytest.mark.usefixtures("small_pieces")
def test_training_ends_when_it_has_seen_enough_sessions() -> None:
    config = SMALL.model_copy(update={"epochs": 50, "batch_events": 64})
    data = data_of(sessions(), config)
    _, whole = train(data, config.model_copy(update={"epochs": 1}), 7)
    _, position = train(data, config.model_copy(update={"max_sessions": whole.sessions * 3 // 2}), 7)
    assert whole.sessions * 1.4 < position.sessions < whole.sessions * 1.7
    assert len(position.epochs) == 2


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    folder = written(sessions(), tmp_path / "s")
    opened = open_source(folder, pc.field("start") < CUT)
    found = survey(opened, SMALL)
    opened._keep = None  # type: ignore[union-attr] # now it has more sessions
    with pytest.raises(DataError, match="have changed"):
        load_chunk(TrainingData(opened, found), range(len(opened.rows)), lambda texts: ())


def test_wrong_input_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    with pytest.raises(EmptyInputError, match="no Parquet file"):
        SessionEncoder(SMALL).fit(folder)
    with pytest.raises(DataError, match="nowhere"):
        SessionEncoder(SMALL).fit(tmp_path / "nowhere")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 or not")
    with pytest.raises(DataError, match=r"x\.parquet"):
        SessionEncoder(SMALL).fit(tmp_path / "x.parquet")
    lacking = written(sessions(8).drop_columns(["start"]), tmp_path / "lacking")
    with pytest.raises(MissingColumnsError, match="'start'"):
        SessionEncoder(SMALL).fit(lacking)
    none = written(sessions(8), tmp_path / "none")
    with pytest.raises(EmptyInputError, match="no session with an event"):
        SessionEncoder(SMALL).fit(none, filter=pc.field("start") < 0)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 40), max_size=20), st.integers(1, 60))
def test_a_sample_does_not_depend_on_the_pieces(sizes: list[int], limit: int) -> None:
    total = sum(sizes)
    table = pa.table({"x": np.arange(total)})
    in_pieces, at_once = Sample(limit, 3), Sample(limit, 3)
    at = 0
    for size in sizes:
        in_pieces.add(table.slice(at, size), np.arange(at, at + size))
        at += size
    at_once.add(table, np.arange(total))
    whole = at_once.table()
    assert whole is not None
    assert whole.num_rows <= limit
    assert whole.num_rows == total or total > limit
    found = in_pieces.table()
    if found is not None:
        assert found["x"].to_pylist() == whole["x"].to_pylist()


def test_a_sample_is_uniform() -> None:
    sample = Sample(2000, 0)
    sample.add(pa.table({"x": np.arange(100_000)}), np.arange(100_000))
    kept = sample.table()
    assert kept is not None
    values = kept["x"].to_numpy()
    assert 800 < len(values) <= 2000
    parts = np.bincount(values // 10_000, minlength=10) / len(values)
    assert (np.abs(parts - 0.1) < 0.04).all()


def test_counts_keep_what_is_frequent() -> None:
    counts = Counts(100)
    for i in range(50):
        rare = [f"rare {i} {j}" for j in range(20)]
        counts.add(["often", "sometimes", *rare], np.array([50, 20, *[1] * 20]))
    assert counts.top(2) == [("often", 2500), ("sometimes", 1000)]
    assert len(counts.counts) <= 100
