"""What to do with one workload, given its record and the health of who holds it. Pure logic."""

from __future__ import annotations

from enum import StrEnum

from jetbridge.bus.health import is_lost
from jetbridge.contracts.records import HealthRecord, OnAgentLost, WorkloadRecord, WorkloadState


class Action(StrEnum):
    """What the router does next with a workload."""

    NOTHING = "nothing"
    RELEASE = "release"
    FAIL = "fail"
    REQUEUE = "requeue"


def decide(record: WorkloadRecord, holder: HealthRecord | None) -> Action:
    """
    Return the next step; taking it twice, or by two routers, changes nothing more.

    A submitted or offered workload needs no help: its message is still in WORK and comes back by itself
    when an offer is not accepted. Only a lease binds work to an agent.
    """
    if record.state is WorkloadState.RELEASED:
        return Action.REQUEUE
    if record.state is not WorkloadState.LEASED or not is_lost(holder):
        return Action.NOTHING
    return Action.FAIL if record.on_agent_lost is OnAgentLost.FAIL else Action.RELEASE


def reason(record: WorkloadRecord, holder: HealthRecord) -> str:
    """Say in one sentence, for the task's history, why its lease was taken back."""
    seen = "was seen to end" if holder.attested else "was lost"
    detail = f" ({holder.reason})" if holder.reason else ""
    return f"agent {record.agent} {seen}{detail}"
