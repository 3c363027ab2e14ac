"""How an Airflow queue and a priority become a NATS subject, and the names of streams and buckets."""

from __future__ import annotations

import hashlib
import re
from enum import IntEnum

WORK_STREAM = "WORK"
EVENTS_STREAM = "EVENTS"
AUDIT_STREAM = "AUDIT"
WORKLOADS_BUCKET = "workloads"
AGENTS_BUCKET = "agents"
TOKENS_BUCKET = "tokens"
TOKEN_USES_BUCKET = "token-uses"  # noqa: S105 - a name, not a secret
KEYS_BUCKET = "keys"
HEALTH_BUCKET = "health"
LANES_BUCKET = "lanes"
BUNDLES_BUCKET = "bundles"
POLICIES_BUCKET = "policies"
NUDGE_SUBJECT = "nudge.scheduler"
ORDERS_BUCKET = "orders"
SITES_BUCKET = "sites"

_PLAIN_LANE = re.compile(r"^[a-z0-9](?:[a-z0-9_-]{0,47})$")


class Band(IntEnum):
    """
    Priority bands of a lane, most urgent first: an urgent task overtakes a backlog.

    Airflow's ``priority_weight`` is any integer; with its default weight rule a task weighs one plus
    the number of its descendants, so the limits follow orders of magnitude.
    """

    URGENT = 0
    HIGH = 1
    NORMAL = 2

    @classmethod
    def of(cls, priority_weight: int) -> Band:
        """Return the band of an Airflow ``priority_weight``: from 100 urgent, from 10 high."""
        if priority_weight >= 100:
            return cls.URGENT
        return cls.HIGH if priority_weight >= 10 else cls.NORMAL


def lane_of(queue: str) -> str:
    """
    Return the subject token that stands for an Airflow queue.

    Plain names stay readable. Anything NATS forbids in a subject (dots, wildcards, spaces), upper
    case and long names become ``x-`` and a hash, so two different queues never share a lane.
    """
    if _PLAIN_LANE.match(queue) and not queue.startswith("x-"):
        return queue
    return "x-" + hashlib.sha256(queue.encode()).hexdigest()[:32]


def work_subject(lane: str, band: Band) -> str:
    """Return the subject that carries one lane's work of one band."""
    return f"work.{lane}.{int(band)}"


def band_of(subject: str) -> Band:
    """Return the band of a :func:`work_subject`."""
    return Band(int(subject.rpartition(".")[2]))


def work_consumer(lane: str, band: Band) -> str:
    """Return the durable consumer that all gateways share for one lane and band."""
    return f"{lane}-{int(band)}"


def event_subject(event_type: str) -> str:
    """Return the subject of an event, for example ``event.workload.finished``."""
    return f"event.{event_type}"


def audit_subject(gateway: str) -> str:
    """Return the subject of one gateway's chain of audit records."""
    return f"audit.{gateway}"
