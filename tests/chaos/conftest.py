"""The world of all scenarios, the seed of the random ones, and the table of recovery times at the end."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from chaoskit.recovery import Recoveries
from chaoskit.world import LEASE_SECONDS, World, make_world

from jetbridge.devstack.home import home

ROUNDS = int(os.environ.get("ROUNDS") or 4)
"""Seeded rounds of random damage, a multiple of four of which has each part of the plane equally often."""

SEED = os.environ.get("SEED") or str(random.SystemRandom().randrange(10**6))

_recoveries = pytest.StashKey[Recoveries]()


def pytest_report_header() -> str:
    """Say how the random rounds can be had again."""
    return f"chaos: {ROUNDS} rounds; the same again with SEED={SEED} ROUNDS={ROUNDS}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with an argument ``round_number`` once a round."""
    if "round_number" in metafunc.fixturenames:
        metafunc.parametrize("round_number", range(ROUNDS))


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Return the test's own source of chance: the same for the same seed, whatever ran before."""
    print(f"SEED={SEED} ROUNDS={ROUNDS}")  # noqa: T201 - pytest shows it where a test fails, also in a process of xdist
    return random.Random(f"{SEED} {request.node.name}")  # noqa: S311 - chance, not a secret


@pytest.fixture(scope="session")
def shared_world(recoveries: Recoveries, tmp_path_factory: pytest.TempPathFactory):
    with make_world(tmp_path_factory.mktemp("chaos"), recoveries) as world:
        yield world


@pytest.fixture
def world(shared_world: World):
    """Return the shared world; whatever the scenario leaves dead is started again after it."""
    yield shared_world
    # Already now, and not only at the end: a run that is broken off keeps what it has measured.
    _write(shared_world.recoveries)
    shared_world.mend()


@pytest.fixture(scope="session")
def recoveries(request: pytest.FixtureRequest) -> Recoveries:
    """Return the table of all scenarios, also of those that need a stack of their own."""
    return request.config.stash.setdefault(_recoveries, Recoveries())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print how long each recovery took, and write it to a file beside it."""
    recoveries = config.stash.get(_recoveries, None)
    if recoveries is None or not recoveries.rows():
        return
    path = _write(recoveries)
    terminalreporter.section(f"recovery, lease {LEASE_SECONDS:g} s; also in {path}")
    for line in recoveries.table():
        terminalreporter.write_line(line)


def _write(recoveries: Recoveries) -> Path:
    path = home() / "chaos" / "recovery.json"
    recoveries.write(path, seed=SEED, rounds=ROUNDS, lease_seconds=LEASE_SECONDS)
    return path
