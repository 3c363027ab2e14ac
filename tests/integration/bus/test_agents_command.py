"""``jetbridge agents`` on a real bus: what it shows, what it writes, how it ends."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from jetbridge.bus import agents_cli
from jetbridge.bus.agents import AgentStore
from jetbridge.bus.apply import apply
from jetbridge.bus.connection import open_bus
from jetbridge.bus.health import HealthStore
from jetbridge.bus.orders import OrderStore
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.sites import open_sites
from jetbridge.bus.workloads import NewWorkload, WorkloadStore
from jetbridge.contracts.messages import TaskCoordinates, WorkloadKind
from jetbridge.contracts.records import AgentRecord, Health, HealthRecord
from jetbridge.contracts.sites import AgentSeen, SiteRecord


class Fleet:
    """Agents of a site of this test's own, and the command."""

    def __init__(self, url, capsys):
        self.url, self.capsys = url, capsys
        self.site, self.queue = f"site-{uuid.uuid4().hex[:8]}", f"q-{uuid.uuid4().hex[:8]}"

    def do(self, work):
        async def run():
            async with open_bus(BusSettings(url=self.url), "tests") as bus:
                await apply(bus, 1)
                return await work(bus)

        return asyncio.run(run())

    def agent(self, *, health=Health.HEALTHY, **changes):
        record = AgentRecord(
            name=f"a-{uuid.uuid4().hex[:8]}",
            instance=uuid.uuid4().hex,
            role="worker",
            queues=(self.queue,),
            slots=4,
            site=self.site,
            token_id="0" * 12,
            registered_at=datetime.now(UTC),
        )
        for name, value in changes.items():
            record = msgspec.structs.replace(record, **{name: value})

        async def write(bus):
            await (await AgentStore.open(bus)).bucket.put(record.name, record)
            if health:
                state = HealthRecord(
                    agent=record.name,
                    instance=record.instance,
                    health=health,
                    since=datetime.now(UTC),
                    reason="as the test asked",
                )
                await (await HealthStore.open(bus)).change(None, state)

        self.do(write)
        return record

    def order(self, name):
        async def read(bus):
            entry = await (await OrderStore.open(bus)).bucket.get(name)
            return entry.record if entry else None

        return self.do(read)

    def run(self, *words):
        self.capsys.readouterr()
        try:
            code = agents_cli.main(list(words))
        except SystemExit as ended:
            code = ended.code
        said = self.capsys.readouterr()
        return code, said.out, said.err


@pytest.fixture
def fleet(nats_url, monkeypatch, capsys):
    monkeypatch.setenv("JETBRIDGE_NATS_URL", nats_url)
    return Fleet(nats_url, capsys)


def test_cordon_and_uncordon_are_idempotent_and_show(fleet):
    agent = fleet.agent()
    assert fleet.run("cordon", agent.name, "--reason", "kernel update")[:2] == (
        0,
        f"{agent.name}: cordoned\n",
    )
    before = fleet.order(agent.name)
    assert before.reason == "kernel update"
    code, out, _ = fleet.run("cordon", agent.name)
    assert (code, out) == (0, f"{agent.name}: was cordoned already\n")
    assert fleet.order(agent.name) == before
    _, out, _ = fleet.run("list", "--site", fleet.site)
    heading, row = out.splitlines()
    assert heading.split() == ["NAME", "ROLE", "SITE", "STATE", "QUEUES", "LEASES", "WHY"]
    assert row.split()[:4] == [agent.name, "worker", fleet.site, "cordoned"]
    assert row.endswith("kernel update")
    assert fleet.run("uncordon", agent.name)[:2] == (0, f"{agent.name}: takes work again\n")
    assert fleet.run("uncordon", agent.name)[:2] == (0, f"{agent.name}: was not cordoned\n")
    assert fleet.order(agent.name) is None


def test_a_drain_names_the_process_and_the_earlier_deadline(fleet):
    agent = fleet.agent()
    begun = datetime.now(UTC)
    code, out, _ = fleet.run("drain", agent.name, "--deadline", "2h")
    assert code == 0
    assert out.startswith(f"{agent.name}: drains 0 leases, hands over at ")
    order = fleet.order(agent.name)
    assert order.drain.instance == agent.instance
    assert timedelta(hours=2) <= order.drain.hand_over_at - begun < timedelta(hours=2, minutes=5)
    fleet.run("drain", agent.name, "--deadline", "3h")
    assert fleet.order(agent.name) == order
    fleet.run("drain", agent.name, "--hand-over")
    assert fleet.order(agent.name).drain.hand_over_at <= datetime.now(UTC)
    assert " draining " in fleet.run("list", agent.name)[1]
    assert "a process that has begun to drain still ends" in fleet.run("uncordon", agent.name)[1]


