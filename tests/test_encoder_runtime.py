"""Embedding: tables, files and single sessions give the same vectors, in float32 and in int8."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import exports
import factories
from clickintent import schema
from clickintent.config import EncoderConfig
from clickintent.encoder import SessionEncoder, storage
from clickintent.encoder import text as text_encoders
from clickintent.encoder.export import export_onnx
from clickintent.encoder.features import FeatureSpace, flatten, pad
from clickintent.encoder.files import embed_files, in_order
from clickintent.encoder.model import SessionModel
from clickintent.encoder.quantize import with_int8
from clickintent.encoder.runtime import OnnxEncoder
from clickintent.encoder.text import CachedText, HashedText, NoText
from clickintent.errors import ArtifactError, DataError, EmptyInputError, MissingColumnsError
from clickintent.workspace import write_table

pytestmark = pytest.mark.usefixtures("quick_export")

PAGES = [*factories.TITLES, "/never/seen"]
TYPES = ["page_view", "click", "never_seen", None]


@st.composite
def events(draw: st.DrawFn, max_size: int = 80) -> list[dict[str, object]]:
    """Events as they come: what is not known is None, times are as they are."""
    some = st.none() | st.floats(0, 1e6)
    event = st.fixed_dictionaries(
        {
            "ts": st.integers(factories.START, factories.START + 30 * factories.DAY),
            "event_type": st.sampled_from(TYPES),
            "page": st.sampled_from([*PAGES, None]),
            "title": st.none() | st.sampled_from([*factories.TITLES.values(), ""]),
            "text": st.none() | st.sampled_from(["travel card", "ünï 💳", ""]),
            "dwell_s": some | st.just(float("inf")),
            "gap_s": some | st.just(-3.0),
        }
    )
    return draw(st.lists(event, max_size=max_size))


def table_of(*sessions: list[dict[str, object]]) -> pa.Table:
    return factories.sessions(
        [{**factories.session(i, ["/"]), "events": found} for i, found in enumerate(sessions)]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runtime") / "encoder"
    SessionEncoder(EncoderConfig(epochs=2, min_page_count=2)).fit(factories.themed_sessions(400)).save(path)
    return path


@pytest.fixture(scope="module")
def encoder(folder: Path) -> SessionEncoder:
    return SessionEncoder.load(folder)


def mixed(n: int, seed: int = 0) -> pa.Table:
    """Sessions of 0 to 80 events, every length from 1 to 64 among the first."""
    rng = np.random.default_rng(seed)
    lengths = [*range(1, 65), 65, 80, 0, *rng.integers(1, 20, n)][:n]
    rows = []
    for i, length in enumerate(lengths):
        row = factories.session(
            i, list(rng.choice(PAGES, max(length, 1))), seconds=float(rng.exponential(60))
        )
        rows.append({**row, "events": row["events"][:length]})
    return factories.sessions(rows)


def model_of(config: EncoderConfig, space: FeatureSpace, noise: float, seed: int = 0) -> SessionModel:
    """As different from a fresh model as a trained one is, or more."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SessionModel(config, space).eval()
        for parameter in model.parameters():
            parameter.data += noise * torch.randn(parameter.shape)
    return model


@pytest.mark.parametrize("cell", ["transformer", "gru"])
def test_the_exported_model_is_the_trained_one_at_every_length(cell: Literal["transformer", "gru"]) -> None:
    table = mixed(66)
    flat = flatten(table, last=64)
    space = FeatureSpace.fit(flat, np.arange(len(flat.lengths)), min_page_count=30)
    config = EncoderConfig(cell=cell)
    model = model_of(config, space, 0.05)
    onnx = export_onnx(model, config.text_dim)
    ngrams = np.random.default_rng(0).normal(size=(512, config.text_dim)).astype(np.float32)
    batch = pad(space.encode(flat), flat.offsets[:-1], flat.lengths)
    for text in (HashedText(ngrams), NoText(config.text_dim)):
        runtime = OnnxEncoder(onnx, space, text, config.dim, "test")
        arrays = (batch.page, batch.event_type, batch.numeric, text(flat.texts)[batch.text], batch.lengths)
        with torch.inference_mode():
            expected = model(*map(torch.from_numpy, arrays)).numpy()
        np.testing.assert_allclose(runtime.embed(flat), expected, atol=1e-5)
        for i in range(table.num_rows):
            alone = runtime.embed(flatten(table.slice(i, 1), last=64))[0]
            np.testing.assert_allclose(alone, expected[i], atol=1e-5)
    # what the other tests rely on: the exporter itself, called once, and then its graph with other weights
    remembering = exports.remembering(export_onnx)
    remembering(model_of(config, space, 0.05, seed=1), config.text_dim)
    assert remembering(model, config.text_dim) == onnx


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_session_does_not_depend_on_its_batch(folder: Path, precision: storage.Precision) -> None:
    encoder = SessionEncoder.load(folder, precision=precision)
    table = mixed(300)
    together = encoder.embed(table)
    one_by_one = [encoder.embed_one(found) for found in table["events"].to_pylist()]
    np.testing.assert_allclose(together, one_by_one, atol=1e-5)
    np.testing.assert_allclose(encoder.embed(table.slice(0, 66)), together[:66], atol=1e-5)


