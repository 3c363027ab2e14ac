"""Looking up agents from synchronous code that must not wait long: the api-server showing a log page."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from jetbridge.contracts.records import AgentRecord

if TYPE_CHECKING:
    from jetbridge.bus.settings import BusSettings

KNOWN_SECONDS = 60.0
UNKNOWN_SECONDS = 15.0
"""After a failure nobody waits again for this long. A page with a running task asks every second."""


@dataclass(frozen=True)
class _Answer:
    record: AgentRecord | None
    good_until: float


class AgentDirectory:
    """Agents by name, each remembered for a while. Usable from any thread; nothing stays connected."""

    def __init__(self, settings: BusSettings | None = None) -> None:
        self._settings = settings
        self._answers: dict[str, _Answer] = {}
        self._lock = threading.Lock()

    def find(self, name: str) -> AgentRecord | None:
        """Return the agent's record; None when there is none or the bus does not say within a second."""
        with self._lock:  # one look-up at a time: several readers of one page want the same agent
            known = self._answers.get(name)
            if known is None or known.good_until < monotonic():
                record = self._look_up(name)
                life = KNOWN_SECONDS if record else UNKNOWN_SECONDS
                known = self._answers[name] = _Answer(record, monotonic() + life)
            return known.record

    def _look_up(self, name: str) -> AgentRecord | None:
        # Each process of Airflow imports this with its logging, and hardly any ever asks: the clients of NATS
        # took a tenth of the start of all of them.
        from jetbridge.scheduler.lookup import look_up  # noqa: PLC0415

        # In a thread of its own, for the caller's may be running an event loop.
        with ThreadPoolExecutor(1, "jetbridge-directory") as thread:
            return thread.submit(asyncio.run, look_up(name, self._settings)).result()
