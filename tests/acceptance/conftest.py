"""
The stacks that several files share, for what it costs to start one: a minute of computing.

A file that changes a shared stack in a way that others could notice has one of its own, or comes last; the
order is in ``tests/conftest.py``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from jetbridge.devstack import demo
from jetbridge.devstack.agents import AgentSpec
from jetbridge.devstack.home import workspace
from jetbridge.devstack.otlp import Collector
from jetbridge.devstack.stack import DevStack, StackOptions

HERE = Path(__file__).parent
FILES = {"AIRFLOW_CONN_FS_HERE": json.dumps({"conn_type": "fs", "extra": {"path": "/"}})}
TRACED_AGENTS = (
    AgentSpec(name="works", environment=lambda _: FILES),
    AgentSpec(name="waits", role="triggerer", queues=(), slots=100, environment=lambda _: FILES),
    AgentSpec(name="parses", role="dag-processor", queues=()),
)


def gathered(directory: Path, *sources: Path) -> Path:
    """Copy Dag files, and what lies in folders, into one directory."""
    for source in sources:
        for file in source.glob("*.py") if source.is_dir() else [source]:
            shutil.copy(file, directory)
    return directory


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The demo's system, with agents of all roles; Dags are in a Git repository, and none on the plane."""
    dags = gathered(
        tmp_path_factory.mktemp("site-dags"),
        workspace() / "examples" / "dags",
        HERE / "versioned_dags",
        HERE / "dags" / "held.py",
    )
    options = StackOptions(
        dags=dags,
        agents=demo.AGENTS,
        git=True,
        policy=("boundary.dag-docs=open",),  # test_dags_from_git looks at what the UI shows
        directory=tmp_path_factory.mktemp("site"),
    )
    with DevStack(options) as stack:
        yield stack


@pytest.fixture(scope="session")
def collector():
    """Takes the traces of the stack below."""
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="session")
def traced_site(collector, tmp_path_factory):
    """A worker, a triggerer and a Dag processor; everything is traced."""
    options = StackOptions(
        dags=gathered(
            tmp_path_factory.mktemp("traced-dags"), HERE / "traced_dags", HERE / "dags" / "deferred.py"
        ),
        agents=TRACED_AGENTS,
        isolate=False,  # else the agents could not reach a collector on this machine
        otlp_endpoint=collector.endpoint,
        directory=tmp_path_factory.mktemp("traced"),
    )
    with DevStack(options) as stack:
        yield stack
