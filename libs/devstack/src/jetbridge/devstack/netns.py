"""
A network namespace per agent, so that an agent reaches the gateway and its object store and nothing else.

Each agent's namespace is joined to this host by a veth pair. The host's end of every pair carries the
same plane address as a /32, and each agent's namespace has a route to that one address only (the
unnumbered scheme of Calico): no bridge, no forwarding, no way from agent to agent or to any other
address of the host. What shall be reachable binds the plane address; everything else binds 127.0.0.1,
which in a namespace is the namespace's own.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from jetbridge.devstack.errors import DevStackError
from jetbridge.devstack.guard import delete_namespace

_TRIES = 50
_NETWORKS = 512
_MAX_AGENTS = 250


class NamespaceError(DevStackError):
    """A command of iproute2 failed; its words are in the text."""


@dataclass(frozen=True)
class Namespace:
    """One agent's network. Prefix a command with ``prefix`` to run it inside."""

    name: str
    address: str
    plane_address: str
    link: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """Return the words before a command that has it run in this namespace."""
        return ("ip", "netns", "exec", self.name)

    def cut_requests(self) -> None:
        """Let nothing leave the agent. Its calls fail at once, as when a route is gone."""
        _ip("-n", self.name, "route", "replace", "blackhole", f"{self.plane_address}/32")

    def cut_answers(self) -> None:
        """Let nothing reach the agent. What it sends arrives; its calls hang, as over a dead line."""
        _ip("route", "replace", "blackhole", f"{self.address}/32")

    def heal(self) -> None:
        """Join the link again in both directions."""
        _ip("-n", self.name, "route", "replace", f"{self.plane_address}/32", "dev", "eth0")
        _ip("route", "replace", f"{self.address}/32", "dev", self.link)


def unavailable() -> str | None:
    """Return why namespaces cannot be made here, in a few words, or None when they can."""
    if os.geteuid() != 0:
        return "not root"
    if shutil.which("ip") is None:
        return "no `ip` command (Debian package iproute2)"
    probe = f"jetbridge-probe-{os.getpid()}"
    try:
        _ip("netns", "add", probe)
    except NamespaceError as exc:
        return str(exc)
    delete_namespace(probe)
    return None


class Network:
    """
    The namespaces of one run. ``plane_address`` exists once the first agent was added.

    ``announce`` is told each namespace's name as soon as it is made (not before: it might be another
    run's), so that somebody can delete it even if this process is killed.
    """

    def __init__(self, announce: Callable[[str], None]) -> None:
        self._announce = announce
        self._namespaces: list[Namespace] = []
        self._number = -1

    @property
    def plane_address(self) -> str:
        """Return the address at which agents find the host."""
        return self._host(1)

    def add(self) -> Namespace:
        """Make one agent's namespace with its link and its one route."""
        if len(self._namespaces) == _MAX_AGENTS:
            msg = f"a network of this kind has room for {_MAX_AGENTS} agents"
            raise NamespaceError(msg)
        namespace = self._claim() if self._number < 0 else self._make(len(self._namespaces) + 1)
        self._namespaces.append(namespace)
        self._connect(namespace)
        return namespace

    def close(self) -> None:
        """Delete every namespace; the links go with them."""
        for namespace in self._namespaces:
            delete_namespace(namespace.name)
        self._namespaces.clear()

    def _claim(self) -> Namespace:
        """Take a network no other run has: making a namespace by name fails if it exists."""
        for number in random.sample(range(_NETWORKS), _TRIES):
            self._number = number
            try:
                return self._make(1)
            except NamespaceError as exc:
                if "File exists" not in str(exc):
                    raise
        msg = f"{_TRIES} networks tried, all taken; `ip netns list` shows them"
        raise NamespaceError(msg)

    def _make(self, index: int) -> Namespace:
        name = f"jetbridge-{self._number}-{index}"
        _ip("netns", "add", name)
        self._announce(name)
        # Interface names are limited to 15 characters.
        return Namespace(name, self._host(index + 1), self.plane_address, f"jb{self._number}-{index}")

    def _connect(self, namespace: Namespace) -> None:
        link = namespace.link
        inside = ("-n", namespace.name)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace.name)
        _ip("address", "add", f"{self.plane_address}/32", "dev", link)
        _ip("link", "set", link, "up")
        _ip("route", "add", f"{namespace.address}/32", "dev", link)
        _ip(*inside, "address", "add", f"{namespace.address}/32", "dev", "eth0")
        _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "link", "set", "eth0", "up")
        _ip(*inside, "route", "add", f"{self.plane_address}/32", "dev", "eth0")

    def _host(self, last: int) -> str:
        # 198.18.0.0/15 is set aside for tests of network devices (RFC 2544), so nobody's LAN uses it.
        return f"198.{18 + self._number // 256}.{self._number % 256}.{last}"


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if done.returncode != 0:
        msg = f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}"
        raise NamespaceError(msg)
