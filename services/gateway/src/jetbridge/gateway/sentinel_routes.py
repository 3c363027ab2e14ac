"""The operations of sentinel agents."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from jetbridge.contracts import sites
from jetbridge.gateway import openapi
from jetbridge.gateway.bodies import BodyReader, json_response
from jetbridge.gateway.gateway import Gateway
from jetbridge.gateway.plain import plain_router
from jetbridge.gateway.routes import agent_of, bus_problems

_DEATH_BYTES = 8 << 10
"""A reason of 256 characters, each written as an escape of up to 12 bytes."""


def sentinel_routes(gateway: Gateway) -> APIRouter:
    """Return ``/v1/agents/{name}/deaths`` and ``…/site``."""
    router, settings = plain_router("sentinels"), gateway.settings
    deaths = BodyReader(sites.AttestDeathRequest, _DEATH_BYTES, settings.read_seconds)
    reports = BodyReader(sites.SiteReportRequest, settings.max_body_bytes, settings.read_seconds)

    @router.post("/v1/agents/{name}/deaths", **openapi.ATTEST_DEATH)
    async def attest_death(request: Request) -> Response:
        caller = await agent_of(gateway, request)
        body = await deaths.read(request)
        with bus_problems():
            return json_response(await gateway.deaths.attest(caller, body))

    @router.post("/v1/agents/{name}/site", **openapi.REPORT_SITE)
    async def report_site(request: Request) -> Response:
        caller = await agent_of(gateway, request)
        body = await reports.read(request)
        with bus_problems():
            return json_response(await gateway.sites.report(caller, body))

    return router
