"""Charts and their scenarios, rendered by Helm's own library: no helm binary, no cluster."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).resolve().parents[4]
CHARTS = ROOT / "k8s" / "charts"
NAMESPACE = "jetbridge"
RELEASES = {"jetbridge-plane": "jetbridge", "jetbridge-agents": "jetbridge-agents"}
TESTED = "helm.sh/hook"

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """A values file and the chart it is for."""

    chart: str
    name: str
    values_file: Path

    def __str__(self) -> str:
        return f"{self.chart}:{self.name}"

    @property
    def release(self) -> str:
        return RELEASES[self.chart]

    @property
    def directory(self) -> Path:
        return CHARTS / self.chart

    @property
    def values(self) -> dict[str, Any]:
        loaded = yaml.safe_load(self.values_file.read_text())
        return loaded if isinstance(loaded, dict) else {}

    @property
    def golden(self) -> Path:
        return self.directory / "golden" / f"{self.name}.yaml"


def scenarios() -> list[Scenario]:
    """Return every scenario of both charts: the trial, and each file in ci/."""
    return [scenario for chart in RELEASES for scenario in _of_chart(chart)]


def _of_chart(chart: str) -> Iterator[Scenario]:
    yield Scenario(chart, "trial", CHARTS / chart / "trial-values.yaml")
    for file in sorted((CHARTS / chart / "ci").glob("*-values.yaml")):
        yield Scenario(chart, file.name.removesuffix("-values.yaml"), file)


@functools.cache
def rendered_files(scenario: Scenario) -> Mapping[str, str]:
    """Return each template's text by its path, NOTES.txt included."""
    return render(scenario.chart, scenario.values)


def render(chart: str, values: Mapping[str, Any]) -> Mapping[str, str]:
    """Render a chart as `helm template` does; raises helm_python's errors."""
    with helm_python.Chart.load(CHARTS / chart) as loaded:
        return loaded.render(dict(values), name=RELEASES[chart], namespace=NAMESPACE)


@functools.cache
def manifests(scenario: Scenario) -> tuple[Manifest, ...]:
    """Return every object of a scenario, tests included."""
    return tuple(parse(rendered_files(scenario)))


def parse(files: Mapping[str, str]) -> Iterator[Manifest]:
    """Read the objects in rendered files."""
    for path, text in sorted(files.items()):
        if path.endswith(".yaml"):
            yield from (item for item in yaml.safe_load_all(text) if item)


def installed(objects: tuple[Manifest, ...]) -> tuple[Manifest, ...]:
    """Leave out what only `helm test` creates."""
    return tuple(item for item in objects if TESTED not in item["metadata"].get("annotations", {}))


@dataclass(frozen=True)
class PodTemplate:
    """A pod, or what a workload makes pods from, and who owns it."""

    owner: Manifest
    metadata: Mapping[str, Any]
    spec: Mapping[str, Any]

    @property
    def title(self) -> str:
        return title(self.owner)

    @property
    def labels(self) -> Mapping[str, str]:
        labels: Mapping[str, str] = self.metadata.get("labels", {})
        return labels

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def is_long_running(self) -> bool:
        return self.owner["kind"] in {"Deployment", "StatefulSet", "DaemonSet"}


def pods(objects: tuple[Manifest, ...]) -> list[PodTemplate]:
    """Return the pod template of everything that has one."""
    found = []
    for item in objects:
        if item["kind"] == "Pod":
            found.append(PodTemplate(item, item["metadata"], item["spec"]))
        elif item["kind"] in {"Deployment", "StatefulSet", "DaemonSet", "Job"}:
            template = item["spec"]["template"]
            found.append(PodTemplate(item, template["metadata"], template["spec"]))
    return found


def title(item: Manifest) -> str:
    """Return how a message names an object."""
    return f"{item['kind']}/{item['metadata']['name']}"


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Say whether a label selector (matchLabels only) selects these labels; an empty one selects all."""
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
