"""Lanes with work and nobody to take it, on a real bus: reported once, moved once, in order, if asked."""

import asyncio
import uuid
from datetime import UTC, datetime

import msgspec
import pytest

from jetbridge.bus.agents import AgentStore
from jetbridge.bus.health import HealthStore
from jetbridge.bus.lanes import Lane
from jetbridge.bus.mirror import BucketMirror
from jetbridge.bus.orders import OrderStore
from jetbridge.bus.policies import Policies, PolicyStore
from jetbridge.bus.starving import lane_key, open_lanes
from jetbridge.bus.workloads import NewWorkload, submission_of
from jetbridge.contracts.envelope import open_envelope, read_body
from jetbridge.contracts.messages import TaskCoordinates, WorkloadKind, WorkloadSubmitted
from jetbridge.contracts.policies import FailoverPolicy, PolicyRecord, WhenStarving, queue_scope
from jetbridge.contracts.records import AgentRecord, Health, HealthRecord, WorkloadState
from jetbridge.contracts.schema import MESSAGES
from jetbridge.contracts.subjects import Band, band_of
from jetbridge.router.lanes import LaneRounds, LaneView
from jetbridge.router.metrics import RouterMetrics
from jetbridge.router.moving import Mover


@pytest.fixture
def queue():
    return f"q-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def submit(store, queue):
    async def submit(*, weight=1, to=queue, traceparent=None):
        new = NewWorkload(
            workload_id=str(uuid.uuid4()),
            kind=WorkloadKind.TASK,
            queue=to,
            priority_weight=weight,
            coordinates=TaskCoordinates(dag_id="d", run_id="r", task_id="t"),
            spec=b'{"what": "airflow says"}',
        )
        await store.submit(new, traceparent)
        return new.workload_id

    return submit


@pytest.fixture
def policy(bus, queue):
    """Say what the queue's policy is; a second is the shortest time there is."""

    async def change(**fields):
        store = await PolicyStore.open(bus)
        scope = queue_scope(queue)
        record = PolicyRecord(
            scope=scope,
            failover=FailoverPolicy(**{"starving_after_seconds": 1.0, **fields}),
            changed_at=datetime.now(UTC),
        )
        await store.change(await store.get(scope), record)

    return change


@pytest.fixture
def serve(bus):
    """Have an agent serve queues, or stop to."""

    async def serve(name, *queues, health=Health.HEALTHY):
        agent = AgentRecord(
            name=name,
            instance=name,
            role="worker",
            queues=queues,
            slots=4,
            token_id="t",
            registered_at=datetime.now(UTC),
        )
        await (await AgentStore.open(bus)).bucket.put(name, agent)
        store = await HealthStore.open(bus)
        record = HealthRecord(agent=name, instance=name, health=health, since=datetime.now(UTC))
        await store.change(await store.bucket.get(f"{name}/{name}"), record)

    return serve


@pytest.fixture
async def make_router(bus, store, running):
    """Return routers whose mirrors are filled; ``running(router.run())`` sets one going."""

    async def make():
        bucket = await open_lanes(bus)
        view = LaneView(
            workloads=BucketMirror(bus, store.bucket),
            agents=BucketMirror(bus, (await AgentStore.open(bus)).bucket),
            health=BucketMirror(bus, (await HealthStore.open(bus)).bucket),
            orders=BucketMirror(bus, (await OrderStore.open(bus)).bucket),
            lanes=BucketMirror(bus, bucket, own_writes=True),
            policies=Policies(bus, await PolicyStore.open(bus)),
        )
        mirrors = (view.workloads, view.agents, view.health, view.orders, view.lanes, view.policies.mirror)
        for mirror in mirrors:
            running(mirror.run())
        await asyncio.wait_for(asyncio.gather(*(mirror.ready.wait() for mirror in mirrors)), 15)
        metrics = RouterMetrics()
        return LaneRounds(view, bucket, store, Mover(bus, store, metrics), metrics, 0.2)

    return make


@pytest.fixture
async def start_router(make_router, running):
    async def start():
        return running((await make_router()).run())

    return start


