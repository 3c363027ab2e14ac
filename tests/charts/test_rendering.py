"""Helm's own checks, Kubernetes' schemas, our policies, and the wiring of every scenario."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import helm_python
import jsonschema
import kubernetes_validate
import pytest
from chartkit import crds
from chartkit.policies import POLICIES, Policy
from chartkit.rendering import (
    CHARTS,
    NAMESPACE,
    RELEASES,
    Manifest,
    Scenario,
    installed,
    manifests,
    render,
    scenarios,
    title,
)
from chartkit.wiring import WIRINGS, Wiring

Breaker = Callable[[dict[str, Any]], object]
KUBERNETES = ("1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
ERROR_OR_WARNING = 2


def test_helm_lint_finds_nothing(scenario: Scenario) -> None:
    for version in KUBERNETES:
        report = helm_python.lint(
            scenario.directory,
            scenario.values,
            strict=True,
            namespace=NAMESPACE,
            with_subcharts=True,
            kube_version=f"v{version}.0",
        )
        assert not report["errors"]
        assert [m for m in report["messages"] if m["severity"] >= ERROR_OR_WARNING] == []


@pytest.mark.parametrize("version", KUBERNETES)
def test_objects_fit_the_schemas_of_kubernetes(scenario: Scenario, version: str) -> None:
    for item in manifests(scenario):
        if not crds.is_custom(item):
            kubernetes_validate.validate(item, version, strict=True)


def test_custom_resources_fit_their_definitions(scenario: Scenario) -> None:
    for item in manifests(scenario):
        if crds.is_custom(item):
            crds.validate(item)


@pytest.mark.parametrize(
    "breaker",
    [
        lambda spec: spec.update(minReplicaCounts=1),
        lambda spec: spec.update(maxReplicaCount="3"),
        lambda spec: spec["triggers"][0].pop("type"),
        lambda spec: spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"].update(scaledown={}),
    ],
)
def test_a_custom_resource_that_does_not_fit_is_noticed(breaker: Breaker) -> None:
    item = copy.deepcopy(next(item for item in manifests(_scaled()) if item["kind"] == "ScaledObject"))
    breaker(item["spec"])
    with pytest.raises(jsonschema.ValidationError):
        crds.validate(item)


def test_what_is_scaled_says_what_its_agents_say() -> None:
    """The same queues and the same gateway, one pod for what one pod does, a Deployment without replicas."""
    objects = {title(item): item for item in manifests(_scaled())}
    scaled = [item for item in objects.values() if item["kind"] == "ScaledObject"]
    assert {item["metadata"]["name"].removeprefix("jetbridge-agents-") for item in scaled} == {
        "worker-default",
        "worker-gpu",
        "triggerer",
    }
    for item in scaled:
        deployment = objects[f"Deployment/{item['spec']['scaleTargetRef']['name']}"]
        assert "replicas" not in deployment["spec"]
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        env = {entry["name"]: entry.get("value") for entry in container["env"]}
        (trigger,) = item["spec"]["triggers"]
        url = urlsplit(trigger["metadata"]["url"])
        asked = parse_qs(url.query)
        assert f"{url.scheme}://{url.netloc}" == env["JETBRIDGE_AGENT_GATEWAY"]
        assert (url.path, asked["role"]) == ("/v1/depth", container["args"])
        assert asked.get("queue", []) == [
            queue for queue in env["JETBRIDGE_AGENT_QUEUES"].split(",") if queue
        ]
        one_pod = env.get("JETBRIDGE_AGENT_SLOTS") or env["JETBRIDGE_AGENT_CAPACITY"]
        assert trigger["metadata"]["targetValue"] == ("1" if "gpu" in item["metadata"]["name"] else one_pod)
        assert f"TriggerAuthentication/{trigger['authenticationRef']['name']}" in objects
    assert objects["Deployment/jetbridge-agents-worker-always"]["spec"]["replicas"] == 2


def _scaled() -> Scenario:
    return next(one for one in scenarios() if str(one) == "jetbridge-agents:scaled")


def test_a_misspelled_field_does_not_fit(plane_trial: Scenario) -> None:
    item = copy.deepcopy(next(i for i in manifests(plane_trial) if i["kind"] == "Deployment"))
    item["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(item, KUBERNETES[-1], strict=True)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
def test_policy(scenario: Scenario, policy: Policy) -> None:
    assert list(policy(manifests(scenario))) == []


@pytest.mark.parametrize("wiring", WIRINGS, ids=lambda wiring: wiring.__name__)
def test_wiring(scenario: Scenario, wiring: Wiring, plane_trial: Scenario) -> None:
    elsewhere = {*_strings(scenario.values)}
    if str(scenario) == "jetbridge-agents:trial":
        elsewhere |= {item["metadata"]["name"] for item in manifests(plane_trial)}
    assert list(wiring(manifests(scenario), frozenset(elsewhere))) == []


def test_both_trials_fit_together(plane_trial: Scenario, agents_trial: Scenario) -> None:
    together = manifests(plane_trial) + manifests(agents_trial)
    tests = {"Pod/jetbridge-test", "Pod/jetbridge-agents-test"}
    apart = tuple(item for item in together if title(item) not in tests)
    for wiring in WIRINGS:
        assert list(wiring(apart, frozenset())) == []


def test_what_goes_to_the_cluster_is_labelled_and_placed(scenario: Scenario) -> None:
    for item in installed(manifests(scenario)):
        if "extra" in item["metadata"]["name"]:
            continue
        assert item["metadata"]["namespace"] == NAMESPACE
        assert item["metadata"]["labels"]["app.kubernetes.io/instance"] == RELEASES[scenario.chart]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
    elif isinstance(value, str):
        yield value


GATEWAY = "Deployment/jetbridge-gateway"
BREAKERS: dict[str, tuple[str, Breaker]] = {
    "runs_as_an_ordinary_user": (GATEWAY, lambda pod: pod["securityContext"].update(runAsNonRoot=False)),
    "containers_are_locked_down": (
        GATEWAY,
        lambda pod: pod["containers"][0]["securityContext"].update(readOnlyRootFilesystem=False),
    ),
    "stays_off_the_host": (GATEWAY, lambda pod: pod.update(hostNetwork=True)),
    "images_are_pinned": (GATEWAY, lambda pod: pod["containers"][0].update(image="a.registry:5000/gateway")),
    "resources_are_set": (GATEWAY, lambda pod: pod["containers"][0]["resources"].pop("limits")),
    "secrets_are_references": (
        GATEWAY,
        lambda pod: pod["containers"][0]["env"].append({"name": "DB_PASSWORD", "value": "x"}),
    ),
    "api_tokens_are_exceptions": (GATEWAY, lambda pod: pod.pop("automountServiceAccountToken")),
    "long_running_containers_are_probed": (GATEWAY, lambda pod: pod["containers"][0].pop("startupProbe")),
    "references_exist": (GATEWAY, lambda pod: pod.update(serviceAccountName="nobody")),
    "keys_exist": (GATEWAY, lambda pod: pod["volumes"][-1]["secret"]["items"][0].update(key="jwt")),
    "volumes_are_mounted": (GATEWAY, lambda pod: pod["volumes"].pop()),
    "probes_ask_ports_that_exist": (
        GATEWAY,
        lambda pod: pod["containers"][0]["livenessProbe"]["httpGet"].update(port="http"),
    ),
    "service_ports_exist": (GATEWAY, lambda pod: pod["containers"][0]["ports"][0].update(name="tls")),
    "what_pods_call_lets_them_in": (
        GATEWAY,
        lambda pod: pod["containers"][0]["env"].append({"name": "X", "value": "http://jetbridge-nats:8222"}),
    ),
}


@pytest.mark.parametrize("name", BREAKERS)
def test_a_check_notices_when_it_is_broken(plane_trial: Scenario, name: str) -> None:
    where, breaker = BREAKERS[name]
    objects = copy.deepcopy(manifests(plane_trial))
    check: dict[str, Any] = {function.__name__: function for function in (*POLICIES, *WIRINGS)}
    arguments = (objects, frozenset[str]()) if check[name] in WIRINGS else (objects,)
    assert list(check[name](*arguments)) == []
    target = next(item for item in objects if title(item) == where)
    breaker(target["spec"]["template"]["spec"])
    assert list(check[name](*arguments))


@pytest.mark.parametrize(
    ("name", "item"),
    [
        ("roles_are_narrow", {"kind": "ClusterRole", "metadata": {"name": "x"}}),
        (
            "roles_are_narrow",
            {
                "kind": "Role",
                "metadata": {"name": "x"},
                "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}],
            },
        ),
        (
            "secrets_are_references",
            {"kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "redis://me:pw@host/0"}},
        ),
    ],
)
def test_a_policy_notices_a_bad_object(name: str, item: Manifest) -> None:
    policy = next(policy for policy in POLICIES if policy.__name__ == name)
    assert list(policy((item,)))


@pytest.mark.parametrize("chart", RELEASES)
def test_without_what_it_needs_a_chart_says_what_that_is(chart: str) -> None:
    with pytest.raises(helm_python.HelmRenderError, match=r"needed: .* \(or trial.enabled=true"):
        render(chart, {})


def test_every_scenario_has_its_reason(scenario: Scenario) -> None:
    assert scenario.values_file.read_text().startswith("# ")


def test_the_shared_templates_are_one_folder() -> None:
    for chart in RELEASES:
        assert (CHARTS / chart / "charts" / "jetbridge-common").resolve() == CHARTS / "jetbridge-common"
