"""What autoscalers ask, with an agent token: how much there is to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from jetbridge.contracts.api import MAX_QUEUES, DepthResponse
from jetbridge.contracts.problems import ProblemType
from jetbridge.contracts.records import TokenRecord
from jetbridge.gateway import openapi
from jetbridge.gateway.bodies import json_response
from jetbridge.gateway.depth import waited_seconds
from jetbridge.gateway.gateway import Gateway
from jetbridge.gateway.plain import plain_router
from jetbridge.gateway.problems import ProblemError, unavailable
from jetbridge.gateway.scope_rules import check_role_and_queues

Queues = tuple[str, ...]
Ask = Callable[[Queues], Awaitable[DepthResponse]]

_MAX_QUEUE = 256


def scaling_routes(gateway: Gateway) -> APIRouter:
    """Return ``/v1/depth``."""
    router = plain_router("scaling")
    by_role: dict[str, Ask] = {
        "worker": lambda queues: _of_workers(gateway, queues),
        "triggerer": gateway.triggers.depth,
    }

    @router.get("/v1/depth", **openapi.DEPTH)
    async def depth(request: Request) -> Response:
        token = await gateway.gatekeeper.registrant(request.scope)
        role, queues = _asked(request, token)
        return json_response(await by_role[role](queues))

    return router


def _asked(request: Request, token: TokenRecord) -> tuple[str, Queues]:
    """Return the role and the queues of a question; raises 400, or 403 outside the token's scopes."""
    role = request.query_params.get("role", "worker")
    queues = tuple(request.query_params.getlist("queue"))
    if role not in ("worker", "triggerer"):
        raise _malformed("role must be worker or triggerer")
    if role == "worker" and not queues:
        raise _malformed("name at least one queue, as ?queue=default")
    if len(queues) > MAX_QUEUES or not all(0 < len(queue) <= _MAX_QUEUE for queue in queues):
        raise _malformed(f"at most {MAX_QUEUES} queues, each of 1 to {_MAX_QUEUE} characters")
    check_role_and_queues(token, role, queues)
    return role, queues


async def _of_workers(gateway: Gateway, queues: Queues) -> DepthResponse:
    if not gateway.depths.workloads.is_complete():
        # A count of half the records would have an autoscaler end workers that have work.
        raise unavailable("The gateway is still reading the records of workloads.")
    depth = gateway.depths.of(queues)
    return DepthResponse(
        value=depth.waiting + depth.running,
        waiting=depth.waiting,
        running=depth.running,
        oldest_seconds=round(waited_seconds(depth), 3),
    )


def _malformed(what: str) -> ProblemError:
    return ProblemError(ProblemType.MALFORMED, f"The question cannot be answered: {what}.")
