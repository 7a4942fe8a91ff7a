from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clickintent.errors import WorkspaceError
from clickintent.workspace import Workspace, atomically, open_workspace, write_table


def count_calls(workspace: Workspace, calls: list[int], **options: object) -> dict[str, object]:
    def work() -> dict[str, object]:
        calls.append(1)
        workspace.path("out.txt").write_text("made")
        return {"section": {"calls": len(calls)}}

    arguments: dict[str, object] = {"made_from": ["a", 1], "outputs": ["out.txt"], **options}
    return workspace.stage("stage", work, **arguments)  # type: ignore[arg-type]


def test_stage_runs_once_until_something_changes(tmp_path: Path) -> None:
    calls: list[int] = []
    with open_workspace(tmp_path) as workspace:
        count_calls(workspace, calls)
        assert count_calls(workspace, calls) == {"section": {"calls": 1}}
        first = workspace.record("stage")
        count_calls(workspace, calls, made_from=["a", 2])
        assert len(calls) == 2
        assert workspace.record("stage") != first
        count_calls(workspace, calls, made_from=["a", 2], force=True)
        assert len(calls) == 3
        workspace.path("out.txt").unlink()
        count_calls(workspace, calls, made_from=["a", 2])
        assert len(calls) == 4
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"section": {"calls": 4}}


def test_failed_stage_leaves_no_record(tmp_path: Path) -> None:
    calls: list[int] = []

    def fail() -> dict[str, object]:
        raise RuntimeError("disk full")

    with open_workspace(tmp_path) as workspace:
        count_calls(workspace, calls)
        with pytest.raises(RuntimeError, match="disk full"):
            workspace.stage("stage", fail, made_from=["b"], outputs=["out.txt"])
        assert workspace.record("stage") == ""
        count_calls(workspace, calls)
    assert len(calls) == 2


@pytest.mark.parametrize("is_folder", [False, True])
def test_atomic_writes_keep_the_old_on_failure(tmp_path: Path, is_folder: bool) -> None:
    target = tmp_path / "target"

    def write(path: Path, text: str) -> None:
        if is_folder:
            path.mkdir()
            path = path / "file"
        path.write_text(text)

    def content() -> str:
        return (target / "file" if is_folder else target).read_text()

    with atomically(target) as temporary:
        write(temporary, "old")
    with pytest.raises(RuntimeError), atomically(target) as temporary:
        write(temporary, "half")
        raise RuntimeError
    assert content() == "old"
    with atomically(target) as temporary:
        write(temporary, "new")
    assert content() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["target"]


def test_write_table_round_trip(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2, 3]})
    write_table(table, tmp_path / "deep" / "a.parquet")
    assert pq.read_table(tmp_path / "deep" / "a.parquet").equals(table)


def test_second_process_is_refused(tmp_path: Path) -> None:
    with open_workspace(tmp_path):
        code = (
            "import sys; from pathlib import Path\n"
            "from clickintent.workspace import open_workspace\n"
            "with open_workspace(Path(sys.argv[1])): pass"
        )
        other = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert other.returncode != 0
    assert "in use by another" in other.stderr
    with open_workspace(tmp_path):
        pass  # free again


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    leftover = tmp_path / "labels" / ".tmp-123-part"
    leftover.mkdir(parents=True)
    with open_workspace(tmp_path):
        assert not leftover.exists()


def test_workspace_must_be_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(WorkspaceError, match="is a file"), open_workspace(path):
        pass


@pytest.mark.parametrize("new_is_there", [True, False])
def test_killed_between_its_two_renames_a_folder_is_put_in_place(tmp_path: Path, new_is_there: bool) -> None:
    for name in ("old-encoder", *(["encoder"] if new_is_there else [])):
        (tmp_path / f".tmp-123-{name}").mkdir()
        (tmp_path / f".tmp-123-{name}" / "file").write_text(name)
    with open_workspace(tmp_path):
        expected = "encoder" if new_is_there else "old-encoder"
        assert (tmp_path / "encoder" / "file").read_text() == expected
        assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == ["encoder"]
