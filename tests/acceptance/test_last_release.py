"""
The last release's agents on this plane: the example runs, as it does when the plane was upgraded first.

Starts by itself once there is a tag ``v…`` in this history; until then it is skipped and says so.
``JETBRIDGE_TEST_RELEASE`` names another commit to take the agents from.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
from dataclasses import replace

import pytest

from jetbridge.devstack import orders
from jetbridge.devstack.demo import AGENTS
from jetbridge.devstack.home import workspace
from jetbridge.devstack.stack import DevStack, StackOptions

RUN_SECONDS = 300
PACKAGES = ("jetbridge-worker", "jetbridge-triggerer", "jetbridge-dag-processor")


def last_release():
    """The newest tag before this commit; empty where there is none or no git."""
    if named := os.environ.get("JETBRIDGE_TEST_RELEASE"):
        return named
    words = ["git", "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", "HEAD^"]
    try:
        return subprocess.run(
            words, cwd=workspace(), check=True, capture_output=True, text=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


RELEASE = last_release()
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not RELEASE, reason="there is no release yet: no tag v… before this commit"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The `jetbridge` of the last release, installed from its own lock file."""
    source = tmp_path_factory.mktemp("release")
    archive = source / "release.tar"
    subprocess.run(["git", "archive", "--output", archive, RELEASE], cwd=workspace(), check=True)
    with tarfile.open(archive) as tar:
        tar.extractall(source, filter="data")
    packages = [word for package in PACKAGES for word in ("--package", package)]
    # --no-editable: what runs is what was released, wherever its sources are.
    command = ["uv", "sync", "--frozen", "--no-dev", "--no-editable", "--compile-bytecode", *packages]
    env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    subprocess.run(command, cwd=source, env=env, check=True)
    return source / ".venv" / "bin" / "jetbridge"


def test_agents_of_the_last_release_run_the_example(program, tmp_path):
    agents = tuple(replace(spec, program=program) for spec in AGENTS if spec.role != "sentinel")
    options = StackOptions(
        dags=workspace() / "examples" / "dags", agents=agents, directory=tmp_path, isolate=False
    )
    with DevStack(options) as stack:
        stack.client.await_dag(orders.DAG_ID)
        stack.client.unpause(orders.DAG_ID)
        run_id = stack.client.trigger(orders.DAG_ID)
        state = stack.await_run(orders.DAG_ID, run_id, timeout_seconds=RUN_SECONDS)
        assert state == "success", stack.client.task_instances(orders.DAG_ID, run_id)
        assert orders.differences(stack.s3, run_id) == []
