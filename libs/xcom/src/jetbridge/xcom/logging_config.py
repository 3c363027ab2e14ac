"""
What ``[logging] logging_config_class`` names on a worker (Airflow 3.3's contract for custom modules).

Airflow imports the dict that the option names, here stock Airflow's own, and takes ``REMOTE_TASK_LOG``
from beside it. ``[logging] remote_logging`` is not needed and no connection is looked up.
"""

from __future__ import annotations

from airflow.config_templates.airflow_local_settings import DEFAULT_LOGGING_CONFIG

from jetbridge.xcom.logs import ObjectStoreTaskLog

LOGGING_CONFIG = DEFAULT_LOGGING_CONFIG
REMOTE_TASK_LOG = ObjectStoreTaskLog()
