"""An agent's namespace reaches the plane address and nothing else, and is gone whatever happens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from jetbridge.devstack import netns
from jetbridge.devstack.agents import Agent
from jetbridge.devstack.guard import marked_processes
from jetbridge.devstack.isolation import reachable_from
from jetbridge.devstack.processes import Supervisor

PATIENCE_SECONDS = 30
reason = netns.unavailable()
needs_namespaces = pytest.mark.skipif(reason is not None, reason=f"no network namespaces here: {reason}")


@pytest.fixture
def network(run_directory):
    with Supervisor(run_directory) as supervisor:
        network = netns.Network(lambda name: supervisor.tell_guard(f"netns {name}"))
        supervisor.on_exit(network.close)
        yield network


def listener(host):
    return socket.create_server((host, 0))


def names():
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout


@needs_namespaces
def test_only_what_listens_on_the_plane_address_can_be_reached(network):
    first, second = network.add(), network.add()
    agents = [Agent(spec=None, process=None, namespace=namespace) for namespace in (first, second)]
    with listener(network.plane_address) as gateway, listener("127.0.0.1") as database:
        addresses = {
            "gateway": gateway.getsockname(),
            "database": database.getsockname(),
            "database by the plane address": (network.plane_address, database.getsockname()[1]),
            "the other agent": (second.address, gateway.getsockname()[1]),
        }
        assert reachable_from(agents[0], addresses) == {
            "gateway": True,
            "database": False,
            "database by the plane address": False,
            "the other agent": False,
        }
        assert reachable_from(agents[1], {"gateway": gateway.getsockname()}) == {"gateway": True}


@needs_namespaces
def test_two_networks_at_once_do_not_meet(network, tmp_path):
    with Supervisor(tmp_path / "other") as supervisor:
        other = netns.Network(lambda name: supervisor.tell_guard(f"netns {name}"))
        supervisor.on_exit(other.close)
        mine, theirs = network.add(), other.add()
        assert network.plane_address != other.plane_address
        with listener(other.plane_address) as foreign:
            agent = Agent(spec=None, process=None, namespace=mine)
            assert reachable_from(agent, {"foreign": foreign.getsockname()}) == {"foreign": False}
    assert theirs.name not in names()
    assert mine.name in names()


@needs_namespaces
def test_closing_deletes_namespaces_and_links(run_directory):
    with Supervisor(run_directory) as supervisor:
        network = netns.Network(lambda name: supervisor.tell_guard(f"netns {name}"))
        supervisor.on_exit(network.close)
        namespace = network.add()
        assert namespace.name in names()
    assert namespace.name not in names()


# Everything at once that a kill -9 could leave behind: postgres in a user namespace and its backends, a
# process in a network namespace, and the namespace itself.
STACK = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from jetbridge.devstack import netns
    from jetbridge.devstack.environment import base_environment
    from jetbridge.devstack.processes import Command, Supervisor
    from jetbridge.devstack.servers import nats, postgres, redis, s3

    with Supervisor(Path(sys.argv[1])) as supervisor:
        network = netns.Network(lambda name: supervisor.tell_guard(f"netns {name}"))
        supervisor.on_exit(network.close)
        namespaced = ()
        if netns.unavailable() is None:
            namespaced = network.add().prefix
        for server in (nats, postgres, redis, s3):
            server.start(supervisor)
        sleeper = [*namespaced, sys.executable, "-c", "import time; time.sleep(600)"]
        supervisor.start("sleeper", Command(argv=sleeper, env=base_environment()))
        print(supervisor.mark, namespaced[-1] if namespaced else "-", flush=True)
        time.sleep(600)
    """
)


@pytest.mark.parametrize("guarded", [True, False], ids=["with the guard", "the guard was killed first"])
def test_kill_9_leaves_no_server_and_no_namespace(run_directory, guarded):
    env = {name: value for name, value in os.environ.items() if not name.startswith("JETBRIDGE_TEST_")}
    with subprocess.Popen(
        [sys.executable, "-c", STACK, run_directory], stdout=subprocess.PIPE, text=True, env=env
    ) as supervising:
        mark, namespace = supervising.stdout.readline().split()
        running = marked_processes(mark)
        assert len(running) >= 4
        if not guarded:
            for child in psutil.Process(supervising.pid).children():
                if "jetbridge.devstack.guard" in child.cmdline():
                    child.kill()
        supervising.send_signal(signal.SIGKILL)
    eventually(lambda: not marked_processes(mark), "the end of every server")
    if guarded and namespace != "-":
        eventually(lambda: namespace not in names(), "the end of the namespace")
    elif namespace != "-":
        subprocess.run(["ip", "netns", "delete", namespace], check=True)


def eventually(condition, what):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s: {what}"
        time.sleep(0.02)
