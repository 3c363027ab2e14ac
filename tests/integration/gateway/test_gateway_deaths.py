"""Who may say that an agent's process ended, and what becomes of the word."""

import asyncio
import secrets

import pytest

from jetbridge.bus.health import HealthStore, health_key
from jetbridge.bus.sites import open_sites
from jetbridge.contracts.records import Health, HealthRecord

SITE = "paris"


@pytest.fixture
async def sentinel(make_agent):
    return await registered(make_agent, role="sentinel", site=SITE)


@pytest.fixture
async def worker(make_agent):
    return await registered(make_agent, site=SITE)


async def registered(make_agent, **changes):
    agent = await make_agent()
    assert (await agent.register(**changes)).status_code == 200
    return agent


async def attest(sentinel, worker, **changes):
    body = {"agent": worker.name, "instance": worker.instance, "reason": "its process 4711 ended", **changes}
    return await sentinel.post(f"/v1/agents/{sentinel.name}/deaths", body)


async def health_of(bus, agent):
    entry = await (await HealthStore.open(bus)).bucket.get(health_key(agent.name, agent.instance))
    return entry.record if entry else None


async def test_a_sentinels_word_is_written_as_attested(sentinel, worker, bus):
    assert (await attest(sentinel, worker)).json() == {}
    record = await health_of(bus, worker)
    assert (record.health, record.attested) == (Health.LOST, True)
    assert record.reason == f"seen by {sentinel.name}: its process 4711 ended"


async def test_it_overrules_what_silence_seemed_to_say(sentinel, worker, bus):
    suspect = HealthRecord(
        agent=worker.name, instance=worker.instance, health=Health.SUSPECT, since="2026-11-27T12:00:00Z"
    )
    await (await HealthStore.open(bus)).bucket.put(health_key(worker.name, worker.instance), suspect)
    assert (await attest(sentinel, worker)).status_code == 200
    assert (await health_of(bus, worker)).attested


async def test_twice_is_refused_and_changes_nothing(sentinel, worker, bus, problem):
    await attest(sentinel, worker)
    before = await health_of(bus, worker)
    problem(await attest(sentinel, worker, reason="again"), "already-known")
    assert await health_of(bus, worker) == before


async def test_an_agent_of_another_site_is_not_its_business(sentinel, make_agent, bus, problem):
    other = await registered(make_agent, site="rome")
    problem(await attest(sentinel, other), "forbidden")
    assert await health_of(bus, other) is None


@pytest.mark.parametrize("who", [{"role": "worker", "site": SITE}, {"role": "sentinel", "site": ""}])
async def test_only_the_sentinel_of_a_site_may(make_agent, worker, bus, problem, who):
    problem(await attest(await registered(make_agent, **who), worker), "forbidden")
    assert await health_of(bus, worker) is None


async def test_agents_without_a_site_are_of_no_site(sentinel, agent, bus, problem):
    problem(await attest(sentinel, agent), "forbidden")
    assert await health_of(bus, agent) is None


async def test_a_sentinel_cannot_see_its_own_end(sentinel, bus, problem):
    problem(await attest(sentinel, sentinel), "forbidden")
    assert await health_of(bus, sentinel) is None


async def test_late_is_refused_and_the_new_process_lives(sentinel, worker, bus, problem):
    late = worker.instance
    worker.instance = secrets.token_hex(16)
    await worker.register(site=SITE)
    problem(await attest(sentinel, worker, instance=late), "outdated")
    assert await health_of(bus, worker) is None
    assert (await worker.heartbeat()).status_code == 200


async def test_an_unknown_agent_and_a_strange_instance(sentinel, worker, problem):
    problem(await attest(sentinel, worker, agent="nobody-knows-it"), "not-found")
    problem(await attest(sentinel, worker, agent=f"{worker.name}\n"), "malformed")
    problem(await attest(sentinel, worker, instance="not hexadecimal"), "malformed")
    problem(await attest(sentinel, worker, reason="x" * 257), "malformed")


async def test_refusals_are_counted(gateway, sentinel, make_agent):
    refused = gateway.gateway.metrics.refused.labels("forbidden")
    before = refused._value.get()
    await attest(sentinel, await registered(make_agent, site="rome"))
    assert refused._value.get() == before + 1


async def test_who_is_known_to_have_ended_is_heard_no_more(
    sentinel, worker, gateway, store, workload, problem, eventually
):
    await store.submit(workload())
    lease, _ = await worker.lease()
    poll = asyncio.create_task(worker.poll(leases=[lease]))
    await eventually(lambda: gateway.gateway.polls.board.of(worker.name))
    await attest(sentinel, worker)
    problem(await poll, "agent-ended")
    problem(await worker.heartbeat(leases=[lease]), "agent-ended")
    problem(await worker.report(lease), "agent-ended")
    problem(await worker.register(site=SITE), "agent-ended")
    worker.instance = secrets.token_hex(16)
    assert (await worker.register(site=SITE)).status_code == 200


async def test_a_goodbye_is_for_ever_and_may_be_repeated_before_it_acts(worker, bus, problem):
    path = f"/v1/agents/{worker.name}/goodbye"
    assert (await worker.post(path, {"reason": "drained"})).json() == {}
    record = await health_of(bus, worker)
    assert (record.health, record.attested, record.reason) == (Health.GONE, True, "said goodbye: drained")
    problem(await worker.post(path, {"reason": "drained"}), "agent-ended")
    problem(await worker.heartbeat(), "agent-ended")


async def test_a_sentinels_report_is_kept_in_place_of_its_last(sentinel, bus):
    path = f"/v1/agents/{sentinel.name}/site"
    for state in ("pending", "running"):
        seen = {"agent": "w", "healthy": state == "running", "state": state}
        body = {"agents": [seen], "checks": [{"name": "xcom-store", "ok": True}]}
        assert (await sentinel.post(path, body)).json() == {}
    kept = (await (await open_sites(bus)).get(sentinel.name)).record
    assert (kept.site, [one.state for one in kept.agents], kept.checks[0].ok) == (SITE, ["running"], True)


async def test_a_report_larger_than_its_record_is_cut_and_says_so(sentinel, bus):
    agents = [{"agent": "w", "healthy": True, "state": "running", "detail": "€" * 200}] * 500
    assert (await sentinel.post(f"/v1/agents/{sentinel.name}/site", {"agents": agents})).status_code == 200
    kept = (await (await open_sites(bus)).get(sentinel.name)).record
    assert kept.left_out > 0
    assert len(kept.agents) + kept.left_out == 500


async def test_workers_report_no_site(worker, problem):
    problem(await worker.post(f"/v1/agents/{worker.name}/site", {}), "forbidden")
