"""
From what the plane sends to Airflow's workload. For Airflow 3.3.

A trigger's arguments arrive in the clear, over TLS, for this agent alone. Airflow's runner expects them
encrypted; they are, with a key that only this process and its child have, so that a workload that ends up in
a log or a traceback shows nothing.
"""

from __future__ import annotations

from typing import Any

import msgspec
from airflow.executors.workloads.trigger import RunTrigger
from airflow.models.crypto import get_fernet

from jetbridge.contracts.triggering import TriggerStart


def workload_of(start: TriggerStart, arguments: str) -> RunTrigger:
    """
    Return the workload with its opened ``arguments``.

    Raises ``ValueError`` (pydantic's) when this Airflow cannot read it.
    """
    fields: dict[str, Any] = msgspec.json.decode(start.spec)
    fields["encrypted_kwargs"] = get_fernet().encrypt(arguments.encode()).decode()
    return RunTrigger.model_validate(fields)
