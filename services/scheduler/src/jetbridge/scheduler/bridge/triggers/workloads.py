"""
From a trigger's row to what an agent needs to run it. Written for Airflow 3.3.

Airflow builds a workload in methods of its triggerer's supervisor, which is a process. They touch no more of
it than the four attributes that :class:`WorkloadBuilder` has, so they are borrowed as they are.
``tests/unit/scheduler/test_trigger_hooks.py`` fails when one of these changes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import structlog
from airflow.executors.workloads.trigger import RunTrigger
from airflow.jobs.triggerer_job_runner import TriggerLoggingFactory, TriggerRunnerSupervisor
from airflow.models.crypto import get_fernet
from airflow.models.trigger import Trigger
from cryptography.fernet import InvalidToken

from jetbridge.contracts.triggering import TriggerStart
from jetbridge.scheduler.bridge.errors import is_outage

log = structlog.get_logger(__name__)

ANSWER_BYTES = 8 << 20
"""A task that starts from its trigger brings its whole Dag; this many bytes of triggers go at once."""

MAX_START_BYTES = 24 << 20
"""One trigger; as JSON in an envelope it must stay below ``contracts.rpc.MAX_RPC_BYTES``."""

_TOO_LARGE = f"more than the {MAX_START_BYTES} that can be sent to an agent"


class _Job(NamedTuple):
    """All that is needed of a job; the row itself would be expired by a rollback."""

    id: int


class WorkloadBuilder:
    """Airflow's way of making workloads, without the process it belongs to there."""

    fetch_trigger_details = TriggerRunnerSupervisor.fetch_trigger_details
    fetch_non_task_trigger_ids = TriggerRunnerSupervisor.fetch_non_task_trigger_ids
    build_trigger_workloads: Any = TriggerRunnerSupervisor.build_trigger_workloads
    _create_workload = TriggerRunnerSupervisor._create_workload  # noqa: SLF001 - borrowed, see above

    def __init__(self, triggerer: int) -> None:
        """Build for a triggerer, whose number becomes part of the logs' names."""
        self.job = _Job(triggerer)
        self.logger_cache: dict[int, TriggerLoggingFactory] = {}

    def build(self, trigger_ids: set[int]) -> list[TriggerStart]:
        """
        Return what an agent needs for each trigger; those that vanished are left out.

        Opens sessions of its own. A trigger that cannot be built fails, so that whoever waits for it hears of
        it, and the others are built. What would make the answer too large is left for the next one.
        """
        starts: list[TriggerStart] = []
        room = ANSWER_BYTES
        for start in self._built(trigger_ids):
            size = len(bytes(start.spec)) + len(start.arguments)
            if size > MAX_START_BYTES:
                _fail(
                    start.trigger_id, ValueError(f"the trigger and its Dag take {size} bytes, {_TOO_LARGE}")
                )
            elif size <= room or not starts:
                starts.append(start)
                room -= size
        return starts

    def _built(self, trigger_ids: set[int]) -> list[TriggerStart]:
        try:
            return [self._start(workload) for workload in self.build_trigger_workloads(trigger_ids)]
        except Exception as exc:
            if is_outage(exc):
                raise
            if len(trigger_ids) > 1:  # find out which
                return [start for trigger_id in trigger_ids for start in self._built({trigger_id})]
            for trigger_id in trigger_ids:
                _fail(trigger_id, exc)
            return []

    def _start(self, workload: RunTrigger) -> TriggerStart:
        logging = self.logger_cache.get(workload.id)
        return TriggerStart(
            trigger_id=workload.id,
            spec=msgspec.Raw(workload.model_dump_json(exclude={"encrypted_kwargs"}).encode()),
            arguments=opened(workload.encrypted_kwargs),
            log_path=logging.log_path if logging else "",
        )


def _fail(trigger_id: int, error: Exception) -> None:
    log.warning("trigger cannot be built and fails", trigger_id=trigger_id, exc_info=error)
    Trigger.submit_failure(trigger_id, error)


def opened(arguments: str) -> str:
    """
    Return a trigger's arguments without the plane's encryption, still serialized.

    They are not deserialized here: that would import classes which only agents have. What the plane cannot
    open was closed by the agents' site and goes there as it is.
    """
    if arguments.startswith("{"):  # Airflow stores those of deferred tasks in the clear
        return arguments
    try:
        return get_fernet().decrypt(arguments.encode()).decode()
    except InvalidToken:
        return arguments
