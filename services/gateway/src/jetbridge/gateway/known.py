"""What this gateway knows of a bucket without asking, and how to ask when that is not enough."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from jetbridge.bus.connection import Bus
from jetbridge.bus.errors import BusUnavailableError
from jetbridge.bus.kv import RecordBucket, Versioned
from jetbridge.bus.mirror import BucketMirror

R = TypeVar("R", bound=msgspec.Struct)


class Known(Generic[R]):
    """A bucket's mirror together with the bucket itself."""

    def __init__(self, bus: Bus, bucket: RecordBucket[R]) -> None:
        self.mirror = BucketMirror(bus, bucket, own_writes=True)
        self._bucket = bucket

    def get(self, key: str) -> Versioned[R] | None:
        """Return the record as last seen; lags the bucket by milliseconds, longer while NATS is away."""
        return self.mirror.get(key)

    def is_complete(self) -> bool:
        """Say whether the bucket was read to its end since the last lost connection."""
        return self.mirror.ready.is_set()

    async def confirm(self, key: str) -> Versioned[R] | None:
        """
        Read the record from the bucket.

        Raises ``BusUnavailableError`` when NATS does not answer, or the record was written by a newer
        version and cannot be read: then a newer gateway can answer the same question.
        """
        try:
            return await self._bucket.get(key)
        except msgspec.DecodeError as exc:
            raise BusUnavailableError(f"the record {key} is of a version this gateway cannot read") from exc