@settings(max_examples=150, deadline=None)
@given(found=events())
def test_one_session_equals_a_table_of_one(encoder: SessionEncoder, found: list[dict[str, object]]) -> None:
    one = encoder.embed_one(found)
    assert (one.shape, one.dtype) == ((64,), np.float32)
    np.testing.assert_allclose(one, encoder.embed(table_of(found))[0], atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 7, 64, 70])
def test_absent_times_are_taken_from_ts(encoder: SessionEncoder, length: int) -> None:
    found = factories.session(0, ["/", "/cards"] * 35, seconds=12.5)["events"][:length]
    bare = [{k: event[k] for k in ("ts", "event_type", "page", "title")} for event in found]
    expected = encoder.embed(table_of(found))[0]
    np.testing.assert_allclose(encoder.embed_one(bare), expected, atol=1e-5)
    unknown = [{**event, "gap_s": None, "dwell_s": None} for event in bare]
    assert length == 1 or np.abs(encoder.embed_one(unknown) - expected).max() > 1e-3


def test_numbers_of_numpy_are_numbers(encoder: SessionEncoder) -> None:
    found = factories.session(0, ["/", "/cards"])["events"]
    same = [{**event, "ts": np.int64(event["ts"]), "gap_s": np.float32(20)} for event in found]
    same[0]["gap_s"] = None
    np.testing.assert_array_equal(encoder.embed_one(same), encoder.embed_one(found))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ts": ...}, "event 1 has no key 'ts'"),
        ({"page": ...}, "event 1 has no key 'page'"),
        ({"event_type": ...}, "event 1 has no key 'event_type'"),
        ({"ts": None}, "event 1: 'ts' must be a whole number of µs since 1970 UTC, not NoneType"),
        ({"ts": "2026-01-01"}, "event 1: 'ts' must be a whole number"),
        ({"page": 7}, "event 1: 'page' must be a string or None, not int"),
        ({"text": ["a"]}, "event 1: 'text' must be a string"),
        ({"ts": 1 << 63}, "event 1: 'ts' does not fit into 64 bits"),
        ({"ts": np.uint64(1 << 63)}, "event 1: 'ts' does not fit into 64 bits"),
        ({"ts": np.timedelta64(1, "s")}, "event 1: 'ts' must be a whole number"),
        ({"gap_s": 1j}, "event 1: 'gap_s' must be a number of seconds"),
        ({"gap_s": -(10**400)}, "event 1: 'gap_s' does not fit into 64 bits"),
        ({"dwell_s": "20"}, "event 1: 'dwell_s' must be a number of seconds or None, not str"),
    ],
)
def test_wrong_events_are_named(encoder: SessionEncoder, change: dict[str, object], message: str) -> None:
    found = factories.session(0, ["/", "/cards", "/help"])["events"]
    found[1].update(change)
    found[1] = {key: value for key, value in found[1].items() if value is not ...}
    with pytest.raises(DataError, match=message):
        encoder.embed_one(found)
    with pytest.raises(DataError, match="event 0 is not a mapping"):
        encoder.embed_one([("page", "/")])  # type: ignore[list-item]


def test_any_number_of_workers_gives_the_same(encoder: SessionEncoder, tmp_path: Path) -> None:
    table = pa.concat_tables([mixed(500, seed) for seed in range(2)] * 20)
    expected = encoder.embed(table, workers=1)
    np.testing.assert_array_equal(encoder.embed(table, workers=2), expected)
    write_table(table, tmp_path / "sessions.parquet")
    for workers in (1, 2, 5):
        found = tmp_path / f"{workers}.parquet"
        assert encoder.embed_parquet(tmp_path / "sessions.parquet", found, workers=workers) == 20_000
        vectors = pq.read_table(found)["embedding"].combine_chunks().flatten().to_numpy()
        np.testing.assert_allclose(vectors.reshape(expected.shape), expected, atol=1e-5)
    assert (tmp_path / "2.parquet").read_bytes() == (tmp_path / "1.parquet").read_bytes()


