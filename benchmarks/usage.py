"""CPU time and memory of a stack's processes, by component."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

from jetbridge.devstack.processes import Supervisor

SAMPLE_SECONDS = 0.5
MIB = 1024 * 1024

COMPONENTS = {
    "airflow-scheduler": "scheduler",
    "airflow-api-server": "api-server",
    "airflow-dag-processor": "dag-processor",
    "gateway": "gateway",
    "agent": "worker",
    "peer": "worker",
    "nats": "nats",
    "redis": "redis",
    "postgres": "postgres",
    "sentinel": "failover",
    "router": "failover",
    "bridge": "failover",
}
"""First letters of a process's name in the stack → the component it counts for."""


def component_of(name: str) -> str:
    """Return the component a process of the stack belongs to."""
    return next((component for start, component in COMPONENTS.items() if name.startswith(start)), name)


Key = Callable[[str], str]


def cpu_seconds(*supervisors: Supervisor, key: Key = component_of) -> Counter[str]:
    """Return what the processes of each component have used, ended children included."""
    used: Counter[str] = Counter()
    for name, process in _family(*supervisors):
        with _gone_is_fine():
            times = process.cpu_times()
            used[key(name)] += times.user + times.system + times.children_user + times.children_system
    return used


def pss_mib(*supervisors: Supervisor, key: Key = component_of) -> Counter[str]:
    """Return the memory of each component; what processes share is divided among them."""
    used: Counter[str] = Counter()
    for name, process in _family(*supervisors):
        with _gone_is_fine():
            used[key(name)] += process.memory_full_info().pss / MIB
    return used


def _family(*supervisors: Supervisor) -> Iterator[tuple[str, psutil.Process]]:
    for supervisor in supervisors:
        for managed in supervisor.processes:
            if not managed.alive:
                continue
            with _gone_is_fine():
                process = psutil.Process(managed.pid)
                yield managed.name, process
                yield from ((managed.name, child) for child in process.children(recursive=True))


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return


@dataclass
class Peaks:
    """The most memory each component was seen with; sampled by a thread."""

    supervisors: tuple[Supervisor, ...]
    mib: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Sample while the block runs."""
        done = threading.Event()

        def sample() -> None:
            while not done.wait(SAMPLE_SECONDS):
                self.mib |= pss_mib(*self.supervisors)

        thread = threading.Thread(target=sample, name="peaks")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
