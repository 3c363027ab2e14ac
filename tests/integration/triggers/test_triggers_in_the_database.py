"""The bridge's handlers on Airflow's real database, called as they are called there."""

import secrets
import threading
from datetime import timedelta

import msgspec
import pytest
from airflow._shared.timezones import timezone
from airflow.jobs.job import Job
from airflow.models.callback import Callback
from airflow.models.trigger import Trigger
from airflow.sdk import AsyncCallback
from airflow.utils.session import create_session
from site_triggers import FileTrigger
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from jetbridge.contracts.rpc import RefusalCode
from jetbridge.contracts.triggering import Attach, Count, Detach, Lease, Submit, Sync, TriggerEvent
from jetbridge.scheduler.bridge.errors import RefusedError
from jetbridge.scheduler.bridge.triggers import events, jobs, upkeep, workloads
from jetbridge.scheduler.bridge.triggers.operations import STARTS_AT_ONCE, attach, count, detach, lease, sync

from .world import forget_triggers

SILENCE = timedelta(seconds=30)


@pytest.fixture(autouse=True)
def nothing_left_over(no_triggers):  # noqa: ARG001
    forget_triggers()
    with create_session() as session:
        session.execute(update(Job).values(end_date=timezone.utcnow()))


def in_session(function, *args):
    with create_session() as session:
        return function(session, *args)


class Agent:
    """An agent as the bridge sees it."""

    def __init__(self, name, instance=None, **about):
        self.name, self.about = name, {"capacity": 10, **about}
        self.instance = instance or secrets.token_hex(16)
        self.attach()

    def attach(self):
        self.number = in_session(attach, Attach(agent=self.name, instance=self.instance), SILENCE).triggerer

    def sync(self, *running, beat=True, silence=SILENCE, **changes):
        about = {**self.about, **changes}
        request = Sync(agent=self.name, triggerer=self.number, running=running, beat=beat, **about)
        return in_session(sync, request, silence)

    def started(self, *running, **changes):
        """Ids of what is to be started, sorted: the order PostgreSQL returns rows in means nothing."""
        return sorted(one.trigger_id for one in self.sync(*running, **changes).start)

    def submit(self, *trigger_ids, first=1, **what):
        bodies = tuple(
            TriggerEvent(sequence=number, trigger_id=trigger_id, **(what or {"event": fired("x")}))
            for number, trigger_id in enumerate(trigger_ids, start=first)
        )
        return in_session(events.submit, Submit(agent=self.name, triggerer=self.number, events=bodies))


def fired(payload):
    return msgspec.msgpack.encode({"payload": payload})


def waiting(world, **changes):
    return world.defer(FileTrigger("/nonexistent"), **changes)


def everything_held():
    """Every trigger and every open triggerer, for the message of a failure."""
    with create_session() as session:
        triggers = session.execute(select(Trigger.id, Trigger.queue, Trigger.triggerer_id)).all()
        open_ = session.execute(
            select(Job.id, Job.hostname, Job.unixname, Job.latest_heartbeat).where(Job.end_date.is_(None))
        ).all()
    return {"triggers": triggers, "open triggerers": open_, "now": timezone.utcnow()}


def refused(code):
    return pytest.raises(RefusedError, match=code.value)


def age(agent, seconds):
    """Have an agent been silent for so long."""
    with create_session() as session:
        session.get(Job, agent.number).latest_heartbeat = timezone.utcnow() - timedelta(seconds=seconds)


def test_an_agent_has_one_triggerer_and_others_keep_theirs(world):
    one, other = Agent("one"), Agent("other")
    first = one.number
    one.attach()
    assert one.number != first
    assert world.job(first).end_date is not None
    assert world.job(other.number).end_date is None
    with refused(RefusalCode.NOT_FOUND):
        in_session(sync, Sync(agent="one", triggerer=first, capacity=1), SILENCE)
    with refused(RefusalCode.NOT_FOUND):
        in_session(sync, Sync(agent="one", triggerer=other.number, capacity=1), SILENCE)


def test_airflow_sees_a_triggerer_that_is_alive(world):
    job = world.job(Agent("one").number)
    assert (job.job_type, job.state, job.hostname) == ("TriggererJob", "running", "one")
    assert job.is_alive()


def test_airflows_own_triggerer_is_none_of_ours():
    with create_session() as session:
        theirs = Job(job_type="TriggererJob", hostname="one", state="running")
        session.add(theirs)
        session.flush()
        number = theirs.id
    Agent("one")
    with refused(RefusalCode.NOT_FOUND):
        in_session(sync, Sync(agent="one", triggerer=number, capacity=1), SILENCE)
    in_session(upkeep.end_lost, timedelta(0))
    with create_session() as session:
        assert session.get(Job, number).end_date is None