def test_files_in_a_folder(encoder: SessionEncoder, tmp_path: Path) -> None:
    table = mixed(200)
    bots = pa.array([i % 3 == 0 for i in range(200)])
    table = table.set_column(table.schema.get_field_index("is_bot"), schema.SESSIONS.field("is_bot"), bots)
    write_table(table.slice(0, 70), tmp_path / "sessions" / "part-0.parquet", row_group_size=7)
    write_table(table.slice(70), tmp_path / "sessions" / "part-1.parquet")
    keep = (pc.field("channel") == "web") & ~pc.field("is_bot")
    people = table.filter(keep)
    target = tmp_path / "new" / "embeddings.parquet"
    assert encoder.embed_parquet(tmp_path / "sessions", target, filter=keep) == people.num_rows
    found = pq.read_table(target)
    assert found.schema.equals(schema.embeddings(64))
    assert found["session_id"].to_pylist() == people["session_id"].to_pylist()
    vectors = found["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, 64)
    np.testing.assert_allclose(vectors, encoder.embed(people), atol=1e-5)
    assert encoder.embed_parquet(tmp_path / "sessions", target, filter=pc.field("channel") == "app") == 0
    assert pq.read_table(target).schema.equals(schema.embeddings(64))


def test_only_ids_and_events_are_needed(encoder: SessionEncoder, tmp_path: Path) -> None:
    table = mixed(20).select(["events", "session_id"])
    pq.write_table(table, tmp_path / "few.parquet")
    assert encoder.embed_parquet(tmp_path / "few.parquet", tmp_path / "out.parquet") == 20


def test_what_was_read_of_a_file_does_not_stay_in_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, row_group_size in (("many", 1000), ("one", 30_000)):
        path = tmp_path / f"{name}.parquet"
        row = factories.session(0, ["/"])
        table = factories.sessions([row]).take(pa.array(np.zeros(30_000, dtype=np.int64)))
        noise = pa.array([rng.bytes(300).hex() for _ in range(30_000)])
        events = table["events"].combine_chunks()
        columns = dict(zip(events.type.value_type.names, events.flatten().flatten(), strict=True))
        struct = pa.StructArray.from_arrays([*{**columns, "text": noise}.values()], names=[*columns])
        lists = pa.ListArray.from_arrays(events.offsets, struct)
        sessions = pa.table({"session_id": table["session_id"], "events": lists})
        pq.write_table(sessions, path, row_group_size=row_group_size, compression="zstd")
        del table, noise, events, columns, struct, lists, sessions
        before, held = pa.total_allocated_bytes(), []

        def embed(sessions: pa.Table, before: int = before, held: list[int] = held) -> np.ndarray:
            held.append(pa.total_allocated_bytes() - before - sessions.nbytes)
            return np.zeros((sessions.num_rows, 8), dtype=np.float32)

        embed_files(embed, schema.embeddings(8), path, tmp_path / "out.parquet", keep=None, workers=1)
        assert max(held) < path.stat().st_size / 2, name


def test_files_that_cannot_be_embedded(encoder: SessionEncoder, tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    target.write_text("as it was", encoding="utf-8")
    folder = tmp_path / "sessions"
    folder.mkdir()
    for wrong, said in (
        (tmp_path, "is a folder"),
        (folder, "is a folder"),
        (folder / "out.parquet", "the sessions are read from there"),
    ):
        with pytest.raises(DataError, match=said):
            encoder.embed_parquet(folder, wrong)
    with pytest.raises(DataError, match=r"nowhere: not readable as Parquet"):
        encoder.embed_parquet(tmp_path / "nowhere", target)
    with pytest.raises(EmptyInputError, match=r"sessions: no Parquet file in it"):
        encoder.embed_parquet(folder, target)
    write_table(mixed(30), folder / "part-0.parquet")
    pq.write_table(mixed(5).drop_columns(["session_id"]), folder / "part-1.parquet")
    with pytest.raises(MissingColumnsError, match=r"part-1\.parquet: no column 'session_id'"):
        encoder.embed_parquet(folder, target)
    without = [{key: event[key] for key in ("ts", "page")} for event in mixed(1)["events"].to_pylist()[0]]
    pq.write_table(pa.table({"session_id": ["a"], "events": [without]}), folder / "part-1.parquet")
    with pytest.raises(MissingColumnsError, match="no column 'event_type', 'title'"):
        encoder.embed_parquet(folder, target)
    whole = (folder / "part-0.parquet").read_bytes()
    for damaged in (whole[:2000] + bytes(2000) + whole[4000:], whole[:-20]):
        (folder / "part-1.parquet").write_bytes(damaged)
        with pytest.raises(DataError, match=r"part-1\.parquet: not readable as Parquet"):
            encoder.embed_parquet(folder, target)
    assert target.read_text(encoding="utf-8") == "as it was"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parquet", "sessions"]


@pytest.mark.parametrize("workers", [1, 3])
def test_work_is_done_in_order_and_not_far_ahead(workers: int) -> None:
    taken = []

    def items():
        for i in range(50):
            taken.append(i)
            yield i

    for i, result in enumerate(in_order(lambda number: number * number, items(), workers)):
        assert result == i * i
        assert len(taken) - i <= 2 * workers


def test_an_error_in_a_worker_reaches_the_caller() -> None:
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda number: 1 // (number - 7), range(100), 2))
    assert threading.active_count() == before


def test_int8_is_close(folder: Path, encoder: SessionEncoder) -> None:
    table = mixed(300).slice(0, 66)
    exact, coarse = encoder.embed(table), SessionEncoder.load(folder, precision="int8").embed(table)
    cosine = (exact * coarse).sum(axis=1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(coarse, axis=1)
    figures = encoder.metrics["int8"]
    assert figures["accepted"]
    assert 0.999 < figures["min_cosine"] <= figures["mean_cosine"] <= 1.000001
    assert cosine.min() > 0.999
    assert np.abs(exact - coarse).max() > 1e-6, "the int8 model was not used"
    assert SessionEncoder.load(folder, precision="int8").version == f"{encoder.version}-int8"
    with pytest.raises(ValueError, match="there are float32, int8"):
        SessionEncoder.load(folder, precision="fp32")  # type: ignore[arg-type]


def test_int8_that_is_not_accepted(folder: Path, tmp_path: Path) -> None:
    trained = storage.load(folder)
    config = trained.config.model_copy(update={"cell": "transformer", "layers": 2})
    wild = model_of(config, trained.space, 1.0)  # weights so large that rounding them shows
    onnx = export_onnx(wild, trained.config.text_dim)
    judged = with_int8(replace(trained, config=config, onnx=onnx, int8=None), flatten(mixed(300), last=64))
    assert judged.int8 is None
    figures = judged.metrics["int8"]
    assert not figures["accepted"]
    assert figures["sessions"] == 299
    assert figures["min_cosine"] < 0.999
    storage.save(judged, tmp_path / "encoder")
    assert not (tmp_path / "encoder" / storage.INT8).exists()
    SessionEncoder.load(tmp_path / "encoder")
    with pytest.raises(ArtifactError, match=r"encoder\.int8\.onnx: there is no int8 model"):
        SessionEncoder.load(tmp_path / "encoder", precision="int8")


def test_the_onnx_file_stands_alone(folder: Path, encoder: SessionEncoder) -> None:
    """As its doc_string says, with the JSON beside it; of this package only the hashing of texts."""
    found = factories.session(0, ["/", "/cards", "/never/seen"], seconds=30.0, titles=False)["events"]
    features = storage.load(folder).space.to_json()
    assert "hour_of_week" in storage.load(folder).onnx.decode("utf-8", "ignore")

    def ids(values: list[str], known: list[str]) -> np.ndarray:
        return np.array([[3 + known.index(v) if v in known else 1 for v in values]], dtype=np.int32)

    pages = [event["page"] for event in found]
    texts = HashedText(storage.load(folder).text["ngrams"])(pages)
    session = onnxruntime.InferenceSession(folder / "encoder.onnx", providers=["CPUExecutionProvider"])
    (vector,) = session.run(
        ["session_embedding"],
        {
            "page": ids(pages, features["pages"]),
            "event_type": ids(["page_view"] * 3, features["event_types"]),
            "hour_of_week": np.full((1, 3), 72, dtype=np.int32),  # a Thursday, midnight
            "text": np.array([[0, 1, 2]], dtype=np.int32),
            "log_dwell": np.log1p(np.array([[30, 30, np.nan]], dtype=np.float32)),
            "log_gap": np.log1p(np.array([[np.nan, 30, 30]], dtype=np.float32)),
            "lengths": np.array([3], dtype=np.int32),
            "texts": texts,
        },
    )
    np.testing.assert_allclose(vector[0], encoder.embed_one(found), atol=1e-5)


def test_the_memory_for_texts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_encoders, "_CACHED_TEXTS", 20)
    source = HashedText(np.random.default_rng(0).normal(size=(97, 5)).astype(np.float32))
    cached = CachedText(source)
    rng = np.random.default_rng(1)
    for size in (1, 3, 10, 7, 1, 9, 50) * 3:
        texts = [f"page {i}" for i in rng.integers(0, 60, size)]
        np.testing.assert_array_equal(cached(texts), source(texts))
        assert len(cached) <= 20
