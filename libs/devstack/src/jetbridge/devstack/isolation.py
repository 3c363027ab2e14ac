"""Tries what an agent must not be able to do, from where the agent is."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from urllib.parse import urlsplit

import psutil

from jetbridge.devstack.agents import Agent
from jetbridge.devstack.environment import base_environment

_TRY_SECONDS = 30
_CONNECT = """
import json, socket, sys
def reaches(host, port):
    try:
        socket.create_connection((host, port), timeout=3).close()
        return True
    except OSError:
        return False
print(json.dumps({name: reaches(*address) for name, address in json.loads(sys.argv[1]).items()}))
"""

Address = tuple[str, int]


def address_of(url: str) -> Address:
    """Return host and port of a URL."""
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 0)


def reachable_from(agent: Agent, addresses: Mapping[str, Address]) -> dict[str, bool]:
    """Try to connect to each address from the agent's network; True where something answered."""
    prefix = agent.namespace.prefix if agent.namespace else ()
    done = subprocess.run(  # noqa: S603 - this interpreter with our own program
        [*prefix, sys.executable, "-c", _CONNECT, json.dumps(addresses)],
        env=base_environment(),
        capture_output=True,
        text=True,
        timeout=_TRY_SECONDS,
        check=True,
    )
    answers: dict[str, bool] = json.loads(done.stdout)
    return answers


def environments_of(agent: Agent) -> list[dict[str, str]]:
    """
    Return the environment of the agent's process and of each of its children.

    The kernel's word is taken where it gives one: an agent hides its memory, environment included, from
    everybody but root.
    """
    environments = [dict(agent.process.command.env)]
    process = psutil.Process(agent.process.pid)
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.AccessDenied, psutil.NoSuchProcess):
            environments.append(one.environ())
    return environments
