"""
The operations of the OpenAPI document, from the structs that are really read and written.

FastAPI describes what it decodes itself, and here msgspec decodes; so each route carries its bodies by
name, and the schemas come from the contracts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from jetbridge.contracts import api, dag_processing, ids, sites, triggering
from jetbridge.contracts.problems import ProblemType
from jetbridge.gateway.health import Health, Readiness
from jetbridge.gateway.problems import MEDIA_TYPE

_ALWAYS = (ProblemType.INTERNAL,)
_WITH_BODY = (
    ProblemType.MALFORMED,
    ProblemType.TOO_LARGE,
    ProblemType.UNSUPPORTED_MEDIA,
    ProblemType.UNKNOWN_CONTRACT,
)
_WITH_TOKEN = (
    ProblemType.UNAUTHENTICATED,
    ProblemType.FORBIDDEN,
    ProblemType.TOO_MANY,
    ProblemType.UNAVAILABLE,
)
_WITH_CREDENTIAL = (*_WITH_TOKEN, ProblemType.AGENT_REPLACED, ProblemType.AGENT_ENDED)


def ref(name: str) -> dict[str, str]:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def problem_responses(kinds: Iterable[ProblemType]) -> dict[int | str, dict[str, Any]]:
    """Return the responses, by status: two problems may share one."""
    texts: dict[int, list[str]] = {}
    for kind in sorted(kinds, key=lambda kind: kind.value):
        texts.setdefault(kind.status, []).append(f"`{kind.uri}`: {kind.title}.")
    content = {MEDIA_TYPE: {"schema": ref("Problem")}}
    return {
        status: {"description": " ".join(lines), "content": content}
        for status, lines in sorted(texts.items())
    }


def _json(description: str, body: type[msgspec.Struct]) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": ref(body.__name__)}},
    }


def _path(name: str, pattern: str, description: str) -> dict[str, Any]:
    schema = {"type": "string", "pattern": pattern}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


_AGENT = _path("name", ids.AGENT_NAME_PATTERN, "The agent's name, as registered.")
_LEASE = _path("lease", ids.LEASE_ID_PATTERN, "`<workload id>.<epoch>`, as offered.")
BELOW = {
    "name": "path",
    "in": "path",
    "required": True,
    "description": "A path of Airflow's Execution API, passed on as it is.",
    "schema": {"type": "string"},
}


def _operation(  # noqa: PLR0913 - a table's columns
    operation_id: str,
    summary: str,
    *,
    request: type[msgspec.Struct],
    response: type[msgspec.Struct],
    security: str,
    parameters: Iterable[dict[str, Any]] = (),
    problems: Iterable[ProblemType] = (),
) -> dict[str, Any]:
    extra: dict[str, Any] = {
        "security": [{security: []}],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": ref(request.__name__)}},
        },
    }
    if parameters:
        extra["parameters"] = list(parameters)
    return {
        "operation_id": operation_id,
        "summary": summary,
        "description": (request.__doc__ or "").strip(),
        "responses": {200: _json((response.__doc__ or "").strip(), response)}
        | problem_responses({*_ALWAYS, *_WITH_BODY, *problems}),
        "openapi_extra": extra,
        "response_model": None,
    }


REGISTER = _operation(
    "registerAgent",
    "Exchange an agent token for a credential",
    request=api.RegisterRequest,
    response=api.RegisterResponse,
    security="agentToken",
    problems=(*_WITH_TOKEN, ProblemType.AGENT_ENDED),
)
HEARTBEAT = _operation(
    "heartbeat",
    "Say what the agent believes and learn what is so",
    request=api.HeartbeatRequest,
    response=api.HeartbeatResponse,
    security="credential",
    parameters=[_AGENT],
    problems=_WITH_CREDENTIAL,
)
POLL = _operation(
    "poll",
    "Wait for work, or for leases to stop",
    request=api.PollRequest,
    response=api.PollResponse,
    security="credential",
    parameters=[_AGENT],
    problems=_WITH_CREDENTIAL,
)
GOODBYE = _operation(
    "goodbye",
    "Say that this process ends and nothing of it runs any more; safe to repeat",
    request=api.GoodbyeRequest,
    response=api.GoodbyeResponse,
    security="credential",
    parameters=[_AGENT],
    problems=_WITH_CREDENTIAL,
)
ATTEST_DEATH = _operation(
    "attestDeath",
    "Say that a process of an agent of this site is gone",
    request=sites.AttestDeathRequest,
    response=sites.AttestDeathResponse,
    security="credential",
    parameters=[_AGENT],
    problems=(
        *_WITH_CREDENTIAL,
        ProblemType.FORBIDDEN,
        ProblemType.NOT_FOUND,
        ProblemType.OUTDATED,
        ProblemType.ALREADY_KNOWN,
    ),
)
REPORT_SITE = _operation(
    "reportSite",
    "Say what a sentinel sees of its site; it replaces the last report",
    request=sites.SiteReportRequest,
    response=sites.SiteReportResponse,
    security="credential",
    parameters=[_AGENT],
    problems=_WITH_CREDENTIAL,
)
ACCEPT = _operation(
    "acceptOffer",
    "Turn an offer into a lease; safe to repeat",
    request=api.AcceptRequest,
    response=api.AcceptResponse,
    security="credential",
    parameters=[_LEASE],
    problems=(*_WITH_CREDENTIAL, ProblemType.NOT_FOUND, ProblemType.LEASE_LOST),
)
REPORT = _operation(
    "reportEnd",
    "Report how a lease's workload ended; safe to repeat",
    request=api.ReportRequest,
    response=api.ReportResponse,
    security="credential",
    parameters=[_LEASE],
    problems=(*_WITH_CREDENTIAL, ProblemType.NOT_FOUND, ProblemType.LEASE_LOST),
)
CLAIM_BUNDLES = _operation(
    "claimBundles",
    "Take, keep and give back Dag bundles; safe to repeat",
    request=dag_processing.ClaimBundlesRequest,
    response=dag_processing.ClaimBundlesResponse,
    security="credential",
    parameters=[_AGENT],
    problems=_WITH_CREDENTIAL,
)


def bundle_operation(
    summary: str, request: type[msgspec.Struct], response: type[msgspec.Struct]
) -> dict[str, Any]:
    """Return the description of an operation on a bundle that the agent holds."""
    name = request.__name__.removesuffix("Request")
    return _operation(
        name[0].lower() + name[1:],
        f"{summary}; safe to repeat",
        request=request,
        response=response,
        security="credential",
        parameters=[_AGENT],
        problems=(
            *_WITH_CREDENTIAL,
            ProblemType.LEASE_LOST,
            ProblemType.UNUSABLE,
        ),
    )


READ_AIRFLOW: dict[str, Any] = {
    "operation_id": "readAirflow",
    "summary": "Read what a callback in a Dag processor may know of runs, task instances and XComs",
    "description": "Whatever Airflow's Execution API answers is passed on, without its tokens.",
    "responses": {
        200: {"description": "As Airflow's Execution API answers."},
        **problem_responses(
            {
                *_ALWAYS,
                *_WITH_CREDENTIAL,
                ProblemType.MALFORMED,
                ProblemType.UPSTREAM,
            }
        ),
    },
    "openapi_extra": {"security": [{"credential": []}], "parameters": [_AGENT, BELOW]},
    "response_model": None,
}
ATTACH = _operation(
    "attachTriggerer",
    "Begin to run triggers; what the agent ran before is others' to take",
    request=triggering.AttachRequest,
    response=triggering.AttachResponse,
    security="credential",
    parameters=[_AGENT],
    problems=_WITH_CREDENTIAL,
)
POLL_TRIGGERS = _operation(
    "pollTriggers",
    "Wait until other triggers should run than do",
    request=triggering.TriggerPollRequest,
    response=triggering.TriggerPollResponse,
    security="credential",
    parameters=[_AGENT],
    problems=(*_WITH_CREDENTIAL, ProblemType.LEASE_LOST),
)
POST_EVENTS = _operation(
    "postTriggerEvents",
    "Say what became of triggers; safe to repeat",
    request=triggering.TriggerEventsRequest,
    response=triggering.TriggerEventsResponse,
    security="credential",
    parameters=[_AGENT],
    problems=(*_WITH_CREDENTIAL, ProblemType.LEASE_LOST, ProblemType.NOT_HELD),
)
DETACH = _operation(
    "detachTriggerer",
    "Run no more triggers; safe to repeat",
    request=triggering.DetachRequest,
    response=triggering.DetachResponse,
    security="credential",
    parameters=[_AGENT],
    problems=_WITH_CREDENTIAL,
)
DEPTH: dict[str, Any] = {
    "operation_id": "depth",
    "summary": "How much there is to do, for autoscalers",
    "description": "With an agent token, whose scopes must allow the role and the queues.",
    "responses": {
        200: _json((api.DepthResponse.__doc__ or "").strip(), api.DepthResponse),
        **problem_responses({*_ALWAYS, *_WITH_TOKEN, ProblemType.MALFORMED}),
    },
    "openapi_extra": {
        "security": [{"agentToken": []}],
        "parameters": [
            _query(
                "role", {"type": "string", "enum": ["worker", "triggerer"], "default": "worker"}, "For whom."
            ),
            _query(
                "queue",
                {
                    "type": "array",
                    "maxItems": api.MAX_QUEUES,
                    "items": {"type": "string", "minLength": 1, "maxLength": 256},
                },
                "Which queues, by name; for workers at least one.",
            ),
        ],
    },
    "response_model": None,
}
HEALTHZ: dict[str, Any] = {
    "operation_id": "healthz",
    "summary": "Whether the process lives",
    "responses": {200: _json("It does.", Health), **problem_responses(_ALWAYS)},
    "response_model": None,
}
READYZ: dict[str, Any] = {
    "operation_id": "readyz",
    "summary": "Whether this gateway can do its work, and the state of all it depends on",
    "responses": {
        200: _json("Ready, or degraded: Redis or Airflow is away.", Readiness),
        503: _json("Not ready: NATS is away, records are being read, or it is shutting down.", Readiness),
        **problem_responses(_ALWAYS),
    },
    "response_model": None,
}
METRICS: dict[str, Any] = {
    "operation_id": "metrics",
    "summary": "Prometheus metrics",
    "responses": {
        200: {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **problem_responses(_ALWAYS),
    },
    "response_model": None,
}
