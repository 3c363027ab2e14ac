"""
What crosses the boundary, shown and not promised: markers are planted in everything that must not, a run with
all kinds of agents is made, and then everything that reached the plane is searched for them.

Searched: everything in ``jetbridge.devstack.captured``, Redis, and the spans that all processes exported.

A second Dag has a task in each of some queues, which holds data of every class. The policy of its queue opens
one class, and exactly that is found.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess

import pytest
from markedkit import OPENED_BY_QUEUE, PLANTED, found, states

from jetbridge.bus.connection import open_bus
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.sites import open_sites
from jetbridge.contracts.boundary import CLASSES, Handling
from jetbridge.devstack import plane
from jetbridge.devstack.captured import database_dump
from jetbridge.devstack.markers import found_in

pytestmark = pytest.mark.slow

EXPECTED = {
    "secrets": "success",
    "refused": "success",
    "small": "success",
    "nested": "success",
    "large": "success",
    "listed": "success",
    "each": "success",
    "literal": "success",
    "read": "success",
    "fails_once": "success",
    "rendered": "success",
    "bash": "success",
    "defers": "success",
    "trigger_fails": "failed",
    "soon": "success",
}

OPENED = (
    ("dag-docs", {"dag-docs"}),
    ("exception-text", {"exception-text"}),
    ("task-arguments", {"task-arguments"}),
    ("dag-source", set(PLANTED) - {"variable-rendered"}),
)
"""Of a source that crosses, whatever is written in it crosses, so it comes last."""


def test_every_class_that_policies_decide_about_has_a_marker_or_cannot_be_planted(markers):
    closable = {data.value for data, rules in CLASSES.items() if rules.closed is not Handling.ALWAYS}
    planted = {
        "connections": "connection",
        "variables": "variable",
        "xcom-values": "xcom-small",
        "state-store-values": "state-store",
        "rendered-fields": "variable-rendered",
        "trigger-data": "carried-over",
    }
    left = {data for data in closable if planted.get(data, data) not in markers} - set(OPENED_BY_QUEUE)
    # Nobody asks for it: the executor says that connections are not tested where tasks run.
    assert left == {"connection-tests"}
    opened = {*OPENED_BY_QUEUE, "connections", *(data for data, _ in OPENED)}
    # The site's key seals the one whatever is opened; for the other there is no way to the plane at all.
    assert closable - opened == {"connection-tests", "trigger-data", "log-lines"}


@pytest.mark.usefixtures("run")
def test_all_four_roles_took_part(stack):
    """Three by what the audit counts of them below, the sentinel by what it reported."""

    async def seen():
        async with open_bus(BusSettings(url=stack.nats.url), "jetbridge-tests") as bus:
            reports = (await (await open_sites(bus)).all()).values()
            return {one.agent for report in reports for one in report.agents}

    stack.client.wait(
        lambda: {"works", "waits", "parses"} <= asyncio.run(seen()),
        "the sentinel to report the others",
        timeout_seconds=60,
    )


def test_the_run_is_as_it_would_be_anywhere(stack, run):
    assert states(stack, run) == EXPECTED


@pytest.mark.usefixtures("run")
def test_the_site_has_its_own_data(stack, markers):
    logs = [file.read_bytes() for file in (stack.directory / "agents").rglob("*.log")]
    assert any(markers["log-lines"].encode() in text for text in logs), "the marker was never printed"
    assert sum(b"Give the agents a secrets backend of their own" in text for text in logs) == 1, (
        "the task's log does not explain the refusal"
    )
    assert any(markers["exception-text"].encode() in text for text in logs)


@pytest.mark.usefixtures("run")
def test_by_default_nothing_that_was_planted_reached_the_plane(everything, markers):
    assert found(everything, markers) == {}


def test_the_search_looks_at_what_it_claims_to(everything, run):
    """The run's own id crosses, and is found in each of the places."""
    places = {place.split()[0] for place, data in everything() if run.encode() in data}
    assert {"traffic", "nats", "database", "log", "spans"} <= places


@pytest.mark.usefixtures("run")
def test_the_audit_says_what_was_refused_masked_and_sealed(stack):
    def rows():
        command = plane.JETBRIDGE, "boundary", "report", "--json", "--site", "here"
        env = os.environ | {"JETBRIDGE_NATS_URL": stack.nats.url}
        ended = subprocess.run(list(map(str, command)), capture_output=True, check=True, env=env)
        return {(row["class"], row["outcome"], row["agent"]) for row in json.loads(ended.stdout)}

    expected = {
        ("connections", "refused", "works"),
        ("variables", "refused", "works"),
        ("references", "crossed", "works"),
        ("trigger-data", "sealed", "works"),
        ("trigger-data", "sealed", "waits"),
    }
    stack.client.wait(
        lambda: expected <= rows(), "the audit to be written", timeout_seconds=90, every_seconds=2
    )


@pytest.mark.usefixtures("run")
def test_of_each_queue_the_class_that_its_policy_opens_is_found_and_no_other(everything, by_queue):
    planted = {(queue, data): mark for queue, held in by_queue.items() for data, mark in held.items()}
    assert set(found(everything, planted)) == {(data, data) for data in OPENED_BY_QUEUE}


@pytest.mark.usefixtures("run")
def test_no_chain_of_the_audit_is_broken(stack):
    env = os.environ | {"JETBRIDGE_NATS_URL": stack.nats.url}
    ended = subprocess.run(
        [str(plane.JETBRIDGE), "boundary", "verify"], capture_output=True, text=True, check=False, env=env
    )
    assert ended.returncode == 0, ended.stdout


@pytest.fixture(scope="module")
def crossed():
    """What was found until now: nothing, as an earlier test says, or what the last one saw."""
    return set()


@pytest.mark.parametrize(("data", "expected"), OPENED, ids=[data for data, _ in OPENED])
@pytest.mark.usefixtures("run")
def test_a_class_that_is_opened_crosses_and_nothing_else(stack, everything, markers, crossed, data, expected):
    command = [str(plane.JETBRIDGE), "policy", "set", "deployment", f"boundary.{data}=open"]
    env = os.environ | {"JETBRIDGE_NATS_URL": stack.nats.url}
    subprocess.run(command, check=True, capture_output=True, env=env)

    def is_stored():
        return found_in(database_dump(stack.database_url), [markers[data]])

    # A dump of the database and a search are work, and the next parse is two seconds away.
    stack.client.wait(is_stored, f"{data} to cross", timeout_seconds=120, every_seconds=2)
    before = set(crossed)
    crossed |= set(found(everything, markers))
    assert crossed - before == expected - before
