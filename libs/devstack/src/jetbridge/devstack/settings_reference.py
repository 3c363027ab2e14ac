"""
The reference of all settings, ``docs/settings.md``, made from the classes themselves.

``python -m jetbridge.devstack.settings_reference > docs/settings.md``; a test fails when that is overdue.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

WHERE: tuple[tuple[str, str, str], ...] = (
    ("Everywhere: logs", "jetbridge.telemetry.settings", "TelemetrySettings"),
    ("Plane: connection to NATS", "jetbridge.bus.settings", "BusSettings"),
    ("Plane: gateway", "jetbridge.gateway.settings", "GatewaySettings"),
    ("Plane: sentinel", "jetbridge.sentinel.settings", "SentinelSettings"),
    ("Plane: router", "jetbridge.router.settings", "RouterSettings"),
    ("Plane: RemoteExecutor, in Airflow's scheduler", "jetbridge.scheduler.settings", "SchedulerSettings"),
    ("Plane: bridge", "jetbridge.scheduler.bridge.settings", "BridgeSettings"),
    ("Execution plane: every agent", "jetbridge.agent.settings", "AgentSettings"),
    ("Execution plane: worker", "jetbridge.worker.settings", "WorkerSettings"),
    ("Execution plane: Dag processor", "jetbridge.dag_processor.settings", "DagProcessorSettings"),
    ("Execution plane: triggerer", "jetbridge.triggerer.settings", "TriggererSettings"),
    (
        "Execution plane: sentinel of a site",
        "jetbridge.sentinel.site.settings",
        "SiteSentinelSettings",
    ),
    ("Execution plane: object store", "jetbridge.xcom.settings", "ObjectStoreSettings"),
    ("Execution plane: check of the secrets backend", "jetbridge.xcom.settings", "SecretsCheckSettings"),
)
"""Every settings class there is, in the order in which an operator meets them."""

_INTRODUCTION = """\
# Settings

Every setting of every service, from its class. All are environment variables; those of agents are flags
as well (`--gateway` for `JETBRIDGE_AGENT_GATEWAY`). What Airflow itself is configured with is
in Airflow's own documentation; what a worker sets for the tasks it runs is in `jetbridge.worker.airflow_env`.

Made by `python -m jetbridge.devstack.settings_reference > docs/settings.md`.
"""


def reference() -> str:
    """Return the whole page."""
    seen: set[str] = set()
    sections = [_section(*where, seen) for where in WHERE]
    return "\n".join([_INTRODUCTION, *sections])


def _section(title: str, module: str, name: str, seen: set[str]) -> str:
    settings: type[BaseSettings] = getattr(importlib.import_module(module), name)
    rows = [_row(variable(settings, field), info) for field, info in settings.model_fields.items()]
    new = [row for row in rows if row not in seen]
    seen.update(new)
    inherited = " All settings of every agent, and:" if len(new) < len(rows) else ""
    head = f"## {title}\n\n`{module}.{name}`.{inherited}\n"
    return "\n".join([head, "| variable | default | what it is |", "|---|---|---|", *new, ""])


def variable(settings: type[BaseSettings], field: str) -> str:
    """Return the environment variable of a field."""
    alias = settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    if isinstance(alias, str):
        return alias
    return f"{settings.model_config.get('env_prefix', '')}{field}".upper()


def _row(name: str, info: FieldInfo) -> str:
    description = " ".join((info.description or "").split()).replace("|", "/")
    return f"| `{name}` | {_default(info)} | {description} |"


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value: Any = info.default
    if value is PydanticUndefined or callable(info.default_factory):
        return "see description"
    if value in (None, "", ()):
        return ""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, (bool, dict)):
        return json.dumps(value)
    return str(value.as_posix() if isinstance(value, Path) else value)


if __name__ == "__main__":
    sys.stdout.write(reference())
