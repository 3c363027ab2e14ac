"""
The agent's side of the manager's process: start it, answer it, notice its death or silence, start it again.

While no manager runs the agent wants no bundle, so a standby takes over at once and not when a lease ends.
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import structlog

from jetbridge.agent.errors import AgentReplacedError, GatewayError, LeaseLostError, RequestRefusedError
from jetbridge.agent.link import Backoff
from jetbridge.agent.waiting import first, wait_at_most
from jetbridge.dag_processor import spans, wire
from jetbridge.dag_processor.calls import DagProcessorSession
from jetbridge.dag_processor.leases import BundleLeases
from jetbridge.dag_processor.wire import Answer, Failure, Held, Loaded, Question, Read

log = structlog.get_logger(__name__)

HEALTHY_SECONDS = 300.0
"""A manager that lived this long did not die of how it was started: the next one need not wait."""

MAX_PAUSE_SECONDS = 60.0

KILL_SECONDS = 5.0
"""Being killed takes milliseconds; only a process stuck in the kernel takes longer."""


@dataclass(frozen=True)
class Launch:
    """
    How the manager's process is started. ``env`` is its whole environment.

    ``inherited`` are descriptors that it shall hold, see ``jetbridge.agent.mark``.
    """

    env: Mapping[str, str]
    arguments: Sequence[str] = ()
    inherited: Sequence[int] = ()

    def command(self, descriptor: int) -> list[str]:
        """Return the command line. It holds no secret: anybody on the machine can read it."""
        # -P keeps the current directory off the module path, where any file could pose as Airflow.
        module = [sys.executable, "-P", "-m", "jetbridge.dag_processor.manager_process"]
        return [*module, "--fd", str(descriptor), "--agent-pid", str(os.getpid()), *self.arguments]


class ManagerKeeper:
    """Keeps one manager running and answers it; ``parsed`` is told how many seconds each parse took."""

    def __init__(
        self,
        launch: Launch,
        leases: BundleLeases,
        session: DagProcessorSession,
        stuck_seconds: float,
        parsed: Callable[[float], object],
    ) -> None:
        self._launch = launch
        self._leases = leases
        self._session = session
        self._stuck_seconds = stuck_seconds
        self._parsed = parsed
        self._process: Process | None = None
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Keep a manager running until :meth:`stop`, and then wait for ever."""
        backoff = Backoff(base_seconds=2.0, cap_seconds=MAX_PAUSE_SECONDS)
        while not self._stopping.is_set():
            begun = time.monotonic()
            how = await self._live()
            if self._stopping.is_set():
                break
            if time.monotonic() - begun > HEALTHY_SECONDS:
                backoff.tries = 0
            pause = backoff.next_seconds()
            log.error("Airflow's manager ended; starting it again", how=how, in_seconds=round(pause, 1))
            await wait_at_most(self._stopping, pause)
        self._ended.set()
        await asyncio.Event().wait()

    async def stop(self, limit_seconds: float, hurry: asyncio.Event) -> None:
        """End the manager and its parsers; by force after ``limit_seconds`` or when there is a hurry."""
        self._stopping.set()
        if (process := self._process) is None:
            return
        _signal(process, signal.SIGTERM)
        try:
            async with asyncio.timeout(limit_seconds):
                await first(self._ended.wait(), hurry.wait())
        except TimeoutError:
            pass
        if not self._ended.is_set():
            _signal(process, signal.SIGKILL)
            await wait_at_most(self._ended, KILL_SECONDS)

    async def _live(self) -> str:
        """Run one manager and return how it ended."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *self._launch.command(theirs.fileno()),
                pass_fds=[theirs.fileno(), *self._launch.inherited],
                env=self._launch.env,
                stdin=asyncio.subprocess.DEVNULL,
                # A Ctrl-C in the terminal is for the agent; the manager hears of it from there.
                start_new_session=True,
            )
        self._process = process
        try:
            silent = await self._converse(ours)
            if silent:
                log.error("Airflow's manager is stuck and is killed", silent_seconds=self._stuck_seconds)
                _signal(process, signal.SIGKILL)
            return _ending(await process.wait())
        finally:
            self._leases.want(())
            if process.returncode is None:  # cancelled
                _signal(process, signal.SIGKILL)
            self._process = None

    async def _converse(self, sock: socket.socket) -> bool:
        """Answer questions until the manager hangs up; return whether it just fell silent."""
        reader, writer = await asyncio.open_connection(sock=sock)
        try:
            while True:
                async with asyncio.timeout(self._stuck_seconds):
                    question = await _read(reader)
                writer.write(wire.frame(await self._answer(question)))
                await writer.drain()
        except TimeoutError:
            return True
        except (asyncio.IncompleteReadError, OSError):
            return False
        except (msgspec.DecodeError, ValueError):
            log.exception("Airflow's manager said what is no question")
            return True
        finally:
            writer.close()

    async def _answer(self, question: Question) -> Answer:
        number = question.number
        if question.operation == wire.HELD:
            held = Held(epochs=dict(self._leases.epochs), opened=self._leases.opened)
            return Answer(number=number, body=msgspec.json.encode(held))
        if question.operation == wire.READY:
            self._leases.want(msgspec.json.decode(question.body, type=Loaded).bundles)
            return Answer(number=number)
        try:
            return Answer(number=number, body=await self._ask(question))
        except (GatewayError, TimeoutError) as error:
            return _failure(number, error)

    async def _ask(self, question: Question) -> bytes:
        if question.operation == wire.READ:
            status, content = await self._session.read(question.body.decode(), question.wait_seconds)
            return msgspec.msgpack.encode(Read(status=status, content=content))
        parse = spans.parse_of(question)
        if parse is not None:
            self._parsed(parse.run_seconds)
        with spans.asking(parse):
            return await self._session.relay(question.operation, question.body, question.wait_seconds)


def _failure(number: int, error: Exception) -> Answer:
    if isinstance(error, (LeaseLostError, AgentReplacedError)):
        kind = Failure.LOST
    elif isinstance(error, RequestRefusedError):
        kind = Failure.REFUSED
    else:
        kind = Failure.UNAVAILABLE
    return Answer(number=number, failure=kind, detail=str(error) or "no answer in time")


async def _read(reader: asyncio.StreamReader) -> Question:
    (length,) = wire.LENGTH.unpack(await reader.readexactly(wire.LENGTH.size))
    if length > wire.MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {length} bytes")
    return wire.question(await reader.readexactly(length))


def _signal(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _ending(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
