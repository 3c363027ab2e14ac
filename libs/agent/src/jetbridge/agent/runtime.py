"""
The life of an agent's process: register, work, drain, stop, and an exit code that says how it went.

SIGTERM and SIGINT mean drain, as does an order of the plane: take nothing new, finish what runs, report it,
exit 0. When the drain lasts too long, or a second signal means hurry, what still runs is handed over: it is
ended, reported as abandoned, and runs elsewhere. At the very end the agent says goodbye to the plane.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

import structlog

from jetbridge.agent.errors import AgentError, ExitCode
from jetbridge.agent.loops import Role, heartbeat_loop, poll_loop
from jetbridge.agent.session import Session
from jetbridge.agent.side_tasks import SideTasks
from jetbridge.agent.stop import StopRequests
from jetbridge.agent.waiting import first

log = structlog.get_logger(__name__)


class RunningRole(Role, Protocol):
    """A role with work of its own that has to be ended in order."""

    async def run(self) -> None:
        """Do what the role does besides talking to the gateway, for as long as the agent runs."""
        ...

    def drain(self) -> None:
        """Take no more work."""
        ...

    def terminate(self, reason: str) -> None:
        """End all running work as failed; its end is reported with ``reason``."""
        ...

    def hand_over(self, reason: str) -> None:
        """End all running work so that it runs elsewhere; that is reported with ``reason``."""
        ...

    async def idle(self) -> None:
        """Wait until no work runs and every end was reported."""
        ...

    async def close(self) -> bool:
        """Free what the role holds (processes, files) and end work that still runs; say whether it did."""
        ...


@dataclass(frozen=True)
class StopLimits:
    """
    How long the end of an agent may take.

    A drain after a signal may take ``drain_seconds``; then, as after a second signal or a failure, running
    work is ended by force, which together with its reports may take ``terminate_seconds``. A goodbye that
    finds no gateway in ``goodbye_seconds`` is left out.
    """

    drain_seconds: float
    terminate_seconds: float
    goodbye_seconds: float = 3.0


@dataclass(frozen=True)
class Ending:
    """How an agent's work comes to its end: ``terminate`` or ``hand_over`` it for a reason, if either."""

    code: ExitCode
    terminate: str = ""
    hand_over: str = ""


async def run_agent(
    session: Session, role: RunningRole, tasks: SideTasks, stop: StopRequests, limits: StopLimits
) -> ExitCode:
    """Run an agent until it was asked to stop or cannot go on."""
    tasks.run_forever("role", role.run())
    tasks.run("start of conversation", _converse(session, role, tasks, stop))
    ending = await _serve(role, tasks, stop, limits.drain_seconds)
    code = ending.code
    if ending.terminate:
        role.terminate(ending.terminate)
    if ending.hand_over:
        role.hand_over(ending.hand_over)
    try:
        async with asyncio.timeout(limits.terminate_seconds):
            await role.idle()
    except TimeoutError:
        log.error(  # noqa: TRY400 - the time-out itself says nothing
            "some work could not be ended and reported in time", leases=role.leases()
        )
        code = code or ExitCode.FAILED
    await tasks.cancel()
    if await role.close():  # else it is not true that nothing of this agent runs any more
        await session.goodbye("drained" if code is ExitCode.OK else "it had to end", limits.goodbye_seconds)
    log.info("agent stopped", exit_code=int(code))
    return code


async def _converse(session: Session, role: Role, tasks: SideTasks, stop: StopRequests) -> None:
    await session.register()
    tasks.run_forever("heartbeat", heartbeat_loop(session, role, stop))
    tasks.run_forever("poll", poll_loop(session, role, stop))


async def _serve(role: RunningRole, tasks: SideTasks, stop: StopRequests, drain_seconds: float) -> Ending:
    """Run until there is a reason to end, drain, and return what is to be done about work that still runs."""
    try:
        await first(tasks.failure(), stop.drain.wait())
        log.info("draining: no new work is taken", leases=role.leases(), ordered=stop.was_ordered)
        role.drain()
        if not stop.hurry.is_set():
            await first(tasks.failure(), stop.hurry.wait(), role.idle(), stop.time_is_up(drain_seconds))
    except AgentError as error:
        log.error("the agent cannot go on", reason=str(error))  # noqa: TRY400 - the reason is the message
        return Ending(error.exit_code, terminate=f"the worker cannot go on: {type(error).__name__}")
    except Exception as error:  # noqa: BLE001 - logged by SideTasks; what runs has to be ended in order
        return Ending(ExitCode.FAILED, terminate=f"the worker failed: {type(error).__name__}")
    return Ending(ExitCode.OK, hand_over=_why_handed_over(stop, drain_seconds))


def _why_handed_over(stop: StopRequests, drain_seconds: float) -> str:
    if stop.hurry.is_set():
        return "the worker was told to stop at once"
    if stop.was_ordered:
        return "the worker was drained and the task did not end before the deadline"
    return f"the worker had to stop and the task did not end within {drain_seconds:g} s"
