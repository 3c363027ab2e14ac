"""What to do with one workload, given its record and the health of who holds it. Pure logic."""

from __future__ import annotations

from enum import StrEnum

from jetbridge.bus.health import is_lost
from jetbridge.bus.workloads import FAILS_WHEN_LOST
from jetbridge.contracts.records import HealthRecord, WorkloadRecord, WorkloadState


class Action(StrEnum):
    """What the router does next with a workload."""

    NOTHING = "nothing"
    RELEASE = "release"
    FAIL = "fail"
    REQUEUE = "requeue"


def decide(
    record: WorkloadRecord,
    holder: HealthRecord | None,
    silent_seconds: float = 0.0,
    *,
    is_succeeded: bool = False,
) -> Action:
    """
    Return the next step; taking it twice, or by two routers, changes nothing more.

    A submitted or offered workload needs no help: its message is still in WORK and comes back by itself
    when an offer is not accepted. Only a lease binds work to an agent, and a ``wait`` lease does so until its
    holder was silent for all its time or was seen to end.

    :param silent_seconds: proven silence of the holder
    :param is_succeeded: whether a newer process of the holder's name lives. It finds what the holder left and
        says how a ``wait`` lease ended, which may be well.
    """
    if record.state is WorkloadState.RELEASED:
        return Action.REQUEUE
    if record.state is not WorkloadState.LEASED or holder is None or not is_lost(holder):
        return Action.NOTHING
    is_sure = holder.attested and not is_succeeded
    if silent_seconds < record.lease_seconds and not is_sure:
        return Action.NOTHING
    return Action.FAIL if record.on_agent_lost in FAILS_WHEN_LOST else Action.RELEASE


class Cause(StrEnum):
    """Why a lease is taken back, as metrics have it."""

    SILENT = "silent"
    WAITED = "waited"
    SEEN_TO_END = "seen-to-end"


def cause(record: WorkloadRecord, holder: HealthRecord) -> Cause:
    """Return why a lease is taken back from its holder."""
    if holder.attested:
        return Cause.SEEN_TO_END
    return Cause.WAITED if record.lease_seconds else Cause.SILENT


def reason(record: WorkloadRecord, holder: HealthRecord) -> str:
    """Say in one sentence, for the task's history, why its lease was taken back."""
    seen = "was seen to end" if holder.attested else "was lost"
    detail = f" ({holder.reason})" if holder.reason else ""
    has_waited = record.lease_seconds and not holder.attested
    waited = f" and the wait of {record.lease_seconds:g} s is over" if has_waited else ""
    return f"agent {record.agent} {seen}{detail}{waited}"
