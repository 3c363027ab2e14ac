"""Events become lines of a task's audit log; what is not understood is set aside with a reason."""

import asyncio
import json
import threading
from datetime import UTC, datetime

import pytest
import structlog

from jetbridge.contracts.envelope import Body, seal
from jetbridge.contracts.failover import WorkloadMoved, WorkloadReleased, WorkloadStarving
from jetbridge.contracts.messages import AgentRegistered, Outcome, TaskCoordinates, WorkloadFinished
from jetbridge.contracts.messages import WorkloadLeased as Leased
from jetbridge.contracts.records import AgentRecord
from jetbridge.scheduler.history import HistoryEntry, HistoryQueue, read_entry

ID = "11111111-1111-1111-1111-111111111111"
TASK = TaskCoordinates(dag_id="d", run_id="r", task_id="t", try_number=1)
AGENT = AgentRecord(
    name="worker-1",
    instance="i",
    role="worker",
    queues=("q",),
    slots=1,
    site="paris",
    token_id="x",
    registered_at=datetime.now(UTC),
)
LEASED = Leased(workload_id=ID, epoch=7, agent="worker-1", queue="q", coordinates=TASK)


def find(name):
    return AGENT if name == "worker-1" else None


def test_a_lease_says_who_has_the_task_and_where():
    entry = read_entry(seal(LEASED), find)
    assert (entry.event, entry.coordinates) == ("jetbridge.leased", TASK)
    extra = json.loads(entry.extra)
    assert datetime.fromisoformat(extra.pop("at")).tzinfo
    assert extra == {"agent": "worker-1", "site": "paris", "queue": "q", "lease": f"{ID}.7"}


def test_an_end_says_how():
    body = WorkloadFinished(
        workload_id=ID,
        epoch=7,
        agent="unknown",
        queue="q",
        coordinates=TASK,
        outcome=Outcome.FAILED,
        exit_code=-9,
        reason="killed",
    )
    extra = json.loads(read_entry(seal(body), find).extra)
    assert (extra["outcome"], extra["exit_code"], extra["reason"]) == ("failed", -9, "killed")
    assert "site" not in extra


@pytest.mark.parametrize("action", ["fail", "reroute"])
def test_a_task_that_fails_with_its_agent_says_why_and_a_rerouted_one_is_told_by_the_bridge(action):
    body = WorkloadReleased(
        workload_id=ID,
        epoch=7,
        agent="worker-1",
        queue="q",
        coordinates=TASK,
        action=action,
        reason="agent worker-1 was lost and the wait of 600 s is over",
    )
    entry = read_entry(seal(body), find)
    if action == "reroute":
        assert entry is None
        return
    extra = json.loads(entry.extra)
    assert entry.event == "jetbridge.released"
    assert (extra["agent"], extra["action"], extra["reason"]) == ("worker-1", "fail", body.reason)


def test_work_that_nobody_can_take_says_why_it_waits():
    body = WorkloadStarving(
        workload_id=ID,
        submission=5,
        queue="gpu",
        coordinates=TASK,
        reason="no healthy agent serves queue 'gpu'",
    )
    entry = read_entry(seal(body), find)
    extra = json.loads(entry.extra)
    assert entry.event == "jetbridge.starving"
    assert (extra["queue"], extra["reason"]) == ("gpu", "no healthy agent serves queue 'gpu'")


def test_work_that_was_moved_says_where_to():
    body = WorkloadMoved(
        workload_id=ID, submission=5, queue="gpu", to="default", coordinates=TASK, reason="nobody serves it"
    )
    entry = read_entry(seal(body), find)
    extra = json.loads(entry.extra)
    assert entry.event == "jetbridge.moved"
    assert (extra["queue"], extra["to"], extra["reason"]) == ("gpu", "default", "nobody serves it")


def test_a_callback_has_no_task_whose_history_it_could_be_in():
    body = Leased(
        workload_id=ID, epoch=7, agent="a", queue="q", coordinates=TaskCoordinates(dag_id="d", run_id="r")
    )
    assert read_entry(seal(body), find) is None


class LeasedLater(Body, frozen=True, kw_only=True):
    TYPE = "workload.leased"
    VERSION = 2
    lease: str


@pytest.mark.parametrize(
    "data", [b"", b"not json", b"{}", seal(LeasedLater(lease="x")), seal(LEASED).replace(b'"epoch":7', b"")]
)
def test_what_is_not_understood_is_set_aside_with_a_reason(data):
    with structlog.testing.capture_logs() as logs:
        assert read_entry(data, find) is None
    assert [(line["event"], bool(line["reason"])) for line in logs] == [("history.event_set_aside", True)]


def test_other_events_are_none_of_its_business():
    body = AgentRegistered(agent="a", role="worker", queues=(), token_id="x")
    with structlog.testing.capture_logs() as logs:
        assert read_entry(seal(body), find) is None
    assert logs == []


async def test_an_entry_is_confirmed_by_the_look_after_the_one_that_took_it():
    entry = HistoryEntry(event="e", coordinates=TASK, extra="{}")
    news = asyncio.Event()
    queue = HistoryQueue(news.set)
    waiting = asyncio.create_task(queue.put(entry))
    await news.wait()
    assert await in_another_thread(queue.take) == [entry]
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await in_another_thread(queue.take) == []
    await asyncio.wait_for(waiting, 15)


async def test_an_entry_that_was_given_up_is_no_trouble():
    queue = HistoryQueue(lambda: None)
    waiting = asyncio.create_task(queue.put(HistoryEntry(event="e", coordinates=TASK, extra="{}")))
    await asyncio.sleep(0)
    queue.take()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert queue.take() == []


async def in_another_thread(call):
    """The scheduler's loop is one; asyncio's default pool would be left behind."""
    result = []
    thread = threading.Thread(target=lambda: result.append(call()))
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0)
    return result[0]
