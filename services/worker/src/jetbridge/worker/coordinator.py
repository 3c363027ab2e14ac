"""
Notices the end of a task at once, and its memory. An Airflow coordinator (``[sdk] coordinators``) for 3.3.

Airflow's supervisor waits in ``select`` on the task's sockets for up to ``[workers]
min_heartbeat_interval`` (5 s). When a task ends, its sockets close a moment before the kernel lets the
process be reaped. A supervisor that is scheduled in between, which on a busy machine is the rule, has no
socket left to wake it and sleeps those 5 s: the slot stays taken and the log unsent. The selector given to it
here wakes up for SIGCHLD as well.

``tests/unit/worker/test_airflow_contract.py`` fails when Airflow changes what this relies on.
"""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
from typing import Any

import attrs
from airflow.sdk.api.client import ServerResponseError
from airflow.sdk.execution_time.coordinator import BaseCoordinator
from airflow.sdk.execution_time.supervisor import ActivitySubprocess

from jetbridge.contracts.problems import ProblemType
from jetbridge.worker import memory, site_client


class ChildAwareSelector(selectors.DefaultSelector):
    """
    A selector whose ``select`` also returns, with what is ready or nothing, when a child ends.

    For the main thread of a process that does not use ``signal.set_wakeup_fd`` otherwise.
    """

    def __init__(self) -> None:
        super().__init__()
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.settimeout(0)
        # The wakeup descriptor is written for signals that have a Python handler, so SIGCHLD gets one.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self.register(self._reader, selectors.EVENT_READ)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; see :class:`selectors.BaseSelector`."""
        ready = super().select(timeout)
        with contextlib.suppress(BlockingIOError):
            self._reader.recv(4096)
        return [event for event in ready if event[0].fileobj is not self._reader]

    def close(self) -> None:
        """Stop listening for signals as well."""
        if self._writer.fileno() >= 0:
            signal.set_wakeup_fd(-1)
        for end in (self._reader, self._writer):
            end.close()
        super().close()


@attrs.define(kw_only=True)
class PromptActivitySubprocess(ActivitySubprocess):
    """
    Airflow's own, with a :class:`ChildAwareSelector` and an eye on the task's memory.

    What the boundary refused is said in the task's own log, where whoever wrote the task looks. Airflow says
    it in the supervisor's, and tells the task of a connection or variable only that there is none.
    """

    selector: selectors.BaseSelector = attrs.field(factory=ChildAwareSelector, repr=False)

    def _handle_request(self, msg: Any, log: Any, req_id: int) -> None:
        try:
            super()._handle_request(msg, log, req_id)
        except ServerResponseError as exc:
            if isinstance(exc.detail, dict) and exc.detail.get("reason") == ProblemType.BOUNDARY.slug:
                self.process_log.error(exc.detail.get("message", ""), boundary="refused")
            raise

    def _service_subprocess(
        self,
        max_wait_time: float,
        raise_on_timeout: bool = False,  # noqa: FBT001, FBT002 - Airflow's
        expect_signal: int | None = None,
    ) -> Any:
        if not memory.watch.limit_bytes:
            return super()._service_subprocess(max_wait_time, raise_on_timeout, expect_signal)
        short = min(max_wait_time, memory.LOOK_SECONDS)
        ended = super()._service_subprocess(short, raise_on_timeout, expect_signal)
        if ended is None and memory.watch.look(self.pid):
            self.process_log.critical(f"Task {memory.watch.killed_because}.")
        return ended


class PromptPythonCoordinator(BaseCoordinator):
    """
    Runs Python tasks exactly as Airflow's own default does, in a :class:`PromptActivitySubprocess`.

    Its supervisor speaks to the plane through ``site_client``, which keeps back what is not to cross.
    """

    def execute_task(self, **start: Any) -> BaseCoordinator.ExecutionResult:
        """Run one task to its end; the parameters are those of ``ActivitySubprocess.start``."""
        start["client"] = site_client.guarded(start["client"], site_client.current, start["what"])
        process = PromptActivitySubprocess.start(**start)
        return self.ExecutionResult(process.wait(), process.final_state)
