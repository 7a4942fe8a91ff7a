"""Encoders that follow one another: versions, and embedding into the space of an earlier one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression

import factories
from clickintent import SessionEncoder
from clickintent.config import EncoderConfig
from clickintent.errors import ArtifactError, DataError

pytestmark = pytest.mark.usefixtures("quick_export")

SMALL = EncoderConfig(
    dim=16, width=32, layers=1, heads=2, text_dim=16, text_buckets=512, epochs=1, min_page_count=2
)
HASTY = SMALL.model_copy(update={"max_sessions": 300})  # where it does not matter what it learns
SESSIONS = factories.themed_sessions(400)
FRESH = factories.themed_sessions(600).slice(400)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], SessionEncoder]:
    """An encoder by its seed, trained once and loaded anew each time, because tests align them."""
    folder = tmp_path_factory.mktemp("trained")

    def by_seed(seed: int) -> SessionEncoder:
        path = folder / str(seed)
        if not path.exists():
            SessionEncoder(SMALL, seed=seed).fit(SESSIONS).save(path)
        return SessionEncoder.load(path)

    return by_seed


@pytest.fixture(scope="module")
def first(trained: Callable[[int], SessionEncoder]) -> SessionEncoder:
    return trained(1)


@pytest.fixture(scope="module")
def second(trained: Callable[[int], SessionEncoder], first: SessionEncoder) -> SessionEncoder:
    return trained(2).align_to(first, SESSIONS)


@pytest.fixture(scope="module")
def third(second: SessionEncoder) -> SessionEncoder:
    return SessionEncoder(SMALL, seed=3).fit(SESSIONS, previous=second)


def test_versions_are_those_of_the_embeddings(
    first: SessionEncoder, second: SessionEncoder, third: SessionEncoder
) -> None:
    assert len({first.version, second.version, third.version}) == 3
    assert first.spaces == (first.version,)
    assert second.spaces == (second.version, first.version)
    assert set(third.spaces[1:]) == {second.version, first.version}


def test_a_model_of_old_embeddings_reads_new_ones(
    first: SessionEncoder, second: SessionEncoder, third: SessionEncoder
) -> None:
    """A classifier trained on the first encoder's embeddings, with those of its successors."""
    theme = np.arange(600) % 4
    model = LogisticRegression(max_iter=500).fit(first.embed(SESSIONS), theme[:400])
    right = {
        "first": model.score(first.embed(FRESH), theme[400:]),
        "second": model.score(second.embed(FRESH, space=first.version), theme[400:]),
        "third, by way of the second": model.score(third.embed(FRESH, space=first.version), theme[400:]),
    }
    assert min(right.values()) > 0.9, right
    old = first.embed(FRESH)
    off = {space: np.square(second.embed(FRESH, space=space) - old).mean() for space in second.spaces}
    assert off[first.version] < off[second.version] / 2
    assert second.metrics["alignments"][first.version]["explained"] > 0.5
    assert third.metrics["alignments"][first.version]["through"] == second.version


