"""
The stack that several files share, for what it costs to start one: a minute of computing.

A file that changes a shared stack in a way that others could notice comes last; the order is in
``tests/conftest.py``. Another one is in ``recorded``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jetbridge.devstack import demo
from jetbridge.devstack.home import workspace
from jetbridge.devstack.stack import DevStack, StackOptions

HERE = Path(__file__).parent


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
