"""What the supervisor relies on in Airflow 3.3. A failure says that Airflow changed, and where to look."""

import inspect
import re
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
import structlog
from airflow.jobs import triggerer_job_runner as airflow
from airflow.jobs.triggerer_job_runner import TriggerEventEntry, TriggerRunnerSupervisor, messages
from airflow.models.crypto import get_fernet
from airflow.models.trigger import Trigger
from airflow.sdk.execution_time.comms import GetVariable, _RequestFrame
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent
from cryptography.fernet import Fernet

from jetbridge.contracts.triggering import TriggerPollResponse, TriggerStart
from jetbridge.triggerer.exchange import Exchange
from jetbridge.triggerer.execution_client import lease_token
from jetbridge.triggerer.supervisor import Supervisor
from jetbridge.triggerer.wire import AWAIT_NEWS, TRIGGER_FIELD

OWN = {"listen_to_exchange", "pass_on_what_is_left", "close_logs"}


def overridden():
    names = {
        name
        for name, member in vars(Supervisor).items()
        if inspect.isroutine(member) or isinstance(member, classmethod)
    }
    return {name for name in names if not name.startswith("__") and hasattr(TriggerRunnerSupervisor, name)}


def test_every_public_method_is_airflows_hook_or_ours_on_purpose():
    ours = {name for name in vars(Supervisor) if inspect.isfunction(vars(Supervisor)[name])}
    assert {name for name in ours if not name.startswith("_")} - OWN <= overridden()


@pytest.mark.parametrize("name", sorted(overridden() - {"send_msg", "run_in_process"}))
def test_a_hook_has_the_parameters_we_know(name):
    theirs = inspect.signature(getattr(TriggerRunnerSupervisor, name)).parameters
    assert list(inspect.signature(getattr(Supervisor, name)).parameters) == list(theirs)


def test_nothing_that_is_not_overridden_touches_the_database():
    pattern = re.compile(r"\bself\.job\b|\bTrigger\.|create_session|DBDagBag|perform_heartbeat")
    touching = {
        name
        for name, member in inspect.getmembers(TriggerRunnerSupervisor, inspect.isfunction)
        if not name.startswith("__") and pattern.search(inspect.getsource(member))
    }
    never_called = {
        "on_trigger_event",  # by handle_events, which is overridden
        "_create_workload",  # this and the others: of the way from rows to workloads, begun by load_triggers
        "build_trigger_workloads",
        "fetch_trigger_details",
        "fetch_non_task_trigger_ids",
    }
    assert touching - never_called <= overridden()
    assert "update_triggers" not in touching  # would call build_trigger_workloads
    assert "update_triggers" not in inspect.getsource(Supervisor)


def test_airflow_still_confirms_events_before_a_remote_plane_could_have_them():
    # If this fails, handle_events may not need to be overridden whole any more.
    source = inspect.getsource(TriggerRunnerSupervisor.handle_events)
    assert source.index("self.on_trigger_event(") < source.index("persisted_event_seqs.append")


def test_airflow_still_has_no_trigger_in_its_messages():
    fields = {name for model in (GetVariable, messages.TriggerStateChanges) for name in model.model_fields}
    assert not any("trigger_id" in name for name in fields)


class Recording:
    """Stands for the runner's end of the socket."""

    def __init__(self):
        self.sent = []

    def sendall(self, data):
        self.sent.append(data)

    def frames(self):
        return [msgspec.msgpack.decode(data[4:]) for data in self.sent]


class Inline(ThreadPoolExecutor):
    """Runs at once what it is given."""

    def submit(self, fn, /, *args, **kwargs):
        fn(*args, **kwargs)


@pytest.fixture
def exchange():
    exchange = Exchange()
    yield exchange
    exchange.close()


@pytest.fixture
def runner():
    return Recording()


@pytest.fixture
def supervisor(exchange, runner):
    supervisor = Supervisor(
        id=None,
        pid=0,
        stdin=runner,
        process=None,
        process_log=structlog.get_logger(),
        capacity=10,
        agent="agent",
        server="https://gateway.invalid/execution/",
        exchange=exchange,
        requests=Inline(1),
        uploads=Inline(1),
    )
    yield supervisor
    supervisor.selector.close()


def start(trigger_id, **changes):
    spec = {"id": trigger_id, "classpath": "a.B", "type": "RunTrigger"}
    fields = {"spec": msgspec.Raw(msgspec.json.encode(spec)), "arguments": '{"secret": "s"}', **changes}
    return TriggerStart(trigger_id=trigger_id, token=f"token-{trigger_id}", **fields)


def tell(supervisor, **news):
    supervisor.exchange.tell(TriggerPollResponse(**news))
    supervisor.load_triggers()


def say(supervisor, message, request_id=1, trigger_id=None):
    requests = supervisor.handle_requests(structlog.get_logger())
    next(requests)
    requests.send(_RequestFrame(id=request_id, body={**message, TRIGGER_FIELD: trigger_id}))


def changes(**what):
    return messages.TriggerStateChanges(**what).model_dump()


def fires(trigger_id, event, seq=None):
    return TriggerEventEntry(trigger_id=trigger_id, event=event, persist_seq=seq)


