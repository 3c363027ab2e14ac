"""
Airflow's XCom backend for workers. For the task SDK of Airflow 3.3; ``test_airflow_hooks`` watches it.

Airflow calls ``serialize_value`` before it sends an XCom to the plane, ``deserialize_value`` on what
comes back (also item by item for mapped upstreams) and ``purge`` before it deletes one. Operator links
are written past the backend (``_set_xcom_in_db``), so the UI shows them; of everything else it shows the
reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, NamedTuple, cast

import structlog
from airflow.sdk.bases.xcom import BaseXCom
from opentelemetry.trace import Span

from jetbridge.telemetry.measures import XCOM_READ_BYTES, XCOM_WRITTEN_BYTES, tell
from jetbridge.telemetry.spans import span
from jetbridge.telemetry.tracing import tracer
from jetbridge.xcom.errors import BadReferenceError
from jetbridge.xcom.keys import xcom_object_key
from jetbridge.xcom.reference import Reference
from jetbridge.xcom.settings import ObjectStoreSettings
from jetbridge.xcom.store import ObjectStore
from jetbridge.xcom.values import SUFFIXES, read_value, write_value

log = structlog.get_logger(__name__)
_tracer = tracer(__name__)


@cache
def xcom_store() -> ObjectStore:
    """Return the store of this process and its forks; settings come from the environment once."""
    settings = ObjectStoreSettings.load()
    return ObjectStore(settings, settings.xcom_bucket)


class ObjectStoreXComBackend(BaseXCom):
    """
    Every value goes to object storage; the plane gets a :class:`Reference`, whatever the value's size.

    Values take the way of stock Airflow (``BaseXCom.serialize_value``) first, so each type that works
    there works here. Errors of the store are :class:`~jetbridge.xcom.errors.ObjectStoreError`.
    """

    @staticmethod
    def serialize_value(  # type: ignore[override]  # noqa: PLR0913 - Airflow's; says str, means any JSON
        value: Any,
        *,
        key: str | None = None,
        task_id: str | None = None,
        dag_id: str | None = None,
        run_id: str | None = None,
        map_index: int | None = None,
    ) -> dict[str, Any]:
        """Store the value and return the reference's document."""
        store = xcom_store()
        with span(_tracer, "xcom put", kind="client") as opened, _spool(store) as spool:
            encoding = write_value(BaseXCom.serialize_value(value), spool)
            name = xcom_object_key(
                prefix=store.settings.key_prefix,
                dag_id=dag_id,
                run_id=run_id,
                task_id=task_id,
                map_index=map_index,
                key=key,
                suffix=SUFFIXES[encoding],
            )
            stored = store.put(name, spool, content_type="application/json")
            _describe(opened, stored.uri, stored.bytes)
            tell(XCOM_WRITTEN_BYTES, stored.bytes)
        return Reference(
            uri=stored.uri, bytes=stored.bytes, sha256=stored.sha256, encoding=encoding
        ).document()

    @staticmethod
    def deserialize_value(result: Any) -> Any:
        """
        Return the value that ``result.value`` refers to.

        A value that is no reference was written by the plane or before this backend was switched on, and
        is read as stock Airflow would.
        """
        reference = Reference.find(result.value)
        if reference is None:
            return BaseXCom.deserialize_value(result)
        store = xcom_store()
        key = reference.key_in(store)
        with span(_tracer, "xcom get", kind="client") as opened, _spool(store) as spool:
            _describe(opened, reference.uri, reference.bytes)
            store.get(key, spool, expected_bytes=reference.bytes, sha256=reference.sha256)
            tell(XCOM_READ_BYTES, reference.bytes)
            serialized = read_value(spool, reference.encoding)
        return BaseXCom.deserialize_value(_Result(serialized))

    @classmethod
    def purge(cls, xcom: Any, *_args: Any) -> None:
        """
        Delete the object behind an XCom; one that is gone already is no error.

        A store that cannot be reached is one: otherwise Airflow would forget the reference and the
        object would stay for ever. What a reference to another store points to is left alone.
        """
        try:
            reference = Reference.find(xcom.value)
            if reference is not None:
                store = xcom_store()
                store.delete(reference.key_in(store))
        except BadReferenceError as exc:
            # Airflow purges before each retry: an error here would fail the task for ever.
            log.warning("nothing purged behind an XCom that is being deleted", reason=str(exc))


def _describe(opened: Span, uri: str, size: int) -> None:
    opened.set_attributes({"jetbridge.xcom.uri": uri, "jetbridge.xcom.bytes": size})


class _Result(NamedTuple):
    value: Any


@contextmanager
def _spool(store: ObjectStore) -> Iterator[BinaryIO]:
    """Yield a scratch file that stays in memory up to the size of one part."""
    with SpooledTemporaryFile(max_size=store.settings.part_size_bytes) as spool:
        yield cast("BinaryIO", spool)
