"""The operations of triggerer agents."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from jetbridge.contracts import triggering
from jetbridge.contracts.problems import ProblemType
from jetbridge.gateway import openapi
from jetbridge.gateway.auth import Caller
from jetbridge.gateway.bodies import BodyReader, json_response
from jetbridge.gateway.gateway import Gateway
from jetbridge.gateway.plain import plain_router
from jetbridge.gateway.problems import ProblemError
from jetbridge.gateway.routes import agent_of

_SMALL_BYTES = 4 << 10

_EVENTS_BYTES = 4 << 20
"""An agent sends at most 1 MiB of events at once, or one large one; base64 and JSON add a third."""


def triggerer_routes(gateway: Gateway) -> APIRouter:
    """Return ``/v1/agents/{name}/triggerer`` and ``…/triggers``."""
    router, settings, desk = plain_router("triggerers"), gateway.settings, gateway.triggers
    attaches = BodyReader(triggering.AttachRequest, _SMALL_BYTES, settings.read_seconds)
    polls = BodyReader(triggering.TriggerPollRequest, settings.max_body_bytes, settings.read_seconds)
    events = BodyReader(triggering.TriggerEventsRequest, _EVENTS_BYTES, settings.read_seconds)
    detaches = BodyReader(triggering.DetachRequest, _SMALL_BYTES, settings.read_seconds)

    @router.post("/v1/agents/{name}/triggerer", **openapi.ATTACH)
    async def attach(request: Request) -> Response:
        caller = await _triggerer(gateway, request)
        await attaches.read(request)
        return json_response(await desk.attach(caller))

    @router.post("/v1/agents/{name}/triggers/poll", **openapi.POLL_TRIGGERS)
    async def poll(request: Request) -> Response:
        caller = await _triggerer(gateway, request)
        body = await polls.read(request)
        return json_response(await desk.poll(caller, body, request.receive))

    @router.post("/v1/agents/{name}/triggers/events", **openapi.POST_EVENTS)
    async def post_events(request: Request) -> Response:
        caller = await _triggerer(gateway, request)
        body = await events.read(request)
        return json_response(await desk.events(caller, body))

    @router.post("/v1/agents/{name}/triggerer/end", **openapi.DETACH)
    async def detach(request: Request) -> Response:
        caller = await _triggerer(gateway, request)
        body = await detaches.read(request)
        return json_response(await desk.detach(caller, body))

    return router


async def _triggerer(gateway: Gateway, request: Request) -> Caller:
    caller = await agent_of(gateway, request)
    if caller.record.role != "triggerer":
        raise ProblemError(
            ProblemType.FORBIDDEN,
            f"Agent {caller.name!r} is registered as {caller.record.role}, not triggerer.",
        )
    return caller
