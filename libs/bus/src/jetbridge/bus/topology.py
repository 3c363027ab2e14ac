"""
Streams, buckets and consumers, described once.

Only ``jetbridge bus apply`` creates or changes streams and buckets; every other process binds to what
is there. Consumers of WORK are the exception: a lane exists when the first queue of that name does, so
gateways create its consumers from :func:`lane_consumer` when an agent first asks for the lane. The
call is idempotent, and two gateways that race send the same configuration.
"""

from __future__ import annotations

from dataclasses import dataclass

from nats.js import api

from jetbridge.contracts.presence import BEATS_BUCKET, BEATS_SECONDS
from jetbridge.contracts.rpc import OBJECT_SECONDS, RPC_OBJECTS_BUCKET
from jetbridge.contracts.sites import SITE_REPORT_SECONDS
from jetbridge.contracts.subjects import (
    AGENTS_BUCKET,
    AUDIT_STREAM,
    BUNDLES_BUCKET,
    EVENTS_STREAM,
    HEALTH_BUCKET,
    KEYS_BUCKET,
    LANES_BUCKET,
    ORDERS_BUCKET,
    POLICIES_BUCKET,
    SITES_BUCKET,
    TOKEN_USES_BUCKET,
    TOKENS_BUCKET,
    WORK_STREAM,
    WORKLOADS_BUCKET,
    Band,
    work_consumer,
    work_subject,
)

DUPLICATE_WINDOW_SECONDS = 120
"""How long JetStream remembers message ids; its default. Later duplicates are caught by the KV record."""

OFFER_SECONDS = 10.0
"""
How long an offer may stay unaccepted before JetStream delivers the work again (``ack_wait``).

Agents accept within milliseconds; a gateway or agent that died with an offer in hand costs this much.
"""

MAX_WORK_MESSAGE_BYTES = 512 * 1024
"""A workload is a few KiB; NATS refuses messages over 1 MiB by default."""

EVENTS_MAX_AGE_SECONDS = 7 * 24 * 3600
EVENTS_MAX_BYTES = 1 << 30
AUDIT_MAX_AGE_SECONDS = 400 * 24 * 3600
"""A year, and a month in which to look at it."""

MAX_RECORD_BYTES = 64 * 1024
MAX_RPC_OBJECTS_BYTES = 1 << 30
MAX_SITE_BYTES = 256 * 1024

BUNDLE_LEASE_SECONDS = 15.0
"""
How long a Dag processor keeps a bundle without renewing it, by NATS' own clock: three renewals, as with
heartbeats. A standby takes over this long after the active one was lost.
"""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """
    A stream as it must be. Sizes are bytes, times seconds.

    Of one that is append-only nothing can be deleted, except by its age.
    """

    name: str
    subjects: tuple[str, ...]
    retention: api.RetentionPolicy
    discard: api.DiscardPolicy
    max_age: float = 0
    max_bytes: int = -1
    max_msg_size: int = -1
    append_only: bool = False

    def config(self, replicas: int) -> api.StreamConfig:
        """Return the configuration to ask NATS for."""
        return api.StreamConfig(
            name=self.name,
            subjects=list(self.subjects),
            retention=self.retention,
            discard=self.discard,
            max_age=self.max_age,
            max_bytes=self.max_bytes,
            max_msg_size=self.max_msg_size,
            storage=api.StorageType.FILE,
            num_replicas=replicas,
            duplicate_window=DUPLICATE_WINDOW_SECONDS,
            # NATS lets nobody take these back: only deleting the whole stream is left.
            deny_delete=self.append_only,
            deny_purge=self.append_only,
        )


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """
    A KV bucket as it must be. One revision is kept of each key: records are state, not history.

    With ``max_age`` (seconds) a record that is not written again disappears: a lease by NATS' clock. All
    are in files: a bucket in memory is gone after a restart of NATS, and whoever needs it could not start.
    """

    name: str
    max_value_bytes: int = MAX_RECORD_BYTES
    max_age: float = 0

    def config(self, replicas: int) -> api.StreamConfig:
        """Return the stream behind the bucket, laid out as every NATS client does (NATS ADR-8)."""
        return api.StreamConfig(
            name=f"KV_{self.name}",
            subjects=[f"$KV.{self.name}.>"],
            retention=api.RetentionPolicy.LIMITS,
            discard=api.DiscardPolicy.NEW,
            max_msgs_per_subject=1,
            max_msg_size=self.max_value_bytes,
            max_age=self.max_age,
            storage=api.StorageType.FILE,
            num_replicas=replicas,
            duplicate_window=_duplicate_window(self.max_age),
            deny_delete=True,
            allow_rollup_hdrs=True,
            allow_direct=False,  # a direct read may come from a replica that lags behind the last write
        )


