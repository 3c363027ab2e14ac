"""
Airflow's logging on the plane.

For the api-server, set ``[logging] logging_config_class`` to
``jetbridge.scheduler.logging_config.LOGGING_CONFIG``. Airflow finds ``REMOTE_TASK_LOG`` beside it.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from airflow.config_templates.airflow_local_settings import DEFAULT_LOGGING_CONFIG

from jetbridge.scheduler.directory import AgentDirectory
from jetbridge.scheduler.task_logs import AgentLogs

LOGGING_CONFIG: dict[str, Any] = deepcopy(DEFAULT_LOGGING_CONFIG)
LOGGING_CONFIG["handlers"]["task"]["class"] = "jetbridge.scheduler.task_logs.AgentTaskHandler"

REMOTE_TASK_LOG = AgentLogs(AgentDirectory())
