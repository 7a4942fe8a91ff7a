"""The audit of what is pinned: licences offline, vulnerabilities where a service is reached."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "audit.py"
ALLOWED = {"MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD License"}


@pytest.fixture
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def osv() -> Iterator[tuple[str, dict[str, list[str]]]]:
    """A service of vulnerabilities, and what it knows: ids by package."""
    known: dict[str, list[str]] = {}

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))["queries"]
            assert all(
                query["package"]["ecosystem"] in ("PyPI", "npm") and query["version"] for query in asked
            )
            found: list[dict[str, Any]] = [
                {"vulns": [{"id": id_} for id_ in known[query["package"]["name"]]]}
                if query["package"]["name"] in known
                else {}
                for query in asked
            ]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"results": found}).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", known
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT AND Apache-2.0", True),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("MIT OR GPL-3.0-only AND GPL-2.0-only", True),
        ("(MIT OR GPL-3.0-only) AND GPL-2.0-only", False),
        ("(MIT OR GPL-3.0-only) AND Apache-2.0  WITH  LLVM-exception", True),
        ("Apache-2.0 WITH other-exception", False),
        ("BSD License", True),
        ("GPL License MIT", False),
        ("MIT MIT", False),
        ("(MIT", False),
        ("MIT AND", False),
        ("", False),
    ],
)
def test_an_expression_is_allowed_if_all_that_it_asks_for_is(
    audit: ModuleType, expression: str, expected: bool
) -> None:
    assert audit.is_allowed(expression, ALLOWED) is expected


def test_unknown_licences_and_other_versions_are_found(audit: ModuleType) -> None:
    lock = {("npm", "a", "1"): "MIT", ("npm", "b", "1"): "GPL-3.0-only", ("npm", "c-x64", "1"): None}
    rules = {"allowed": ["MIT"], "exceptions": {"python": {"none": "x"}, "npm": {"c-*": "for the build"}}}
    python = [("PyPI", "pytest", "0.1"), ("PyPI", "not-there", "1")]
    problems, idle = audit.bad_licences(python, lock, rules)
    assert [problem.partition(":")[0] for problem in problems] == ["pytest 0.1", "not-there 1", "b 1"]
    assert "is installed as" in problems[0]
    assert "GPL-3.0-only" in problems[2]
    assert idle == ["none: excepted in audit.toml for nothing; take it out."]


def test_where_nobody_is_reached_it_says_so_and_passes(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "licence_of", lambda *_: ["MIT"])
    monkeypatch.setenv("OSV_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("PATH", "")  # no npm
    assert audit.main() == 0, capsys.readouterr().out
    told = capsys.readouterr().out
    assert "Python: not audited: no vulnerability service was reached" in told
    assert "page: not audited: no vulnerability service was reached" in told


def test_what_is_known_fails_unless_it_is_excepted(
    audit: ModuleType,
    osv: tuple[str, dict[str, list[str]]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, known = osv
    monkeypatch.setattr(audit, "licence_of", lambda *_: ["MIT"])
    monkeypatch.setenv("OSV_URL", url)
    assert audit.main() == 0
    assert "packages were asked about" in capsys.readouterr().out
    known["starlette"] = ["GHSA-1", "GHSA-2"]
    assert audit.main() == 1
    told = capsys.readouterr().out
    assert "GHSA-1" in told
    assert "starlette" in told
    loads = audit.tomllib.loads
    excepted = {"vulnerabilities": {"ignored": {"GHSA-1": "not used", "GHSA-2": "not used"}}}
    monkeypatch.setattr(audit.tomllib, "loads", lambda text: loads(text) | excepted)
    assert audit.main() == 0
