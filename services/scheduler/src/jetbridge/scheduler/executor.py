"""
``RemoteExecutor``: Airflow's scheduler hands its workloads to agents elsewhere.

Written for Airflow 3.3. What it relies on beyond what Airflow documents for executors is checked by
``tests/unit/scheduler/test_airflow_contract.py``. Every method here is called by the scheduler's loop, which
does nothing else meanwhile, so none waits for the network, but for ``try_adopt_task_instances`` and
``end``, within limits, and for ``sync`` when the loop would only sleep (see ``idling``).

::

    queued_tasks ── given to the link ──► queued_tasks and _outbox     ── acknowledged ──► running and _held
       ▲                                                                                          │
       ├── the bus lost it before an agent had it ────────────────────────────────────────────────┤
       │                                                                                          ▼
    Airflow                                  record removed ◄── event committed ◄── record finished

The end of a workload is read from its record, never from a message: what was missed is still there at the
next look. The record goes only after the scheduler has committed what it said, so that a scheduler killed
in between leaves it to the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from airflow.executors.base_executor import PARALLELISM, BaseExecutor
from airflow.models import Log
from airflow.models.callback import CallbackKey
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.state import CallbackState, TaskInstanceState

from jetbridge.bus.settings import BusSettings
from jetbridge.bus.workloads import VersionedWorkload, submission_of
from jetbridge.contracts.messages import TaskCoordinates, WorkloadKind
from jetbridge.scheduler.adoption import rebuild
from jetbridge.scheduler.held import Held, Sight, describe_end, succeeded
from jetbridge.scheduler.idling import Pace, may_wait, wait_for_something
from jetbridge.scheduler.link import BusLink
from jetbridge.scheduler.outbox import Key, Outbox
from jetbridge.scheduler.ports import Link
from jetbridge.scheduler.settings import SchedulerSettings
from jetbridge.scheduler.translate import RefusedWorkloadError
from jetbridge.telemetry.tracing import StopTracing, configure_tracing

_LONG_AGO = datetime.min.replace(tzinfo=UTC)
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Ended:
    """A workload whose event is in the buffer. Its record goes once the event is committed."""

    key: Key
    workload_id: str
    submission: int | None


class RemoteExecutor(BaseExecutor):
    """
    Hands tasks and callbacks to agents over NATS; set ``[core] executor`` to this class's path.

    Settings: ``JETBRIDGE_SCHEDULER_*`` and ``JETBRIDGE_NATS_*`` in the scheduler's environment.
    """

    is_local = False
    is_production = True
    serve_logs = False  # logs are where the agents are; see task_logs
    supports_callbacks = True
    # A test needs the connection with its password on an agent. Agents have a secrets backend of their
    # own, and the plane's connections do not cross the boundary.
    supports_connection_test = False
    # Lanes are not divided by team, so a team's executor could not keep its work apart.
    supports_multi_team = False
    # Nothing in Airflow 3.3 asks for it, and it would mean handing over with no scheduler to adopt.
    supports_ad_hoc_ti_run = False

    def __init__(
        self,
        parallelism: int = PARALLELISM,
        team_name: str | None = None,
        *,
        link: Link | None = None,
        settings: SchedulerSettings | None = None,
    ) -> None:
        """Make an executor that is not started; ``link`` replaces the one to NATS."""
        super().__init__(parallelism=parallelism, team_name=team_name)
        self._settings = settings or SchedulerSettings()
        self._link = link or BusLink(BusSettings(), self._settings)
        self._outbox = Outbox(self._link)
        self._held: dict[Key, Held] = {}
        self._ended: list[_Ended] = []
        self._kept_alive: list[Log] = []
        self._stop_tracing: StopTracing | None = None
        self._idle_wait_seconds = 0.0
        self._handed_over = False
        self._pace = Pace()

    # -- beginning and end

    def start(self) -> None:
        """Start the link, whether NATS answers or not."""
        self._stop_tracing = configure_tracing("scheduler")
        self._idle_wait_seconds = self._settings.idle_wait_seconds if may_wait() else 0.0
        self._link.start()

    def end(self) -> None:
        """
        Stop without waiting for running workloads: the next scheduler adopts them.

        What is on its way may still arrive; what does not is handed over again by the next scheduler.
        """
        self._stop(self._settings.stop_wait_seconds)

    def terminate(self) -> None:
        """Stop at once."""
        self._stop(0)

    def _stop(self, flush_seconds: float) -> None:
        self._link.stop(flush_seconds)
        if self._stop_tracing is not None:
            self._stop_tracing()

    # -- handing over

    def _get_workloads_to_schedule(self, open_slots: int) -> list[tuple[Any, Any]]:
        """Choose as Airflow does, but nothing that is on its way already; that has its slot."""
        in_order = super()._get_workloads_to_schedule(len(self.queued_tasks) + len(self.queued_callbacks))
        free = max(0, open_slots - len(self._outbox))
        return [item for item in in_order if item[0] not in self._outbox][:free]

    def _process_workloads(self, workload_items: Sequence[Any]) -> None:
        self._handed_over = True
        for workload in workload_items:
            try:
                self._outbox.send(workload)
            except RefusedWorkloadError as exc:
                self._refuse(workload.key, str(exc))

    def _refuse(self, key: Key, reason: str) -> None:
        """Fail what can never be handed over, rather than keep it queued for ever."""
        self._drop_queued(key)
        self.log_task_event(event="jetbridge.refused", extra=reason, ti_key=key)
        self.fail(key, reason)

    def _drop_queued(self, key: Any) -> None:
        self.queued_tasks.pop(key, None)
        self.queued_callbacks.pop(key, None)

    # -- what became of it

    def sync(self) -> None:
        """
        Take note of all that happened since the last call; if that is nothing, wait for something.

        After handing something over it does not wait but for its rest: the scheduler may have more to queue.
        """
        self._pace.begin()
        self._take_note()
        self._clear_away()
        self._write_history()
        if not self._handed_over:
            wait_for_something(
                self._link, self._idle_wait_seconds, look=self._take_note, found=self._is_something_to_do
            )
        if self._idle_wait_seconds and len(self.running) > 1:  # else nothing else can end meanwhile
            self._pace.rest(self._link, self._take_note)
        self._handed_over = False
        self._pace.end()

    def _take_note(self) -> None:
        self._collect()
        for key, held in list(self._held.items()):
            self._look_at(key, held)

    def _is_something_to_do(self) -> bool:
        """Say whether the scheduler should look now. That an agent has begun changes nothing for it."""
        begun = (TaskInstanceState.RUNNING, CallbackState.RUNNING)
        # A nudge says that there is something to queue. Without a slot for it, the next end will do.
        nudged = self._link.nudged() and self.slots_available > 0
        return nudged or any(state not in begun for state, _ in self.event_buffer.values())

    def _collect(self) -> None:
        """Move what the bus has acknowledged from queued to running."""
        for sent in self._outbox.take_answered():
            if sent.submission is None:
                self._refuse(sent.key, "the workload could not be handed over; see the scheduler's log")
                continue
            self._drop_queued(sent.key)
            self.running.add(sent.key)
            self._held[sent.key] = Held(
                workload_id=sent.workload_id, submission=sent.submission, workload=sent.workload
            )

    def _look_at(self, key: Key, held: Held) -> None:
        current = self._link.record(held.workload_id)
        match held.look(current):
            case Sight.NOTHING_NEW:
                if held.agent_is_to_be_told(self._settings.tell_agent_after_seconds):
                    # Becomes the task's external_executor_id. Never after the end: then it is not held.
                    self.running_state(key, held.agent)
            case Sight.FINISHED if current is not None:
                self._end(key, current)
            case Sight.OVERTAKEN | Sight.RELEASED:
                del self._held[key]
                self.running.discard(key)
            case Sight.MISSING:
                self._look_for(key, held)

    def _end(self, key: Key, finished: VersionedWorkload) -> None:
        record = finished.record
        self._held.pop(key, None)
        self._ended.append(_Ended(key, record.workload_id, submission_of(finished)))
        report = self.success if succeeded(record) else self.fail
        report(key, describe_end(record))

    def _look_for(self, key: Key, held: Held) -> None:
        """Ask the bus about a record that went out of sight, and believe only its answer."""
        if held.existence is None:
            held.existence = self._link.exists(held.workload_id)
        if not held.existence.done() or held.existence.result():
            return
        log.warning("executor.record_lost", workload_id=held.workload_id, agent=held.agent)
        del self._held[key]
        self.running.discard(key)
        if held.workload is not None and held.agent is None:
            self.queue_workload(held.workload, session=None)  # type: ignore[arg-type]  # not used by it
        else:
            # Its agent is refused from now on and stops it, so it cannot end in any other way.
            self.fail(key, f"its record was deleted from the bus; agent: {held.agent or 'unknown'}")

    def change_state(
        self,
        key: Any,
        state: Any,
        info: object = None,
        remove_running: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        """
        Put an event into the buffer.

        The scheduler itself ends workloads here, too: one whose task no longer heartbeats. Its record goes
        as well, which tells the agent to stop whatever is left of it.
        """
        super().change_state(key, state, info, remove_running)
        if remove_running and (held := self._held.pop(key, None)):
            self._ended.append(_Ended(key, held.workload_id, held.submission))

    def _clear_away(self) -> None:
        """
        Remove the records of workloads whose event was committed, and those nobody takes note of.

        The scheduler empties the buffer and commits between two heartbeats, or ends with an exception.
        """
        waiting = [ended for ended in self._ended if ended.key in self.event_buffer]
        for ended in self._ended:
            if ended.key not in self.event_buffer:
                self._link.remove(ended.workload_id, ended.submission)
        self._ended = waiting
        for abandoned in self._link.abandoned():
            self._clear_away_abandoned(abandoned)

    def _clear_away_abandoned(self, finished: VersionedWorkload) -> None:
        """
        Clear away what a dead scheduler left behind.

        A task's state was told to Airflow by the task itself, and what was left RUNNING has been adopted. Of
        a callback nobody but the executor tells, and Airflow adopts none, so its end is told here.
        """
        workload_id = finished.record.workload_id
        held = {held.workload_id for held in self._held.values()}
        if workload_id in held | {ended.workload_id for ended in self._ended}:
            return
        if finished.record.kind is WorkloadKind.CALLBACK:
            self._end(CallbackKey(id=workload_id), finished)
        else:
            self._link.remove(workload_id, submission_of(finished))

    def _write_history(self) -> None:
        for entry in self._link.history():
            self.log_task_event(event=entry.event, extra=entry.extra, ti_key=_key_of(entry.coordinates))
        # Airflow 3.3 gives these to SQLAlchemy's bulk_save_objects one by one, which sorts weak references to
        # them: whatever nobody else holds is empty by then, and the whole batch fails.
        self._kept_alive = list(self._task_event_logs)

    # -- taken back and taken over

    def revoke_task(self, *, ti: TaskInstance) -> None:
        """Forget the task and remove its record, upon which its agent is told to stop it."""
        key = ti.key
        self._drop_queued(key)
        self._outbox.give_up(key)
        self._held.pop(key, None)
        self.running.discard(key)
        self._link.remove(str(ti.id))

    def try_adopt_task_instances(self, tis: Sequence[TaskInstance]) -> Sequence[TaskInstance]:
        """
        Take over the tasks of a scheduler that is gone; return those Airflow shall reset.

        * QUEUED: queued here under the same id, which costs no retry, and handed over as far as the dead
          scheduler did not get (``handover.resume``). This needs nothing of the bus now.
        * RUNNING, RESTARTING, with a record: held; its record tells the end, even one already reached.
        * The same without a record: returned. Nobody can be running it with Airflow's consent any more.
        * The same when the bus does not answer in time: held. Resetting would start a second attempt beside
          one that runs well; if there is no record after all, that is found out when the bus is back.
        """
        queued = [ti for ti in tis if ti.state == TaskInstanceState.QUEUED]
        started = [ti for ti in tis if ti.state != TaskInstanceState.QUEUED]
        refused = [*self._queue_again(queued), *self._hold_started(started)]
        log.info("executor.adopted", adopted=len(tis) - len(refused), refused=len(refused))
        return refused

    def _queue_again(self, tis: Sequence[TaskInstance]) -> list[TaskInstance]:
        refused = []
        for ti, workload in rebuild(tis):
            if workload is None:
                refused.append(ti)
                continue
            self._outbox.expect_resumed(workload.key, ti.queued_dttm or _LONG_AGO)
            self.queue_workload(workload, session=None)  # type: ignore[arg-type]  # not used by it
        return refused

    def _hold_started(self, tis: Sequence[TaskInstance]) -> list[TaskInstance]:
        if not tis:
            return []
        known = self._link.ask([str(ti.id) for ti in tis], self._settings.adoption_wait_seconds)
        if known is None:
            log.warning("executor.adopted_unseen", tasks=len(tis), reason="the bus did not answer in time")
        refused = []
        for ti in tis:
            if known is not None and str(ti.id) not in known:
                refused.append(ti)
                continue
            self.running.add(ti.key)
            self._held[ti.key] = Held(workload_id=str(ti.id), seen=True)
        return refused

    # -- for people

    def get_task_log(self, ti: TaskInstance, try_number: int) -> tuple[list[str], list[str]]:
        """Say where a running task is. Airflow then does not ask for its log over HTTP."""
        _ = try_number
        return [f"Running on agent {ti.hostname}" if ti.hostname else "Waiting for an agent"], []

    def debug_dump(self) -> None:
        """Log what is queued, on its way and held, when the scheduler gets SIGUSR2."""
        super().debug_dump()  # type: ignore[no-untyped-call]
        log.info(
            "executor.debug_dump",
            on_the_way=[str(key) for key in self._outbox],
            held={str(key): str(held) for key, held in self._held.items()},
            ended=[str(ended.key) for ended in self._ended],
        )


def _key_of(coordinates: TaskCoordinates) -> TaskInstanceKey:
    return TaskInstanceKey(
        dag_id=coordinates.dag_id,
        task_id=coordinates.task_id,
        run_id=coordinates.run_id,
        try_number=coordinates.try_number,
        map_index=coordinates.map_index,
    )
