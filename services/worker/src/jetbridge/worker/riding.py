"""
The client of a task that rides through an outage: it keeps what the plane cannot take.

For Airflow 3.3: ``Client.send``, which is httpx' own and which every call of Airflow's client goes through.
``tests/unit/worker/test_airflow_contract.py`` fails when this changes. Only tasks under ``wait`` have it; all
others have Airflow's client as it is (``kept_client``).
"""

from __future__ import annotations

import random
import time
from typing import Any

import httpx
import structlog
from airflow.sdk.api.client import Client

from jetbridge.worker.kept_client import LIMITS
from jetbridge.worker.outbox import Call, Outbox, OutboxFullError
from jetbridge.worker.ride_rules import Row, Rule, row_of

log = structlog.get_logger(__name__)

TRY_AGAIN_SECONDS = 5.0
"""
While the plane is away, calls that need no answer of it are not held up by a try more often than this: where
packets vanish, each try takes ``[workers] execution_api_timeout``, 15 s.
"""

AWAY_STATUS = frozenset({408, 429, 502, 503, 504})
"""Nobody took the call. 500 is Airflow's own error, perhaps about this very call: not answered with *yes*."""

_KEPT_HEADERS = ("content-type", "airflow-api-version")


class RidingClient(Client):
    """
    Airflow's client, with :mod:`ride_rules` for when the plane is away.

    What is in the outbox goes first: as long as anything is, nothing that changes the plane overtakes it.
    """

    def __init__(self, *, base_url: str, token: str, outbox: Outbox, **options: Any) -> None:
        options.setdefault("limits", LIMITS)
        super().__init__(base_url=base_url, token=token, **options)
        self._outbox = outbox
        self._away: Exception | None = None
        self._try_again_at = 0.0
        self._is_stuck = False

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a call, or do with it what its rule says while the plane is away."""
        call = self._call(request)
        row = row_of(call.method, call.target)
        while True:
            error = self._away if time.monotonic() < self._try_again_at else None
            if error is None:
                try:
                    return self._send_in_order(request, call, row, options)
                except (httpx.RequestError, httpx.HTTPStatusError) as exc:
                    if not _is_away(exc):
                        raise
                    self._note_away(exc)
            if answer := self._ride(request, call, row):
                return answer
            time.sleep(max(0.0, self._try_again_at - time.monotonic()))

    def close(self) -> None:
        """Close the connections and the outbox."""
        self._outbox.close()
        super().close()

    def _send_in_order(
        self, request: httpx.Request, call: Call, row: Row, options: dict[str, Any]
    ) -> httpx.Response:
        self._catch_up()
        if self._is_stuck and row.rule is Rule.KEPT:
            self._outbox.keep(call, is_last=row.is_last)
            return _answer(request, row)
        response = super().send(request, **options)
        self._note_back()
        return response

    def _catch_up(self) -> None:
        """Deliver what is in the outbox. What Airflow refuses stays, and the agent will say what it means."""
        while not self._is_stuck and (call := self._outbox.first()):
            request = self.build_request(call.method, call.target, content=call.body, headers=call.headers)
            try:
                super().send(request)
            except httpx.HTTPStatusError as exc:
                if _is_away(exc):
                    raise
                log.error(  # noqa: TRY400 - the status says it; the text may quote data
                    "a call that was kept is refused now", call=repr(call), status=exc.response.status_code
                )
                self._is_stuck = True
            else:
                self._outbox.delivered(call)
                self._note_back()

    def _ride(self, request: httpx.Request, call: Call, row: Row) -> httpx.Response | None:
        """Return the answer given here, or None if there is none to give."""
        if row.rule is Rule.WAITS:
            return None
        if row.rule is Rule.KEPT:
            try:
                self._outbox.keep(call, is_last=row.is_last)
            except OutboxFullError as exc:
                log.warning("a call cannot be kept and waits for the plane", call=repr(call), reason=str(exc))
                return None
            log.info("a call is kept until the plane is back", call=repr(call))
        return _answer(request, row)

    def _call(self, request: httpx.Request) -> Call:
        base, path = self.base_url.raw_path, request.url.raw_path
        headers = {name: request.headers[name] for name in _KEPT_HEADERS if name in request.headers}
        return Call(
            method=request.method,
            target=path.removeprefix(base).decode("ascii"),
            headers=headers,
            body=request.read(),
        )

    def _note_away(self, error: Exception) -> None:
        if self._away is None:
            log.warning("the plane is away; the task goes on", reason=_describe(error))
        self._away = error
        self._try_again_at = time.monotonic() + TRY_AGAIN_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311

    def _note_back(self) -> None:
        if self._away is not None:
            self._away = None
            log.info("the plane is back")


def _is_away(error: Exception) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        response = error.response
        # Gateway and Airflow answer errors as JSON; anything else is a proxy's while there is no gateway.
        return response.status_code in AWAY_STATUS or "json" not in response.headers.get("content-type", "")
    return isinstance(error, httpx.TransportError)


def _describe(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"it answered {error.response.status_code}"
    return type(error).__name__


def _answer(request: httpx.Request, row: Row) -> httpx.Response:
    return httpx.Response(row.status, request=request)
