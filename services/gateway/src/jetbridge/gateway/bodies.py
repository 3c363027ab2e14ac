"""Reading request bodies within limits and turning them into the structs of the contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from jetbridge.contracts.api import CONTRACT
from jetbridge.contracts.api import Request as RequestBody
from jetbridge.contracts.problems import ProblemType
from jetbridge.gateway.problems import ProblemError

B = TypeVar("B", bound=RequestBody)

_DISCARDED_BYTES = 16 << 20
"""How much of a refused body is read so that its sender sees the answer; beyond it, it sees a reset."""

_encoder = msgspec.json.Encoder()


class _ContractOnly(msgspec.Struct):
    contract: int = 1


_contract_decoder = msgspec.json.Decoder(_ContractOnly)


class BodyReader(Generic[B]):
    """
    Reads one type of body.

    Anything but JSON is 415, over ``max_bytes`` 413, a newer contract 422, all else that does not fit 400.
    """

    def __init__(self, body_type: type[B], max_bytes: int, read_seconds: float) -> None:
        self._decoder = msgspec.json.Decoder(body_type)
        self._max_bytes = max_bytes
        self._read_seconds = read_seconds

    async def read(self, request: Request) -> B:
        """Return the body; raises the problem to answer with."""
        check_query(request)
        _check_media_type(request)
        await check_length(request, self._max_bytes, self._read_seconds)
        data = await whole(limited(request, self._max_bytes, self._read_seconds))
        try:
            body = self._decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            # A newer contract may well not fit this one's shape; what to do about it differs.
            _check_contract(_contract_of(data))
            raise ProblemError(ProblemType.MALFORMED, f"{exc}.") from exc
        _check_contract(body.contract)
        return body


def json_response(body: msgspec.Struct) -> Response:
    """Return 200 with a body of the contract. Answers may carry credentials, so nobody keeps them."""
    return Response(
        _encoder.encode(body), media_type="application/json", headers={"Cache-Control": "no-store"}
    )


async def check_length(request: Request, max_bytes: int, read_seconds: float) -> None:
    """Refuse a body that says it is larger than ``max_bytes``."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > max_bytes:
        await _discard(request, asyncio.get_running_loop().time() + read_seconds)
        raise _too_large(max_bytes)


async def _discard(request: Request, deadline: float) -> None:
    """
    Read on without keeping anything, within limits.

    Closing a connection on which the client still sends makes its system throw the answer away unread.
    """
    left, more = _DISCARDED_BYTES, True
    while more and left > 0:
        message = await _next(request, deadline)
        left -= len(message.get("body", b""))
        more = message.get("more_body", False)


async def limited(request: Request, max_bytes: int, read_seconds: float) -> AsyncIterator[bytes]:
    """
    Yield the body's chunks; 413 as soon as there are more than ``max_bytes``.

    400 when it does not arrive within ``read_seconds``: nobody holds a request open by sending slowly.
    """
    deadline = asyncio.get_running_loop().time() + read_seconds
    received, more = 0, True
    while more:
        message = await _next(request, deadline)
        chunk, more = message.get("body", b""), message.get("more_body", False)
        received += len(chunk)
        if received > max_bytes:
            if more:
                await _discard(request, deadline)
            raise _too_large(max_bytes)
        yield chunk


async def whole(chunks: AsyncIterator[bytes]) -> bytes:
    """Return all chunks as one."""
    return b"".join([chunk async for chunk in chunks])


async def _next(request: Request, deadline: float) -> Message:
    try:
        async with asyncio.timeout_at(deadline):
            message = await request.receive()
    except TimeoutError as exc:
        raise ProblemError(ProblemType.MALFORMED, "The body did not arrive in time.", headers=_CLOSE) from exc
    if message["type"] == "http.disconnect":
        raise ProblemError(ProblemType.MALFORMED, "The body ended early.")
    return message


_CLOSE = {"Connection": "close"}
"""What is left of a refused body is not read, so the connection cannot be used again."""


def _too_large(max_bytes: int) -> ProblemError:
    return ProblemError(
        ProblemType.TOO_LARGE, f"This operation takes at most {max_bytes} bytes.", headers=_CLOSE
    )


def check_query(request: Request) -> None:
    """Refuse a query string: nothing here takes one, and tokens put there end up in logs."""
    if request.scope["query_string"]:
        raise ProblemError(
            ProblemType.MALFORMED,
            "This operation takes no query string. Tokens belong into the Authorization header only; "
            "one that was sent in a URL should be revoked.",
        )


def _check_media_type(request: Request) -> None:
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if media_type.strip().lower() != "application/json" or charset not in ("", "utf-8"):
        raise ProblemError(
            ProblemType.UNSUPPORTED_MEDIA, "Send 'Content-Type: application/json' and a JSON body in UTF-8."
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ProblemError(ProblemType.UNSUPPORTED_MEDIA, "Send the body without a Content-Encoding.")


def _contract_of(data: bytes) -> int:
    try:
        return _contract_decoder.decode(data).contract
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return CONTRACT


def _check_contract(contract: int) -> None:
    if contract > CONTRACT:
        raise ProblemError(
            ProblemType.UNKNOWN_CONTRACT,
            f"This gateway speaks contract {CONTRACT}, the request is for {contract}. "
            "Upgrade the gateway first, then the agents.",
        )
