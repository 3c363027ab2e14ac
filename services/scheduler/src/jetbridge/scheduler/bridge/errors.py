"""Refusals: the answers to requests that had no effect. Imports no Airflow."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from jetbridge.contracts.rpc import RefusalCode


class RefusedError(Exception):
    """
    Ends a request without effect. ``detail`` says what is wrong with what, for the agent's operator.

    Raise it from a handler, inside or outside of its transaction: what the transaction did is rolled back.
    """

    def __init__(self, code: RefusalCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


def is_outage(error: BaseException) -> bool:
    """
    Say whether an error is the database's trouble of the moment, so that the same request may succeed later.

    Connection lost or refused, no connection free, locks, deadlocks and serialization failures; everything
    else is about what was asked.
    """
    if isinstance(error, (OperationalError, InterfaceError, PoolTimeoutError)):
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated
