"""Whether an agent token's scopes allow what is asked. Pure; raises the problem to answer with."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from jetbridge.contracts.api import RegisterRequest
from jetbridge.contracts.problems import ProblemType
from jetbridge.contracts.records import TokenRecord
from jetbridge.contracts.scopes import is_restricted, is_within, outside
from jetbridge.gateway.origin import Origin
from jetbridge.gateway.problems import ProblemError

_NAMED = 8
"""Names repeated in an answer at most."""


def check_origin(token: TokenRecord, origin: Origin) -> None:
    """Refuse a token, or what it was exchanged for, from elsewhere or without its client certificate."""
    if not is_within(origin.address, token.scopes.cidrs):
        raise _forbidden(
            f"Token {token.id} may not be used from {origin.address}, by its scope of addresses."
        )
    if token.certificate_sha256 and token.certificate_sha256 != origin.certificate_sha256:
        raise _forbidden(
            f"Token {token.id} is bound to a client certificate, and this connection was made without it."
        )


def check_registration(token: TokenRecord, request: RegisterRequest, *, require_scopes: bool) -> None:
    """Refuse a role, a site or a queue outside the token's scopes."""
    if require_scopes and not is_restricted(token.scopes):
        raise _forbidden(
            f"Token {token.id} has no scopes and this gateway wants some. Make another one: "
            "'jetbridge token create --help' lists them."
        )
    if outside((request.site,), token.scopes.sites):
        raise _forbidden(
            f"Token {token.id} is for the sites {_list(token.scopes.sites)}, not for {request.site!r}."
        )
    check_role_and_queues(token, request.role, request.queues)


def check_role_and_queues(token: TokenRecord, role: str, queues: Collection[str]) -> None:
    """Refuse a role or a queue outside the token's scopes."""
    scopes = token.scopes
    if scopes.roles and role not in scopes.roles:
        raise _forbidden(f"Token {token.id} is for {_list(scopes.roles)}, not for a {role}.")
    if refused := outside(queues, scopes.queues):
        raise _forbidden(f"Token {token.id} is not for the queues {_list(refused)}.")
    if role == "triggerer" and scopes.queues and not queues:
        # To Airflow, no queues means triggers of all queues.
        raise _forbidden(f"Token {token.id} is for some queues only; have this triggerer name them.")


def check_bundles(token: TokenRecord, bundles: Iterable[str]) -> None:
    """Refuse a Dag bundle outside the token's scopes."""
    if refused := outside(bundles, token.scopes.bundles):
        raise _forbidden(f"Token {token.id} is not for the Dag bundles {_list(refused)}.")


def _list(names: Iterable[str]) -> str:
    quoted = [repr(name) for name in names]
    return ", ".join(quoted[:_NAMED]) + (", …" if len(quoted) > _NAMED else "")


def _forbidden(detail: str) -> ProblemError:
    return ProblemError(ProblemType.FORBIDDEN, detail)
