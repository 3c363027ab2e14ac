"""Both trials on a real Kubernetes API server: admitted, installed, upgraded, rolled back, removed."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from chartkit import cluster
from chartkit.cluster import Cluster
from chartkit.rendering import (
    CHARTS,
    NAMESPACE,
    RELEASES,
    Manifest,
    PodTemplate,
    Scenario,
    manifests,
    pods,
    scenarios,
    title,
)
from chartkit.tiltfile import Recording, applied, evaluate

from jetbridge.contracts.ids import AgentToken
from jetbridge.devstack.processes import Supervisor

MISSING = [name for name in ("etcd", "kube-apiserver") if cluster.binary(name) is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"{' and '.join(MISSING)} not in $KUBEBUILDER_ASSETS or on PATH"
)
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
TOKEN_SECRET = f"{SECRETS}/jetbridge-trial-agent-token"


@pytest.fixture(scope="module")
def kubernetes(supervisor: Supervisor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return a cluster with a namespace that enforces the restricted Pod Security Standard."""
    started = cluster.start(supervisor, tmp_path_factory.mktemp("cluster"))
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    started.request("POST", "/api/v1/namespaces", namespace)
    yield started
    started.client.close()


@pytest.fixture(scope="module")
def releases(kubernetes: Cluster) -> Cluster:
    """Return the cluster with both trials installed."""
    with kubernetes.helm(NAMESPACE) as helm:
        for chart, release in RELEASES.items():
            helm.install(CHARTS / chart, release, _trial(chart))
    return kubernetes


def _trial(chart: str) -> dict[str, Any]:
    return next(s.values for s in scenarios() if (s.chart, s.name) == (chart, "trial"))


def test_pods_are_admitted_under_the_restricted_standard(scenario: Scenario, kubernetes: Cluster) -> None:
    for pod in pods(manifests(scenario)):
        _try(kubernetes, pod)


def _try(kubernetes: Cluster, pod: PodTemplate) -> None:
    """Have a pod admitted, without making it; raises httpx.HTTPStatusError."""
    claims = pod.owner["spec"].get("volumeClaimTemplates", [])
    spec = {"restartPolicy": "Always", **pod.spec, "volumes": [*pod.spec.get("volumes", [])]}
    spec["volumes"] += [{"name": claim["metadata"]["name"], "emptyDir": {}} for claim in claims]
    for name in ("priorityClassName", "runtimeClassName"):
        spec.pop(name, None)  # made by whoever runs the cluster
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "try"}, "spec": spec}
    body["metadata"] = {"name": "try", "labels": dict(pod.labels)}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods"
    kubernetes.request("POST", f"{path}?dryRun=All&fieldValidation=Strict", body)


def _of_tilt() -> tuple[Manifest, ...]:
    """Return what Tilt applies besides the charts."""
    ours = applied(evaluate(Recording(own_settings={"grafana": True})))
    return tuple(item for item in ours if re.match("jaeger|prometheus|grafana", item["metadata"]["name"]))


def test_what_tilt_adds_is_admitted_too(kubernetes: Cluster) -> None:
    added = _of_tilt()
    assert {pod.title.rpartition("/")[2] for pod in pods(added)} == {"jaeger", "prometheus", "grafana"}
    for item in added:
        folder = _path(item).rpartition("/")[0]
        kubernetes.request("POST", f"{folder}?dryRun=All&fieldValidation=Strict", item)
    for pod in pods(added):
        _try(kubernetes, pod)


def test_prometheus_finds_the_pods_of_its_namespace_and_nothing_else(kubernetes: Cluster) -> None:
    for item in _of_tilt():
        if item["kind"] in {"ServiceAccount", "Role", "RoleBinding"}:
            kubernetes.request("POST", _path(item).rpartition("/")[0], item)
    user = f"system:serviceaccount:{NAMESPACE}:prometheus"
    here, everywhere = {"namespace": NAMESPACE}, {"namespace": ""}
    for verb in ("get", "list", "watch"):
        assert _is_allowed(kubernetes, user, verb=verb, resource="pods", **here)
        assert not _is_allowed(kubernetes, user, verb=verb, resource="pods", **everywhere)
        assert not _is_allowed(kubernetes, user, verb=verb, resource="secrets", **here)
    assert not _is_allowed(kubernetes, user, verb="delete", resource="pods", **here)


def test_a_pod_that_may_write_as_root_is_not_admitted(kubernetes: Cluster, plane_trial: Scenario) -> None:
    pod = pods(manifests(plane_trial))[0]
    spec = {**pod.spec, "securityContext": {}}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "try"}, "spec": spec}
    with pytest.raises(httpx.HTTPStatusError, match="violates PodSecurity"):
        kubernetes.request("POST", f"/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All", body)


def test_everything_is_there_after_the_install(releases: Cluster) -> None:
    for scenario in (s for s in scenarios() if s.name == "trial"):
        for item in manifests(scenario):
            if item["kind"] != "Pod":
                releases.request("GET", _path(item))


def _path(item: dict[str, Any]) -> str:
    group = "/api" if item["apiVersion"] == "v1" else "/apis"
    plural = {"NetworkPolicy": "networkpolicies"}.get(item["kind"], item["kind"].lower() + "s")
    return f"{group}/{item['apiVersion']}/namespaces/{NAMESPACE}/{plural}/{item['metadata']['name']}"