def test_queues_and_sites_select(fleet):
    here, elsewhere = fleet.agent(), fleet.agent(site="another-site")
    other_queue = fleet.agent(queues=("another-queue",))
    fleet.run("cordon", "--queue", fleet.queue, "--site", fleet.site)
    assert fleet.order(here.name)
    assert not fleet.order(elsewhere.name)
    assert not fleet.order(other_queue.name)
    fleet.run("cordon", "--site", fleet.site)
    assert fleet.order(other_queue.name)


def test_waiting_ends_when_the_process_has_ended_or_was_replaced(fleet):
    lost, replaced = fleet.agent(health=Health.LOST), fleet.agent()
    assert fleet.run("drain", lost.name, "--wait")[0] == 0
    fleet.do(lambda bus: _replace(bus, replaced))
    code, out, _ = fleet.run("drain", lost.name, replaced.name, "--hand-over")
    assert code == 0
    assert f"{lost.name}: has ended already (lost); its name is cordoned" in out


async def _replace(bus, record):
    await (await AgentStore.open(bus)).bucket.put(record.name, record)


def test_what_is_wrong_is_told_with_the_site_s_own_words(fleet):
    agent = fleet.agent(health=Health.SUSPECT)

    async def report(bus):
        seen = AgentSeen(agent=agent.name, healthy=False, state="waiting", detail="ImagePullBackOff")
        record = SiteRecord(site=fleet.site, sentinel="s", at=datetime.now(UTC), agents=(seen,))
        await (await open_sites(bus)).put(f"s-{fleet.site}", record)

    fleet.do(report)
    (facts,) = json.loads(fleet.run("show", agent.name, "--json")[1])
    assert facts["state"] == "suspect"
    assert facts["why"] == "as the test asked; seen at its site: waiting ImagePullBackOff"
    assert "state        suspect" in fleet.run("show", agent.name)[1].splitlines()


def test_leases_are_counted_and_the_forgotten_left_out(fleet):
    agent, gone = fleet.agent(), fleet.agent(health=Health.GONE)

    async def lease(bus):
        store = await WorkloadStore.open(bus)
        new = NewWorkload(
            workload_id=str(uuid.uuid4()),
            kind=WorkloadKind.TASK,
            queue=fleet.queue,
            priority_weight=1,
            coordinates=TaskCoordinates(dag_id="d", run_id="r", task_id="t"),
            spec=b"{}",
        )
        await store.submit(new)
        key = await store.offer(await store.get(new.workload_id), agent.name, "ack", agent.instance)
        await store.accept(key, agent.name)
        return key

    key = fleet.do(lease)
    out = fleet.run("list", "--site", fleet.site)[1]
    assert " 1/4" in out
    assert gone.name not in out
    assert gone.name in fleet.run("list", "--site", fleet.site, "--all")[1]
    assert json.loads(fleet.run("show", agent.name, "--json")[1])[0]["leases"] == [str(key)]
    assert "drains 1 leases" in fleet.run("drain", agent.name)[1]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["cordon", "nobody-of-that-name"], 3),
        (["drain", "--site", "no-such-site"], 3),
        (["show", "nobody-of-that-name"], 3),
        (["cordon"], 2),
        (["drain", "a", "--deadline", "soon"], 2),
        (["drain", "a", "--deadline", "5m", "--hand-over"], 2),
        (["cordon", "a", "--reason", "two\nlines"], 2),
        ([], 2),
    ],
)
def test_mistakes_have_codes_and_sentences(fleet, words, code):
    fleet.agent()
    ended, out, error = fleet.run(*words)
    assert (ended, out) == (code, "")
    assert error


def test_one_wrong_name_does_not_keep_the_others_from_it(fleet):
    agent = fleet.agent()
    code, out, error = fleet.run("cordon", "nobody-of-that-name", agent.name)
    assert (code, out) == (3, f"{agent.name}: cordoned\n")
    assert "nobody-of-that-name" in error


def test_without_a_bus_it_ends_with_1(fleet, monkeypatch):
    monkeypatch.setenv("JETBRIDGE_NATS_URL", "nats://127.0.0.1:1")
    monkeypatch.setenv("JETBRIDGE_NATS_CONNECT_TIMEOUT_SECONDS", "0.5")
    code, _, error = fleet.run("list")
    assert code == 1
    assert error.startswith("jetbridge agents list: no NATS server answers")
