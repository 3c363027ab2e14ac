"""Callbacks between being handed out and being reported as ended."""

from __future__ import annotations

from collections.abc import Iterable

import airflow.callbacks.callback_requests as requests
import structlog
from airflow.callbacks.callback_requests import CallbackRequest
from airflow.dag_processing.manager import DagFileInfo

from jetbridge.contracts.dag_processing import Callback

log = structlog.get_logger(__name__)

_KINDS = {
    kind.__name__: kind
    for kind in (requests.TaskCallbackRequest, requests.DagCallbackRequest, requests.EmailRequest)
}


class Callbacks:
    """Knows by id what this process runs, so that nothing runs twice here, and what has ended."""

    def __init__(self) -> None:
        self._running: dict[str, DagFileInfo] = {}
        self._done: set[str] = set()

    @property
    def running(self) -> tuple[str, ...]:
        """Return the ids of callbacks that have not ended."""
        return tuple(self._running)

    @property
    def done(self) -> tuple[str, ...]:
        """Return the ids of callbacks whose end the plane was not told."""
        return tuple(self._done)

    def told(self, done: Iterable[str]) -> None:
        """Note that the plane knows of these ends."""
        self._done.difference_update(done)

    def read(self, callback: Callback) -> CallbackRequest | None:
        """Return Airflow's request, or None for one that this process knows already or cannot run."""
        if callback.id in self._running or callback.id in self._done:
            return None
        try:
            return _KINDS[callback.kind].from_json(bytes(callback.request))
        except (KeyError, ValueError) as error:
            log.error(  # noqa: TRY400 - the reason is the message
                "callback cannot be run and is dropped", callback=callback.id, reason=repr(error)
            )
            self._done.add(callback.id)
            return None

    def begun(self, callback_id: str, file: DagFileInfo) -> None:
        """Note that a callback waits for, or runs in, the parser of ``file``."""
        self._running[callback_id] = file

    def forget(self, bundle: str) -> None:
        """Forget the callbacks of a bundle that is somebody else's now, who will be handed them."""
        self._running = {one: file for one, file in self._running.items() if file.bundle_name != bundle}

    def settle(self, alive: Iterable[DagFileInfo]) -> None:
        """Take every callback for ended whose file is neither waiting nor being worked on."""
        there = set(alive)
        ended = [one for one, file in self._running.items() if file not in there]
        for one in ended:
            del self._running[one]
        self._done.update(ended)
