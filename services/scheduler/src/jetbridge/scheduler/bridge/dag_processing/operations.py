"""The requests of Dag processors: ``rpc.dag-processing.*``. Plain functions of a session and a request."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.dag_processing.manager import DagFileInfo
from airflow.models.dag import DagModel
from airflow.models.dagwarning import DagWarning
from airflow.utils.session import create_session
from sqlalchemy import select
from sqlalchemy.orm import Session

from jetbridge.contracts import dag_processing as contract
from jetbridge.contracts.dag_processing import (
    BundleRefreshed,
    BundleStateAnswer,
    DagFound,
    DeactivateStale,
    DeclareBundle,
    FileParsed,
    FileRecorded,
    FilesPresent,
    FindDag,
    GetBundleState,
    GetRequests,
    Noted,
    PriorityFile,
    Requests,
)
from jetbridge.contracts.packing import Packed
from jetbridge.scheduler.bridge.dag_processing import bundles, callbacks, jobs
from jetbridge.scheduler.bridge.dag_processing.manager import PlaneManager, file_info
from jetbridge.scheduler.bridge.dag_processing.results import ResultCache, unpacked, write
from jetbridge.scheduler.bridge.database import Database
from jetbridge.scheduler.bridge.rpc import Operation


def declare(session: Session, request: DeclareBundle) -> Noted:
    """Make a bundle known to Airflow."""
    bundles.declare(session, request)
    return Noted()


def state(session: Session, request: GetBundleState) -> BundleStateAnswer:
    """Say when a bundle was refreshed, and at which version."""
    found = PlaneManager.of(request.bundle).get_bundle_state(request.bundle, session=session)
    if found is None:
        return BundleStateAnswer(known=False)
    age = (datetime.now(UTC) - found.last_refreshed).total_seconds() if found.last_refreshed else None
    return BundleStateAnswer(known=True, version=found.version, refreshed_seconds_ago=age)


def refreshed(session: Session, request: BundleRefreshed) -> Noted:
    """Note that a bundle was refreshed now."""
    PlaneManager.of(request.bundle).update_bundle_state(
        request.bundle, last_refreshed=datetime.now(UTC), version=request.version, session=session
    )
    return Noted()


def files_present(request: FilesPresent) -> Noted:
    """Deactivate Dags and drop import errors whose files are gone."""
    manager = PlaneManager.of(request.bundle, present_paths=request.paths)
    manager.deactivate_deleted_dags(request.bundle, present=set())
    manager.clear_orphaned_import_errors(request.bundle, set(request.paths))
    DagWarning.purge_inactive_dag_warnings()
    return Noted()


def deactivate_stale(request: DeactivateStale) -> Noted:
    """Deactivate Dags that are not in their files any more, and drop what was to be said about them."""
    parsed: dict[DagFileInfo, datetime | None] = {
        file_info(request.bundle, one.path): one.at for one in request.parsed
    }
    PlaneManager.of(request.bundle).deactivate_stale_dags(parsed)
    DagWarning.purge_inactive_dag_warnings()
    return Noted()


def requests(session: Session, request: GetRequests) -> Requests:
    """Hand out what somebody wants parsed now, and callbacks."""
    names = [held.bundle for held in request.bundles]
    if request.agent:
        jobs.beat(session, request.agent)
    callbacks.forget(session, request.done)
    files = PlaneManager.of(*names)._claim_priority_files(session=session)  # noqa: SLF001 - the hook takes no session
    return Requests(
        files=tuple(PriorityFile(bundle=file.bundle_name, path=str(file.rel_path)) for file in files),
        callbacks=callbacks.waiting(session, names, {*request.running, *request.done}, request.max_callbacks),
    )


def find_dag(session: Session, request: FindDag) -> DagFound:
    """Say of which bundle a Dag is."""
    return DagFound(
        bundle=session.scalar(select(DagModel.bundle_name).where(DagModel.dag_id == request.dag_id))
    )


async def file_parsed(database: Database, cache: ResultCache, request: FileParsed) -> FileRecorded:
    """
    Write a file's result, as sent or as kept from before.

    Also an unchanged result is written: Airflow notes when a Dag was last parsed, works out its next run,
    and brings back a Dag that somebody deleted in the UI while its file is still there.
    """
    data = request.result if request.result is not None else cache.get(request.hash)
    now = datetime.now(UTC)
    if data is None:
        return FileRecorded(hash=None, now=now)
    bundles.configure(request.bundle)
    await database.run(_unpack_and_write, request, Packed(request.hash, data))
    cache.put(request.hash, data)
    return FileRecorded(hash=request.hash, now=now)


def _unpack_and_write(request: FileParsed, packed: Packed) -> None:
    # Both in one thread of the pool: taking 100 MiB apart would hold up the event loop.
    result = unpacked(packed)
    with create_session() as session:
        write(session, request, result)


def operations(database: Database, cache: ResultCache) -> tuple[Operation[Any], ...]:
    """Return the requests of Dag processors, bound to a database."""

    async def on_declare(request: DeclareBundle) -> Noted:
        return await database.transaction(declare, request)

    async def on_state(request: GetBundleState) -> BundleStateAnswer:
        return await database.transaction(state, request)

    async def on_refreshed(request: BundleRefreshed) -> Noted:
        return await database.transaction(refreshed, request)

    async def on_files(request: FilesPresent) -> Noted:
        return await database.run(files_present, request)

    async def on_parsed(request: FileParsed) -> FileRecorded:
        return await file_parsed(database, cache, request)

    async def on_stale(request: DeactivateStale) -> Noted:
        return await database.run(deactivate_stale, request)

    async def on_requests(request: GetRequests) -> Requests:
        return await database.transaction(requests, request)

    async def on_find_dag(request: FindDag) -> DagFound:
        return await database.transaction(find_dag, request)

    return (
        Operation(contract.DECLARE_BUNDLE, DeclareBundle, on_declare),
        Operation(contract.GET_BUNDLE_STATE, GetBundleState, on_state),
        Operation(contract.BUNDLE_REFRESHED, BundleRefreshed, on_refreshed),
        Operation(contract.FILES_PRESENT, FilesPresent, on_files),
        Operation(contract.FILE_PARSED, FileParsed, on_parsed),
        Operation(contract.DEACTIVATE_STALE, DeactivateStale, on_stale),
        Operation(contract.GET_REQUESTS, GetRequests, on_requests),
        Operation(contract.FIND_DAG, FindDag, on_find_dag),
    )
