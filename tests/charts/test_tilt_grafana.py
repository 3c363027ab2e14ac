"""With the setting "grafana", Prometheus and Grafana read our files and reach what they are to show."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from chartkit import cluster
from chartkit.cluster import Cluster
from chartkit.rendering import NAMESPACE, ROOT, Manifest, PodTemplate, pods, title
from chartkit.tiltfile import Recording, applied, evaluate
from chartkit.wiring import not_let_through

from jetbridge.devstack.ports import free_port
from jetbridge.devstack.probes import answers_http
from jetbridge.devstack.processes import Command, Supervisor

FILES = ROOT / "k8s" / "observability"
CORE = f"/api/v1/namespaces/{NAMESPACE}"
RBAC = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"
PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def objects() -> tuple[Manifest, ...]:
    """Return everything that Tilt would apply with Grafana."""
    return applied(evaluate(Recording(own_settings={"grafana": True})))


def one(objects: tuple[Manifest, ...], name: str) -> Manifest:
    """Return the object with a title."""
    (found,) = (item for item in objects if title(item) == name)
    return found


def pod_of(objects: tuple[Manifest, ...], name: str) -> PodTemplate:
    """Return the pod of a Deployment."""
    (found,) = (pod for pod in pods(objects) if pod.title == f"Deployment/{name}")
    return found


def config(objects: tuple[Manifest, ...]) -> dict[str, Any]:
    """Return Prometheus' configuration."""
    loaded: dict[str, Any] = yaml.safe_load(one(objects, "ConfigMap/prometheus")["data"]["prometheus.yml"])
    return loaded


def files_of(objects: tuple[Manifest, ...], pod: PodTemplate) -> dict[str, str]:
    """Return what the pod finds in its ConfigMaps, by path."""
    maps = {v["name"]: v["configMap"]["name"] for v in pod.spec["volumes"] if "configMap" in v}
    found = {}
    for mount in pod.containers[0]["volumeMounts"]:
        if mount["name"] in maps:
            data = one(objects, f"ConfigMap/{maps[mount['name']]}")["data"]
            whole = {f"{mount['mountPath']}/{name}": text for name, text in data.items()}
            part = {mount["mountPath"]: data[mount["subPath"]]} if "subPath" in mount else {}
            found |= part or whole
    return found


def test_alerts_and_dashboard_are_the_files_of_the_repository(objects: tuple[Manifest, ...]) -> None:
    alerts = one(objects, "ConfigMap/prometheus")["data"]["alerts.yaml"]
    assert alerts == (FILES / "alerts.yaml").read_text()
    dashboards = one(objects, "ConfigMap/grafana-dashboards")["data"]
    assert dashboards == {"dashboard.json": (FILES / "dashboard.json").read_text()}


def test_pods_are_scraped_as_everywhere_but_looked_for_in_one_namespace(
    objects: tuple[Manifest, ...],
) -> None:
    """The Role is of this namespace: Prometheus may not ask about pods of others."""
    jobs = config(objects)["scrape_configs"]
    discoveries = [discovery for job in jobs for discovery in job["kubernetes_sd_configs"]]
    assert {str(discovery.pop("namespaces")) for discovery in discoveries} == {"{'own_namespace': True}"}
    assert jobs == yaml.safe_load((FILES / "scrape.yaml").read_text())["scrape_configs"]
    roles = {discovery["role"] + "s" for discovery in discoveries}
    (rule,) = one(objects, "Role/prometheus")["rules"]
    assert (rule["apiGroups"], set(rule["resources"])) == ([""], roles)
    assert {"list", "watch"} <= set(rule["verbs"])


def check_config(directory: Path) -> subprocess.CompletedProcess[str]:
    """Have promtool read a configuration and the rules that it names."""
    words = ["promtool", "check", "config", "prometheus.yml"]
    return subprocess.run(words, cwd=directory, check=False, capture_output=True, text=True)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH")
