"""
Fixtures for every test, and in which order and by which process tests are run.

The real servers come from ``jetbridge.devstack.pytest_plugin``.
"""

from __future__ import annotations

import atexit
import gc
import os
from tempfile import TemporaryDirectory

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = ["jetbridge.devstack.pytest_plugin"]

# Importing Airflow creates this directory: before any test does, and not in the home of whoever runs them.
_airflow_home = TemporaryDirectory(prefix="jetbridge-tests-airflow-")
os.environ["AIRFLOW_HOME"] = _airflow_home.name
atexit.register(_airflow_home.cleanup)  # else it says at the end that nobody did

# Three thousand tests are a large heap, and the collector would go through all of it again and again: an
# eighth of what unit tests compute.
gc.set_threshold(50_000, 20, 20)

# Properties are about what is right. How long an example takes says what else the machine does at the moment.
hypothesis.settings.register_profile(
    "shared machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shared machine")

TOGETHER = {
    "tests/chaos/": "chaos",
    "tests/acceptance/test_orders_pipeline.py": "site",
    "tests/acceptance/test_dags_from_git.py": "site",
    "tests/acceptance/test_survival.py": "site",  # the last, for what it breaks
    "tests/acceptance/recorded/": "recorded site",
    "tests/integration/dag_processing/": "dag processing",
    "tests/integration/triggers/": "triggers",
    "tests/unit/airflows_api/": "airflows api",
}
"""What shares a stack or a plane runs in one process, so that it is started once; else a file is a group."""

FIRST = (
    # Two stacks, and beside them what mostly waits: to start four at once takes five times as long as one.
    "tests/chaos/",
    *(place for place, group in TOGETHER.items() if group == "site"),
    "tests/integration/gateway/",
    "tests/acceptance/recorded/",
    "tests/integration/dag_processing/",
    "tests/integration/worker/",
    "tests/integration/triggers/",
    "tests/acceptance/",
    "tests/integration/agents/",
    "tests/unit/airflows_api/",
    "tests/unit/failover/test_protocol_model.py",
    "tests/integration/",
)
"""
What takes long begins early, so that at the end no process waits for another's group, and what computes all
the time stands between what waits.
"""


def group_of(nodeid: str) -> str:
    """Return what a test belongs to: all tests of a group are run by one process, one after the other."""
    file = nodeid.partition("::")[0]
    return next((group for place, group in TOGETHER.items() if file.startswith(place)), file)


def _turn(item: pytest.Item) -> int:
    places = enumerate(FIRST)
    return next((turn for turn, place in places if item.nodeid.startswith(place)), len(FIRST))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest groups first; within a file the order stays."""
    items.sort(key=_turn)


class GroupScheduling(LoadScopeScheduling):
    """Hands out whole groups, in the order of the tests."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


@pytest.hookimpl(optionalhook=True)  # there is none under `-p no:xdist`
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling | None:
    """Schedule by group where ``--dist loadscope`` asks for scopes."""
    if config.getoption("dist") != "loadscope":
        return None
    config.option.loadscopereorder = False  # by the number of tests, which says nothing of their time
    return GroupScheduling(config, log)


class SharedByFolders:
    """
    Ends with a group of tests what its folder's session fixtures have started.

    A stack in which nothing happens any more still takes a part of a processor, and memory, from others. A
    plugin of its own: hooks of this file are not called for what belongs to the whole session.
    """

    def __init__(self) -> None:
        self._set_up: list[pytest.FixtureDef[object]] = []

    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> None:
        """Note the session fixtures of folders; those of plugins are of use to the whole session."""
        if fixturedef.scope == "session" and fixturedef.baseid.startswith("tests/"):
            self._set_up.append(fixturedef)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """End them, the last first."""
        if nextitem is None or group_of(nextitem.nodeid) == group_of(item.nodeid):
            return
        while self._set_up:
            self._set_up.pop().finish(item._request)


def pytest_configure(config: pytest.Config) -> None:
    """Add the above."""
    config.pluginmanager.register(SharedByFolders())
