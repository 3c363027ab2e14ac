"""
What a worker does with offers: accept, run, report. One coroutine per lease, from the offer to the end.

    offered ─► accepting ─► running ─► reporting ─► gone
                  │ 410        │ lost      │ 410
                  ▼            ▼           ▼
                 gone       stopping ──►  gone, unreported

A slot is taken from ``accepting`` until the processes are gone, so there are never more workloads than
slots. It is free again while the report is on its way: the machine's capacity is, and when the gateway is
away no new work comes anyway. The lease stays held, and in heartbeats, until the report was taken.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

import msgspec
import structlog

from jetbridge.agent.errors import LeaseLostError, RequestRefusedError
from jetbridge.agent.lease_clock import lease_time
from jetbridge.agent.side_tasks import SideTasks
from jetbridge.agent.waiting import first
from jetbridge.contracts.api import FENCE_SHARE, AcceptResponse, Offer, ReportRequest
from jetbridge.contracts.ids import LeaseKey
from jetbridge.contracts.messages import Outcome, WorkloadKind
from jetbridge.worker import spans
from jetbridge.worker.delivery import Outboxes
from jetbridge.worker.frames import Exited, Hold, Order
from jetbridge.worker.ports import Leases, Processes

log = structlog.get_logger(__name__)

DISOWNED = "the worker process that held this lease is gone, and the task's processes died with it"


class State(Enum):
    """Where a lease is; see the drawing at the top."""

    ACCEPTING = auto()
    RUNNING = auto()
    STOPPING = auto()
    REPORTING = auto()


TAKES_A_SLOT = frozenset({State.ACCEPTING, State.RUNNING, State.STOPPING})
IS_HELD = frozenset({State.RUNNING, State.REPORTING})


@dataclass
class Lease:
    """One lease on this worker."""

    id: str
    state: State = State.ACCEPTING
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    ended_because: str = ""
    """Set when the worker itself ends a workload that it still holds; goes into the report."""
    good_seconds: float = 0.0
    """How long it is good without contact, for one under ``wait``; 0 for all others."""
    handed_over: bool = False
    """Whether it is ended so that it runs elsewhere."""


class Worker:
    """
    The worker role of an agent (see ``jetbridge.agent.loops.Role``).

    :param slots: workloads at the same time
    :param stop_grace_seconds: between SIGTERM and SIGKILL for a workload that has to end
    :param task_memory_bytes: what a task may take; 0 is no limit
    """

    def __init__(  # noqa: PLR0913 - what it works with, and what it may
        self,
        session: Leases,
        processes: Processes,
        outboxes: Outboxes,
        tasks: SideTasks,
        *,
        slots: int,
        stop_grace_seconds: float,
        task_memory_bytes: int = 0,
    ) -> None:
        self._session = session
        self._processes = processes
        self._outboxes = outboxes
        self._tasks = tasks
        self._slots = slots
        self._stop_grace_seconds = stop_grace_seconds
        self._task_memory_bytes = task_memory_bytes
        self._table: dict[str, Lease] = {}
        self._unknown: frozenset[str] = frozenset()
        self._terminated_because = ""
        self._hold = Hold(until=0.0, heard_at=0.0)
        self._lapses = 0  # how often the time of all leases was over before it was prolonged again
        self._handing_over = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.slots_changed = asyncio.Event()
        self.state_changed = asyncio.Event()
        self.draining = False

    # -- what the loops ask and tell, see jetbridge.agent.loops.Role

    def free_slots(self) -> int:
        """Return how many offers could be accepted now."""
        if self.draining or not self._processes.ready or lease_time() >= self._hold.until:
            return 0  # without recorded heartbeats the plane may already be taking leases back
        return max(0, self._slots - sum(lease.state in TAKES_A_SLOT for lease in self._table.values()))

    def leases(self) -> tuple[str, ...]:
        """Return the leases this worker holds: confirmed and not yet reported."""
        return tuple(lease.id for lease in self._table.values() if lease.state in IS_HELD)

    def offered(self, offers: Iterable[Offer]) -> None:
        """Begin to accept what fits; whatever does not is offered to another agent when it expires."""
        for offer in offers:
            if self.free_slots() == 0:
                log.warning("offer left to others: no free slot", lease=offer.lease)
            elif not self._is_here(offer):
                self._begin(Lease(offer.lease), offer)

    def lost(self, leases: Iterable[str]) -> None:
        """Stop what runs under leases that are not this worker's any more; nothing will be reported."""
        for lease_id in leases:
            lease = self._table.get(lease_id)
            if lease is not None and lease.state is State.RUNNING:
                log.warning("lease lost; its workload is stopped", lease=lease_id)
                self._stop(lease, State.STOPPING)

    def held(self, leases: Iterable[str]) -> None:
        """
        Report leases that are held in this worker's name by a process that is gone.

        A worker killed and started again meets its old leases here. Nothing of them can still run: the
        processes died with the old worker. Twice in a row, because one answer may have crossed an accept
        or a report.
        """
        unknown = frozenset(leases) - self._table.keys()
        for lease_id in unknown & self._unknown:
            lease = Lease(lease_id, State.REPORTING)
            self._enter(lease)
            self._tasks.run(f"disown {lease_id}", self._disown(lease))
        self._unknown = unknown

    def prolonged(self, sent_at: float, until: float) -> None:
        """Let what runs go on until then. The fork server keeps the time, in case this process hangs."""
        if self._hold.until <= lease_time():
            self._lapses += 1
            self._note_slots()
        self._hold = Hold(until=max(self._hold.until, until), heard_at=max(self._hold.heard_at, sent_at))
        self._tasks.run("hold", self._processes.hold(self._hold))

    # -- life and death, see jetbridge.agent.runtime.RunningRole

    async def run(self) -> None:
        """Take up what the process before this one has left, and keep the fork server alive."""
        for lease_id in self._outboxes.left_behind():
            lease = Lease(lease_id, State.REPORTING)
            self._enter(lease)
            self._tasks.run(f"take up {lease_id}", self._take_up(lease))
        await self._processes.keep(self._note_slots)

    def drain(self) -> None:
        """Take no more work; what was accepted is finished."""
        self.draining = True
        self.state_changed.set()
        self._note_slots()

    def terminate(self, reason: str) -> None:
        """End all workloads; their ends are reported with ``reason``."""
        self.drain()
        self._terminated_because = reason
        for lease in self._table.values():
            if lease.state is State.RUNNING:
                lease.ended_because = reason
                self._stop(lease, State.RUNNING)

    def hand_over(self, reason: str) -> None:
        """End all workloads so that they run elsewhere; that is reported with ``reason``."""
        self._handing_over = True
        self.drain()
        self._terminated_because = reason
        for lease in self._table.values():
            if lease.state is State.RUNNING:
                lease.ended_because, lease.handed_over = reason, True
                lease.stopped.set()
                self._tasks.run(f"hand over {lease.id}", self._processes.hand_over(lease.id))

    async def idle(self) -> None:
        """Wait until nothing runs and everything was reported."""
        await self._idle.wait()

    async def close(self) -> bool:
        """
        End the fork server; say whether nothing is left, neither of it nor in an outbox.

        Whoever hears that nothing is left takes the leases back at once; what is in an outbox is for the next
        process to deliver.
        """
        return await self._processes.close() and not self._outboxes.left_behind()

    # -- one lease

    def _is_here(self, offer: Offer) -> bool:
        """
        Tell whether this lease, or another attempt at its workload, is in the table already.

        Of another attempt, one of both is lost. Its end must not overlap the other's beginning, so the
        offer is left to expire; the gateway makes it again.
        """
        workload_id = LeaseKey.parse(offer.lease).workload_id
        return any(LeaseKey.parse(known).workload_id == workload_id for known in self._table)

    def _begin(self, lease: Lease, offer: Offer) -> None:
        self._enter(lease)
        self._tasks.run(f"lease {lease.id}", spans.attempt(offer, self._carry(lease, offer)))

    async def _carry(self, lease: Lease, offer: Offer) -> None:
        """Take one lease from its offer to its end."""
        ti_id = LeaseKey.parse(lease.id).workload_id
        about = msgspec.structs.asdict(offer.coordinates)
        structlog.contextvars.bind_contextvars(lease=lease.id, ti_id=ti_id, **about)
        try:
            confirmed = await self._accept(lease)
            if confirmed is None:
                return
            how = await self._execute(lease, offer, confirmed)
            if lease.state is State.STOPPING:
                self._outboxes.drop_lost(lease.id)
                return
            await self._finish(lease, confirmed.token, how)
        finally:
            self._leave(lease)

    async def _take_up(self, lease: Lease) -> None:
        """Deliver what a process before this one could not. Nothing of the lease runs any more."""
        structlog.contextvars.bind_contextvars(lease=lease.id)
        try:
            # Of a lease that is held, the accept is answered with the same token again.
            confirmed = await self._session.accept(lease.id)
            how = await self._outboxes.kept_end(lease.id)
            gone = Exited(lease=lease.id, outcome=Outcome.ABANDONED, reason=DISOWNED)
            how = await self._outboxes.deliver(lease.id, confirmed.token, how or gone)
            await self._report(how)
            self._outboxes.drop(lease.id)
        except LeaseLostError:
            self._outboxes.drop_lost(lease.id)
        except RequestRefusedError as error:
            log.error("the outbox stays where it is: its lease is not answered for", reason=str(error))  # noqa: TRY400
        finally:
            self._leave(lease)

    async def _finish(self, lease: Lease, token: str, how: Exited) -> None:
        lease.state = State.REPORTING
        self._note_slots()
        if lease.handed_over:
            if how.outcome is not Outcome.SUCCEEDED:  # else it ended by itself, in the last moment
                how = Exited(
                    lease=lease.id,
                    outcome=Outcome.ABANDONED,
                    exit_code=how.exit_code,
                    reason=lease.ended_because,
                )
        elif lease.ended_because:
            # The task's own state may not have reached Airflow; FAILED makes the scheduler look.
            how = Exited(
                lease=lease.id, outcome=Outcome.FAILED, exit_code=how.exit_code, reason=lease.ended_because
            )
        if lease.good_seconds:
            how = await self._outboxes.deliver(lease.id, token, how)
        await self._report(how)
        if lease.good_seconds:
            self._outboxes.drop(lease.id)

    async def _accept(self, lease: Lease) -> AcceptResponse | None:
        try:
            confirmed = await self._confirmed(lease.id)
        except LeaseLostError:
            log.info("offer went to another agent or was withdrawn", lease=lease.id)
        except RequestRefusedError as error:
            log.error("accept refused; the workload is left to others", reason=str(error))  # noqa: TRY400
        else:
            lease.good_seconds = FENCE_SHARE * (confirmed.lease_seconds or 0.0)
            return confirmed
        return None

    async def _confirmed(self, lease_id: str) -> AcceptResponse:
        """
        Accept, and accept again when the leases' time was over meanwhile.

        Then the plane may have given the work to others before this answer arrived. Of a lease that is still
        held, the answer is the same again.
        """
        while True:
            lapses = self._lapses
            confirmed = await self._session.accept(lease_id)
            if lapses == self._lapses:
                return confirmed
            log.info("confirmation came late; asking again", lease=lease_id)

    async def _execute(self, lease: Lease, offer: Offer, confirmed: AcceptResponse) -> Exited:
        if self._terminated_because:
            lease.ended_because, lease.handed_over = self._terminated_because, self._handing_over
            lease.stopped.set()
        lease.state, accepted_at = State.RUNNING, time.monotonic()
        # A fork server that died is coming back; an order to stop must not have to wait for that.
        await first(self._processes.wait_ready(), lease.stopped.wait())
        if lease.stopped.is_set():
            return Exited(lease=lease.id, outcome=Outcome.FAILED, reason="stopped before it was started")
        outbox = str(self._outboxes.path_of(lease.id)) if lease.good_seconds else ""
        with spans.run() as traceparent:
            order = Order(
                lease=lease.id,
                spec=offer.spec,
                token=confirmed.token,
                outbox=outbox,
                memory_limit_bytes=self._task_memory_bytes,
                traceparent=traceparent,
                opened=confirmed.opened,
                dag_id=offer.coordinates.dag_id if offer.kind is WorkloadKind.TASK else "",
                accepted_at=accepted_at,
            )
            return await self._processes.run(order, self._hold, lease.good_seconds)

    def _stop(self, lease: Lease, state: State) -> None:
        lease.state = state
        lease.stopped.set()
        stopping = self._processes.stop(lease.id, self._stop_grace_seconds)
        self._tasks.run(f"stop {lease.id}", stopping)

    async def _report(self, how: Exited) -> None:
        log.info("workload ended", outcome=how.outcome.value, exit_code=how.exit_code, reason=how.reason)
        body = ReportRequest(outcome=how.outcome, exit_code=how.exit_code, reason=how.reason)
        try:
            await self._session.report(how.lease, body)
        except LeaseLostError:
            log.warning("report came too late: the lease is lost and what ran under it does not count")
        except RequestRefusedError as error:
            log.error("report refused; the plane has to find out by itself", reason=str(error))  # noqa: TRY400

    async def _disown(self, lease: Lease) -> None:
        try:
            await self._report(Exited(lease=lease.id, outcome=Outcome.ABANDONED, reason=DISOWNED))
        finally:
            self._leave(lease)

    def _enter(self, lease: Lease) -> None:
        self._table[lease.id] = lease
        self._idle.clear()

    def _leave(self, lease: Lease) -> None:
        del self._table[lease.id]
        if not self._table:
            self._idle.set()
        self._note_slots()

    def _note_slots(self) -> None:
        self.slots_changed.set()
