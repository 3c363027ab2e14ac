"""Helm's own checks, Kubernetes' schemas, our policies, and the wiring of every scenario."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import helm_python
import kubernetes_validate
import pytest
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
    title,
)
from chartkit.wiring import WIRINGS, Wiring

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
        kubernetes_validate.validate(item, version, strict=True)


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


Breaker = Callable[[dict[str, Any]], object]
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
