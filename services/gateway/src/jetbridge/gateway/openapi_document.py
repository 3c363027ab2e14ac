"""The OpenAPI document as a whole: operations from the routes, schemas from the contracts."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from jetbridge.contracts import dag_processing
from jetbridge.contracts.problems import ProblemType
from jetbridge.contracts.schema import API, schema_of
from jetbridge.gateway.health import Health, Readiness
from jetbridge.gateway.openapi import BELOW, problem_responses, ref
from jetbridge.gateway.proxy_rules import METHODS

_TEXT = """\
Between execution agents and an Airflow control plane. Agents only dial out; everything they need is here.

Every error is an RFC 9457 problem document whose `type` says what to do: 4xx means that repeating the
same request will not help, 5xx that it will. The one exception is a lost lease on `/execution/*`, which
Airflow's own client must understand.
"""

_EXECUTION: dict[str, Any] = {
    "summary": "Airflow's Execution API, for the workload of one lease",
    "description": "Whatever Airflow answers is passed on, without its tokens.",
    "responses": {
        "default": {"description": "Airflow's answer."},
        410: {
            "description": "The lease is lost. Airflow's supervisor stops the task.",
            "content": {"application/json": {"schema": ref("LeaseLost")}},
        },
        **problem_responses(
            (
                ProblemType.MALFORMED,
                ProblemType.UNAUTHENTICATED,
                ProblemType.FORBIDDEN,
                ProblemType.TOO_LARGE,
                ProblemType.TOO_MANY,
                ProblemType.INTERNAL,
                ProblemType.UPSTREAM,
                ProblemType.UNAVAILABLE,
            )
        ),
    },
    "security": [{"leaseToken": []}],
    "parameters": [BELOW],
    "tags": ["execution"],
}
"""Described here and not by its route: one function serves all methods, and each needs an id of its own."""

_NOT_FOUND = {"404": problem_responses([ProblemType.NOT_FOUND])[404]}

_LEASE_LOST = {
    "type": "object",
    "required": ["detail"],
    "properties": {
        "detail": {
            "type": "object",
            "required": ["reason", "message"],
            "properties": {"reason": {"const": "lease_lost"}, "message": {"type": "string"}},
        }
    },
}

_SECURITY = {
    "agentToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "An agent token, `jb_<id>_<secret>`, from `jetbridge token create`.",
    },
    "credential": {
        "type": "http",
        "scheme": "bearer",
        "description": "The credential from registration, renewed by heartbeats.",
    },
    "leaseToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "The token from accepting an offer, or the one that came with a trigger.",
    },
}


def document_of(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """Return the function that FastAPI asks for the document of ``app``."""
    made: dict[str, Any] = {}

    def document() -> dict[str, Any]:
        if not made:
            made.update(_make(app))
        return made

    return document


def _make(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title="Jetbridge Remote Execution API",
        version=version("jetbridge-gateway"),
        description=_TEXT,
        routes=app.routes,
    )
    schemas = schema_of(*API, *dag_processing.ALL_BODIES, Health, Readiness) | {"LeaseLost": _LEASE_LOST}
    document["components"] = {"schemas": dict(sorted(schemas.items())), "securitySchemes": _SECURITY}
    document["paths"]["/execution/{path}"] = {
        method.lower(): {"operationId": f"execution{method.capitalize()}", **_EXECUTION} for method in METHODS
    }
    for path, operations in document["paths"].items():
        if "{" in path:  # the router's own answer to a parameter that fits no route, a line break for one
            for operation in operations.values():
                missing = {
                    str(status): found for status, found in problem_responses([ProblemType.NOT_FOUND]).items()
                }
                operation["responses"] = missing | operation["responses"]
    return document
