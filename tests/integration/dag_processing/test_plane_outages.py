"""Parts of the plane go away and come back; nothing has to be done by hand, and nothing is forgotten."""

import pytest

from jetbridge.devstack.environment import base_environment
from jetbridge.devstack.plane import JETBRIDGE
from jetbridge.devstack.processes import Command

pytestmark = pytest.mark.long


@pytest.fixture
def running(start, folder, bundle, database, dag_source, local_bundle, eventually):
    """A Dag processor whose Dag the plane knows, and a way to change it and see the change."""
    processor = start([local_bundle(bundle, folder)])

    def change(name, meanwhile=lambda: None):
        (folder / "one.py").write_text(dag_source(f"{bundle}-{name}"))
        meanwhile()
        eventually(lambda: database.is_active(f"{bundle}-{name}"))
        return processor

    change("first")
    return change


def parsed(database, bundle, name="first"):
    return database.dag(f"{bundle}-{name}")["last_parsed_time"]


def test_a_bridge_that_was_started_anew_asks_for_what_it_forgot(running, plane, database, bundle, eventually):
    plane.bridge.kill()
    plane.bridge.start()
    plane.bridge.wait_ready(
        lambda: plane.bridge.log_tail(500).count("bridge started") >= 2, timeout_seconds=90
    )
    before = parsed(database, bundle)
    eventually(lambda: parsed(database, bundle) > before)
    running("second")


def test_without_a_bridge_the_agent_waits_for_it(running, plane):
    plane.bridge.kill()
    processor = running("second", meanwhile=plane.bridge.start)
    assert processor.process.alive


def test_two_bridges_share_the_work(running, plane, database, bundle, eventually):
    env = plane.database.environment | plane.servers.plane.bus_environment
    command = Command(argv=[JETBRIDGE, "bridge"], env=base_environment(env))
    second = plane.servers.supervisor.start(f"bridge-2-{bundle}", command)
    second.wait_ready(lambda: "bridge started" in second.log_tail(100), timeout_seconds=90)
    eventually(lambda: "Bulk-writing dags to db" in second.log_tail(1000))
    before = parsed(database, bundle)
    eventually(lambda: parsed(database, bundle) > before)
    running("second")
    second.stop()
    running("third")
    assert len(database.rows("SELECT * FROM dag_version WHERE dag_id = %s", f"{bundle}-third")) == 1


@pytest.mark.parametrize("server", ["gateway", "nats", "postgres"])
def test_the_agent_goes_on_when_it_is_back(running, plane, servers, server, database, eventually):
    if server == "gateway":
        process = plane.gateway
    else:
        process = next(one for one in servers.supervisor.processes if one.name == server)
    process.kill()

    def come_back():
        process.start()
        eventually(database.answers)

    processor = running("second", meanwhile=come_back)
    running("third")
    assert processor.process.alive