def test_prometheus_accepts_its_configuration(objects: tuple[Manifest, ...], tmp_path: Path) -> None:
    for name, text in one(objects, "ConfigMap/prometheus")["data"].items():
        (tmp_path / name).write_text(text)
    done = check_config(tmp_path)
    if "field kubernetes_sd_configs not found" in done.stderr:
        # Debian builds it without Kubernetes: everything but the discovery is checked, then.
        without = config(objects)
        for job in without["scrape_configs"]:
            del job["kubernetes_sd_configs"]
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(without))
        done = check_config(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rule files found" in done.stdout


def scraped(objects: tuple[Manifest, ...]) -> Iterator[tuple[str, PodTemplate, str]]:
    """Return the job, pod and port of everything that Prometheus would find here."""
    for job in config(objects)["scrape_configs"]:
        chart, place = (rule["regex"] for rule in job["relabel_configs"][:2])
        for pod in pods(objects):
            component = pod.labels["app.kubernetes.io/component"]
            for port in (port["name"] for c in pod.containers for port in c.get("ports", [])):
                ours = pod.labels["app.kubernetes.io/name"] == chart
                if ours and re.fullmatch(place, f"{component};{port}"):
                    yield job["job_name"], pod, port


def test_every_job_finds_pods_that_let_prometheus_in(objects: tuple[Manifest, ...]) -> None:
    prometheus, found = pod_of(objects, "prometheus"), list(scraped(objects))
    assert {job for job, _, _ in found} == {job["job_name"] for job in config(objects)["scrape_configs"]}
    of_agents = {
        pod.labels["app.kubernetes.io/component"] for job, pod, _ in found if job == "jetbridge-agents"
    }
    assert of_agents == {"worker-default", "worker-gpu", "triggerer", "dag-processor", "sentinel"}
    for _, pod, port in found:
        assert list(not_let_through(objects, prometheus, pod, port)) == []


def test_without_it_no_agent_listens_and_nobody_may_ask() -> None:
    objects = applied(evaluate(Recording()))
    agents = [pod for pod in pods(objects) if pod.labels["app.kubernetes.io/name"] == "jetbridge-agents"]
    ports = {port["name"] for pod in agents for c in pod.containers for port in c.get("ports", [])}
    assert agents
    assert "metrics" not in ports
    assert "prometheus" not in str(objects)


def test_both_read_files_that_are_mounted(objects: tuple[Manifest, ...]) -> None:
    prometheus, grafana = pod_of(objects, "prometheus"), pod_of(objects, "grafana")
    (path,) = re.findall("--config.file=(\\S+)", " ".join(prometheus.containers[0]["args"]))
    assert path in files_of(objects, prometheus)
    rules = [str(Path(path).parent / name) for name in config(objects)["rule_files"]]
    assert set(rules) < files_of(objects, prometheus).keys()
    files = files_of(objects, grafana)
    environment = {entry["name"]: entry["value"] for entry in grafana.containers[0]["env"]}
    assert environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] in files
    (provider,) = yaml.safe_load(files["/etc/grafana/provisioning/dashboards/dashboards.yaml"])["providers"]
    assert [path for path in files if path.startswith(provider["options"]["path"])]


def test_grafana_asks_that_prometheus_which_answers_it_alone(objects: tuple[Manifest, ...]) -> None:
    prometheus, grafana = pod_of(objects, "prometheus"), pod_of(objects, "grafana")
    provisioned = files_of(objects, grafana)["/etc/grafana/provisioning/datasources/datasources.yaml"]
    (source,) = yaml.safe_load(provisioned)["datasources"]
    service = one(objects, "Service/prometheus")
    (port,) = service["spec"]["ports"]
    assert (source["type"], source["url"]) == ("prometheus", f"http://prometheus:{port['port']}")
    assert list(not_let_through(objects, grafana, prometheus, port["targetPort"])) == []
    gateway = pod_of(objects, "jetbridge-gateway")
    assert [text for text in not_let_through(objects, gateway, prometheus, "http") if "Ingress" in text]
    # What Grafana takes for the shortest useful window follows from how often we scrape.
    assert source["jsonData"]["timeInterval"] == config(objects)["global"]["scrape_interval"]


def test_nobody_logs_in_and_only_a_port_forward_leads_to_grafana(objects: tuple[Manifest, ...]) -> None:
    grafana = pod_of(objects, "grafana")
    environment = {entry["name"]: entry["value"] for entry in grafana.containers[0]["env"]}
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert one(objects, "NetworkPolicy/grafana")["spec"]["ingress"] == []
    services = [item for item in objects if item["kind"] in {"Service", "Ingress"}]
    assert [title(item) for item in services if "grafana" in str(item)] == []


API_SERVER = [name for name in ("etcd", "kube-apiserver") if cluster.binary(name) is None]


