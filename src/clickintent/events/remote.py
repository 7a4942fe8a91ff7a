"""Files behind URLs (s3://, gs://, az://, https://, …), by way of fsspec.

What is said of such a file names it without user, password and query: these may be secrets.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import fsspec

from clickintent.errors import ClickintentError, DataError, MissingDependencyError

_BLOCK = 4 << 20
_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
#: Here a name before the @ is a container, not a user.
_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")
#: Module → how pip calls it, where that differs.
_PACKAGES = {"smbclient": "smbprotocol", "webdav4": "webdav4[fsspec]", "git": "gitpython", "jwt": "PyJWT"}


def is_remote(path: str) -> bool:
    """Whether ``path`` is a URL of something that is not a file of this machine."""
    return bool(_URL.match(path)) and not path.startswith(("file://", "local://"))


def is_web(path: str) -> bool:
    """Whether ``path`` is a web address, which names one file and is no glob."""
    return path.startswith(("http://", "https://"))


def without_file_scheme(path: str) -> str:
    """``file:///a/b`` → ``/a/b``; other paths as they are."""
    return unquote(urlsplit(path).path) if path.startswith(("file://", "local://")) else path


def shown(path: str) -> str:
    """The path as messages and tables may name it: without user, password and query."""
    if not is_remote(path):
        return path
    scheme, rest = path.split("://", 1)
    host, slash, name = rest.partition("/")
    if scheme not in _CONTAINERS or ":" in host.rpartition("@")[0]:
        host = host.rpartition("@")[2]
    if is_web(path):
        name = re.split(r"[?#]", name, maxsplit=1)[0]
        host = re.split(r"[?#]", host, maxsplit=1)[0]
    return f"{scheme}://{host}{slash}{name}"


def listed(path: str, choose: Callable[[Iterable[str]], list[str]]) -> list[str]:
    """The files that a URL means, sorted; of a folder those that ``choose`` picks of their relative names.

    Raises:
        DataError: if the place cannot be reached.
        MissingDependencyError: if the package for it is not installed.
    """
    if is_web(path):
        return [path]  # the web has no folders to list
    with _reaching(path):
        fs, root = fsspec.core.url_to_fs(path)

        def inside(folder: str) -> list[str]:
            found = {str(name)[len(folder) :].strip("/"): str(name) for name in fs.find(folder)}
            return [_url(path, fs, found[name]) for name in choose(found)]

        if glob.has_magic(root):
            kinds: dict[str, Any] = fs.glob(root, detail=True)
            names = sorted(kinds)
            plain = [_url(path, fs, name) for name in names if kinds[name]["type"] == "file"]
            return plain or [file for name in names for file in inside(name)]
        if fs.isfile(root):
            return [path]
        return inside(root) if fs.isdir(root) else []


def stamp(path: str) -> str:
    """What the place says of a file's size and version or time; equal as long as the file is the same.

    Raises:
        DataError: if the place cannot be reached.
        MissingDependencyError: if the package for it is not installed.
    """
    with _reaching(path):
        fs, root = fsspec.core.url_to_fs(path)
        known = fs.info(root)
    marks = (
        "size",
        "ETag",
        "etag",
        "md5Hash",
        "content_md5",
        "LastModified",
        "last_modified",
        "mtime",
        "created",
    )
    return "-".join(str(known[mark]) for mark in marks if known.get(mark) is not None)


def blocks(path: str) -> Iterator[bytes]:
    """The bytes of a file, here or remote.

    Raises:
        OSError: if a local file cannot be read.
        DataError: if a remote file cannot be read to its end.
        MissingDependencyError: if the package for a remote place is not installed.
    """
    if not is_remote(path):
        with Path(without_file_scheme(path)).open("rb") as local:
            while block := local.read(_BLOCK):
                yield block
        return
    with _reaching(path):
        fs, root = fsspec.core.url_to_fs(path)
        with fs.open(root, "rb") as file:
            left = getattr(file, "size", None)
            while block := file.read(_BLOCK):
                yield block
                left = None if left is None else left - len(block)
        if left:
            raise DataError(f"{shown(path)}: {left} bytes are missing at its end. Try again.")


def download(path: str, folder: Path, number: int) -> Path:
    """Copy a remote file into ``folder``.

    Raises:
        DataError: if it cannot be read to its end.
        MissingDependencyError: if the package for the place is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # a number and the end of the name: unique, and nothing in it that a glob or a shell would understand
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", shown(path).rstrip("/").rpartition("/")[2])[-100:]
    target = folder / f"{number}-{name}"
    try:
        with target.open("wb") as file:
            for block in blocks(path):
                file.write(block)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target


def _url(path: str, fs: Any, name: str) -> str:
    """The URL of a file that was found by listing ``path``."""
    scheme, rest = path.split("://", 1)
    host = rest.partition("/")[0]
    name = name.lstrip("/")
    if scheme in _CONTAINERS and "@" in host:
        return f"{scheme}://{host}/{name.removeprefix(host.partition('@')[0] + '/')}"
    # of some protocols the names found lack the host, and with it the user
    whole = str(fs._strip_protocol(path)).lstrip("/").startswith(host)
    return f"{scheme}://{name if whole else f'{host}/{name}'}"


@contextmanager
def _reaching(path: str) -> Iterator[None]:
    """Whatever goes wrong on the way becomes an error that names the file and tells no secret."""
    try:
        yield
    except (ClickintentError, GeneratorExit):
        raise
    except ImportError as error:
        scheme = path.partition("://")[0]
        module = getattr(error.__cause__, "name", None) or getattr(error, "name", None) or scheme
        package = _PACKAGES.get(module, module)
        raise MissingDependencyError(
            f"{shown(path)}: reading {scheme}:// needs the package {package!r}. "
            f"Install it with: pip install '{package}'"
        ) from None
    except FileNotFoundError:
        raise DataError(f"{shown(path)}: no such file. Correct 'path' under [[sources]].") from None
    except Exception as error:
        # the packages behind fsspec have no common error; their texts may quote the URL with its secrets
        said = re.sub(r"\S+://\S+", shown(path), (str(error).splitlines() or [""])[0])[:200].rstrip(".")
        raise DataError(
            f"{shown(path)}: cannot be read: {type(error).__name__}{f' ({said})' if said else ''}. "
            "Check the address, the network and the credentials."
        ) from None