@dataclass(frozen=True, kw_only=True)
class ObjectBucket:
    """A bucket of large values as it must be: passing through, so old ones go by themselves."""

    name: str
    max_age: float
    max_bytes: int

    def config(self, replicas: int) -> api.StreamConfig:
        """Return the stream behind the bucket, laid out as every NATS client does (NATS ADR-20)."""
        return api.StreamConfig(
            name=f"OBJ_{self.name}",
            subjects=[f"$O.{self.name}.C.>", f"$O.{self.name}.M.>"],
            retention=api.RetentionPolicy.LIMITS,
            discard=api.DiscardPolicy.NEW,
            max_age=self.max_age,
            max_bytes=self.max_bytes,
            storage=api.StorageType.FILE,
            num_replicas=replicas,
            duplicate_window=_duplicate_window(self.max_age),
            allow_rollup_hdrs=True,
            allow_direct=False,  # as for KV buckets
        )


def _duplicate_window(max_age: float) -> float:
    # nats-server refuses a window longer than the messages' own life.
    return min(DUPLICATE_WINDOW_SECONDS, max_age) if max_age else DUPLICATE_WINDOW_SECONDS


STREAMS: tuple[Stream, ...] = (
    Stream(
        name=WORK_STREAM,
        subjects=("work.>",),
        retention=api.RetentionPolicy.WORK_QUEUE,
        discard=api.DiscardPolicy.NEW,  # a full stream refuses new work; it never drops accepted work
        max_msg_size=MAX_WORK_MESSAGE_BYTES,
    ),
    Stream(
        name=EVENTS_STREAM,
        subjects=("event.>",),
        retention=api.RetentionPolicy.LIMITS,
        discard=api.DiscardPolicy.OLD,
        max_age=EVENTS_MAX_AGE_SECONDS,
        max_bytes=EVENTS_MAX_BYTES,
    ),
    Stream(
        name=AUDIT_STREAM,
        subjects=("audit.>",),
        retention=api.RetentionPolicy.LIMITS,
        discard=api.DiscardPolicy.OLD,
        max_age=AUDIT_MAX_AGE_SECONDS,
        append_only=True,
    ),
)

BUCKETS: tuple[Bucket, ...] = (
    Bucket(name=WORKLOADS_BUCKET),
    Bucket(name=AGENTS_BUCKET),
    Bucket(name=TOKENS_BUCKET),
    Bucket(name=TOKEN_USES_BUCKET),
    Bucket(name=KEYS_BUCKET),
    Bucket(name=HEALTH_BUCKET),
    Bucket(name=LANES_BUCKET),
    Bucket(name=POLICIES_BUCKET),
    Bucket(name=ORDERS_BUCKET),
    Bucket(name=SITES_BUCKET, max_value_bytes=MAX_SITE_BYTES, max_age=SITE_REPORT_SECONDS),
    Bucket(name=BEATS_BUCKET, max_age=BEATS_SECONDS),
    Bucket(name=BUNDLES_BUCKET, max_age=BUNDLE_LEASE_SECONDS),
)

OBJECT_BUCKETS: tuple[ObjectBucket, ...] = (
    ObjectBucket(name=RPC_OBJECTS_BUCKET, max_age=OBJECT_SECONDS, max_bytes=MAX_RPC_OBJECTS_BYTES),
)


def lane_consumer(lane: str, band: Band) -> api.ConsumerConfig:
    """Return the durable pull consumer that all gateways share for one lane and band."""
    return api.ConsumerConfig(
        durable_name=work_consumer(lane, band),
        filter_subject=work_subject(lane, band),
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=OFFER_SECONDS,
        max_deliver=-1,  # an offer nobody took is made again until somebody does
        max_ack_pending=-1,
        max_waiting=512,
    )
