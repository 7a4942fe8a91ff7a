"""Whatever is sent, nothing fails: requests made from the OpenAPI document, and bodies that are none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.testclient import TestClient

from clickintent.config import Config
from clickintent.serve.app import create_app
from serving import Server, client_of


@pytest.fixture(scope="module")
def api(served: tuple[Config, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    file = tmp_path_factory.mktemp("fuzz") / "clickintent.toml"
    file.write_text(f'workspace = "{served[0].workspace}"\n[serve]\nlate_hours = 24\n')
    server = Server(file)
    yield schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
    server.end(9)


def test_requests_of_the_openapi_document(api: Any) -> None:
    tried = 0
    for found in api.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy())
        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        def check(case: Any) -> None:
            # that an event lies in the past, and has a page, no schema says
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        check()
        tried += 1
    assert tried == 11


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_values = {
    name: st.text(max_size=40) | _json
    for name in (
        "event_type",
        "url",
        "page",
        "title",
        "text",
        "consent",
        "event_id",
        "visitor_id",
        "account_id",
    )
}
_event = st.fixed_dictionaries(
    {},
    optional={**_values, "ts": st.integers(min_value=-(2**70), max_value=2**70) | _json, "sequence": _json},
)
_body = st.fixed_dictionaries({"events": st.lists(_event | _json, max_size=4)}) | _json


@pytest.fixture(scope="module")
def client(served: tuple[Config, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    import shutil

    folder: Path = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(served[0].workspace, folder / "w")
    config = served[0].model_copy(update={"workspace": folder / "w"})
    with client_of(create_app(config)) as client:
        yield client


@given(st.sampled_from(["score", "events", "identify"]), _body.map(json.dumps).map(str.encode) | st.binary())
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_body_makes_it_fail(client: TestClient, path: str, body: bytes) -> None:
    answer = client.post(f"/v1/{path}", content=body)
    assert answer.status_code in (200, 400, 422)
    if answer.status_code != 200:
        assert answer.json()["code"] in ("invalid", "not_json")
