"""
Whether the objects of a scenario fit together: what one refers to is there, or was named in the values.

A cluster would tell only at run time, by a pod that waits for ever.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from chartkit.rendering import Manifest, PodTemplate, pods, selects, title

Wiring = Callable[[tuple[Manifest, ...], frozenset[str]], Iterator[str]]

_HOST_IN_URL = re.compile(r"[a-z0-9+]+://(?:[^/@\s]*@)?([a-z0-9.-]+):(\d+)")


def names_are_unique(objects: tuple[Manifest, ...], _named: frozenset[str]) -> Iterator[str]:
    for name, count in Counter(title(item) for item in objects).items():
        if count > 1:
            yield f"{name} is there {count} times"


def selectors_select_their_pods(objects: tuple[Manifest, ...], _named: frozenset[str]) -> Iterator[str]:
    for pod in pods(objects):
        selector = pod.owner["spec"].get("selector")
        if selector and not selects(selector, pod.labels):
            yield f"{pod.title} does not select its own pods"
    for item in objects:
        selector = _selector(item)
        if selector is not None and not _selected(objects, selector):
            yield f"{title(item)} selects nothing"


def workloads_do_not_share_pods(objects: tuple[Manifest, ...], _named: frozenset[str]) -> Iterator[str]:
    for item in objects:
        if item["kind"] in {"Deployment", "StatefulSet", "Service", "PodDisruptionBudget"}:
            selector = _selector(item) or item["spec"]["selector"]
            chosen = [pod.title for pod in _selected(objects, selector)]
            if len(chosen) != 1:
                yield f"{title(item)} selects {chosen}"


def service_ports_exist(objects: tuple[Manifest, ...], _named: frozenset[str]) -> Iterator[str]:
    for item in objects:
        if item["kind"] == "Service":
            for pod in _selected(objects, {"matchLabels": item["spec"]["selector"]}):
                names = _port_names(pod)
                yield from (
                    f"{title(item)}: {pod.title} has no port {port['targetPort']!r}"
                    for port in item["spec"]["ports"]
                    if port["targetPort"] not in names
                )


def probes_ask_ports_that_exist(objects: tuple[Manifest, ...], _named: frozenset[str]) -> Iterator[str]:
    for pod in pods(objects):
        for container in pod.containers:
            names = {port["name"] for port in container.get("ports", [])}
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                probe = container.get(kind, {})
                port = (probe.get("httpGet") or probe.get("tcpSocket") or {}).get("port")
                if port is not None and port not in names:
                    yield f"{pod.title} {kind} asks the unknown port {port!r}"


def references_exist(objects: tuple[Manifest, ...], named: frozenset[str]) -> Iterator[str]:
    have = {title(item) for item in objects}
    for pod in pods(objects):
        for kind, name in _references(pod):
            if f"{kind}/{name}" not in have and name not in named:
                yield f"{pod.title} refers to {kind}/{name}, which nobody makes"


def keys_exist(objects: tuple[Manifest, ...], _named: frozenset[str]) -> Iterator[str]:
    data = {title(item): {**item.get("data", {}), **item.get("stringData", {})} for item in objects}
    filled_later = {"jetbridge-trial-agent-token"}
    for pod in pods(objects):
        for kind, name, key in _keys(pod):
            found = data.get(f"{kind}/{name}")
            if found is not None and key not in found and name not in filled_later:
                yield f"{pod.title} uses the key {key!r} that {kind}/{name} lacks"


def volumes_are_mounted(objects: tuple[Manifest, ...], _named: frozenset[str]) -> Iterator[str]:
    for pod in pods(objects):
        volumes = [volume["name"] for volume in pod.spec.get("volumes", [])]
        claims = [c["metadata"]["name"] for c in pod.owner["spec"].get("volumeClaimTemplates", [])]
        mounts = {m["name"] for c in pod.containers for m in c.get("volumeMounts", [])}
        for name, count in Counter([*volumes, *claims]).items():
            if count > 1:
                yield f"{pod.title} has {count} volumes {name!r}"
        for name in {*volumes, *claims} ^ mounts:
            yield f"{pod.title}: volume {name!r} is not both declared and mounted"
        for container in pod.containers:
            places = Counter(m["mountPath"] for m in container.get("volumeMounts", []))
            yield from (f"{pod.title} mounts {p} twice" for p, count in places.items() if count > 1)


def every_pod_has_a_network_policy(objects: tuple[Manifest, ...], _named: frozenset[str]) -> Iterator[str]:
    policies = [item for item in objects if item["kind"] == "NetworkPolicy"]
    for pod in pods(objects) if policies else []:
        own = [p for p in policies if selects(p["spec"]["podSelector"], pod.labels)]
        if len(own) != 1 and "test" not in pod.labels["app.kubernetes.io/component"]:
            yield f"{pod.title} is under {len(own)} network policies"
        for policy in own:
            if set(policy["spec"]["policyTypes"]) != {"Ingress", "Egress"}:
                yield f"{title(policy)} leaves a direction open"


def what_pods_call_lets_them_in(objects: tuple[Manifest, ...], _named: frozenset[str]) -> Iterator[str]:
    """An address in an environment that is a Service of ours: the port exists, both policies allow it."""
    services = {item["metadata"]["name"]: item for item in objects if item["kind"] == "Service"}
    for caller in pods(objects):
        for host, port in _addresses(caller, objects):
            service = services.get(host.partition(".")[0])
            if service is None:
                continue
            ports = {p["port"]: p["targetPort"] for p in service["spec"]["ports"]}
            if port not in ports:
                yield f"{caller.title} calls {host}:{port}, where {title(service)} does not listen"
                continue
            for callee in _selected(objects, {"matchLabels": service["spec"]["selector"]}):
                yield from not_let_through(objects, caller, callee, ports[port])


WIRINGS: tuple[Wiring, ...] = (
    names_are_unique,
    selectors_select_their_pods,
    workloads_do_not_share_pods,
    service_ports_exist,
    probes_ask_ports_that_exist,
    references_exist,
    keys_exist,
    volumes_are_mounted,
    every_pod_has_a_network_policy,
    what_pods_call_lets_them_in,
)


def _selector(item: Manifest) -> Mapping[str, Any] | None:
    if item["kind"] == "Service":
        return {"matchLabels": item["spec"]["selector"]}
    if item["kind"] == "PodDisruptionBudget":
        return item["spec"]["selector"]
    return item["spec"]["podSelector"] if item["kind"] == "NetworkPolicy" else None


def _selected(objects: tuple[Manifest, ...], selector: Mapping[str, Any]) -> list[PodTemplate]:
    return [pod for pod in pods(objects) if selects(selector, pod.labels)]


def _port_names(pod: PodTemplate) -> set[str]:
    return {port["name"] for container in pod.containers for port in container.get("ports", [])}


def _references(pod: PodTemplate) -> Iterator[tuple[str, str]]:
    account = pod.spec.get("serviceAccountName", "default")
    if account != "default":
        yield "ServiceAccount", account
    yield from ((kind, name) for kind, name, _ in _keys(pod))
    for volume in pod.spec.get("volumes", []):
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
    for container in pod.containers:
        for source in container.get("envFrom", []):
            yield "ConfigMap", source["configMapRef"]["name"]


def _keys(pod: PodTemplate) -> Iterator[tuple[str, str, str]]:
    for volume in pod.spec.get("volumes", []):
        for item in volume.get("secret", {}).get("items", []):
            yield "Secret", volume["secret"]["secretName"], item["key"]
    for container in pod.containers:
        for entry in container.get("env", []):
            if reference := entry.get("valueFrom", {}).get("secretKeyRef"):
                yield "Secret", reference["name"], reference["key"]


def _addresses(pod: PodTemplate, objects: tuple[Manifest, ...]) -> set[tuple[str, int]]:
    texts = [entry.get("value") or "" for c in pod.containers for entry in c.get("env", [])]
    for kind, name in _references(pod):
        item = next((i for i in objects if title(i) == f"{kind}/{name}" and kind == "ConfigMap"), {})
        texts += [text for key, text in item.get("data", {}).items() if key.startswith("AIRFLOW__")]
    return {(m[1], int(m[2])) for text in texts for m in _HOST_IN_URL.finditer(text)}


def not_let_through(
    objects: tuple[Manifest, ...], caller: PodTemplate, callee: PodTemplate, port: str
) -> Iterator[str]:
    """Say which policies keep one pod from a named port of another."""
    numbers = {p["name"]: p["containerPort"] for c in callee.containers for p in c.get("ports", [])}
    wanted = {port, numbers[port]}
    for direction, here, there in (("Egress", caller, callee), ("Ingress", callee, caller)):
        policies = [
            item
            for item in objects
            if item["kind"] == "NetworkPolicy" and selects(item["spec"]["podSelector"], here.labels)
        ]
        rules = [rule for policy in policies for rule in policy["spec"].get(direction.lower(), [])]
        if policies and not any(_allows(rule, wanted, there) for rule in rules):
            yield f"{direction} of {here.title} does not let {caller.title} reach {callee.title}:{port}"


def _allows(rule: Mapping[str, Any], wanted: set[Any], peer: PodTemplate) -> bool:
    peers = rule.get("to", rule.get("from", []))
    reaches = not peers or any("podSelector" in p and selects(p["podSelector"], peer.labels) for p in peers)
    return reaches and ("ports" not in rule or any(port["port"] in wanted for port in rule["ports"]))
