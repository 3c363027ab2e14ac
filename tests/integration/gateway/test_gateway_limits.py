"""Too many attempts, counted in Redis over all gateways."""

from jetbridge.contracts.ids import AgentToken


def wrong():
    return str(AgentToken.generate())


async def test_failures_are_counted_by_address_over_all_gateways(start_gateway, make_agent, problem, auth):
    changes = {"failed_logins_per_minute": 4, "trusted_proxies": "127.0.0.0/8"}
    gateways = [await start_gateway(**changes), await start_gateway(**changes)]
    agent = await make_agent()

    async def fail(gateway, address):
        headers = auth(wrong()) | {"X-Forwarded-For": address}
        return await gateway.client.post("/v1/agents", json={}, headers=headers)

    here, elsewhere = f"2001:db8::{agent.name[-4:]}", f"2001:db8:1::{agent.name[-4:]}"
    answers = [await fail(gateways[number % 2], here) for number in range(12)]
    # A minute of the clock may begin in between; then the first few of it count anew.
    assert 429 in {answer.status_code for answer in answers}
    refused = next(answer for answer in answers if answer.status_code == 429)
    problem(refused, "too-many-requests")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    problem(await fail(gateways[0], elsewhere), "unauthenticated")


async def test_whoever_has_a_valid_token_is_let_in_all_the_same(start_gateway, make_agent, auth):
    gateway = await start_gateway(failed_logins_per_minute=1)
    agent = await make_agent()
    for _ in range(5):
        await gateway.client.post("/v1/agents", json={}, headers=auth(wrong()))
    agent.client = gateway.client
    assert (await agent.register()).status_code == 200
    assert (await agent.heartbeat()).status_code == 200


async def test_registrations_are_limited_by_token_and_by_address(start_gateway, make_agent, problem):
    gateway = await start_gateway(registrations_per_minute=3, trusted_proxies="127.0.0.0/8")
    agents = [await make_agent() for _ in range(9)]

    async def register(agent, address):
        agent.client = gateway.client
        gateway.client.headers["X-Forwarded-For"] = address
        return await agent.register()

    tail = agents[0].name[-4:]
    of_one_token = [await register(agents[0], f"2001:db8:{number}::{tail}") for number in range(1, 9)]
    from_one_address = [await register(agent, f"2001:db8::1:{tail}") for agent in agents[1:]]
    for answers in (of_one_token, from_one_address):
        assert {200, 429} == {answer.status_code for answer in answers}
        problem(next(answer for answer in answers if answer.status_code == 429), "too-many-requests")
    assert (await agents[0].heartbeat()).status_code == 200


async def test_without_redis_limits_hold_and_agents_get_in(start_gateway, make_agent, auth):
    gateway = await start_gateway(
        redis_url="redis://127.0.0.1:9/0", failed_logins_per_minute=2, registrations_per_minute=3
    )
    agent = await make_agent()
    agent.client = gateway.client
    assert (await agent.register()).status_code == 200
    statuses = [
        (await gateway.client.post("/v1/agents", json={}, headers=auth(wrong()))).status_code
        for _ in range(8)
    ]
    assert set(statuses) == {401, 429}
