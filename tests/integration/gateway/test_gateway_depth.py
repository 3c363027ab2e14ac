"""What an autoscaler learns with an agent token, and with which it does not."""

import pytest


@pytest.fixture
def ask(gateway):
    async def ask(token, **query):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return await gateway.client.get("/v1/depth", params=query, headers=headers)

    return ask


async def test_work_counts_from_its_submission_to_its_end(ask, agent, store, workload, queue, eventually):
    async def becomes(waiting, running):
        async def is_so():
            answer = (await ask(agent.token, queue=[queue])).json()
            assert answer["value"] == answer["waiting"] + answer["running"]
            return (answer["waiting"], answer["running"]) == (waiting, running)

        await eventually(is_so)

    await becomes(0, 0)
    await store.submit(workload())
    await becomes(1, 0)
    lease, _token = await agent.lease()
    await store.submit(workload())
    await becomes(1, 1)
    assert (await agent.report(lease, outcome="succeeded")).status_code == 200
    await becomes(1, 0)


async def test_several_queues_are_added_up(ask, make_agent, store, workload, queue, eventually):
    asker = await make_agent(queue)
    await store.submit(workload())
    await store.submit(workload(of_queue=f"{queue}.with/slash"))

    async def both():
        answer = await ask(asker.token, queue=[queue, f"{queue}.with/slash"])
        return answer.json()["value"] == 2

    await eventually(both)


async def test_the_metrics_say_the_same(gateway, store, workload, queue, eventually):
    await store.submit(workload())
    line = f'jetbridge_gateway_waiting_workloads{{queue="{queue}"}} 1.0'

    async def shown():
        return line in (await gateway.client.get("/metrics")).text

    await eventually(shown)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({}, "at least one queue"),
        ({"role": "sentinel", "queue": "q"}, "worker or triggerer"),
        ({"queue": ""}, "1 to 256"),
        ({"queue": "x" * 257}, "1 to 256"),
        ({"queue": ["q"] * 257}, "at most 256"),
    ],
)
async def test_a_question_that_cannot_be_answered_is_400(ask, agent, problem, query, said):
    assert said in problem(await ask(agent.token, **query), "malformed")["detail"]


async def test_scopes_hold_here_too(ask, make_agent, problem, queue):
    agent = await make_agent(queue, scopes={"roles": ("worker",), "queues": (queue,)})
    assert (await ask(agent.token, queue=queue)).status_code == 200
    assert "'other'" in problem(await ask(agent.token, queue=["other", queue]), "forbidden")["detail"]
    problem(await ask(agent.token, role="triggerer", queue=queue), "forbidden")


async def test_without_a_valid_token_nothing_is_told(ask, agent, problem, queue):
    problem(await ask("", queue=queue), "unauthenticated")
    problem(await ask("jb_x_y", queue=queue), "unauthenticated")
    await agent.register()
    problem(await ask(agent.credential, queue=queue), "unauthenticated")


async def test_triggers_are_the_bridges_to_count(ask, agent, problem, queue):
    problem(await ask(agent.token, role="triggerer", queue=queue), "unavailable")  # no bridge runs here
