"""Delivering an outbox: every answer to a kept call, and what is reported then."""

from __future__ import annotations

import pytest

from jetbridge.agent.errors import GatewayUnavailableError, GatewayUnreachableError
from jetbridge.contracts.messages import Outcome
from jetbridge.worker import delivery
from jetbridge.worker.delivery import Outboxes, Verdict, judge
from jetbridge.worker.frames import Exited
from jetbridge.worker.outbox import Call, Outbox

LEASE = "0190c3f4-0000-7000-8000-000000000001.7"
TI = LEASE.partition(".")[0]
XCOM = Call(method="POST", target="xcoms/d/r/t/k", headers={"content-type": "application/json"}, body=b"1")
STATE = Call(method="PATCH", target=f"task-instances/{TI}/state", body=b'{"state":"success"}')
WELL = Exited(lease=LEASE, outcome=Outcome.SUCCEEDED, exit_code=0)


class Gateway:
    """Answers as told and then with 204; repeats as a session does."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.seen = []

    async def execution(self, attempt):
        while True:
            try:
                return await attempt(Client(self))
            except (GatewayUnavailableError, GatewayUnreachableError):
                continue


class Client:
    def __init__(self, gateway):
        self.gateway = gateway

    async def execution(self, token, method, target, *, headers, body):
        self.gateway.seen.append((token, method, target, dict(headers), body))
        answer = self.gateway.answers.pop(0) if self.gateway.answers else 204
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def deliver(tmp_path):
    """Keep calls and deliver them; returns what is to be reported, and what the gateway saw."""
    path = Outboxes(Gateway(), tmp_path).path_of(LEASE)

    async def run(*answers, calls=(XCOM, STATE)):
        outbox = Outbox(path)
        for call in calls:
            outbox.keep(call)
        outbox.close()
        gateway = Gateway(*answers)
        outboxes = Outboxes(gateway, tmp_path)
        how = await outboxes.deliver(LEASE, "the token", WELL)
        outboxes.drop(LEASE)
        assert outboxes.left_behind() == []
        return how, [target for _, _, target, _, _ in gateway.seen]

    return run


async def test_calls_are_delivered_as_they_were_made(tmp_path):
    gateway = Gateway()
    outboxes = Outboxes(gateway, tmp_path)
    outbox = Outbox(outboxes.path_of(LEASE))
    outbox.keep(XCOM)
    outbox.close()
    assert await outboxes.deliver(LEASE, "the token", WELL) == WELL
    assert gateway.seen == [("the token", "POST", XCOM.target, XCOM.headers, b"1")]
    assert await outboxes.kept_end(LEASE) == WELL  # until the report was taken


async def test_an_answer_that_got_lost_is_asked_for_again_before_the_next_call(deliver):
    how, seen = await deliver(GatewayUnreachableError("reset"), 201)
    assert (how, seen) == (WELL, [XCOM.target, XCOM.target, STATE.target])


@pytest.mark.parametrize("status", [400, 403, 404, 413, 422])
async def test_what_is_refused_is_a_failure_and_what_came_after_it_does_not_count(deliver, status):
    how, seen = await deliver(status)
    assert how.outcome is Outcome.FAILED
    assert how.reason == f"Airflow refused what the task had sent: POST xcoms/d/r/t/k answered {status}"
    assert seen == [XCOM.target]


@pytest.mark.parametrize("status", [404, 409, 410])
async def test_a_state_that_comes_too_late_changes_nothing(deliver, status):
    how, seen = await deliver(201, status)
    assert (how, seen) == (WELL, [XCOM.target, STATE.target])


async def test_a_lease_that_is_lost_drops_everything(deliver):
    how, seen = await deliver(410)
    assert (how, seen) == (WELL, [XCOM.target])


async def test_airflows_own_error_is_tried_again_and_not_for_ever(deliver, monkeypatch):
    monkeypatch.setattr(delivery, "SERVER_ERRORS", 3)
    assert (await deliver(500, 500))[0] == WELL
    how, seen = await deliver(500, 500, 500)
    assert how.outcome is Outcome.FAILED
    assert seen == [XCOM.target] * 3


async def test_a_damaged_outbox_is_a_failure_with_a_reason(tmp_path):
    outboxes = Outboxes(Gateway(), tmp_path)
    outboxes.path_of(LEASE).write_bytes(b"garbage" * 1000)
    how = await outboxes.deliver(LEASE, "the token", WELL)
    assert (how.outcome, how.lease) == (Outcome.FAILED, LEASE)
    assert "is lost" in how.reason
    assert outboxes.left_behind() == []


def test_a_refused_skip_is_not_an_overtaken_one():
    assert judge(Call(method="PATCH", target=f"task-instances/{TI}/skip-downstream"), 404) is Verdict.REFUSED