def test_triggers_go_to_whoever_asks_up_to_its_capacity(world):
    ids = [waiting(world)[1] for _ in range(5)]
    one, other = Agent("one", capacity=2), Agent("other")
    first = one.started()
    assert (len(first), one.started(*first)) == (2, [])
    assert sorted(first + other.started()) == ids


def test_an_answer_starts_a_limited_number_and_the_next_one_more(world):
    ids = [waiting(world)[1] for _ in range(STARTS_AT_ONCE + 3)]
    agent = Agent("one", capacity=1000)
    first = agent.started()
    assert len(first) == STARTS_AT_ONCE
    assert sorted(first + agent.started(*first)) == ids


def test_what_is_asked_without_the_agent_is_no_sign_of_its_life(world):
    agent = Agent("one")
    age(agent, 20)
    before = world.job(agent.number).latest_heartbeat
    agent.sync(beat=False)
    assert world.job(agent.number).latest_heartbeat == before
    agent.sync()
    assert world.job(agent.number).latest_heartbeat > before


def test_triggers_of_the_silent_and_of_the_ended_are_free(world):
    silent, ended, heir = Agent("silent"), Agent("ended"), Agent("heir")
    _, first = waiting(world)
    assert silent.started() == [first]
    _, second = waiting(world)
    assert ended.started() == [second]
    assert heir.started() == []
    age(silent, 31)
    in_session(detach, Detach(agent="ended", triggerer=ended.number))
    assert sorted(heir.started()) == [first, second]
    assert silent.sync(first).release == (first,)


def test_while_nobody_could_be_heard_silence_frees_nothing(world):
    silent, other = Agent("silent"), Agent("other")
    waiting(world)
    assert silent.started()
    age(silent, 3600)
    assert other.started(silence=timedelta(days=365)) == []


def test_a_running_trigger_that_nobody_holds_is_left_where_it_runs(world):
    agent, full = Agent("one"), Agent("full", capacity=0)
    _, trigger = waiting(world)
    assert agent.started() == [trigger]
    agent.attach()  # it was taken for lost, and is back
    answer = agent.sync(trigger, capacity=0)
    assert (answer.cancel, answer.release) == ((), ())
    assert full.sync(trigger).release == ()
    assert agent.started(trigger) == []
    assert world.holder(trigger) == agent.number


def test_a_trigger_nobody_waits_for_is_cancelled(world):
    agent = Agent("one")
    ti, trigger = waiting(world)
    assert agent.started() == [trigger]
    world.set_state(ti, "failed")
    Trigger.clean_unused()
    answer = agent.sync(trigger, 999_999)
    assert (answer.cancel, answer.release) == ((trigger, 999_999), ())


def test_callbacks_of_the_living_stay_and_leave_room_for_others(world):
    one, other = Agent("one", capacity=100), Agent("other", capacity=3)
    with create_session() as session:
        for _ in range(5):
            callback = Callback.create_from_sdk_def(AsyncCallback("site_triggers.call_back"))
            session.add(callback)
            session.flush()
            callback.queue(session=session)
    held = one.started()
    assert len(held) == 5
    ids = [waiting(world)[1] for _ in range(3)]
    assert other.started() == ids
    assert {world.holder(trigger) for trigger in held} == {one.number}


def test_queues_are_kept_apart(world):
    _, plain = waiting(world)
    _, gpu = waiting(world, queue="gpu")
    # Failed once in a session with everything else, and never in 200 repetitions beside a busy bridge: if it
    # does again, who holds what tells why.
    assert Agent("gpu", queues=("gpu",)).started() == [gpu], everything_held()
    assert Agent("plain").started() == [plain], everything_held()


def test_triggers_are_counted_as_triggerers_of_their_queue_would_have_them(world):
    waiting(world)
    waiting(world, queue="gpu")
    ti, _ = waiting(world, queue="gpu")
    Agent("gpu", queues=("gpu",)).started()
    waiting(world, queue="gpu")
    waiting(world, queue="tpu")
    world.set_state(ti, "failed")  # nobody waits for its trigger any more

    def counted(*queues):
        answer = in_session(count, Count(queues=queues))
        return answer.assigned, answer.waiting

    assert counted() == (0, 1)
    assert counted("gpu") == (1, 1)
    assert counted("gpu", "tpu", "none") == (1, 2)


