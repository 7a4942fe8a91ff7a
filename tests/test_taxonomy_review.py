"""Review, approval and relabelling on a small workspace, through the command line."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest

import factories
from clickintent import Taxonomy, pipeline
from clickintent.cli import main
from clickintent.config import Config
from clickintent.errors import ArtifactError, WorkspaceError
from clickintent.taxonomy import novelty
from clickintent.taxonomy.history import read
from clickintent.taxonomy.novelty import Evidence, Proposal
from clickintent.taxonomy.review import CommandError, Walk
from test_taxonomy_contract import taxonomy
from workspaces import copy_of, toml, workspace


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a draft and labels of the keyword namer."""
    folder = tmp_path_factory.mktemp("review") / "w"
    config = workspace(folder, factories.themed_sessions(200))
    pipeline.draft_taxonomy(config)
    pipeline.label(config)
    return folder


@pytest.fixture
def config(labelled: Path, tmp_path: Path) -> Config:
    return copy_of(labelled, tmp_path)


def current(config: Config) -> Taxonomy:
    return Taxonomy.load(config.workspace / "taxonomy.yaml")


def history(config: Config) -> list[tuple[str, str, str | None]]:
    return [(d.by, d.action, d.intent) for d in read(config.workspace / "taxonomies" / "history.jsonl")]


