"""
Which leases are really held. The mirror answers at once; its *no* is confirmed by a read.

A lease *belongs* to an agent while its record is offered to it, held by it, or was ended by it: in none of
these cases is there anything to stop. It is *lost* when the record moved on to somebody else or is gone.
While NATS cannot be asked nothing is lost: an agent cut off keeps what it has until its lease ends.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable

from jetbridge.bus.errors import BusUnavailableError
from jetbridge.bus.kv import Versioned
from jetbridge.bus.workloads import holds
from jetbridge.contracts.ids import LeaseKey
from jetbridge.contracts.records import WorkloadRecord, WorkloadState
from jetbridge.gateway.known import Known

_READS_AT_ONCE = 16
_READS_PER_REQUEST = 256
"""A request that names more doubtful leases than this gets to know about the rest with its next one."""


def belongs(workload: Versioned[WorkloadRecord] | None, lease: LeaseKey, agent: str) -> bool:
    """Say whether there is nothing to stop about ``lease``."""
    if workload is None or workload.record.agent != agent:
        return False
    record = workload.record
    if record.state is WorkloadState.OFFERED:
        return workload.revision == lease.epoch
    return record.state in (WorkloadState.LEASED, WorkloadState.FINISHED) and record.epoch == lease.epoch


class Holdings:
    """Answers about leases, by the mirror of workloads and reads of the bucket."""

    def __init__(self, workloads: Known[WorkloadRecord]) -> None:
        self._workloads = workloads
        self._held: defaultdict[str, dict[str, str]] = defaultdict(dict)  # agent → workload → lease
        self._agent_of: dict[str, str] = {}
        self._reads = asyncio.Semaphore(_READS_AT_ONCE)
        workloads.mirror.on_change(self._index)

    def _index(self, workload_id: str, workload: Versioned[WorkloadRecord] | None) -> None:
        if before := self._agent_of.pop(workload_id, None):
            del self._held[before][workload_id]
            if not self._held[before]:
                del self._held[before]
        record = workload.record if workload else None
        if record and record.agent and record.state is WorkloadState.LEASED:
            self._agent_of[workload_id] = record.agent
            self._held[record.agent][workload_id] = str(LeaseKey(workload_id, record.epoch))

    def seen(self, lease: LeaseKey) -> Versioned[WorkloadRecord] | None:
        """Return the record of a lease's workload as last seen."""
        return self._workloads.get(lease.workload_id)

    def held_by(self, agent: str) -> frozenset[str]:
        """Return the leases an agent holds, as last seen."""
        return frozenset(self._held[agent].values()) if agent in self._held else frozenset()

    async def held(self, lease: LeaseKey, agent: str) -> WorkloadRecord | None:
        """
        Return the record of a lease while ``agent`` holds it.

        Raises ``BusUnavailableError`` when nobody can tell.
        """
        seen = self._workloads.get(lease.workload_id)
        if seen and holds(seen.record, lease, agent):
            return seen.record
        found = await self._workloads.confirm(lease.workload_id)
        return found.record if found and holds(found.record, lease, agent) else None

    async def lost(self, agent: str, leases: Iterable[str]) -> frozenset[str]:
        """Return those of ``leases`` that are certainly lost to ``agent``."""
        doubtful = [text for text in leases if not self._seems_to_belong(text, agent)]
        checked = doubtful[:_READS_PER_REQUEST]
        lost = await asyncio.gather(*(self._is_lost(text, agent) for text in checked))
        return frozenset(text for text, gone in zip(checked, lost, strict=True) if gone)

    def _seems_to_belong(self, text: str, agent: str) -> bool:
        lease = LeaseKey.parse(text)
        return belongs(self._workloads.get(lease.workload_id), lease, agent)

    async def _is_lost(self, text: str, agent: str) -> bool:
        lease = LeaseKey.parse(text)
        async with self._reads:
            try:
                return not belongs(await self._workloads.confirm(lease.workload_id), lease, agent)
            except BusUnavailableError:
                return False
