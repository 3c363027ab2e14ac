"""
The event loop with the triggers: Airflow's ``TriggerRunner``, prompter and harder to kill. For Airflow 3.3.

What it changes:

* An event is reported when it is fired and not up to a second later; news are heard when there are some.
* A trigger that cannot be made, or fires what cannot be sent, fails alone. In Airflow an error in a trigger's
  ``__init__``, or an integer of more than 64 bits in its event, ends the runner and so every trigger in it.
* A trigger that another triggerer took over is released: its ``on_kill``, which would end what both watch
  over, is not called (apache/airflow#73454).
* A trigger is cancelled once. Airflow cancels it again each second until it has ended, and with it its
  ``on_kill`` and ``cleanup``.
* Requests say which trigger they are from, so that each is made with that trigger's lease.

``tests/unit/triggerer/test_runner_hooks.py`` fails when Airflow changes what this relies on.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from socket import socket
from typing import Any, TypeVar

import attrs
from airflow.jobs import triggerer_job_runner as airflow
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import _new_encoder

from jetbridge.agent.prctl import die_with_parent
from jetbridge.telemetry.tracing import configure_tracing
from jetbridge.triggerer.wire import AwaitNews, Labelled

_FLUSH_SECONDS = 2.0
"""The runner is asked to end when the agent has to; a collector that is away must not make it late."""

T = TypeVar("T")


class FiredEvents(deque[airflow.TriggerEventEntry]):
    """Events to report. Each is announced; one that cannot be sent goes to ``failed`` instead."""

    def __init__(self, failed: deque[tuple[int, BaseException | None]], announce: Callable[[], None]) -> None:
        super().__init__()
        self._failed = failed
        self._announce = announce
        self._encoder = _new_encoder()

    def append(self, entry: airflow.TriggerEventEntry, /) -> None:
        """Add an event at the right end."""
        try:
            self._encoder.encode(entry.event.model_dump())
        except Exception as error:  # noqa: BLE001 - of whatever objects somebody put into a payload
            self._failed.append((entry.trigger_id, error))
        else:
            super().append(entry)
        self._announce()


class Remembering(deque[T]):
    """A deque that remembers what was last taken from its left end."""

    last: T

    def popleft(self) -> T:
        """Take the leftmost item."""
        self.last = super().popleft()
        return self.last


class ContextualExecutor(ThreadPoolExecutor):
    """Runs functions in the context they were handed over in, as ``asyncio.to_thread`` does."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run ``fn`` in a thread."""
        return super().submit(contextvars.copy_context().run, fn, *args, **kwargs)


@attrs.define(kw_only=True)
class LabellingComms(airflow.TriggerCommsDecoder):
    """Airflow's comms, which say with each request from which trigger it is."""

    async def asend(self, msg: Any) -> Any:
        """Send a request and return the answer."""
        labelled: Any = msg if isinstance(msg, Labelled) else Labelled(msg)
        return await super().asend(labelled)


class Runner(airflow.TriggerRunner):
    """All triggers of one agent, in a process of their own."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's, here and below
        self._something = asyncio.Event()
        self._creating = asyncio.Lock()
        self._ending: set[int] = set()
        self._side_tasks: list[asyncio.Task[None]] = []
        self.events = FiredEvents(self.failed_triggers, self._something.set)
        self.to_create: Remembering[Any] = Remembering()

    async def init_comms(self) -> None:
        """As Airflow's, with comms of ours and the tasks that make this runner prompt."""
        reader, writer = await asyncio.open_connection(sock=socket(fileno=0))
        self.comms_decoder = LabellingComms(async_writer=writer, async_reader=reader)
        task_runner.SUPERVISOR_COMMS = self.comms_decoder  # type: ignore[assignment]  # as Airflow does
        comms: Any = self.comms_decoder
        first = comms._from_frame(await comms._aread_frame())  # noqa: SLF001 - as Airflow's
        if not isinstance(first, airflow.messages.StartTriggerer):
            raise TypeError(f"the supervisor's first message must be StartTriggerer, it was {first!r}")
        await self.comms_decoder.start_reader()
        asyncio.get_running_loop().set_default_executor(ContextualExecutor(thread_name_prefix="trigger"))
        self._side("listen", self._listen())
        self._side("report", self._report())

    async def create_triggers(self) -> None:
        """Make what is waiting to be made, one caller at a time; what cannot be made fails."""
        async with self._creating:
            while self.to_create:
                try:
                    await super().create_triggers()  # type: ignore[no-untyped-call]
                except Exception as error:
                    workload = self.to_create.last
                    self.log.exception("Trigger cannot be made", trigger_id=workload.id)
                    self.failed_triggers.append((workload.id, error))
                    self._something.set()

    async def cancel_triggers(self) -> None:
        """As Airflow's, but each trigger once: a second cancel cuts its ``on_kill`` or ``cleanup`` short."""
        self._ending.intersection_update(self.triggers)
        new = dict.fromkeys(trigger_id for trigger_id in self.to_cancel if trigger_id not in self._ending)
        self._ending.update(trigger_id for trigger_id in new if trigger_id in self.triggers)
        self.to_cancel = deque(new)
        await super().cancel_triggers()  # type: ignore[no-untyped-call]

    def process_trigger_events(self, finished_ids: list[int]) -> airflow.messages.TriggerStateChanges:
        """As Airflow's; a trigger that failed before it ran counts as finished, or nobody would say so."""
        never_ran = [trigger_id for trigger_id, _ in self.failed_triggers if trigger_id not in self.triggers]
        message = super().process_trigger_events([*finished_ids, *never_ran])
        for _, traceback in message.failures or ():
            if traceback is not None:
                traceback[:] = map(sendable, traceback)
        return message

    def release(self, trigger_ids: Iterable[int]) -> None:
        """Stop triggers that run elsewhere now; without a cancel message ``on_kill`` is not called."""
        for trigger_id in trigger_ids:
            if trigger_id in self.triggers and trigger_id not in self._ending:
                self._ending.add(trigger_id)
                self.triggers[trigger_id]["task"].cancel()

    async def _listen(self) -> None:
        while not self.stop:
            news: Any = await self.comms_decoder.asend(AwaitNews())  # type: ignore[arg-type]  # ours
            self.release(news.to_cancel)
            self._something.set()

    async def _report(self) -> None:
        while not self.stop:
            await self._something.wait()
            self._something.clear()
            await self.sync_state_to_supervisor([])
            await self.create_triggers()
            await self.cancel_triggers()

    def _side(self, name: str, work: Any) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._side_task_done)
        self._side_tasks.append(task)

    def _side_task_done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self.stop or task.exception() is None:
            return
        self.log.error("Trigger runner's side task failed", task=task.get_name(), exc_info=task.exception())
        self._handle_signal(signal.SIGTERM, None)  # a runner half alive is worse than a new one


def sendable(text: str) -> str:
    """Return a text that can be sent: half a surrogate pair, as in a file's strange name, cannot."""
    return text.encode(errors="backslashreplace").decode()


def run_in_process() -> None:
    """Run in the forked process until told to stop; ends with its parent, whatever ends that."""
    die_with_parent(os.getppid(), signal.SIGKILL)
    stop_tracing = configure_tracing("triggerer")
    try:
        Runner().run()  # type: ignore[no-untyped-call]
    finally:
        stop_tracing(_FLUSH_SECONDS)
