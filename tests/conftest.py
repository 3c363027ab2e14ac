"""Fixtures for every test; the real servers come from ``jetbridge.devstack.pytest_plugin``."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

pytest_plugins = ["jetbridge.devstack.pytest_plugin"]

# Importing Airflow creates this directory: before any test does, and not in the home of whoever runs them.
_airflow_home = TemporaryDirectory(prefix="jetbridge-tests-airflow-")
os.environ["AIRFLOW_HOME"] = _airflow_home.name

_TESTS = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Say which tests share expensive fixtures, so that pytest-xdist keeps them in one process.

    A module of acceptance tests starts a system of its own; elsewhere a folder shares servers and agents.
    """
    for item in items:
        kind, *rest = item.path.relative_to(_TESTS).parts
        own = kind == "acceptance" or len(rest) > 1
        item.add_marker(pytest.mark.xdist_group(f"{kind}/{rest[0]}" if own else kind))
