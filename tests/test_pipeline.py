"""The whole way on a small simulated bank, through the public functions and the command line."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import clickintent
from clickintent import Config, load_config, pipeline, schema
from clickintent.cli import main
from clickintent.config import LabelsConfig, SimBankConfig
from clickintent.taxonomy import IntentGraph
from llm_server import LlmServer

pytestmark = pytest.mark.usefixtures("quick_export")

CLI = [sys.executable, "-m", "clickintent"]
STAGES = ("ingest", "pretrain", "embed", "taxonomy", "label", "distill", "evaluate", "report")
SETTINGS = """
[encoder]
epochs = 1
[taxonomy]
intents = 12
[student]
epochs = 3
[evaluate]
truth = "truth"
bootstrap = 50
[report]
max_points = 200
"""


@pytest.fixture(scope="session")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the raw exports of a small bank, and a configuration with quick settings."""
    folder = tmp_path_factory.mktemp("bank")
    out = folder / "bank"
    clickintent.simulate(
        Config(workspace=folder / "unused", simbank=SimBankConfig(out=out, sessions=1200, days=40))
    )
    path = out / "clickintent.toml"
    path.write_text(without_section(without_section(path.read_text(), "evaluate"), "report") + SETTINGS)
    return path


def without_section(text: str, name: str) -> str:
    lines, keep = [], True
    for line in text.splitlines():
        if line.startswith("["):
            keep = line.strip() != f"[{name}]"
        if keep:
            lines.append(line)
    return "\n".join(lines) + "\n"


def configured(bank: Path, workspace: Path) -> Path:
    """A copy of the configuration for another workspace."""
    path = bank.parent / f"{workspace.name}.toml"
    path.write_text(bank.read_text().replace('workspace = "workspace"', f'workspace = "{workspace}"'))
    assert load_config(path).workspace == workspace
    return path


def config_in(bank: Path, workspace: Path) -> Config:
    return load_config(bank).model_copy(update={"workspace": workspace})


