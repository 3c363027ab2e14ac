"""What a triggerer must not say: refused with a problem, counted, and nothing written."""

import asyncio
import base64
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

import msgspec
import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from site_triggers import FileTrigger, FolderWatcher

from jetbridge.bus.connection import open_bus
from jetbridge.bus.health import HealthStore
from jetbridge.bus.policies import PolicyStore
from jetbridge.bus.settings import BusSettings
from jetbridge.contracts.masking import SEALED
from jetbridge.contracts.policies import PolicyRecord, queue_scope
from jetbridge.contracts.records import Health, HealthRecord

from .world import forget_triggers


def event_of(payload=None):
    return base64.b64encode(msgspec.msgpack.encode({"payload": payload})).decode()


@pytest.fixture(autouse=True)
def nothing_left_over(running_plane):  # noqa: ARG001
    forget_triggers()


@pytest.fixture
def attached(agent_client):
    """An agent by hand with a triggerer; returns how to post as it and the triggerer's number."""

    def attach(**changes):
        post = agent_client(**changes)
        answer = post("triggerer", {})
        assert answer.status_code == 200, answer.text
        return post, answer.json()["triggerer"]

    return attach


@pytest.fixture
def deferred(world, attached, eventually):
    """A task that waits for a trigger, held by an agent by hand."""
    post, number = attached()
    ti, trigger = world.defer(FileTrigger("/nonexistent"))
    start = eventually(lambda: take(post, number))
    assert [one["trigger_id"] for one in start] == [trigger]
    return post, number, ti, trigger, start[0]


def take(post, number, running=()):
    answer = post("triggers/poll", {"triggerer": number, "running": list(running), "wait_seconds": 0})
    assert answer.status_code == 200, answer.text
    return answer.json().get("start", [])


def is_problem(answer, slug):
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert answer.json()["type"] == f"urn:jetbridge:problem:{slug}", answer.text
    return True


