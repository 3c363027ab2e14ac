"""
Agent tokens over REST, for Airflow's UI and scripts: ``/jetbridge/tokens``.

Who may is decided by Airflow's auth manager, by the rights to connections: whoever may write those can have
every secret of the plane already. Written for Airflow 3.3 (``GetUserDep``, ``is_authorized_connection``).

=============================  ==========================================================
``GET /tokens``                all tokens, without secrets
``POST /tokens``               make one; the answer has its secret, once
``POST /tokens/{id}/rotate``   a new secret; the one before is taken until the overlap ends
``DELETE /tokens/{id}``        revoke; safe to repeat
=============================  ==========================================================
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import structlog
from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import Depends, FastAPI, HTTPException, Request, Response

from jetbridge.bus.connection import open_bus
from jetbridge.bus.errors import BusError
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.token_admin import NewToken, Rotation, check_certificate, is_token_id, view, views
from jetbridge.bus.token_uses import TokenUseStore
from jetbridge.bus.tokens import TokenStore
from jetbridge.contracts.ids import AgentToken
from jetbridge.contracts.records import TokenRecord

log = structlog.get_logger(__name__)
B = TypeVar("B", bound=msgspec.Struct)

MAX_BODY_BYTES = 256 << 10
"""256 queues and 256 bundles of 256 characters, with room to spare."""


@dataclass(frozen=True)
class _Stores:
    tokens: TokenStore
    uses: TokenUseStore


def _may(method: Literal["GET", "POST", "PUT", "DELETE"]) -> Callable[[BaseUser], BaseUser]:
    def check(user: GetUserDep) -> BaseUser:
        if not get_auth_manager().is_authorized_connection(method=method, user=user):
            raise HTTPException(403, "Agent tokens are for those who may do this with Airflow's connections.")
        return user

    return check


Reader = Annotated[BaseUser, Depends(_may("GET"))]
Maker = Annotated[BaseUser, Depends(_may("POST"))]
Changer = Annotated[BaseUser, Depends(_may("PUT"))]
Remover = Annotated[BaseUser, Depends(_may("DELETE"))]


def make_app() -> FastAPI:
    """Return the application that Airflow mounts."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/tokens")
    async def list_tokens(user: Reader) -> Response:
        del user
        async with _stores() as stores:
            return _json({"tokens": await views(stores.tokens, stores.uses)})

    @app.post("/tokens")
    async def create_token(request: Request, user: Maker) -> Response:
        wanted = await _body(request, NewToken)
        life, certificate = (
            timedelta(days=wanted.expires_in_days),
            check_certificate(wanted.certificate_sha256),
        )
        async with _stores() as stores:
            token, record = await stores.tokens.create(wanted.name, life, wanted.scopes, certificate)
        log.info("token.created", token_id=record.id, by=user.get_name())
        return _with_secret(token, record, status=201)

    @app.post("/tokens/{token_id}/rotate")
    async def rotate_token(token_id: str, request: Request, user: Changer) -> Response:
        how = await _body(request, Rotation)
        overlap, life = timedelta(seconds=how.overlap_seconds), timedelta(days=how.expires_in_days)
        async with _stores() as stores:
            rotated = await stores.tokens.rotate(_known_form(token_id), overlap, life)
        if rotated is None:
            raise HTTPException(404, "There is no such token, or it is revoked; revoked ones stay so.")
        log.info("token.rotated", token_id=token_id, by=user.get_name(), overlap_seconds=how.overlap_seconds)
        return _with_secret(*rotated)

    @app.delete("/tokens/{token_id}")
    async def revoke_token(token_id: str, user: Remover) -> Response:
        async with _stores() as stores:
            record = await stores.tokens.revoke(_known_form(token_id))
        if record is None:
            raise HTTPException(404, "There is no such token.")
        log.info("token.revoked", token_id=token_id, by=user.get_name())
        return _json({"token": view(record, None, datetime.now(UTC))})

    return app


@asynccontextmanager
async def _stores() -> AsyncIterator[_Stores]:
    """Connect for one request: they are rare, and an api-server should not need NATS to start."""
    try:
        async with open_bus(BusSettings(), "jetbridge-plugin") as bus:
            yield _Stores(await TokenStore.open(bus), await TokenUseStore.open(bus))
    except BusError as exc:
        log.warning("tokens.bus_unavailable", error=str(exc))
        raise HTTPException(503, f"The tokens cannot be reached now: {exc}.", {"Retry-After": "1"}) from exc


async def _body(request: Request, kind: type[B]) -> B:
    """Read a JSON body; the media type keeps forms of other sites out, which a browser sends unasked."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "Send 'Content-Type: application/json'.")
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise HTTPException(413, f"This operation takes at most {MAX_BODY_BYTES} bytes.")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise HTTPException(422, f"{exc}.") from exc


def _known_form(token_id: str) -> str:
    if not is_token_id(token_id):  # not repeated: it may be a whole token, pasted by mistake
        raise HTTPException(404, "A token's id has 12 lower-case characters, the part after 'jb_'.")
    return token_id


def _with_secret(token: AgentToken, record: TokenRecord, status: int = 200) -> Response:
    return _json({"secret": str(token), "token": view(record, None, datetime.now(UTC))}, status)


def _json(body: Any, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        media_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
