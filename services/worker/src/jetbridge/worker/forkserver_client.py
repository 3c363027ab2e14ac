"""
The agent's side of the fork server: start it, ask it for supervisors, notice its death, start it again.

Imports no Airflow: the agent's event loop stays small and never forks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import Process
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import structlog

from jetbridge.agent.errors import AgentError
from jetbridge.contracts.messages import Outcome
from jetbridge.worker import frames
from jetbridge.worker.frames import Exited, Hold, HungUpError, Order, Ready, Start, Started, Stop

log = structlog.get_logger(__name__)

READY_SECONDS = 300.0
"""Importing Airflow takes two seconds, and a minute or more from a cold network disk without bytecode."""

MAX_DEATHS = 5
DEATH_WINDOW_SECONDS = 600.0
"""A fork server that dies more often than ``MAX_DEATHS`` within this time will not get better by itself."""

PAUSES_SECONDS = (0.0, 1.0, 3.0, 7.0)
"""Before the next start, by the number of recent deaths: one may be chance, more may need time to pass."""

CLOSE_SECONDS = 10.0
"""Killing everything takes milliseconds; only a process stuck in the kernel takes longer."""


class ForkServerError(AgentError):
    """The fork server cannot be kept alive."""


@dataclass(frozen=True)
class Launch:
    """How the fork server is started. ``env`` is its whole environment."""

    env: Mapping[str, str]
    server: str
    preload: Sequence[str] = ()
    tasks_per_supervisor: int = 1
    inherited: Sequence[int] = ()
    """Descriptors that it and everything it forks shall hold, see ``jetbridge.agent.mark``."""

    def command(self, control_fd: int) -> list[str]:
        """Return the command line. It holds no secret: anybody on the machine can read it."""
        # -P keeps the current directory off the module path, where any file could pose as Airflow.
        options = ["--control-fd", str(control_fd), "--agent-pid", str(os.getpid()), "--server", self.server]
        options += ["--max-orders", str(self.tasks_per_supervisor)]
        return [
            sys.executable,
            "-P",
            "-m",
            "jetbridge.worker.forkserver",
            *options,
            "--preload",
            *self.preload,
        ]


class Incarnation:
    """One fork server process, from its start to its death."""

    def __init__(self, process: Process, control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._sending = asyncio.Lock()
        self._running: dict[str, asyncio.Future[Exited]] = {}
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[Ready | None] = loop.create_future()
        """Done when workloads can be run; None when the process died before that."""
        self._hung_up = asyncio.Event()
        loop.add_reader(control, self._read)

    @classmethod
    async def launch(cls, launch: Launch) -> Incarnation:
        """Start a fork server; it says by itself when it is ready."""
        ours, theirs = frames.channel()
        ours.settimeout(0)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *launch.command(theirs.fileno()),
                pass_fds=[theirs.fileno(), *launch.inherited],
                env=launch.env,
                stdin=asyncio.subprocess.DEVNULL,
                # A Ctrl-C in the terminal is for the agent; the fork server hears of it from there.
                start_new_session=True,
            )
        return cls(process, ours)

    async def run(self, order: Order, hold: Hold, good_seconds: float) -> Exited:
        """Run an order and return how it ended, which may be with this process."""
        ended: asyncio.Future[Exited] = asyncio.get_running_loop().create_future()
        self._running[order.lease] = ended
        descriptor = frames.write_order(order)
        try:
            start = Start(lease=order.lease, hold=hold, good_seconds=good_seconds, dag_id=order.dag_id)
            await self._send(start, descriptor)
        finally:
            os.close(descriptor)
        return await ended

    async def hold(self, hold: Hold) -> None:
        """Say until when the leases are good."""
        await self._send(hold)

    async def stop(self, lease: str, grace_seconds: float) -> None:
        """Have a workload end; nothing happens when it already has."""
        await self._send(Stop(lease=lease, grace_seconds=grace_seconds))

    async def hand_over(self, lease: str) -> None:
        """Have a workload end untold; nothing happens when it already has ended."""
        await self._send(Stop(lease=lease, grace_seconds=0.0, hand_over=True))

    async def wait(self) -> str:
        """Wait for the death of the process and return how it died."""
        await self._hung_up.wait()
        status = await self._reap()
        return (
            f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        )

    def settle(self, how: str) -> None:
        """Have everything that ran in the dead process end with it."""
        for lease, ended in self._running.items():
            reason = f"the worker's fork server {how}, and the task's processes died with it"
            self._settle(ended, Exited(lease=lease, outcome=Outcome.FAILED, reason=reason))
        self._running.clear()

    async def close(self) -> None:
        """End the process, and with it everything it forked."""
        self._hang_up()
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()  # while it imports it does not look at its socket
        await self._reap()

    async def _reap(self) -> int:
        """Wait for the process, which hung up, to end by itself, and not for ever."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                return await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            return await self._process.wait()

    def _read(self) -> None:
        try:
            while True:
                self._on_event(frames.receive_event(self._control))
        except BlockingIOError:
            return
        except (OSError, HungUpError, msgspec.DecodeError):
            self._hang_up()

    def _on_event(self, event: frames.Event) -> None:
        match event:
            case Ready():
                if not self.ready.done():
                    self.ready.set_result(event)
            case Started():
                log.info("supervisor started", lease=event.lease, pid=event.pid)
            case Exited():
                self._settle(self._running.pop(event.lease), event)

    def _settle(self, ended: asyncio.Future[Exited], how: Exited) -> None:
        if not ended.done():  # nobody may be waiting any more
            ended.set_result(how)

    def _hang_up(self) -> None:
        if not self._hung_up.is_set():
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
            if not self.ready.done():
                self.ready.set_result(None)
            self._hung_up.set()

    async def _send(self, command: frames.Command, *descriptors: int) -> None:
        async with self._sending:
            while not self._hung_up.is_set():
                try:
                    socket.send_fds(self._control, [frames.encode(command)], descriptors)
                except BlockingIOError:
                    await self._writable()
                except OSError:
                    return  # it is dying, and its death says how each of its workloads ended
                else:
                    return

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        writable = asyncio.Event()
        loop.add_writer(self._control, writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(self._control)


class ForkServerKeeper:
    """
    Keeps one fork server alive for as long as the agent runs.

    :param bury: awaited after each death, before the next start; kills what the dead one left behind and
        says whether nothing is left
    """

    def __init__(self, launch: Launch, bury: Callable[[], Awaitable[bool]]) -> None:
        self._launch = launch
        self._bury = bury
        self._deaths: deque[float] = deque(maxlen=MAX_DEATHS)
        self._current: Incarnation | None = None
        self._up = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether workloads can be started now."""
        return self._up.is_set()

    async def keep(self, changed: Callable[[], None]) -> None:
        """
        Start the fork server and start it again when it dies; raises :class:`ForkServerError`.

        ``changed`` is called whenever ``ready`` changes.
        """
        while True:
            incarnation = self._current = await Incarnation.launch(self._launch)
            how = await self._live(incarnation, changed)
            log.error("fork server died", how=how)
            await self._bury()
            # Not before: what is reported from here on says that nothing of the task runs any more.
            incarnation.settle(how)
            await self._mourn(how)

    async def wait_ready(self) -> None:
        """Wait until workloads can be started."""
        await self._up.wait()

    async def run(self, order: Order, hold: Hold, good_seconds: float = 0.0) -> Exited:
        """Run an order and return how it ended; for when the fork server was ready a moment ago."""
        if self._current is None:
            raise RuntimeError("the fork server was never started")
        return await self._current.run(order, hold, good_seconds)

    async def hold(self, hold: Hold) -> None:
        """Say until when the leases are good; what runs is killed when that passes."""
        if self._current is not None:
            await self._current.hold(hold)

    async def stop(self, lease: str, grace_seconds: float) -> None:
        """Have a workload end: SIGTERM, and SIGKILL ``grace_seconds`` later."""
        if self._current is not None:
            await self._current.stop(lease, grace_seconds)

    async def hand_over(self, lease: str) -> None:
        """Have a workload end at once and untold, so that it can run elsewhere."""
        if self._current is not None:
            await self._current.hand_over(lease)

    async def close(self) -> bool:
        """End the fork server and with it everything it forked; say whether nothing of it is left."""
        if self._current is None:
            return True
        await self._current.close()
        return await self._bury()

    async def _live(self, incarnation: Incarnation, changed: Callable[[], None]) -> str:
        await asyncio.wait({incarnation.ready}, timeout=READY_SECONDS)
        if not incarnation.ready.done():
            log.error("fork server is not ready in time", limit_seconds=READY_SECONDS)
            await incarnation.close()
        elif ready := incarnation.ready.result():
            _log_ready(ready)
            self._up.set()
            changed()
        try:
            return await incarnation.wait()
        finally:
            self._up.clear()
            changed()

    async def _mourn(self, how: str) -> None:
        now = time.monotonic()
        self._deaths.append(now)
        if len(self._deaths) == MAX_DEATHS and now - self._deaths[0] < DEATH_WINDOW_SECONDS:
            raise ForkServerError(
                f"the fork server died {MAX_DEATHS} times within {DEATH_WINDOW_SECONDS:g} s, "
                f"the last time it {how}; look for the reason in the log lines before this one"
            )
        recent = sum(now - death < DEATH_WINDOW_SECONDS for death in self._deaths)
        await asyncio.sleep(PAUSES_SECONDS[recent - 1])


def _log_ready(ready: Ready) -> None:
    log.info("fork server ready", **msgspec.structs.asdict(ready))
    if ready.threads > 1:
        log.warning(
            "the fork server has more than one thread, so a fork may copy a lock that is never released; "
            "look for a plugin or preloaded module that starts threads while it is imported",
            threads=ready.threads,
        )