def test_a_trial_is_filled_with_a_token_by_its_own_account(
    releases: Cluster, nats_url: str, tmp_path: Path
) -> None:
    account = "jetbridge-trial-token"
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token"
    issued = releases.request(
        "POST", path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
    )
    (tmp_path / "token").write_text(issued["status"]["token"])
    shutil.copy(releases.ca, tmp_path / "ca.crt")
    env = {**os.environ, "JETBRIDGE_NATS_URL": nats_url, "SERVICE_ACCOUNT_DIR": str(tmp_path)}
    env["KUBERNETES_SERVICE_HOST"], env["KUBERNETES_SERVICE_PORT"] = releases.url[8:].split(":")
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    subprocess.run(["jetbridge", "bus", "apply"], env=env, check=True)
    script = [sys.executable, str(CHARTS / "jetbridge-plane" / "files" / "trial_token.py")]
    script += [NAMESPACE, "jetbridge-trial-agent-token"]

    first = subprocess.run(script, env=env, check=True, capture_output=True, text=True)
    token = _token(releases)
    assert token.secret not in first.stdout + first.stderr

    again = subprocess.run(script, env=env, check=True, capture_output=True, text=True)
    assert "holds a token already" in again.stdout
    assert _token(releases) == token

    for name, namespace in (("jetbridge-trial", NAMESPACE), ("jetbridge-trial-agent-token", "default")):
        refused = subprocess.run(
            [*script[:2], namespace, name], env=env, check=False, capture_output=True, text=True
        )
        assert refused.returncode != 0
        assert "403" in refused.stderr


def _token(kubernetes: Cluster) -> AgentToken:
    return AgentToken.parse(
        base64.b64decode(kubernetes.request("GET", TOKEN_SECRET)["data"]["token"]).decode()
    )


def test_an_upgrade_changes_what_was_asked_and_keeps_every_secret(releases: Cluster) -> None:
    releases.request(
        "PATCH",
        TOKEN_SECRET,
        {"stringData": {"token": str(AgentToken.generate())}},
        **{"Content-Type": "application/merge-patch+json"},
    )
    before = _secrets(releases)
    jobs = _names(releases, "apis/batch/v1", "jobs")
    with releases.helm(NAMESPACE) as helm:
        values = _trial("jetbridge-plane")
        values["gateway"]["replicas"] = 3
        helm.upgrade(CHARTS / "jetbridge-plane", RELEASES["jetbridge-plane"], values)
        assert _replicas(releases) == 3
        assert _secrets(releases) == before
        assert _names(releases, "apis/batch/v1", "jobs") == jobs  # nothing about the jobs changed

        values["nats"]["replicas"] = 3
        helm.upgrade(CHARTS / "jetbridge-plane", RELEASES["jetbridge-plane"], values)
        changed = _names(releases, "apis/batch/v1", "jobs")
        assert [name for name in changed - jobs if "bus-apply" in name]  # so the change runs
        assert len(changed) == len(jobs)

        helm.rollback(RELEASES["jetbridge-plane"], version=1)
        assert _replicas(releases) == 2
        assert _secrets(releases) == before
        assert _names(releases, "apis/batch/v1", "jobs") == jobs
    _agents_upgrade(releases, before)


def _agents_upgrade(kubernetes: Cluster, before: dict[str, Any]) -> None:
    with kubernetes.helm(NAMESPACE) as helm:
        values = _trial("jetbridge-agents")
        values["workers"].pop()
        helm.upgrade(CHARTS / "jetbridge-agents", RELEASES["jetbridge-agents"], values)
    names = _names(kubernetes, "apis/apps/v1", "deployments")
    assert "jetbridge-agents-worker-default" in names
    assert "jetbridge-agents-worker-gpu" not in names
    assert _secrets(kubernetes) == before


def _secrets(kubernetes: Cluster) -> dict[str, Any]:
    items = kubernetes.request("GET", SECRETS)["items"]
    return {i["metadata"]["name"]: i.get("data") for i in items if not i["type"].startswith("helm.sh/")}


def _names(kubernetes: Cluster, group: str, plural: str) -> set[str]:
    items = kubernetes.request("GET", f"/{group}/namespaces/{NAMESPACE}/{plural}")["items"]
    return {item["metadata"]["name"] for item in items}


def _replicas(kubernetes: Cluster) -> int:
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/jetbridge-gateway"
    replicas: int = kubernetes.request("GET", path)["spec"]["replicas"]
    return replicas


@pytest.mark.parametrize(("account", "allowed"), [("worker-default", []), ("trial-token", ["get", "patch"])])
def test_accounts_may_do_no_more_than_they_must(releases: Cluster, account: str, allowed: list[str]) -> None:
    prefix = "jetbridge-agents" if account.startswith("worker") else "jetbridge"
    user = f"system:serviceaccount:{NAMESPACE}:{prefix}-{account}"
    verbs = ["get", "list", "watch", "create", "update", "patch", "delete"]
    assert [v for v in verbs if _may(releases, user, v, "jetbridge-trial-agent-token")] == allowed
    assert not any(_may(releases, user, verb, "jetbridge-trial") for verb in verbs)


def _may(kubernetes: Cluster, user: str, verb: str, secret: str) -> bool:
    return _is_allowed(kubernetes, user, namespace=NAMESPACE, verb=verb, resource="secrets", name=secret)


def _is_allowed(kubernetes: Cluster, user: str, **attributes: str) -> bool:
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": attributes},
    }
    answer = kubernetes.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
    allowed: bool = answer["status"]["allowed"]
    return allowed


def test_uninstalling_leaves_nothing(releases: Cluster) -> None:
    with releases.helm(NAMESPACE) as helm:
        for release in RELEASES.values():
            helm.uninstall(release)
    for scenario in (s for s in scenarios() if s.name == "trial"):
        for item in manifests(scenario):
            if item["kind"] in {"Pod", "Job"}:
                continue  # Jobs go when the garbage collector, which is not here, has seen to their pods
            with pytest.raises(httpx.HTTPStatusError) as gone:
                releases.request("GET", _path(item))
            assert gone.value.response.status_code == httpx.codes.NOT_FOUND, title(item)
