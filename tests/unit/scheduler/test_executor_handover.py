"""From Airflow's queue to the bus: only after the acknowledgement, once, in order, within the slots."""

import json

import pytest
from airflow.utils.state import CallbackState, TaskInstanceState

from jetbridge.contracts.messages import WorkloadKind
from jetbridge.contracts.records import OnAgentLost
from jetbridge.contracts.subjects import Band
from jetbridge.scheduler.executor import RemoteExecutor
from jetbridge.scheduler.testing import TOKEN


def names(link):
    return [sent.workload.coordinates.task_id for sent in link.submitted]


def test_stays_queued_until_the_bus_has_acknowledged(executor, link, queue, task):
    one = queue(task())
    executor.heartbeat()
    assert (list(executor.queued_tasks), executor.running) == ([one.key], set())
    link.acknowledge()
    executor.heartbeat()
    assert (list(executor.queued_tasks), executor.running) == ([], {one.key})


def test_is_given_to_the_link_once_however_long_that_takes(executor, link, queue, task):
    queue(task())
    for _ in range(5):
        executor.heartbeat()
    assert len(link.submitted) == 1


def test_what_is_on_its_way_takes_a_slot(executor, link, queue, task):
    queue(*[task(f"t{n}") for n in range(6)])
    executor.heartbeat()
    executor.heartbeat()
    assert len(link.submitted) == executor.parallelism == 4
    link.acknowledge(0, 1)
    executor.heartbeat()
    executor.heartbeat()
    assert len(link.submitted) == 4
    link.finish(link.submitted[0].workload.workload_id)
    executor.heartbeat()
    executor.heartbeat()
    assert len(link.submitted) == 5


def test_a_more_urgent_task_does_not_exceed_the_slots_taken_by_others_on_their_way(
    executor, link, queue, task
):
    queue(*[task(f"low{n}") for n in range(4)])
    executor.heartbeat()
    queue(task("high", weight=50))
    executor.heartbeat()
    assert "high" not in names(link)
    assert executor.slots_available == -1


def test_callbacks_go_first_and_then_tasks_by_weight(executor, link, queue, task, callback):
    queue(task("low"), task("high", weight=7), callback(), task("middle", weight=3))
    executor.heartbeat()
    assert names(link) == ["", "high", "middle", "low"]


def test_what_is_published_has_no_token_and_keeps_the_rest(executor, link, queue, task):
    one = queue(task(queue="gpu"))
    executor.heartbeat()
    sent = link.submitted[0].workload
    assert TOKEN.encode() not in sent.spec
    spec = json.loads(sent.spec)
    assert "token" not in spec
    assert type(one).model_validate({**spec, "token": ""}).ti.id == one.ti.id
    assert (sent.queue, sent.kind, sent.workload_id) == ("gpu", WorkloadKind.TASK, str(one.ti.id))
    assert (sent.coordinates.dag_id, sent.coordinates.try_number) == ("d", 1)


def test_the_trace_of_the_dag_run_goes_along(executor, link, queue, task):
    one = queue(task())
    executor.heartbeat()
    assert link.submitted[0].traceparent == one.ti.context_carrier["traceparent"]


def test_a_callback_is_handed_over_like_a_task(executor, link, handed_over, callback):
    one = handed_over(callback())
    sent = link.submitted[0].workload
    assert (sent.kind, sent.queue, Band.of(sent.priority_weight)) == ("callback", "default", Band.URGENT)
    assert (sent.workload_id, sent.coordinates.run_id) == (one.callback.id, "r")
    link.lease(sent.workload_id)
    executor.heartbeat()
    assert executor.get_event_buffer() == {one.key: (CallbackState.RUNNING, "worker-1")}
    link.finish(sent.workload_id)
    executor.heartbeat()
    assert executor.get_event_buffer()[one.key][0] == CallbackState.SUCCESS


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"jetbridge": {"labels": {"gpu": "yes"}}}, "labels"),
        ({"jetbridge": {"on_agent_lost": "pray"}}, "on_agent_lost"),
        ({"jetbridge": {"on_agent_lost": "wait", "wait_seconds": 0}}, "wait_seconds"),
        ({"jetbridge": {"on_agent_lost": "wait", "wait_seconds": 1e9}}, "wait_seconds"),
        ({"jetbridge": "reroute"}, "object"),
    ],
)
def test_options_that_are_not_understood_fail_the_task_at_once(executor, link, queue, task, config, why):
    one = queue(task(executor_config=config))
    executor.heartbeat()
    state, info = executor.get_event_buffer()[one.key]
    assert state == TaskInstanceState.FAILED
    assert why in info
    assert (executor.queued_tasks, link.submitted) == ({}, [])
    assert [entry.event for entry in executor._task_event_logs] == ["jetbridge.refused"]


def test_a_workload_the_bus_would_not_take_fails_at_once_and_stops_nothing_else(
    executor, link, queue, task, callback
):
    big = callback(text="x" * 600_000)
    queue(big, task())
    executor.heartbeat()
    state, info = executor.get_event_buffer()[big.key]
    assert state == CallbackState.FAILED
    assert "bytes" in info
    assert names(link) == ["t"]


def test_a_workload_the_link_cannot_hand_over_fails(executor, link, queue, task):
    one = queue(task())
    executor.heartbeat()
    link.submitted[0].answer.set_exception(RuntimeError("a bug"))
    executor.heartbeat()
    assert executor.get_event_buffer()[one.key][0] == TaskInstanceState.FAILED
    assert not executor.queued_tasks


@pytest.mark.parametrize(
    ("config", "policy"),
    [
        (None, (None, 0.0)),
        ({"pod_override": object()}, (None, 0.0)),
        ({"jetbridge": {"on_agent_lost": "fail"}, "pod_override": object()}, (OnAgentLost.FAIL, 0.0)),
        ({"jetbridge": {"on_agent_lost": "wait", "wait_seconds": 7200}}, (OnAgentLost.WAIT, 7200.0)),
    ],
)
def test_options_go_along_and_those_for_other_executors_are_ignored(
    executor, link, queue, task, config, policy
):
    queue(task(executor_config=config))
    executor.heartbeat()
    workload = link.submitted[0].workload
    assert (workload.on_agent_lost, workload.wait_seconds) == policy


def test_stopping_does_not_wait_for_running_workloads(executor, link, handed_over, task):
    handed_over(task())
    executor.end()
    executor.terminate()
    assert link.log == ["start", "stop 5", "stop 0"]


def test_an_executor_that_never_started_can_be_ended():
    """Airflow ends all executors when one of them could not start, and makes some only to read logs."""
    RemoteExecutor(parallelism=1).end()
