"""
Task logs to object storage: Airflow's ``RemoteLogIO`` for workers, Airflow 3.3.

One local file of one attempt becomes one object, ``<relative path>.<part id>.log``. An attempt usually
has one. It has more when it continued on another agent after a deferral or a reschedule; each agent then
uploads what it has, under a part id of its own, and nobody rewrites an object that somebody else wrote.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

import structlog
from airflow.sdk.configuration import conf

from jetbridge.telemetry.measures import LOG_UPLOADED_BYTES, tell
from jetbridge.telemetry.spans import span
from jetbridge.telemetry.tracing import in_trace, remote_context, tracer
from jetbridge.xcom.errors import ObjectStoreError
from jetbridge.xcom.settings import ObjectStoreSettings
from jetbridge.xcom.store import ObjectStore, StoredObject

_FIRST_LINE_BYTES = 64 * 1024
_PART_ID_CHARS = 12

log = structlog.get_logger(__name__)
_tracer = tracer(__name__)


@cache
def logs_store() -> ObjectStore:
    """Return the store of this process and its forks; settings come from the environment once."""
    settings = ObjectStoreSettings.load()
    return ObjectStore(settings, settings.logs_bucket)


class ObjectStoreTaskLog:
    """
    Uploads an attempt's log when its process has ended, and reads it back.

    Airflow calls it in the supervisor after the task's state was reported, so nothing here can change
    the task's outcome. The local file is never removed.
    """

    processors: tuple[structlog.typing.Processor, ...] = ()
    """Airflow's contract asks for it; lines are uploaded as they were written to the file."""

    def upload(self, path: os.PathLike[str] | str, ti: object = None) -> None:
        """
        Store the log file at ``path``, relative to ``[logging] base_log_folder``. Never raises.

        Called again for the same file, which may have grown, it replaces the same object.
        """
        bound = log.bind(path=str(path), ti_id=str(getattr(ti, "id", "")))
        carrier = getattr(ti, "context_carrier", None) or {}
        context = None if in_trace() else remote_context(carrier.get("traceparent"))
        try:
            with span(_tracer, "log upload", context=context, kind="client") as opened:
                stored = self._upload(path)
                opened.set_attribute("jetbridge.log.bytes", stored.bytes if stored else 0)
        except (ObjectStoreError, OSError, ValueError) as exc:
            bound.error("task log was not uploaded; it is still on this agent's disk", error=str(exc))
            return
        if stored is not None:
            tell(LOG_UPLOADED_BYTES, stored.bytes)
            bound.info("task log uploaded", uri=stored.uri, bytes=stored.bytes)

    def _upload(self, path: os.PathLike[str] | str) -> StoredObject | None:
        base = Path(conf.get("logging", "base_log_folder")).resolve()
        file = (base / path).resolve()
        relative = file.relative_to(base)  # ValueError when the path leads out of the folder
        with file.open("rb") as source:
            identity = part_id(source)
            if identity is None:
                return None
            store = logs_store()
            key = f"{store.settings.key_prefix}{relative.as_posix()}.{identity}.log"
            return store.put(key, source, content_type="application/x-ndjson")

    def read(self, relative_path: str, ti: object) -> tuple[list[str], list[str] | None]:
        """Return where the log was found, and the content of each part; None when there is nothing."""
        sources, streams = self.stream(relative_path, ti)
        return sources, ["\n".join(stream) for stream in streams] or None

    def stream(self, relative_path: str, _ti: object) -> tuple[list[str], list[Iterator[str]]]:
        """Return where the log was found, and the lines of each part; the UI merges them by time."""
        try:
            store = logs_store()
            parts = store.list(f"{store.settings.key_prefix}{relative_path}")
        except ObjectStoreError as exc:
            return [f"Could not read the log from object storage: {exc}"], []
        if not parts:
            return [f"No log under s3://{store.bucket}/{store.settings.key_prefix}{relative_path}*"], []
        return [part.uri for part in parts], [_lines(store, part) for part in parts]


def part_id(source: BinaryIO) -> str | None:
    """
    Return what tells this local file from any other of the same path; None for an empty file.

    It is a hash of the first line, which holds a time in microseconds and never changes, because the file
    is only appended to. So a file that grew replaces its own object, and a file that another agent, or the
    same agent with a new disk, began later gets a new one. Nothing has to be remembered on the agent.
    """
    source.seek(0)
    first_line = source.readline(_FIRST_LINE_BYTES)
    return hashlib.sha256(first_line).hexdigest()[:_PART_ID_CHARS] if first_line else None


def _lines(store: ObjectStore, part: StoredObject) -> Iterator[str]:
    with SpooledTemporaryFile(max_size=store.settings.part_size_bytes) as spool:
        try:
            store.get(part.key, cast("BinaryIO", spool), expected_bytes=part.bytes)
        except ObjectStoreError as exc:
            yield f"Could not read {part.uri}: {exc}"
            return
        spool.seek(0)
        for line in spool:
            yield line.decode("utf-8", "backslashreplace").rstrip("\n")
