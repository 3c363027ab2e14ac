"""values.schema.json refuses mistakes, and knows every setting that our processes have."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import helm_python
import pytest
import yaml
from chartkit.environment import command_of, environment, variables
from chartkit.rendering import CHARTS, RELEASES, Scenario, manifests, pods, render, scenarios
from pydantic_settings import BaseSettings

from jetbridge.dag_processor.settings import DagProcessorSettings
from jetbridge.gateway.settings import GatewaySettings
from jetbridge.router.settings import RouterSettings
from jetbridge.scheduler.bridge.settings import BridgeSettings
from jetbridge.scheduler.settings import SchedulerSettings
from jetbridge.sentinel.settings import SentinelSettings
from jetbridge.sentinel.site.settings import SiteSentinelSettings
from jetbridge.triggerer.settings import TriggererSettings
from jetbridge.worker.frames import LOG_UPLOAD_SECONDS
from jetbridge.worker.main import REPORT_SECONDS
from jetbridge.worker.settings import WorkerSettings
from jetbridge.xcom.settings import ObjectStoreSettings, SecretsCheckSettings

DELIBERATELY_NOT = {
    # Only for a process that is not in a pod.
    "JETBRIDGE_AGENT_ALLOW_HTTP",
    "JETBRIDGE_GATEWAY_ALLOW_PLAINTEXT",
    "JETBRIDGE_GATEWAY_HOST",
    "JETBRIDGE_GATEWAY_REUSE_PORT",
    # Secrets come as files.
    "JETBRIDGE_OBJECT_STORE_ACCESS_KEY",
    "JETBRIDGE_OBJECT_STORE_SECRET_KEY",
}
NOT_USED: dict[type[BaseSettings], set[str]] = {
    TriggererSettings: {"JETBRIDGE_AGENT_SLOTS"},
    DagProcessorSettings: {"JETBRIDGE_AGENT_SLOTS", "JETBRIDGE_AGENT_QUEUES"},
    SiteSentinelSettings: {
        "JETBRIDGE_AGENT_METRICS_PORT",  # it has a port for its pages
        "JETBRIDGE_AGENT_SLOTS",
        "JETBRIDGE_AGENT_QUEUES",
        "JETBRIDGE_AGENT_WATCH_DIRS",
        "JETBRIDGE_AGENT_LOOK_INTERVAL_SECONDS",
        "JETBRIDGE_AGENT_SITE_KEY_FILE",
        "JETBRIDGE_AGENT_START_CHECKS",
    },
}
MINIMAL = {scenario.chart: scenario.values for scenario in scenarios() if scenario.name == "minimal"}


@pytest.mark.parametrize(
    ("command", "settings", "chart", "place"),
    [
        ("jetbridge gateway", GatewaySettings, "jetbridge-plane", "gateway"),
        ("airflow scheduler", SchedulerSettings, "jetbridge-plane", "scheduler"),
        ("jetbridge router", RouterSettings, "jetbridge-plane", "router"),
        ("jetbridge sentinel plane", SentinelSettings, "jetbridge-plane", "sentinel"),
        ("jetbridge sentinel site", SiteSentinelSettings, "jetbridge-agents", None),
        ("jetbridge bridge", BridgeSettings, "jetbridge-plane", "bridge"),
        ("jetbridge worker", WorkerSettings, "jetbridge-agents", None),
        ("jetbridge dag-processor", DagProcessorSettings, "jetbridge-agents", None),
        ("jetbridge triggerer", TriggererSettings, "jetbridge-agents", None),
        ("jetbridge worker", ObjectStoreSettings, "jetbridge-agents", "objectStore"),
        ("jetbridge worker", SecretsCheckSettings, "jetbridge-agents", None),
    ],
)
def test_every_setting_can_be_set(
    command: str, settings: type[BaseSettings], chart: str, place: str | None
) -> None:
    prefix = settings.model_config["env_prefix"]
    named = _offered(chart, place) if place else []
    offered = {f"{prefix}{name}".upper() for name in named} | _set_by_templates(command, chart)
    not_used = NOT_USED.get(settings, set())
    assert variables(settings) - offered - DELIBERATELY_NOT - not_used == set()
    assert {f"{prefix}{name}".upper() for name in named} <= variables(settings)


def _offered(chart: str, place: str) -> list[str]:
    schema = json.loads((CHARTS / chart / "values.schema.json").read_text())
    names: list[str] = schema["properties"][place]["properties"]["settings"]["propertyNames"]["enum"]
    return names


def _set_by_templates(command: str, chart: str) -> set[str]:
    found: set[str] = set()
    for scenario in scenarios():
        objects = manifests(scenario)
        for pod in pods(objects) if scenario.chart == chart else []:
            for container in pod.containers:
                if command_of(pod, container) == command:
                    found.update(environment(container, objects))
    return found


@pytest.mark.parametrize(
    ("chart", "mistake"),
    [
        ("jetbridge-plane", {"gatway": {}}),
        ("jetbridge-plane", {"gateway": {"settings": {"lease_second": 5}}}),
        ("jetbridge-plane", {"gateway": {"replicas": "two"}}),
        ("jetbridge-plane", {"nats": {"url": "http://nats:4222"}}),
        ("jetbridge-plane", {"images": {"plane": {"tag": "latest"}}}),
        ("jetbridge-plane", {"tracing": {"sampleRatio": 2}}),
        ("jetbridge-agents", {"gateway": {"url": "http://plain.example.com"}}),
        ("jetbridge-agents", {"gateway": {"url": "https://user:secret@example.com"}}),
        ("jetbridge-agents", {"workers": [{"queues": ["no-name"]}]}),
        ("jetbridge-agents", {"workers": [{"name": "a", "queues": ["a,b"]}]}),
        ("jetbridge-agents", {"workers": [{"name": "a", "drainSecond": 1}]}),
    ],
)
def test_a_mistake_is_refused(chart: str, mistake: Mapping[str, Any]) -> None:
    render(chart, MINIMAL[chart])
    with pytest.raises(helm_python.HelmError, match="specifications of the schema"):
        render(chart, {**MINIMAL[chart], **mistake})


@pytest.mark.parametrize("chart", RELEASES)
def test_every_value_is_in_the_schema_and_every_schema_property_has_a_default(chart: str) -> None:
    values = yaml.safe_load((CHARTS / chart / "values.yaml").read_text())
    schema = json.loads((CHARTS / chart / "values.schema.json").read_text())
    schema["properties"].pop("global")
    schema["properties"].pop("jetbridge-common")
    assert set(_leaves(values, schema, schema["$defs"])) == set()


def _leaves(values: Any, schema: dict[str, Any], defs: dict[str, Any], path: str = "") -> Iterator[str]:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name in {"image", "probe", "resources"}:
            return
        schema = defs[name]
    if not isinstance(values, dict) or "properties" not in schema:
        return
    yield from (f"{path}.{key}" for key in values.keys() ^ schema["properties"].keys())
    for key in values.keys() & schema["properties"].keys():
        yield from _leaves(values[key], schema["properties"][key], defs, f"{path}.{key}")


def test_pods_are_given_the_time_their_drain_takes(agents_trial: Scenario, plane_trial: Scenario) -> None:
    for scenario, command, needed in (
        (agents_trial, "jetbridge worker", _worker_seconds),
        (agents_trial, "jetbridge triggerer", lambda env: 3 * float(env["JETBRIDGE_AGENT_STOP_SECONDS"])),
        (plane_trial, "jetbridge bridge", lambda env: float(env["JETBRIDGE_BRIDGE_DRAIN_SECONDS"])),
        (plane_trial, "jetbridge gateway", _gateway_seconds),
    ):
        objects = manifests(scenario)
        for pod in pods(objects):
            for container in pod.containers:
                if command_of(pod, container) == command:
                    seconds = needed(environment(container, objects))
                    assert pod.spec["terminationGracePeriodSeconds"] > seconds


def _worker_seconds(env: Mapping[str, str]) -> float:
    drain = float(env["JETBRIDGE_AGENT_DRAIN_SECONDS"])
    return drain + float(env["JETBRIDGE_AGENT_STOP_GRACE_SECONDS"]) + LOG_UPLOAD_SECONDS + REPORT_SECONDS


def _gateway_seconds(env: Mapping[str, str]) -> float:
    return sum(float(env[f"JETBRIDGE_GATEWAY_{name}_SECONDS"]) for name in ("DRAIN_NOTICE", "DRAIN"))
