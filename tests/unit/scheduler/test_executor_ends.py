"""How a workload that was handed over ends: seen in its record, told to Airflow, cleared away after that."""

import msgspec
import pytest
from airflow.models.callback import CallbackKey
from airflow.utils.state import CallbackState, TaskInstanceState

from jetbridge.contracts.messages import Outcome, TaskCoordinates
from jetbridge.contracts.records import WorkloadState
from jetbridge.scheduler import held
from jetbridge.scheduler.executor import RemoteExecutor
from jetbridge.scheduler.history import HistoryEntry
from jetbridge.scheduler.settings import SchedulerSettings


def id_of(workload):
    return str(workload.ti.id)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [(Outcome.SUCCEEDED, TaskInstanceState.SUCCESS), (Outcome.FAILED, TaskInstanceState.FAILED)],
)
def test_a_finished_record_becomes_an_event_and_frees_the_slot(
    executor, link, handed_over, task, outcome, state
):
    one = handed_over(task())
    link.lease(id_of(one))
    link.finish(id_of(one), outcome, reason="signal 9")
    executor.heartbeat()
    assert executor.running == set()
    told, info = executor.get_event_buffer()[one.key]
    assert told == state
    assert ("worker-1" in info, "signal 9" in info) == (True, True)


def test_the_record_goes_only_after_the_scheduler_took_the_event(executor, link, handed_over, task):
    one = handed_over(task())
    submission = link.records[id_of(one)].revision
    link.finish(id_of(one))
    executor.heartbeat()
    executor.heartbeat()
    assert link.removed == []
    executor.get_event_buffer()
    executor.heartbeat()
    assert link.removed == [(id_of(one), submission)]
    executor.heartbeat()
    assert len(link.removed) == 1


def test_a_finished_record_is_told_once_although_it_is_still_there(executor, link, handed_over, task):
    one = handed_over(task())
    link.finish(id_of(one))
    executor.heartbeat()
    executor.get_event_buffer()
    executor.heartbeat()
    assert executor.get_event_buffer() == {}


def test_an_agent_is_told_once_it_has_had_the_task_for_a_while(link, task, monkeypatch):
    executor = RemoteExecutor(link=link, settings=SchedulerSettings(tell_agent_after_seconds=1))
    now = 100.0
    monkeypatch.setattr(held, "monotonic", lambda: now)
    executor.start()
    executor.queue_workload(one := task(), session=None)
    executor.heartbeat()
    link.acknowledge()
    link.lease(id_of(one), "worker-2")
    executor.heartbeat()
    now += 0.9
    executor.heartbeat()
    assert executor.get_event_buffer() == {}
    now += 0.2
    executor.heartbeat()
    assert executor.get_event_buffer() == {one.key: (TaskInstanceState.RUNNING, "worker-2")}
    link.lease(id_of(one), "worker-3")
    executor.heartbeat()
    assert executor.get_event_buffer() == {}
    now += 1
    executor.heartbeat()
    assert executor.get_event_buffer() == {one.key: (TaskInstanceState.RUNNING, "worker-3")}


def test_a_lease_names_the_agent_once_and_never_after_the_end(executor, link, handed_over, task):
    one = handed_over(task())
    link.lease(id_of(one), "worker-2")
    executor.heartbeat()
    assert executor.get_event_buffer() == {one.key: (TaskInstanceState.RUNNING, "worker-2")}
    assert one.key in executor.running
    executor.heartbeat()
    assert executor.get_event_buffer() == {}
    link.finish(id_of(one))
    executor.heartbeat()
    link.lease(id_of(one), "worker-3")
    executor.heartbeat()
    assert [state for state, _ in executor.get_event_buffer().values()] == [TaskInstanceState.SUCCESS]


def test_a_task_that_ends_before_it_was_acknowledged_ends_all_the_same(executor, link, queue, task):
    one = queue(task())
    executor.heartbeat()
    link.acknowledge()
    link.finish(id_of(one))
    executor.heartbeat()
    assert executor.get_event_buffer()[one.key][0] == TaskInstanceState.SUCCESS
    assert executor.running == set()