@pytest.fixture(scope="session")
def finished(bank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run, in a process of its own: torch's last digits depend on the process."""
    workspace = tmp_path_factory.mktemp("finished")
    done = run_cli("run", str(configured(bank, workspace)))
    assert done.returncode == 0, done.stderr
    assert f"report: {workspace / 'report.html'}" in done.stdout
    return workspace


def test_every_section_is_there_and_the_counts_add_up(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    assert {
        "events",
        "sessions",
        "encoder",
        "embed",
        "taxonomy",
        "labels",
        "student",
        "conversion",
        "tiles",
    } <= set(metrics)
    events = metrics["events"]
    assert events["read"] == events["events"] + events["duplicates"] + events["quarantined"]
    assert events["duplicates"] > 0
    assert events["quarantined"] > 0
    assert pq.read_table(finished / "events").num_rows == events["events"]
    assert pq.read_table(finished / "quarantine").num_rows == events["quarantined"]
    sessions = pq.read_table(finished / "sessions")
    assert sessions.num_rows == metrics["sessions"]["sessions"]
    assert sum(sessions["n_events"].to_pylist()) == events["events"]
    for name in ("page_counts", "embedding", "llm_labels", "student_labels", "embedding_page_counts"):
        for task, metric in (
            ("conversion", "micro_f1"),
            ("tiles", "macro_recall_at_1"),
            ("tiles", "log_loss"),
        ):
            found = metrics[task]["methods"][name][metric]
            assert found["low"] <= found["value"] <= found["high"], (task, name, metric)


def test_a_second_run_does_nothing_and_force_does_it_again(bank: Path, finished: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file() and p.name != ".lock"}
    config = config_in(bank, finished)
    clickintent.run(config)
    after = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file() and p.name != ".lock"}
    assert after == before
    clickintent.embed(config, force=True)
    assert (finished / "embeddings").stat().st_mtime_ns > before[
        finished / "embeddings" / "part-00000.parquet"
    ]


def test_labels_that_are_not_sure_enough_are_not_given(bank: Path, finished: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "choosy"
    shutil.copytree(finished, workspace)
    config = config_in(bank, workspace).model_copy(update={"labels": LabelsConfig(min_precision=0.9)})
    clickintent.label(config)
    student = clickintent.distill(config)["student"]
    clickintent.write_report(config)
    labels = pq.read_table(workspace / "labels" / "student.parquet")
    labelled = len(labels["session_id"].unique())
    assert labelled == student["sessions_labelled"] < student["sessions"]
    assert labels.num_rows == student["labels"]
    if labels.num_rows:
        assert min(labels["confidence"].to_pylist()) >= student["cutoff"]
    states = pq.read_table(workspace / "labels" / "annotated.parquet")
    assert states.select(schema.ANNOTATED.names).schema.equals(schema.ANNOTATED)
    assert states.num_rows == json.loads((workspace / "metrics.json").read_text())["labels"]["sessions"]


def test_one_graph_beside_the_student(finished: Path) -> None:
    encoder = clickintent.SessionEncoder.load(finished / "encoder")
    graph = IntentGraph(finished / "student" / "intents.onnx", encoder)
    sessions = pq.read_table(finished / "sessions").slice(0, 200)
    embedded, found = graph.label(sessions)
    student = clickintent.IntentLabeler.load(finished / "student")
    np.testing.assert_allclose(embedded, encoder.embed(sessions), atol=1e-5)
    np.testing.assert_allclose(found, student.predict_proba(embedded), atol=1e-5)


def results(workspace: Path) -> dict[str, Any]:
    """Everything that a run made, without times."""
    tables = (
        "events",
        "sessions",
        "quarantine",
        "embeddings",
        "labels/teacher.parquet",
        "labels/student.parquet",
    )
    found: dict[str, Any] = {name: pq.read_table(workspace / name) for name in tables}
    found["taxonomy"] = (workspace / "taxonomy.yaml").read_text()
    found["metrics"] = without_times(json.loads((workspace / "metrics.json").read_text()))
    return found


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if "second" not in k and k != "bytes"}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def test_killed_in_every_stage_the_run_resumes_to_the_same_result(
    bank: Path, finished: Path, tmp_path: Path
) -> None:
    path = configured(bank, tmp_path)
    dice = random.Random(3)
    for stage in STAGES:
        process = subprocess.Popen([*CLI, "run", str(path)], stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if line.strip() == stage:
                time.sleep(dice.uniform(0, 0.3))
                break
        else:
            pytest.fail(f"{stage} never began")
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
    done = subprocess.run([*CLI, "run", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("**/.tmp-*"))
    expected, found = results(finished), results(tmp_path)
    for name, value in expected.items():
        if name == "metrics":
            assert found[name] == value
        else:
            assert found[name] == value, f"{name} differs after the kills"


def test_a_new_encoder_can_stand_in_for_the_one_before(bank: Path, finished: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "again"
    shutil.copytree(finished, workspace)
    before = clickintent.SessionEncoder.load(workspace / "encoder")
    config = config_in(bank, workspace).model_copy(update={"seed": 8})
    found = clickintent.pretrain(config)["encoder"]
    assert found["version"] != before.version
    assert found["alignments"][before.version]["explained"] > 0.5
    after = clickintent.SessionEncoder.load(workspace / "encoder")
    assert after.spaces == (after.version, before.version)

    (workspace / "encoder" / "encoder.json").write_text("cut o")
    found = clickintent.pretrain(config, force=True)["encoder"]
    assert found["version"] == after.version  # the damaged one is no reason not to train
    assert "alignments" not in found


def test_a_persons_taxonomy_is_kept_unless_forced(bank: Path, finished: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-r", str(finished), str(tmp_path / "w")], check=True)
    config = config_in(bank, tmp_path / "w")
    path = config.workspace / "taxonomy.yaml"
    first = clickintent.Taxonomy.load(path)
    first.approve("a reviewer").save(path)
    changed = config.model_copy(update={"taxonomy": config.taxonomy.model_copy(update={"intents": 6})})
    assert clickintent.draft_taxonomy(changed)["taxonomy"]["kept"]
    assert clickintent.Taxonomy.load(path).approved_by == "a reviewer"
    clickintent.draft_taxonomy(changed, force=True)
    forced = clickintent.Taxonomy.load(path)
    assert forced.approved_by is None
    assert len(forced.intents) <= 6
    assert forced.version > first.version


def test_truth_is_opened_by_evaluate_alone(bank: Path, finished: Path, tmp_path: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["conversion"]["oracle"]["log_loss"]["value"] > 0
    assert metrics["tiles"]["oracle"]["log_loss"]["value"] > 0
    subprocess.run(["cp", "-r", str(finished), str(tmp_path / "w")], check=True)
    config = config_in(bank, tmp_path / "w")
    blind = config.model_copy(
        update={"evaluate": config.evaluate.model_copy(update={"truth": tmp_path / "gone"})}
    )
    for stage in (clickintent.embed, clickintent.draft_taxonomy, clickintent.label, clickintent.distill):
        stage(blind, force=True)
    for name in ("embeddings", "labels/teacher.parquet"):
        assert pq.read_table(tmp_path / "w" / name) == pq.read_table(finished / name)
    with pytest.raises(clickintent.DataError, match=r"evaluate\.truth"):
        clickintent.evaluate(blind, force=True)


def test_a_language_model_names_and_labels(
    bank: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["cp", "-r", str(finished), str(tmp_path / "w")], check=True)
    monkeypatch.setenv("TEST_KEY", "secret-key")
    with LlmServer() as server:
        text = bank.read_text().replace("[taxonomy]\n", "[taxonomy]\nsample = 100\n")
        llm = f'[llm]\nbackend = "openai"\nmodel = "m"\nbase_url = "{server.url}"\napi_key_env = "TEST_KEY"\n'
        path = bank.parent / "llm.toml"
        path.write_text(text + llm + "[labels]\nmax_sessions = 300\n")
        config = load_config(path).model_copy(update={"workspace": tmp_path / "w"})
        clickintent.draft_taxonomy(config, force=True)
        before = len(server.requests)
        planned = clickintent.plan(config)
        assert planned.sessions == 300
        assert planned.calls > 0
        assert len(server.requests) == before  # a plan sends nothing
        clickintent.label(config)
        for stage in (clickintent.distill, clickintent.evaluate, clickintent.write_report):
            stage(config)
    metrics = clickintent.metrics(config)
    assert metrics["taxonomy"]["source"] == "llm"
    assert metrics["labels"]["sessions"] == 300
    covered = metrics["conversion"]["methods"]["llm_labels"]["coverage"]
    assert 0 < covered < 1
    assert "No language model" not in (tmp_path / "w" / "report.html").read_text()
    assert not any(b"secret-key" in f.read_bytes() for f in (tmp_path / "w").rglob("*") if f.is_file())


def table_config(folder: Path, rows: list[str]) -> Path:
    (folder / "clicks.csv").write_text("\n".join(["cookie,time,url,title,kind", *rows]) + "\n")
    path = folder / "clickintent.toml"
    path.write_text(
        'workspace = "w"\n[[sources]]\nreader = "table"\npath = "clicks.csv"\n[sources.columns]\n'
        'visitor_id = "cookie"\nts = "time"\nurl = "url"\ntitle = "title"\nevent_type = "kind"\n'
        "[encoder]\nepochs = 1\n[evaluate]\nbootstrap = 50\n[report]\nmax_points = 100\n"
    )
    return path


def test_no_rows_and_one_session_are_clear_errors(tmp_path: Path) -> None:
    config = load_config(table_config(tmp_path, []))
    with pytest.raises(clickintent.EmptyInputError, match="no rows"):
        clickintent.run(config)
    config = load_config(table_config(tmp_path, ["a,2026-01-01T10:00:00Z,https://x.example/a,A,page_view"]))
    with pytest.raises(clickintent.EmptyInputError, match="before the split"):
        clickintent.run(config)
    assert clickintent.metrics(config)["sessions"]["sessions"] == 1


def test_sessions_of_one_event_go_all_the_way(tmp_path: Path) -> None:
    pages = ("cards", "loans", "savings")
    rows = [
        f"v{i},2026-01-{1 + i // 10:02d}T10:{i % 10:02d}:00Z,https://x.test/{pages[i % 3]},{pages[i % 3]},v"
        for i in range(90)
    ]
    config = load_config(table_config(tmp_path, rows))
    metrics = clickintent.run(config)
    assert metrics["sessions"]["sessions"] == metrics["embed"]["sessions"] == 90
    assert "skipped" in metrics["conversion"]
    assert (config.workspace / "report.html").exists()


def run_cli(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLI, *arguments], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def stopped(*arguments: str) -> int:
    """The exit status of the command line, here in this process; any other exception fails the test."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


def test_stages_out_of_order_say_what_to_run_first(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f'workspace = "w"\n[[sources]]\nreader = "ga4"\npath = "{bank.parent}/web/*.parquet"\n')
    for command, first in (("pretrain", "ingest"), ("embed", "pretrain"), ("label", "taxonomy draft")):
        assert stopped(command, str(path)) == 1
        assert f"clickintent {first}" in capsys.readouterr().err


def test_wrong_arguments_are_one_clear_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = run_cli("run", str(tmp_path / "none.toml"))
    assert missing.returncode == 2
    assert "no such file" in missing.stderr
    assert "Traceback" not in missing.stderr
    assert stopped("dance") != 0
    assert "dance" in "".join(capsys.readouterr())
    (tmp_path / "c.toml").write_text('workspace = "w"\n[[sources]]\nreader = "ga4"\npath = "none.parquet"\n')
    assert stopped("ingest", str(tmp_path / "c.toml")) == 1
    assert "none.parquet" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [0.0, 0.7])
def test_interrupt_is_a_clean_stop(bank: Path, tmp_path: Path, seconds: float) -> None:
    process = subprocess.Popen(
        [*CLI, "run", str(configured(bank, tmp_path))], stderr=subprocess.PIPE, text=True
    )
    with process, process.stderr:  # type: ignore[union-attr]
        assert process.stderr is not None
        for line in process.stderr:
            if line.strip() == "ingest":
                break
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        heard = process.stderr.read()
    assert process.returncode == 130
    assert "Stopped" in heard
    assert "Traceback" not in heard


def test_other_commands_go_on_with_what_a_demo_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Config] = []
    monkeypatch.setattr(pipeline, "run", lambda config, *, force: ran.append(config) or {})
    pipeline.demo(tmp_path / "demo", sessions=300, seed=3)
    config = load_config(tmp_path / "demo" / "simbank" / "clickintent.toml")
    assert ran == [config]
    assert (config.workspace, config.seed) == (tmp_path / "demo", 3)
    pipeline.demo(tmp_path / "demo", sessions=300, seed=4)  # another bank in its place
    assert load_config(tmp_path / "demo" / "simbank" / "clickintent.toml") == ran[1]
    assert ran[1].seed == 4