@pytest.fixture
def fernet_key(monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", Fernet.generate_key().decode())
    get_fernet.cache_clear()
    yield
    get_fernet.cache_clear()


@pytest.mark.usefixtures("fernet_key")
def test_arguments_reach_the_runner_encrypted_and_readable_by_airflow(supervisor):
    tell(supervisor, start=(start(1),))
    (workload,) = supervisor.creating_triggers
    assert "secret" not in workload.encrypted_kwargs
    assert Trigger._decrypt_kwargs(workload.encrypted_kwargs) == {"secret": "s"}


def test_a_trigger_that_this_airflow_cannot_read_fails_alone(supervisor, exchange):
    tell(supervisor, start=(start(1, spec=msgspec.Raw(b'{"from": "the future"}')), start(2)))
    assert [workload.id for workload in supervisor.creating_triggers] == [2]
    assert exchange.outbox.batch()[0].body.trigger_id == 1


def test_the_runner_hears_of_news_when_there_is_some_and_not_before(supervisor, runner):
    say(supervisor, {"type": AWAIT_NEWS}, request_id=5)
    supervisor.load_triggers()
    assert runner.sent == []
    tell(supervisor, start=(start(1),))
    assert [frame[0] for frame in runner.frames()] == [5]
    say(supervisor, {"type": AWAIT_NEWS}, request_id=6)
    supervisor.load_triggers()
    assert len(runner.sent) == 1  # told once


def test_what_nobody_needs_is_cancelled_and_what_runs_elsewhere_released(supervisor, runner):
    tell(supervisor, start=tuple(map(start, (1, 2, 3))))
    say(supervisor, changes())
    say(supervisor, {"type": AWAIT_NEWS}, request_id=7)
    supervisor.events.append(fires(3, TriggerEvent("done")))
    supervisor.handle_events()
    tell(supervisor, cancel=(1, 3), release=(2,))
    assert supervisor.cancelling_triggers == {1}
    answer = runner.frames()[-1][1]
    assert sorted(answer["to_cancel"]) == [2, 3]  # 3 has fired: it is over, not killed


def test_what_never_began_is_withdrawn(supervisor):
    tell(supervisor, start=(start(1), start(2)))
    tell(supervisor, cancel=(1,))
    assert [workload.id for workload in supervisor.creating_triggers] == [2]
    assert supervisor._finished == [1]


def test_an_event_is_confirmed_to_the_runner_only_when_the_plane_has_it(supervisor, runner, exchange):
    tell(supervisor, start=(start(1),))
    say(supervisor, changes())
    supervisor.events.append(fires(1, TriggerEvent("e"), seq=9))
    supervisor.handle_events()
    say(supervisor, changes())
    assert runner.frames()[-1][1]["events_persisted"] is None
    exchange.persisted(exchange.outbox.acknowledged(1))
    supervisor.load_triggers()
    say(supervisor, changes())
    assert runner.frames()[-1][1]["events_persisted"] == [9]


def test_an_event_goes_out_as_airflow_will_read_it(supervisor, exchange):
    tell(supervisor, start=(start(1),))
    supervisor.events.extend([fires(1, TriggerEvent({"b": b"\x00"})), fires(1, TaskSuccessEvent())])
    supervisor.handle_events()
    bodies = [msgspec.msgpack.decode(one.body.event) for one in exchange.outbox.batch()]
    assert bodies == [{"payload": {"b": b"\x00"}}, {"task_instance_state": "success", "xcoms": None}]


def test_a_request_is_made_with_the_lease_of_its_own_trigger(supervisor, monkeypatch):
    seen = []
    monkeypatch.setattr(
        TriggerRunnerSupervisor,
        "_handle_request",
        lambda self, msg, log, req_id: seen.append((msg.key, lease_token.get())),  # noqa: ARG005
    )
    tell(supervisor, start=(start(1), start(2)))
    for trigger_id in (2, 1, 99, None):
        say(supervisor, GetVariable(key="k").model_dump(), trigger_id=trigger_id)
    assert seen == [("k", "token-2"), ("k", "token-1"), ("k", ""), ("k", "")]


@pytest.mark.parametrize(
    ("path", "opened"),
    [
        ("dag_id=d/attempt=1.log.trigger.7.log", True),
        ("/etc/passwd", False),
        ("a/../../b", False),
        ("", False),
    ],
)
def test_a_log_stays_in_the_folder_for_logs(supervisor, path, opened):
    ti = {
        "id": "01a2091d-ad78-7508-b06e-ce06a84b884f",
        "task_id": "t",
        "dag_id": "d",
        "run_id": "r",
        "try_number": 1,
        "map_index": -1,
        "dag_version_id": "01a2091d-ad78-7508-b06e-ce06a84b884f",
        "pool_slots": 1,
        "queue": "default",
        "priority_weight": 1,
    }
    spec = {"id": 1, "classpath": "a.B", "ti": ti}
    tell(supervisor, start=(start(1, spec=msgspec.Raw(msgspec.json.encode(spec)), log_path=path),))
    assert (1 in supervisor.logger_cache) is opened


def test_finished_triggers_are_forgotten_after_all_they_fired_is_in_the_outbox(
    supervisor, exchange, monkeypatch
):
    monkeypatch.setattr(Supervisor, "_service_subprocess", lambda *_: None)
    tell(supervisor, start=(start(1),))
    say(supervisor, changes())
    say(supervisor, changes(events=[fires(1, TriggerEvent("e"))], finished=[1]))
    assert exchange.running() == (1,)
    supervisor._last_runner_comms = float("inf")
    supervisor.run_once()
    assert exchange.running() == (1,)  # the event waits
    exchange.outbox.acknowledged(1)
    assert exchange.running() == ()


def test_a_runner_that_does_not_read_is_noticed(supervisor, runner):
    def full(_):
        raise TimeoutError

    runner.sendall = full
    say(supervisor, changes())
    assert supervisor.should_stop()


def test_a_silent_runner_is_noticed(supervisor, monkeypatch):
    assert not supervisor.should_stop()
    monkeypatch.setattr(airflow.time, "monotonic", lambda: 1000.0)
    supervisor._last_runner_comms = 1000.0 - supervisor.runner_health_check_threshold - 1
    supervisor.heartbeat()
    assert supervisor.should_stop()
