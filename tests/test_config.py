from __future__ import annotations

from pathlib import Path

import pytest

from clickintent.config import load_config
from clickintent.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "clickintent.toml"
    path.write_text(text)
    return path


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = load_config(
        write(
            tmp_path,
            'workspace = "out"\n[[sources]]\nreader = "table"\npath = "raw/*.csv"\n'
            'columns = {visitor_id = "v", ts = "t", page = "p", path = "x"}\n'
            '[encoder]\ntext = "hashed"\n[conversion]\nkind = "account"\npath = "c.parquet"\n',
        )
    )
    assert config.workspace == tmp_path / "out"
    assert config.sources[0].path == str(tmp_path / "raw" / "*.csv")
    assert config.sources[0].columns["path"] == "x"  # a column called path is not a path
    assert config.encoder.text == "hashed"
    assert config.conversion is not None
    assert config.conversion.kind == "account"
    assert config.conversion.path == tmp_path / "c.parquet"


def test_environment_variables_are_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(
        tmp_path,
        'workspace = "${SOMEWHERE:-runs}/x"\n[[sources]]\nreader = "ga4"\npath = "${RAW_FOLDER}/a.parquet"\n',
    )
    monkeypatch.delenv("RAW_FOLDER", raising=False)
    with pytest.raises(ConfigError, match=r"sources\[0\].path.*RAW_FOLDER is not set"):
        load_config(path)
    monkeypatch.setenv("RAW_FOLDER", "/data")
    config = load_config(path)
    assert config.workspace == tmp_path / "runs" / "x"
    assert config.sources[0].path == "/data/a.parquet"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("workspace = 3 3", "not valid TOML"),
        ("seed = 1", "workspace: is required"),
        ('workspace = "x"\nsede = 1', "sede: unknown key"),
        ('workspace = "x"\n[encoder]\nwidht = 3', r"encoder\.widht: unknown key"),
        ('workspace = "x"\n[encoder]\nwidth = 30', r"multiple of heads"),
        ('workspace = "x"\n[sessions]\ninactivity_minutes = -1', r"sessions\.inactivity_minutes.*-1"),
        ('workspace = "x"\n[conversion]\nkind = "in_session"', "exactly one of page and event_type"),
        ('workspace = "x"\n[llm]\nbackend = "openai"', r"llm.model"),
    ],
)
def test_wrong_files_say_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: no such file"):
        load_config(tmp_path / "nowhere.toml")


def test_split_dates_are_utc(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, 'workspace = "x"\n[split]\nat = 2017-04-17'))
    assert config.split.at_us == 1_492_387_200_000_000
