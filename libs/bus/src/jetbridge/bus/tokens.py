"""Agent tokens: made once, kept as hashes, revoked for good."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import msgspec

from jetbridge.bus.connection import Bus
from jetbridge.bus.errors import ConflictError
from jetbridge.bus.kv import RecordBucket
from jetbridge.contracts.ids import AgentToken
from jetbridge.contracts.records import TokenRecord
from jetbridge.contracts.subjects import TOKENS_BUCKET

DEFAULT_LIFE = timedelta(days=90)
"""Design section 7: tokens expire after 90 days unless said otherwise."""


def hash_secret(secret: str) -> str:
    """Return the form in which a token's secret is kept."""
    return hashlib.sha256(secret.encode()).hexdigest()


def is_valid(record: TokenRecord, secret: str, now: datetime) -> bool:
    """Say whether ``secret`` opens this token at ``now``. Takes the same time for any wrong secret."""
    same = hmac.compare_digest(record.secret_sha256, hash_secret(secret))
    return same and is_alive(record, now)


def is_alive(record: TokenRecord, now: datetime) -> bool:
    """Say whether the token is neither revoked nor expired at ``now``."""
    return record.revoked_at is None and now < record.expires_at


class TokenStore:
    """Token records by token id."""

    def __init__(self, bucket: RecordBucket[TokenRecord]) -> None:
        """Use :meth:`open` instead."""
        self.bucket = bucket

    @classmethod
    async def open(cls, bus: Bus) -> TokenStore:
        """Bind to the bucket; raises :class:`TopologyError` when it does not exist."""
        kv = await bus.bucket(TOKENS_BUCKET)
        return cls(RecordBucket(bus.js, kv, TOKENS_BUCKET, TokenRecord))

    async def create(self, name: str, life: timedelta = DEFAULT_LIFE) -> tuple[AgentToken, TokenRecord]:
        """Make a token. The secret is in the first value only and cannot be had again."""
        token, now = AgentToken.generate(), datetime.now(UTC)
        record = TokenRecord(
            id=token.id,
            name=name,
            secret_sha256=hash_secret(token.secret),
            created_at=now,
            expires_at=now + life,
        )
        await self.bucket.create(token.id, record)
        return token, record

    async def list(self) -> list[TokenRecord]:
        """Return all tokens, oldest first, revoked and expired ones included."""
        return sorted(await self.bucket.all(), key=lambda record: record.created_at)

    async def revoke(self, token_id: str) -> TokenRecord | None:
        """Revoke for good; returns None when there is no such token. Repeating it changes nothing."""
        while entry := await self.bucket.get(token_id):
            if entry.record.revoked_at:
                return entry.record
            record = msgspec.structs.replace(entry.record, revoked_at=datetime.now(UTC))
            try:
                await self.bucket.update(token_id, record, entry.revision)
            except ConflictError:
                continue
            return record
        return None