def test_alignments_are_saved(first: SessionEncoder, third: SessionEncoder, tmp_path: Path) -> None:
    third.save(tmp_path / "encoder")
    loaded = SessionEncoder.load(tmp_path / "encoder")
    assert loaded.version == third.version
    assert loaded.spaces == third.spaces
    expected = third.embed(FRESH, space=first.version)
    np.testing.assert_array_equal(loaded.embed(FRESH, space=first.version), expected)
    pq.write_table(FRESH, tmp_path / "sessions.parquet")
    loaded.embed_parquet(tmp_path / "sessions.parquet", tmp_path / "out.parquet", space=first.version)
    written = pq.read_table(tmp_path / "out.parquet")
    assert written.schema.metadata[b"encoder"].decode() == first.version
    found = written["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, 16)
    np.testing.assert_array_equal(found, expected)
    (tmp_path / "encoder" / "alignments.safetensors").unlink()
    with pytest.raises(ArtifactError, match="alignments"):
        SessionEncoder.load(tmp_path / "encoder")


def test_the_same_encoder_keeps_what_it_was_aligned_to(
    trained: Callable[[int], SessionEncoder], first: SessionEncoder, second: SessionEncoder
) -> None:
    again = trained(2).align_to(second, SESSIONS)
    assert again.spaces == second.spaces
    np.testing.assert_array_equal(
        again.embed(FRESH, space=first.version), second.embed(FRESH, space=first.version)
    )


def test_a_space_that_is_not_known_is_named(first: SessionEncoder, second: SessionEncoder) -> None:
    with pytest.raises(ArtifactError, match=f"cannot embed into the space of '{second.version}'"):
        first.embed(FRESH, space=second.version)
    with pytest.raises(ArtifactError, match="cannot embed"):
        first.embed_parquet(Path("nowhere"), Path("nowhere.parquet"), space="0123456789ab")


def test_too_few_sessions_to_align_with(
    trained: Callable[[int], SessionEncoder], first: SessionEncoder
) -> None:
    few = factories.themed_sessions(40)
    with pytest.raises(DataError, match="at least 80"):
        trained(2).align_to(first, few)
    encoder = SessionEncoder(HASTY, seed=2).fit(few, previous=first)
    assert encoder.spaces == (encoder.version,)
    for rows in (80, 90):  # 76 and 86 to train on; in between, they would do to fit but not to measure, too
        spaces = SessionEncoder(HASTY, seed=2).fit(SESSIONS.slice(0, rows), previous=first).spaces
        assert (first.version in spaces) == (rows == 90)
    for align in (encoder.align_to, lambda before, table: encoder.fit(table, previous=before)):
        with pytest.raises(ArtifactError, match="not trained"):
            align(SessionEncoder(SMALL), SESSIONS)


def test_there_is_no_way_back_to_oneself(
    trained: Callable[[int], SessionEncoder], first: SessionEncoder, second: SessionEncoder
) -> None:
    again = trained(1).align_to(second, SESSIONS)  # rolled back
    assert again.spaces == (first.version, second.version)
    np.testing.assert_array_equal(again.embed(FRESH, space=first.version), first.embed(FRESH))


def test_maps_to_several_encoders_stay(
    trained: Callable[[int], SessionEncoder], first: SessionEncoder, second: SessionEncoder, tmp_path: Path
) -> None:
    encoder = SessionEncoder(HASTY, seed=5).fit(SESSIONS).align_to(first, SESSIONS)
    assert encoder.align_to(trained(2), SESSIONS).spaces == (encoder.version, first.version, second.version)
    before = encoder.version
    encoder.seed = 6
    assert before in encoder.fit(SESSIONS, previous=encoder).spaces
    assert encoder.metrics["alignments"][first.version] == {"through": before}
    encoder.save(tmp_path)
    assert f"| through {before} |" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_the_card_says_what_there_is_and_no_value_of_the_data(third: SessionEncoder, tmp_path: Path) -> None:
    third.save(tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    head = json.loads((tmp_path / "encoder.json").read_text(encoding="utf-8"))
    for said in (
        third.version,
        "| sessions to learn from | 380 |",
        "| sessions held out | 20 |",
        head["metrics"]["first_start"],
        head["metrics"]["last_start"],
        f"{head['metrics']['next_page']['recall_at_1']:.4g}",
        *third.spaces,
    ):
        assert said in card
    pages = {page for events in SESSIONS["events"].to_pylist() for page in (e["page"] for e in events)}
    assert not [page for page in pages if len(page) > 1 and page in card]


def test_an_empty_table_has_embeddings_in_every_space(first: SessionEncoder, second: SessionEncoder) -> None:
    empty: pa.Table = FRESH.slice(0, 0)
    assert second.embed(empty, space=first.version).shape == (0, 16)
