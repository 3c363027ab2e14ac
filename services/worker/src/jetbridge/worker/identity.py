"""The name under which tasks of this agent appear in Airflow. Imported by Airflow, so it stays tiny."""

from __future__ import annotations

import os

AGENT_NAME_VARIABLE = "JETBRIDGE_AGENT_NAME"


def agent_name() -> str:
    """Return the agent's name; Airflow calls this in place of the host's name, for ``ti.hostname``."""
    return os.environ[AGENT_NAME_VARIABLE]
