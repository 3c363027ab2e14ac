"""
The agent's side of outboxes: what a task under ``wait`` could not tell the plane is told in its name later.

In order, each call until it is answered, then the report; only then the outbox goes. A process that dies in
between leaves it to the next one, which repeats at most the last call, and each may be repeated.

===========================  ===============================================================================
answer to a kept call        what it means
===========================  ===============================================================================
2xx                          delivered: the next one
nobody took it, 5xx          tried again; Airflow's own 500 for as long as Airflow's client would have
410; 404, 409 for a state    overtaken: the lease or the attempt is over, nothing of it counts. All is dropped
any other 4xx                refused, though the task was told *yes*: what came after it must not count, so
                             all is dropped and the lease reported as failed
===========================  ===============================================================================
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from pathlib import Path
from typing import Protocol

import structlog

from jetbridge.agent.errors import GatewayUnavailableError
from jetbridge.agent.gateway_client import GatewayClient
from jetbridge.contracts.messages import Outcome
from jetbridge.worker.frames import MAX_REASON_LENGTH, Exited
from jetbridge.worker.outbox import (
    Call,
    End,
    Outbox,
    OutboxDamagedError,
    OutboxError,
    leases_in,
    outbox_path,
)
from jetbridge.worker.ride_rules import row_of

log = structlog.get_logger(__name__)

SERVER_ERRORS = 60
"""Answers with 500 to one call before it counts as refused; as often as Airflow's client tries."""

_INTERNAL = 500


class Verdict(Enum):
    """What an answer means; see the table at the top."""

    DELIVERED = auto()
    OVERTAKEN = auto()
    REFUSED = auto()


class Execution(Protocol):
    """What of a session is needed; see :meth:`jetbridge.agent.session.Session.execution`."""

    async def execution(self, attempt: Attempt) -> int:
        """Make a call until it is answered and return the answer's status."""
        ...


class Attempt(Protocol):
    """One try of one call."""

    async def __call__(self, client: GatewayClient, /) -> int:
        """Return the answer's status; raises ``GatewayError`` when another try may help."""
        ...


def judge(call: Call, status: int) -> Verdict:
    """Say what the answer to a kept call means."""
    if status < 400:
        return Verdict.DELIVERED
    moved_on = status == 410 or (status in (404, 409) and row_of(call.method, call.target).is_last)
    return Verdict.OVERTAKEN if moved_on else Verdict.REFUSED


class Outboxes:
    """All outboxes of an agent, in one directory below its data."""

    def __init__(self, session: Execution, directory: Path) -> None:
        self._session = session
        self._directory = directory

    def path_of(self, lease: str) -> Path:
        """Return where the supervisor of a lease keeps what the plane cannot take."""
        return outbox_path(self._directory, lease)

    def left_behind(self) -> list[str]:
        """Return the leases of which a process before this one has not delivered everything."""
        return leases_in(self._directory)

    async def kept_end(self, lease: str) -> Exited | None:
        """Return how a lease of a process before this one ended, if that was kept."""
        outbox = self._outbox(lease)
        try:
            end = await asyncio.to_thread(outbox.kept_end)
        except OutboxError as error:
            return self._damaged(outbox, lease, error)
        finally:
            outbox.close()
        return _exited(lease, end) if end else None

    async def deliver(self, lease: str, token: str, how: Exited) -> Exited:
        """Keep how a workload ended, deliver what its task had said, and return what is to be reported."""
        outbox = self._outbox(lease)
        try:
            await self._keep_end(outbox, how)
            while call := await asyncio.to_thread(outbox.first):
                status = await self._pass_on(call, token)
                match judge(call, status):
                    case Verdict.DELIVERED:
                        log.info("a kept call is delivered", call=repr(call))
                        await self._forget(outbox, call)
                    case Verdict.OVERTAKEN:
                        log.warning("outbox dropped: its attempt is over", call=repr(call), status=status)
                        return how
                    case Verdict.REFUSED:
                        log.error("outbox dropped: a kept call was refused", call=repr(call), status=status)
                        return _failed(lease, f"Airflow refused what the task had sent: {_of(call, status)}")
        except OutboxDamagedError as error:
            return self._damaged(outbox, lease, error)
        finally:
            outbox.close()
        return how

    def drop(self, lease: str) -> None:
        """Delete what is left of a lease's outbox."""
        outbox = self._outbox(lease)
        if outbox.exists:
            outbox.remove()

    def drop_lost(self, lease: str) -> None:
        """Delete the outbox of a lease that is not this agent's any more, and say so."""
        outbox = self._outbox(lease)
        if outbox.exists:
            log.warning("outbox dropped: the lease is lost and what ran under it does not count", lease=lease)
            outbox.remove()

    def _outbox(self, lease: str) -> Outbox:
        return Outbox(self.path_of(lease))

    async def _keep_end(self, outbox: Outbox, how: Exited) -> None:
        end = End(outcome=how.outcome, exit_code=how.exit_code, reason=how.reason)
        try:
            await asyncio.to_thread(outbox.end, end)
        except OutboxDamagedError:
            raise
        except OutboxError as error:
            # It is only for a process after this one; this one reports it without.
            log.warning("the end of a workload cannot be kept", reason=str(error))

    async def _forget(self, outbox: Outbox, call: Call) -> None:
        while True:
            try:
                return await asyncio.to_thread(outbox.delivered, call)
            except OutboxDamagedError:
                raise
            except OutboxError as error:
                log.warning("a delivered call cannot be crossed off; trying again", reason=str(error))
                await asyncio.sleep(1.0)

    async def _pass_on(self, call: Call, token: str) -> int:
        errors = 0

        async def attempt(client: GatewayClient, /) -> int:
            nonlocal errors
            status = await client.execution(
                token, call.method, call.target, headers=call.headers, body=call.body
            )
            if status >= _INTERNAL:
                errors += 1
                if errors < SERVER_ERRORS:
                    raise GatewayUnavailableError(f"Airflow answered {status} to a kept call")
            return status

        return await self._session.execution(attempt)

    def _damaged(self, outbox: Outbox, lease: str, error: OutboxError) -> Exited:
        aside = outbox.put_aside()
        log.error("outbox cannot be read; put aside", reason=str(error), file=str(aside))
        return _failed(lease, f"what the task said while the plane was away is lost: {error}")


def _exited(lease: str, end: End) -> Exited:
    return Exited(lease=lease, outcome=end.outcome, exit_code=end.exit_code, reason=end.reason)


def _failed(lease: str, reason: str) -> Exited:
    return Exited(lease=lease, outcome=Outcome.FAILED, reason=reason[:MAX_REASON_LENGTH])


def _of(call: Call, status: int) -> str:
    return f"{call.method} {call.target.partition('?')[0]} answered {status}"
