"""
The example Dag through both charts' pods in the built images: as root, where buildah has them.

Real: images, users, read-only roots, environment, volumes, init containers, probes, SIGTERM. Not: the
cluster, and the bundled servers, whose images cannot be had everywhere; others stand in for them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from chartkit.containers import Node, images
from chartkit.rendering import CHARTS, ROOT, Manifest, PodTemplate, parse, pods, render

from jetbridge.devstack import orders
from jetbridge.devstack.processes import ManagedProcess, Supervisor
from jetbridge.devstack.rest import AirflowClient
from jetbridge.devstack.servers import nats, postgres, redis, s3
from jetbridge.devstack.tls import make_certificates

INSIDE = "JETBRIDGE_TEST_IN_NETWORK_NAMESPACE"
NEEDED = {f"jetbridge-{role}:0.1.0" for role in ("plane", "airflow", "agent")}
MISSING = NEEDED - images()
RUN_SECONDS = 900
SERVICES = ("gateway", "router", "sentinel", "bridge", "api-server", "scheduler")
AGENTS = ("worker-default", "worker-gpu", "triggerer", "dag-processor")
CLEAN_EXIT = {"gateway", "router", "sentinel", "bridge", *AGENTS}

pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"buildah, as root, has no {', '.join(sorted(MISSING))}"
)


@pytest.mark.skipif(INSIDE in os.environ, reason="this is the inside")
def test_the_example_runs_through_both_charts_pods() -> None:
    # In a network of its own: pods have fixed ports, which here are this machine's.
    command = ["unshare", "--net", sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, INSIDE: "1"},
        check=False,
        timeout=2400,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "1 passed" in done.stdout


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Supervisor]:
    """Return the supervisor of everything, on a loopback device that is up."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with Supervisor(tmp_path / "run") as supervisor:
        yield supervisor


def values(chart: str, store: str) -> dict[str, Any]:
    """Return the trial's values with servers of one's own, and ports that do not meet on one host."""
    loaded: dict[str, Any] = yaml.safe_load((CHARTS / chart / "trial-values.yaml").read_text())
    if chart == "jetbridge-plane":
        loaded["nats"] |= {"existingSecret": "servers", "key": "nats-url"}
        loaded |= {"redis": {"existingSecret": "servers"}, "database": {"existingSecret": "servers"}}
        loaded["gateway"] |= {"tls": {"existingSecret": "tls"}, "service": {"port": 8443}}
        loaded["sentinel"] = {"env": [{"name": "JETBRIDGE_SENTINEL_METRICS_PORT", "value": "9091"}]}
        loaded["bridge"] = {"env": [{"name": "JETBRIDGE_BRIDGE_METRICS_PORT", "value": "9092"}]}
        loaded["leases"] = {"leaseSeconds": 30}
    else:
        loaded["gateway"] = {"url": "https://localhost:8443", "ca": {"configMap": "ca"}}
        loaded["objectStore"] = {"endpointUrl": store, "existingSecret": "servers"}
        reference = {"secretKeyRef": {"name": "servers", "key": "orders"}}
        loaded["env"] = [{"name": orders.CONNECTION_VARIABLE, "valueFrom": reference}]
    return loaded


@pytest.mark.skipif(INSIDE not in os.environ, reason="run by the other test, in a network namespace")
def test_inside(servers: Supervisor, tmp_path: Path) -> None:
    bus, presence, store = nats.start(servers), redis.start(servers), s3.start(servers)
    database = postgres.start(servers).create_database("airflow")
    tls = make_certificates(tmp_path / "tls", "localhost")
    secrets = {
        "servers": {
            "nats-url": bus.url,
            "redis-url": presence.url,
            "url": presence.url,
            "connection": database,
            "access-key": store.access_key,
            "secret-key": store.secret_key,
            "orders": orders.agent_environment(store)[orders.CONNECTION_VARIABLE],
        },
        "tls": {"tls.crt": tls.certificate.read_text(), "tls.key": tls.key.read_text()},
    }
    authority = {"kind": "ConfigMap", "metadata": {"name": "ca"}, "data": {"ca.crt": tls.ca.read_text()}}
    objects: tuple[Manifest, ...] = (authority,)
    for chart in ("jetbridge-plane", "jetbridge-agents"):
        objects += tuple(parse(render(chart, values(chart, store.endpoint_url))))
    node = Node(servers, tmp_path, objects, secrets)
    try:
        _install_and_run(node, store)
    finally:
        node.close()


def _install_and_run(node: Node, store: s3.S3Server) -> None:
    by_component: dict[str | None, PodTemplate] = {}
    for pod in pods(node.objects):  # the plane's first; the agents' sentinel needs a Kubernetes API
        by_component.setdefault(pod.labels.get("app.kubernetes.io/component"), pod)
    for job in ("bus-apply", "migrate"):
        pod = by_component[job]
        node.run(pod, pod.spec["containers"][0])
    running = {name: node.start(by_component[name]) for name in SERVICES}
    gateway = by_component["gateway"]
    token = node.output(
        gateway, gateway.spec["containers"][0], ["jetbridge", "token", "create", "--name", "here"]
    )
    node.secrets["jetbridge-trial-agent-token"] = {"token": token}
    running |= {name: node.start(by_component[name]) for name in AGENTS}

    run_id = _run_the_example(running)
    assert orders.differences(store, run_id) == []
    for name in running:
        node.healthcheck(by_component[name])
    _stops_in_time(node, by_component, running)


def _run_the_example(running: dict[str, ManagedProcess]) -> str:
    def all_alive() -> None:
        for process in running.values():
            process.check_alive()

    with AirflowClient("http://127.0.0.1:8080") as client:
        client.log_in()
        client.await_dag(orders.DAG_ID, timeout_seconds=300)
        client.unpause(orders.DAG_ID)
        run_id = client.trigger(orders.DAG_ID)
        client.wait(
            lambda: client.run_state(orders.DAG_ID, run_id) in {"success", "failed"},
            "the example to end",
            timeout_seconds=RUN_SECONDS,
            check=all_alive,
        )
        assert client.run_state(orders.DAG_ID, run_id) == "success", client.task_instances(
            orders.DAG_ID, run_id
        )
    return run_id


def _stops_in_time(
    node: Node, by_component: dict[str | None, PodTemplate], running: dict[str, ManagedProcess]
) -> None:
    for name in reversed(list(running)):
        grace = by_component[name].spec["terminationGracePeriodSeconds"]
        code = node.stop(running[name], grace)
        if name in CLEAN_EXIT:
            assert code == 0, f"{name} ended with {code}:\n{running[name].log_tail()}"