@pytest.fixture
def events(bus):
    """Read all events of some types about a queue, as often as they were kept."""

    async def read(queue, *types):
        found = []
        subscription = await bus.js.subscribe("event.>", ordered_consumer=True)
        try:
            while True:
                message = await subscription.next_msg(timeout=0.5)
                envelope = open_envelope(message.data)
                if envelope.type in types:
                    found.append(read_body(envelope, *MESSAGES))
        except TimeoutError:
            return [event for event in found if event.queue == queue]
        finally:
            await subscription.unsubscribe()

    return read


@pytest.fixture
def lane_record(bus, queue):
    async def read():
        return await (await open_lanes(bus)).get(lane_key(queue))

    return read


async def test_a_queue_no_agent_ever_served_is_reported_once_and_its_tasks_know(
    start_router, submit, policy, queue, store, events, lane_record, eventually
):
    """Nobody has made the lane's consumers; three routers see it, and one of them speaks."""
    await policy()
    waiting = [await submit() for _ in range(3)]
    for _ in range(3):
        await start_router()

    async def all_noted():
        return all([(await store.get(one)).record.starving for one in waiting])

    await eventually(all_noted)
    (report,) = await events(queue, "lane.starving")
    assert (report.waiting, report.reason) == (3, f"no healthy agent serves queue {queue!r}")
    told = await events(queue, "workload.starving")
    assert sorted(event.workload_id for event in told) == sorted(waiting)
    assert (await lane_record()).record.told


async def test_the_report_ends_when_somebody_serves_the_queue(
    start_router, submit, policy, serve, queue, lane_record, events, eventually
):
    await policy()
    await submit()
    await start_router()
    await eventually(lane_record)
    await serve(f"a-{queue}", queue)

    async def gone():
        return await lane_record() is None

    await eventually(gone)
    (served,) = await events(queue, "lane.served")
    assert served.waiting == 1


@pytest.mark.parametrize("health", [Health.SUSPECT, Health.LOST, Health.GONE])
async def test_an_agent_that_is_not_well_serves_nobody(
    start_router, submit, policy, serve, queue, lane_record, health, eventually
):
    await policy()
    await serve(f"a-{queue}", queue, health=health)
    await submit()
    await start_router()
    await eventually(lane_record)


async def test_the_metric_is_there_while_the_queue_starves(make_router, submit, policy, serve, queue):
    await policy()
    await submit()
    router = await make_router()
    now = 0.0
    router.clock = lambda: now
    await router.round()

    def shown():
        return router.metrics.metrics.registry.get_sample_value(
            "jetbridge_router_starving_workloads", {"queue": queue}
        )

    assert shown() is None  # not for long enough
    now = 2.0
    await router.round()
    assert shown() == 1.0
    await serve(f"a-{queue}", queue)
    await asyncio.wait_for(_served(router, queue), 15)
    await router.round()
    assert shown() is None


async def _served(router, queue):
    while queue not in router.view.served():
        await asyncio.sleep(0.02)


async def test_a_cordoned_agent_serves_nobody(
    start_router, submit, policy, serve, queue, bus, lane_record, eventually
):
    await policy()
    await serve(f"a-{queue}", queue)
    await (await OrderStore.open(bus)).cordon(f"a-{queue}")
    await submit()
    await start_router()
    await eventually(lane_record)


async def test_a_queue_whose_agents_are_only_busy_is_not_reported(
    make_router, submit, policy, serve, queue, lane_record
):
    await policy()
    await serve(f"a-{queue}", queue)
    await submit()
    router = await make_router()
    now = 0.0
    router.clock = lambda: now
    await router.round()
    now = 3600.0
    await router.round()
    assert await lane_record() is None


async def moved_to(store, workload_id):
    return (await store.get(workload_id)).record.moved_to


