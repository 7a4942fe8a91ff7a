"""The explorer: its page, which everybody may have, and its data, which need a key.

The page comes with the package and holds no data. The data are what ``clickintent explore`` wrote into the
workspace; a run that took their place is served from then on.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import re
import stat
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from clickintent.serve.door import Context, Headers, HttpError, RouteOf, with_headers
from clickintent.serve.wire import Problem

PAGE = Path(__file__).parents[1] / "explorer" / "page"
VERSION = "v1"  # of the API, as the page asks for it

#: What the page may do: run its own scripts (WebAssembly and workers, too), and ask for its own data.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; worker-src 'self' blob:; font-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_COMMON: Headers = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_OF_PAGE: Headers = (
    *_COMMON,
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (
        b"permissions-policy",
        b"camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
)
_OF_DATA: Headers = (
    *_COMMON,
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_ALWAYS, _A_DAY, _ASK, _ASK_ALONE, _NEVER = (
    "public, max-age=31536000, immutable",  # the name holds a hash
    "public, max-age=86400",
    "no-cache",
    "private, no-cache",  # not in caches that several people share
    "no-store",  # single people's: not on a disk, either
)

#: suffix → content type; what is text is compressed, and WebAssembly, too
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
}
_SMALLER = {".css", ".html", ".js", ".json", ".mjs", ".svg", ".wasm"}
_WORTH_IT, _LEVEL = 1024, 6  # bytes; of gzip
_PIECE = 65_536
_KEPT = 32 * 2**20  # bytes of files, in memory
_GZIP = re.compile(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))", re.IGNORECASE)
_SERVICE = re.compile(rb"(<meta\s+name=[\"']?clickintent-service[\"']?\s+content=)(\"\"|'')")
_SINGLE = re.compile(r"(^|/)sessions/|\.bin$")  # of the data, what holds single sessions
_MOMENT_S = 0.1


class _Icon(Convertor[str]):
    regex = r"[\w-]+\.(?:ico|png|svg)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("icon", _Icon())


@dataclass(frozen=True)
class _File:
    body: bytes
    packed: bytes | None  # by gzip, where that is smaller
    tag: str


class Folder:
    """Files of a folder. Names that lead out of it, by whatever way, are not found."""

    def __init__(self, root: Path, *, is_page: bool = False) -> None:
        self.root, self._is_page = root, is_page
        self._files = StaticFiles(directory=root, check_dir=False)
        self._kept: OrderedDict[str, _File] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def find(self, name: str) -> tuple[str, str] | None:
        """Where the file of that name is, and a tag that changes with it; None if there is none."""
        if "\\" in name or any(not part or part.startswith(".") for part in name.split("/")):
            return None
        try:
            path, found = self._files.lookup_path(name)
        except (OSError, ValueError):  # a name that is too long, or holds a null character
            return None
        if found is None or not stat.S_ISREG(found.st_mode):
            return None
        return path, _tag(found)

    def read(self, path: str, tag: str) -> _File | None:
        """The file as it is now; None if it has gone. What was read lately is kept in memory."""
        with self._lock:
            kept = self._kept.get(path)
            if kept is not None and kept.tag == tag:
                self._kept.move_to_end(path)
                return kept
        try:
            with Path(path).open("rb") as file:
                body, tag = file.read(), _tag(os.fstat(file.fileno()))
        except OSError:
            return None
        suffix = Path(path).suffix
        if self._is_page and suffix == ".html":
            body = _SERVICE.sub(rb'\1"' + VERSION.encode() + b'"', body)
        packed = None
        if suffix in _SMALLER and len(body) >= _WORTH_IT:
            packed = gzip.compress(body, _LEVEL, mtime=0)
            packed = packed if len(packed) < len(body) else None
        found = _File(body, packed, tag)
        self._keep(path, found)
        return found

    def _keep(self, path: str, file: _File) -> None:
        with self._lock:
            gone = [old] if (old := self._kept.pop(path, None)) else []
            self._kept[path] = file
            self._size += _size(file)
            while self._size - sum(map(_size, gone)) > _KEPT:
                gone.append(self._kept.popitem(last=False)[1])
            self._size -= sum(map(_size, gone))


def _size(file: _File) -> int:
    return len(file.body) + len(file.packed or b"")


def _tag(found: os.stat_result) -> str:
    return f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"


class _Pieces(Response):
    """A body sent piece by piece, as fast as it is taken: a slow client needs no memory of its own."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = b"" if scope["method"] == "HEAD" else bytes(self.body)
        for at in range(0, max(len(body), 1), _PIECE):
            more = at + _PIECE < len(body)
            await send({"type": "http.response.body", "body": body[at : at + _PIECE], "more_body": more})


