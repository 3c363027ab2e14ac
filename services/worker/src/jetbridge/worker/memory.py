"""
The memory of one task and of all it started, and what is done when it takes more than it may.

Looked at from its supervisor, twice a second. That is not a wall: a task may take more between two looks
than the machine has. Then the kernel decides, and ``oom_score_adj`` has it take the task and not the
worker. Counted is what is resident and belongs to no file, as the kernel's own limits for containers count
it, together with what a task shares with the process it was forked from (about 100 MB with Airflow
imported).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

LOOK_SECONDS = 0.5

FAMILY_SECONDS = 2.0
"""How often descendants are looked for, which reads all of ``/proc``; their memory is one read each."""


@dataclass
class MemoryWatch:
    """
    Watches the task of this process; ``limit_bytes`` 0 watches nothing.

    ``killed_because`` is set once the task was killed for its memory.
    """

    limit_bytes: int = 0
    killed_because: str = ""
    clock: Callable[[], float] = time.monotonic
    _family: list[psutil.Process] = field(default_factory=list)
    _family_until: float = float("-inf")
    _next_look: float = float("-inf")

    def look(self, pid: int) -> bool:
        """Kill the task ``pid`` with all its descendants if it takes too much; say whether that was now."""
        now = self.clock()
        if not self.limit_bytes or self.killed_because or now < self._next_look:
            return False
        self._next_look = now + LOOK_SECONDS
        used = sum(_used_bytes(process) for process in self._relatives(pid, now))
        if used <= self.limit_bytes:
            return False
        self.killed_because = (
            f"killed: out of memory (limit {_mib(self.limit_bytes)} MiB, used {_mib(used)} MiB)"
        )
        with suppress(psutil.NoSuchProcess):
            task = psutil.Process(pid)
            for process in (task, *task.children(recursive=True)):
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    process.kill()
        return True

    def _relatives(self, pid: int, now: float) -> list[psutil.Process]:
        if now >= self._family_until:
            self._family_until = now + FAMILY_SECONDS
            with suppress(psutil.NoSuchProcess):
                task = psutil.Process(pid)
                self._family = [task, *task.children(recursive=True)]
        return self._family


def _used_bytes(process: psutil.Process) -> int:
    try:
        memory = process.memory_info()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
    return int(memory.rss - memory.shared)


def _mib(number: int) -> int:
    return number >> 20


watch = MemoryWatch()
"""That of the task this process runs. Set before it is started."""