async def test_work_goes_to_the_first_fallback_queue_that_is_served_and_keeps_its_id_and_order(
    start_router, submit, policy, serve, queue, bus, store, events, eventually
):
    weights = (1, 20, 1, 500, 1, 20, 500, 1)
    first, second = f"{queue}-1", f"{queue}-2"
    await policy(when_starving=WhenStarving.MOVE, fallback_queues=(first, second))
    await serve(f"a-{queue}", second)
    ids = [await submit(weight=weight) for weight in weights]
    submissions = {one: submission_of(await store.get(one)) for one in ids}
    await start_router()

    async def all_moved():
        return all([await moved_to(store, one) == second for one in ids])

    await eventually(all_moved)
    async with Lane(bus, second) as lane:
        messages = await asyncio.wait_for(lane.take(len(ids)), 15)
    arrived = [read_body(open_envelope(message.data), WorkloadSubmitted) for message in messages]
    # Most urgent first, and within a band the one that waited longest.
    urgency = sorted(range(len(ids)), key=lambda index: (Band.of(weights[index]), index))
    assert [one.workload_id for one in arrived] == [ids[index] for index in urgency]
    assert [band_of(message.subject) for message in messages] == [
        Band.of(weights[index]) for index in urgency
    ]
    for one in arrived:
        assert (one.queue, one.submission) == (second, submissions[one.workload_id])
        assert bytes(one.spec) == b'{"what": "airflow says"}'
    told = await events(queue, "workload.moved")
    assert sorted((event.workload_id, event.to) for event in told) == sorted((one, second) for one in ids)
    async with Lane(bus, queue) as left:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(left.take(1), 1)


TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_move_is_in_the_trace_of_the_attempt_and_so_is_what_is_told_of_it(
    start_router, submit, policy, serve, queue, bus, spans, eventually
):
    spare = f"{queue}-1"
    await policy(when_starving=WhenStarving.MOVE, fallback_queues=(spare,))
    await serve(f"a-{queue}", spare)
    one = await submit(traceparent=TRACEPARENT)
    await start_router()
    (move,) = await eventually(lambda: spans.about(workload=one, queue=spare))
    _, trace, parent, _ = TRACEPARENT.split("-")
    assert move.name == "router.move"
    assert (f"{move.parent.trace_id:032x}", f"{move.parent.span_id:016x}") == (trace, parent)

    def told():
        moved = [span for span in spans.ended() if span.name == "send event.workload.moved"]
        return [span for span in moved if span.attributes["messaging.message.id"].startswith(one)]

    (event,) = await eventually(told)
    assert f"{event.parent.span_id:016x}" == parent
    # What is taken from the other lane goes on where the executor began, as if it had never been moved.
    async with Lane(bus, spare) as lane:
        (message,) = await asyncio.wait_for(lane.take(1), 15)
    assert open_envelope(message.data).traceparent == message.headers["traceparent"] == TRACEPARENT


async def test_without_a_served_fallback_queue_work_stays_until_there_is_one(
    start_router, submit, policy, serve, queue, store, eventually
):
    await policy(when_starving=WhenStarving.MOVE, fallback_queues=(f"{queue}-1",))
    one = await submit()
    await start_router()

    async def noted():
        return (await store.get(one)).record.starving

    await eventually(noted)
    assert await moved_to(store, one) == ""
    await serve(f"a-{queue}", f"{queue}-1")

    async def moved():
        return await moved_to(store, one) == f"{queue}-1"

    await eventually(moved)


async def test_moved_work_that_starves_again_goes_home_when_home_is_served(
    start_router, submit, policy, serve, queue, bus, store, eventually
):
    spare = f"{queue}-1"
    await policy(when_starving=WhenStarving.MOVE, fallback_queues=(spare,))
    await serve(f"b-{queue}", spare)
    one = await submit()
    await start_router()

    async def is_in(place):
        return (await store.get(one)).record.waits_in == place

    await eventually(lambda: is_in(spare))
    policies = await PolicyStore.open(bus)
    record = (await policies.get(queue_scope(queue))).record
    await policies.change(None, msgspec.structs.replace(record, scope=queue_scope(spare)))
    await serve(f"a-{queue}", queue)
    await asyncio.sleep(1.5)  # nothing must happen: it waits well where it is, and home is no reason to go
    assert await is_in(spare)
    await serve(f"b-{queue}", spare, health=Health.LOST)
    await eventually(lambda: is_in(queue))
    async with Lane(bus, queue) as lane:
        (message,) = await asyncio.wait_for(lane.take(1), 15)
    assert one.encode() in message.data


