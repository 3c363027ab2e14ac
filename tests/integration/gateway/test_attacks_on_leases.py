"""
An agent with a valid lease of its own reaches for another agent's: lease, task instance, XCom, store, log.

One line per attempt. None changes anything, and none reaches Airflow. Triggers are attacked in
``tests/integration/triggers/test_triggers_bad_input.py``, Dag bundles in
``tests/integration/dag_processing/test_bad_input_about_bundles.py``.
"""

import uuid
from dataclasses import dataclass

import pytest

from jetbridge.bus.workloads import NewWorkload
from jetbridge.contracts.ids import LeaseKey
from jetbridge.contracts.messages import TaskCoordinates, WorkloadKind


@dataclass
class Side:
    """One agent and the workload it runs."""

    agent: object
    ti: str
    lease: str
    token: str


def workload_of(ti, queue, **where):
    return NewWorkload(
        workload_id=ti,
        kind=WorkloadKind.TASK,
        queue=queue,
        priority_weight=1,
        coordinates=TaskCoordinates(**where),
        spec=b'{"type":"ExecuteTask"}',
    )


EVIL = {"dag_id": "evil", "run_id": "r1", "task_id": "transfer"}


@pytest.fixture
def running(make_agent, store, queue):
    """Have an agent of its own run a task."""

    async def run(name, **where):
        of_queue = f"{queue}-{name}"
        agent = await make_agent(of_queue)
        await agent.register()
        ti = str(uuid.uuid4())
        await store.submit(workload_of(ti, of_queue, **where))
        lease, token = await agent.lease()
        return Side(agent, ti, lease, token)

    return run


@pytest.fixture
async def victim(running):
    return await running("victim", dag_id="pay", run_id="r1", task_id="transfer")


@pytest.fixture
async def mallory(running):
    """Of another Dag."""
    return await running("mallory", **EVIL)


@pytest.fixture
async def sibling(running, victim):
    """Of the same run as the victim, which it may read from and not write to."""
    assert victim.ti
    return await running("sibling", dag_id="pay", run_id="r1", task_id="other")


BY_MALLORY = [
    ("PATCH", "task-instances/{ti}/run"),
    ("PATCH", "task-instances/{ti}/state"),
    ("PATCH", "task-instances/{ti}/skip-downstream"),
    ("PATCH", "task-instances/{ti}/rendered-map-index"),
    ("PUT", "task-instances/{ti}/heartbeat"),
    ("PUT", "task-instances/{ti}/rtif"),
    ("GET", "task-instances/{ti}/previous-successful-dagrun"),
    ("GET", "task-instances/{ti}/validate-inlets-and-outlets"),
    ("GET", "task-reschedules/{ti}/start_date"),
    ("GET", "task-instances/breadcrumbs?dag_id=pay&run_id=r1"),
    ("GET", "dag-runs/pay/r1"),
    ("GET", "xcoms/pay/r1/transfer/return_value"),
    ("HEAD", "xcoms/pay/r1/transfer/return_value"),
    ("GET", "xcoms/pay/r1/transfer/return_value/item/0"),
    ("GET", "xcoms/pay/r1/transfer/return_value/slice?start=0"),
    ("GET", "xcoms/pay/r0/transfer/return_value?include_prior_dates=true"),
    ("GET", "xcoms/evil%2F..%2Fpay/r1/transfer/return_value"),
    ("POST", "xcoms/pay/r1/transfer/return_value"),
    ("DELETE", "xcoms/pay/r1/transfer/return_value"),
    ("POST", "hitlDetails/{ti}"),
    ("GET", "hitlDetails/{ti}"),
    ("PATCH", "hitlDetails/{own}"),
    ("GET", "store/ti/{ti}/job_id"),
    ("PUT", "store/ti/{ti}/job_id"),
    ("DELETE", "store/ti/{ti}"),
    ("PUT", "store/ti/{own}%2F..%2F{ti}/job_id"),
    ("GET", "store/asset/by-name/value?name=pay&key=watermark"),
    ("PUT", "store/asset/by-name/value?name=pay&key=watermark"),
    ("PUT", "store/asset/by-name/value?name=evil&name=pay&key=watermark"),
    ("PUT", "store/asset/by-uri/value?uri=s3%3A%2F%2Fpay&key=watermark"),
    ("DELETE", "store/asset/by-name/clear?name=pay"),
    ("GET", "asset-events/by-asset?name=pay&uri="),
    ("GET", "asset-events/by-asset?name=evil&uri=s3%3A%2F%2Fpay"),
    ("GET", "asset-events/by-asset-alias?name=pay"),
    ("GET", "connection-tests/{ti}/connection"),
    ("GET", "logs/pay/r1/transfer/1"),
    ("GET", "task-instances/{ti}/logs"),
    ("GET", "health"),
    ("GET", "openapi.json"),
    ("GET", "docs"),
]

