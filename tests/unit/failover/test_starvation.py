"""Which queues starve, since when, and where their work goes: every rule of it, with a clock made by hand."""

from datetime import UTC, datetime

import msgspec
import pytest

from jetbridge.contracts.messages import TaskCoordinates, WorkloadKind
from jetbridge.contracts.policies import Failover, WhenStarving
from jetbridge.contracts.records import (
    AgentRecord,
    Health,
    HealthRecord,
    OrderRecord,
    WorkloadRecord,
    WorkloadState,
)
from jetbridge.router.starvation import StarvationWatch, destination, takes_work, waiting_in

MOVES = Failover(when_starving=WhenStarving.MOVE, fallback_queues=("spare", "last"))


def record(queue="gpu", moved_to="", state=WorkloadState.SUBMITTED):
    return WorkloadRecord(
        workload_id="11111111-1111-1111-1111-111111111111",
        kind=WorkloadKind.TASK,
        state=state,
        queue=queue,
        moved_to=moved_to,
        coordinates=TaskCoordinates(dag_id="d", run_id="r"),
        changed_at=datetime.now(UTC),
    )


def agent(role="worker"):
    return AgentRecord(
        name="a",
        instance="i",
        role=role,
        queues=("gpu",),
        slots=1,
        token_id="t",
        registered_at=datetime.now(UTC),
    )


def health(state):
    return HealthRecord(agent="a", instance="i", health=state, since=datetime.now(UTC))


def test_only_a_healthy_worker_takes_work():
    assert takes_work(agent(), health(Health.HEALTHY), None)
    for wrong in (Health.SUSPECT, Health.LOST, Health.GONE):
        assert not takes_work(agent(), health(wrong), None)
    assert not takes_work(agent(), None, None)
    assert not takes_work(agent("triggerer"), health(Health.HEALTHY), None)
    cordoned = OrderRecord(agent="a", since=datetime.now(UTC))
    assert not takes_work(agent(), health(Health.HEALTHY), cordoned)
    draining = msgspec.structs.replace(agent(), draining=True)
    assert not takes_work(draining, health(Health.HEALTHY), None)


def test_work_waits_until_somebody_has_it():
    counts = waiting_in(record(state=state) for state in WorkloadState)
    assert counts == {"gpu": 2}  # submitted and offered


def test_moved_work_waits_where_it_was_moved_to():
    assert waiting_in([record(), record(moved_to="spare")]) == {"gpu": 1, "spare": 1}


@pytest.mark.parametrize(
    ("policy", "served", "moved_to", "goes"),
    [
        (MOVES, {"spare", "last"}, "", "spare"),
        (MOVES, {"last"}, "", "last"),
        (MOVES, {"other"}, "", None),
        (MOVES, {"gpu", "last"}, "spare", "gpu"),  # it starves where it is now, and its own agents are back
        (MOVES, {"last"}, "spare", "last"),
        (MOVES, {"spare"}, "spare", None),  # it waits well
        (Failover(fallback_queues=("spare",)), {"spare"}, "", None),  # report is all that was asked for
    ],
)
def test_where_starving_work_goes(policy, served, moved_to, goes):
    assert destination(record(moved_to=moved_to), policy, served) == goes


def test_a_queue_starves_from_when_it_was_first_seen_so():
    watch = StarvationWatch()
    (first,) = watch.take(100.0, {"gpu": 3}, set())
    (later,) = watch.take(107.5, {"gpu": 5}, set())
    assert (first.seconds, later.seconds, later.waiting) == (0.0, 7.5, 5)


def test_a_queue_that_was_served_in_between_starts_over():
    watch = StarvationWatch()
    watch.take(100.0, {"gpu": 3}, set())
    assert watch.take(110.0, {"gpu": 3}, {"gpu"}) == []
    (again,) = watch.take(120.0, {"gpu": 3}, set())
    assert again.seconds == 0.0


def test_a_queue_without_work_does_not_starve():
    watch = StarvationWatch()
    watch.take(100.0, {"gpu": 1}, set())
    assert watch.take(101.0, {}, set()) == []


def test_what_could_not_be_seen_proves_nothing():
    watch = StarvationWatch()
    watch.take(100.0, {"gpu": 1}, set())
    watch.forget()
    (again,) = watch.take(200.0, {"gpu": 1}, set())
    assert again.seconds == 0.0


def test_a_lane_stands_still_until_less_waits():
    watch = StarvationWatch()
    watch.take(0.0, {"gpu": 10}, set())
    (still,) = watch.take(5.0, {"gpu": 12}, set())
    (less,) = watch.take(9.0, {"gpu": 7}, set())
    (then,) = watch.take(11.0, {"gpu": 7}, set())
    assert (still.stuck_seconds, less.stuck_seconds, then.stuck_seconds) == (5.0, 0.0, 2.0)
