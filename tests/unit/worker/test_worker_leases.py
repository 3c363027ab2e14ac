"""The life of a lease on the worker: every arrow of the drawing in ``jetbridge.worker.worker``."""

from __future__ import annotations

import uuid

from structlog.testing import capture_logs

from jetbridge.agent.testing import ProblemError
from jetbridge.contracts.messages import Outcome
from jetbridge.contracts.problems import ProblemType
from jetbridge.worker.frames import Hold
from jetbridge.worker.worker import DISOWNED


async def test_offer_accept_run_report(worker, gateway):
    lease = await gateway.offer({"dag": "spec"})
    await worker.started(lease)
    assert bytes(worker.processes.orders[lease].spec) == b'{"dag":"spec"}'
    assert worker.processes.orders[lease].token == f"token-of-{lease}"
    await gateway.until(lambda: lease in gateway.called("heartbeat")[-1].body.leases)
    worker.processes.end(lease, exit_code=0)
    await gateway.until(lambda: lease in gateway.reports)
    assert gateway.reports[lease].outcome is Outcome.SUCCEEDED
    assert gateway.reports[lease].exit_code == 0
    await gateway.until(lambda: not gateway.called("heartbeat")[-1].body.leases)


async def test_nothing_starts_without_a_confirmation(worker, gateway, monkeypatch):
    async def withdrawn(lease, _bearer, _body):
        gateway._note("accept", lease, None)
        gateway.offers.pop(lease)
        raise ProblemError(ProblemType.LEASE_LOST)

    with monkeypatch.context() as patch:
        patch.setattr(gateway, "_accept", withdrawn)
        lease = await gateway.offer()
        await gateway.until(lambda: gateway.called("accept"))
    other = await gateway.offer()
    await worker.started(other)
    assert lease not in worker.processes.orders


async def test_a_lost_confirmation_is_asked_for_again_and_the_workload_starts_once(worker, gateway):
    gateway.answers_lost["accept"] = 3
    lease = await gateway.offer()
    await worker.started(lease)
    assert len(gateway.called("accept")) == 4
    assert list(worker.processes.orders) == [lease]


async def test_a_confirmation_that_comes_after_the_time_of_leases_is_not_believed(
    worker, gateway, monkeypatch
):
    """Agent and plane counted to the end while it was on its way, and somebody else has the work now."""
    real = gateway._accept

    async def late(lease, *rest):
        answer = await real(lease, *rest)
        if len(gateway.called("accept")) == 1:
            worker.worker._hold = Hold(until=0.0, heard_at=0.0)
            await gateway.until(lambda: worker.worker._hold.until > 0)  # heard of again
            await gateway.take_back(lease)
        return answer

    monkeypatch.setattr(gateway, "_accept", late)
    lease = await gateway.offer()
    await gateway.until(lambda: len(gateway.called("accept")) == 2)
    other = await gateway.offer()
    await worker.started(other)
    assert lease not in worker.processes.orders


async def test_an_accept_the_gateway_refuses_costs_nothing_else(worker, gateway):
    gateway.problems["accept"] = [ProblemType.FORBIDDEN]
    lease = await gateway.offer()
    await worker.started(lease)  # offered again by the next poll
    assert len(gateway.called("accept")) == 1


async def test_without_recorded_heartbeats_no_work_is_taken(idle_worker, gateway):
    gateway.records = False
    idle_worker.start()
    await gateway.offer()
    await gateway.until(lambda: len(gateway.called("heartbeat")) > 5 and gateway.called("poll"))
    assert {call.body.free_slots for call in gateway.called("poll")} == {0}
    assert not gateway.called("accept")
    gateway.records = True
    await gateway.until(lambda: gateway.called("accept"))


async def test_what_the_fork_server_gave_up_is_reported_as_abandoned(worker, gateway):
    lease = await gateway.offer()
    await worker.started(lease)
    worker.processes.end(lease, Outcome.ABANDONED, exit_code=-9, reason="no contact")
    await gateway.until(lambda: lease in gateway.reports)
    assert gateway.reports[lease].outcome is Outcome.ABANDONED


async def test_never_more_than_the_slots(worker, gateway):
    leases = [await gateway.offer() for _ in range(7)]
    for done in range(7):
        await gateway.until(lambda done=done: len(worker.processes.orders) >= min(done + 2, 7))
        worker.processes.end(worker.processes.running()[0])
    await gateway.until(lambda: set(gateway.reports) == set(leases))
    assert worker.processes.most_at_once == 2


