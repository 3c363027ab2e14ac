"""Secrets of a trial: of the right form, and the same again where they must be."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import yaml
from chartkit.rendering import CHARTS, Scenario, parse, render
from cryptography.fernet import Fernet


def secrets(chart: str, values: Mapping[str, object], name: str) -> dict[str, str]:
    """Return a rendered Secret's content."""
    found = next(
        i for i in parse(render(chart, values)) if (i["kind"], i["metadata"]["name"]) == ("Secret", name)
    )
    return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}


def test_they_are_random_and_of_the_right_form(plane_trial: Scenario) -> None:
    first, second = (secrets("jetbridge-plane", plane_trial.values, "jetbridge-trial") for _ in range(2))
    for key in ("fernet-key", "api-secret-key", "jwt-secret", "postgres-password"):
        assert first[key] != second[key]
        assert len(first[key]) >= 32
    Fernet(first["fernet-key"].encode())
    assert len({*first.values()}) == len(first)
    assert first["connection"].startswith(
        f"postgresql://airflow:{first['postgres-password']}@jetbridge-postgresql:"
    )


def test_with_a_seed_they_are_the_same_again_and_differ_from_each_other() -> None:
    values = yaml.safe_load((CHARTS / "jetbridge-plane" / "ci" / "trial-seeded-values.yaml").read_text())
    assert render("jetbridge-plane", values) == render("jetbridge-plane", values)
    found = secrets("jetbridge-plane", values, "jetbridge-trial")
    Fernet(found["fernet-key"].encode())
    assert len({*found.values()}) == len(found)
    other = {**values, "trial": {**values["trial"], "seed": "another"}}
    assert not {*found.values()} & {*secrets("jetbridge-plane", other, "jetbridge-trial").values()} - {
        found["redis-url"]
    }


def test_the_store_of_a_seeded_trial_is_stable(agents_trial: Scenario) -> None:
    values = agents_trial.values
    values["trial"]["seed"] = "for-tests-only"
    assert render("jetbridge-agents", values) == render("jetbridge-agents", values)
    found = secrets("jetbridge-agents", values, "jetbridge-agents-object-store")
    connection = yaml.safe_load(found["orders-connection"])
    assert (connection["login"], connection["password"]) == (found["access-key"], found["secret-key"])
    assert connection["host"] == "http://jetbridge-agents-object-store:9000"
