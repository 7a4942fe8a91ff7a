"""The files beside an Adobe data feed: column names and the names that ids stand for.

A delivery brings them in ``<report suite>_<date>-lookup_data.tar.gz`` (or .zip), hourly feeds once a day:
https://experienceleague.adobe.com/docs/analytics/export/analytics-data-feed/data-feed-contents/datafeeds-contents.html.
"""

from __future__ import annotations

import re
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePath

from clickintent.errors import DataError

HEADERS = "column_headers.tsv"
COUNTRIES = "country.tsv"


@dataclass(frozen=True)
class Lookups:
    columns: tuple[str, ...]
    countries: dict[str, str]  # number → name


def lookups(path: str, given: str = "") -> Lookups:
    """What belongs to the data file at ``path``.

    Args:
        given: a folder or an archive; if empty, it is looked for beside the data file.

    Raises:
        DataError: if there are no column names, or they cannot be read.
    """
    place = Path(given) if given else beside(path)
    if place is None:
        raise DataError(
            f"{path}: beside it is neither {HEADERS} nor an archive …lookup_data.tar.gz that says what its "
            "columns are. Put it there, or name it in 'lookups' under [[sources]]."
        )
    try:
        texts = _read(place)
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise DataError(f"{place}: cannot be read as the lookups of an Adobe data feed: {error}.") from error
    columns = tuple(
        name.strip() for name in texts.get(HEADERS, "").splitlines()[0:1] for name in name.split("\t")
    )
    if len(columns) < 2 or len(set(columns)) < len(columns):
        raise DataError(
            f"{place}: holds no {HEADERS} with the names of the columns, each once, between tabs."
        )
    rows = [line.split("\t") for line in texts.get(COUNTRIES, "").splitlines()]
    return Lookups(columns, {row[0]: row[1] for row in rows if len(row) > 1 and row[0] != "0"})


def beside(path: str) -> Path | None:
    """The folder of the data file if it holds the column names, else the fitting archive in it, else None."""
    folder = Path(path).parent
    if (folder / HEADERS).is_file():
        return folder
    found = sorted(
        p for p in folder.glob("*lookup_data*") if p.name.endswith((".tar.gz", ".tgz", ".tar", ".zip"))
    )
    # 01-suite_2026-03-02-130000.tsv.gz belongs to suite_2026-03-02-…-lookup_data.tar.gz
    day = re.match(r"(?:\d+-)?(.+?_\d{4}-\d{2}-\d{2})", Path(path).name)
    fitting = [p for p in found if day and p.name.startswith(day[1])]
    return (fitting or found)[-1] if found else None


def _read(place: Path) -> dict[str, str]:
    """Name → text of the wanted files of a folder or archive; nothing is unpacked to disk."""
    wanted = (HEADERS, COUNTRIES)
    if place.is_dir():
        return {name: _text((place / name).read_bytes()) for name in wanted if (place / name).is_file()}
    found: dict[str, str] = {}
    if place.suffix.lower() == ".zip":
        with zipfile.ZipFile(place) as packed:
            for name in packed.namelist():
                if PurePath(name).name in wanted:
                    found[PurePath(name).name] = _text(packed.read(name))
        return found
    with tarfile.open(place) as archive:
        for member in archive:
            if PurePath(member.name).name in wanted and (file := archive.extractfile(member)):
                found[PurePath(member.name).name] = _text(file.read())
    return found


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")  # what Adobe's older deliveries are written in
