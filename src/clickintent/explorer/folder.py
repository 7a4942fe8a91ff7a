"""The folder on disk: small JSON files, two of bytes, and the page."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "page"
#: Ids of intents are file names; the taxonomy lets no others through, labels from elsewhere might.
_FILE = re.compile(r"[\w-]+")
_NO_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>clickintent</title>
<p>This installation has no page of the explorer: run <code>make explorer</code> where clickintent comes
from, then <code>clickintent explore FILE.toml</code> again. The data are under <code>data/</code>.
</html>
"""


@dataclass(frozen=True)
class Export:
    """All that is written.

    Attributes:
        run: names the folder under data/ with all that belongs together: whoever has read the overview of one
            run never reads the rest of another.
        overview: data/overview.json.
        documents: name under data/RUN/ → value of a JSON file.
        intents: id → detail.
        shards: sessions, file by file.
        binaries: name under data/RUN/ → bytes.
    """

    run: str
    overview: Mapping[str, Any]
    documents: Mapping[str, Any]
    intents: Mapping[str, Any]
    shards: Iterable[Any]
    binaries: Mapping[str, bytes]


def write(export: Export, folder: Path, page: Path = PAGE) -> None:
    """Write everything into ``folder``, which is made.

    Args:
        page: folder of the built page. Where it is not there, as in a checkout that was never built, the data
            are written all the same, beside a page that says so.
    """
    if (page / "index.html").exists():
        shutil.copytree(page, folder, ignore=shutil.ignore_patterns("data"))
    else:
        folder.mkdir(parents=True)
        (folder / "index.html").write_text(_NO_PAGE, encoding="utf-8")
    data = folder / "data" / export.run
    for name in ("intents", "sessions"):
        (data / name).mkdir(parents=True)
    for name, value in export.documents.items():
        (data / name).write_text(compact(value), encoding="utf-8")
    for id_, value in export.intents.items():
        if _FILE.fullmatch(id_):
            (data / "intents" / f"{id_}.json").write_text(compact(value), encoding="utf-8")
    for number, shard in enumerate(export.shards):
        (data / "sessions" / f"{number}.json").write_text(compact(shard), encoding="utf-8")
    for name, raw in export.binaries.items():
        (data / name).write_bytes(raw)
    (folder / "data" / "overview.json").write_text(
        compact({**export.overview, "run": export.run}), encoding="utf-8"
    )


def compact(value: Any) -> str:
    """JSON without white space.

    Raises:
        ValueError: if a number is not finite.
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
