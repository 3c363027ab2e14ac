"""
What is done each second though nobody asks: clearing away triggers, and ending triggerers that were lost.

A triggerer is lost when the plane sentinel says so, which knows of a death it was told of within a second, or
when it was silent for long enough. Silence proves nothing while nobody could be heard, so a bridge judges it
only after it has heard agents itself for as long: not after its own start, nor after an outage of NATS or of
the gateways. A triggerer that is the only one is therefore never ended here; nobody could take its triggers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta

import structlog
from airflow._shared.timezones import timezone
from airflow.jobs.job import JobState
from airflow.models.trigger import Trigger
from sqlalchemy.orm import Session

from jetbridge.bus.health import is_lost
from jetbridge.bus.kv import Versioned
from jetbridge.bus.mirror import BucketMirror
from jetbridge.contracts.records import HealthRecord
from jetbridge.scheduler.bridge.database import Database
from jetbridge.scheduler.bridge.errors import is_outage
from jetbridge.scheduler.bridge.triggers import jobs

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 1.0
"""As Airflow's own triggerer: a cancelled task's trigger is noticed this late at most."""

_FOR_EVER = timedelta(days=365)


class Hearing:
    """Remembers since when agents have been heard without a long pause."""

    def __init__(self, lost_after_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.lost_after = timedelta(seconds=lost_after_seconds)
        self._longest_pause = lost_after_seconds / 2
        self._clock = clock
        self._since = self._last = float("-inf")

    def heard(self) -> None:
        """Note that an agent, any of them, was heard of."""
        now = self._clock()
        if now - self._last > self._longest_pause:
            self._since = now
        self._last = now

    @property
    def silence(self) -> timedelta:
        """Return how long a triggerer must have been silent to be taken for lost, as of now."""
        now = self._clock()
        listening = now - self._since if now - self._last <= self._longest_pause else 0.0
        return self.lost_after if listening >= self.lost_after.total_seconds() else _FOR_EVER


class Losses:
    """Processes that the plane sentinel knows to run nothing any more."""

    def __init__(self, health: BucketMirror[HealthRecord]) -> None:
        self._waiting: set[tuple[str, str]] = set()
        health.on_change(self._changed)

    def take(self) -> set[tuple[str, str]]:
        """Return agents and instances that were lost since the last call."""
        taken, self._waiting = self._waiting, set()
        return taken

    def give_back(self, processes: set[tuple[str, str]]) -> None:
        """Have the next call return these again."""
        self._waiting |= processes

    def _changed(self, _key: str, health: Versioned[HealthRecord] | None) -> None:
        if health is not None and is_lost(health.record):
            self._waiting.add((health.record.agent, health.record.instance))


def end_lost(session: Session, silence: timedelta) -> list[str]:
    """End the triggerers of agents that were silent for too long, and return the agents' names."""
    lost = jobs.silent_since(session, timezone.utcnow() - silence)
    for job in lost:
        jobs.end(job, JobState.FAILED)
    return [str(job.hostname) for job in lost]


def end_instance(session: Session, agent: str, instance: str) -> bool:
    """End the triggerer of a process that is known to be dead; say whether there was one."""
    ended = jobs.of_instance(session, agent, instance)
    for job in ended:
        jobs.end(job, JobState.FAILED)
    return bool(ended)


async def upkeep(database: Database, hearing: Hearing, losses: Losses) -> None:
    """Run until cancelled."""
    trouble = False
    while True:
        await asyncio.sleep(INTERVAL_SECONDS)
        lost = losses.take()
        try:
            await _keep(database, hearing, lost)
            trouble = False
        except Exception as exc:  # an error of this second must not end all that follow
            losses.give_back(lost)
            if not trouble:
                log.warning("upkeep of triggers failed", exc_info=None if is_outage(exc) else exc)
            trouble = True


async def _keep(database: Database, hearing: Hearing, lost: set[tuple[str, str]]) -> None:
    for agent, instance in lost:
        if await database.transaction(end_instance, agent, instance):
            log.warning("triggerer lost; others take its triggers", agent=agent, known_by="sentinel")
    for agent in await database.transaction(end_lost, hearing.silence):
        log.warning("triggerer lost; others take its triggers", agent=agent, known_by="silence")
    await database.run(Trigger.clean_unused)
