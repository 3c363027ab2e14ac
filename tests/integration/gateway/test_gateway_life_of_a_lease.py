"""A workload's way through the gateway, and every step of it twice, late or by the wrong one."""

import asyncio

from jetbridge.contracts.ids import LeaseKey
from jetbridge.contracts.messages import Outcome
from jetbridge.contracts.records import WorkloadState


async def test_from_submission_to_report(agent, airflow, auth, store, workload):
    new = workload()
    await store.submit(new, "00-11111111111111111111111111111111-2222222222222222-01")
    (offer,) = (await agent.poll()).json()["offers"]
    assert offer["kind"] == "task"
    assert offer["spec"] == {"type": "ExecuteTask"}
    assert offer["coordinates"] == {"dag_id": "d", "run_id": "r", "task_id": "t"}
    assert "11111111111111111111111111111111" in offer["traceparent"]
    assert 0 < offer["expires_in_seconds"] < 10

    accepted = await agent.accept(offer["lease"])
    assert accepted.json()["lease"] == offer["lease"]
    record = (await store.get(new.workload_id)).record
    assert record.state is WorkloadState.LEASED
    assert record.agent == agent.name

    answer = await agent.client.patch(
        f"/execution/task-instances/{new.workload_id}/run",
        json={"state": "running"},
        headers=auth(accepted.json()["token"]),
    )
    assert answer.status_code == 200
    assert airflow.seen[-1]["body"] == b'{"state":"running"}'

    reported = await agent.report(offer["lease"], exit_code=0)
    assert reported.json() == {"lease": offer["lease"]}
    record = (await store.get(new.workload_id)).record
    assert (record.state, record.outcome) == (WorkloadState.FINISHED, Outcome.SUCCEEDED)


async def test_a_waiting_poll_gets_work_that_comes_later(agent, store, workload, eventually, gateway):
    poll = asyncio.create_task(agent.poll())
    await eventually(lambda: len(gateway.gateway.polls.board))
    new = workload()
    await store.submit(new)
    (offer,) = (await poll).json()["offers"]
    assert offer["lease"].startswith(new.workload_id)


async def test_a_poll_without_work_is_answered_empty(agent):
    answer = await agent.poll(wait_seconds=0.05)
    assert answer.json() == {}


async def test_a_poll_gets_no_more_offers_than_it_has_slots(agent, store, workload):
    for _ in range(3):
        await store.submit(workload())
    first = (await agent.poll(free_slots=1)).json()["offers"]
    assert len(first) == 1
    # The open offer still occupies a slot: with two free, there is room for one more.
    second = (await agent.poll(free_slots=2)).json()["offers"]
    assert len(second) == 1
    assert first[0]["lease"] != second[0]["lease"]


async def test_accept_can_be_repeated_through_any_gateway(agent, start_gateway, store, workload, events_of):
    await store.submit(workload())
    other = await start_gateway()
    (offer,) = (await agent.poll()).json()["offers"]
    answers = [
        await agent.accept(offer["lease"], other.client),
        await agent.accept(offer["lease"]),
        await agent.accept(offer["lease"], other.client),
    ]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len({answer.json()["token"] for answer in answers}) == 1
    assert await events_of(offer["lease"]) == ["workload.leased"]


async def test_report_can_be_repeated_and_the_first_one_counts(
    agent, start_gateway, store, workload, events_of
):
    new = workload()
    await store.submit(new)
    other = await start_gateway()
    lease, _ = await agent.lease()
    assert (await agent.report(lease, exit_code=0)).status_code == 200
    again = await agent.report(lease, other.client, outcome="failed", exit_code=1)
    assert again.status_code == 200
    assert (await store.get(new.workload_id)).record.outcome is Outcome.SUCCEEDED
    assert await events_of(lease) == ["workload.leased", "workload.finished"]


async def test_nobody_else_can_accept_or_report(agent, make_agent, store, workload, problem):
    new = workload()
    await store.submit(new)
    stranger = await make_agent()
    await stranger.register()
    (offer,) = (await agent.poll()).json()["offers"]
    problem(await stranger.accept(offer["lease"]), "lease-lost")
    assert (await agent.accept(offer["lease"])).status_code == 200
    problem(await stranger.report(offer["lease"]), "lease-lost")
    assert (await store.get(new.workload_id)).record.state is WorkloadState.LEASED


async def test_an_offer_of_an_old_epoch_is_worth_nothing(agent, store, workload, problem):
    new = workload()
    await store.submit(new)
    (offer,) = (await agent.poll()).json()["offers"]
    await store.submit(new)  # queued again: a new life of the same task instance
    problem(await agent.accept(offer["lease"]), "lease-lost")
    problem(await agent.report(offer["lease"]), "lease-lost")
    (newer,) = (await agent.poll(free_slots=9)).json()["offers"]
    assert LeaseKey.parse(newer["lease"]).epoch > LeaseKey.parse(offer["lease"]).epoch
    assert (await agent.accept(newer["lease"])).status_code == 200


async def test_a_report_before_the_accept_changes_nothing(agent, store, workload, problem):
    new = workload()
    await store.submit(new)
    (offer,) = (await agent.poll()).json()["offers"]
    problem(await agent.report(offer["lease"]), "lease-lost")
    assert (await store.get(new.workload_id)).record.state is WorkloadState.OFFERED


async def test_work_that_was_taken_back_is_not_offered(agent, store, workload):
    gone, wanted = workload(), workload()
    await store.submit(gone)
    await store.remove(gone.workload_id)
    await store.submit(wanted)
    (offer,) = (await agent.poll()).json()["offers"]
    assert offer["lease"].startswith(wanted.workload_id)


async def test_two_gateways_share_the_work_of_a_lane(start_gateway, make_agent, store, workload):
    other = await start_gateway()
    one, two = await make_agent(), await make_agent()
    two.client = other.client
    for agent in (one, two):
        agent.slots = 10
        await agent.register()
    submitted = [workload() for _ in range(12)]
    for new in submitted:
        await store.submit(new)
    leases: set[str] = set()

    async def work(agent):
        while len(leases) < len(submitted):
            for offer in (await agent.poll(wait_seconds=0.5)).json().get("offers", []):
                assert offer["lease"] not in leases
                leases.add(offer["lease"])
                assert (await agent.accept(offer["lease"])).status_code == 200
                assert (await agent.report(offer["lease"])).status_code == 200

    async with asyncio.timeout(60):
        await asyncio.gather(work(one), work(two))
    assert {lease.partition(".")[0] for lease in leases} == {new.workload_id for new in submitted}


async def test_an_agent_that_hangs_up_is_offered_nothing(
    agent, make_agent, gateway, store, workload, eventually
):
    poll = asyncio.create_task(agent.poll())
    await eventually(lambda: len(gateway.gateway.polls.board))
    poll.cancel()
    await eventually(lambda: not len(gateway.gateway.polls.board))
    await store.submit(workload())
    other = await make_agent()
    await other.register()
    assert len((await other.poll()).json()["offers"]) == 1


async def test_a_second_poll_replaces_the_first(agent, gateway, eventually):
    first = asyncio.create_task(agent.poll())
    await eventually(lambda: len(gateway.gateway.polls.board))
    second = asyncio.create_task(agent.poll(wait_seconds=0.1))
    assert (await first).json() == {}
    assert (await second).json() == {}
