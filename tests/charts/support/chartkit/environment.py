"""What our processes read from their environment: the settings classes, and Airflow's configuration."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from pydantic import AliasChoices
from pydantic_settings import BaseSettings

from chartkit.rendering import Manifest, PodTemplate, title
from jetbridge.bus.settings import BusSettings
from jetbridge.dag_processor.settings import DagProcessorSettings
from jetbridge.gateway.settings import GatewaySettings
from jetbridge.router.settings import RouterSettings
from jetbridge.scheduler.bridge.settings import BridgeSettings
from jetbridge.scheduler.settings import SchedulerSettings
from jetbridge.sentinel.settings import SentinelSettings
from jetbridge.sentinel.site.settings import SiteSentinelSettings
from jetbridge.telemetry.settings import TelemetrySettings
from jetbridge.triggerer.settings import TriggererSettings
from jetbridge.worker.settings import WorkerSettings
from jetbridge.xcom.settings import ObjectStoreSettings, SecretsCheckSettings

READ_BY: Mapping[str, tuple[type[BaseSettings], ...]] = {
    "jetbridge gateway": (TelemetrySettings, BusSettings, GatewaySettings),
    "jetbridge router": (TelemetrySettings, BusSettings, RouterSettings),
    "jetbridge sentinel plane": (TelemetrySettings, BusSettings, SentinelSettings),
    "jetbridge bridge": (TelemetrySettings, BusSettings, BridgeSettings),
    "jetbridge bus": (TelemetrySettings, BusSettings),
    "jetbridge token": (TelemetrySettings, BusSettings),
    "jetbridge worker": (TelemetrySettings, WorkerSettings, ObjectStoreSettings, SecretsCheckSettings),
    "jetbridge dag-processor": (
        TelemetrySettings,
        DagProcessorSettings,
        ObjectStoreSettings,
        SecretsCheckSettings,
    ),
    "jetbridge triggerer": (TelemetrySettings, TriggererSettings, ObjectStoreSettings, SecretsCheckSettings),
    "jetbridge sentinel site": (
        TelemetrySettings,
        SiteSentinelSettings,
        ObjectStoreSettings,
        SecretsCheckSettings,
    ),
    "airflow scheduler": (TelemetrySettings, BusSettings, SchedulerSettings),
    "airflow api-server": (TelemetrySettings, BusSettings),
    "airflow dag-processor": (TelemetrySettings,),
    "airflow db": (TelemetrySettings,),
}
"""What each command that a chart runs reads. A command that is not here is not ours, or is new: add it."""

BUNDLED = frozenset({"nats", "redis", "postgresql", "object-store"})
"""Components of a trial that run other people's images."""


def variables(settings: type[BaseSettings]) -> frozenset[str]:
    """Return the environment variables that a settings class reads."""
    prefix = settings.model_config.get("env_prefix", "")
    names = set()
    for name, field in settings.model_fields.items():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias] if alias else []
        public = [choice for choice in choices if isinstance(choice, str) and choice.isupper()]
        names.update(public or [f"{prefix}{name}".upper()])
    return frozenset(names)


def command_of(pod: PodTemplate, container: Mapping[str, Any]) -> str | None:
    """Return the first two words of what a container of our images runs; None when it is not ours."""
    component = pod.labels["app.kubernetes.io/component"]
    main = component == container["name"] or component.startswith(f"{container['name']}-")
    if component in BUNDLED or not (main or container["name"] == "wait-for-migrations"):
        return None
    words = (
        [*container.get("command", []), *container["args"]] if "args" in container else container["command"]
    )
    if "trial_token.py" in " ".join(words):
        return "jetbridge token"
    if words[0] in {"airflow", "jetbridge"}:
        return " ".join(words[:2])
    return " ".join(["jetbridge", *words[: 2 if words[0] == "sentinel" else 1]])


def environment(container: Mapping[str, Any], objects: tuple[Manifest, ...]) -> dict[str, str]:
    """Return what the container will find; values from Secrets and fields are stood in for."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        name = f"ConfigMap/{source['configMapRef']['name']}"
        found.update(next(item["data"] for item in objects if title(item) == name))
    for entry in container.get("env", []):
        found[entry["name"]] = entry["value"] if "value" in entry else _stand_in(entry)
    return found


def _stand_in(entry: Mapping[str, Any]) -> str:
    if "fieldRef" in entry["valueFrom"]:
        return "jetbridge-agents-worker-default-7c9f8b6d5-x2x4z"
    return {"JETBRIDGE_REDIS_URL": "redis://redis:6379/0"}.get(entry["name"], "from-a-secret")


@functools.cache
def airflow_variables() -> frozenset[str]:
    """Return AIRFLOW__SECTION__KEY for every option that Airflow and the providers here describe."""
    spec = find_spec("airflow")
    assert spec is not None
    assert spec.origin is not None
    described = yaml.safe_load((Path(spec.origin).parent / "config_templates" / "config.yml").read_text())
    names = set(_options(described))
    for entry in entry_points(group="apache_airflow_provider"):
        names.update(_options(entry.load()().get("config", {})))
    return frozenset(names)


def _options(sections: Mapping[str, Any]) -> Iterator[str]:
    for section, content in sections.items():
        for option in content["options"]:
            yield f"AIRFLOW__{section.upper().replace('.', '_')}__{option.upper()}"
