"""
What a task's supervisor sends to Airflow, less what stays at the site. For the task SDK of Airflow 3.3.

The gateway enforces the same rules. Masking here as well means that what is closed never leaves the machine,
and only here can anything be sealed with the site's key. ``test_site_client_hooks`` fails when Airflow's
client has an operation that nobody looked at.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from airflow.sdk.api.client import Client, TaskInstanceOperations, XComOperations
from airflow.sdk.api.datamodels._generated import TIRunContext
from airflow.sdk.execution_time.comms import OKResponse

from jetbridge.contracts.boundary import DataClass, Decision, decision_of
from jetbridge.contracts.masking import (
    SEALED,
    WITHHELD_TEXT,
    is_sealed,
    masked_outlet_events,
    masked_values,
)
from jetbridge.sealing import carried
from jetbridge.sealing.carried import EVENT, TRACEBACK, Carried, Task, is_sealed_traceback
from jetbridge.sealing.keyring import SealingError, SiteKeys
from jetbridge.worker.airflow_env import SITE_KEY_VARIABLE

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Site:
    """What holds for one workload: what its lease opened, and the site's keys, read when they are needed."""

    opened: tuple[str, ...] = ()
    key_file: str | None = field(default_factory=lambda: os.environ.get(SITE_KEY_VARIABLE))

    @cached_property
    def decision(self) -> Decision:
        """Which classes may be sent as they are."""
        return decision_of(self.opened)

    @cached_property
    def keys(self) -> SiteKeys | None:
        """The site's keys; raises ``KeyFileError``. Read after the task was forked: it inherits none."""
        return SiteKeys(Path(self.key_file)) if self.key_file else None

    @property
    def has_keys(self) -> bool:
        """Whether the keys were read, and so are in the memory of this process."""
        return self.__dict__.get("keys") is not None

    def seal(self, task: Task, what: Carried, value: Any) -> Any:
        """Return a value sealed; as it is when the site has no key or there is nothing in it."""
        if not value or self.keys is None:
            return value
        return carried.seal(self.keys, task, what, value)

    def open_next(self, task: Task, next_kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return what a task carried over, opened; raises :class:`SealingError`, which says what to do."""
        if self.keys is None:
            if _sealed_in(next_kwargs):
                raise SealingError(
                    "the task's first half or its trigger ran where the site has a key, and this worker has "
                    "none. Give all agents of a site the same JETBRIDGE_AGENT_SITE_KEY_FILE"
                )
            return next_kwargs
        return carried.open_next(self.keys, task, next_kwargs)


def _sealed_in(next_kwargs: Mapping[str, Any]) -> bool:
    lines = next_kwargs.get(TRACEBACK)
    return (
        SEALED in next_kwargs
        or is_sealed(next_kwargs.get(EVENT))
        or (isinstance(lines, list) and is_sealed_traceback(lines))
    )


class SiteTaskInstances(TaskInstanceOperations):
    """Operations on the task instance, with what they carry masked or sealed."""

    __slots__ = ("site", "task")

    def __init__(self, client: Client, site: Site, task: Task) -> None:
        super().__init__(client)
        self.site = site
        self.task = task

    def start(self, *args: Any, **kwargs: Any) -> TIRunContext:
        """Begin, with what was carried over opened."""
        context = super().start(*args, **kwargs)
        if isinstance(context.next_kwargs, dict) and context.next_kwargs:
            context.next_kwargs = self.site.open_next(self.task, context.next_kwargs)
        return context

    def defer(self, id: UUID, msg: Any) -> None:  # noqa: A002 - Airflow's name
        """Defer, with what the trigger and the second half get sealed."""
        super().defer(id, self._sealed(msg, _DEFERRED))

    def await_input(self, id: UUID, msg: Any) -> None:  # noqa: A002 - Airflow's name
        """Wait for a person, likewise."""
        super().await_input(id, self._sealed(msg, _AWAITING))

    def succeed(
        self,
        id: UUID,  # noqa: A002 - Airflow's name
        when: Any,
        task_outlets: Any,
        outlet_events: Any,
        rendered_map_index: Any,
    ) -> None:
        """End well, without extras of asset events and rendered labels that are closed."""
        if outlet_events and not self._open(DataClass.ASSET_EVENT_EXTRA):
            outlet_events = masked_outlet_events(outlet_events)
        super().succeed(id, when, task_outlets, outlet_events, self._label(rendered_map_index))

    def finish(self, id: UUID, state: Any, when: Any, rendered_map_index: Any) -> None:  # noqa: A002 - Airflow's
        """End otherwise."""
        super().finish(id, state, when, self._label(rendered_map_index))

    def retry(
        self,
        id: UUID,  # noqa: A002 - Airflow's name
        end_date: Any,
        rendered_map_index: Any,
        retry_delay_seconds: float | None = None,
        retry_reason: str | None = None,
    ) -> None:
        """End to be tried again."""
        if retry_reason and not self._open(DataClass.EXCEPTION_TEXT):
            retry_reason = WITHHELD_TEXT
        super().retry(id, end_date, self._label(rendered_map_index), retry_delay_seconds, retry_reason)

    def set_rtif(self, id: UUID, body: dict[str, Any]) -> OKResponse:  # noqa: A002 - Airflow's name
        """Send rendered fields, or only their names."""
        return super().set_rtif(id, body if self._open(DataClass.RENDERED_FIELDS) else masked_values(body))

    def set_rendered_map_index(self, id: UUID, rendered_map_index: str) -> OKResponse:  # noqa: A002 - Airflow's
        """Send a rendered label, or nothing: it is there for people to read."""
        if not self._open(DataClass.RENDERED_FIELDS):
            return OKResponse(ok=True)
        return super().set_rendered_map_index(id, rendered_map_index)

    def _open(self, data: DataClass) -> bool:
        return self.site.decision.is_open(data)

    def _label(self, rendered_map_index: str | None) -> str | None:
        return rendered_map_index if self._open(DataClass.RENDERED_FIELDS) else None

    def _sealed(self, msg: Any, fields: Mapping[str, Carried]) -> Any:
        changes: dict[str, Any] = {
            name: self.site.seal(self.task, what, getattr(msg, name)) for name, what in fields.items()
        }
        if getattr(msg, "rendered_map_index", None):
            changes["rendered_map_index"] = self._label(msg.rendered_map_index)
        return msg.model_copy(update=changes)


_AWAITING = {"next_kwargs": Carried.NEXT_ARGUMENTS}
_DEFERRED = {**_AWAITING, "trigger_kwargs": Carried.TRIGGER_ARGUMENTS}


class SiteXComs(XComOperations):
    """Operations on XComs, without links that are closed."""

    __slots__ = ("site",)

    def __init__(self, client: Client, site: Site) -> None:
        super().__init__(client)
        self.site = site

    def set(self, *args: Any, **kwargs: Any) -> OKResponse:
        """Write an XCom. An operator's link, which goes past the XCom backend, is left out unless open."""
        key, value = args[3], args[4]
        if (
            key.startswith("_link_")
            and isinstance(value, str)
            and not self.site.decision.is_open(DataClass.OPERATOR_LINKS)
        ):
            log.info("operator link left out", key=key, boundary=DataClass.OPERATOR_LINKS.value)
            return OKResponse(ok=True)
        return super().set(*args, **kwargs)


class SiteClient:
    """Airflow's client with the operations above in place of its own."""

    def __init__(self, client: Client, site: Site, task: Task) -> None:
        self._client = client
        self.task_instances = SiteTaskInstances(client, site, task)
        self.xcoms = SiteXComs(client, site)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def guarded(client: Client, site: Site, ti: Any) -> Any:
    """Return what a supervisor of ``ti`` uses in place of ``client``."""
    return SiteClient(client, site, Task(ti.dag_id, ti.run_id, ti.task_id, ti.map_index))


current = Site()
"""What holds for the workload that this process runs; set before it begins."""


def use(site: Site) -> Site:
    """Set what holds for this process from now on, and return it."""
    global current  # noqa: PLW0603 - Airflow makes the coordinator, and hands it nothing of ours
    current = site
    return site