def run(*arguments: str, code: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == code


def review(config: Config, *lines: str, code: int = 0) -> None:
    path = config.workspace.parent / "commands.txt"
    path.write_text("\n".join(lines))
    run("taxonomy", "review", toml(config), "--by", "Kim", "--commands", str(path), code=code)


def labels(config: Config) -> pa.Table:
    return pq.read_table(config.workspace / "labels" / "teacher.parquet")


def test_a_review_makes_one_version_and_says_who_decided(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    before = current(config)
    first, second, third, *_ = before.intent_ids
    review(
        config,
        "# comments are for people",
        "approve",
        "rename Something else -- clearer",
        "skip",
        f"merge {first} -- the same",
        f"go {second}",
        "approve",
        "quit",
        "reject",
    )
    after = current(config)
    assert after.version == before.version + 1
    assert Taxonomy.load(config.workspace / "taxonomies" / f"v{after.version}.yaml") == after
    archived = Taxonomy.load(config.workspace / "taxonomies" / f"v{before.version}.yaml")
    assert archived.digest == before.digest
    assert archived.intent(first).is_approved
    assert after.intent(second).name == "Something else"
    assert after.intent(second).is_approved
    assert after.successors(third) == (first,)
    assert not after.intent(first).is_approved  # it was, before it was merged with another one
    assert history(config) == [
        ("the keyword namer", "draft", None),
        ("Kim", "approve", first),
        ("Kim", "rename", second),
        ("Kim", "merge", third),
        ("Kim", "approve", second),
    ]
    assert read(config.workspace / "taxonomies" / "history.jsonl")[3].why == "the same"
    assert f"merged: {third}" in capsys.readouterr().out


def test_a_wrong_line_stops_and_keeps_what_came_before(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    review(config, "rename One", "rename Two", "dance", "reject", code=1)
    told = " ".join(capsys.readouterr().err.split())
    assert "commands.txt, line 3: 'dance' is none of" in told
    assert current(config).intents[0].name == "Two"
    assert current(config).version == 2
    assert [action for _, action, _ in history(config)] == ["draft", "rename", "rename"]
    review(config, "rename Three")
    assert current(config).version == 3  # the review that was cut off made version 2
    names = [Taxonomy.load(config.workspace / f"taxonomies/v{n}.yaml").intents[0].name for n in (2, 3)]
    assert names == ["Two", "Three"]


def test_first_letters_are_enough_where_they_are_of_one_command(config: Config) -> None:
    first, second, *_ = current(config).intent_ids
    review(config, "a", "ren Something else", "sk", "b", "g " + first, "q")
    assert history(config)[1:] == [("Kim", "approve", first), ("Kim", "rename", second)]
    review(config, "r", code=1)  # rename, redefine or reject
    review(config, "d", code=1)  # only a proposal can be dismissed
    assert len(history(config)) == 3


@pytest.mark.parametrize("ends_with_ctrl_c", [True, False])
def test_in_a_terminal_each_intent_is_shown_and_a_wrong_word_is_asked_again(
    config: Config, ends_with_ctrl_c: bool
) -> None:
    terminal, its_end = pty.openpty()
    command = [sys.executable, "-m", "clickintent", "taxonomy", "review", toml(config), "--by", "Kim"]
    environment = {**os.environ, "TERM": "dumb", "COLUMNS": "120"}
    process = subprocess.Popen(command, stdin=its_end, stdout=its_end, stderr=its_end, env=environment)
    told = ""

    def until(wanted: str, again: Callable[[], object] = lambda: None) -> None:
        """Read on; what came between prompt and reading can be lost: it is done again when nothing comes."""
        nonlocal told
        told, end = "", time.monotonic() + 120
        while wanted not in told:
            assert time.monotonic() < end, told
            if select.select([terminal], [], [], 2)[0]:
                told += os.read(terminal, 65536).decode(errors="replace")
            else:
                again()

    def leave() -> None:
        if ends_with_ctrl_c:
            process.send_signal(signal.SIGINT)
        else:
            os.write(terminal, b"\x04")  # Ctrl-D

    names = [intent.name for intent in current(config).intents]
    try:
        until("> ")
        assert names[0] in told
        os.write(terminal, b"dance\n")
        until("> ")
        assert "'dance' is none of skip" in " ".join(told.split())
        os.write(terminal, b"approve\n")
        until("> ")
        assert names[1] in told
        leave()
        until("history.jsonl", again=leave)
        assert process.wait() == (130 if ends_with_ctrl_c else 0)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
        os.close(its_end)
    assert [action for _, action, _ in history(config)] == ["draft", "approve"]


def test_ctrl_c_loses_nothing_that_was_decided(config: Config) -> None:
    command = [sys.executable, "-m", "clickintent", "taxonomy", "review", toml(config), "--by", "Kim"]
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=dict(os.environ), **pipes) as process:  # type: ignore[call-overload]
        process.stdin.write("rename First\nreject\n")
        process.stdin.flush()
        heard = ""
        while "reject" not in heard:
            heard += process.stderr.readline()
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=120)
        finally:
            process.kill()
        heard += process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in heard
    assert [d[1:] for d in history(config)][1:] == [("rename", "i01"), ("reject", "i01")]
    assert current(config).retired[0].id == "i01"


def test_approval_goes_into_file_version_and_history(config: Config) -> None:
    run("taxonomy", "approve", toml(config), "--by", "Lee")
    approved = current(config)
    assert (approved.version, approved.approved_by, approved.is_approved) == (1, "Lee", True)
    assert Taxonomy.load(config.workspace / "taxonomies" / "v1.yaml") == approved
    assert history(config)[-1] == ("Lee", "approve", None)


def test_a_file_edited_by_hand_is_a_version_before_it_is_used(config: Config) -> None:
    path = config.workspace / "taxonomy.yaml"
    before = current(config)
    kept = before.model_copy(update={"intents": before.intents[1:]})
    kept.save(path)
    run("taxonomy", "approve", toml(config), "--by", "Lee")
    after = current(config)
    assert after.version == 2
    assert [r.id for r in after.retired] == ["i01"]
    assert [action for _, action, _ in history(config)] == ["draft", "edit", "approve"]
    assert pipeline.draft_taxonomy(config.model_copy(update={"seed": 99}))["taxonomy"][
        "kept"
    ]  # a draft does not replace what people made
    lines = (
        path.read_text()
        .replace("- id: i02", "- id: i01", 1)
        .replace("retired:\n- id: i01", "retired:\n- id: i99")
    )
    path.write_text(lines)
    with pytest.raises(ArtifactError, match="i01 was the id of"):
        pipeline.label(config)


def test_a_review_does_not_overwrite_somebody_elses_change(config: Config) -> None:
    started = pipeline.review(config, "Kim")
    pipeline.review(config, "Lee").follow("rename By Lee")
    with pytest.raises(WorkspaceError, match="changed while it was being reviewed"):
        started.follow("rename By Kim")
    assert current(config).intents[0].name == "By Lee"


def test_a_version_that_was_labelled_meanwhile_stays_as_it_was(config: Config) -> None:
    started = pipeline.review(config, "Kim")
    started.follow("rename First")
    pipeline.label(config)  # a nightly run
    second = Taxonomy.load(config.workspace / "taxonomies" / "v2.yaml")
    started.follow("rename Second")
    started.follow("reject")
    assert started.finish().version == 3
    assert Taxonomy.load(config.workspace / "taxonomies" / "v2.yaml") == second
    assert current(config).retired[0].version == 3
    assert pipeline.label(config)["labels"]["relabelled"]["kept"] > 0


def test_a_signature_that_was_given_meanwhile_is_not_lost(config: Config) -> None:
    ana, bo = (pipeline.review(config, name) for name in ("Ana", "Bo"))
    ana.follow("approve")
    with pytest.raises(WorkspaceError, match="was changed while"):
        bo.follow("reject")
    pipeline.approve(config, "Boss")
    with pytest.raises(WorkspaceError, match="was changed while"):
        ana.follow("approve")
    assert current(config).approved_by == "Boss"
    assert current(config).intents[0].is_approved


def test_commands_may_come_from_an_editor_of_windows(config: Config) -> None:
    path = config.workspace.parent / "commands.txt"
    path.write_bytes("approve\r\n# so far\r\nquit\r\n".encode("utf-8-sig"))
    run("taxonomy", "review", toml(config), "--by", "Kim", "--commands", str(path))
    assert [action for _, action, _ in history(config)] == ["draft", "approve"]


def redrafted(config: Config, intents: int) -> Config:
    """The same with another number of intents wanted."""
    return config.model_copy(update={"taxonomy": config.taxonomy.model_copy(update={"intents": intents})})


def test_a_deleted_file_leaves_its_versions(config: Config) -> None:
    first = current(config)
    (config.workspace / "taxonomy.yaml").unlink()
    other = redrafted(config, 2)
    pipeline.draft_taxonomy(other)
    after = current(other)
    assert after.version == 2
    assert Taxonomy.load(config.workspace / "taxonomies" / "v1.yaml") == first
    for intent in after.intents:  # an id means what it always meant
        assert intent.id not in first.intent_ids or first.intent(intent.id).name == intent.name
    pipeline.label(other)
    assert set(labels(other)["intent_id"].to_pylist()) <= set(after.intent_ids)


@pytest.mark.parametrize("saves", [0, 1])
def test_a_kill_while_a_draft_is_kept_costs_nothing(
    config: Config, saves: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = current(config)
    other, done = redrafted(config, 2), []
    save = Taxonomy.save

    def killed(self: Taxonomy, path: Path) -> None:
        if len(done) == saves:
            raise KeyboardInterrupt
        done.append(path)
        save(self, path)

    with monkeypatch.context() as patched:
        patched.setattr(Taxonomy, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            pipeline.draft_taxonomy(other, force=True)
    pipeline.label(other)
    assert labels(other).num_rows
    pipeline.draft_taxonomy(other, force=True)
    after = current(other)
    assert after.version == 2
    assert len(after.intents) == 2
    assert Taxonomy.load(config.workspace / "taxonomies" / "v1.yaml") == first
    assert [action for _, action, _ in history(other)] == ["draft", "draft"]


def test_keyword_labels_follow_a_name_that_is_all_that_is_known(config: Config) -> None:
    review(config, "split One thing: It is one. | Another thing: It is another.")
    pipeline.label(config)
    new = current(config).intent_ids[0]
    review(config, f"go {new}", "rename Mortgages")
    pipeline.label(config)
    by_change = labels(config)
    pipeline.label(config, force=True)
    assert by_change.equals(labels(config))
    assert new in by_change["intent_id"].to_pylist()


def test_the_walk_goes_by_what_is_open() -> None:
    walk = Walk(taxonomy(3), "Kim")
    for line in ("approve", "skip", "approve", ""):
        walk.follow(line)
    assert walk.here is None
    with pytest.raises(CommandError, match="nothing left"):
        walk.follow("approve")
    walk.follow("back")
    assert walk.here is walk.taxonomy.intents[2]
    again = Walk(walk.taxonomy, "Kim")
    assert again.queue == ["i02"]
    again.follow("go i03")
    assert again.here is again.taxonomy.intents[2]
    again.follow("list")
    assert "i02  Name 2" in again.said
    again.follow("help")
    assert "merge ID" in again.said
    for line, message in (
        ("go i44", "no intent or proposal"),
        ("rename", "needs something"),
        ("split A", "NAME: DEFINITION"),
        ("accept", "does not go with"),
        ("merge i77", "no intent 'i77'"),
        ("reject i01", "takes nothing after it"),
        ("approve\ti02", "takes nothing after it"),
    ):
        with pytest.raises(ArtifactError, match=message):
            again.follow(line)
    assert again.taxonomy == walk.taxonomy
    assert Walk(walk.taxonomy, "Kim", everything=True).queue == ["i01", "i02", "i03"]


def proposal(id_: str, name: str) -> Proposal:
    evidence = Evidence(
        sessions=60, visitors=20, share=0.1, unsure_share=0.9, weeks={"2026-W10": 60}, growth=None
    )
    return Proposal(
        id=id_,
        name=name,
        definition=f"About {name}.",
        area="Loans",
        includes=("a",),
        keywords={"car": 1.0},
        examples=("Car loans",),
        evidence=evidence,
    )


def test_proposals_are_accepted_or_dismissed(config: Config) -> None:
    path = config.workspace / "proposals.yaml"
    novelty.save([proposal("p1", "Car loans"), proposal("p2", "Noise")], path)
    assert novelty.load(path)[0] == proposal("p1", "Car loans")
    review(config, "go p1", "accept Loans for cars", "dismiss -- a campaign", "approve")
    now = current(config)
    added = now.intents[-1]
    assert added.id not in Taxonomy.load(config.workspace / "taxonomies" / "v1.yaml").intent_ids
    assert (added.name, added.area, added.weighted_keywords()) == ("Loans for cars", "Loans", {"car": 1.0})
    assert added.is_approved
    assert novelty.load(path) == ()
    assert [d[1:] for d in history(config)][1:] == [
        ("accept", "p1"),
        ("dismiss", "p2"),
        ("approve", added.id),
    ]
    path.write_text("- id: p1\n  name: 3\n")
    with pytest.raises(ArtifactError, match=r"line 2: name"):
        novelty.load(path)


def test_labels_follow_the_taxonomy(config: Config) -> None:
    before = labels(config)
    review(config, "rename Another name", "move Elsewhere")
    counts = pipeline.label(config)["labels"]["relabelled"]
    assert (counts["kept"], counts["asked"]) == (200, 0)
    assert labels(config).equals(before)

    review(config, "merge i02")
    merged = pipeline.label(config)["labels"]
    counts = merged["relabelled"]
    with_first = len(
        set(before.filter(pa.compute.equal(before["intent_id"], "i01"))["session_id"].to_pylist())
    )
    assert (counts["mapped"], counts["asked"]) == (with_first, 0)
    assert counts["kept"] + counts["mapped"] == merged["sessions"] == 200
    assert "i01" not in labels(config)["intent_id"].to_pylist()

    old = labels(config)
    touched = set(old.filter(pa.compute.equal(old["intent_id"], "i03"))["session_id"].to_pylist())
    review(config, "go i03", "reject")
    counts = pipeline.label(config)["labels"]["relabelled"]
    assert counts["asked"] == counts["asked_touched"] == len(touched) > 0
    kept = [row for row in old.to_pylist() if row["session_id"] not in touched]
    assert [row for row in labels(config).to_pylist() if row["session_id"] not in touched] == kept

    everything = pipeline.label(config, force=True)["labels"]["relabelled"]
    assert everything == {"sessions": 200, "kept": 0, "mapped": 0, "asked": 200}
    assert set(labels(config)["taxonomy_version"].to_pylist()) == {4}


def test_another_setting_asks_everybody_again(config: Config) -> None:
    review(config, "rename Another name")
    other = config.model_copy(update={"labels": config.labels.model_copy(update={"min_confidence": 0.3})})
    assert pipeline.label(other)["labels"]["relabelled"]["asked"] == 200


def test_weights_add_up_to_the_sessions(config: Config) -> None:
    annotated = pq.read_table(config.workspace / "labels" / "annotated.parquet")
    assert sum(annotated["weight"].to_pylist()) == pytest.approx(200)
