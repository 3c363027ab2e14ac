"""Drain, hurry, and the ways an agent has to give up."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from structlog.testing import capture_logs

from jetbridge.agent.errors import ExitCode
from jetbridge.agent.runtime import StopLimits
from jetbridge.contracts.api import Orders
from jetbridge.contracts.ids import AgentToken
from jetbridge.contracts.messages import Outcome
from jetbridge.contracts.problems import ProblemType
from jetbridge.worker.forkserver_client import ForkServerError
from jetbridge.worker.outbox import End, Outbox


async def test_an_idle_worker_stops_at_once(worker, gateway):
    await gateway.until(lambda: gateway.called("poll"))
    worker.stop.request()
    assert await worker.exit_code() is ExitCode.OK
    assert worker.processes.closed


async def test_a_drain_finishes_and_reports_what_runs_and_takes_nothing_new(worker, gateway):
    lease = await gateway.offer()
    await worker.started(lease)
    worker.stop.request()
    await gateway.until(lambda: gateway.called("heartbeat")[-1].body.draining)
    ignored = await gateway.offer()
    await gateway.until(lambda: gateway.called("poll")[-1].body.free_slots == 0)
    worker.processes.end(lease)
    assert await worker.exit_code() is ExitCode.OK
    assert gateway.reports[lease].outcome is Outcome.SUCCEEDED
    assert ignored in gateway.offers
    assert worker.processes.stopped == []


async def test_a_drain_waits_for_the_report_over_an_outage(worker, gateway):
    lease = await gateway.offer()
    await worker.started(lease)
    gateway.down = True
    worker.stop.request()
    worker.processes.end(lease)
    await asyncio.sleep(0.05)
    assert not worker.task.done()
    gateway.down = False
    assert await worker.exit_code() is ExitCode.OK
    assert lease in gateway.reports


async def test_a_lease_confirmed_during_a_drain_is_run(worker, gateway):
    gateway.answers_lost["accept"] = 10**6
    lease = await gateway.offer()
    await gateway.until(lambda: lease in gateway.held)
    worker.stop.request()
    await gateway.until(lambda: gateway.called("heartbeat")[-1].body.draining)
    gateway.answers_lost["accept"] = 0
    await worker.started(lease)
    worker.processes.end(lease)
    assert await worker.exit_code() is ExitCode.OK
    assert lease in gateway.reports


async def test_a_second_signal_hands_tasks_over(worker, gateway):
    lease = await gateway.offer()
    await worker.started(lease)
    worker.stop.request()
    worker.stop.request()
    assert await worker.exit_code() is ExitCode.OK
    assert (worker.processes.stopped, worker.processes.handed_over) == ([], [lease])
    assert gateway.reports[lease].outcome is Outcome.ABANDONED
    assert gateway.reports[lease].reason == "the worker was told to stop at once"


async def test_the_last_word_is_a_goodbye(worker, gateway):
    lease = await gateway.offer()
    await worker.started(lease)
    worker.stop.request()
    worker.processes.end(lease)
    assert await worker.exit_code() is ExitCode.OK
    assert [call.operation for call in gateway.calls if call.operation != "heartbeat"][-1] == "goodbye"
    assert worker.processes.closed


async def test_no_goodbye_while_something_waits_in_an_outbox_for_the_next_process(idle_worker, gateway):
    lease = f"{uuid.uuid4()}.7"
    outbox = Outbox(idle_worker.outboxes.path_of(lease))
    outbox.end(End(outcome=Outcome.SUCCEEDED))
    outbox.close()
    gateway.problems["accept"] = [ProblemType.UNAVAILABLE] * 1000
    idle_worker.limits = StopLimits(drain_seconds=3600.0, terminate_seconds=0.1)
    idle_worker.start()
    await gateway.until(lambda: gateway.called("heartbeat"))
    idle_worker.stop.request()
    idle_worker.stop.request()
    assert await idle_worker.exit_code() is ExitCode.FAILED
    assert idle_worker.outboxes.left_behind() == [lease]
    assert not gateway.called("goodbye")


async def test_no_goodbye_while_something_cannot_be_killed(worker, gateway):
    worker.processes.all_end = False
    worker.stop.request()
    assert await worker.exit_code() is ExitCode.OK
    assert not gateway.called("goodbye")


async def test_a_cordon_alone_changes_nothing_about_what_runs(worker, gateway):
    lease = await gateway.offer()
    await worker.started(lease)
    with capture_logs() as logs:
        gateway.orders = Orders(cordoned=True)
        await gateway.notify()
        await gateway.until(lambda: any("cordoned" in entry["event"] for entry in logs))
        gateway.orders = None
        await gateway.until(lambda: any("uncordoned" in entry["event"] for entry in logs))
    assert worker.processes.running() == [lease]
    assert not worker.stop.drain.is_set()


async def test_an_ordered_drain_finishes_what_runs_and_exits_with_0(worker, gateway):
    lease = await gateway.offer()
    await worker.started(lease)
    gateway.orders = Orders(cordoned=True, drain=True, hand_over_in_seconds=3600)
    await gateway.notify()
    await gateway.until(lambda: gateway.called("heartbeat")[-1].body.draining)
    assert worker.processes.running() == [lease]
    worker.processes.end(lease)
    assert await worker.exit_code() is ExitCode.OK
    assert gateway.reports[lease].outcome is Outcome.SUCCEEDED


async def test_at_an_ordered_deadline_what_runs_is_handed_over(worker, gateway):
    lease = await gateway.offer()
    await worker.started(lease)
    gateway.orders = Orders(cordoned=True, drain=True, hand_over_in_seconds=3600)
    await gateway.until(worker.stop.drain.is_set)
    gateway.orders = Orders(cordoned=True, drain=True, hand_over_in_seconds=0)  # --hand-over, later
    assert await worker.exit_code() is ExitCode.OK
    assert worker.processes.handed_over == [lease]
    assert gateway.reports[lease].outcome is Outcome.ABANDONED
    assert "before the deadline" in gateway.reports[lease].reason


async def test_an_order_to_an_agent_that_was_away_is_obeyed_when_it_is_back(worker, gateway):
    gateway.down = True
    gateway.orders = Orders(cordoned=True, drain=True)
    gateway.down = False
    assert await worker.exit_code() is ExitCode.OK


async def test_a_signal_after_an_order_is_not_yet_a_hurry(worker, gateway):
    lease = await gateway.offer()
    await worker.started(lease)
    gateway.orders = Orders(cordoned=True, drain=True, hand_over_in_seconds=3600)
    await gateway.until(worker.stop.drain.is_set)
    worker.stop.request()
    assert not worker.stop.hurry.is_set()
    worker.stop.request()
    assert await worker.exit_code() is ExitCode.OK
    assert worker.processes.handed_over == [lease]


async def test_a_task_that_ended_in_the_last_moment_is_reported_as_it_ended(worker, gateway):
    lease = await gateway.offer()
    await worker.started(lease)
    worker.processes.end(lease)  # and before anybody has looked:
    worker.stop.request()
    worker.stop.request()
    assert await worker.exit_code() is ExitCode.OK
    assert gateway.reports[lease].outcome is Outcome.SUCCEEDED


async def test_a_drain_has_a_limit(idle_worker, gateway):
    idle_worker.limits = StopLimits(drain_seconds=0.05, terminate_seconds=30.0)
    worker = idle_worker.start()
    lease = await gateway.offer()
    await worker.started(lease)
    worker.stop.request()
    assert await worker.exit_code() is ExitCode.OK
    assert gateway.reports[lease].outcome is Outcome.ABANDONED
    assert "did not end within 0.05 s" in gateway.reports[lease].reason


async def test_a_report_that_cannot_be_delivered_is_named_and_fails_the_exit(idle_worker, gateway):
    idle_worker.limits = StopLimits(drain_seconds=0.01, terminate_seconds=0.05)
    worker = idle_worker.start()
    lease = await gateway.offer()
    await worker.started(lease)
    gateway.down = True
    with capture_logs() as logs:
        worker.stop.request()
        assert await worker.exit_code() is ExitCode.FAILED
    (unreported,) = [entry for entry in logs if "could not be ended and reported" in entry["event"]]
    assert unreported["leases"] == (lease,)
    assert worker.processes.closed


async def test_a_refused_token_stops_the_worker_with_a_sentence(idle_worker, gateway):
    gateway.token = AgentToken.generate()
    with capture_logs() as logs:
        assert await idle_worker.start().exit_code() is ExitCode.REFUSED
    (said,) = [entry["reason"] for entry in logs if entry["event"] == "the agent cannot go on"]
    assert "expired or been revoked" in said
    assert "jetbridge token create" in said


@pytest.mark.parametrize("problem", [ProblemType.UNKNOWN_CONTRACT, ProblemType.FORBIDDEN])
async def test_a_refused_registration_stops_the_worker(idle_worker, gateway, problem):
    gateway.problems["register"] = [problem]
    with capture_logs() as logs:
        assert await idle_worker.start().exit_code() is ExitCode.REFUSED
    assert any(problem.title in entry.get("reason", "") for entry in logs)


async def test_a_replaced_worker_ends_its_tasks_and_stops(worker, gateway):
    lease = await gateway.offer()
    await worker.started(lease)
    gateway.replaced = True
    with capture_logs() as logs:
        assert await worker.exit_code() is ExitCode.REFUSED
    assert worker.processes.stopped == [lease]
    assert any("Another process registered" in entry.get("reason", "") for entry in logs)
    assert gateway.reports == {}


async def test_a_fork_server_that_cannot_be_kept_alive_stops_the_worker_in_order(worker, gateway):
    lease = await gateway.offer()
    await worker.started(lease)
    worker.processes.failure = ForkServerError("died 5 times")
    worker.processes.up.clear()
    worker.processes.broken.set()
    worker.processes.end(lease, Outcome.FAILED, None, "the fork server died")
    assert await worker.exit_code() is ExitCode.FAILED
    assert lease in gateway.reports


async def test_a_bug_in_a_side_task_stops_the_worker_in_order(worker, gateway):
    lease = await gateway.offer()
    await worker.started(lease)
    worker.processes.failure = LookupError("bug")
    with capture_logs() as logs:
        worker.processes.broken.set()
        assert await worker.exit_code() is ExitCode.FAILED
    assert gateway.reports[lease].reason == "the worker failed: LookupError"
    assert any(entry["event"] == "side task failed" and entry["task"] == "role" for entry in logs)


async def test_a_worker_told_to_stop_before_it_could_register_stops(idle_worker, gateway):
    gateway.down = True
    worker = idle_worker.start()
    await asyncio.sleep(0.01)
    worker.stop.request()
    assert await worker.exit_code() is ExitCode.OK


async def test_a_lease_confirmed_after_the_end_was_decided_is_reported_and_not_started(worker, gateway):
    gateway.answers_lost["accept"] = 10**6
    lease = await gateway.offer()
    await gateway.until(lambda: lease in gateway.held)
    worker.stop.request()
    worker.stop.request()
    await gateway.until(lambda: gateway.called("heartbeat")[-1].body.draining)
    gateway.answers_lost["accept"] = 0
    assert await worker.exit_code() is ExitCode.OK
    assert gateway.reports[lease].outcome is Outcome.ABANDONED
    assert lease not in worker.processes.orders
