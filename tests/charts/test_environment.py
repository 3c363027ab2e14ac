"""Every variable a chart sets is read by the process it is set for, and has a value that process takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from chartkit.environment import READ_BY, airflow_variables, command_of, environment, variables
from chartkit.rendering import Scenario, manifests, pods

ALLOWED_PREFIXES = ("OTEL_", "AIRFLOW_CONN_")
NOT_OURS = {
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "TZ",
    "MALLOC_ARENA_MAX",
}


def commands(scenario: Scenario) -> Iterator[tuple[str, dict[str, str]]]:
    """Return each command of ours in a scenario with its environment."""
    objects = manifests(scenario)
    for pod in pods(objects):
        for container in pod.containers:
            command = command_of(pod, container)
            if command is not None:
                yield command, environment(container, objects)


def test_commands_are_found(plane_trial: Scenario, agents_trial: Scenario) -> None:
    found = {command for s in (plane_trial, agents_trial) for command, _ in commands(s)}
    assert found | {"airflow dag-processor"} == set(READ_BY)  # in a trial the agents' Dag processor parses


def test_every_variable_is_read_by_its_process(scenario: Scenario) -> None:
    for command, found in commands(scenario):
        known = frozenset().union(*(variables(settings) for settings in READ_BY[command]))
        for name in found:
            if not name.startswith(ALLOWED_PREFIXES) and name not in NOT_OURS:
                assert name in (airflow_variables() if name.startswith("AIRFLOW__") else known), (
                    command,
                    name,
                )


def test_every_value_is_taken(scenario: Scenario, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text('[{"name": "dags", "classpath": "a.Bundle"}]')  # the only one that is read
    for command, found in commands(scenario):
        for name in [name for name in os.environ if name.startswith("JETBRIDGE_")]:
            monkeypatch.delenv(name)
        for name, value in found.items():
            if name.startswith("JETBRIDGE_"):
                monkeypatch.setenv(name, str(file) if value.startswith("/etc/jetbridge/") else value)
        for settings in READ_BY[command]:
            settings()


def test_a_variable_nobody_reads_is_noticed() -> None:
    known = variables(READ_BY["jetbridge gateway"][2])
    assert "JETBRIDGE_GATEWAY_LEASE_SECONDS" in known
    assert "JETBRIDGE_REDIS_URL" in known  # an alias
    assert "JETBRIDGE_GATEWAY_REDIS_URL" not in known
    assert "AIRFLOW__CORE__EXECUTOR" in airflow_variables()
    assert "AIRFLOW__CORE__EXECUTER" not in airflow_variables()
