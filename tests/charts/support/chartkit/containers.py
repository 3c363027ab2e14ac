"""
Runs the pods of a render in the images, without a container engine or a cluster.

What a kubelet would do, as far as a pod can notice: image root read-only, volumes from Secrets, ConfigMaps
and emptyDirs, environment, user and group, no privileges, init containers first, probes asked as declared.
All pods share the caller's network, so every port may be used once, and Services are names of 127.0.0.1.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from chartkit.rendering import Manifest, PodTemplate, title
from jetbridge.devstack.processes import Command, ManagedProcess, Supervisor

_INSIDE = Path(__file__).with_name("inside.py")
_NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
_BUILDAH = {"BUILDAH_ISOLATION": "chroot"}


def images() -> set[str]:
    """Return the names of images that buildah has; none where buildah is not."""
    if shutil.which("buildah") is None or os.geteuid() != 0:
        return set()
    listed = _buildah("images", "--format", "{{.Name}}:{{.Tag}}").split()
    return {name.removeprefix("localhost/") for name in listed}


def _buildah(*arguments: str) -> str:
    env = {**os.environ, **_BUILDAH}
    return subprocess.run(
        ["buildah", *arguments], check=True, capture_output=True, text=True, env=env
    ).stdout.strip()


@dataclass(frozen=True)
class Image:
    """A mounted image: its files, and what it says about running it."""

    container: str
    root: Path
    config: Mapping[str, Any]
    healthcheck: tuple[str, ...]

    @classmethod
    def mount(cls, name: str) -> Image:
        """Mount an image of buildah's storage."""
        container = _buildah("from", "--pull-never", name)
        inspected = json.loads(_buildah("inspect", container))
        # The OCI format has no health checks.
        _, *healthcheck = inspected["Docker"]["config"].get("Healthcheck", {}).get("Test", [""])
        root = Path(_buildah("mount", container))
        return cls(container, root, inspected["OCIv1"]["config"], tuple(healthcheck))

    def remove(self) -> None:
        """Unmount and delete the working container."""
        _buildah("rm", self.container)

    @property
    def env(self) -> dict[str, str]:
        """Return the image's environment."""
        return dict(entry.split("=", 1) for entry in self.config.get("Env", []))


