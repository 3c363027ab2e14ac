"""The command line of ``jetbridge worker``, as a process of its own: it sets up logging for all of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from jetbridge.agent.errors import ExitCode
from jetbridge.agent.settings import load_settings
from jetbridge.contracts.ids import AgentToken
from jetbridge.worker.settings import WorkerSettings

OURS = ("JETBRIDGE_", "AIRFLOW")


def run(tmp_path, *argv, token=None):
    token_file = tmp_path / "token"
    if token is not None:
        token_file.touch(mode=0o600)
        token_file.write_text(token)
    given = ["--gateway", "https://gw.test", "--token-file", str(token_file), "--data-dir", str(tmp_path)]
    env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    command = [sys.executable, "-m", "jetbridge.cli", "worker", *given, *argv]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)


def test_wrong_flags(tmp_path):
    ended = run(tmp_path, "--slots", "none", "--drain-seconds", "-1")
    assert ended.returncode == ExitCode.USAGE
    assert "jetbridge worker: --slots (or JETBRIDGE_AGENT_SLOTS): " in ended.stderr
    assert "--drain-seconds (or JETBRIDGE_AGENT_DRAIN_SECONDS): " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_help_names_every_setting(tmp_path):
    ended = run(tmp_path, "--help")
    assert ended.returncode == 0
    for field in WorkerSettings.model_fields:
        assert f"--{field.replace('_', '-')}" in ended.stdout


def test_no_token(tmp_path):
    ended = run(tmp_path)
    assert ended.returncode == ExitCode.USAGE
    said = json.loads(ended.stderr.splitlines()[-1])
    assert said["reason"].startswith(f"the token file {tmp_path / 'token'} cannot be read")


def test_no_object_store(tmp_path):
    token = AgentToken.generate()
    ended = run(tmp_path, token=str(token))
    assert ended.returncode == ExitCode.USAGE
    said = json.loads(ended.stderr.splitlines()[-1])
    assert "JETBRIDGE_OBJECT_STORE_ENDPOINT_URL" in said["reason"]
    assert token.secret not in ended.stdout + ended.stderr


@pytest.mark.parametrize(("given", "preloaded"), [("", ()), ("pandas, numpy", ("pandas", "numpy"))])
def test_settings_of_a_worker(given, preloaded):
    argv = ["--gateway", "https://gw.test", "--token-file", "t", "--preload", given]
    settings = load_settings(WorkerSettings, argv, program="jetbridge worker")
    assert settings.preload == preloaded
    assert settings.drain_seconds == 600
