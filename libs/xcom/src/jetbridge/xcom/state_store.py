"""
Airflow's state store backend for workers and triggerers. For the task SDK of Airflow 3.3.

``[workers] state_store_backend`` names it; ``test_state_store_hooks`` watches it. Values of
``context["task_state_store"]`` and ``context["asset_state_store"]`` go to the site's object store; the plane
keeps ``s3://bucket/key``. Unlike an XCom's, that name has to be the same for each write of the same key,
because Airflow deletes by scope and key: so a reference here carries no hash, and the last write counts.
"""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from io import BytesIO
from typing import Any

from airflow.sdk.state import AssetScope, BaseStoreBackend, TaskScope

from jetbridge.xcom.backend import xcom_store
from jetbridge.xcom.errors import ForeignReferenceError, ObjectMissingError
from jetbridge.xcom.keys import segment
from jetbridge.xcom.store import ObjectStore

_FOLDER = "state/"
Scope = TaskScope | AssetScope


class ObjectStoreStateBackend(BaseStoreBackend):
    """Every value is an object in the bucket of XCom values, below ``state/``."""

    def serialize_task_state_store_to_ref(self, *, value: Any, key: str, scope: TaskScope) -> str:
        """Store a task's value and return where."""
        return self._store(scope, key, json.dumps(value))

    def deserialize_task_state_store_from_ref(self, stored: str) -> Any:
        """Return the value at a reference, which must be below this worker's own folder."""
        return json.loads(self._load(stored))

    def serialize_asset_state_store_to_ref(self, *, value: Any, key: str, scope: AssetScope) -> str:
        """Store an asset's value and return where."""
        return self._store(scope, key, json.dumps(value))

    def deserialize_asset_state_store_from_ref(self, stored: str) -> Any:
        """Return the value at a reference, likewise."""
        return json.loads(self._load(stored))

    def get(self, scope: Scope, key: str, *, session: Any = None) -> str | None:  # noqa: ARG002 - Airflow's
        """Return a value as JSON, or None."""
        store = xcom_store()
        try:
            return self._load(_uri(store, scope, key))
        except ObjectMissingError:
            return None

    def set(  # noqa: D102 - as the base class says
        self,
        scope: Scope,
        key: str,
        value: str,
        *,
        expires_at: datetime | None = None,  # noqa: ARG002 - Airflow's; the bucket's expiry rule cleans up
        session: Any = None,  # noqa: ARG002 - Airflow's
    ) -> None:
        self._store(scope, key, value)

    def delete(self, scope: Scope, key: str, *, session: Any = None) -> None:  # noqa: ARG002 - Airflow's
        """Delete a value; one that is not there is deleted already."""
        store = xcom_store()
        store.delete(_object_key(store, scope, key))

    def clear(
        self,
        scope: Scope,
        *,
        all_map_indices: bool = False,
        session: Any = None,  # noqa: ARG002 - Airflow's
    ) -> None:
        """Delete everything of a scope."""
        store = xcom_store()
        prefix = _folder(store, scope)
        if all_map_indices and isinstance(scope, TaskScope):
            prefix = prefix.removesuffix(f"{scope.map_index}/")
        for found in store.list(prefix):
            store.delete(found.key)

    async def aget(self, scope: Scope, key: str, *, session: Any = None) -> str | None:
        """As :meth:`get`, in a thread."""
        return await asyncio.to_thread(self.get, scope, key, session=session)

    async def aset(  # noqa: D102 - as set
        self,
        scope: Scope,
        key: str,
        value: str,
        *,
        expires_at: datetime | None = None,
        session: Any = None,
    ) -> None:
        await asyncio.to_thread(self.set, scope, key, value, expires_at=expires_at, session=session)

    async def adelete(self, scope: Scope, key: str, *, session: Any = None) -> None:
        """As :meth:`delete`, in a thread."""
        await asyncio.to_thread(self.delete, scope, key, session=session)

    async def aclear(self, scope: Scope, *, all_map_indices: bool = False, session: Any = None) -> None:
        """As :meth:`clear`, in a thread."""
        await asyncio.to_thread(self.clear, scope, all_map_indices=all_map_indices, session=session)

    def _store(self, scope: Scope, key: str, text: str) -> str:
        store = xcom_store()
        name = _object_key(store, scope, key)
        return store.put(name, BytesIO(text.encode()), content_type="application/json").uri

    def _load(self, uri: str) -> str:
        store = xcom_store()
        home = f"s3://{store.bucket}/{store.settings.key_prefix}{_FOLDER}"
        key = uri.removeprefix(f"s3://{store.bucket}/")
        # References come from the plane; see Reference.key_in.
        if not uri.startswith(home) or any(part in {"", ".", ".."} for part in key.split("/")):
            raise ForeignReferenceError(uri, f"this worker reads {home}*")
        target = BytesIO()
        store.get(key, target)
        return target.getvalue().decode()


def _uri(store: ObjectStore, scope: Scope, key: str) -> str:
    return f"s3://{store.bucket}/{_object_key(store, scope, key)}"


def _object_key(store: ObjectStore, scope: Scope, key: str) -> str:
    return f"{_folder(store, scope)}{segment(key)}.json"


def _folder(store: ObjectStore, scope: Scope) -> str:
    if isinstance(scope, TaskScope):
        names = "/".join(segment(part) for part in (scope.dag_id, scope.run_id, scope.task_id))
        place = f"task/{names}/{scope.map_index}"
    else:
        names = "/".join(segment(part or "-") for part in (scope.name, scope.uri))
        place = f"asset/{names}"
    return f"{store.settings.key_prefix}{_FOLDER}{place}/"
