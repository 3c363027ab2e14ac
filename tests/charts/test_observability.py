"""Dashboard, alerts and scrape configuration name metrics, labels and pods that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import promql_parser
import pytest
import yaml
from chartkit.rendering import ROOT, Scenario, manifests, pods
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from jetbridge.contracts.records import Health
from jetbridge.gateway.metrics import GatewayMetrics
from jetbridge.router.metrics import RouterMetrics
from jetbridge.scheduler.bridge.metrics import BridgeMetrics
from jetbridge.sentinel.metrics import SentinelMetrics
from jetbridge.telemetry.metrics import Metrics

FOLDER = ROOT / "k8s" / "observability"
FROM_PROMETHEUS = {"up", "ALERTS"}
ADDED_BY_SCRAPING = {"namespace", "pod", "job", "le"}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}


def series() -> dict[str, set[str]]:
    """Return the labels of every series that a scraped service has."""
    bridge = Metrics("bridge")
    BridgeMetrics(bridge)
    registries = (
        GatewayMetrics().all.registry,
        RouterMetrics().metrics.registry,
        SentinelMetrics().metrics.registry,
        bridge.registry,
    )
    found: dict[str, set[str]] = {}
    for registry in registries:
        labels = _labels(registry)
        for family in registry.collect():
            for suffix in SUFFIXES[family.type]:
                found[family.name + suffix] = labels.get(family.name, set()) | ADDED_BY_SCRAPING
    return found | {name: set(ADDED_BY_SCRAPING) for name in FROM_PROMETHEUS}


def _labels(registry: CollectorRegistry) -> Mapping[str, set[str]]:
    collectors = {c for c in registry._names_to_collectors.values() if isinstance(c, MetricWrapperBase)}
    return {c._name: set(c._labelnames) for c in collectors}


def dashboard() -> dict[str, Any]:
    """Return the Grafana dashboard."""
    loaded: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
    return loaded


def rules() -> list[dict[str, Any]]:
    """Return the alert rules."""
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    """Return every PromQL expression with the name of where it stands."""
    for panel in dashboard()["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])
    yield from ((rule["alert"], rule["expr"]) for rule in rules())


def uses(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Return each series in an expression, with the labels that the expression matches on it."""
    text = expression.replace("$__rate_interval", "5m")
    yield from _uses(promql_parser.parse(text))


def _uses(node: Any) -> Iterator[tuple[str, set[str]]]:
    selector = getattr(node, "vector_selector", node)
    if isinstance(selector, promql_parser.VectorSelector):
        yield selector.name, {matcher.name for matcher in selector.matchers.matchers}
        return
    for child in (
        *(getattr(node, part, None) for part in ("lhs", "rhs", "expr")),
        *getattr(node, "args", []),
    ):
        if child is not None:
            yield from _uses(child)


@pytest.mark.parametrize(("where", "expression"), list(expressions()), ids=lambda text: text[:40])
def test_every_series_and_label_exists(where: str, expression: str) -> None:
    known = series()
    used = list(uses(expression))
    assert used, where
    for name, labels in used:
        assert name in known
        assert labels <= known[name]
    grouped = {
        label.strip() for part in re.findall(r"by \(([^)]*)\)", expression) for label in part.split(",")
    }
    assert grouped <= set().union(*(known[name] for name, _ in used))


@pytest.mark.parametrize(
    "expression", ["jetbridge_gateway_helt_polls", 'sum(rate(up[5m])) + jetbridge_x{a="b"}']
)
def test_a_series_that_does_not_exist_is_noticed(expression: str) -> None:
    assert any(name not in series() for name, _ in uses(expression))


def test_values_of_labels_are_those_of_the_code() -> None:
    named = set(re.findall(r'health=~?"([^"]+)"', (FOLDER / "alerts.yaml").read_text()))
    assert {value for text in named for value in text.split("|")} <= {health.value for health in Health}


def test_rules_say_what_happened_and_what_to_do() -> None:
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["for"]


def test_panels_do_not_overlap_and_have_descriptions() -> None:
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in dashboard()["panels"]]
    assert len(set(places)) == len(places)
    assert all(panel["description"] for panel in dashboard()["panels"])


def test_what_is_scraped_is_there(plane_trial: Scenario) -> None:
    ports = {
        f"{pod.labels['app.kubernetes.io/component']};{port['name']}"
        for pod in pods(manifests(plane_trial))
        for container in pod.containers
        for port in container.get("ports", [])
    }
    jobs = yaml.safe_load((FOLDER / "scrape.yaml").read_text())["scrape_configs"]
    for job in jobs:
        assert job["relabel_configs"][1]["regex"] in ports
        assert job["job_name"] == f"jetbridge-{job['relabel_configs'][1]['regex'].partition(';')[0]}"
    named = re.findall(
        r'job="([^"]+)"', json.dumps(dashboard()).replace('\\"', '"') + (FOLDER / "alerts.yaml").read_text()
    )
    assert set(named) <= {job["job_name"] for job in jobs}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH")
@pytest.mark.parametrize(
    "command", [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts-test.yaml"]]
)
def test_prometheus_agrees(command: list[str]) -> None:
    done = subprocess.run(["promtool", *command], cwd=FOLDER, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
