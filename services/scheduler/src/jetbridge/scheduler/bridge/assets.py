"""
Whose an asset is: ``rpc.assets.*``. Written for Airflow 3.3.

Airflow's Execution API lets every task at every asset (a comment there says that this is to change), while
its task SDK gives a task the inlets and outlets that its Dag names. Those count here, in the version of the
Dag that the task instance runs. The tables of references know the latest version alone, and no aliases.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from airflow.exceptions import TaskNotFound
from airflow.models.asset import AssetModel, AssetWatcherModel, expand_alias_to_assets
from airflow.models.dagbag import DBDagBag
from airflow.models.taskinstance import TaskInstance
from airflow.serialization.definitions.assets import (
    SerializedAsset,
    SerializedAssetAlias,
    SerializedAssetNameRef,
    SerializedAssetUriRef,
)
from airflow.serialization.serialized_objects import BaseSerialization
from sqlalchemy import select
from sqlalchemy.orm import Session

from jetbridge.contracts.assets import FIND_OWN, FindOwnAssets, OwnAssets
from jetbridge.scheduler.bridge.database import Database
from jetbridge.scheduler.bridge.rpc import Operation


def find_own(session: Session, request: FindOwnAssets) -> OwnAssets:
    """Return the assets of a task instance, or of a trigger that no task waits for."""
    if request.task_instance is None:
        return _found(_watched(session, request.trigger_id))
    task = _task(session, UUID(request.task_instance))
    if task is None:
        return OwnAssets()
    inlets, outlets = _decoded(task.inlets), _decoded(task.outlets)
    stood_for = [
        asset
        for inlet in inlets
        if isinstance(inlet, SerializedAssetAlias)
        for asset in expand_alias_to_assets(inlet.name, session=session)
    ]
    return _found([*inlets, *outlets, *stood_for])


def _task(session: Session, task_instance: UUID) -> Any:
    ti = session.get(TaskInstance, task_instance)
    if ti is None:
        return None
    dags = DBDagBag(load_op_links=False)
    dag = dags.get_dag(ti.dag_version_id, session) if ti.dag_version_id else None
    dag = dag or dags.get_dag_for_run(ti.dag_run, session)
    try:
        return dag.get_task(ti.task_id) if dag else None
    except TaskNotFound:
        return None


def _decoded(assets: Iterable[Any]) -> list[Any]:
    """Return assets as Airflow's classes; it leaves those of mapped tasks as they are serialized."""
    return [BaseSerialization.deserialize(one) if isinstance(one, dict) else one for one in assets]


def _watched(session: Session, trigger_id: int | None) -> Iterable[AssetModel]:
    watches = AssetModel.watchers.any(AssetWatcherModel.trigger_id == trigger_id)
    return session.scalars(select(AssetModel).where(watches))


def _found(assets: Iterable[Any]) -> OwnAssets:
    names, uris, aliases = set(), set(), set()
    for one in assets:
        if isinstance(one, SerializedAsset | AssetModel | SerializedAssetNameRef):
            names.add(one.name)
        if isinstance(one, SerializedAsset | AssetModel | SerializedAssetUriRef):
            uris.add(one.uri)
        if isinstance(one, SerializedAssetAlias):
            aliases.add(one.name)
    return OwnAssets(names=tuple(sorted(names)), uris=tuple(sorted(uris)), aliases=tuple(sorted(aliases)))


def operations(database: Database) -> tuple[Operation[Any], ...]:
    """Return the requests about assets, bound to a database."""

    async def on_find_own(request: FindOwnAssets) -> OwnAssets:
        return await database.transaction(find_own, request)

    return (Operation(FIND_OWN, FindOwnAssets, on_find_own),)
