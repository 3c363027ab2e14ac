"""Agent tokens: shown once, kept as hashes, rotated with an overlap, revoked for good."""

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
from jetbridge.contracts.scopes import TokenScopes
from jetbridge.contracts.subjects import TOKENS_BUCKET

DEFAULT_LIFE = timedelta(days=90)
"""Design section 7: tokens expire after 90 days unless said otherwise."""

DEFAULT_OVERLAP = timedelta(hours=24)
"""After a rotation: time to bring the new secret to every agent."""

_NO_SECRET = "0" * 64
"""No hash of any secret; compared where there is none, so that the time taken is the same."""


def hash_secret(secret: str) -> str:
    """Return the form in which a token's secret is kept."""
    return hashlib.sha256(secret.encode()).hexdigest()


def is_valid(record: TokenRecord, secret: str, now: datetime) -> bool:
    """
    Say whether ``secret`` opens this token at ``now``, as its secret or as the one before in an overlap.

    Takes the same time for any wrong secret.
    """
    given = hash_secret(secret)
    newest = hmac.compare_digest(record.secret_sha256, given)
    previous = hmac.compare_digest(record.previous_sha256 or _NO_SECRET, given)
    in_overlap = record.previous_until is not None and now < record.previous_until
    return (newest or (previous and in_overlap)) and is_alive(record, now)


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

    async def create(
        self,
        name: str,
        life: timedelta = DEFAULT_LIFE,
        scopes: TokenScopes = TokenScopes(),  # noqa: B008 - frozen
        certificate_sha256: str = "",
    ) -> tuple[AgentToken, TokenRecord]:
        """Make a token. The secret is in the first value only and cannot be had again."""
        token, now = AgentToken.generate(), datetime.now(UTC)
        record = TokenRecord(
            id=token.id,
            name=name,
            secret_sha256=hash_secret(token.secret),
            created_at=now,
            expires_at=now + life,
            scopes=scopes,
            certificate_sha256=certificate_sha256,
        )
        await self.bucket.create(token.id, record)
        return token, record

    async def get(self, token_id: str) -> TokenRecord | None:
        """Return a token's record."""
        entry = await self.bucket.get(token_id)
        return entry.record if entry else None

    async def rotate(
        self, token_id: str, overlap: timedelta, life: timedelta = DEFAULT_LIFE
    ) -> tuple[AgentToken, TokenRecord] | None:
        """
        Give a token a new secret and a new life; the secret before is taken until ``overlap`` is over.

        None when there is no such token or it is revoked. Rotating again ends the secret before the last.
        An expired token lives again, its old secret does not. Whoever loses the answer rotates again.
        """
        while (entry := await self.bucket.get(token_id)) and not entry.record.revoked_at:
            token, now = AgentToken(token_id, AgentToken.generate().secret), datetime.now(UTC)
            record = msgspec.structs.replace(
                entry.record,
                secret_sha256=hash_secret(token.secret),
                rotated_at=now,
                expires_at=now + life,
                previous_sha256=entry.record.secret_sha256,
                previous_until=min(now + overlap, entry.record.expires_at),
            )
            try:
                await self.bucket.update(token_id, record, entry.revision)
            except ConflictError:
                continue
            return token, record
        return None

    async def list(self) -> list[TokenRecord]:
        """Return all tokens, oldest first, revoked and expired ones included."""
        return sorted((await self.bucket.all()).values(), key=lambda record: record.created_at)

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