async def test_several_routers_move_each_workload_once(
    start_router, submit, policy, serve, queue, bus, store, events, eventually
):
    await policy(when_starving=WhenStarving.MOVE, fallback_queues=(f"{queue}-1",))
    await serve(f"a-{queue}", f"{queue}-1")
    ids = [await submit() for _ in range(40)]
    for _ in range(3):
        await start_router()

    async def all_moved():
        return all([await moved_to(store, one) for one in ids])

    await eventually(all_moved, 40)
    told = await events(queue, "workload.moved")
    assert sorted(event.workload_id for event in told) == sorted(ids)
    async with Lane(bus, f"{queue}-1") as lane:
        found = []
        while len(found) < len(ids):
            found += await asyncio.wait_for(lane.take(64), 15)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lane.take(1), 1)
    # One message each, and in the order in which they waited: one router moved the lane.
    assert [read_body(open_envelope(m.data), WorkloadSubmitted).workload_id for m in found] == ids


class DiedError(BaseException):
    """The end of the process, as far as its code can tell."""


@pytest.mark.parametrize("row", ["before the copy", "before the record", "before the acknowledgement"])
async def test_a_router_that_died_while_moving_is_continued(
    row, make_router, start_router, submit, policy, serve, queue, bus, store, eventually, monkeypatch
):
    """Each crash leaves the work in one lane at least, and it is taken once."""
    spare = f"{queue}-1"
    await policy(when_starving=WhenStarving.MOVE, fallback_queues=(spare,))
    await serve(f"a-{queue}", spare)
    one = await submit()
    dying = await make_router()
    now = 0.0
    dying.clock = lambda: now
    await dying.round()
    now = 2.0

    async def die(*args):
        for unsent in filter(asyncio.iscoroutine, args):
            unsent.close()
        raise DiedError

    with monkeypatch.context() as death:
        if row == "before the copy":
            death.setattr(dying.store, "_publish_sealed", _only_events(dying.store, die))
        elif row == "before the record":
            death.setattr(dying.store.bucket, "update", _only_moves(dying.store.bucket, die))
        else:
            from jetbridge.router import moving

            death.setattr(moving, "_settle", die)
        with pytest.raises(DiedError):
            await dying.round()
    await start_router()

    async def moved():
        return await moved_to(store, one) == spare

    await eventually(moved, 40)
    async with Lane(bus, spare) as lane:
        messages = await asyncio.wait_for(lane.take(5), 15)
    taken = [read_body(open_envelope(message.data), WorkloadSubmitted) for message in messages]
    assert {body.workload_id for body in taken} == {one}
    lease = await store.offer(await store.get(one), f"a-{queue}", "ack", queue=spare)
    await store.accept(lease, f"a-{queue}")
    assert (await store.get(one)).record.state is WorkloadState.LEASED


def _only_events(store, die):
    real = store._publish_sealed

    async def publish(subject, *args):
        await (real if subject.startswith("event.") else die)(subject, *args)

    return publish


def _only_moves(bucket, die):
    real = bucket.update

    async def update(key, record, revision):
        return await (die if record.moved_to else real)(key, record, revision)

    return update


async def test_work_that_is_taken_while_it_is_moved_is_left_to_its_taker(
    make_router, submit, policy, serve, queue, bus, store, events
):
    """Somebody takes the copy before the record says that it moved: their offer stands."""
    spare = f"{queue}-1"
    await policy(when_starving=WhenStarving.MOVE, fallback_queues=(spare,))
    await serve(f"a-{queue}", spare)
    one = await submit()
    router = await make_router()
    now = 0.0
    router.clock = lambda: now
    real = store._publish_sealed
    leases = []

    async def publish_and_be_taken(subject, *args):
        await real(subject, *args)
        if subject.startswith(f"work.{spare}."):
            leases.append(await store.offer(await store.get(one), f"a-{queue}", "ack", queue=spare))

    store._publish_sealed = publish_and_be_taken
    await router.round()
    now = 2.0
    await router.round()
    (lease,) = leases
    record = await store.accept(lease, f"a-{queue}")
    assert (record.state, record.queue, record.moved_to) == (WorkloadState.LEASED, queue, spare)
    (told,) = await events(queue, "workload.moved")
    assert (told.workload_id, told.to) == (one, spare)
    async with Lane(bus, queue) as lane:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lane.take(1), 1)
