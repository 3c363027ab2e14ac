"""Errors as RFC 9457 problem documents; the types are in ``jetbridge.contracts.problems``."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from jetbridge.contracts.api import Problem
from jetbridge.contracts.problems import ProblemType

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1
"""What a 502 or 503 suggests; agents add their own backoff and jitter."""

_MAX_DETAIL = 500
"""Details may quote the request (a field's name), which can be as long as the sender likes."""

_encoder = msgspec.json.Encoder()


class ProblemError(Exception):
    """Ends a request with a problem document. ``detail`` says what to do and never holds a secret."""

    def __init__(self, kind: ProblemType, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{kind.slug}: {detail}")
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})


def unauthenticated() -> ProblemError:
    """
    Return the one answer to every token that is not accepted.

    Wrong, expired, revoked, malformed and missing look the same, so that a guess teaches nothing.
    """
    return ProblemError(
        ProblemType.UNAUTHENTICATED,
        "Send a valid, unexpired token as 'Authorization: Bearer'. Agents register anew at /v1/agents; "
        "an operator makes agent tokens with 'jetbridge token create'.",
        headers={"WWW-Authenticate": 'Bearer realm="jetbridge"'},
    )


def unavailable(detail: str) -> ProblemError:
    """Return the answer for what the plane cannot do right now; asking again helps."""
    return ProblemError(ProblemType.UNAVAILABLE, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


def encode_problem(kind: ProblemType, detail: str, instance: str = "") -> bytes:
    """Return the document itself. ``instance`` is the id that the gateway's log carries."""
    problem = Problem(
        type=kind.uri, title=kind.title, status=kind.status, detail=detail[:_MAX_DETAIL], instance=instance
    )
    return _encoder.encode(problem)


def problem_response(error: ProblemError, instance: str = "") -> Response:
    """Return the response for an error."""
    return Response(
        encode_problem(error.kind, error.detail, instance),
        status_code=error.kind.status,
        media_type=MEDIA_TYPE,
        headers={"Cache-Control": "no-store", **error.headers},
    )