async def _answer(request: Request, folder: Folder, name: str, caching: str, headers: Headers) -> Response:
    """A file, or that it has not changed.

    Raises:
        HttpError: if there is none of that name.
    """
    found = await asyncio.to_thread(folder.find, name)
    if found is None:
        raise HttpError(404, Problem("not_found", "there is no such file."))
    path, tag = found
    varies = {"vary": "Accept-Encoding"} if Path(path).suffix in _SMALLER else {}
    seen = {one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")}
    for same in seen & {f'"{tag}"', f'"{tag}-gzip"'}:
        with_headers(request.scope, headers)
        return Response(status_code=304, headers={"etag": same, "cache-control": caching, **varies})
    file = await asyncio.to_thread(folder.read, path, tag)
    if file is None:
        raise HttpError(404, Problem("not_found", "there is no such file."))
    with_headers(request.scope, headers)
    sent = {"etag": f'"{file.tag}"', "cache-control": caching, **varies}
    body = file.body
    if file.packed is not None and _GZIP.search(request.headers.get("accept-encoding", "")):
        body = file.packed
        sent |= {"content-encoding": "gzip", "etag": f'"{file.tag}-gzip"'}
    kind = _TYPES.get(Path(path).suffix, "application/octet-stream")
    return _Pieces(body, headers={"content-type": kind, **sent})


class Pages:
    """The routes of the explorer."""

    def __init__(self, page: Path, data: Path) -> None:
        """
        Args:
            page: the folder of the built page: ``index.html``, ``assets/``.
            data: the folder that ``clickintent explore`` writes.
        """
        self._page, self._data = Folder(page, is_page=True), Folder(data)

    def routes(self) -> tuple[RouteOf, ...]:
        return (
            ("GET", "/", (), self._index),
            ("GET", "/assets/{name:path}", (), self._asset),
            ("GET", "/{name:icon}", (), self._icon),
            ("GET", "/data/{name:path}", ("read", "admin"), self._datum),
        )

    async def _index(self, _: Context, request: Request) -> Response:
        try:
            return await _answer(request, self._page, "index.html", _ASK, _OF_PAGE)
        except HttpError:
            message = (
                "this installation has no page. It is built in explorer/ (make explorer); the API is here."
            )
            raise HttpError(404, Problem("not_found", message)) from None

    async def _asset(self, _: Context, request: Request) -> Response:
        name = f"assets/{request.path_params['name']}"
        return await _answer(request, self._page, name, _ALWAYS, _OF_PAGE)

    async def _icon(self, _: Context, request: Request) -> Response:
        return await _answer(request, self._page, request.path_params["name"], _A_DAY, _OF_PAGE)

    async def _datum(self, _: Context, request: Request) -> Response:
        name, folder = request.path_params["name"], self._data
        caching = _NEVER if _SINGLE.search(name) else _ASK_ALONE
        try:
            return await _answer(request, folder, name, caching, _OF_DATA)
        except HttpError:
            if await asyncio.to_thread(folder.root.is_dir):
                raise
        await asyncio.sleep(_MOMENT_S)  # between two renames the folder is away
        try:
            return await _answer(request, folder, name, caching, _OF_DATA)
        except HttpError:
            message = "there is nothing to explore yet. Run 'clickintent explore FILE.toml' first."
            raise HttpError(404, Problem("not_found", message)) from None
