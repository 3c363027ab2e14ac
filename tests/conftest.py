"""Fixtures for every test; the real servers come from ``jetbridge.devstack.pytest_plugin``."""

from __future__ import annotations

import os
from tempfile import TemporaryDirectory

pytest_plugins = ["jetbridge.devstack.pytest_plugin"]

# Importing Airflow creates this directory: before any test does, and not in the home of whoever runs them.
_airflow_home = TemporaryDirectory(prefix="jetbridge-tests-airflow-")
os.environ["AIRFLOW_HOME"] = _airflow_home.name
