"""
``/execution/*``: passed on to Airflow's Execution API, with Airflow's token in place of the lease's.

The lease is checked on every request, so a lease that moved on is fenced at once, whatever the agent
thinks. What may be asked in its name is in ``execution_rules``; nothing else goes on. A lost lease is
answered the way Airflow's own client understands: 410 as plain ``application/json`` with a ``detail``
object makes its supervisor stop the task. Everything that may get better is a 5xx, which that client tries
again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import structlog
from starlette.requests import Request
from starlette.responses import Response

from jetbridge.bus.errors import BusUnavailableError
from jetbridge.contracts.messages import WorkloadKind
from jetbridge.contracts.problems import ProblemType
from jetbridge.contracts.records import WorkloadRecord
from jetbridge.gateway.airflow_calls import AirflowCalls, Call, LostMeanwhileError
from jetbridge.gateway.assets import AssetDesk
from jetbridge.gateway.auth import Caller, Gatekeeper
from jetbridge.gateway.boundary import Boundary, Crossing
from jetbridge.gateway.bundles import BundleDesk
from jetbridge.gateway.contact import Contact
from jetbridge.gateway.credentials import LeaseClaims, TriggerClaims
from jetbridge.gateway.execution_rules import (
    Asked,
    Asker,
    Kind,
    NotAllowedError,
    check,
    find,
    needs_assets,
    needs_dag,
)
from jetbridge.gateway.holdings import Holdings
from jetbridge.gateway.metrics import GatewayMetrics
from jetbridge.gateway.problems import ProblemError, unavailable
from jetbridge.gateway.proxy_rules import PREFIX, PathError, upstream_target
from jetbridge.gateway.relay import BoundaryResponse, LeaseLostResponse
from jetbridge.gateway.screening import SCREENS, START, STATE, RefusedError
from jetbridge.gateway.settings import GatewaySettings
from jetbridge.gateway.triggers import TriggerDesk

log = structlog.get_logger(__name__)

NO_TASK = "00000000-0000-0000-0000-000000000000"
"""Whose token an asker without a task gets: Airflow's own triggerer asks in this one's name (3.3)."""


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """Passes the requests of running workloads on. ``nudge`` tells the schedulers that a task has ended."""

    airflow: AirflowCalls
    settings: GatewaySettings
    gatekeeper: Gatekeeper
    holdings: Holdings
    contact: Contact
    triggers: TriggerDesk
    bundles: BundleDesk
    assets: AssetDesk
    boundary: Boundary
    metrics: GatewayMetrics
    nudge: Callable[[], Awaitable[None]]

    async def handle(self, request: Request) -> Response:
        """Answer one request; raises the problem to answer with."""
        holder = self.gatekeeper.holder(request.scope)
        structlog.contextvars.bind_contextvars(agent=holder.agent, **_names(holder))
        target = _target(request.scope["raw_path"], request)
        asker = await self._asker(holder)
        if asker is None:
            return self._fenced()
        with _allowed(request):
            asked = _asked(request, target)
            if asker.kind in asked.route.kinds and needs_assets(asked, self.settings.other_dags):
                asker = replace(asker, assets=await self.assets.own(asker, holder.agent))
            check(asked, asker, self.settings.other_dags)
        crossing = self._crossing(request, asked, holder, asker)
        try:
            return await self._cross(request, target, holder, asker, crossing)
        except LostMeanwhileError:
            return self._fenced()
        except RefusedError as exc:
            log.info("boundary.refused", data=exc.data.value, path=request.scope["path"])
            self.metrics.refused.labels(ProblemType.BOUNDARY.slug).inc()
            return BoundaryResponse(str(exc))

    def _fenced(self) -> Response:
        log.info("lease.fenced")
        self.metrics.refused.labels("lease-lost").inc()
        return LeaseLostResponse()

    def _crossing(
        self, request: Request, asked: Asked, holder: LeaseClaims | TriggerClaims, asker: Asker
    ) -> Crossing:
        """Return what a request is to the boundary, and have it counted for its agent."""
        agent = self.gatekeeper.agents.get(holder.agent)
        crossing = Crossing(
            operation=f"{asked.route.method} /execution{asked.route.path.replace(':path', '')}",
            agent=holder.agent,
            site=agent.record.site if agent else "",
            queue=asker.queue,
            task=asker.coordinates,
            named=asked.path,
        )
        request.scope["state"]["operation"] = crossing.operation
        request.scope["state"]["counted_for"] = (crossing.agent, crossing.site)
        return crossing

    async def _cross(
        self,
        request: Request,
        target: str,
        holder: LeaseClaims | TriggerClaims,
        asker: Asker,
        crossing: Crossing,
    ) -> Response:
        """Pass on what may cross; raises :class:`RefusedError` for what may not."""
        call = Call(
            target=target,
            workload_id=asker.task_instance or NO_TASK,
            still_held=partial(self._holds, holder),
        )
        decision = self.boundary.decision(crossing.site, crossing.queue)
        self.boundary.check_operation(crossing, decision)
        if crossing.operation == START:
            # Its answer is read whole, as it may hold what this plane sealed.
            relay = await self.airflow.forward(request, replace(call, plain=True))
            return await relay.changed(lambda answer: self.boundary.opened_start(answer, crossing.task))
        if crossing.operation not in SCREENS:
            return await self.airflow.forward(request, call)
        passed = self.boundary.screen(crossing, decision, await self.airflow.whole_body(request))
        relay = await self.airflow.forward(request, replace(call, body=passed))
        if crossing.operation == STATE and relay.status_code < 300:
            # What follows can be scheduled now; the lease's end is known only after the upload of the log.
            await self.nudge()
        return relay

    async def read(self, request: Request, path: bytes, caller: Caller) -> Response:
        """Pass on a Dag processor's read of ``path``; raises the problem to answer with."""
        target = _target(path, request)
        with _allowed(request):
            asked = _asked(request, target)
            asker = Asker(kind=Kind.DAG_PROCESSOR, dags=await self._dags(caller, asked))
            check(asked, asker, self.settings.other_dags)
        return await self.airflow.forward(request, Call(target=target, workload_id=NO_TASK))

    async def _dags(self, caller: Caller, asked: Asked) -> frozenset[str]:
        """Return the Dag that is asked about if it is of a bundle that the caller holds."""
        dag = asked.named("dag_id") if needs_dag(asked, self.settings.other_dags) else None
        return frozenset({dag} if dag and await self.bundles.holds_dag(caller, dag) else ())

    async def _asker(self, holder: LeaseClaims | TriggerClaims) -> Asker | None:
        """Return on whose behalf Airflow is asked; None when the lease is lost."""
        if isinstance(holder, TriggerClaims):
            return await self.triggers.asker_of(holder)
        record = await self._held(holder)
        if record is None:
            return None
        return Asker(
            kind=Kind.TASK if record.kind is WorkloadKind.TASK else Kind.CALLBACK,
            task_instance=record.workload_id,
            coordinates=record.coordinates,
            queue=record.queue,
            dags=frozenset({record.coordinates.dag_id}),
        )

    async def _holds(self, holder: LeaseClaims | TriggerClaims) -> bool:
        return await self._asker(holder) is not None

    async def _held(self, holder: LeaseClaims) -> WorkloadRecord | None:
        if not self.contact.within(self.settings.lease_seconds):
            # By now the plane may have given the work to somebody else without our hearing of it.
            raise unavailable("The gateway has no contact to NATS, so leases cannot be checked.")
        try:
            return await self.holdings.held(holder.lease, holder.agent)
        except BusUnavailableError as exc:
            raise unavailable("The lease cannot be checked now because NATS is away.") from exc


def _target(path: bytes, request: Request) -> str:
    try:
        return upstream_target(path, request.scope["query_string"])
    except PathError as exc:
        raise ProblemError(ProblemType.MALFORMED, f"The request is not passed on: {exc}.") from exc


def _asked(request: Request, target: str) -> Asked:
    return find(request.method, target[len(PREFIX) - 1 :])


@contextmanager
def _allowed(request: Request) -> Iterator[None]:
    """Turn what the rules refuse into 403. The path is in the log: it says what a Dag tried to reach."""
    try:
        yield
    except NotAllowedError as exc:
        log.warning("execution.refused", method=request.method, path=request.scope["path"], reason=str(exc))
        raise ProblemError(ProblemType.FORBIDDEN, f"The request is not passed on: {exc}.") from exc


def _names(holder: LeaseClaims | TriggerClaims) -> dict[str, str | int]:
    if isinstance(holder, TriggerClaims):
        return {"trigger_id": holder.trigger_id, "triggerer": holder.triggerer}
    return {"lease": str(holder.lease)}
