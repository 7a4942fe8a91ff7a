"""The explorer's page and data, as a browser meets them; and who may ask where no key is asked for."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.testclient import TestClient

from clickintent.config import Config
from clickintent.serve import api_keys, pages
from clickintent.serve.app import create_app
from clickintent.serve.model import Models
from serving import NoModels, client_of

INDEX = '<!doctype html>\n<head><meta name="clickintent-service" content="" /></head>\n'
OVERVIEW = json.dumps({"format": 1, "title": "A bank", "made_at": "x" * 2000})


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built page."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "assets").mkdir()
    (folder / "index.html").write_text(INDEX)
    (folder / "icon.svg").write_text("<svg/>")
    for name in ("index-1a2b.js", "index-3c4d.css", "worker-5e6f.wasm"):
        (folder / "assets" / name).write_text("x" * 5000)
    return folder


def explored(workspace: Path, text: str = OVERVIEW) -> Path:
    """What ``clickintent explore`` leaves, put into place as the stage does."""
    new = workspace / "new"
    (new / "data" / "intents").mkdir(parents=True)
    (new / "data" / "overview.json").write_text(text)
    (new / "data" / "points.bin").write_bytes(bytes(range(256)) * 10)
    (new / "data" / "intents" / "i01.json").write_text("{}")
    shutil.rmtree(workspace / "explorer", ignore_errors=True)
    new.rename(workspace / "explorer")
    return workspace / "explorer" / "data"


def app(workspace: Path, page: Path) -> Starlette:
    return create_app(Config(workspace=workspace), models=cast(Models, NoModels()), page=page)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "w").mkdir()
    return tmp_path / "w"


@pytest.fixture
def client(workspace: Path, page: Path) -> Iterator[TestClient]:
    explored(workspace)
    with client_of(app(workspace, page)) as client:
        yield client


# --- the page ---


def test_the_page_knows_that_it_is_served(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.text == INDEX.replace('content=""', 'content="v1"')
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"


def test_the_page_may_do_only_what_it_must(client: TestClient) -> None:
    for path in ("/", "/assets/index-1a2b.js", "/icon.svg"):
        headers = client.get(path).headers
        directives = headers["content-security-policy"].split("; ")
        policy = {name: rest for name, _, rest in (one.partition(" ") for one in directives)}
        assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
        assert policy["connect-src"] == "'self'"
        assert "unsafe-inline" not in policy["script-src"]
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert "geolocation=()" in headers["permissions-policy"]
    for path in ("/healthz", "/nowhere", "/assets/nothing.js", "/data/nothing.json"):
        headers = client.get(path).headers
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["cache-control"] == "no-store"


def test_assets_have_their_types_and_stay(client: TestClient) -> None:
    for name, kind in (
        ("index-1a2b.js", "text/javascript; charset=utf-8"),
        ("index-3c4d.css", "text/css; charset=utf-8"),
        ("worker-5e6f.wasm", "application/wasm"),
    ):
        answer = client.get(f"/assets/{name}")
        assert answer.text == "x" * 5000
        assert answer.headers["content-type"] == kind
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert client.get("/icon.svg").headers["content-type"] == "image/svg+xml"


def test_an_installation_without_a_page_says_so(workspace: Path, tmp_path: Path) -> None:
    with client_of(app(workspace, tmp_path / "nothing")) as client:
        answer = client.get("/")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert client.get("/healthz").status_code == 200


# --- the data ---


def test_data_are_asked_for_anew_and_sent_when_they_changed(client: TestClient, workspace: Path) -> None:
    first = client.get("/data/overview.json", headers={"Accept-Encoding": "identity"})
    assert first.json()["title"] == "A bank"
    assert "content-encoding" not in first.headers
    packed = client.get("/data/overview.json", headers={"Accept-Encoding": "br, gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < len(first.content)
    assert packed.content == first.content
    assert packed.headers["etag"] != first.headers["etag"]
    for answer in (first, packed):
        assert answer.headers["cache-control"] == "private, no-cache"
        assert answer.headers["vary"] == "Accept-Encoding"
        again = client.get(
            "/data/overview.json", headers={"If-None-Match": f'W/{answer.headers["etag"]}, "x"'}
        )
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == answer.headers["etag"]
        assert again.headers["cache-control"] == "private, no-cache"
    explored(workspace, OVERVIEW.replace("A bank", "B bank"))
    after = client.get("/data/overview.json", headers={"If-None-Match": first.headers["etag"]})
    assert (after.status_code, after.json()["title"]) == (200, "B bank")


def test_no_gzip_for_who_refuses_it_and_for_what_it_does_not_help(client: TestClient) -> None:
    refused = client.get("/data/overview.json", headers={"Accept-Encoding": "gzip;q=0, deflate"})
    assert "content-encoding" not in refused.headers
    points = client.get("/data/points.bin", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in points.headers
    assert points.content == bytes(range(256)) * 10
    assert points.headers["content-type"] == "application/octet-stream"
    assert "content-encoding" not in client.get("/data/intents/i01.json").headers  # too small


def test_single_peoples_data_stay_in_no_cache(client: TestClient, workspace: Path) -> None:
    run = workspace / "explorer" / "data" / "1a2b"
    single, counts = ("points.bin", "vectors.bin", "sessions/0.json"), ("pages.json", "intents/sessions.json")
    for name in (*single, *counts):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("[]")
    for names, caching in ((single, "no-store"), (counts, "private, no-cache")):
        for name in names:
            answer = client.get(f"/data/1a2b/{name}")
            assert (answer.status_code, answer.headers["cache-control"]) == (200, caching)


@pytest.mark.parametrize("path", ["/", "/assets/index-1a2b.js", "/data/overview.json"])
def test_head_tells_what_get_would(client: TestClient, path: str) -> None:
    got, told = client.get(path), client.head(path)
    assert (told.status_code, told.content) == (200, b"")
    assert told.headers == got.headers
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = client.request(method, path)
        assert answer.status_code == 405
        assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_before_anything_was_explored_it_says_what_to_run_and_then_serves_it(
    workspace: Path, page: Path
) -> None:
    with client_of(app(workspace, page)) as client:
        answer = client.get("/data/overview.json")
        assert answer.status_code == 404
        assert "clickintent explore" in answer.json()["message"]
        assert client.get("/").status_code == 200
        explored(workspace)
        assert client.get("/data/overview.json").json()["title"] == "A bank"
        missing = client.get("/data/drift.json")
        assert (missing.status_code, missing.json()["message"]) == (404, "there is no such file.")


def test_data_need_a_key_that_may_read_and_the_page_needs_none(workspace: Path, page: Path) -> None:
    explored(workspace)
    secrets = {scope: api_keys.add(workspace, scope, [scope]) for scope in api_keys.SCOPES}
    with client_of(app(workspace, page)) as client:
        for path in ("/", "/assets/index-1a2b.js", "/icon.svg"):
            assert client.get(path).status_code == 200
        refused = client.get("/data/overview.json")
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert "bank" not in refused.text
        expected = {"read": 200, "admin": 200, "write": 403}
        for scope, status in expected.items():
            headers = {"Authorization": f"Bearer {secrets[scope]}"}
            assert client.get("/data/overview.json", headers=headers).status_code == status
            assert client.head("/data/points.bin", headers=headers).status_code == status
        same = {"If-None-Match": "*"}
        assert client.get("/data/overview.json", headers=same).status_code == 401


# --- names that lead elsewhere ---


@pytest.mark.parametrize(
    "name",
    [
        "..%2f..%2fsecret.json",
        "%2e%2e/%2e%2e/secret.json",
        "..%5c..%5csecret.json",
        "%252e%252e/secret.json",
        "intents/..%2f..%2f..%2fsecret.json",
        "%2fetc%2fpasswd",
        "/etc/passwd",
        "link.json",
        "away/secret.json",
        ".hidden.json",
        "intents",
        "intents/",
        "overview.json/",
        "overview.json%00",
        "a" * 5000,
        "",
    ],
)
def test_nothing_outside_the_folder_is_served(client: TestClient, workspace: Path, name: str) -> None:
    data = workspace / "explorer" / "data"
    (workspace / "secret.json").write_text("secret")
    (data / ".hidden.json").write_text("secret")
    (data / "link.json").symlink_to(workspace / "secret.json")
    (data / "away").symlink_to(workspace)
    for place in ("data", "assets"):
        answer = client.get(f"/{place}/{name}")
        assert answer.status_code == 404, answer.text
        assert "secret" not in answer.text
        assert "root:" not in answer.text


_names = st.lists(
    st.sampled_from(["..", ".", "a", "in", "out", "/", "//", "\\", "%2e", "\0", "~", "é", " "]), max_size=8
)


@pytest.fixture(scope="module")
def folder() -> Iterator[pages.Folder]:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch).resolve() / "root"
        (root / "a" / "in").mkdir(parents=True)
        for path in (root / "a" / "a", root / "a" / "in" / "a", root / "in", root.parent / "a"):
            path.write_text("")
        (root / "out").symlink_to(root.parent)
        yield pages.Folder(root)


@given(_names.map("".join) | st.text(max_size=30))
@settings(max_examples=300, deadline=None)
def test_a_name_leads_nowhere_else(folder: pages.Folder, name: str) -> None:
    found = folder.find(name)
    if found is not None:
        assert Path(found[0]).resolve().is_relative_to(folder.root)
        assert found[0] == f"{folder.root}/{name}"


def test_what_is_kept_in_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_KEPT", 10_000)
    folder = pages.Folder(tmp_path)
    for n in range(20):
        (tmp_path / f"{n}.bin").write_bytes(bytes(4000))
        for _ in range(2):
            path, tag = folder.find(f"{n}.bin") or ("", "")
            file = folder.read(path, tag)
            assert file is not None
            assert file.body == bytes(4000)
    assert sum(len(file.body) for file in folder._kept.values()) == folder._size == 8000
    (tmp_path / "large.bin").write_bytes(bytes(20_000))
    found = folder.read(*(folder.find("large.bin") or ("", "")))
    assert found is not None
    assert len(found.body) == 20_000
    assert folder._size == 0
    assert folder.read(str(tmp_path / "gone.bin"), "") is None


# --- who may ask, where no key is asked for ---


def ask(client: TestClient, path: str, **headers: str) -> int:
    return client.get(path, headers=headers).status_code


def test_without_keys_only_this_machine_is_answered(client: TestClient) -> None:
    """Another site's name may lead to 127.0.0.1: its page would then be of the same origin."""
    keyed = (
        "/data/overview.json",
        "/metrics",
        "/v1/taxonomy",
        "/v1/taxonomy/review",
        "/v1/accounts/a/intent",
    )
    for path in keyed:
        for host in (
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
        ):
            answer = client.get(path, headers={"Host": host})
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    for host in ("localhost", "localhost:8080", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:8080", "[::1]"):
        assert ask(client, "/data/overview.json", Host=host) == 200
    body: dict[str, Any] = {"events": []}
    assert client.post("/v1/score", json=body, headers={"Host": "evil.example"}).status_code == 403
    assert client.post("/v1/events", json=body, headers={"Host": "evil.example"}).status_code == 403
    assert client.delete("/v1/visitors/a", headers={"Host": "evil.example"}).status_code == 403
    for path in ("/", "/healthz", "/openapi.json"):  # nothing of anybody
        assert ask(client, path, Host="evil.example") == 200


def test_without_keys_no_page_of_another_site_may_ask(client: TestClient) -> None:
    for origin in ("https://evil.example", "null", "http://localhost:3000", "http://localhost.evil.example"):
        assert ask(client, "/data/overview.json", Host="localhost:8080", Origin=origin) == 403
        answer = client.post(
            "/v1/events", content=b"{}", headers={"Host": "localhost:8080", "Origin": origin}
        )
        assert answer.status_code == 403
    assert ask(client, "/data/overview.json", Host="localhost:8080", Origin="http://localhost:8080") == 200
    assert ask(client, "/data/overview.json", Host="localhost", Origin="http://LOCALHOST") == 200


def test_with_keys_a_proxy_may_have_any_name(workspace: Path, page: Path) -> None:
    explored(workspace)
    key = api_keys.add(workspace, "k", ["read"])
    with client_of(app(workspace, page)) as client:
        headers = {
            "Authorization": f"Bearer {key}",
            "Host": "intents.bank.example",
            "Origin": "https://other",
        }
        assert ask(client, "/data/overview.json", **headers) == 200


def test_large_files_and_empty_ones_arrive_whole(workspace: Path, page: Path) -> None:
    data = explored(workspace)
    (data / "vectors.bin").write_bytes(os.urandom(300_000))
    (data / "empty.bin").write_bytes(b"")
    with client_of(app(workspace, page)) as client:
        assert client.get("/data/vectors.bin").content == (data / "vectors.bin").read_bytes()
        assert client.get("/data/empty.bin").content == b""
