"""Taking over the started tasks of a scheduler that is gone. Queued ones need a database: see integration."""

import uuid
from dataclasses import dataclass, field

import msgspec
import pytest
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.state import TaskInstanceState

from jetbridge.contracts.messages import Outcome


@dataclass
class StartedTask:
    """The few columns of a task instance that the scheduler loads for adoption."""

    state: str = TaskInstanceState.RUNNING
    id: uuid.UUID = field(default_factory=uuid.uuid4)

    @property
    def key(self):
        return TaskInstanceKey(dag_id="d", task_id=str(self.id), run_id="r", try_number=1, map_index=-1)


@pytest.fixture
def put(link, executor, queue, task):
    """Write the record of a task that a dead scheduler handed over."""

    def put(ti):
        queue(one := task())
        executor.heartbeat()
        workload = link.submitted.pop().workload
        executor.revoke_task(ti=one.ti)
        link.removed.clear()
        link.put(msgspec.structs.replace(workload, workload_id=str(ti.id)))
        link.lease(str(ti.id))

    return put


@pytest.mark.parametrize("state", [TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING])
def test_what_has_a_record_is_held_and_ends_here(executor, link, put, state):
    ti = StartedTask(state)
    put(ti)
    assert executor.try_adopt_task_instances([ti]) == []
    assert executor.running == {ti.key}
    link.finish(str(ti.id))
    executor.heartbeat()
    assert executor.get_event_buffer()[ti.key][0] == TaskInstanceState.SUCCESS
    executor.heartbeat()
    assert [removed for removed, _ in link.removed] == [str(ti.id)]


def test_what_has_finished_meanwhile_is_told(executor, link, put):
    ti = StartedTask()
    put(ti)
    link.finish(str(ti.id), Outcome.FAILED, reason="killed")
    assert executor.try_adopt_task_instances([ti]) == []
    executor.heartbeat()
    state, info = executor.get_event_buffer()[ti.key]
    assert (state, "killed" in info) == (TaskInstanceState.FAILED, True)


def test_what_has_no_record_is_given_back_to_be_reset(executor, put):
    known, unknown = StartedTask(), StartedTask()
    put(known)
    assert executor.try_adopt_task_instances([known, unknown]) == [unknown]
    assert executor.running == {known.key}


class TestTheBusDoesNotAnswer:
    """Resetting a running task would run it twice, so all are taken over and looked at later."""

    @pytest.fixture
    def ti(self, executor, link):
        link.reachable = False
        ti = StartedTask()
        assert executor.try_adopt_task_instances([ti]) == []
        executor.heartbeat()
        assert executor.running == {ti.key}
        return ti

    def test_and_then_the_record_is_there(self, executor, link, put, ti):
        put(ti)
        link.questions[str(ti.id)].set_result(True)
        executor.heartbeat()
        assert executor.running == {ti.key}
        link.finish(str(ti.id))
        executor.heartbeat()
        assert executor.get_event_buffer()[ti.key][0] == TaskInstanceState.SUCCESS

    def test_and_then_there_is_none(self, executor, link, ti):
        link.questions[str(ti.id)].set_result(False)
        executor.heartbeat()
        assert executor.running == set()
        assert executor.get_event_buffer()[ti.key][0] == TaskInstanceState.FAILED
        assert link.submitted == []  # it was started once already


def test_nothing_to_adopt_asks_nothing(executor, link):
    link.reachable = False
    assert executor.try_adopt_task_instances([]) == []
