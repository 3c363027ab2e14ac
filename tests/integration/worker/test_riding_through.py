"""Tasks under ``wait`` and an outage: real Airflow in a real worker whose plane goes away and comes back."""

from __future__ import annotations

import pytest

from jetbridge.agent.errors import ExitCode
from jetbridge.contracts.messages import Outcome
from jetbridge.worker.worker import DISOWNED

WAIT_SECONDS = 3600.0


@pytest.fixture
def riding(worker):
    """A worker whose leases are good for an hour without contact."""
    worker.gateway.wait_seconds = WAIT_SECONDS
    return worker


def outboxes(worker):
    return sorted(path.name for path in worker.outbox_dir.glob("*.sqlite"))


async def ended_meanwhile(worker, specs, task_id="pushes"):
    """Run a task that comes to its end while the plane is away; returns its id and its lease."""
    spec = specs.task(task_id)
    lease, _ = await worker.run(spec)
    await worker.plane.stop()
    worker.go_on()
    await worker.until(lambda: f"{spec['ti']['id']}/state" in worker.log)
    return spec["ti"]["id"], lease


def changes(plane):
    """What the plane was told by a task since it ran, in order, but for its heartbeats."""
    calls = [
        f"{call.method} {call.path.rpartition('/')[2]}"
        for call in plane.api_calls
        if call.method != "GET" and not call.path.endswith(("/heartbeat", "/rtif"))
    ]
    return calls[calls.index("PATCH run") + 1 :]


EVERYTHING = ["POST first", "POST second", "POST return_value", "PATCH state"]


async def test_what_a_task_said_during_an_outage_is_delivered_once_and_in_order_and_then_the_report(
    riding, specs
):
    ti_id, lease = await ended_meanwhile(riding, specs)
    assert outboxes(riding) == [f"{lease}.sqlite"]
    assert changes(riding.plane) == []
    await riding.plane.start()
    await riding.until(lambda: lease in riding.gateway.reports)
    assert riding.gateway.reports[lease].outcome is Outcome.SUCCEEDED
    assert changes(riding.plane) == EVERYTHING
    assert riding.plane.states_of(ti_id) == ["success"]
    assert {call.token for call in riding.plane.api_calls} == {f"token-of-{lease}"}
    await riding.until(lambda: not outboxes(riding))


@pytest.mark.long
async def test_a_task_that_goes_on_after_the_outage_delivers_by_itself_before_it_says_more(riding, specs):
    spec = specs.task("pushes")
    lease, _ = await riding.run(spec)
    await riding.plane.stop()
    riding.go_on()
    await riding.shown("pushed")
    await riding.plane.start()
    await riding.until(lambda: lease in riding.gateway.reports)
    assert changes(riding.plane) == EVERYTHING


@pytest.mark.long
async def test_a_question_that_only_the_plane_can_answer_waits_for_it(riding, specs):
    spec = specs.task("asks")
    lease, _ = await riding.run(spec)
    await riding.plane.stop()
    riding.go_on()
    await riding.until(lambda: "the plane is away; the task goes on" in riding.log)
    await riding.plane.start()
    assert (await riding.shown("answered"))["answer"] == "the default"
    await riding.until(lambda: lease in riding.gateway.reports)
    assert riding.plane.states_of(spec["ti"]["id"]) == ["success"]


async def test_a_worker_killed_during_the_outage_leaves_its_outbox_to_the_next(riding, specs):
    _, lease = await ended_meanwhile(riding, specs)
    riding.process.kill()
    await riding.process.wait()
    await riding.start()
    await riding.plane.start()
    await riding.until(lambda: lease in riding.gateway.reports)
    assert riding.gateway.reports[lease].outcome is Outcome.SUCCEEDED
    assert changes(riding.plane) == EVERYTHING
    await riding.until(lambda: not outboxes(riding))


@pytest.mark.long
async def test_a_task_that_was_not_at_its_end_when_its_worker_was_killed_is_abandoned(riding, specs):
    spec = specs.task("pushes")
    lease, _ = await riding.run(spec)
    await riding.plane.stop()
    await riding.until(lambda: "the plane is away; the task goes on" in riding.log)
    riding.process.kill()
    await riding.process.wait()
    await riding.start()
    await riding.plane.start()
    await riding.until(lambda: lease in riding.gateway.reports)
    report = riding.gateway.reports[lease]
    assert (report.outcome, report.reason) == (Outcome.ABANDONED, DISOWNED)


