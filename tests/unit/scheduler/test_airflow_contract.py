"""What we rely on in Airflow 3.3 beyond its documented interfaces. A failure here means: read the change."""

import inspect
import uuid

import pytest
from airflow.executors.base_executor import BaseExecutor
from airflow.executors.workloads import ExecuteCallback, ExecuteTask
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.callback import CallbackKey
from airflow.models.deadline import Deadline
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.log.file_task_handler import FileTaskHandler
from airflow.utils.state import CallbackState, State, TaskInstanceState

from jetbridge.scheduler.executor import RemoteExecutor
from jetbridge.scheduler.task_logs import AgentLogs, AgentTaskHandler


def parameters(function):
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        ("start", ["self"]),
        ("end", ["self"]),
        ("terminate", ["self"]),
        ("heartbeat", ["self"]),
        ("sync", ["self"]),
        ("trigger_tasks", ["self", "open_slots"]),
        ("queue_workload", ["self", "workload", "session"]),
        ("_get_workloads_to_schedule", ["self", "open_slots"]),
        ("_process_workloads", ["self", "workload_items"]),
        ("change_state", ["self", "key", "state", "info", "remove_running"]),
        ("running_state", ["self", "key", "info"]),
        ("success", ["self", "key", "info"]),
        ("fail", ["self", "key", "info"]),
        ("log_task_event", ["self", "event", "extra", "ti_key"]),
        ("revoke_task", ["self", "ti"]),
        ("try_adopt_task_instances", ["self", "tis"]),
        ("get_task_log", ["self", "ti", "try_number"]),
        ("debug_dump", ["self"]),
    ],
)
def test_hooks_of_the_executor(hook, expected):
    assert parameters(getattr(BaseExecutor, hook)) == expected
    assert parameters(getattr(RemoteExecutor, hook)) == expected


def test_what_an_executor_says_of_itself():
    said = {name for name in vars(BaseExecutor) if name.startswith(("supports_", "is_", "serve_", "pre_"))}
    assert said == {
        "supports_ad_hoc_ti_run",
        "supports_callbacks",
        "supports_multi_team",
        "supports_connection_test",
        "is_local",
        "is_production",
        "serve_logs",
        "pre_assigns_external_executor_id",
    }


def test_the_state_the_base_class_keeps(executor):
    assert (executor.queued_tasks, executor.queued_callbacks) == ({}, {})
    assert (executor.running, executor.event_buffer) == (set(), {})
    assert list(executor._task_event_logs) == []


def test_a_heartbeat_hands_over_first_and_then_looks():
    source = inspect.getsource(BaseExecutor.heartbeat)
    assert source.index("self.trigger_tasks(open_slots)") < source.index("self.sync()")
    assert "_get_workloads_to_schedule(open_slots)" in inspect.getsource(BaseExecutor.trigger_tasks)


def test_the_scheduler_sleeps_only_when_it_found_nothing_to_do():
    """The executor waits in place of this sleep, and nowhere else in the loop."""
    source = inspect.getsource(SchedulerJobRunner._run_scheduler_loop)
    assert source.count("time.sleep(") == 1
    assert "time.sleep(min(self._scheduler_idle_sleep_time, next_event or 0))" in source
    assert "idle_in_this_run = not num_queued_tis and not num_finished_events" in source


def test_the_scheduler_commits_events_and_log_entries_between_two_heartbeats():
    """Records are removed, and history is confirmed, at the heartbeat after the one that told of them."""
    source = inspect.getsource(SchedulerJobRunner._run_scheduler_loop)
    order = ["executor.heartbeat()", "self._process_executor_events(", "self._process_task_event_logs("]
    places = [source.index(call) for call in order]
    assert places == sorted(places)
    assert all(source.count(call) == 1 for call in order)


def test_the_scheduler_drops_log_entries_before_it_saves_them():
    """Once this fails, ``RemoteExecutor._kept_alive`` can go."""
    source = inspect.getsource(SchedulerJobRunner._process_task_event_logs)
    assert "objects = (log_records.popleft() for _ in range(len(log_records)))" in source
    assert "session.bulk_save_objects(objects=objects, preserve_order=False)" in source


def test_the_scheduler_ends_a_task_without_heartbeat_through_change_state():
    source = inspect.getsource(SchedulerJobRunner._purge_task_instances_without_heartbeats)
    assert "executor.change_state(ti.key, TaskInstanceState.FAILED, remove_running=True)" in source


def test_info_of_a_running_event_becomes_the_external_executor_id():
    source = inspect.getsource(SchedulerJobRunner.process_executor_events)
    assert "if state in (TaskInstanceState.QUEUED, TaskInstanceState.RUNNING):" in source
    assert "ti.external_executor_id = info" in source


def test_what_is_not_adopted_is_reset_and_costs_an_attempt():
    source = inspect.getsource(SchedulerJobRunner.adopt_or_reset_orphaned_tasks)
    assert "executor.try_adopt_task_instances(tis)" in source
    assert "ti.prepare_db_for_next_try(session=session)" in source
    assert "self.id = uuid7()" in inspect.getsource(TaskInstance.prepare_db_for_next_try)


def test_only_these_states_are_adopted():
    assert State.adoptable_states == {
        TaskInstanceState.QUEUED,
        TaskInstanceState.RUNNING,
        TaskInstanceState.RESTARTING,
    }


def test_workloads(task, callback):
    assert isinstance(task().key, TaskInstanceKey)
    assert isinstance(callback().key, CallbackKey)
    fields = {"token", "ti", "dag_rel_path", "bundle_info", "log_path", "sentry_integration", "type"}
    assert set(ExecuteTask.model_fields) == fields
    fields = {"token", "callback", "dag_rel_path", "bundle_info", "log_path", "type"}
    assert set(ExecuteCallback.model_fields) == fields
    ti_fields = set(type(task().ti).model_fields)
    assert {"id", "queue", "priority_weight", "executor_config", "context_carrier"} <= ti_fields
    assert "executor_config" not in task(executor_config={"a": 1}).model_dump()["ti"]
    assert uuid.UUID(callback().callback.id)


def test_callback_states_that_the_scheduler_takes():
    source = inspect.getsource(SchedulerJobRunner.process_executor_events)
    assert "if state in (CallbackState.RUNNING, CallbackState.FAILED, CallbackState.SUCCESS):" in source
    assert CallbackState.RUNNING == "running"


def test_the_deadline_callback_carries_its_dag_run():
    source = inspect.getsource(Deadline.handle_miss)
    assert 'data["dag_id"] = self.dagrun.dag_id' in source
    assert '"dag_run": DAGRunResponse.model_validate(dagrun).model_dump(mode="json")' in source


def test_hooks_of_the_log_reader():
    assert parameters(FileTaskHandler._read_from_logs_server) == ["self", "ti", "worker_log_rel_path"]
    assert parameters(AgentTaskHandler._read_from_logs_server) == ["self", "ti", "worker_log_rel_path"]
    source = inspect.getsource(FileTaskHandler._read_remote_logs)
    assert "sources, logs = remote_io.read(path, ti)" in source
    assert {"processors", "upload", "read"} <= set(dir(AgentLogs))
