"""Every operation of Airflow's Execution API is in the boundary's table, and every field of what it takes."""

from jetbridge.contracts.crossings import EXECUTION
from jetbridge.gateway.execution_rules import ROUTES

WHOLE = {"", "*"}


def test_every_operation_that_the_gateway_knows_is_in_the_table_and_no_other():
    known = {f"{route.method} /execution{route.path.replace(':path', '')}" for route in ROUTES}
    ours = {crossing.operation for crossing in EXECUTION}
    assert known - ours == set(), "operations whose data nobody classified; see contracts/crossings.py"
    assert ours - known == set(), "operations that Airflow does not have any more"


def test_every_field_of_a_body_is_in_the_table_in_every_version(airflows_api):
    seen = set()
    for document in airflows_api.documents:
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
