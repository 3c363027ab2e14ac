"""Dashboard, alerts and scrape configuration name metrics, labels and pods that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import promql_parser
import pytest
import yaml
from chartkit.rendering import ROOT, Scenario, manifests, pods, scenarios
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from jetbridge.contracts.records import Health
from jetbridge.dag_processor.leases import BundleLeases
from jetbridge.dag_processor.status import DagProcessorMetrics
from jetbridge.gateway.metrics import GatewayMetrics
from jetbridge.router.metrics import RouterMetrics
from jetbridge.scheduler.bridge.metrics import BridgeMetrics
from jetbridge.sentinel.metrics import SentinelMetrics
from jetbridge.sentinel.site.metrics import SiteMetrics
from jetbridge.telemetry.metrics import Metrics
from jetbridge.triggerer.exchange import Exchange
from jetbridge.triggerer.status import TriggererMetrics
from jetbridge.worker.status import WorkerMetrics

FOLDER = ROOT / "k8s" / "observability"
NO_EXCHANGE = SimpleNamespace(running=tuple, outbox=SimpleNamespace(triggers=tuple))
FROM_PROMETHEUS = {"up", "ALERTS"}
ADDED_BY_SCRAPING = {"namespace", "pod", "job", "le"}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}


def series() -> dict[str, set[str]]:
    """Return the labels of every series that a scraped service has."""
    bridge = Metrics("bridge")
    BridgeMetrics(bridge)
    registries = (
        WorkerMetrics().all.registry,
        TriggererMetrics(cast("Exchange", NO_EXCHANGE)).all.registry,
        DagProcessorMetrics(cast("BundleLeases", SimpleNamespace(epochs={}))).all.registry,
        SiteMetrics().metrics.registry,
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


def test_every_rule_has_a_name_of_its_own() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)


ON_NO_PANEL = {
    "jetbridge_gateway_made_offers_total",  # the same as messages pulled with the outcome "offered"
    "jetbridge_gateway_http_duration_seconds",
    "jetbridge_gateway_trigger_event_messages_total",
    "jetbridge_gateway_ended_agents_total",
    "jetbridge_bridge_request_seconds",
    "jetbridge_bridge_waiting_requests",
    "jetbridge_worker_ended_workloads_total",
    "jetbridge_worker_workload_seconds",
    "jetbridge_triggerer_undelivered_triggers",
    "jetbridge_site_sentinel_seen_agents",
    "jetbridge_site_sentinel_unhealthy_agents",
    "jetbridge_site_sentinel_failing_check_errors",
    "jetbridge_site_sentinel_told_end_agents_total",
}


def test_every_metric_is_on_a_panel_or_left_out_on_purpose() -> None:
    shown = {name for _, expression in expressions() for name, _ in uses(expression)}
    ours = {name for name in series() if name.startswith("jetbridge_")}
    families = {re.sub("_(bucket|count|sum)$", "", name) for name in ours}
    on_panels = {re.sub("_(bucket|count|sum)$", "", name) for name in shown}
    assert families - on_panels == ON_NO_PANEL


def test_rules_say_what_happened_and_what_to_do() -> None:
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["for"]


def test_panels_do_not_overlap_and_have_descriptions() -> None:
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in dashboard()["panels"]]
    assert len(set(places)) == len(places)
    assert all(panel["description"] for panel in dashboard()["panels"])


def scraped_ports(scenario: Scenario) -> set[str]:
    """Return component;port of everything in a scenario that shows metrics."""
    found = {
        f"{pod.labels['app.kubernetes.io/component']};{port['name']}"
        for pod in pods(manifests(scenario))
        for container in pod.containers
        for port in container.get("ports", [])
    }
    return {one for one in found if one.endswith((";metrics", ";pages")) or one == "gateway;https"}


def test_all_that_shows_metrics_is_scraped_and_nothing_else(plane_trial: Scenario) -> None:
    agents = next(s for s in scenarios() if str(s) == "jetbridge-agents:production")
    have = {"jetbridge-plane": scraped_ports(plane_trial), "jetbridge-agents": scraped_ports(agents)}
    jobs = yaml.safe_load((FOLDER / "scrape.yaml").read_text())["scrape_configs"]
    taken: dict[str, set[str]] = {chart: set() for chart in have}
    for job in jobs:
        chart, pattern = (rule["regex"] for rule in job["relabel_configs"][:2])
        found = {port for port in have[chart] if re.fullmatch(pattern, port)}
        assert found
        taken[chart] |= found
    assert taken == have
    assert len(have["jetbridge-agents"]) >= 4
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