def refused(running_plane, slug):
    text = running_plane.metrics()
    lines = [line for line in text.splitlines() if f'_total{{problem="{slug}"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def events(number, *triggers, first=1, **changes):
    body = {"triggerer": number, "events": []}
    for sequence, trigger in enumerate(triggers, start=first):
        body["events"].append(
            {"sequence": sequence, "trigger_id": trigger, "event": event_of("x"), **changes}
        )
    return body


def test_an_agent_of_another_role_is_forbidden(agent_client):
    post = agent_client(role="worker")
    assert is_problem(post("triggerer", {}), "forbidden")
    assert is_problem(post("triggers/poll", {"triggerer": 1}), "forbidden")


def test_the_triggerer_of_another_agent_is_lost_to_this_one(attached, deferred, world):
    _, number, ti, trigger, _ = deferred
    other, _ = attached()
    for path, body in {
        "triggers/poll": {"triggerer": number, "wait_seconds": 0},
        "triggers/events": events(number, trigger),
    }.items():
        assert is_problem(other(path, body), "lease-lost")
    assert world.state(ti) == "deferred"
    assert world.job(number).end_date is None
    assert other("triggerer/end", {"triggerer": number}).status_code == 200  # says nothing, and ends nothing
    assert world.job(number).end_date is None


def test_events_for_triggers_of_others_are_refused_and_write_nothing(
    running_plane, attached, deferred, world
):
    _, _, ti, trigger, _ = deferred
    thief, thiefs = attached()
    before = refused(running_plane, "not-held")
    assert is_problem(thief("triggers/events", events(thiefs, trigger)), "not-held")
    assert refused(running_plane, "not-held") == before + 1
    assert world.state(ti) == "deferred"


def test_of_several_events_only_those_of_held_triggers_are_taken(attached, deferred, world, eventually):
    _, _, others_ti, others, _ = deferred
    post, number = attached()
    ti, trigger = world.defer(FileTrigger("/nonexistent"))
    eventually(lambda: take(post, number))
    answer = post("triggers/events", events(number, others, trigger, 2**30))
    assert answer.status_code == 200
    assert answer.json()["taken"] == 3
    assert [one["sequence"] for one in answer.json()["set_aside"]] == [1, 3]
    assert (world.state(others_ti), world.state(ti)) == ("deferred", "scheduled")


def test_a_repeated_event_is_taken_once(world, attached, eventually, tmp_path):
    name = f"replayed-{uuid.uuid4().hex[:6]}"
    world.watch(name, FolderWatcher(str(tmp_path)))
    post, number = attached()
    (start,) = eventually(lambda: take(post, number))
    body = events(number, start["trigger_id"], start["trigger_id"])
    with ThreadPoolExecutor(8) as pool:  # as retries that overtake each other
        answers = list(pool.map(lambda _: post("triggers/events", body), range(8)))
    answers.append(post("triggers/events", body))
    assert {(answer.status_code, answer.json()["taken"]) for answer in answers} == {(200, 2)}
    assert len(world.asset_events(name)) == 2
    more = events(number, start["trigger_id"], first=3)
    assert post("triggers/events", more).json()["taken"] == 3
    assert len(world.asset_events(name)) == 3


def test_a_process_that_was_lost_goes_on_counting_where_it_was(world, attached, eventually, tmp_path):
    name = f"recounted-{uuid.uuid4().hex[:6]}"
    world.watch(name, FolderWatcher(str(tmp_path)))
    post, number = attached()
    (start,) = eventually(lambda: take(post, number))
    body = events(number, start["trigger_id"])
    assert (
        post("triggers/events", body).status_code == 200
    )  # say that the answer was lost, and then the agent
    again = post("triggerer", {}).json()["triggerer"]
    assert is_problem(post("triggers/events", body), "lease-lost")
    answer = post("triggers/events", {**body, "triggerer": again})
    assert (answer.status_code, answer.json()["taken"]) == (200, 1)
    assert len(world.asset_events(name)) == 1
    assert post("triggers/events", events(again, start["trigger_id"], first=2)).status_code == 200
    assert len(world.asset_events(name)) == 2  # nobody else took the trigger, so it is still this process'


@pytest.mark.parametrize(
    "what",
    [
        {"event": base64.b64encode(b"\xc1 no messagepack").decode()},
        {"event": base64.b64encode(msgspec.msgpack.encode(["no", "event"])).decode()},
        {"event": base64.b64encode(msgspec.msgpack.encode({"task_instance_state": "up"})).decode()},
        {
            "event": base64.b64encode(
                msgspec.msgpack.encode({"task_instance_state": "success", "xcoms": {"k": "MARKER"}})
            ).decode()
        },
        {"event": None},
        {"traceback": ["both"]},
        {"event": "no base64!"},
        {"sequence": 0},
        {"trigger_id": -1},
        {"surprise": 1},
    ],
    ids=["bytes", "shape", "state", "xcoms", "neither", "both", "base64", "zero", "negative", "unknown"],
)
def test_an_event_that_is_none_is_malformed_and_nothing_of_the_request_is_taken(deferred, world, what):
    post, number, ti, trigger, _ = deferred
    body = events(number, trigger)
    body["events"].append({"sequence": 2, "trigger_id": trigger, "event": event_of(), **what})
    assert is_problem(post("triggers/events", body), "malformed")
    assert world.state(ti) == "deferred"
    assert post("triggers/events", events(number, trigger)).json()["taken"] == 1


def test_too_much_is_too_large(deferred, world):
    post, number, ti, trigger, _ = deferred
    large = events(number, trigger, event=base64.b64encode(b"x" * (300 << 10)).decode())
    assert is_problem(post("triggers/events", large), "malformed")
    huge = events(number, *[trigger] * 20, event=base64.b64encode(b"x" * (200 << 10)).decode())
    assert is_problem(post("triggers/events", huge), "too-large")
    assert world.state(ti) == "deferred"


def test_a_newer_contract_is_not_spoken(deferred, world):
    post, number, ti, trigger, _ = deferred
    assert is_problem(post("triggers/events", events(number, trigger) | {"contract": 99}), "unknown-contract")
    assert is_problem(post("triggers/poll", {"triggerer": number, "contract": 99}), "unknown-contract")
    assert world.state(ti) == "deferred"


def test_a_triggerer_known_to_be_dead_is_ended_at_once(running_plane, deferred, attached, world, eventually):
    """The sentinel's word is enough, however recently the agent was heard of."""
    post, number, _, trigger, _ = deferred
    heir, heirs = attached()
    assert take(heir, heirs) == []

    async def attest():
        async with open_bus(BusSettings(url=running_plane.plane.nats.url), "sentinel") as bus:
            instance = world.job(number).unixname.removeprefix("jetbridge/")
            lost = HealthRecord(
                agent=post.name,
                instance=instance,
                health=Health.LOST,
                since=datetime.now(UTC),
                attested=True,
            )
            await (await HealthStore.open(bus)).change(None, lost)

    asyncio.run(attest())
    eventually(lambda: world.job(number).state == "failed")
    assert [one["trigger_id"] for one in eventually(lambda: take(heir, heirs))] == [trigger]


def test_what_a_site_without_a_key_sends_is_stored_sealed(deferred, world):
    post, number, ti, trigger, _ = deferred
    body = events(number, trigger, event=event_of({"a": "private words"}))
    assert post("triggers/events", body).status_code == 200
    stored = str(world.ti(ti).next_kwargs)
    assert SEALED in stored
    assert "private words" not in stored
    assert world.event(ti) == {"a": "private words"}


def test_the_policy_of_the_queue_of_the_task_that_waits_decides(running_plane, world, attached, eventually):
    """All is open in this deployment. One queue is not to have texts of exceptions on the plane."""
    quiet = f"quiet-{uuid.uuid4().hex[:6]}"
    set_policy_of_queue(running_plane.plane.nats.url, quiet, {"exception-text": "closed"})
    post, number = attached()
    tis = {}
    for queue in (quiet, "default"):
        dag_id = f"dag-{uuid.uuid4().hex[:8]}"
        world.sync_dag(partial(EmptyOperator, task_id="task", queue=queue), dag_id=dag_id)
        ti, trigger = world.defer(FileTrigger("/nonexistent"), ti_id=world.task_instance(dag_id))
        tis[trigger] = queue, ti
    start = eventually(lambda: len(found := take(post, number)) == 2 and found)
    for one in start:
        queue, _ = tis[one["trigger_id"]]
        assert ("exception-text" in one["opened"]) is (queue == "default")
    lines = ["Traceback (most recent call last):\n", "ValueError: private words\n"]
    body = events(number, *tis, event=None, traceback=lines)
    assert post("triggers/events", body).status_code == 200
    for queue, ti in tis.values():
        assert ("private words" in world.failure(ti)) is (queue == "default")


def set_policy_of_queue(nats_url, queue, rules):
    async def write():
        async with open_bus(BusSettings(url=nats_url), "tests") as bus:
            now = datetime.now(UTC)
            record = PolicyRecord(scope=queue_scope(queue), boundary=rules, changed_at=now)
            await (await PolicyStore.open(bus)).change(None, record)

    asyncio.run(write())


class TestTokenOfATrigger:
    """Requests to Airflow in the name of a trigger."""

    @pytest.fixture
    def ask(self, deferred):
        post, *_, start = deferred

        def ask(token=start["token"], path="variables/nothing-of-the-kind"):
            return post.client.get(
                f"/execution/{path}",
                headers={"Authorization": f"Bearer {token}", "Airflow-API-Version": "2025-11-07"},
            )

        return ask

    def test_it_reaches_airflow_while_the_trigger_is_held(self, ask):
        answer = ask()
        assert answer.status_code == 404
        assert answer.json()["detail"]["reason"] == "not_found"  # Airflow's own words

    def test_it_speaks_for_its_own_task_instance_only(self, ask, deferred, world):
        _, _, ti, *_ = deferred
        other = world.task_instance()
        assert ask(path=f"hitlDetails/{ti}").status_code == 404  # allowed, and there is none
        assert ask(path=f"hitlDetails/{other}").status_code == 403

    def test_it_dies_with_the_triggers_need(self, ask, deferred, world, eventually):
        _, _, ti, *_ = deferred
        world.set_state(ti, "failed")
        answer = eventually(lambda: (found := ask()).status_code == 410 and found)
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["detail"]["reason"] == "lease_lost"

    def test_it_dies_with_its_triggerer(self, ask, deferred, eventually):
        post, number, *_ = deferred
        assert post("triggerer/end", {"triggerer": number}).status_code == 200
        eventually(lambda: ask().status_code == 410)

    def test_it_is_no_credential_and_a_credential_is_not_it(self, ask, deferred):
        post, number, *_, start = deferred
        credential = post.headers["Authorization"].removeprefix("Bearer ")
        assert is_problem(ask(credential), "unauthenticated")
        as_agent = {"Authorization": f"Bearer {start['token']}"}
        answer = post("triggers/poll", {"triggerer": number}, headers=as_agent)
        assert is_problem(answer, "unauthenticated")

    def test_a_token_that_was_touched_is_none(self, ask, deferred):
        *_, start = deferred
        head, claims, signature = start["token"].split(".")
        assert is_problem(ask(f"{head}.{claims}.{signature[:-2]}AA"), "unauthenticated")


def test_arguments_arrive_in_the_clear_for_the_holder_alone(deferred, attached):
    *_, start = deferred
    assert "/nonexistent" in start["arguments"]
    post, number = attached()
    assert take(post, number) == []
