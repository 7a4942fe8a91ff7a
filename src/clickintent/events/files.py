"""Finding raw files, here or remote, and what their names say."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from clickintent.errors import DataError
from clickintent.events import remote

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
}
#: Suffix → how a text file is packed.
PACKED = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_RAW = {*FORMATS, ".log"}  # what is taken from a folder before anything else


def files(path: str) -> list[str]:
    """The files that a path, folder, glob or URL means, sorted by name.

    Of a folder, and of the folders that a glob means, all files count whose names say that they hold data
    (.parquet, .csv, .tsv, .txt, .ndjson, .jsonl, .json, .log, packed or not), at any depth; if there is none,
    all files. Names that start with a dot or an underscore never count: ``_SUCCESS``, ``_temporary/``.

    Raises:
        DataError: if there is none, or the place cannot be reached.
        MissingDependencyError: if the package for a remote place is not installed.
    """
    if remote.is_remote(path):
        found = remote.listed(path, data_files)
    else:
        path = remote.without_file_scheme(path)
        found = _local(path)
    if not found:
        raise DataError(
            f"{remote.shown(path)}: there is no such file, or none that holds data. "
            "Correct 'path' under [[sources]]."
            if not glob.has_magic(path)
            else f"{remote.shown(path)}: no file matches. Correct 'path' under [[sources]]."
        )
    return found


def data_files(names: Iterable[str]) -> list[str]:
    """Of the names of a folder's files, relative to it, those to read, sorted."""
    seen = sorted(n for n in names if not any(part.startswith((".", "_")) for part in PurePosixPath(n).parts))
    return [name for name in seen if suffix(name) in _RAW] or seen


def file_format(path: str) -> str:
    """``parquet``, ``csv`` or ``ndjson``, by the name of the file.

    Raises:
        DataError: if the name says nothing known.
    """
    try:
        return FORMATS[suffix(path)]
    except KeyError:
        raise DataError(
            f"{remote.shown(path)}: unknown kind of file. Name it .parquet, .csv, .tsv or .ndjson "
            "(the text ones also .gz or .zst)."
        ) from None


def packing(path: str) -> str | None:
    """``gzip``, ``zstd`` or None, by the name of the file."""
    return PACKED.get(_name(path).suffix.lower())


def suffix(path: str) -> str:
    """The suffix that tells the format: not ``.gz``, nor a rotated log's number (``access.log.2.gz``)."""
    name = _name(path)
    if name.suffix.lower() in PACKED:
        name = name.with_suffix("")
    if name.suffix[1:].isdigit() and name.with_suffix("").suffix:
        name = name.with_suffix("")
    return name.suffix.lower()


def content_hash(path: str) -> str:
    """A hash of the file's bytes, whatever its name; a remote file is streamed.

    Raises:
        DataError: if the file cannot be read to its end.
        MissingDependencyError: if the package for a remote place is not installed.
    """
    found = hashlib.blake2b(digest_size=16)
    try:
        for block in remote.blocks(path):
            found.update(block)
    except OSError as error:
        raise DataError(f"{remote.shown(path)}: cannot be read: {error.strerror or error}.") from error
    return found.hexdigest()


def _local(path: str) -> list[str]:
    if os.path.isfile(path):  # noqa: PTH113
        return [path]
    if os.path.isdir(path):  # noqa: PTH112
        return _folder(path)
    if not glob.has_magic(path):
        return []
    found = sorted(glob.glob(path, recursive=True))  # noqa: PTH207
    return [p for p in found if os.path.isfile(p)] or [f for p in found for f in _folder(p)]  # noqa: PTH113


def _folder(path: str) -> list[str]:
    folder = Path(path)
    names = data_files(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return [str(folder / name) for name in names]


def _name(path: str) -> PurePosixPath:
    # what follows a ? in a web address is no part of the name
    return PurePosixPath(urlsplit(path).path if remote.is_web(path) else path)


def stamp(path: str) -> str:
    """The size and time of a file: while they stay the same, so does its content."""
    if remote.is_remote(path):
        return remote.stamp(path)
    found = Path(path).stat()
    return f"{found.st_size}-{found.st_mtime_ns}"