BY_SIBLING = [
    ("PATCH", "task-instances/{ti}/state"),
    ("PUT", "task-instances/{ti}/heartbeat"),
    ("POST", "xcoms/pay/r1/transfer/return_value"),
    ("POST", "xcoms/pay/r1/other/return_value?map_index=7"),
    ("POST", "xcoms/pay/r1/other/return_value?map_index=-1&map_index=7"),
    ("POST", "xcoms/pay/r2/other/return_value"),
    ("DELETE", "xcoms/pay/r1/transfer/return_value"),
    ("PUT", "store/ti/{ti}/job_id"),
]


async def attempt(side, victim, method, path, auth):
    target = "/execution/" + path.format(ti=victim.ti, own=side.ti)
    return await side.agent.client.request(method, target, headers=auth(side.token))


async def test_by_an_agent_of_another_dag(victim, mallory, auth, airflow, own_assets):
    own_assets(names=("evil",), uris=("s3://evil",))
    for method, path in BY_MALLORY:
        answer = await attempt(mallory, victim, method, path, auth)
        assert answer.status_code in ((400, 403) if "..%2F" in path else (403,)), (method, path)
        assert answer.headers["content-type"] == "application/problem+json"
    assert not airflow.seen


async def test_by_a_task_of_the_same_run(victim, sibling, auth, airflow):
    for method, path in BY_SIBLING:
        answer = await attempt(sibling, victim, method, path, auth)
        assert answer.status_code == 403, (method, path)
    assert not airflow.seen


async def test_what_a_task_of_the_same_run_may_read(victim, sibling, auth, airflow):
    answer = await attempt(sibling, victim, "GET", "xcoms/pay/r1/transfer/return_value", auth)
    assert answer.status_code == 200
    assert airflow.seen


async def test_another_agents_lease(victim, mallory, store, problem):
    problem(await mallory.agent.accept(victim.lease), "lease-lost")
    problem(await mallory.agent.report(victim.lease, outcome="failed"), "lease-lost")
    answer = await mallory.agent.heartbeat(leases=[victim.lease, mallory.lease])
    assert answer.json()["leases"] == [mallory.lease]
    answer = await mallory.agent.poll(leases=[victim.lease], free_slots=0)
    assert answer.json()["stop"] == [victim.lease]
    held = (await store.get(victim.ti)).record
    assert (held.state, held.agent) == ("leased", victim.agent.name)


async def test_another_agents_offer(make_agent, mallory, store, workload, problem):
    agent = await make_agent()
    await agent.register()
    new = workload()
    await store.submit(new)
    (offer,) = (await agent.poll()).json()["offers"]
    problem(await mallory.agent.accept(offer["lease"]), "lease-lost")
    assert (await agent.accept(offer["lease"])).status_code == 200


async def test_another_agents_name(victim, mallory, problem):
    name, mallory.agent.name = mallory.agent.name, victim.agent.name
    problem(await mallory.agent.register(), "forbidden")
    problem(await mallory.agent.heartbeat(), "forbidden")
    mallory.agent.name = name
    assert (await victim.agent.heartbeat(leases=[victim.lease])).json()["leases"] == [victim.lease]


async def test_an_earlier_epoch_of_ones_own(mallory, store, auth, problem):
    """The work was taken back and handed over again: the token of the first time is worth nothing."""
    first = mallory.token
    await store.remove(mallory.ti)
    await store.submit(workload_of(mallory.ti, mallory.agent.queues[0], **EVIL))
    second, token = await mallory.agent.lease()
    assert LeaseKey.parse(second).workload_id == mallory.ti
    for replayed, expected in ((first, 410), (token, 200)):
        answer = await mallory.agent.client.get("/execution/xcoms/evil/r1/transfer/k", headers=auth(replayed))
        assert answer.status_code == expected
    problem(await mallory.agent.report(mallory.lease), "lease-lost")
    assert (await store.get(mallory.ti)).record.state == "leased"


async def test_a_workers_credential_for_other_roles(mallory, problem):
    for path in ("triggerer", "triggers/poll", "triggers/events", "bundles/claim"):
        body = {"bundles": ["b"]} if path == "bundles/claim" else {}
        answer = await mallory.agent.post(f"/v1/agents/{mallory.agent.name}/{path}", body)
        problem(answer, "forbidden")
