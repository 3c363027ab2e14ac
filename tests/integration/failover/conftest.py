"""A bus with its topology, a Redis with presence, and a sentinel on a fast clock."""

import asyncio
import uuid
from collections import defaultdict
from contextlib import AsyncExitStack

import pytest
import redis.asyncio as redis

from jetbridge.bus import spans as spans_of_messages
from jetbridge.bus.agents import AgentStore
from jetbridge.bus.apply import apply
from jetbridge.bus.beats import open_beats
from jetbridge.bus.connection import open_bus
from jetbridge.bus.health import HealthStore
from jetbridge.bus.mirror import BucketMirror
from jetbridge.bus.orders import OrderStore
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.tasks import end_tasks
from jetbridge.bus.workloads import NewWorkload, WorkloadStore, terms_of
from jetbridge.contracts.messages import TaskCoordinates, WorkloadKind
from jetbridge.contracts.presence import GATEWAYS_KEY, PRESENCE_KEY, member_of
from jetbridge.router import moving, rounds
from jetbridge.sentinel import verdicts as verdicts_of_silence
from jetbridge.sentinel.looking import Lookout
from jetbridge.sentinel.metrics import SentinelMetrics
from jetbridge.sentinel.plane import keep_watch
from jetbridge.sentinel.silence import Limits, SilenceWatch
from jetbridge.sentinel.states import States
from jetbridge.sentinel.verdicts import Verdicts
from jetbridge.telemetry.testing import recording_tracer

FAST = Limits(heartbeat_seconds=0.2, lease_seconds=1.5, forget_seconds=3600)
LOOK_SECONDS = 0.05


@pytest.fixture
async def bus(nats_url):
    async with open_bus(BusSettings(url=nats_url), "tests") as bus:
        await apply(bus, 1)
        yield bus


@pytest.fixture
async def store(bus):
    return await WorkloadStore.open(bus)


@pytest.fixture
async def open_redis(redis_url):
    """Make clients of the session's Redis, closed after whatever runs with them has ended."""
    async with AsyncExitStack() as stack:

        def make(**options):
            client = redis.from_url(redis_url, **options)
            stack.push_async_callback(client.aclose)
            return client

        yield make


@pytest.fixture
async def running(open_redis):  # noqa: ARG001 - ends before the clients it uses are closed
    """Run coroutines for the length of a test."""
    tasks = []

    def run(work):
        tasks.append(asyncio.create_task(work))
        return tasks[-1]

    yield run
    await end_tasks(tasks)  # servers may be gone already; tests assert effects


@pytest.fixture
async def health(bus, running):
    mirror = BucketMirror(bus, (await HealthStore.open(bus)).bucket)
    running(mirror.run())
    await asyncio.wait_for(mirror.ready.wait(), 15)
    return mirror


@pytest.fixture
async def presence(open_redis):
    return Presence(open_redis())


class Presence:
    """Beats as gateways write them, for agents of this test only."""

    def __init__(self, client):
        self.client = client
        self.beat_number = 0

    async def beat(self, *members):
        self.beat_number += 1
        pipeline = self.client.pipeline()
        for member in members:
            pipeline.zadd(PRESENCE_KEY, {member: self.beat_number})
        pipeline.zadd(GATEWAYS_KEY, {"gateway-test": self.beat_number})
        await pipeline.execute()

    async def keep_beating(self, *members):
        while True:
            await self.beat(*members)
            await asyncio.sleep(0.1)


@pytest.fixture
def agent():
    name, instance = f"w-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    return name, instance, member_of(name, instance)


@pytest.fixture
async def start_sentinel(bus, store, open_redis, running):
    async def start(limits=FAST):
        health_store = await HealthStore.open(bus)
        mirror = BucketMirror(bus, health_store.bucket)
        watch = SilenceWatch(limits, max_gap_seconds=5)
        verdicts = Verdicts(watch, health_store, mirror, store, SentinelMetrics())
        orders = BucketMirror(bus, (await OrderStore.open(bus)).bucket)
        agents = BucketMirror(bus, (await AgentStore.open(bus)).bucket)
        beats = BucketMirror(bus, await open_beats(bus))
        running(mirror.run())
        running(beats.run())
        running(orders.run())
        running(agents.run())
        states = States(mirror, orders, agents)
        running(keep_watch(bus, Lookout(open_redis(socket_timeout=1), beats), verdicts, states, LOOK_SECONDS))
        return states

    return start


@pytest.fixture
def lease(store):
    """Submit a workload and lease it to an agent, as executor, gateway and agent would."""

    async def make(name, instance, terms=terms_of, **options):
        new = NewWorkload(
            workload_id=str(uuid.uuid4()),
            kind=WorkloadKind.TASK,
            queue=f"q-{uuid.uuid4().hex[:8]}",
            priority_weight=1,
            coordinates=TaskCoordinates(dag_id="d", run_id="r", task_id="t"),
            spec=b"{}",
            **options,
        )
        await store.submit(new)
        key = await store.offer(await store.get(new.workload_id), name, "ack", instance)
        await store.accept(key, name, terms=terms)
        return key

    return make


class Spans:
    """The spans of router and sentinel that have ended, and of what they send."""

    def __init__(self, ended):
        self.ended = ended

    def about(self, **attributes):
        """Return those with these attributes (``agent``: ``jetbridge.agent``), in the order of their ends."""
        wanted = {f"jetbridge.{name}": value for name, value in attributes.items()}
        return [one for one in self.ended() if wanted.items() <= one.attributes.items()]

    def below(self, parent):
        """Return the names of a span's children."""
        children = defaultdict(list)
        for one in self.ended():
            if one.parent and one.parent.trace_id == parent.context.trace_id:
                children[one.parent.span_id].append(one.name)
        return children[parent.context.span_id]


@pytest.fixture
def spans(monkeypatch):
    tracer, ended = recording_tracer()
    for module in (rounds, moving, verdicts_of_silence, spans_of_messages):
        monkeypatch.setattr(module, "_tracer", tracer)
    return Spans(ended)


@pytest.fixture
def eventually():
    async def wait(condition, seconds: float = 20.0):
        async with asyncio.timeout(seconds):
            while True:
                result = condition()
                if asyncio.iscoroutine(result):
                    result = await result
                if result:
                    return result
                await asyncio.sleep(0.02)

    return wait