@pytest.fixture
def kubernetes(supervisor: Supervisor, tmp_path: Path, objects: tuple[Manifest, ...]) -> Iterator[Cluster]:
    """Return an API server with Prometheus' account, and with every pod that is to be scraped."""
    started = cluster.start(supervisor, tmp_path / "cluster")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    started.request("POST", "/api/v1/namespaces", namespace)
    started.request("POST", f"{CORE}/serviceaccounts", one(objects, "ServiceAccount/prometheus"))
    started.request("POST", f"{RBAC}/roles", one(objects, "Role/prometheus"))
    started.request("POST", f"{RBAC}/rolebindings", one(objects, "RoleBinding/prometheus"))
    for pod in pods(objects):
        if pod.is_long_running:
            _make(started, pod)
    yield started
    started.client.close()


def _make(kubernetes: Cluster, pod: PodTemplate) -> None:
    """Make a pod as if a node ran it: there is none, so it gets its address here."""
    name = pod.owner["metadata"]["name"]
    claims = {claim["metadata"]["name"] for claim in pod.owner["spec"].get("volumeClaimTemplates", [])}
    volumes = [*pod.spec.get("volumes", []), *({"name": claim, "emptyDir": {}} for claim in claims)]
    metadata = {"name": name, "labels": dict(pod.labels)}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**pod.spec, "volumes": volumes}}
    kubernetes.request("POST", f"{CORE}/pods", body)
    status = {"status": {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}}
    kind = {"Content-Type": "application/merge-patch+json"}
    kubernetes.request("PATCH", f"{CORE}/pods/{name}/status", status, **kind)


@pytest.mark.skipif(
    bool(API_SERVER) or shutil.which("prometheus") is None or os.geteuid() != 0,
    reason="needs root, and prometheus, promtool, etcd and kube-apiserver",
)
def test_prometheus_finds_its_pods_by_its_own_account(
    objects: tuple[Manifest, ...], kubernetes: Cluster, supervisor: Supervisor, tmp_path: Path
) -> None:
    """Run with the arguments of its Deployment; nothing answers at the pods' addresses."""
    for name, text in one(objects, "ConfigMap/prometheus")["data"].items():
        (tmp_path / name).write_text(text)
    if "kubernetes_sd_configs not found" in check_config(tmp_path).stderr:
        pytest.skip("this Prometheus was built without Kubernetes, as Debian's is")
    url = _start_prometheus(supervisor, kubernetes, pod_of(objects, "prometheus"), tmp_path)
    wanted = {(job, pod.owner["metadata"]["name"]) for job, pod, _ in scraped(objects)}
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:

        def found() -> set[tuple[str, str]]:
            targets = client.get("/api/v1/targets").json()["data"]["activeTargets"]
            return {(target["labels"]["job"], target["labels"]["pod"]) for target in targets}

        end = time.monotonic() + PATIENCE_SECONDS
        while found() < wanted and time.monotonic() < end:
            time.sleep(0.2)
        assert found() == wanted
        (group,) = client.get("/api/v1/rules").json()["data"]["groups"]
    alerts = yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"][0]["rules"]
    assert [rule["name"] for rule in group["rules"]] == [rule["alert"] for rule in alerts]


def _start_prometheus(supervisor: Supervisor, kubernetes: Cluster, pod: PodTemplate, directory: Path) -> str:
    """Start it where its pod would find its account, for itself alone; returns its address."""
    account = directory / "account"
    account.mkdir()
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
    issued = kubernetes.request("POST", f"{CORE}/serviceaccounts/prometheus/token", asked)
    (account / "token").write_text(issued["status"]["token"])
    (account / "namespace").write_text(NAMESPACE)
    shutil.copy(kubernetes.ca, account / "ca.crt")
    where = "/run/secrets/kubernetes.io/serviceaccount"
    prepare = f"mount -t tmpfs tmpfs /run && mkdir -p {where} && cp {account}/* {where}"
    arguments = " ".join(pod.containers[0]["args"]).replace("/etc/prometheus", str(directory))
    arguments = arguments.replace("=/prometheus", f"={directory / 'data'}")
    address = f"127.0.0.1:{free_port()}"
    script = f"{prepare} && exec prometheus {arguments} --web.listen-address={address}"
    host, port = kubernetes.url.removeprefix("https://").split(":")
    env = {**os.environ, "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    command = Command(argv=["unshare", "--mount", "sh", "-c", script], env=env)
    supervisor.start("prometheus", command, ready=answers_http(f"http://{address}/-/ready"))
    return f"http://{address}"
