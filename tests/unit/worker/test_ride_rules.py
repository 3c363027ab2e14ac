"""The table of calls against Airflow's own Execution API. If this fails, Airflow has another operation."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from jetbridge.worker.ride_rules import RULES, Rule, row_of

ASK = """
import json
from airflow.api_fastapi.execution_api.routes import execution_api_router
print(json.dumps([[method, route.path.strip("/")] for route in execution_api_router.routes
                  for method in route.methods]))
"""


def operations():
    # In a process of its own: importing the api-server takes its time, and its warnings are not ours.
    told = subprocess.run([sys.executable, "-c", ASK], capture_output=True, check=True, timeout=120)
    return {(method, path) for method, path in json.loads(told.stdout.splitlines()[-1])}


def test_every_operation_of_airflow_has_a_row_and_every_row_an_operation():
    assert {(row.method, row.path) for row in RULES} == operations()
    assert len({(row.method, row.path) for row in RULES}) == len(RULES)


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
