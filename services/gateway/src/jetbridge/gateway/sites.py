"""What sentinels of sites report, kept for people on the plane until it is not repeated any more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from jetbridge.bus.kv import RecordBucket
from jetbridge.contracts.sites import AgentSeen, SiteRecord, SiteReportRequest, SiteReportResponse
from jetbridge.gateway.auth import Caller
from jetbridge.gateway.deaths import require_sentinel

ROOM_BYTES = 200 * 1024
"""For the agents in a record; the bucket takes 256 KiB."""

_encoder = msgspec.json.Encoder()


@dataclass(frozen=True)
class SiteDesk:
    """Where sentinels report."""

    bucket: RecordBucket[SiteRecord]

    async def report(self, caller: Caller, request: SiteReportRequest) -> SiteReportResponse:
        """Keep a report in place of the sentinel's last one; raises the problem to answer with."""
        require_sentinel(caller)
        kept = _that_fit(request.agents)
        record = SiteRecord(
            site=caller.record.site,
            sentinel=caller.name,
            at=datetime.now(UTC),
            agents=kept,
            checks=request.checks,
            left_out=len(request.agents) - len(kept),
        )
        await self.bucket.put(caller.name, record)
        return SiteReportResponse()


def _that_fit(agents: tuple[AgentSeen, ...]) -> tuple[AgentSeen, ...]:
    room, kept = ROOM_BYTES, []
    for one in agents:
        room -= len(_encoder.encode(one)) + 1
        if room < 0:
            break
        kept.append(one)
    return tuple(kept)
