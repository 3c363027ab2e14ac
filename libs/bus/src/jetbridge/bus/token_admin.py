"""What people do with tokens, whether by command or over REST: the same checks, the same words."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from jetbridge.bus.token_uses import TokenUseStore
from jetbridge.bus.tokens import DEFAULT_LIFE, DEFAULT_OVERLAP, TokenStore
from jetbridge.contracts.records import TokenRecord, TokenUseRecord
from jetbridge.contracts.scopes import TokenScopes, networks

MAX_NAME = 128
MAX_DAYS = 3650.0
MAX_OVERLAP = timedelta(days=30)
"""Longer, and two secrets would be the normal state."""

_TOKEN_ID = re.compile(r"[0-9a-z]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DURATION = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class NewToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody wants a token for. ``certificate_sha256`` binds it to one client certificate."""

    name: Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
    expires_in_days: Annotated[float, Meta(gt=0, le=MAX_DAYS)] = float(DEFAULT_LIFE.days)
    scopes: TokenScopes = TokenScopes()
    certificate_sha256: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        check_certificate(self.certificate_sha256)
        networks(self.scopes.cidrs)


class Rotation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a token is rotated: how long its secret before is still taken, and how long it lives from now."""

    overlap_seconds: Annotated[float, Meta(ge=0, le=MAX_OVERLAP.total_seconds())] = (
        DEFAULT_OVERLAP.total_seconds()
    )
    expires_in_days: Annotated[float, Meta(gt=0, le=MAX_DAYS)] = float(DEFAULT_LIFE.days)


class TokenView(msgspec.Struct, frozen=True, kw_only=True):
    """
    A token as people see it: everything but hashes of secrets.

    ``state`` is ``valid``, ``expired`` or ``revoked``. Last use is None when none is known.
    """

    id: str
    name: str
    state: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    rotated_at: datetime | None
    previous_secret_until: datetime | None
    scopes: TokenScopes
    certificate_sha256: str
    last_used_at: datetime | None
    last_used_from: str | None


async def views(tokens: TokenStore, uses: TokenUseStore) -> list[TokenView]:
    """Return all tokens, oldest first."""
    used, now = await uses.all(), datetime.now(UTC)
    return [view(record, used.get(record.id), now) for record in await tokens.list()]


def view(record: TokenRecord, use: TokenUseRecord | None, now: datetime) -> TokenView:
    """Return a token as people see it at ``now``."""
    overlapping = record.previous_until is not None and now < record.previous_until
    return TokenView(
        id=record.id,
        name=record.name,
        state=_state(record, now),
        created_at=record.created_at,
        expires_at=record.expires_at,
        revoked_at=record.revoked_at,
        rotated_at=record.rotated_at,
        previous_secret_until=record.previous_until if overlapping else None,
        scopes=record.scopes,
        certificate_sha256=record.certificate_sha256,
        last_used_at=use.used_at if use else None,
        last_used_from=use.address if use else None,
    )


def _state(record: TokenRecord, now: datetime) -> str:
    if record.revoked_at:
        return "revoked"
    return "valid" if now < record.expires_at else "expired"


def describe(scopes: TokenScopes) -> str:
    """Return what a token may do, for a table: ``worker; queues gpu,default``."""
    parts = [
        f"{name} {','.join(values)}" for name, values in msgspec.structs.asdict(scopes).items() if values
    ]
    return "; ".join(parts) or "anything"


def check_name(text: str) -> str:
    """Return a token's name; raises ``ValueError``."""
    if not text.strip() or len(text) > MAX_NAME or not text.isprintable():
        raise ValueError(f"a name has 1 to {MAX_NAME} printable characters")
    return text


def check_certificate(text: str) -> str:
    """Return a certificate's SHA-256, or nothing; raises ``ValueError``."""
    plain = text.replace(":", "").lower()
    if plain and not _SHA256.fullmatch(plain):
        raise ValueError("a client certificate is named by the SHA-256 of its DER form, 64 hex digits")
    return plain


def is_token_id(text: str) -> bool:
    """Say whether a text has the form of a token's id."""
    return _TOKEN_ID.fullmatch(text) is not None


def parse_duration(text: str) -> timedelta:
    """Read ``90s``, ``15m``, ``24h`` or ``7d``; raises ``ValueError``."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("a time has the form 90s, 15m, 24h or 7d")
    arguments: dict[str, Any] = {_UNITS[match[2]]: int(match[1])}
    return timedelta(**arguments)