def test_the_end_of_an_earlier_life_does_not_end_the_next_one(executor, link, handed_over, queue, task):
    """A sensor comes back under its id; the mirror still shows how its last life ended."""
    one = handed_over(task())
    link.finish(id_of(one))
    old = link.records[id_of(one)]
    executor.heartbeat()
    executor.get_event_buffer()
    queue(one)
    executor.heartbeat()
    link.acknowledge()
    new, link.records[id_of(one)] = link.records[id_of(one)], old
    executor.heartbeat()
    assert executor.running == {one.key}
    assert executor.get_event_buffer() == {}
    link.records[id_of(one)] = new
    link.finish(id_of(one))
    executor.heartbeat()
    assert executor.get_event_buffer()[one.key][0] == TaskInstanceState.SUCCESS


def test_a_task_another_scheduler_submitted_anew_is_let_go_without_an_event(
    executor, link, handed_over, task
):
    handed_over(task())
    link.put(link.submitted[0].workload)
    executor.heartbeat()
    assert (executor.running, executor.get_event_buffer(), link.removed) == (set(), {}, [])


def test_records_of_other_schedulers_are_left_alone(executor, link, handed_over, task):
    handed_over(task("mine"))
    theirs = msgspec.structs.replace(
        link.submitted[0].workload, workload_id="00000000-0000-0000-0000-000000000001"
    )
    link.put(theirs)
    link.finish(theirs.workload_id)
    executor.heartbeat()
    assert (executor.get_event_buffer(), link.removed) == ({}, [])


class TestARecordThatIsGone:
    def test_is_asked_for_before_anything_is_concluded(self, executor, link, handed_over, task):
        one = handed_over(task())
        record = link.records.pop(id_of(one))
        executor.heartbeat()
        executor.heartbeat()
        assert one.key in executor.running
        link.questions[id_of(one)].set_result(True)
        executor.heartbeat()
        link.records[id_of(one)] = record
        executor.heartbeat()
        assert (executor.running, executor.get_event_buffer()) == ({one.key}, {})

    def test_is_submitted_again_when_no_agent_had_it(self, executor, link, handed_over, task):
        one = handed_over(task())
        link.records.clear()
        executor.heartbeat()
        link.questions[id_of(one)].set_result(False)
        executor.heartbeat()
        assert (executor.running, executor.get_event_buffer()) == (set(), {})
        executor.heartbeat()
        assert len(link.submitted) == 2

    def test_fails_the_task_when_an_agent_had_it(self, executor, link, handed_over, task):
        one = handed_over(task())
        link.lease(id_of(one), "worker-2")
        executor.heartbeat()
        link.records.clear()
        executor.heartbeat()
        link.questions[id_of(one)].set_result(False)
        executor.heartbeat()
        state, info = executor.get_event_buffer()[one.key]
        assert (state, executor.running) == (TaskInstanceState.FAILED, set())
        assert "worker-2" in info

    def test_is_not_looked_for_before_it_was_seen(self, executor, link, queue, task):
        one = queue(task())
        executor.heartbeat()
        link.acknowledge()
        link.records.clear()  # the mirror lags the acknowledgement
        executor.heartbeat()
        executor.heartbeat()
        assert (executor.running, link.questions) == ({one.key}, {})


def test_a_task_the_scheduler_ends_itself_loses_its_record_so_that_its_agent_stops(
    executor, link, handed_over, task
):
    """No heartbeat: SchedulerJobRunner calls change_state(key, FAILED, remove_running=True)."""
    one = handed_over(task())
    submission = link.records[id_of(one)].revision
    link.lease(id_of(one))
    executor.change_state(one.key, TaskInstanceState.FAILED, remove_running=True)
    executor.get_event_buffer()
    executor.heartbeat()
    assert executor.running == set()
    assert link.removed == [(id_of(one), submission)]
    assert executor.get_event_buffer() == {}


