"""The operations of Dag processor agents."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from jetbridge.contracts import dag_processing as contract
from jetbridge.contracts.dag_processing import ClaimBundlesRequest, HeldBundle
from jetbridge.contracts.envelope import Body
from jetbridge.contracts.problems import ProblemType
from jetbridge.gateway import openapi
from jetbridge.gateway.bodies import BodyReader, json_response
from jetbridge.gateway.bundles import require_dag_processor
from jetbridge.gateway.gateway import Gateway
from jetbridge.gateway.plain import plain_router
from jetbridge.gateway.problems import ProblemError
from jetbridge.gateway.proxy_rules import PREFIX
from jetbridge.gateway.routes import agent_of

_ANSWER_SECONDS = 15.0
"""Limit of one question to the bridge; below the 20 s for which agents wait."""

_WRITE_SECONDS = 90.0
"""A file with 1,000 Dags takes Airflow tens of seconds to write; agents wait 120 s for this answer."""

_SMALL_BYTES = 256 << 10
_LIST_BYTES = 32 << 20
"""100,000 paths."""

_RESULT_BYTES = contract.MAX_RESULT_BYTES * 4 // 3 + _SMALL_BYTES
"""As base64, and what is around it."""

_LARGE_READS = 6
"""How much longer than small bodies large ones may take: with the default of 10 s, 44 MB over 6 Mbit/s."""

_LARGE_AT_ONCE = 2
"""A large body is in memory three times while it is read and passed on, so few are read at once."""


@dataclass(frozen=True, kw_only=True)
class _Operation:
    """One row of the table below: an address, and what the bridge is asked when it is called."""

    path: str
    subject: str
    request: Any
    answer: type[Body]
    summary: str
    max_bytes: int = _SMALL_BYTES
    answer_seconds: float = _ANSWER_SECONDS
    is_large: bool = False


_OPERATIONS = (
    _Operation(
        path="declare",
        subject=contract.DECLARE_BUNDLE,
        request=contract.DeclareBundleRequest,
        answer=contract.Noted,
        summary="Make a bundle known",
    ),
    _Operation(
        path="state",
        subject=contract.GET_BUNDLE_STATE,
        request=contract.GetBundleStateRequest,
        answer=contract.BundleStateAnswer,
        summary="Ask when a bundle was refreshed and at which version",
    ),
    _Operation(
        path="refreshed",
        subject=contract.BUNDLE_REFRESHED,
        request=contract.BundleRefreshedRequest,
        answer=contract.Noted,
        summary="Say that a bundle was refreshed",
    ),
    _Operation(
        path="files",
        subject=contract.FILES_PRESENT,
        request=contract.FilesPresentRequest,
        answer=contract.Noted,
        summary="Say which files a bundle has",
        max_bytes=_LIST_BYTES,
        answer_seconds=_WRITE_SECONDS,
        is_large=True,
    ),
    _Operation(
        path="parsed",
        subject=contract.FILE_PARSED,
        request=contract.FileParsedRequest,
        answer=contract.FileRecorded,
        summary="Say what is in a Dag file",
        max_bytes=_RESULT_BYTES,
        answer_seconds=_WRITE_SECONDS,
        is_large=True,
    ),
    _Operation(
        path="stale",
        subject=contract.DEACTIVATE_STALE,
        request=contract.DeactivateStaleRequest,
        answer=contract.Noted,
        summary="Say when files were parsed, so that Dags missing from them are deactivated",
        max_bytes=_LIST_BYTES,
        answer_seconds=_WRITE_SECONDS,
        is_large=True,
    ),
    _Operation(
        path="requests",
        subject=contract.GET_REQUESTS,
        request=contract.GetRequestsRequest,
        answer=contract.Requests,
        summary="Ask for files to parse now and for callbacks to run",
    ),
)


def dag_processor_routes(gateway: Gateway) -> APIRouter:
    """Return ``/v1/agents/{name}/bundles`` and ``…/airflow``."""
    router, desk = plain_router("dag processors"), gateway.bundles
    claims = BodyReader(ClaimBundlesRequest, _SMALL_BYTES, gateway.settings.read_seconds)

    @router.post("/v1/agents/{name}/bundles/claim", **openapi.CLAIM_BUNDLES)
    async def claim(request: Request) -> Response:
        caller = await agent_of(gateway, request)
        require_dag_processor(caller)
        answer = await desk.claim(caller, await claims.read(request))
        opened = gateway.boundary.opened(caller.record.site)
        return json_response(msgspec.structs.replace(answer, opened=opened))

    @router.get("/v1/agents/{name}/airflow/{path:path}", **openapi.READ_AIRFLOW)
    async def read_airflow(request: Request) -> Response:
        caller = await agent_of(gateway, request)
        require_dag_processor(caller)
        return await gateway.proxy.read(request, _path_in_airflow(request, caller.name), caller)

    large = asyncio.Semaphore(_LARGE_AT_ONCE)
    for operation in _OPERATIONS:
        router.add_api_route(
            f"/v1/agents/{{name}}/bundles/{operation.path}",
            _endpoint(gateway, operation, large),
            methods=["POST"],
            **openapi.bundle_operation(operation.summary, operation.request, operation.answer),
        )
    return router


def _endpoint(
    gateway: Gateway, operation: _Operation, large: asyncio.Semaphore
) -> Callable[[Request], Awaitable[Response]]:
    read_seconds = gateway.settings.read_seconds * (_LARGE_READS if operation.is_large else 1)
    bodies = BodyReader(operation.request, operation.max_bytes, read_seconds)

    async def answer(request: Request) -> Response:
        caller = await agent_of(gateway, request)
        require_dag_processor(caller)
        body = await bodies.read(request)
        await gateway.bundles.require(caller, _bundles(body))
        if isinstance(body, contract.FileParsed):
            await gateway.boundary.check_parsed(body, agent=caller.name, site=caller.record.site)
        if isinstance(body, contract.GetRequests):
            body = msgspec.structs.replace(body, agent=caller.name)
        return json_response(
            await gateway.bundles.ask(
                caller, operation.subject, body, operation.answer, operation.answer_seconds
            )
        )

    async def answer_in_turn(request: Request) -> Response:
        if _is_small(request):
            return await answer(request)
        async with large:
            return await answer(request)

    return answer_in_turn


def _path_in_airflow(request: Request, agent: str) -> bytes:
    prefix = f"/v1/agents/{agent}/airflow/".encode()
    path: bytes = request.scope["raw_path"]
    if not path.startswith(prefix):
        raise ProblemError(ProblemType.MALFORMED, "Write the address up to /airflow/ without escapes.")
    return PREFIX + path[len(prefix) :]


def _bundles(body: Any) -> Iterable[HeldBundle]:
    if isinstance(body, contract.GetRequests):
        return body.bundles
    return (HeldBundle(bundle=body.bundle, epoch=body.epoch),)


def _is_small(request: Request) -> bool:
    length = request.headers.get("content-length", "")
    return length.isdigit() and int(length) <= _SMALL_BYTES
