"""
The life of an agent's process: register, work, drain, stop, and an exit code that says how it went.

SIGTERM and SIGINT mean drain: take nothing new, finish what runs, report it, exit 0. A second signal
means hurry: end what runs, report that, exit.
"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from typing import Protocol

import structlog

from jetbridge.agent.errors import AgentError, ExitCode
from jetbridge.agent.loops import Role, heartbeat_loop, poll_loop
from jetbridge.agent.session import Session
from jetbridge.agent.side_tasks import SideTasks
from jetbridge.agent.waiting import first

log = structlog.get_logger(__name__)


class StopRequests:
    """What signals asked for."""

    def __init__(self) -> None:
        self.drain = asyncio.Event()
        self.hurry = asyncio.Event()

    def listen(self) -> None:
        """Take over SIGTERM and SIGINT in the running loop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request)

    def request(self) -> None:
        """Note one request to stop."""
        (self.hurry if self.drain.is_set() else self.drain).set()


class RunningRole(Role, Protocol):
    """A role with work of its own that has to be ended in order."""

    async def run(self) -> None:
        """Do what the role does besides talking to the gateway, for as long as the agent runs."""
        ...

    def drain(self) -> None:
        """Take no more work."""
        ...

    def terminate(self, reason: str) -> None:
        """End all running work; its end is reported with ``reason``."""
        ...

    async def idle(self) -> None:
        """Wait until no work runs and every end was reported."""
        ...

    async def close(self) -> None:
        """Free what the role holds (processes, files). Work that still runs ends here."""
        ...


@dataclass(frozen=True)
class StopLimits:
    """
    How long the end of an agent may take.

    A drain may take ``drain_seconds``; then, as after a second signal or a failure, running work is ended
    by force, which together with its reports may take ``terminate_seconds``.
    """

    drain_seconds: float
    terminate_seconds: float


async def run_agent(
    session: Session, role: RunningRole, tasks: SideTasks, stop: StopRequests, limits: StopLimits
) -> ExitCode:
    """Run an agent until it was asked to stop or cannot go on."""
    tasks.run_forever("role", role.run())
    tasks.run("start of conversation", _converse(session, role, tasks))
    code, why = await _serve(role, tasks, stop, limits.drain_seconds)
    if why:
        role.terminate(why)
    try:
        async with asyncio.timeout(limits.terminate_seconds):
            await role.idle()
    except TimeoutError:
        log.error(  # noqa: TRY400 - the time-out itself says nothing
            "some work could not be ended and reported in time", leases=role.leases()
        )
        code = code or ExitCode.FAILED
    await tasks.cancel()
    await role.close()
    log.info("agent stopped", exit_code=int(code))
    return code


async def _converse(session: Session, role: Role, tasks: SideTasks) -> None:
    await session.register()
    tasks.run_forever("heartbeat", heartbeat_loop(session, role))
    tasks.run_forever("poll", poll_loop(session, role))


async def _serve(
    role: RunningRole, tasks: SideTasks, stop: StopRequests, drain_seconds: float
) -> tuple[ExitCode, str]:
    """Return the exit code so far and, when work has to be ended by force, why."""
    try:
        await first(tasks.failure(), stop.drain.wait())
        log.info("draining: no new work is taken", leases=role.leases(), limit_seconds=drain_seconds)
        role.drain()
        async with asyncio.timeout(drain_seconds) as limit:
            await first(tasks.failure(), stop.hurry.wait(), role.idle())
    except AgentError as error:
        log.error("the agent cannot go on", reason=str(error))  # noqa: TRY400 - the reason is the message
        return error.exit_code, f"the worker cannot go on: {type(error).__name__}"
    except Exception as error:  # noqa: BLE001 - logged by SideTasks; what runs has to be ended in order
        if isinstance(error, TimeoutError) and limit.expired():
            return ExitCode.OK, f"the worker had to stop and the task did not end within {drain_seconds:g} s"
        return ExitCode.FAILED, f"the worker failed: {type(error).__name__}"
    return ExitCode.OK, "the worker was told to stop at once" if stop.hurry.is_set() else ""