def test_a_trigger_that_cannot_be_built_fails_and_the_others_are_built(world, monkeypatch):
    (bad_ti, bad), (_, good) = waiting(world), waiting(world)
    original = workloads.WorkloadBuilder._create_workload

    def create(self, trigger, **about):
        if trigger.id == bad:
            raise KeyError("a Dag of another time")
        return original(self, trigger=trigger, **about)

    monkeypatch.setattr(workloads.WorkloadBuilder, "_create_workload", create)
    assert Agent("one").started() == [good]
    assert "a Dag of another time" in world.failure(bad_ti)


def test_a_trigger_that_is_too_large_fails_and_much_at_once_is_spread(world, monkeypatch):
    (huge_ti, _), *rest = [world.defer(FileTrigger("/x" * length)) for length in (5000, 500, 500, 500)]
    monkeypatch.setattr(workloads, "MAX_START_BYTES", 8000)
    monkeypatch.setattr(workloads, "ANSWER_BYTES", 4000)
    agent = Agent("one")
    started = []
    for _ in range(5):
        started += agent.started(*started)
    assert sorted(started) == [trigger for _, trigger in rest]
    assert "more than the" in world.failure(huge_ti)


def test_an_outage_fails_no_trigger(world, monkeypatch):
    ti, _ = waiting(world)
    error = OperationalError("select", {}, Exception("gone"))

    def away(*_):
        raise error

    monkeypatch.setattr(workloads.WorkloadBuilder, "build_trigger_workloads", away)
    with pytest.raises(OperationalError):
        Agent("one").sync()
    assert world.state(ti) == "deferred"


class TestEvents:
    """What became of triggers."""

    @pytest.fixture
    def agent(self):
        return Agent("one")

    def test_an_event_that_airflow_cannot_submit_fails_its_task_alone(self, world, agent, monkeypatch):
        (bad_ti, bad), (good_ti, good) = waiting(world), waiting(world)
        agent.sync()
        original = Trigger.submit_event

        def submit(trigger_id, event, *, session):
            original(trigger_id, event, session=session)
            if trigger_id == bad:
                raise LookupError("poison")

        monkeypatch.setattr(Trigger, "submit_event", submit)
        answer = agent.submit(bad, good)
        assert answer.taken == 2
        assert [(one.sequence, "LookupError" in one.reason) for one in answer.set_aside] == [(1, True)]
        assert "poison" in world.failure(bad_ti)
        assert world.event(good_ti) == "x"

    def test_an_outage_undoes_the_whole_request_and_it_can_be_repeated(self, world, agent, monkeypatch):
        (first_ti, first), (second_ti, second) = waiting(world), waiting(world)
        agent.sync()
        original = Trigger.submit_event

        def submit(trigger_id, event, *, session):
            if trigger_id == second:
                raise OperationalError("update", {}, Exception("gone"))
            original(trigger_id, event, session=session)

        monkeypatch.setattr(Trigger, "submit_event", submit)
        with pytest.raises(OperationalError):
            agent.submit(first, second)
        monkeypatch.undo()
        assert [world.state(ti) for ti in (first_ti, second_ti)] == ["deferred", "deferred"]
        assert agent.submit(first, second).taken == 2
        assert [world.state(ti) for ti in (first_ti, second_ti)] == ["scheduled", "scheduled"]

    def test_an_ended_triggerer_says_nothing_any_more(self, world, agent):
        ti, trigger = waiting(world)
        agent.sync()
        in_session(detach, Detach(agent=agent.name, triggerer=agent.number))
        with refused(RefusalCode.NOT_FOUND):
            agent.submit(trigger)
        assert world.state(ti) == "deferred"

    def test_a_loss_and_an_event_at_the_same_moment_are_one_after_the_other(self, world, agent):
        """The end waits for the event's transaction, and an event after the end is refused."""
        ti, trigger = waiting(world)
        agent.sync()
        age(agent, 60)
        ended = threading.Event()

        def end():
            in_session(upkeep.end_instance, agent.name, agent.instance)
            ended.set()

        with create_session() as session:
            jobs.held_by(session, agent.name, agent.number, lock=True)
            other = threading.Thread(target=end)
            other.start()
            assert not ended.wait(0.3)
        other.join(20)
        assert ended.is_set()
        with refused(RefusalCode.NOT_FOUND):
            agent.submit(trigger)
        assert world.state(ti) == "deferred"

    def test_numbers_below_the_last_taken_are_repetitions(self, world, agent):
        (first_ti, first), (second_ti, second) = waiting(world), waiting(world)
        agent.sync()
        assert agent.submit(first, first=7).taken == 7
        assert agent.submit(second, first=6).taken == 7
        assert (world.state(first_ti), world.state(second_ti)) == ("scheduled", "deferred")
        assert jobs.taken(world.job(agent.number)) == 7

    def test_another_process_of_the_same_name_begins_at_one(self, world, agent):
        ti, trigger = waiting(world)
        agent.sync()
        agent.submit(999_999, first=50)
        successor = Agent("one", instance="1" * 32)
        successor.sync()
        assert successor.submit(trigger).taken == 1
        assert world.state(ti) == "scheduled"

    def test_an_event_for_a_task_that_was_cleared_changes_nothing(self, world, agent):
        ti, trigger = waiting(world)
        agent.sync()
        again = world.clear(ti)
        answer = agent.submit(trigger)
        assert answer.taken == 1
        assert world.ti(again).next_kwargs is None
        Trigger.clean_unused()
        answer = agent.submit(trigger, first=2)
        assert answer.set_aside[0].reason == events.GONE

    @pytest.mark.parametrize(
        "what", [{"event": fired("a\x00b")}, {"traceback": ("ValueError: a\x00b",)}], ids=["event", "failure"]
    )
    def test_a_character_postgresql_cannot_store_ends_nothing(self, world, agent, what):
        (ti, trigger), (other_ti, other) = waiting(world), waiting(world)
        agent.sync()
        assert agent.submit(trigger, **what).taken == 1
        assert agent.submit(other, first=2).taken == 2
        assert [world.state(one) for one in (ti, other_ti)] == ["scheduled", "scheduled"]

    def test_a_failure_keeps_its_traceback(self, world, agent):
        ti, trigger = waiting(world)
        agent.sync()
        agent.submit(trigger, traceback=("Traceback\n", "ValueError: no\n"))
        assert world.failure(ti) == "Traceback\nValueError: no\n"


