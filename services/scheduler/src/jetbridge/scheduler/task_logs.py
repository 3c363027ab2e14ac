"""
What the UI's Log tab says about tasks that ran on agents.

The plane does not have their logs, so it says which agent ran the attempt and where its log is kept.

Written for Airflow 3.3, ``FileTaskHandler`` and ``RemoteLogIO``; checked by
``tests/unit/scheduler/test_airflow_contract.py`` and, through Airflow's REST API, by
``tests/integration/scheduler/test_log_tab.py``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from airflow.configuration import conf
from airflow.executors.executor_loader import ExecutorLoader
from airflow.utils.log.file_task_handler import FileTaskHandler
from airflow.utils.state import TaskInstanceState

from jetbridge.contracts.records import AgentRecord
from jetbridge.scheduler.directory import AgentDirectory

_RUNNING = (TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING)


def ran_on_agent(ti: Any) -> bool:
    """Say whether the attempt was our executor's; others may be configured beside it."""
    # Airflow imports this module while it sets up logging, before its models can be imported.
    from jetbridge.scheduler.executor import RemoteExecutor  # noqa: PLC0415

    names = ExecutorLoader.get_executor_names(validate_teams=False)
    name = ExecutorLoader.lookup_executor_name_by_str(ti.executor) if ti.executor else names[0]
    executor, _ = ExecutorLoader.import_executor_cls(name)
    return issubclass(executor, RemoteExecutor)


class AgentLogs:
    """
    A ``RemoteLogIO`` that reads no log, but says where it is.

    :param agents: where an agent's site and log store are looked up
    """

    processors: tuple[Any, ...] = ()

    def __init__(self, agents: AgentDirectory) -> None:
        self._agents = agents
        self._local = Path(conf.get_mandatory_value("logging", "base_log_folder"))

    def upload(self, path: os.PathLike[str] | str, ti: Any = None) -> None:
        """Upload nothing: what the plane logs itself stays where it is."""

    def read(self, relative_path: str, ti: Any) -> tuple[list[str], list[str]]:
        """
        Return no sources, and one line for a person. ``ti`` is the attempt, the current or a past one.

        Nothing at all when the plane has the log itself, for with nothing Airflow goes on to read that.
        """
        if not ran_on_agent(ti) or (self._local / relative_path).exists():
            return [], []
        return [], [json.dumps({"level": "info", "event": self._describe(relative_path, ti)})]

    def _describe(self, relative_path: str, ti: Any) -> str:
        if not ti.hostname:
            return "No agent has started this attempt, so there is no log of it."
        agent = self._agents.find(ti.hostname)
        site = f" (site {agent.site})" if agent and agent.site else ""
        if ti.state in _RUNNING:
            place = f", afterwards it is kept {_place(agent, relative_path)}"
            return f"This attempt runs on agent {ti.hostname}{site}. Its log is on that agent{place}."
        place = _place(agent, relative_path)
        return f"This attempt ran on agent {ti.hostname}{site}. Its log is kept {place}."


def _place(agent: AgentRecord | None, relative_path: str) -> str:
    if agent is None:
        return "there (the agent's log store cannot be looked up now)"
    return f"under {agent.log_store.rstrip('/')}/{relative_path}" if agent.log_store else "there"


class AgentTaskHandler(FileTaskHandler):
    """
    Airflow's task handler, but for asking agents over HTTP: they never listen.

    Airflow would try, and show a failed name look-up instead of a log.
    """

    def _read_from_logs_server(self, ti: Any, worker_log_rel_path: str) -> Any:
        # A triggerer that runs on the plane does listen, and holds the log of a deferred task.
        if getattr(ti, "triggerer_job", None) or not ran_on_agent(ti):
            return super()._read_from_logs_server(ti, worker_log_rel_path)
        return [], []
