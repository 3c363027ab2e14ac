"""
Notices the end of a task at once, and its memory. An Airflow coordinator (``[sdk] coordinators``) for 3.3.

Airflow's supervisor may sleep up to ``[workers] min_heartbeat_interval`` (5 s) after the end of its task, see
``jetbridge.agent.child_selector``: the slot stays taken and the log unsent.

``tests/unit/worker/test_airflow_contract.py`` fails when Airflow changes what this relies on.
"""

from __future__ import annotations

import selectors
from typing import Any

import attrs
from airflow.sdk.api.client import ServerResponseError
from airflow.sdk.execution_time.coordinator import BaseCoordinator
from airflow.sdk.execution_time.supervisor import ActivitySubprocess

from jetbridge.agent.child_selector import ChildAwareSelector
from jetbridge.contracts.problems import ProblemType
from jetbridge.worker import memory, residue, site_client, startup


@attrs.define(kw_only=True)
class PromptActivitySubprocess(ActivitySubprocess):
    """
    Airflow's own, with a :class:`ChildAwareSelector` and an eye on the task's memory.

    What the boundary refused is said in the task's own log, where whoever wrote the task looks. Airflow says
    it in the supervisor's, and tells the task of a connection or variable only that there is none.
    """

    selector: selectors.BaseSelector = attrs.field(factory=ChildAwareSelector, repr=False)

    def _on_child_started(self, **details: Any) -> None:
        super()._on_child_started(**details)
        # Airflow counts from the beginning of time, so it sends a heartbeat at once. The server took the
        # start, answered this moment, for one (``last_heartbeat_at``): a fourth call for each short task.
        self._last_heartbeat_attempt = self._last_successful_heartbeat

    def _handle_request(self, msg: Any, log: Any, req_id: int) -> None:
        residue.left.note(msg)
        startup.clock.spoken()
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
        residue.left.is_known = True
        process = PromptActivitySubprocess.start(**start)
        return self.ExecutionResult(process.wait(), process.final_state)
