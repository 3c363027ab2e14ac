"""When and from where each token was last used, by token id."""

from __future__ import annotations

from jetbridge.bus.connection import Bus
from jetbridge.bus.kv import RecordBucket
from jetbridge.contracts.records import TokenUseRecord
from jetbridge.contracts.subjects import TOKEN_USES_BUCKET


class TokenUseStore:
    """Volatile facts about tokens, on which nothing is decided. The newest write of a token wins."""

    def __init__(self, bucket: RecordBucket[TokenUseRecord]) -> None:
        """Use :meth:`open` instead."""
        self.bucket = bucket

    @classmethod
    async def open(cls, bus: Bus) -> TokenUseStore:
        """Bind to the bucket; raises :class:`TopologyError` when it does not exist."""
        kv = await bus.bucket(TOKEN_USES_BUCKET)
        return cls(RecordBucket(bus.js, kv, TOKEN_USES_BUCKET, TokenUseRecord))

    async def put(self, token_id: str, use: TokenUseRecord) -> None:
        """Note a use."""
        await self.bucket.put(token_id, use)

    async def all(self) -> dict[str, TokenUseRecord]:
        """Return the last use of every token that was used since there is the bucket."""
        return await self.bucket.all()
