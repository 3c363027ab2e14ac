"""
Asking the bridge, and the claim check that lets requests and answers be larger than a NATS message.

An answer that never came says nothing: the request may have been handled. Every operation can therefore
be asked again (``contracts.rpc``).
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import NamedTuple, TypeVar

from nats.errors import ConnectionClosedError, MaxPayloadError, NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

from jetbridge.bus.connection import Bus
from jetbridge.bus.errors import BusError, BusUnavailableError
from jetbridge.bus.objects import ObjectMissingError, Objects
from jetbridge.bus.spans import asking
from jetbridge.contracts.envelope import Body, Envelope, MalformedMessageError, open_envelope, read_body, seal
from jetbridge.contracts.rpc import (
    AGENT_HEADER,
    MAX_INLINE_BYTES,
    MAX_RPC_BYTES,
    RPC_OBJECTS_BUCKET,
    TIMEOUT_HEADER,
    ByReference,
    RefusalCode,
    Refused,
)
from jetbridge.telemetry.tracing import trace_headers

A = TypeVar("A", bound=Body)


class RpcRefusedError(BusError):
    """The bridge answered that it did nothing, and why."""

    def __init__(self, code: RefusalCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Parcel(NamedTuple):
    """What to send for an envelope: the envelope, or a reference to ``object``, which holds it."""

    data: bytes
    object: str | None = None


class ClaimCheck:
    """Exchanges large envelopes for small ones that name an object, and back."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    @classmethod
    async def open(cls, bus: Bus) -> ClaimCheck:
        """Bind to the object bucket; raises :class:`TopologyError` when it does not exist."""
        return cls(await Objects.open(bus, RPC_OBJECTS_BUCKET))

    async def check_in(self, data: bytes) -> Parcel:
        """Return ``data`` as it may be sent; raises :class:`RpcRefusedError` when it is too large."""
        if len(data) <= MAX_INLINE_BYTES:
            return Parcel(data)
        if len(data) > MAX_RPC_BYTES:
            raise RpcRefusedError(
                RefusalCode.TOO_LARGE, f"a message of {len(data)} bytes; at most {MAX_RPC_BYTES} are taken"
            )
        name = uuid.uuid4().hex
        await self._objects.put(name, data)
        return Parcel(seal(ByReference(object=name, size=len(data))), name)

    async def read(self, data: bytes) -> Envelope:
        """
        Return the envelope that ``data`` is or stands for.

        Raises :class:`MessageError` when it is none, or names an object that is gone or too large.
        """
        return (await self._read(data))[0]

    async def take(self, data: bytes) -> Envelope:
        """Read as the last who does: the object is deleted."""
        envelope, name = await self._read(data)
        await self.discard(name)
        return envelope

    async def discard(self, name: str | None) -> None:
        """Delete an object, if there is one to delete. Failing is harmless: it expires by itself."""
        if name is not None:
            with suppress(BusError):
                await self._objects.delete(name)

    async def _read(self, data: bytes) -> tuple[Envelope, str | None]:
        envelope = open_envelope(data)
        if envelope.name != ByReference.name():
            return envelope, None
        name = read_body(envelope, ByReference).object
        try:
            return open_envelope(await self._objects.get(name, MAX_RPC_BYTES)), name
        except (ObjectMissingError, ValueError) as exc:
            raise MalformedMessageError(f"the referenced object cannot be used: {exc}") from exc


class RpcClient:
    """Asks the bridge in the name of agents."""

    def __init__(self, bus: Bus, claim_check: ClaimCheck) -> None:
        self._bus = bus
        self._claim_check = claim_check

    @classmethod
    async def open(cls, bus: Bus) -> RpcClient:
        """Bind to what large messages need; raises :class:`TopologyError` when it does not exist."""
        return cls(bus, await ClaimCheck.open(bus))

    async def ask(
        self, subject: str, body: Body, answer: type[A], *, agent: str, timeout_seconds: float
    ) -> A:
        """
        Send a request and return its answer.

        Raises :class:`RpcRefusedError` when the bridge refused, and :class:`BusUnavailableError` when no
        bridge runs or none answered in time.
        """
        parcel = await self._claim_check.check_in(seal(body))
        try:
            data = await self._exchange(subject, parcel.data, agent, timeout_seconds)
        finally:
            await self._claim_check.discard(parcel.object)
        envelope = await self._claim_check.take(data)
        if envelope.name == Refused.name():
            refused = read_body(envelope, Refused)
            raise RpcRefusedError(_code(refused.code), refused.detail)
        return read_body(envelope, answer)

    async def _exchange(self, subject: str, sent: bytes, agent: str, timeout_seconds: float) -> bytes:
        headers = {AGENT_HEADER: agent, TIMEOUT_HEADER: f"{timeout_seconds:.3f}"}
        try:
            with asking(subject):
                headers |= trace_headers()
                message = await self._bus.client.request(
                    subject, sent, timeout=timeout_seconds, headers=headers
                )
        except NoRespondersError as exc:
            raise BusUnavailableError("no bridge runs on the plane ('jetbridge bridge')") from exc
        except (NatsTimeoutError, ConnectionClosedError) as exc:
            raise BusUnavailableError(f"the bridge did not answer {subject} in time") from exc
        except MaxPayloadError as exc:
            msg = "NATS takes smaller messages than Jetbridge needs; set max_payload to 1 MiB or more"
            raise BusUnavailableError(msg) from exc
        return message.data


def _code(text: str) -> RefusalCode:
    try:
        return RefusalCode(text)
    except ValueError:  # a newer bridge's code
        return RefusalCode.INTERNAL
