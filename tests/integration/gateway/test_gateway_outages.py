"""NATS and Redis go away and come back: degraded meanwhile, recovered by itself, nothing lost."""

import asyncio

import pytest
import redis.asyncio as redis

from jetbridge.contracts.presence import PRESENCE_KEY, member_of


@pytest.fixture
def stoppable(nats_server, redis_server):
    if not (nats_server.restartable and redis_server.restartable):
        pytest.skip("the servers belong to somebody else")
    yield
    for server in (nats_server, redis_server):
        server.start()


@pytest.mark.usefixtures("stoppable")
async def test_nats_stopped_and_started(
    agent, gateway, airflow, nats_server, store, workload, auth, problem, eventually
):
    await store.submit(workload())
    lease, token = await agent.lease()
    poll = asyncio.create_task(agent.poll(wait_seconds=60, leases=[lease]))
    await eventually(lambda: len(gateway.gateway.polls.board))
    nats_server.kill()

    async def is_unready():
        return (await gateway.client.get("/readyz")).status_code == 503

    await eventually(is_unready)
    assert (await gateway.client.get("/healthz")).status_code == 200
    assert not (await gateway.client.get("/readyz")).json()["checks"]["nats"]["ok"]
    problem(await agent.report(lease), "unavailable")
    problem(await agent.register(), "unavailable")

    async def heartbeat_refused():
        return (await agent.heartbeat(leases=[lease])).status_code == 503

    await eventually(heartbeat_refused)
    # A running task's calls go on: nobody can have taken the lease away yet.
    assert (await gateway.client.get("/execution/xcoms/d/r/t/x", headers=auth(token))).status_code == 200
    assert airflow.seen
    assert not poll.done()

    nats_server.start()

    async def heartbeat_taken():
        return (await agent.heartbeat(leases=[lease])).status_code == 200

    await eventually(heartbeat_taken)
    new = workload()

    async def submitted():
        try:
            await store.submit(new)
        except Exception:  # noqa: BLE001 - this test's own connection is not back yet
            return False
        return True

    await eventually(submitted)
    (offer,) = (await poll).json()["offers"]  # the same poll, held all the time
    assert offer["lease"].startswith(new.workload_id)
    assert (await agent.accept(offer["lease"])).status_code == 200
    assert (await agent.report(lease)).status_code == 200

    async def is_ready():
        return (await gateway.client.get("/readyz")).status_code == 200

    await eventually(is_ready)


@pytest.mark.usefixtures("stoppable")
async def test_without_contact_for_the_length_of_a_lease_no_call_goes_on(
    start_gateway, agent, airflow, nats_server, store, workload, auth, problem, eventually
):
    gateway = await start_gateway(lease_seconds=1)
    await store.submit(workload())
    _, token = await agent.lease()
    assert (await gateway.client.get("/execution/xcoms/d/r/t/x", headers=auth(token))).status_code == 200
    nats_server.kill()

    async def refused():
        answer = await gateway.client.get("/execution/xcoms/d/r/t/x", headers=auth(token))
        return answer if answer.status_code != 200 else None

    problem(await eventually(refused), "unavailable")
    calls = len(airflow.seen)
    await gateway.client.get("/execution/xcoms/d/r/t/x", headers=auth(token))
    assert len(airflow.seen) == calls


@pytest.mark.usefixtures("stoppable")
async def test_a_revocation_made_while_nats_was_away_from_the_gateway_acts(
    agent, nats_server, tokens, eventually
):
    """The gateway's mirror misses nothing over a reconnect."""
    nats_server.kill()
    nats_server.start()

    async def revoked():
        try:
            return await tokens.revoke(agent.token.split("_")[1])
        except Exception:  # noqa: BLE001 - this test's own connection is not back yet
            return None

    await eventually(revoked)

    async def refused():
        return (await agent.heartbeat()).status_code == 401

    await eventually(refused)


@pytest.mark.usefixtures("stoppable")
async def test_redis_stopped_and_started(agent, gateway, redis_server, redis_url, eventually):
    redis_server.kill()

    async def is_degraded():
        return (await gateway.client.get("/readyz")).json()["status"] == "degraded"

    await eventually(is_degraded)
    assert (await gateway.client.get("/readyz")).status_code == 200
    assert (await agent.heartbeat()).status_code == 200

    async def counted():
        return (
            "jetbridge_gateway_presence_errors_total 0.0" not in (await gateway.client.get("/metrics")).text
        )

    await eventually(counted)
    redis_server.start()
    async with redis.Redis.from_url(redis_url) as client:

        async def written():
            await agent.heartbeat()
            return await client.zscore(PRESENCE_KEY, member_of(agent.name, agent.instance))

        await eventually(written)
