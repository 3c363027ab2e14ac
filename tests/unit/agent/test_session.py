from __future__ import annotations

import asyncio

import pytest

from jetbridge.agent.errors import (
    AgentReplacedError,
    ExitCode,
    RequestRefusedError,
    TokenRefusedError,
    UnknownContractError,
)
from jetbridge.contracts.api import HeartbeatRequest, HeartbeatResponse, PollRequest
from jetbridge.contracts.ids import AgentToken
from jetbridge.contracts.problems import ProblemType


def beat():
    return HeartbeatRequest(free_slots=1)


async def test_calls_register_first_and_once(session, gateway):
    await asyncio.gather(*(session.heartbeat(beat) for _ in range(5)))
    assert len(gateway.called("register")) == 1
    assert gateway.called("register")[0].body.queues == ("q",)
    assert session.plan.lease_seconds == 120.0


async def test_a_refused_credential_is_replaced_by_registering_again(session, gateway):
    await session.register()
    gateway.credential = "another signing key"
    await asyncio.gather(*(session.heartbeat(beat) for _ in range(5)))
    assert len(gateway.called("register")) == 2
    instances = {call.body.instance for call in gateway.called("register")}
    assert len(instances) == 1, "the same process is the same instance"


async def test_an_expired_credential_is_not_even_tried(session, gateway):
    gateway.credential_seconds = 0.0
    await session.register()
    registered = len(gateway.called("register"))
    await session.heartbeat(beat)
    assert len(gateway.called("register")) == registered + 1
    assert not gateway.problems["heartbeat"]


async def test_a_heartbeat_renews_the_credential(session, gateway, monkeypatch):
    await session.register()

    async def renewing(_target, _bearer, _body):
        gateway.credential = "renewed"
        return HeartbeatResponse(credential="renewed", credential_expires_in_seconds=60.0)

    monkeypatch.setattr(gateway, "_heartbeat", renewing)
    await session.heartbeat(beat)
    await session.poll(PollRequest(free_slots=0, wait_seconds=0))
    assert len(gateway.called("register")) == 1


async def test_a_rotated_token_is_picked_up(session, gateway, token_file):
    await session.register()
    gateway.token = AgentToken.generate()
    gateway.credential = ""
    token_file.write_text(str(gateway.token))
    await session.heartbeat(beat)
    assert len(gateway.called("register")) == 2


async def test_a_token_replaced_during_the_registration_is_no_refusal(
    session, gateway, token_file, monkeypatch
):
    fresh = AgentToken.generate()
    register = gateway._register

    async def rotate_meanwhile(*request):
        gateway.token = fresh
        try:
            return await register(*request)
        finally:
            token_file.write_text(str(fresh))

    monkeypatch.setattr(gateway, "_register", rotate_meanwhile)
    await session.register()
    assert len(gateway.called("register")) == 2


async def test_a_half_written_token_file_is_read_again(session, gateway, token_file):
    await session.register()
    gateway.credential = ""
    whole = token_file.read_text()
    token_file.write_text(whole[:20])
    call = asyncio.create_task(session.heartbeat(beat))
    await asyncio.sleep(0)
    token_file.write_text(whole)
    await asyncio.wait_for(call, 30)


async def test_a_refused_token_is_final(session, gateway):
    gateway.token = AgentToken.generate()
    with pytest.raises(TokenRefusedError) as refused:
        await session.register()
    assert refused.value.exit_code is ExitCode.REFUSED
    assert len(gateway.called("register")) == 1


@pytest.mark.parametrize(
    ("problem", "error"),
    [
        (ProblemType.UNKNOWN_CONTRACT, UnknownContractError),
        (ProblemType.FORBIDDEN, RequestRefusedError),
        (ProblemType.AGENT_REPLACED, AgentReplacedError),
    ],
)
async def test_a_registration_the_gateway_will_not_have_is_final(session, gateway, problem, error):
    gateway.problems["register"] = [problem]
    with pytest.raises(error) as refused:
        await session.register()
    assert refused.value.exit_code is ExitCode.REFUSED
    assert refused.value.args[0].startswith(problem.title)


async def test_lost_answers_are_asked_for_again(session, gateway):
    lease = await gateway.offer()
    gateway.answers_lost["accept"] = 3
    confirmed = await session.accept(lease)
    assert confirmed.token == f"token-of-{lease}"
    assert len(gateway.called("accept")) == 4