@pytest.mark.long
async def test_the_outbox_of_a_lost_lease_is_dropped(riding, specs):
    _, lease = await ended_meanwhile(riding, specs)
    riding.process.kill()
    await riding.process.wait()
    await riding.gateway.take_back(lease)
    await riding.plane.start()
    await riding.start()
    await riding.until(lambda: not outboxes(riding))
    assert "outbox dropped: the lease is lost" in riding.log
    assert changes(riding.plane) == []
    assert lease not in riding.gateway.reports


@pytest.mark.long
async def test_a_lease_that_moved_during_the_outage_is_fenced_and_changes_nothing(riding, specs):
    ti_id, lease = await ended_meanwhile(riding, specs)
    await riding.gateway.take_back(lease)
    riding.plane.lost.add(ti_id)  # the gateway answers 410 to all of it
    riding.plane.lost.add("xcoms/probes/run/pushes")
    await riding.plane.start()
    await riding.until(lambda: "outbox dropped: its attempt is over" in riding.log)
    await riding.until(lambda: not outboxes(riding))
    assert changes(riding.plane) == ["POST first"]
    assert lease not in riding.gateway.reports


@pytest.mark.long
async def test_a_damaged_outbox_is_a_failed_lease_with_a_reason_and_is_kept_for_people(riding, specs):
    _, lease = await ended_meanwhile(riding, specs)
    riding.process.kill()
    await riding.process.wait()
    for path in riding.outbox_dir.glob(f"{lease}.sqlite*"):
        path.unlink() if path.name.endswith(("-wal", "-shm")) else path.write_bytes(b"not a database" * 512)
    await riding.start()
    await riding.plane.start()
    await riding.until(lambda: lease in riding.gateway.reports)
    report = riding.gateway.reports[lease]
    assert report.outcome is Outcome.FAILED
    assert "is lost: the outbox cannot be read" in report.reason
    assert changes(riding.plane) == []
    assert (riding.outbox_dir / f"{lease}.damaged").exists()


async def test_what_cannot_be_kept_waits_for_the_plane_and_is_said_then(riding, specs):
    spec = specs.task("pushes")
    lease, _ = await riding.run(spec)
    riding.outbox_dir.touch()  # a file where the directory should be made: nothing can be written
    await riding.plane.stop()
    riding.go_on()
    await riding.until(lambda: "a call cannot be kept and waits for the plane" in riding.log)
    await riding.plane.start()
    await riding.until(lambda: lease in riding.gateway.reports)
    assert riding.gateway.reports[lease].outcome is Outcome.SUCCEEDED
    assert changes(riding.plane) == EVERYTHING


@pytest.mark.long
async def test_a_drain_waits_until_the_outboxes_are_delivered(riding, specs):
    _, lease = await ended_meanwhile(riding, specs)
    riding.process.terminate()
    await riding.until(lambda: "draining: no new work is taken" in riding.log)
    await riding.plane.start()
    assert await riding.exit_code() == ExitCode.OK
    assert riding.gateway.reports[lease].outcome is Outcome.SUCCEEDED
    assert changes(riding.plane) == EVERYTHING
    assert outboxes(riding) == []


@pytest.mark.long
async def test_a_worker_told_to_hurry_during_an_outage_leaves_its_outbox_to_the_next(riding, specs):
    _, lease = await ended_meanwhile(riding, specs)
    riding.process.terminate()
    await riding.until(lambda: "draining: no new work is taken" in riding.log)
    riding.process.terminate()
    assert await riding.exit_code() == ExitCode.FAILED
    assert outboxes(riding) == [f"{lease}.sqlite"]
    await riding.plane.start()
    await riding.start()
    await riding.until(lambda: lease in riding.gateway.reports)
    assert changes(riding.plane) == EVERYTHING


@pytest.mark.long
async def test_a_task_without_wait_has_no_outbox(worker, specs):
    spec = specs.task("pushes")
    lease, _ = await worker.run(spec)
    worker.go_on()
    await worker.until(lambda: lease in worker.gateway.reports)
    assert not worker.outbox_dir.exists()
