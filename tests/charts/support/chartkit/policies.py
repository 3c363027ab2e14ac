"""
What must be so in every pod and every role that these charts make.

Each policy is a function that returns complaints; none means that all is well. They are checked in turn on
every scenario, and a test breaks each of them on purpose.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from chartkit.rendering import Manifest, PodTemplate, pods

MAY_USE_THE_API = ("trial-token", "worker-pods", "sentinel", "prometheus")
"""
Components that may have a Kubernetes API token: the trial's bootstrap, workers that were told to, the agents'
sentinel, which watches pods, and the Prometheus of the Tiltfile, which looks for them.
"""

_SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|FERNET|CONN(ECTION)?(_|$)|(ACCESS|PRIVATE)_KEY")
_PUBLIC_NAME = re.compile(r"_(FILE|PATH|URL|SECONDS|PROBE)$")  # PROBE: the name of a secret
_CREDENTIALS_IN_URL = re.compile(r"[a-z0-9+]+://[^/\s:@]+:[^/\s@]+@")

Policy = Callable[[tuple[Manifest, ...]], Iterator[str]]


def each_container(objects: tuple[Manifest, ...]) -> Iterator[tuple[PodTemplate, Mapping[str, Any], str]]:
    for pod in pods(objects):
        for container in pod.containers:
            yield pod, container, f"{pod.title} {container['name']}"


def runs_as_an_ordinary_user(objects: tuple[Manifest, ...]) -> Iterator[str]:
    for pod in pods(objects):
        context = pod.spec.get("securityContext", {})
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            yield f"{pod.title} may run as root"
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{pod.title} has no seccomp profile"


def containers_are_locked_down(objects: tuple[Manifest, ...]) -> Iterator[str]:
    for _, container, name in each_container(objects):
        context = container.get("securityContext", {})
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{name} can write to its image"
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            yield f"{name} can gain privileges"
        if context.get("capabilities", {}).get("drop") != ["ALL"] or context["capabilities"].get("add"):
            yield f"{name} keeps capabilities"


def stays_off_the_host(objects: tuple[Manifest, ...]) -> Iterator[str]:
    for pod in pods(objects):
        if any(pod.spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{pod.title} shares the host's namespaces"
        if any("hostPath" in volume for volume in pod.spec.get("volumes", [])):
            yield f"{pod.title} mounts the host's files"
        if any("hostPort" in port for c in pod.containers for port in c.get("ports", [])):
            yield f"{pod.title} takes a port of the host"


def images_are_pinned(objects: tuple[Manifest, ...]) -> Iterator[str]:
    for _, container, name in each_container(objects):
        image = container["image"]
        tag = image.rpartition("/")[2].partition(":")[2]
        if "@sha256:" not in image and tag in {"", "latest"}:
            yield f"{name} runs {image!r}, which can be another image tomorrow"


def resources_are_set(objects: tuple[Manifest, ...]) -> Iterator[str]:
    for _, container, name in each_container(objects):
        resources = container.get("resources", {})
        if not {"cpu", "memory"} <= resources.get("requests", {}).keys():
            yield f"{name} asks for no CPU or memory"
        if "memory" not in resources.get("limits", {}):
            yield f"{name} has no memory limit"


def secrets_are_references(objects: tuple[Manifest, ...]) -> Iterator[str]:
    for _, container, name in each_container(objects):
        for entry in container.get("env", []):
            if entry.get("value") and _is_secret(entry["name"]):
                yield f"{name} has the value of {entry['name']} in clear"
    for item in objects:
        if item["kind"] != "Secret":
            yield from (f"{item['kind']} holds credentials in {text!r}" for text in _with_credentials(item))


def _is_secret(name: str) -> bool:
    return bool(_SECRET_NAME.search(name)) and not _PUBLIC_NAME.search(name)


def _with_credentials(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _with_credentials(part)
    elif isinstance(value, list):
        for part in value:
            yield from _with_credentials(part)
    elif isinstance(value, str) and _CREDENTIALS_IN_URL.search(value):
        yield value


def api_tokens_are_exceptions(objects: tuple[Manifest, ...]) -> Iterator[str]:
    for pod in pods(objects):
        component = pod.labels.get("app.kubernetes.io/component", "")
        if pod.spec.get("automountServiceAccountToken") is not False and component not in MAY_USE_THE_API:
            yield f"{pod.title} gets a Kubernetes API token"


def roles_are_narrow(objects: tuple[Manifest, ...]) -> Iterator[str]:
    for item in objects:
        if item["kind"].startswith("ClusterRole"):
            yield f"{item['kind']} {item['metadata']['name']}: nothing here needs the whole cluster"
        for rule in item.get("rules", []) if item["kind"] == "Role" else []:
            if "*" in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]:
                yield f"Role {item['metadata']['name']} has a wildcard"
            if "secrets" in rule["resources"] and not rule.get("resourceNames"):
                yield f"Role {item['metadata']['name']} reads every Secret"


def long_running_containers_are_probed(objects: tuple[Manifest, ...]) -> Iterator[str]:
    for pod in pods(objects):
        for container in pod.spec["containers"][:1] if pod.is_long_running else []:
            wanted = {"startupProbe", "livenessProbe"}
            if not wanted <= container.keys():
                yield f"{pod.title} {container['name']} is not probed"
            yield from _impatient(pod, container)


def _impatient(pod: PodTemplate, container: Mapping[str, Any]) -> Iterator[str]:
    probe = container.get("startupProbe", {})
    patience = probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)
    if probe and patience < 120:
        yield f"{pod.title} is killed after {patience} s of starting; a slow node needs 2 minutes"


POLICIES: tuple[Policy, ...] = (
    runs_as_an_ordinary_user,
    containers_are_locked_down,
    stays_off_the_host,
    images_are_pinned,
    resources_are_set,
    secrets_are_references,
    api_tokens_are_exceptions,
    roles_are_narrow,
    long_running_containers_are_probed,
)
