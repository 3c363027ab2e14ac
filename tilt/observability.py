"""
Prints what Prometheus and Grafana are to read, as ConfigMaps made from k8s/observability, for kubectl.

Argument: namespace. Nothing is kept twice: alerts and dashboard are the files themselves, and the scrape
configuration differs in one point. It looks for pods in its own namespace only, because a local cluster may
have others, and so that a Role is enough.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

FILES = Path(__file__).parent.parent / "k8s" / "observability"

INTERVAL = "15s"
"""Four times as often as by default: somebody sits and watches. tilt/grafana.yaml says it to Grafana."""


def in_its_own_namespace(job: dict[str, Any]) -> dict[str, Any]:
    """Return a scrape job whose discovery needs no rights beyond the namespace."""
    discoveries = [{**one, "namespaces": {"own_namespace": True}} for one in job["kubernetes_sd_configs"]]
    return {**job, "kubernetes_sd_configs": discoveries}


def prometheus_config() -> dict[str, Any]:
    """Return Prometheus' configuration: our scrape jobs and alerts."""
    scraped = yaml.safe_load((FILES / "scrape.yaml").read_text())
    return {
        **scraped,
        "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": ["alerts.yaml"],
        "scrape_configs": [in_its_own_namespace(job) for job in scraped["scrape_configs"]],
    }


def objects(namespace: str) -> list[dict[str, Any]]:
    """Return what kubectl is to apply."""
    contents = {
        "prometheus": {
            "prometheus.yml": json.dumps(prometheus_config(), indent=1),  # JSON is YAML
            "alerts.yaml": (FILES / "alerts.yaml").read_text(),
        },
        "grafana-dashboards": {"dashboard.json": (FILES / "dashboard.json").read_text()},
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace},
            "data": data,
        }
        for name, data in contents.items()
    ]


def main(namespace: str) -> None:
    """Print the objects as a YAML stream."""
    sys.stdout.write("\n---\n".join(json.dumps(item) for item in objects(namespace)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
