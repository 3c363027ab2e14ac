"""Tokens and credentials: what is let in, what is refused, and how soon a refusal acts."""

import asyncio
import json
import secrets
import time
from datetime import timedelta

import jwt
import pytest

from jetbridge.contracts.ids import AgentToken


def spoiled(token: str) -> str:
    parsed = AgentToken.parse(token)
    return str(AgentToken(parsed.id, parsed.secret[:-1] + ("A" if parsed.secret[-1] != "A" else "B")))


async def test_registration_answers_how_to_behave(make_agent):
    agent = await make_agent()
    answer = (await agent.register()).json()
    assert answer["agent"] == agent.name
    assert answer["heartbeat_interval_seconds"] == 5.0
    assert answer["lease_seconds"] == 120.0
    assert 0 < answer["poll_wait_seconds"] <= 60
    assert agent.token not in json.dumps(answer)


async def test_all_bad_tokens_look_the_same(make_agent, tokens, problem):
    agent = await make_agent()
    good = agent.token
    expired, _ = await tokens.create("expired", timedelta(seconds=-1))
    revoked, _ = await tokens.create("revoked")
    await tokens.revoke(revoked.id)
    answers = []
    for token in (spoiled(good), str(expired), str(revoked), str(AgentToken.generate()), "x", "jb_"):
        agent.token = token
        answers.append(await agent.register())
    documents = [problem(answer, "unauthenticated") for answer in answers]
    assert {answer.status_code for answer in answers} == {401}
    assert all("WWW-Authenticate" in answer.headers for answer in answers)
    assert len({json.dumps(document | {"instance": ""}) for document in documents}) == 1


async def test_a_refused_registration_changes_nothing(make_agent, bus):
    agent = await make_agent()
    agent.token = spoiled(agent.token)
    await agent.register()
    agents = await bus.bucket("agents")
    with pytest.raises(Exception, match="not found"):
        await agents.get(agent.name)


async def test_no_bearer_is_401(gateway, problem):
    for header in ({}, {"Authorization": "Basic abc"}, {"Authorization": "Bearer"}):
        for path in ("/v1/agents", "/v1/agents/a/poll", "/v1/agents/a/heartbeat", "/v1/leases/x/accept"):
            problem(await gateway.client.post(path, json={}, headers=header), "unauthenticated")
        problem(await gateway.client.get("/execution/variables/x", headers=header), "unauthenticated")


async def test_two_authorization_headers_are_refused(agent, problem):
    headers = [("Authorization", f"Bearer {agent.credential}")] * 2
    answer = await agent.client.post(f"/v1/agents/{agent.name}/poll", json={"free_slots": 0}, headers=headers)
    problem(answer, "unauthenticated")


async def test_an_agent_token_is_no_credential_and_a_lease_token_neither(agent, store, workload, problem):
    await store.submit(workload())
    _, lease_token = await agent.lease()
    credential = agent.credential
    for wrong in (agent.token, lease_token):
        agent.credential = wrong
        problem(await agent.poll(), "unauthenticated")
    for wrong in (agent.token, credential):
        answer = await agent.client.get(
            "/execution/xcoms/d/r/t/x", headers={"Authorization": f"Bearer {wrong}"}
        )
        problem(answer, "unauthenticated")


async def test_forged_credentials_are_refused(agent, problem):
    claims = jwt.decode(agent.credential, options={"verify_signature": False})
    other_key = secrets.token_bytes(64)
    for key, algorithm in (("", "none"), (other_key, "HS256"), (other_key, "HS512")):
        agent.credential = jwt.encode(claims, key, algorithm)
        problem(await agent.poll(), "unauthenticated")


async def test_an_agent_may_not_speak_for_another(agent, make_agent, problem):
    other = await make_agent()
    await other.register()
    answer = await agent.post(f"/v1/agents/{other.name}/heartbeat", {"free_slots": 1})
    problem(answer, "forbidden")


async def test_revoking_ends_a_held_poll_and_everything_else(
    agent, gateway, tokens, store, workload, problem, eventually, auth
):
    await store.submit(workload())
    lease, lease_token = await agent.lease()
    poll = asyncio.create_task(agent.poll())
    await eventually(lambda: len(gateway.gateway.polls.board))
    await tokens.revoke(AgentToken.parse(agent.token).id)
    problem(await poll, "unauthenticated")
    problem(await agent.heartbeat(), "unauthenticated")
    problem(await agent.report(lease), "unauthenticated")
    problem(await agent.register(), "unauthenticated")
    answer = await agent.client.get("/execution/xcoms/d/r/t/x", headers=auth(lease_token))
    problem(answer, "unauthenticated")


async def test_a_newer_process_replaces_the_older(agent, gateway, problem, eventually):
    poll = asyncio.create_task(agent.poll())
    await eventually(lambda: len(gateway.gateway.polls.board))
    older, agent.instance = agent.credential, secrets.token_hex(16)
    await agent.register()
    problem(await poll, "agent-replaced")
    newer, agent.credential = agent.credential, older
    problem(await agent.heartbeat(), "agent-replaced")
    agent.credential = newer
    assert (await agent.heartbeat()).status_code == 200


async def test_a_registration_is_known_to_every_gateway_at_once(start_gateway, make_agent):
    other = await start_gateway()
    for _ in range(5):  # each a race between the answer and the other gateway's mirror
        agent = await make_agent()
        await agent.register()
        assert (await agent.heartbeat(other.client)).status_code == 200


async def test_heartbeats_renew_a_credential_past_half_its_life(start_gateway, make_agent):
    gateway = await start_gateway(credential_seconds=60)
    agent = await make_agent()
    agent.client = gateway.client
    await agent.register()
    assert "credential" not in (await agent.heartbeat()).json()
    claims = gateway.gateway.gatekeeper.credentials.read_credential(agent.credential)
    agent.credential = gateway.gateway.gatekeeper.credentials.issue_credential(
        claims.agent, claims.instance, claims.token_id, 29
    )
    renewed = (await agent.heartbeat()).json()["credential"]
    assert gateway.gateway.gatekeeper.credentials.read_credential(renewed).expires_at > time.time() + 50
    agent.credential = gateway.gateway.gatekeeper.credentials.issue_credential(
        claims.agent, claims.instance, claims.token_id, -1
    )
    assert (await agent.heartbeat()).status_code == 401
