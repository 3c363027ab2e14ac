"""
On which terms an agent gets a lease: what happens when it is lost, and how long it may go on without contact.

Decided once, at the accept, and kept in the record: the agent is told, so a policy that changes later must
not shorten what it was promised. What the task asked for wins over the policy of its queue and site.
"""

from __future__ import annotations

from jetbridge.bus.workloads import Terms
from jetbridge.contracts.messages import WorkloadKind
from jetbridge.contracts.policies import Failover
from jetbridge.contracts.records import OnAgentLost, WorkloadRecord


def decide_terms(record: WorkloadRecord, policy: Failover, ordinary_seconds: float) -> Terms:
    """
    Return the terms of a lease.

    :param ordinary_seconds: how long leases last without contact; a ``wait`` lease never lasts shorter
    """
    on_agent_lost = record.on_agent_lost or policy.on_agent_lost
    if on_agent_lost is not OnAgentLost.WAIT:
        return Terms(on_agent_lost=on_agent_lost, wait_seconds=record.wait_seconds)
    if record.kind is not WorkloadKind.TASK:
        # A callback is short, and Airflow hears of its end from the report alone: nothing to ride through.
        return Terms(on_agent_lost=OnAgentLost.REROUTE)
    wait_seconds = record.wait_seconds or policy.wait_seconds
    return Terms(
        on_agent_lost=OnAgentLost.WAIT,
        wait_seconds=wait_seconds,
        lease_seconds=max(wait_seconds, ordinary_seconds),
    )
