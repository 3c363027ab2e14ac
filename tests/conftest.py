"""Fixtures for every test; the real servers come from ``jetbridge.devstack.pytest_plugin``."""

from __future__ import annotations

pytest_plugins = ["jetbridge.devstack.pytest_plugin"]
