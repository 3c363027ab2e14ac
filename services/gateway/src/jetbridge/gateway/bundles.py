"""
What Dag processor agents ask: leases of bundles from NATS, everything about Dags from the bridge.

The lease is checked here, on every request, and not again in the bridge. So a request that was let through
just before its agent lost the bundle may be written after the next holder's first. That heals by itself:
every parse of the next holder is written again, also when nothing changed, at least every
``[dag_processor] min_file_process_interval``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TypeVar

import structlog

from jetbridge.bus.bundles import BundleStore, epoch_of, held_by
from jetbridge.bus.errors import BusError
from jetbridge.bus.rpc import RpcClient, RpcRefusedError
from jetbridge.bus.topology import BUNDLE_LEASE_SECONDS
from jetbridge.contracts.dag_processing import (
    FIND_DAG,
    ROLE,
    ClaimBundlesRequest,
    ClaimBundlesResponse,
    DagFound,
    FindDag,
    HeldBundle,
    StandbyBundle,
)
from jetbridge.contracts.envelope import Body, MessageError
from jetbridge.contracts.problems import ProblemType
from jetbridge.contracts.rpc import RefusalCode
from jetbridge.gateway.auth import Caller
from jetbridge.gateway.orders import Orders
from jetbridge.gateway.problems import ProblemError, unavailable
from jetbridge.gateway.scope_rules import check_bundles

log = structlog.get_logger(__name__)
A = TypeVar("A", bound=Body)

_CLAIMS_AT_ONCE = 8
_FIND_SECONDS = 15.0
"""Below the 20 s for which agents wait."""

_PROBLEMS = {
    RefusalCode.MALFORMED: ProblemType.MALFORMED,
    RefusalCode.TOO_LARGE: ProblemType.TOO_LARGE,
    RefusalCode.UNSUPPORTED: ProblemType.UNUSABLE,
    RefusalCode.UNUSABLE: ProblemType.UNUSABLE,
    RefusalCode.NOT_FOUND: ProblemType.NOT_FOUND,
    RefusalCode.INTERNAL: ProblemType.INTERNAL,
}
"""All others are the plane's trouble of the moment: an outage, or a bridge that is not upgraded yet."""


class BundleDesk:
    """Where Dag processor agents take bundles and say what is in them."""

    def __init__(self, store: BundleStore, orders: Orders, rpc: RpcClient) -> None:
        self._store = store
        self._orders = orders
        self._rpc = rpc

    async def claim(self, caller: Caller, request: ClaimBundlesRequest) -> ClaimBundlesResponse:
        """
        Give back, take and keep bundles. Repeating it is harmless, and is what keeps them.

        A cordoned agent keeps what it has and takes nothing: a bundle nobody has is in neither list.
        """
        check_bundles(caller.token, request.bundles)
        agent, instance = caller.name, caller.claims.instance
        cordoned = self._orders.is_cordoned(agent)
        turn = asyncio.Semaphore(_CLAIMS_AT_ONCE)

        async def one(bundle: str) -> HeldBundle | StandbyBundle | None:
            async with turn:
                if cordoned and await self._store.get(bundle) is None:
                    return None
                lease = await self._store.claim(bundle, agent, instance)
            if lease.record.agent == agent:
                return HeldBundle(bundle=bundle, epoch=epoch_of(lease))
            return StandbyBundle(bundle=bundle, agent=lease.record.agent)

        try:
            for given in request.release:
                await self._store.release(given.bundle, agent, instance, given.epoch)
            answers = await asyncio.gather(*map(one, dict.fromkeys(request.bundles)))
        except BusError as exc:
            raise unavailable("The leases of bundles cannot be written now.") from exc
        return ClaimBundlesResponse(
            held=tuple(answer for answer in answers if isinstance(answer, HeldBundle)),
            standby=tuple(answer for answer in answers if isinstance(answer, StandbyBundle)),
            lease_seconds=BUNDLE_LEASE_SECONDS,
        )

    async def require(self, caller: Caller, bundles: Iterable[HeldBundle]) -> None:
        """Raise the problem to answer with unless the caller holds all of ``bundles``."""
        for held in bundles:
            try:
                lease = await self._store.get(held.bundle)
            except BusError as exc:
                raise unavailable("The lease of a bundle cannot be read now.") from exc
            if lease is None or not held_by(lease, caller.name, caller.claims.instance, held.epoch):
                raise ProblemError(
                    ProblemType.LEASE_LOST,
                    f"Bundle {held.bundle!r} is not this agent's under epoch {held.epoch}. Claim it again.",
                )

    async def holds_dag(self, caller: Caller, dag_id: str) -> bool:
        """Say whether a Dag is of a bundle that the caller holds; raises the problem to answer with."""
        answer = await self.ask(
            caller, FIND_DAG, FindDag(dag_id=dag_id), DagFound, timeout_seconds=_FIND_SECONDS
        )
        if answer.bundle is None:
            return False
        try:
            lease = await self._store.get(answer.bundle)
        except BusError as exc:
            raise unavailable("The lease of a bundle cannot be read now.") from exc
        mine = caller.name, caller.claims.instance
        return lease is not None and (lease.record.agent, lease.record.instance) == mine

    async def ask(
        self, caller: Caller, subject: str, request: Body, answer: type[A], timeout_seconds: float
    ) -> A:
        """Return the bridge's answer; raises the problem to answer with."""
        try:
            return await self._rpc.ask(
                subject, request, answer, agent=caller.name, timeout_seconds=timeout_seconds
            )
        except RpcRefusedError as exc:
            kind = _PROBLEMS.get(exc.code)
            raise (ProblemError(kind, exc.detail) if kind else unavailable(exc.detail)) from exc
        except (BusError, MessageError) as exc:
            log.warning("bridge.unavailable", subject=subject, error=str(exc))
            raise unavailable("The plane's bridge did not answer. Repeat the same request.") from exc


def require_dag_processor(caller: Caller) -> None:
    """Raise 403 unless the caller registered as a Dag processor."""
    if caller.record.role != ROLE:
        raise ProblemError(
            ProblemType.FORBIDDEN,
            f"Agent {caller.name!r} is registered as {caller.record.role}, not as {ROLE}.",
        )
