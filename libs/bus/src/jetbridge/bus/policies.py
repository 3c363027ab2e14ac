"""Policies in their bucket: written by people, watched by every service that obeys them."""

from __future__ import annotations

from collections.abc import Mapping

from jetbridge.bus.connection import Bus
from jetbridge.bus.kv import RecordBucket, Versioned
from jetbridge.bus.mirror import BucketMirror
from jetbridge.contracts import policies as contract
from jetbridge.contracts.policies import Failover, PolicyRecord, policy_key
from jetbridge.contracts.subjects import POLICIES_BUCKET


class PolicyStore:
    """Policy records by scope. Every change is a compare-and-set: two people do not undo each other."""

    def __init__(self, bucket: RecordBucket[PolicyRecord]) -> None:
        """Use :meth:`open` instead."""
        self.bucket = bucket

    @classmethod
    async def open(cls, bus: Bus) -> PolicyStore:
        """Bind to the bucket; raises :class:`TopologyError` when it does not exist."""
        kv = await bus.bucket(POLICIES_BUCKET)
        return cls(RecordBucket(bus.js, kv, POLICIES_BUCKET, PolicyRecord))

    async def get(self, scope: str) -> Versioned[PolicyRecord] | None:
        """Return the policy of one scope."""
        return await self.bucket.get(policy_key(scope))

    async def list(self) -> list[PolicyRecord]:
        """Return all policies, the deployment's first."""
        records = await self.bucket.all()
        return sorted(
            records.values(), key=lambda record: (record.scope != contract.DEPLOYMENT, record.scope)
        )

    async def change(self, before: Versioned[PolicyRecord] | None, after: PolicyRecord) -> int:
        """
        Write ``after`` over ``before`` and return the revision.

        Raises :class:`ConflictError` when somebody else changed it meanwhile.
        """
        key = policy_key(after.scope)
        if before is None:
            return await self.bucket.create(key, after)
        return await self.bucket.update(key, after, before.revision)

    async def remove(self, before: Versioned[PolicyRecord]) -> None:
        """Delete a policy: wider scopes decide again. Raises :class:`ConflictError` as ``change``."""
        await self.bucket.delete(policy_key(before.record.scope), before.revision)


class Policies:
    """
    What holds now, from memory. Lags the bucket by milliseconds.

    Keep ``mirror.run()`` going, and wait for ``mirror.ready`` before the first answer counts: an unread
    policy looks like none.
    """

    def __init__(self, bus: Bus, store: PolicyStore) -> None:
        self.mirror: BucketMirror[PolicyRecord] = BucketMirror(bus, store.bucket, own_writes=True)
        self._by_scope: dict[str, PolicyRecord] = {}
        self._scopes: dict[str, str] = {}
        self.mirror.on_change(self._change)

    @property
    def by_scope(self) -> Mapping[str, PolicyRecord]:
        """All policies by scope."""
        return self._by_scope

    def failover(self, queue: str, site: str = "") -> Failover:
        """Return what becomes of a queue's work when its agents are away."""
        return contract.failover(self._by_scope, queue, site)

    def boundary_rule(self, data: str, queue: str, site: str = "") -> str | None:
        """Return what the policies say about a class of data; None means that they say nothing."""
        return contract.boundary_rule(self._by_scope, data, queue, site)

    def _change(self, key: str, entry: Versioned[PolicyRecord] | None) -> None:
        if entry is not None:
            self._scopes[key] = entry.record.scope
            self._by_scope[entry.record.scope] = entry.record
        elif scope := self._scopes.pop(key, None):
            del self._by_scope[scope]