class TestRevoke:
    def test_of_a_task_on_its_way_stops_trying_and_removes_what_may_be_there(
        self, executor, link, queue, task
    ):
        one = queue(task())
        executor.heartbeat()
        executor.revoke_task(ti=one.ti)
        assert link.submitted[0].answer.cancelled()
        assert link.removed == [(id_of(one), None)]
        executor.heartbeat()
        assert (executor.queued_tasks, executor.running, len(link.submitted)) == ({}, set(), 1)

    def test_of_a_running_task_tells_airflow_nothing(self, executor, link, handed_over, task):
        one = handed_over(task())
        executor.revoke_task(ti=one.ti)
        link.records.clear()
        executor.heartbeat()
        assert (executor.running, executor.get_event_buffer()) == (set(), {})
        assert not executor.has_task(one.ti)

    def test_of_an_unknown_task_does_nothing(self, executor, task):
        executor.revoke_task(ti=task().ti)

    def test_then_queued_again_is_submitted_again(self, executor, link, queue, task):
        one = queue(task())
        executor.heartbeat()
        executor.revoke_task(ti=one.ti)
        queue(one)
        executor.heartbeat()
        link.acknowledge(1)
        executor.heartbeat()
        assert executor.running == {one.key}


class TestWhatADeadSchedulerLeft:
    def test_a_finished_task_is_cleared_away(self, executor, link, queue, task):
        queue(task())
        executor.heartbeat()
        workload = link.submitted[0].workload
        executor.revoke_task(ti=task().ti)
        link.removed.clear()
        submission = link.put(workload)
        link.left_behind = [link.move(workload.workload_id, WorkloadState.FINISHED)]
        executor.sync()
        assert link.removed == [(workload.workload_id, submission)]

    def test_a_finished_callback_is_told_first_because_nobody_else_would(
        self, executor, link, queue, callback
    ):
        queue(callback())
        executor.heartbeat()
        workload = link.submitted.pop().workload
        executor = type(executor)(parallelism=4, link=link)
        submission = link.put(workload)
        left = link.move(workload.workload_id, WorkloadState.FINISHED, outcome=Outcome.FAILED)
        link.left_behind = [left]
        executor.sync()
        key = CallbackKey(id=workload.workload_id)
        assert executor.get_event_buffer()[key][0] == CallbackState.FAILED
        assert link.removed == []
        executor.sync()
        assert link.removed == [(workload.workload_id, submission)]

    def test_one_of_its_own_is_left_alone(self, executor, link, handed_over, task):
        one = handed_over(task())
        finished = link.move(id_of(one), WorkloadState.FINISHED, outcome=Outcome.SUCCEEDED)
        executor.sync()
        link.left_behind = [finished]
        executor.sync()
        assert link.removed == []


def test_history_reaches_the_audit_log(executor, link):
    coordinates = TaskCoordinates(dag_id="d", run_id="r", task_id="t", map_index=2, try_number=3)
    link.entries = [HistoryEntry(event="jetbridge.leased", coordinates=coordinates, extra="{}")]
    executor.sync()
    (entry,) = executor._task_event_logs
    assert (entry.event, entry.dag_id, entry.task_id, entry.map_index, entry.try_number) == (
        "jetbridge.leased",
        "d",
        "t",
        2,
        3,
    )


def test_sigusr2_shows_what_is_where(executor, handed_over, task, capsys):
    handed_over(task("shown"))
    executor.debug_dump()
    assert "shown" in capsys.readouterr().out


def test_a_workload_whose_lease_was_taken_back_frees_its_slot_without_an_event(
    executor, link, handed_over, task
):
    """Whoever took it back has Airflow schedule the task anew."""
    one = handed_over(task())
    link.lease(id_of(one))
    executor.heartbeat()
    executor.get_event_buffer()
    link.move(id_of(one), WorkloadState.RELEASED)
    executor.heartbeat()
    assert (executor.running, executor.get_event_buffer(), link.removed) == (set(), {}, [])