class TestUpkeep:
    """What nobody asks for."""

    def test_only_the_silent_are_ended(self, world):
        silent, alive = Agent("silent"), Agent("alive")
        age(silent, 31)
        assert in_session(upkeep.end_lost, SILENCE) == ["silent"]
        assert world.job(silent.number).state == "failed"
        assert world.job(alive.number).end_date is None
        assert in_session(upkeep.end_lost, SILENCE) == []

    def test_a_process_known_to_be_dead_is_ended_and_its_successor_is_not(self, world):
        agent = Agent("one")
        assert not in_session(upkeep.end_instance, "one", "1" * 32)
        assert in_session(upkeep.end_instance, "one", agent.instance)
        assert world.job(agent.number).end_date is not None
        successor = Agent("one", instance="1" * 32)
        assert not in_session(upkeep.end_instance, "one", agent.instance)
        assert world.job(successor.number).end_date is None


class TestLease:
    """Whether a trigger may ask Airflow, and in whose name."""

    def ask(self, agent, trigger, number=None):
        request = Lease(agent=agent.name, triggerer=number or agent.number, trigger_id=trigger)
        answer = in_session(lease, request)
        assert (answer.coordinates is None) == (answer.task_instance is None)
        return answer.held, answer.task_instance

    def test_it_is_held_by_the_holder_while_the_task_waits(self, world):
        agent, other = Agent("one"), Agent("other")
        ti, trigger = waiting(world)
        assert self.ask(agent, trigger) == (False, None)
        agent.sync()
        assert self.ask(agent, trigger) == (True, ti)
        assert self.ask(other, trigger) == (False, None)
        assert self.ask(other, trigger, agent.number) == (False, None)
        agent.submit(trigger)
        assert self.ask(agent, trigger) == (False, None)

    def test_a_trigger_of_an_asset_or_a_callback_has_no_task(self, world):  # noqa: ARG002 - makes a database
        agent = Agent("one")
        with create_session() as session:
            callback = Callback.create_from_sdk_def(AsyncCallback("site_triggers.call_back"))
            session.add(callback)
            session.flush()
            callback.queue(session=session)
        (trigger,) = agent.started()
        assert self.ask(agent, trigger) == (True, None)

    def test_it_outlives_a_loss_that_was_none_and_not_a_real_one(self, world):
        agent = Agent("one")
        ti, trigger = waiting(world)
        agent.sync()
        number = agent.number
        in_session(upkeep.end_instance, agent.name, agent.instance)
        assert self.ask(agent, trigger, number) == (False, None)
        agent.attach()
        assert self.ask(agent, trigger, number) == (True, ti)
        Agent("one", instance="1" * 32)
        assert self.ask(agent, trigger, number) == (False, None)


def test_ids_of_triggers_fit_the_contract(world):
    with create_session() as session:
        assert session.scalar(select(Trigger.id).limit(1)) is None
    assert waiting(world)[1] < 2**31
