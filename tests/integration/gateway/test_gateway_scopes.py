"""Scopes of tokens, rotation, whose a name is, and what is known of a token's use."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from jetbridge.bus.token_uses import TokenUseStore
from jetbridge.contracts.ids import AgentToken


def token_id(agent):
    return AgentToken.parse(agent.token).id


@pytest.mark.parametrize(
    ("scopes", "registration", "named"),
    [
        ({"roles": ("triggerer",)}, {}, "worker"),
        ({"queues": ("paris", "gpu-*")}, {"queues": ["paris", "london"]}, "'london'"),
        ({"queues": ("paris",)}, {"role": "triggerer", "queues": []}, "some queues only"),
        ({"sites": ("paris",)}, {"site": "london"}, "'london'"),
        ({"sites": ("paris",)}, {}, "''"),
        ({"cidrs": ("192.0.2.0/24",)}, {}, "127.0.0.1"),
    ],
)
async def test_registration_outside_the_scope_is_refused_and_changes_nothing(
    make_agent, bus, problem, scopes, registration, named
):
    agent = await make_agent(scopes=scopes)
    document = problem(await agent.register(**registration), "forbidden")
    assert named in document["detail"]
    agents = await bus.bucket("agents")
    with pytest.raises(Exception, match="not found"):
        await agents.get(agent.name)


async def test_registration_within_the_scope(make_agent, queue):
    scopes = {"roles": ("worker",), "queues": (f"{queue}*",), "cidrs": ("127.0.0.0/8", "::1/128")}
    agent = await make_agent(queue, f"{queue}-b", scopes=scopes)
    assert (await agent.register()).status_code == 200
    assert (await agent.heartbeat()).status_code == 200


async def test_work_of_another_queue_is_never_offered(make_agent, store, workload, queue):
    mine, theirs = f"{queue}-mine", f"{queue}-theirs"
    agent = await make_agent(mine, scopes={"queues": (mine,)})
    await agent.register()
    await store.submit(workload(of_queue=theirs))
    own = workload(of_queue=mine)
    await store.submit(own)
    (offer,) = (await agent.poll()).json()["offers"]
    assert offer["lease"].startswith(own.workload_id)


async def test_bundles_outside_the_scope_are_not_claimed(make_agent, problem):
    agent = await make_agent(scopes={"bundles": ("mine-*",)})
    await agent.register(role="dag-processor", queues=[])
    path = f"/v1/agents/{agent.name}/bundles/claim"
    document = problem(await agent.post(path, {"bundles": ["mine-a", "theirs"]}), "forbidden")
    assert "'theirs'" in document["detail"]
    assert (await agent.post(path, {"bundles": ["mine-a"]})).status_code == 200


async def test_a_gateway_can_insist_on_scopes(start_gateway, make_agent, problem):
    gateway = await start_gateway(require_scopes=True)
    unscoped, scoped = await make_agent(), await make_agent(scopes={"roles": ("worker",)})
    unscoped.client = scoped.client = gateway.client
    problem(await unscoped.register(), "forbidden")
    assert (await scoped.register()).status_code == 200


async def test_a_name_is_its_tokens_until_that_is_dead(make_agent, tokens, problem):
    owner, other = await make_agent(), await make_agent()
    await owner.register()
    other.name = owner.name
    document = problem(await other.register(), "forbidden")
    assert token_id(owner) in document["detail"]
    assert (await owner.heartbeat()).status_code == 200
    await tokens.revoke(token_id(owner))
    assert (await other.register()).status_code == 200


async def test_of_two_tokens_that_race_for_a_name_one_wins(start_gateway, make_agent):
    gateways = [await start_gateway(), await start_gateway()]
    for _ in range(5):
        agents = [await make_agent() for _ in gateways]
        for agent, gateway in zip(agents, gateways, strict=True):
            agent.name, agent.client = agents[0].name, gateway.client
        answers = await asyncio.gather(*(agent.register() for agent in agents))
        assert sorted(answer.status_code for answer in answers) == [200, 403]


async def test_rotation_overlaps_and_ends(gateway, make_agent, tokens, problem, eventually):
    agent = await make_agent()
    await agent.register()
    before = agent.token
    new, record = await tokens.rotate(token_id(agent), timedelta(hours=1))
    assert new.id == token_id(agent)
    assert record.expires_at - datetime.now(UTC) > timedelta(days=89)
    assert (await agent.register()).status_code == 200, "the secret before is taken in the overlap"
    agent.token = str(new)
    assert (await agent.register()).status_code == 200, "the new one is taken at once"
    assert (await agent.heartbeat()).status_code == 200
    newer, record = await tokens.rotate(token_id(agent), timedelta(0))
    await eventually(lambda: gateway.gateway.gatekeeper.tokens.get(newer.id).record == record)
    problem(await agent.register(), "unauthenticated")
    agent.token = before
    problem(await agent.register(), "unauthenticated")
    agent.token = str(newer)
    assert (await agent.register()).status_code == 200


async def test_neither_an_expired_nor_a_revoked_secret_lives_on_through_rotation(tokens, make_agent, problem):
    agent = await make_agent(life=timedelta(seconds=-1))
    expired = agent.token
    new, _ = await tokens.rotate(token_id(agent), timedelta(hours=1))
    problem(await agent.register(), "unauthenticated")
    agent.token = str(new)
    assert (await agent.register()).status_code == 200
    await tokens.revoke(new.id)
    assert await tokens.rotate(new.id, timedelta(hours=1)) is None
    assert await tokens.rotate("000000000000", timedelta(hours=1)) is None
    assert expired != agent.token


async def test_last_use_is_known_and_written_rarely(gateway, agent, bus, eventually):
    uses = await TokenUseStore.open(bus)
    await gateway.gateway.agents.store.get(agent.name)

    async def known():
        return (await uses.all()).get(token_id(agent))

    use = await eventually(known)
    assert use.address == "127.0.0.1"
    assert datetime.now(UTC) - use.used_at < timedelta(minutes=5)
    for _ in range(3):
        await agent.heartbeat()
    entry = await uses.bucket.get(token_id(agent))
    assert entry.record == use


async def test_revocation_ends_held_polls_on_every_gateway(
    start_gateway, gateway, make_agent, tokens, problem, eventually
):
    other = await start_gateway()
    agent = await make_agent()
    await agent.register()
    second = await make_agent()
    second.token = agent.token
    await second.register()
    polls = [asyncio.create_task(agent.poll()), asyncio.create_task(second.poll(other.client))]
    await eventually(lambda: len(gateway.gateway.polls.board) and len(other.gateway.polls.board))
    await tokens.revoke(token_id(agent))
    async with asyncio.timeout(1):  # what the design promises
        answers = await asyncio.gather(*polls)
    for answer in answers:
        problem(answer, "unauthenticated")


async def test_an_address_made_up_by_a_client_does_not_count(gateway, make_agent, problem):
    agent = await make_agent(scopes={"cidrs": ("192.0.2.0/24",)})
    gateway.client.headers["X-Forwarded-For"] = "192.0.2.1"
    assert "127.0.0.1" in problem(await agent.register(), "forbidden")["detail"]