async def test_a_duplicate_offer_is_ignored(worker, gateway):
    lease = await gateway.offer()
    offer = gateway.offers[lease]
    await worker.started(lease)
    gateway.offers[lease] = offer
    seen = len(gateway.called("poll"))
    await gateway.until(lambda: len(gateway.called("poll")) > seen + 2)
    assert len(gateway.called("accept")) == 1
    del gateway.offers[lease]


async def test_two_attempts_at_one_workload_never_overlap(worker, gateway):
    workload_id = str(uuid.uuid4())
    old = await gateway.offer(workload_id=workload_id)
    await worker.started(old)
    worker.processes.ignore_stop = True
    await gateway.take_back(old)
    new = await gateway.offer(workload_id=workload_id)
    await gateway.until(lambda: worker.processes.stopped == [old])
    seen = len(gateway.called("poll"))
    await gateway.until(lambda: len(gateway.called("poll")) > seen + 2)
    assert new not in worker.processes.orders
    worker.processes.end(old)
    await worker.started(new)
    worker.processes.end(new)
    assert old not in gateway.reports


async def test_a_lost_lease_is_stopped_and_not_reported(worker, gateway):
    lease = await gateway.offer()
    await worker.started(lease)
    await gateway.take_back(lease)
    await gateway.until(lambda: worker.processes.stopped == [lease])
    next_one = await gateway.offer()
    await worker.started(next_one)
    assert gateway.called("report") == []


async def test_a_report_that_comes_too_late_is_dropped(worker, gateway):
    lease = await gateway.offer()
    await worker.started(lease)
    gateway.down = True
    worker.processes.end(lease)
    await gateway.until(lambda: worker.worker.free_slots() == 2)
    await gateway.take_back(lease)
    with capture_logs() as logs:
        gateway.down = False
        await gateway.until(lambda: not worker.worker.leases())
    assert any("too late" in entry["event"] for entry in logs)
    assert gateway.reports == {}
    assert worker.processes.stopped == []


async def test_a_report_survives_an_outage_and_its_slot_is_free_meanwhile(worker, gateway):
    lease = await gateway.offer()
    await worker.started(lease)
    gateway.down = True
    worker.processes.end(lease, Outcome.FAILED, None, "OSError: the worker's log has the details")
    await gateway.until(lambda: worker.worker.free_slots() == 2)
    assert worker.worker.leases() == (lease,)
    gateway.down = False
    await gateway.until(lambda: lease in gateway.reports)
    assert gateway.reports[lease].outcome is Outcome.FAILED
    assert gateway.reports[lease].reason.startswith("OSError")


async def test_a_report_whose_answer_is_lost_is_repeated_and_counts_once(worker, gateway):
    gateway.answers_lost["report"] = 2
    lease = await gateway.offer()
    await worker.started(lease)
    worker.processes.end(lease)
    await gateway.until(lambda: not worker.worker.leases() and lease in gateway.reports)
    assert len(gateway.called("report")) >= 2


async def test_no_offers_are_asked_for_while_the_fork_server_is_not_ready(worker, gateway):
    worker.processes.up.clear()
    worker.processes.changed()
    await gateway.until(lambda: gateway.called("poll")[-1].body.free_slots == 0)
    lease = await gateway.offer()
    worker.processes.up.set()
    worker.processes.changed()
    await worker.started(lease)


async def test_a_lease_confirmed_while_the_fork_server_restarts_waits_for_it(worker, gateway):
    gateway.answers_lost["accept"] = 10**6
    lease = await gateway.offer()
    await gateway.until(lambda: lease in gateway.held)
    worker.processes.up.clear()
    worker.processes.changed()
    gateway.answers_lost["accept"] = 0
    await gateway.until(lambda: lease in worker.worker.leases())
    assert lease not in worker.processes.orders
    worker.processes.up.set()
    worker.processes.changed()
    await worker.started(lease)


async def test_leases_of_a_worker_that_was_killed_are_reported_by_the_next(worker, gateway):
    lease = await gateway.offer()
    gateway.held[lease] = gateway.offers.pop(lease)
    await gateway.until(lambda: lease in gateway.reports)
    assert gateway.reports[lease].outcome is Outcome.ABANDONED
    assert gateway.reports[lease].reason == DISOWNED
    assert lease not in worker.processes.orders


async def test_one_stale_answer_disowns_nothing(worker, gateway):
    lease = await gateway.offer()
    worker.worker.held([lease])
    worker.worker.held([])
    worker.worker.held([lease])
    await worker.started(lease)
    assert gateway.called("report") == []
