"""Labels by people: what leaves, what comes back however mangled, and how far it agrees."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import factories
from clickintent import Taxonomy, pipeline
from clickintent.cli import main
from clickintent.config import Config
from clickintent.errors import ConfigError, DataError, WorkspaceError
from clickintent.taxonomy.people import blind, codebook, harmless, read_rows, to_csv, understand
from workspaces import copy_of, toml, workspace

# --- the sample


@given(st.integers(1, 200), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_the_sample_stands_for_all_sessions(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = [f"s{n}" for n in range(300)]
    strata = ["common" if n % 30 else "rare" for n in range(300)]
    weights = rng.uniform(1, 9, 300)
    key = blind(ids, strata, weights, size, sample="k1", version=3, seed=seed)
    assert key.num_rows == max(2, min(size, 300))
    assert len(set(key["session_id"].to_pylist())) == key.num_rows
    for stratum in ("common", "rare"):
        mine = [
            w
            for w, s in zip(key["weight"].to_pylist(), key["stratum"].to_pylist(), strict=True)
            if s == stratum
        ]
        total = sum(w for w, s in zip(weights, strata, strict=True) if s == stratum)
        assert sum(mine) == pytest.approx(total)


@given(st.text(max_size=30))
@settings(max_examples=100, deadline=None)
def test_no_cell_is_a_formula(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode().replace("\0", "")
    raw = to_csv(["k1-001"], [text])
    assert raw.startswith(b"\xef\xbb\xbf")
    header, cells = csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""))
    assert header == ["row", "session", "intents", "note"]
    assert not cells[1].lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cells[1].removeprefix("'") == text.removeprefix("'")


def test_formulas_are_told_as_text() -> None:
    assert harmless("=cmd|' /C calc'!A0") == "'=cmd|' /C calc'!A0"
    assert harmless("Home → Cards") == "Home → Cards"


# --- what comes back

FILE = "row,session,intents,note\r\nk1-001,Home,i01,\r\nk1-002,Cards é,i01 I02,unsure\r\nk1-003,x,none,\r\n"
EXPECTED = [(2, "k1-001", "i01"), (3, "k1-002", "i01 I02"), (4, "k1-003", "none")]


@pytest.mark.parametrize(
    ("mangle", "shift"),
    [
        (lambda t: t.encode(), 0),
        (lambda t: t.encode("utf-8-sig"), 0),
        (lambda t: t.encode("cp1252"), 0),
        (lambda t: t.replace(",", ";").encode(), 0),
        (lambda t: ("sep=;\r\n" + t.replace(",", ";")).encode("cp1252"), 1),
        (lambda t: t.replace(",", "\t").encode("utf-16"), 0),
        (lambda t: t.replace("\r\n", "\n").encode(), 0),
        (lambda t: t.replace("row,", '"Row ",').replace("k1-001", '"k1-001"').encode(), 0),
        (lambda t: (t + ",,,\r\n\r\n").encode(), 0),
    ],
)
def test_spreadsheets_may_mangle_the_file(mangle: Callable[[str], bytes], shift: int) -> None:
    found = read_rows(mangle(FILE), "f.csv")
    assert found == [(line + shift, row, cell) for line, row, cell in EXPECTED]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no columns 'row' and 'intents'"),
        (b"PK\x03\x04\x00\x00\x00\x00xlsx", "not text"),
        (b"a,b\n1,2\n", "no columns 'row' and 'intents'"),
        (b"x" * (csv.field_size_limit() + 1), "no columns 'row' and 'intents'"),
        (b"row,intents\n1," + b"x" * (csv.field_size_limit() + 1), "line 2: not CSV"),
    ],
)
def test_other_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_rows(data, "f.csv")


def test_every_bad_row_is_reported_and_counts_add_up() -> None:
    rows = [
        (2, "k1-001", "i01; i02"),
        (3, "k1-001", "I02 i01"),  # the same again
        (4, "k1-002", "i01"),
        (5, "k1-002", "none"),  # says something else
        (6, "k1-003", ""),
        (7, "k1-004", "i99 i01"),
        (8, "k1-005", "none i01"),
        (9, "k2-001", "i01"),
        (10, "k1-006", "NONE"),
        (11, "a@b.example 4111111111111111", "i01"),
    ]
    found = understand(rows, [f"k1-{n:03d}" for n in range(1, 9)], ["i01", "i02"])
    assert found.intents == {"k1-001": ("i01", "i02"), "k1-006": ()}
    counts = dict(found.counts)
    assert counts.pop("missing") == 2
    assert counts.pop("sample") == 8
    assert counts.pop("rows") == len(rows) == sum(counts.values())
    assert counts["contradictory"] == 2
    assert counts["repeated"] == 1
    assert [line for line, _ in found.problems] == [4, 5, 7, 8, 9, 11]
    told = "\n".join(words for _, words in found.problems)
    assert "'i99' is no intent" in told
    assert "4111111111111111" not in told
    assert "a@b" not in told


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["k-1", "k-2", "k-3", "x"]),
            st.sampled_from(["", "a", "b a", "none", "zz", "none a"]),
        ),
        max_size=12,
    )
)
@settings(max_examples=100, deadline=None)
def test_counts_always_add_up(rows: list[tuple[str, str]]) -> None:
    found = understand([(n, *row) for n, row in enumerate(rows)], ["k-1", "k-2", "k-3"], ["a", "b"])
    counts = dict(found.counts)
    missing, sample = counts.pop("missing"), counts.pop("sample")
    assert counts.pop("rows") == len(rows) == sum(counts.values())
    assert len(found.intents) == counts["labelled"]
    assert missing == sample - len({row for row, _ in rows if row != "x"})
    refused = ("unknown_row", "unknown_intent", "none_and_others", "contradictory")
    assert len(found.problems) == sum(counts[reason] for reason in refused)


# --- the commands


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people") / "w"
    rows = factories.themed_sessions(240).to_pylist()
    rows[0]["events"][0]["title"] = "=HYPERLINK(1) jane@example.com | Example Bank"
    config = workspace(folder, factories.sessions(rows))
    pipeline.draft_taxonomy(config)
    pipeline.label(config)
    return folder


@pytest.fixture
def config(labelled: Path, tmp_path: Path) -> Config:
    return copy_of(labelled, tmp_path)


def run(*arguments: str, code: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == code


def fill(config: Config, exported: Path, out: Path, noise: float, seed: int) -> None:
    """Answer as the model did, apart from ``noise``."""
    sample = exported.read_text(encoding="utf-8-sig").splitlines()[1].split("-")[0]
    key = pq.read_table(config.workspace / "people" / "keys" / f"{sample}.parquet")
    session = dict(zip(key["row"].to_pylist(), key["session_id"].to_pylist(), strict=True))
    labels = pq.read_table(config.workspace / "labels" / "teacher.parquet")
    said: dict[str, list[str]] = {}
    for one in labels.to_pylist():
        said.setdefault(one["session_id"], []).append(one["intent_id"])
    rng = np.random.default_rng(seed)
    with exported.open(encoding="utf-8-sig", newline="") as source, out.open("w", newline="") as target:
        writer = csv.writer(target, delimiter=";")
        for n, (row, text, _, note) in enumerate(csv.reader(source)):
            given = "i01" if rng.random() < noise else " ".join(said.get(session.get(row, ""), [])) or "none"
            writer.writerow([row, text, given if n else "intents", note])


def test_from_a_blinded_sample_to_agreement(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    folder = config.workspace.parent
    exported = folder / "to-label.csv"
    run("labels", "export", toml(config), str(exported), "--sessions", "90")
    text = exported.read_text(encoding="utf-8-sig")
    rows = list(csv.reader(io.StringIO(text)))
    assert len(rows) == 91
    assert all(row[2:] == ["", ""] for row in rows[1:])
    ids = set(pq.read_table(config.workspace / "sessions")["session_id"].to_pylist())
    assert not any(id_ in text for id_ in ids)
    assert "@" not in text
    described = (folder / "to-label.intents.txt").read_text()
    taxonomy = Taxonomy.load(config.workspace / "taxonomy.yaml")
    assert described == codebook(taxonomy)
    with pytest.raises(ConfigError, match="is there already"):
        pipeline.export_labels(config, exported, size=90)
    with pytest.raises(WorkspaceError, match="labels import"):
        pipeline.agreement(config)

    for by, noise in (("Kim", 0.0), ("Lee", 0.3)):
        fill(config, exported, folder / f"{by}.csv", noise, seed=len(by) + int(noise * 10))
        run("labels", "import", toml(config), str(folder / f"{by}.csv"), "--by", by)
    assert "90 rows = 90 labelled" in capsys.readouterr().out
    again = pipeline.import_labels(config, folder / "Lee.csv", by=" Lee ")
    assert again.counts["labelled"] == 90
    assert pq.read_table(config.workspace / "people" / "labels.parquet").num_rows == 180

    run("labels", "agreement", toml(config))
    told = capsys.readouterr().out
    assert "Kim and the model: 90 sessions" in told
    assert "Kim and Lee: 90 sessions" in told
    pairs = {
        (p["first"], p["second"]): p
        for p in json.loads((config.workspace / "metrics.json").read_text())["agreement"]["pairs"]
    }
    perfect, noisy = pairs["Kim", "the model"], pairs["Lee", "the model"]
    assert perfect["pooled"]["value"] == pytest.approx(1)
    assert perfect["alpha"]["value"] == pytest.approx(1)
    assert 0.3 < noisy["pooled"]["low"] < noisy["pooled"]["value"] < noisy["pooled"]["high"] < 1
    assert set(noisy["intents"]) == set(taxonomy.intent_ids)


def test_labels_of_people_follow_the_taxonomy_too(config: Config) -> None:
    folder = config.workspace.parent
    pipeline.export_labels(config, folder / "a.csv", size=60)
    fill(config, folder / "a.csv", folder / "b.csv", 0.0, seed=0)
    pipeline.import_labels(config, folder / "b.csv", by="Kim")
    walk = pipeline.review(config, "Kim")
    walk.follow("merge i02")
    walk.follow("go i03")
    walk.follow("reject")
    walk.follow("go i04")
    walk.follow("redefine Something else altogether.")
    walk.finish()
    pipeline.label(config)
    found = pipeline.agreement(config)
    assert found["left_out"]["Kim"] > 0
    (pair,) = found["pairs"]
    assert pair["sessions"] == 60 - found["left_out"]["Kim"]
    assert pair["intents"]["i02"]["kappa"]["value"] == pytest.approx(1)
    assert not {"i01", "i03", "i04"} & set(pair["intents"])  # nobody could give i04 as it is meant now


def test_a_small_sample_counts_less_than_a_large_one(config: Config) -> None:
    """Right in all of 100 sessions, and in none of ten others."""
    folder = config.workspace.parent
    for name, size, noise in (("large", 100, 0.0), ("small", 10, 1.0)):
        out = folder / f"{name}.csv"
        pipeline.export_labels(config, out, size=size, seed=size)
        fill(config, out, folder / f"{name}-filled.csv", noise, seed=0)
        pipeline.import_labels(config, folder / f"{name}-filled.csv", by="Kim")
    (pair,) = pipeline.agreement(config)["pairs"]
    assert pair["sessions"] > 100
    assert 0.75 < pair["pooled"]["value"] < 1


def test_a_path_is_printed_as_it_is(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    out = config.workspace.parent / "[bold]" / "[final].csv"
    out.parent.mkdir()
    run("labels", "export", toml(config), str(out), "--sessions", "20")
    assert f"sessions: {out}" in capsys.readouterr().err


def test_files_of_elsewhere_are_refused(config: Config) -> None:
    folder = config.workspace.parent
    (folder / "x.csv").write_text("row,intents\nk9-001,i01\n")
    with pytest.raises(DataError, match="no row is of a sample that was exported"):
        pipeline.import_labels(config, folder / "x.csv", by="Kim")
    with pytest.raises(DataError, match="cannot be read"):
        pipeline.import_labels(config, folder / "none.csv", by="Kim")
    pipeline.export_labels(config, folder / "a.csv", size=20)
    run("labels", "import", toml(config), str(folder / "a.csv"), "--by", "Kim", code=1)  # nothing filled in
    pipeline.export_labels(config, folder / "b.csv", size=20, seed=99)
    both = (folder / "a.csv").read_text() + (folder / "b.csv").read_text()
    (folder / "c.csv").write_text(both)
    with pytest.raises(DataError, match="several samples"):
        pipeline.import_labels(config, folder / "c.csv", by="Kim")
