"""
Saying to the plane what is seen: each end at once and until it was answered, everything else now and then.

A gateway that is away delays this and loses nothing. What is refused was settled otherwise: the agent is
another process by now, or the plane knows already.
"""

from __future__ import annotations

import asyncio

import structlog

from jetbridge.agent.errors import AgentRefusedError, RequestRefusedError
from jetbridge.agent.side_tasks import SideTasks
from jetbridge.agent.waiting import wait_at_most
from jetbridge.contracts.sites import AttestDeathRequest, SiteReportRequest
from jetbridge.sentinel.site.calls import SentinelSession
from jetbridge.sentinel.site.metrics import SiteMetrics
from jetbridge.sentinel.site.view import Ended, SiteView

log = structlog.get_logger(__name__)

REPEAT_SECONDS = 30.0
"""A report is repeated this often, so that the plane does not forget it (after 120 s)."""

SHORTEST_PAUSE_SECONDS = 1.0
"""Many agents that change together are one report."""


async def tell_ends(session: SentinelSession, view: SiteView, tasks: SideTasks, metrics: SiteMetrics) -> None:
    """Have each end told as soon as it is seen; none waits for another's answer."""
    while True:
        end = await view.ends.get()
        tasks.run(f"tell the end of {end.agent}", _tell(session, end, metrics))


async def _tell(session: SentinelSession, end: Ended, metrics: SiteMetrics) -> None:
    body = AttestDeathRequest(agent=end.agent, instance=end.instance, reason=end.reason)
    try:
        await session.attest_death(body)
    except AgentRefusedError:
        raise
    except RequestRefusedError as error:
        metrics.ends.labels("refused").inc()
        log.info("end.refused", seen=end.agent, instance=end.instance, reason=str(error))
    else:
        metrics.ends.labels("taken").inc()
        log.info("end.taken", seen=end.agent, instance=end.instance)


async def report_site(session: SentinelSession, view: SiteView) -> None:
    """Report on every change and every :data:`REPEAT_SECONDS`, for as long as the agent runs."""
    changed = asyncio.Event()
    view.on_change(changed.set)
    while True:
        changed.clear()
        try:
            await session.report_site(SiteReportRequest(agents=view.agents, checks=view.checks))
        except AgentRefusedError:
            raise
        except RequestRefusedError as error:
            log.warning("report.refused", reason=str(error))
        await asyncio.sleep(SHORTEST_PAUSE_SECONDS)
        await wait_at_most(changed, REPEAT_SECONDS - SHORTEST_PAUSE_SECONDS)
