"""
Tests of k8s/ and the Tiltfile. They need the dependency group ``charts``: `make charts` does all.

Without it (`make test`) this folder is left out, which the head of pytest's output says.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

MISSING = [name for name in ("helm_python", "kubernetes_validate", "starlark") if find_spec(name) is None]
collect_ignore_glob = ["test_*.py"] if MISSING else []

if not MISSING:
    from chartkit.rendering import Scenario, scenarios


def pytest_report_header() -> str:
    """Say why chart tests are not among the others."""
    return "charts: not tested here, run `make charts`" if MISSING else "charts: tested"


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--update-golden`` writes the golden renders instead of comparing them."""
    parser.addoption("--update-golden", action="store_true", help="write k8s/charts/*/golden")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test with an argument ``scenario`` once for each scenario."""
    if "scenario" in metafunc.fixturenames:
        metafunc.parametrize("scenario", scenarios(), ids=str)


@pytest.fixture
def plane_trial() -> Scenario:
    """Return the trial of the plane."""
    return next(s for s in scenarios() if str(s) == "jetbridge-plane:trial")


@pytest.fixture
def agents_trial() -> Scenario:
    """Return the trial of the agents."""
    return next(s for s in scenarios() if str(s) == "jetbridge-agents:trial")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    called = [report for report in reports if getattr(report, "when", "") == "call"]
    properties = [p for report in called for p in report.user_properties]
    sizes = [text for name, text in properties if name == "size"]
    if sizes:
        terminalreporter.section("sizes of the images' environments, bytecode included")
        for text in sizes:
            terminalreporter.write_line(text)
