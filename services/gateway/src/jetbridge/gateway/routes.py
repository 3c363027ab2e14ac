"""The operations of the API: who may call, what is read, which function does it, what is answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import msgspec
import structlog
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from jetbridge.bus.errors import BusUnavailableError, ConflictError, LeaseLostError, NameTakenError
from jetbridge.contracts.api import (
    AcceptRequest,
    AcceptResponse,
    GoodbyeRequest,
    HeartbeatRequest,
    PollRequest,
    RegisterRequest,
    ReportRequest,
    ReportResponse,
)
from jetbridge.contracts.ids import InvalidIdError, LeaseKey
from jetbridge.contracts.problems import ProblemType
from jetbridge.contracts.records import WorkloadState
from jetbridge.gateway import leases, openapi
from jetbridge.gateway.auth import Caller
from jetbridge.gateway.bodies import BodyReader, json_response
from jetbridge.gateway.gateway import Gateway
from jetbridge.gateway.origin import origin_of
from jetbridge.gateway.plain import plain_router
from jetbridge.gateway.problems import ProblemError, unavailable
from jetbridge.gateway.proxy_rules import METHODS
from jetbridge.gateway.scrape import refresh

log = structlog.get_logger(__name__)

_REGISTER_BYTES = 256 << 10
"""256 queues of 256 characters and 64 labels of 256, escaped, with room to spare."""

_LEASE_BYTES = 16 << 10
"""A reason of 1,024 characters, each written as an escape of up to 12 bytes."""


def agent_routes(gateway: Gateway) -> APIRouter:
    """Return ``/v1/agents``."""
    router, settings = plain_router("agents"), gateway.settings
    registration = BodyReader(RegisterRequest, _REGISTER_BYTES, settings.read_seconds)
    heartbeats = BodyReader(HeartbeatRequest, settings.max_body_bytes, settings.read_seconds)
    polls = BodyReader(PollRequest, settings.max_body_bytes, settings.read_seconds)
    goodbyes = BodyReader(GoodbyeRequest, _LEASE_BYTES, settings.read_seconds)

    @router.post("/v1/agents", **openapi.REGISTER)
    async def register(request: Request) -> Response:
        token = await gateway.gatekeeper.registrant(request.scope)
        origin = origin_of(request.scope)
        for name in (f"registered:token:{token.id}", f"registered:address:{origin.address}"):
            await gateway.limits.take(name, settings.registrations_per_minute)
        body = await registration.read(request)
        with bus_problems():
            return json_response(await gateway.agents.register(body, token))

    @router.post("/v1/agents/{name}/heartbeat", **openapi.HEARTBEAT)
    async def heartbeat(request: Request) -> Response:
        caller = await agent_of(gateway, request)
        body = await heartbeats.read(request)
        answer = await gateway.agents.heartbeat(body, caller)
        gateway.metrics.heartbeats.labels(caller.record.role).inc()
        return json_response(answer)

    @router.post("/v1/agents/{name}/poll", **openapi.POLL)
    async def poll(request: Request) -> Response:
        caller = await agent_of(gateway, request)
        body = await polls.read(request)
        return json_response(await gateway.polls.hold(caller, body, request.receive))

    @router.post("/v1/agents/{name}/goodbye", **openapi.GOODBYE)
    async def goodbye(request: Request) -> Response:
        caller = await agent_of(gateway, request)
        body = await goodbyes.read(request)
        with bus_problems():
            return json_response(await gateway.deaths.goodbye(caller, body))

    return router


def lease_routes(gateway: Gateway) -> APIRouter:
    """Return ``/v1/leases``."""
    router, settings = plain_router("leases"), gateway.settings
    accepts = BodyReader(AcceptRequest, _LEASE_BYTES, settings.read_seconds)
    reports = BodyReader(ReportRequest, _LEASE_BYTES, settings.read_seconds)

    @router.post("/v1/leases/{lease}/accept", **openapi.ACCEPT)
    async def accept(request: Request) -> Response:
        caller = await gateway.gatekeeper.caller(request.scope)
        await accepts.read(request)
        lease = _lease(request, caller)
        with bus_problems():
            seen = gateway.holdings.seen(lease)
            terms = gateway.terms_at(caller.record.site)
            record = await leases.accept(gateway.workloads, lease, caller.name, seen, terms)
        gateway.metrics.accepted.inc()
        if seen and seen.record.state is WorkloadState.OFFERED:  # else the mirror lags, by milliseconds
            delay = datetime.now(UTC) - seen.record.changed_at
            gateway.metrics.accepting.observe(max(0.0, delay.total_seconds()))
        log.debug("lease.accepted", on_agent_lost=record.on_agent_lost)
        token = gateway.gatekeeper.credentials.issue_lease_token(lease, caller.name)
        longer = record.lease_seconds or None
        opened = gateway.boundary.opened(caller.record.site, record.queue)
        return json_response(
            AcceptResponse(lease=str(lease), token=token, lease_seconds=longer, opened=opened)
        )

    @router.post("/v1/leases/{lease}/report", **openapi.REPORT)
    async def report(request: Request) -> Response:
        caller = await gateway.gatekeeper.caller(request.scope)
        body = await reports.read(request)
        lease = _lease(request, caller)
        with bus_problems():
            seen = gateway.holdings.seen(lease)
            await leases.report(gateway.workloads, lease, caller.name, body, seen)
        gateway.metrics.reports.labels(body.outcome.value).inc()
        log.info("lease.reported", outcome=body.outcome.value, exit_code=body.exit_code)
        return json_response(ReportResponse(lease=str(lease)))

    return router


def execution_routes(gateway: Gateway) -> APIRouter:
    """Return ``/execution``."""
    router = plain_router("execution")

    @router.api_route("/execution/{path:path}", methods=list(METHODS), include_in_schema=False)
    async def execution(request: Request) -> Response:
        return await gateway.proxy.handle(request)

    return router


def plane_routes(gateway: Gateway) -> APIRouter:
    """Return health and metrics, for the plane's own orchestrator and Prometheus."""
    router = plain_router("plane")

    @router.get("/healthz", **openapi.HEALTHZ)
    async def healthz(_request: Request) -> Response:
        return _no_store(gateway.health)

    @router.get("/readyz", **openapi.READYZ)
    async def readyz(_request: Request) -> Response:
        readiness = await gateway.readiness.read()
        return _no_store(readiness, 503 if readiness.status == "unready" else 200)

    @router.get("/metrics", **openapi.METRICS)
    async def metrics(request: Request) -> Response:
        refresh(gateway)
        body, content_type = gateway.metrics.all.render(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    return router


async def agent_of(gateway: Gateway, request: Request) -> Caller:
    """Return the caller of an operation below its own address; raises the problem to answer with."""
    caller = await gateway.gatekeeper.caller(request.scope)
    structlog.contextvars.bind_contextvars(agent=caller.name)
    note_caller(request, caller)
    if request.path_params["name"] != caller.name:
        raise ProblemError(
            ProblemType.FORBIDDEN, f"This credential is agent {caller.name!r}'s; use its own address."
        )
    return caller


def _lease(request: Request, caller: Caller) -> LeaseKey:
    text = request.path_params["lease"]
    try:
        lease = LeaseKey.parse(text)
    except InvalidIdError:
        lease = None
    if lease is None or str(lease) != text:  # a line break at its end passes the pattern
        raise ProblemError(
            ProblemType.NOT_FOUND, "There is no such lease; its id is '<workload uuid>.<epoch>'."
        )
    structlog.contextvars.bind_contextvars(agent=caller.name, lease=text)
    note_caller(request, caller)
    return lease


def note_caller(request: Request, caller: Caller) -> None:
    """Have the request counted as this agent's."""
    request.scope["state"]["counted_for"] = (caller.name, caller.record.site)


@contextmanager
def bus_problems() -> Iterator[None]:
    """Turn what the bus raises into the problem to answer with."""
    try:
        yield
    except LeaseLostError as exc:
        raise ProblemError(ProblemType.LEASE_LOST, f"{exc}. Stop it; there is nothing to report.") from exc
    except NameTakenError as exc:
        raise ProblemError(
            ProblemType.FORBIDDEN,
            f"{exc}. Choose another name, or have the other token revoked; 'jetbridge token rotate' gives a "
            "token a new secret and keeps its agents.",
        ) from exc
    except (BusUnavailableError, ConflictError) as exc:
        log.warning("bus.unavailable", error=str(exc))
        raise unavailable("NATS did not take the change. Repeat the same request.") from exc
    except msgspec.DecodeError as exc:
        log.warning("record.unreadable", error=str(exc))
        raise unavailable("The record is of a newer version; a newer gateway can do this.") from exc


def _no_store(body: msgspec.Struct, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        media_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
