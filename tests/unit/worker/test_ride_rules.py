"""What becomes of a call while the plane is away. That no call is forgotten: tests/unit/airflows_api."""

from __future__ import annotations

import pytest

from jetbridge.worker.ride_rules import RULES, Rule, row_of

TI = "0190c3f4-0000-7000-8000-000000000001"


@pytest.mark.parametrize(
    ("method", "target", "rule"),
    [
        ("PUT", f"task-instances/{TI}/heartbeat", Rule.ANSWERED),
        ("PATCH", f"task-instances/{TI}/state", Rule.KEPT),
        ("PATCH", f"task-instances/{TI}/run", Rule.WAITS),
        ("POST", "xcoms/dag/run/task/key?map_index=3", Rule.KEPT),
        ("POST", "xcoms/dag/manual__2026-01-01T00%3A00%3A00/task/a/key/with/slashes", Rule.KEPT),
        ("GET", "xcoms/dag/run/task/key", Rule.WAITS),
        ("PUT", "variables/task-instances/x/state", Rule.WAITS),
        ("PUT", f"store/ti/{TI}/a%2Fb", Rule.KEPT),
        ("PUT", "store/asset/by-name/value?name=x&key=y", Rule.WAITS),
        ("POST", "something/new", Rule.WAITS),
        ("TRACE", f"task-instances/{TI}/state", Rule.WAITS),
    ],
)
def test_rules(method, target, rule):
    assert row_of(method, target).rule is rule


def test_only_the_tasks_state_is_its_end():
    assert [row.path for row in RULES if row.is_last] == ["task-instances/{task_instance_id}/state"]
    assert all(row.rule is Rule.KEPT for row in RULES if row.is_last)
