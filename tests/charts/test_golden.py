"""The golden renders are what the charts render today."""

from __future__ import annotations

import pytest
from chartkit.golden import golden_text
from chartkit.rendering import CHARTS, Scenario, scenarios


def test_render_is_the_golden_one(scenario: Scenario, request: pytest.FixtureRequest) -> None:
    text = golden_text(scenario)
    if request.config.getoption("--update-golden"):
        scenario.golden.write_text(text)
    kept = scenario.golden.read_text() if scenario.golden.exists() else ""
    assert text == kept, "the render moved: look at it, then `make golden` and commit the difference"


def test_no_golden_render_is_left_over() -> None:
    assert set(CHARTS.glob("*/golden/*")) == {scenario.golden for scenario in scenarios()}