@dataclass
class Node:
    """Runs pods of ``objects``. ``secrets`` are those that are not among the objects, by name and key."""

    supervisor: Supervisor
    directory: Path
    objects: tuple[Manifest, ...]
    secrets: dict[str, dict[str, str]]
    mounted: dict[str, Image] = field(default_factory=dict)

    def close(self) -> None:
        """Remove what was mounted."""
        for image in self.mounted.values():
            image.remove()

    def run(self, pod: PodTemplate, container: Mapping[str, Any], argv: list[str] | None = None) -> None:
        """Run a container to its end, as a Job does; ``argv`` runs something else in it."""
        process = self._process(pod, container, argv)
        process.start()
        code = process.wait(900)
        assert code == 0, f"{process.name} ended with {code}:\n{process.log_tail()}"

    def output(self, pod: PodTemplate, container: Mapping[str, Any], argv: list[str]) -> str:
        """Run a command in a container like this one, as `kubectl exec` would, and return what it printed."""
        command = self._command(pod, container, argv)
        done = subprocess.run(
            [str(word) for word in command.argv],
            env=dict(command.env),
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    def start(self, pod: PodTemplate) -> ManagedProcess:
        """Start a pod: init containers, then its first container until its startup probe succeeds."""
        for container in pod.spec.get("initContainers", []):
            self.run(pod, container)
        container = pod.spec["containers"][0]
        process = self._process(pod, container, None)
        process.start()
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe := container.get(kind):
                process.wait_ready(
                    lambda probe=probe: self._succeeds(pod, container, probe), timeout_seconds=600
                )
        return process

    def healthcheck(self, pod: PodTemplate) -> None:
        """Run the image's own health check in a running pod; raises when it says that the pod is not well."""
        container = pod.spec["containers"][0]
        self.output(pod, container, list(self._image(container["image"]).healthcheck))

    def stop(self, process: ManagedProcess, grace_seconds: int) -> int:
        """Stop a pod as a kubelet does; returns the exit code of its first process."""
        (first,) = psutil.Process(process.pid).children()
        first.terminate()
        return process.wait(grace_seconds)

    def _succeeds(self, pod: PodTemplate, container: Mapping[str, Any], probe: Mapping[str, Any]) -> bool:
        if "exec" in probe:
            try:
                self.output(pod, container, probe["exec"]["command"])
            except subprocess.CalledProcessError:
                return False
            return True
        get = probe["httpGet"]
        port = next(p["containerPort"] for p in container["ports"] if p["name"] == get["port"])
        if get["port"] == "metrics":  # moved where pods that share this network have the same
            moved = [e["value"] for e in container["env"] if e["name"].endswith("_METRICS_PORT")]
            port = moved[-1]
        url = f"{get.get('scheme', 'HTTP').lower()}://127.0.0.1:{port}{get['path']}"
        try:
            # A kubelet verifies no certificate either.
            return httpx.get(url, verify=False, trust_env=False, timeout=probe["timeoutSeconds"]).is_success  # noqa: S501
        except httpx.TransportError:
            return False

    def _process(
        self, pod: PodTemplate, container: Mapping[str, Any], argv: list[str] | None
    ) -> ManagedProcess:
        component = pod.labels["app.kubernetes.io/component"]
        name = f"{component}-{container['name']}-{len(self.supervisor.processes)}"
        return self.supervisor.add(name, self._command(pod, container, argv))

    def _command(self, pod: PodTemplate, container: Mapping[str, Any], argv: list[str] | None) -> Command:
        image = self._image(container["image"])
        default = [*image.config.get("Entrypoint", []), *container.get("args", image.config.get("Cmd", []))]
        spec = {
            "root": str(image.root),
            "mounts": self._mounts(pod, container),
            "directory": image.config.get("WorkingDir") or "/",
            "argv": argv or container.get("command") or default,
            "env": image.env | self._environment(pod, container),
            "user": pod.spec["securityContext"]["runAsUser"],
            "group": pod.spec["securityContext"]["runAsGroup"],
        }
        file = (
            self.directory
            / f"{pod.labels['app.kubernetes.io/component']}-{container['name']}-{os.urandom(3).hex()}"
        )
        file.touch(mode=0o600)
        file.write_text(json.dumps(spec))
        return Command(argv=[*_NAMESPACES, sys.executable, _INSIDE, file], env=dict(os.environ))

    def _image(self, name: str) -> Image:
        if name not in self.mounted:
            self.mounted[name] = Image.mount(name)
        return self.mounted[name]

    def _environment(self, pod: PodTemplate, container: Mapping[str, Any]) -> dict[str, str]:
        found = {"HOSTNAME": self._name(pod), "HOME": "/tmp"}  # noqa: S108 - in the container
        for source in container.get("envFrom", []):
            found |= self._data("ConfigMap", source["configMapRef"]["name"])
        for entry in container.get("env", []):
            reference = entry.get("valueFrom", {})
            if "secretKeyRef" in reference:
                found[entry["name"]] = self._data("Secret", reference["secretKeyRef"]["name"])[
                    reference["secretKeyRef"]["key"]
                ]
            else:
                found[entry["name"]] = self._name(pod) if "fieldRef" in reference else entry["value"]
        return found

    def _name(self, pod: PodTemplate) -> str:
        return f"{pod.owner['metadata']['name']}-7c9f8b6d5-x2x4z"

    def _data(self, kind: str, name: str) -> dict[str, str]:
        if kind == "Secret" and name in self.secrets:
            return self.secrets[name]
        item = next(item for item in self.objects if title(item) == f"{kind}/{name}")
        data: dict[str, str] = item.get("data", {})
        return {k: base64.b64decode(v).decode() for k, v in data.items()} if kind == "Secret" else data

    def _mounts(self, pod: PodTemplate, container: Mapping[str, Any]) -> list[dict[str, Any]]:
        volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
        mounts = [
            {
                "source": str(self._volume(pod, volumes[mount["name"]])),
                "target": mount["mountPath"],
                "read_only": mount.get("readOnly", False),
            }
            for mount in container["volumeMounts"]
        ]
        hosts = self.directory / "hosts"
        names = [item["metadata"]["name"] for item in self.objects if item["kind"] == "Service"]
        hosts.write_text(f"127.0.0.1 localhost {' '.join(names)}\n")
        return [*mounts, {"source": str(hosts), "target": "/etc/hosts", "read_only": True}]

    def _volume(self, pod: PodTemplate, volume: Mapping[str, Any]) -> Path:
        place = self.directory / "volumes" / pod.owner["metadata"]["name"] / volume["name"]
        if place.exists():
            return place
        place.mkdir(parents=True)
        user, group = (pod.spec["securityContext"][key] for key in ("runAsUser", "fsGroup"))
        if "emptyDir" in volume:
            place.chmod(0o2777)
            os.chown(place, 0, group)
            return place
        source = volume.get("secret") or volume["configMap"]
        kind = "Secret" if "secret" in volume else "ConfigMap"
        data = self._data(kind, source.get("secretName") or source.get("name"))
        items = source.get("items") or [{"key": key, "path": key} for key in data]
        for item in items:
            file = place / item["path"]
            file.write_text(data[item["key"]])
            # A kubelet adds the group's right to read when there is an fsGroup.
            file.chmod(source.get("defaultMode", 0o644) | 0o040)
            os.chown(file, 0, group)
        assert user != 0
        return place
