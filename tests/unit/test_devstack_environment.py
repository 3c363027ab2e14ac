"""Children get an allow list, not the developer's shell."""

from __future__ import annotations

import sys
from pathlib import Path

from jetbridge.devstack.environment import PASSED_ON, base_environment


def test_nothing_unnamed_is_passed_on(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    monkeypatch.setenv("JETBRIDGE_NATS_URL", "nats://planted")
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://planted")
    env = base_environment({"NAMED": "yes"})
    assert set(env) <= {*PASSED_ON, "PYTHONUNBUFFERED", "NAMED"}
    assert "planted" not in str(env)


def test_this_interpreters_commands_come_first():
    assert base_environment()["PATH"].split(":")[0] == str(Path(sys.executable).parent)


def test_what_is_named_wins(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert base_environment({"HOME": "/elsewhere"})["HOME"] == "/elsewhere"
