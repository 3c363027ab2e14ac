"""Every operation of Airflow's Execution API is in the boundary's table, and every field of what it takes."""

import asyncio
import warnings

import httpx
import pytest

from jetbridge.contracts.crossings import EXECUTION
from jetbridge.gateway.execution_rules import ROUTES

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Airflow's app imports Starlette's test client
    from airflow.api_fastapi.execution_api.app import create_task_execution_api_app
    from airflow.api_fastapi.execution_api.versions import bundle

WHOLE = {"", "*"}


@pytest.fixture(scope="module")
def documents():
    async def read():
        transport = httpx.ASGITransport(create_task_execution_api_app())
        async with httpx.AsyncClient(transport=transport, base_url="http://airflow") as client:
            versions = [version.value for version in bundle.versions]
            answers = [await client.get("/openapi.json", params={"version": one}) for one in versions]
        return [answer.json() for answer in answers]

    return asyncio.run(read())


def test_every_operation_that_the_gateway_knows_is_in_the_table_and_no_other():
    known = {f"{route.method} /execution{route.path.replace(':path', '')}" for route in ROUTES}
    ours = {crossing.operation for crossing in EXECUTION}
    assert known - ours == set(), "operations whose data nobody classified; see contracts/crossings.py"
    assert ours - known == set(), "operations that Airflow does not have any more"


def test_every_field_of_a_body_is_in_the_table_in_every_version(documents):
    seen = set()
    for document in documents:
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if not isinstance(operation, dict) or "requestBody" not in operation:
                    continue
                name = f"{method.upper()} /execution{path}"
                rows = {row.field for row in EXECUTION if row.operation == name}
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                theirs = fields_of(schema, document["components"]["schemas"])
                seen |= {(name, field) for field in theirs}
                assert rows & WHOLE or theirs <= rows, f"{name}: nobody classified {theirs - rows}"
    assert ("PATCH /execution/task-instances/{task_instance_id}/state", "trigger_kwargs") in seen


def fields_of(schema, schemas):
    if "$ref" in schema:
        return fields_of(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    several = [*schema.get("oneOf", ()), *schema.get("anyOf", ())]
    return {*schema.get("properties", ()), *(name for one in several for name in fields_of(one, schemas))}
