"""schemathesis on the OpenAPI document of a real gateway process: what is answered is what is described."""

import os
import secrets
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from jetbridge.devstack.ports import free_port

JETBRIDGE = Path(sys.executable).parent / "jetbridge"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
NAME = "agent-" + secrets.token_hex(4)
EXAMPLES = int(os.environ.get("EXAMPLES") or 10)
"""Per operation; EXAMPLES=100 looks longer. Each is a request over TLS and a few checks of its answer."""


@pytest.fixture(scope="module")
def address(nats_url, redis_url, certificates, jwt_secret_file):
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "JETBRIDGE_NATS_URL": nats_url,
        "JETBRIDGE_REDIS_URL": redis_url,
        "JETBRIDGE_GATEWAY_HOST": "127.0.0.1",
        "JETBRIDGE_GATEWAY_PORT": str(free_port()),
        "JETBRIDGE_GATEWAY_TLS_CERT_FILE": str(certificates.certificate),
        "JETBRIDGE_GATEWAY_TLS_KEY_FILE": str(certificates.key),
        "JETBRIDGE_GATEWAY_AIRFLOW_JWT_SECRET_FILE": str(jwt_secret_file),
        "JETBRIDGE_GATEWAY_DRAIN_NOTICE_SECONDS": "0",
    }
    subprocess.run([JETBRIDGE, "bus", "apply"], env=environment, check=True, capture_output=True)
    token = subprocess.run(
        [JETBRIDGE, "token", "create", "--name", "schemathesis"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    process = subprocess.Popen(
        [JETBRIDGE, "gateway"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        for line in process.stderr:
            if b"gateway.listening" in line:
                break
        process.stderr.close()  # what it logs of thousands of refusals is of no interest
        yield f"https://127.0.0.1:{environment['JETBRIDGE_GATEWAY_PORT']}", token
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def credentials(address, certificates):
    """Return the bearer for each security scheme."""
    url, token = address
    body = {"name": NAME, "instance": "0" * 32, "role": "worker", "queues": [NAME]}
    answer = httpx.post(
        f"{url}/v1/agents",
        json=body,
        headers={"Authorization": f"Bearer {token}"},
        verify=ssl.create_default_context(cafile=certificates.ca),
    )
    return {"agentToken": token, "credential": answer.json()["credential"], "leaseToken": "none"}


@pytest.fixture(scope="module")
def described(address, certificates):
    loaded = schemathesis.openapi.from_url(f"{address[0]}/openapi.json", verify=str(certificates.ca))

    @loaded.hook
    def map_path_parameters(_context, parameters):
        return {**parameters, "name": NAME} if parameters and "name" in parameters else parameters

    @loaded.hook
    def map_query(_context, query):
        # How many triggers wait only a bridge can say, and there is none here: 503, as it should be.
        return {**query, "role": "worker"} if query and query.get("role") == "triggerer" else query

    @loaded.hook
    def map_body(_context, body):
        # A valid poll is held for as long as it asks; here every one is for work that does not exist.
        wait = body.get("wait_seconds", 0) if isinstance(body, dict) else None
        held = isinstance(wait, int | float) and not isinstance(wait, bool) and 0 <= wait <= 60
        return body | {"wait_seconds": 0} if held and "free_slots" in body else body

    return loaded


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_answers_are_as_described(described, credentials, certificates, mode):
    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) >= 14
    for operation in operations:
        if operation.body or mode is GenerationMode.POSITIVE:  # else there is nothing to get wrong
            _check(operation, mode, credentials, str(certificates.ca))


def _check(operation, mode, credentials, ca_file):
    schemes = [name for item in operation.definition.raw.get("security", []) for name in item]
    headers = {"Authorization": f"Bearer {credentials[schemes[0]] if schemes else 'none'}"}

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        body = case.meta.components.get(ParameterLocation.BODY)
        wrong_body = body is not None and body.mode is GenerationMode.NEGATIVE
        response = case.call(headers=headers, verify=ca_file)
        # Header and path are ours, so what was to be wrong about them is not.
        case.validate_response(response, checks=[*CHECKS, *([negative_data_rejection] if wrong_body else [])])

    check()
