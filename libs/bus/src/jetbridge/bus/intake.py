"""
What to do with a message from WORK, for gateways and routers. Pure: bytes and a record in, a verdict out.

The record is the truth and the message a hint, so a message is worth what the record says it is.
"""

from __future__ import annotations

from enum import Enum, auto

from jetbridge.bus.kv import Versioned
from jetbridge.bus.workloads import submission_of
from jetbridge.contracts.envelope import (
    Envelope,
    MalformedMessageError,
    MessageError,
    open_envelope,
    read_body,
)
from jetbridge.contracts.messages import WorkloadSubmitted
from jetbridge.contracts.records import WorkloadRecord, WorkloadState
from jetbridge.contracts.subjects import lane_of

__all__ = ["MessageError", "Verdict", "judge", "read_work"]


class Verdict(Enum):
    """What becomes of a message."""

    OFFER = auto()
    """It waits for an agent: offer it, or offer it again."""
    DONE = auto()
    """Somebody has it, it ended, a newer submission overtook it, or it was taken back: acknowledge."""
    UNSEEN = auto()
    """The record is older than the message: what was read lags behind. Read again."""


def read_work(data: bytes, lane: str) -> tuple[Envelope, WorkloadSubmitted]:
    """
    Decode a message of ``lane``; raises :class:`MessageError` when it can never be used.

    That includes a queue that belongs to another lane: its agents were never asked.
    """
    try:
        envelope = open_envelope(data)
        submitted = read_body(envelope, WorkloadSubmitted)
    except (UnicodeDecodeError, RecursionError) as exc:
        raise MalformedMessageError(f"not a message: {exc}") from exc
    if lane_of(submitted.queue) != lane:
        raise MalformedMessageError(
            f"workload {submitted.workload_id} of queue {submitted.queue!r} was published to lane {lane!r}"
        )
    return envelope, submitted


def judge(workload: Versioned[WorkloadRecord] | None, submitted: WorkloadSubmitted) -> Verdict:
    """Compare a message with the record of its workload."""
    if workload is None:
        return Verdict.DONE
    submission = submission_of(workload)
    if submission != submitted.submission:
        return Verdict.UNSEEN if submission < submitted.submission else Verdict.DONE
    waits = workload.record.state in (WorkloadState.SUBMITTED, WorkloadState.OFFERED)
    return Verdict.OFFER if waits else Verdict.DONE
