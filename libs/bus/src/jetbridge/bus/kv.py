"""Typed records in a KV bucket with compare-and-set, and library errors turned into ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

import msgspec
import structlog
from nats.errors import ConnectionClosedError, NoRespondersError
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.errors import (
    APIError,
    KeyNotFoundError,
    KeyWrongLastSequenceError,
    NoStreamResponseError,
    NotFoundError,
)
from nats.js.kv import KeyValue

from jetbridge.bus.errors import BusUnavailableError, ConflictError
from jetbridge.bus.watch import BucketWatch, Entry

log = structlog.get_logger(__name__)

R = TypeVar("R", bound=msgspec.Struct)
T = TypeVar("T")

_WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
"""nats-server's codes for a lost compare-and-set; nats-py translates them on update, not on delete."""

READ_SECONDS = 30.0
"""For a whole bucket: 100,000 records are read in a few seconds."""


@dataclass(frozen=True)
class Versioned(Generic[R]):
    """A record and the revision it was read at."""

    record: R
    revision: int


async def answered(request: Awaitable[T]) -> T:
    """
    Await a JetStream request; raises :class:`ConflictError` or :class:`BusUnavailableError`.

    nats-py's ``NotFoundError`` passes: what is missing, and whether that is bad, only the caller knows.
    """
    try:
        return await request
    except NotFoundError:
        raise
    except KeyWrongLastSequenceError as exc:
        raise ConflictError(str(exc)) from exc
    except APIError as exc:
        if exc.err_code in _WRONG_LAST_SEQUENCE:
            raise ConflictError(str(exc)) from exc
        msg = f"JetStream refused: {exc.description or exc}"
        raise BusUnavailableError(msg) from exc
    except (NatsTimeoutError, NoRespondersError, NoStreamResponseError, ConnectionClosedError) as exc:
        msg = "NATS JetStream did not answer in time"
        raise BusUnavailableError(msg) from exc


class RecordBucket(Generic[R]):
    """Records of one type in one bucket. Values that do not decode raise ``msgspec.DecodeError``."""

    def __init__(self, js: JetStreamContext, kv: KeyValue, name: str, record_type: type[R]) -> None:
        """Wrap ``kv``, the bucket ``name``, whose values are ``record_type`` as JSON."""
        self.js = js
        self.kv = kv
        self.name = name
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(record_type)
        self._listeners: list[Callable[[str, Versioned[R]], None]] = []

    def on_write(self, listener: Callable[[str, Versioned[R]], None]) -> None:
        """Call ``listener(key, record)`` after every write through this object; it must not block."""
        self._listeners.append(listener)

    def decode(self, value: bytes) -> R:
        """Decode one value of the bucket."""
        return self._decoder.decode(value)

    def read(self, entry: Entry) -> Versioned[R] | None:
        """Return an entry's record; None for a deletion, and for what cannot be read, which is logged."""
        if entry.deleted:
            return None
        try:
            return Versioned(self.decode(entry.value), entry.revision)
        except msgspec.DecodeError as exc:
            # The place in our code says nothing; the place in the record does.
            log.error("bucket.unreadable_record", bucket=self.name, key=entry.key, error=str(exc))  # noqa: TRY400
            return None

    async def get(self, key: str) -> Versioned[R] | None:
        """Return the record, or None when there is none or it was deleted."""
        try:
            entry = await answered(self.kv.get(key))
        except KeyNotFoundError:
            return None
        return Versioned(self.decode(entry.value or b""), entry.revision or 0)

    async def all(self) -> dict[str, R]:
        """
        Return every record by its key: one pass of a watch, where reading each costs a round trip.

        Raises :class:`BusUnavailableError` when NATS does not deliver them in time.
        """
        found = [(entry.key, self.read(entry)) for entry in await self._entries()]
        return {key: versioned.record for key, versioned in found if versioned}

    @asynccontextmanager
    async def watching(self, *, headers_only: bool = False) -> AsyncIterator[BucketWatch]:
        """Watch the bucket; raises ``nats.errors.Error``."""
        watch = await BucketWatch.open(self.js, self.name, headers_only=headers_only)
        try:
            yield watch
        finally:
            await watch.close()

    async def _entries(self, *, headers_only: bool = False) -> list[Entry]:
        """Return the last entry of every key, deletions too."""
        try:
            async with asyncio.timeout(READ_SECONDS), self.watching(headers_only=headers_only) as watch:
                entries = []
                while entry := await watch.next(READ_SECONDS):
                    entries.append(entry)
                return entries
        except (NatsError, TimeoutError) as exc:
            raise BusUnavailableError(f"NATS does not deliver the records of bucket {self.name!r}") from exc

    async def create(self, key: str, record: R) -> int:
        """Write a record that must not exist; raises :class:`ConflictError` when it does."""
        return self._wrote(key, record, await answered(self.kv.create(key, self._encoder.encode(record))))

    async def update(self, key: str, record: R, revision: int) -> int:
        """Write over exactly ``revision``; raises :class:`ConflictError` when it is not the last."""
        written = await answered(self.kv.update(key, self._encoder.encode(record), last=revision))
        return self._wrote(key, record, written)

    async def put(self, key: str, record: R) -> int:
        """Write whatever is there now."""
        return self._wrote(key, record, await answered(self.kv.put(key, self._encoder.encode(record))))

    def _wrote(self, key: str, record: R, revision: int) -> int:
        for listener in self._listeners:
            listener(key, Versioned(record, revision))
        return revision

    async def delete(self, key: str, revision: int) -> None:
        """Delete exactly ``revision``; raises :class:`ConflictError` when it is not the last."""
        await answered(self.kv.delete(key, last=revision))

    async def sweep(self, older_than_seconds: float) -> int:
        """
        Drop the markers that deletions left behind that long ago; return how many were dropped.

        Each is purged up to its own revision. nats-py's ``purge_deletes`` purges the whole key, and with it
        a record that was written since it looked. Wrap in a timeout: a lost connection is waited out.
        """
        deadline = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        entries = await self._entries(headers_only=True)
        old = [entry for entry in entries if entry.deleted and entry.written_at < deadline]
        for entry in old:
            subject, seq = f"$KV.{self.name}.{entry.key}", entry.revision + 1
            await answered(self.js.purge_stream(f"KV_{self.name}", seq=seq, subject=subject))
        return len(old)
