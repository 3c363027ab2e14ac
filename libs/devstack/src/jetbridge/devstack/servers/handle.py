"""What every server handle can do: be stopped and started again on the same address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from jetbridge.devstack.errors import DevStackError
from jetbridge.devstack.processes import ManagedProcess, Probe

READY_SECONDS = 60.0


class Lifecycle(Protocol):
    """How a server is stopped and started; its data and its address survive."""

    def start(self) -> None:
        """Start it and wait until it answers."""

    def stop(self) -> None:
        """Stop it in order."""

    def kill(self) -> None:
        """Stop it as a crash would."""


@dataclass(frozen=True)
class ProcessLifecycle:
    """A server that runs as a child process."""

    process: ManagedProcess
    ready: Probe

    def start(self) -> None:
        """Start the process and wait until the probe answers."""
        self.process.start()
        self.process.wait_ready(self.ready, timeout_seconds=READY_SECONDS)

    def stop(self) -> None:
        """Stop the process in order."""
        self.process.stop()

    def kill(self) -> None:
        """SIGKILL the process."""
        self.process.kill()


@dataclass(frozen=True)
class ExternalLifecycle:
    """A server somebody else runs (its address came from the environment)."""

    variable: str

    def _refuse(self) -> None:
        msg = f"the server comes from {self.variable}, so it is not ours to stop; unset that"
        raise DevStackError(msg)

    start = stop = kill = _refuse


@dataclass(frozen=True)
class Server:
    """Base of the handles. ``origin`` says where the server was found, for one line of output."""

    lifecycle: Lifecycle
    origin: str

    @property
    def restartable(self) -> bool:
        """Whether ``stop``, ``kill`` and ``start`` work: not for a server the environment names."""
        return not isinstance(self.lifecycle, ExternalLifecycle)

    def start(self) -> None:
        """Start the server again on the same address with the same data, and wait until it answers."""
        self.lifecycle.start()

    def stop(self) -> None:
        """Stop the server in order; what it stored durably is there after ``start``."""
        self.lifecycle.stop()

    def kill(self) -> None:
        """Stop the server as a crash would."""
        self.lifecycle.kill()
