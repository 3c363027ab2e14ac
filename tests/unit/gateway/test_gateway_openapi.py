"""The OpenAPI document: complete, and the snapshot in ``docs/openapi.json`` is what the code serves."""

import json
import os
from pathlib import Path

import jsonschema
import pytest
from fastapi import FastAPI

from jetbridge.contracts.api import ALL_BODIES
from jetbridge.gateway import app as app_module
from jetbridge.gateway.app import build_app

SNAPSHOT = Path(__file__).parents[3] / "docs" / "openapi.json"


class Settings:
    read_seconds = 1.0
    max_body_bytes = 1 << 20
    failed_logins_per_minute = 60
    trusted_proxies = ()


class Nothing:
    """As much of a gateway as routes need to be described."""

    settings = Settings()

    def __getattr__(self, name):
        return Nothing()


@pytest.fixture(scope="module")
def document():
    made = []

    class Kept(FastAPI):
        def __init__(self, **arguments):
            super().__init__(**arguments)
            made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app_module, "FastAPI", Kept)
        build_app(Nothing())
    return json.loads(json.dumps(made[0].openapi()))


def operations(document):
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method} {path}", operation


def test_the_snapshot_is_current(document):
    text = json.dumps(document, indent=2, sort_keys=True) + "\n"
    if os.environ.get("JETBRIDGE_UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(text)
    assert SNAPSHOT.read_text() == text, (
        "the API changed; if that is meant, run the test once with JETBRIDGE_UPDATE_SNAPSHOTS=1"
    )


def test_every_operation_is_there(document):
    expected = {
        "post /v1/agents",
        "post /v1/agents/{name}/heartbeat",
        "post /v1/agents/{name}/poll",
        "post /v1/leases/{lease}/accept",
        "post /v1/leases/{lease}/report",
        "get /healthz",
        "get /readyz",
        "get /metrics",
        *(f"{method} /execution/{{path}}" for method in ("get", "head", "post", "put", "patch", "delete")),
    }
    assert expected <= {name for name, _ in operations(document)}


def test_every_operation_is_described_and_named_once(document):
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    for name, operation in operations(document):
        assert operation["summary"], name
        if name.startswith("post /v1"):
            assert operation["requestBody"]["content"]["application/json"]["schema"]["$ref"], name
            assert operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"], name
            assert {"400", "401", "413", "415", "422", "500", "503"} <= set(operation["responses"]), name
            assert operation["security"], name


def test_every_error_is_a_problem_document(document):
    for name, operation in operations(document):
        for status, response in operation["responses"].items():
            if status.isdigit() and int(status) >= 400 and name != "get /readyz":
                schema = next(iter(response["content"].items()))
                lost = name.split(" ")[1] == "/execution/{path}" and status == "410"
                expected = "LeaseLost" if lost else "Problem"
                assert schema[1]["schema"]["$ref"].endswith(f"/{expected}"), (name, status)
                assert schema[0] == ("application/json" if lost else "application/problem+json")


def test_every_reference_leads_somewhere(document):
    def references(node):
        if isinstance(node, dict):
            if "$ref" in node:
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    schemas = document["components"]["schemas"]
    assert {ref.removeprefix("#/components/schemas/") for ref in references(document)} <= set(schemas)
    assert {body.__name__ for body in ALL_BODIES} <= set(schemas)
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
