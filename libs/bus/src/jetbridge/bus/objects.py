"""Large values in a JetStream object bucket, read with a limit of size and of time."""

from __future__ import annotations

import asyncio
import io

from nats.js.errors import BucketNotFoundError, NotFoundError, ObjectNotFoundError
from nats.js.object_store import ObjectStore

from jetbridge.bus.connection import Bus
from jetbridge.bus.errors import BusUnavailableError, TopologyError
from jetbridge.bus.kv import answered

READ_SECONDS = 20.0
"""Limit of reading one object: nats-py waits for ever for a chunk that expired."""


class ObjectMissingError(Exception):
    """There is no such object, or not any more."""


class Objects:
    """Bytes by name, in one bucket."""

    def __init__(self, store: ObjectStore) -> None:
        """Use :meth:`open` instead."""
        self._store = store

    @classmethod
    async def open(cls, bus: Bus, bucket: str) -> Objects:
        """Bind to the bucket; raises :class:`TopologyError` when it does not exist."""
        try:
            return cls(await answered(bus.js.object_store(bucket)))
        except (BucketNotFoundError, NotFoundError) as exc:
            msg = f"NATS has no object bucket {bucket!r}; run 'jetbridge bus apply' once before the services"
            raise TopologyError(msg) from exc

    async def put(self, name: str, data: bytes) -> None:
        """Write an object, replacing one of the same name."""
        await answered(self._store.put(name, data))

    async def get(self, name: str, limit_bytes: int) -> bytes:
        """
        Return an object's bytes.

        Raises :class:`ObjectMissingError`, or :class:`ValueError` when it is larger than the limit.
        """
        try:
            info = await answered(self._store.get_info(name))
            if (info.size or 0) > limit_bytes:
                msg = f"object {name!r} has {info.size} bytes; at most {limit_bytes} are taken"
                raise ValueError(msg)
            return await asyncio.wait_for(self._read(name), READ_SECONDS)
        except ObjectNotFoundError as exc:
            raise ObjectMissingError(name) from exc
        except TimeoutError as exc:
            msg = f"object {name!r} could not be read in {READ_SECONDS:.0f} s"
            raise BusUnavailableError(msg) from exc

    async def delete(self, name: str) -> None:
        """Delete an object; one that is gone already is no error."""
        try:
            await answered(self._store.delete(name))
        except ObjectNotFoundError:
            return

    async def _read(self, name: str) -> bytes:
        # Into a buffer: without one nats-py adds chunk to chunk, which copies everything for each.
        buffer = io.BytesIO()
        await answered(self._store.get(name, writeinto=buffer))
        return buffer.getvalue()
