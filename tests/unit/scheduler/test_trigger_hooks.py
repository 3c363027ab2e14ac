"""What the bridge relies on in Airflow 3.3 about triggers. A failure here says that Airflow changed."""

import inspect
import re
from pathlib import Path
from uuid import UUID

import airflow
from airflow.jobs.job import Job
from airflow.jobs.triggerer_job_runner import TriggererJobRunner, TriggerRunnerSupervisor
from airflow.models.trigger import Trigger
from cryptography.fernet import Fernet

from jetbridge.gateway.proxy import NO_TASK
from jetbridge.scheduler.bridge.triggers import workloads
from jetbridge.scheduler.bridge.triggers.upkeep import Hearing
from jetbridge.scheduler.bridge.triggers.workloads import WorkloadBuilder, opened

BORROWED = (
    "fetch_trigger_details",
    "fetch_non_task_trigger_ids",
    "build_trigger_workloads",
    "_create_workload",
)


def test_the_borrowed_methods_touch_no_more_of_their_supervisor_than_the_builder_has():
    used = set()
    for name in BORROWED:
        used |= set(re.findall(r"\bself\.(\w+)", inspect.getsource(getattr(TriggerRunnerSupervisor, name))))
    assert used == {"job", "id", "logger_cache", *BORROWED} - {"build_trigger_workloads"}
    builder = vars(WorkloadBuilder)
    assert all(builder[name] is vars(TriggerRunnerSupervisor)[name] for name in BORROWED)


def test_airflow_still_takes_callbacks_from_triggerers_that_are_alive():
    # If this fails, apache/airflow#72848 is in, and Trigger.assign_unassigned can be called instead.
    source = inspect.getsource(Trigger.get_sorted_triggers)
    callbacks = source[source.index("# Callback triggers") : source.index("# Task Instance triggers")]
    assert "alive_triggerer_ids" not in callbacks
    assert source.count("alive_triggerer_ids") == 2 + 2  # parameter, docstring, tasks, assets


def test_who_is_alive_is_asked_as_airflow_asks():
    source = inspect.getsource(Trigger.assign_unassigned)
    for condition in ("Job.end_date.is_(None)", "Job.latest_heartbeat >", 'Job.job_type == "TriggererJob"'):
        assert condition in source
    assert TriggererJobRunner.job_type == "TriggererJob"


def test_the_columns_that_are_borrowed_are_there_and_large_enough():
    columns = Job.__table__.columns
    assert columns["unixname"].type.length >= len("jetbridge/") + 32
    assert columns["executor_class"].type.length >= len("events=") + len(str(2**62))
    assert "executor_class" not in inspect.getsource(TriggererJobRunner)


def test_a_trigger_without_a_task_asks_as_airflows_own_triggerer_does():
    # Read and not imported: the module imports a web server's test client, which warns.
    routes = Path(airflow.__file__).parent / "api_fastapi" / "execution_api" / "routes"
    assert "NULL_UUID = UUID(int=0)" in (routes / "asset_state_store.py").read_text()
    assert str(UUID(int=0)) == NO_TASK


def test_arguments_are_opened_and_not_deserialized(monkeypatch):
    fernet = Fernet(Fernet.generate_key())
    monkeypatch.setattr(workloads, "get_fernet", lambda: fernet)
    text = '{"a": {"__classname__": "site.only.Known", "__data__": 1}}'
    assert opened(fernet.encrypt(text.encode()).decode()) == text
    assert opened(text) == text
    foreign = Fernet(Fernet.generate_key()).encrypt(b"{}").decode()
    assert opened(foreign) == foreign


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_silence_proves_nothing_until_agents_were_heard_for_as_long():
    clock = Clock()
    hearing = Hearing(30, clock)
    for_ever = hearing.silence
    assert for_ever > hearing.lost_after
    for second in range(61):
        clock.now = 1000.0 + second
        if second % 5 == 0:
            hearing.heard()
        assert (hearing.silence == hearing.lost_after) is (second >= 30), second


def test_a_pause_starts_the_clock_anew():
    clock = Clock()
    hearing = Hearing(30, clock)
    for second in range(40):
        clock.now = 1000.0 + second
        hearing.heard()
    assert hearing.silence == hearing.lost_after
    clock.now += 16  # nobody was heard for more than half of it: NATS, the gateways, or all agents were away
    assert hearing.silence > hearing.lost_after
    hearing.heard()
    clock.now += 10
    hearing.heard()
    assert hearing.silence > hearing.lost_after
