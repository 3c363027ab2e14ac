"""
Airflow's Dag file processor manager, with the plane behind its hooks instead of a database. For Airflow 3.3.

The parsing loop, the bundles, the parser processes and all decisions about files are Airflow's. Its hooks
(AIP-92) ask the plane, where the bridge calls Airflow's own implementation of the same hook. Besides the
hooks, three private methods are overridden, because there is no hook for what they decide:

* ``_refresh_dag_bundles`` gets the loop's only record of known files, which must not hold a lost bundle's;
* ``_create_process`` makes the parser, which here has limits;
* ``_get_team_names`` opens the database.

``tests/unit/dag_processor/test_airflow_hooks.py`` fails when any of this moves.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import attrs
import structlog
from airflow.callbacks.callback_requests import CallbackRequest
from airflow.configuration import conf
from airflow.dag_processing.bundles.base import BaseDagBundle
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.manager import BundleState, DagFileInfo, DagFileProcessorManager
from airflow.dag_processing.processor import DagFileParsingResult, DagFileProcessorProcess
from airflow.sdk.api.client import Client
from airflow.sdk.log import init_log_file, logging_processors
from uuid6 import uuid7

from jetbridge.contracts.boundary import DataClass, decision_of
from jetbridge.contracts.dag_processing import (
    MAX_CALLBACKS,
    BundleRefreshedRequest,
    BundleStateAnswer,
    DeactivateStaleRequest,
    DeclareBundleRequest,
    FilesPresentRequest,
    GetBundleStateRequest,
    GetRequestsRequest,
    HeldBundle,
    Noted,
    ParsedAgo,
    Requests,
)
from jetbridge.dag_processor.callbacks import Callbacks
from jetbridge.dag_processor.execution_client import make_client
from jetbridge.dag_processor.parser import LimitedParser, ParserLimits, entrypoint, open_log
from jetbridge.dag_processor.plane import BundleLostError, Plane, PlaneError
from jetbridge.dag_processor.reporter import Reporter
from jetbridge.dag_processor.source import read_source

log = structlog.get_logger(__name__)

REQUESTS_SECONDS = 1.0
"""
How often the plane is asked for priority files and callbacks: each round of Airflow's loop, which takes a
second unless a parser keeps it busy with output.
"""


@attrs.define(kw_only=True, slots=False)
class RemoteManager(DagFileProcessorManager):
    """Parses the bundles that are this agent's now, and tells the plane."""

    plane: Plane
    limits: ParserLimits
    reporter: Reporter
    _api_server: Any = attrs.field(init=False, default=None)
    """Airflow's default is an API server in this process, with the database behind it."""

    _loaded: dict[str, BaseDagBundle] = attrs.field(init=False, factory=dict)
    _epochs: dict[str, int] = attrs.field(init=False, factory=dict)
    _callbacks: Callbacks = attrs.field(init=False, factory=Callbacks)
    _to_run: list[CallbackRequest] = attrs.field(init=False, factory=list)
    _requests_due: float = attrs.field(init=False, default=0.0)

    # Start

    def prepare_server_process_context(self) -> None:
        """Do not claim to be a server: those look for connections in the metadata database."""

    def sync_bundles(self) -> None:
        """Leave it to :meth:`attend`: a bundle is declared when it becomes this agent's."""

    def load_dag_bundles(self) -> None:
        """Load what is configured, and ask for what could be loaded; none is ours yet."""
        self._loaded = {bundle.name: bundle for bundle in self.get_all_bundles()}
        self.plane.ready(tuple(self._loaded))

    # Which bundles are ours

    def attend(self) -> None:
        """Take up bundles that became ours and drop those that are not any more. Airflow's ``heartbeat``."""
        held = self.plane.held().epochs
        for bundle in [name for name, epoch in self._epochs.items() if held.get(name) != epoch]:
            self._drop(bundle)
        for bundle, epoch in held.items():
            if bundle in self._loaded and bundle not in self._epochs:
                self._take_up(bundle, epoch)
        self._dag_bundles = [self._loaded[bundle] for bundle in self._epochs]
        self._callbacks.settle([*self._processors, *(f for f, r in self._callback_to_execute.items() if r)])

    def _take_up(self, bundle: str, epoch: int) -> None:
        template, params = _links(self._loaded[bundle])
        declaration = DeclareBundleRequest(
            bundle=bundle, epoch=epoch, view_url_template=template, template_params=params
        )
        with self._tolerating("declare", bundle):
            self.plane.ask("declare", declaration, Noted)
            self._epochs[bundle] = epoch
            self._force_rescan(bundle)
            log.info("working on bundle", bundle=bundle, epoch=epoch)

    def _drop(self, bundle: str) -> None:
        log.warning("not working on bundle any more", bundle=bundle)
        del self._epochs[bundle]
        self._bundle_versions.pop(bundle, None)
        self._force_refresh_bundles.discard(bundle)
        others = {file for file in self._all_files() if file.bundle_name != bundle}
        self.purge_removed_files_from_queue(present=others)
        self.terminate_orphan_processes(present=others)
        self.remove_orphaned_file_stats(present=others)
        for file in [file for file in self._callback_to_execute if file.bundle_name == bundle]:
            del self._callback_to_execute[file]
        self._callbacks.forget(bundle)
        self.reporter.forget(bundle)

    def _all_files(self) -> set[DagFileInfo]:
        return {*self._file_queue, *self._processors, *self._file_stats}

    def _force_rescan(self, bundle: str) -> None:
        """Have Airflow take the bundle for one it never saw: refresh it and look at all its files."""
        self._bundle_versions.pop(bundle, None)
        self.request_bundle_refresh(bundle)

    def _refresh_dag_bundles(self, known_files: dict[str, set[DagFileInfo]]) -> None:
        for bundle in known_files.keys() - self._epochs.keys():
            del known_files[bundle]
        super()._refresh_dag_bundles(known_files)

    # What the plane wants done

    def claim_priority_files(self) -> list[DagFileInfo]:
        """Ask for files that somebody wants parsed now; callbacks come along, for :meth:`fetch_callbacks`."""
        if not self._epochs or time.monotonic() < self._requests_due:
            return []
        self._requests_due = time.monotonic() + REQUESTS_SECONDS
        done, running = self._callbacks.done[:MAX_CALLBACKS], self._callbacks.running[:MAX_CALLBACKS]
        request = GetRequestsRequest(
            bundles=tuple(HeldBundle(bundle=name, epoch=epoch) for name, epoch in self._epochs.items()),
            done=done,
            running=running,
            max_callbacks=max(0, min(self.max_callbacks_per_loop, MAX_CALLBACKS - len(running))),
        )
        with self._tolerating("requests"):
            answer = self.plane.ask("requests", request, Requests)
            self._callbacks.told(done)
            self._take_callbacks(answer)
            return [self._file(one.bundle, one.path) for one in answer.files if one.bundle in self._epochs]
        return []

    def _take_callbacks(self, answer: Requests) -> None:
        for callback in answer.callbacks:
            if (request := self._callbacks.read(callback)) is not None:
                # As Airflow names the file a callback runs in (_add_callback_to_queue).
                file = DagFileInfo(
                    rel_path=Path(request.filepath),
                    bundle_name=request.bundle_name,
                    bundle_version=request.bundle_version,
                )
                self._callbacks.begun(callback.id, file)
                self._to_run.append(request)

    def _file(self, bundle: str, path: str) -> DagFileInfo:
        return DagFileInfo(rel_path=Path(path), bundle_name=bundle, bundle_path=self._loaded[bundle].path)

    def fetch_callbacks(self) -> list[CallbackRequest]:
        """Return the callbacks that came with the last answer."""
        waiting, self._to_run = self._to_run, []
        return waiting

    # What the plane is told

    def get_bundle_state(self, bundle_name: str, **_session: Any) -> BundleState | None:
        """Ask when the bundle was refreshed, and at which version. Airflow handles errors."""
        request = GetBundleStateRequest(bundle=bundle_name, epoch=self._epochs[bundle_name])
        answer = self.plane.ask("state", request, BundleStateAnswer)
        if not answer.known:
            return None
        age = answer.refreshed_seconds_ago
        refreshed = None if age is None else datetime.now(UTC) - timedelta(seconds=age)
        return BundleState(last_refreshed=refreshed, version=answer.version)

    def update_bundle_state(
        self,
        bundle_name: str,
        *,
        last_refreshed: datetime,  # noqa: ARG002 - now, by the plane's clock
        version: str | None,
        **_session: Any,
    ) -> None:
        """Say that the bundle was refreshed just now. Airflow handles errors."""
        if version is not None:
            self._parse_again(bundle_name)
        request = BundleRefreshedRequest(bundle=bundle_name, epoch=self._epochs[bundle_name], version=version)
        self.plane.ask("refreshed", request, Noted)

    def _parse_again(self, bundle: str) -> None:
        """
        Parse every file of a bundle that has a new version, now.

        Airflow would wait for ``min_file_process_interval`` with files that are as they were, but any of
        them may import one that is not. And a parser that began before would give old code a new version.
        """
        begun = {
            f
            for f, parser in self._processors.items()
            if f.bundle_name == bundle and not parser.had_callbacks
        }
        self.terminate_orphan_processes(present=set(self._processors) - begun)
        self.remove_orphaned_file_stats(present={f for f in self._file_stats if f.bundle_name != bundle})

    def deactivate_deleted_dags(self, bundle_name: str, present: set[DagFileInfo]) -> None:
        """Say which files there are; the plane forgets Dags and import errors of all others."""
        paths = tuple(sorted(self._get_observed_filelocs(present)))
        request = FilesPresentRequest(bundle=bundle_name, epoch=self._epochs[bundle_name], paths=paths)
        try:
            self.plane.ask("files", request, Noted)
        except PlaneError as error:
            log.warning("deleted files not reported; the bundle is looked through again", reason=str(error))
            # Airflow would not ask again before the bundle's next version.
            self._force_rescan(bundle_name)

    def clear_orphaned_import_errors(
        self, bundle_name: str, observed_filelocs: set[str], **_session: Any
    ) -> None:
        """Do nothing more: the plane did both when it was told which files there are."""

    def deactivate_stale_dags(
        self, last_parsed: Mapping[DagFileInfo, datetime | None], **_session: Any
    ) -> None:
        """Say when files were parsed; the plane deactivates Dags that were not in them then."""
        for bundle, epoch in self._epochs.items():
            parsed = tuple(
                ParsedAgo(path=str(file.rel_path), at=self.reporter.plane_time(at))
                for file, at in last_parsed.items()
                if at is not None and file.bundle_name == bundle and file.bundle_version is None
            )
            with self._tolerating("stale", bundle):
                request = DeactivateStaleRequest(bundle=bundle, epoch=epoch, parsed=parsed)
                self.plane.ask("stale", request, Noted)

    def purge_inactive_dag_warnings(self) -> None:
        """Do nothing: the plane does whenever it deactivated Dags."""

    def handle_parsing_result(
        self, file: DagFileInfo, proc: DagFileProcessorProcess, **_session: Any
    ) -> None:
        """Handle a finished parser as Airflow does, without the session that it would open."""
        super().handle_parsing_result(file, proc, session=None)  # type: ignore[arg-type]

    def persist_parsing_result(  # noqa: PLR0913 - Airflow's hook
        self,
        *,
        bundle_name: str,
        bundle_version: str | None,
        version_data: dict[str, Any] | None,
        parsing_result: DagFileParsingResult,
        run_duration: float,
        relative_fileloc: str | None,
        **_session: Any,
    ) -> None:
        """Tell the plane what is in a file. Airflow handles errors: the file is parsed again later."""
        if relative_fileloc is None or bundle_name not in self._epochs:
            return
        self.reporter.report(
            HeldBundle(bundle=bundle_name, epoch=self._epochs[bundle_name]),
            path=relative_fileloc,
            version=bundle_version,
            version_data=version_data,
            run_seconds=run_duration,
            result=parsing_result,
            source=self._source(bundle_name, relative_fileloc),
        )

    def _source(self, bundle: str, path: str) -> str | None:
        may_cross = decision_of(self.plane.opened).is_open(DataClass.DAG_SOURCE)
        return read_source(self._loaded[bundle].path, path) if may_cross else None

    # Parsers

    @cached_property
    def client(self) -> Client:
        """Return what parsers may ask Airflow through."""
        return make_client(self.plane)

    def _create_process(self, dag_file: DagFileInfo) -> DagFileProcessorProcess:
        callbacks = self._callback_to_execute.pop(dag_file, [])
        handle = open_log(Path(init_log_file(self._render_log_filename(dag_file))), self.limits.output_bytes)
        logger = structlog.wrap_logger(
            structlog.BytesLogger(handle),
            processors=logging_processors(json_output=True),
            logger_name="processor",
        ).bind()
        return LimitedParser.start(
            id=uuid7(),
            path=dag_file.absolute_path,
            bundle_path=cast("Path", dag_file.bundle_path),
            bundle_name=dag_file.bundle_name,
            dag_file_rel_path=str(dag_file.rel_path),
            callbacks=callbacks,
            target=entrypoint(self.limits, self.plane.close),
            selector=self.selector,
            logger=logger,
            logger_filehandle=handle,
            subprocess_logs_to_stdout=conf.get("logging", "dag_processor_log_target") == "stdout",
            client=self.client,
            limits=self.limits,
            new_process_group=True,  # so that what Dag code starts ends with it
        )

    def _get_team_names(self, bundle_names: Any) -> dict[str, str | None]:  # noqa: ARG002 - see above
        return {}

    # Errors

    @contextmanager
    def _tolerating(self, operation: str, bundle: str = "") -> Iterator[None]:
        """Go on when the plane does not answer; whatever was to be said is said again later."""
        try:
            yield
        except BundleLostError as error:
            log.info("bundle was lost meanwhile", operation=operation, bundle=bundle, reason=str(error))
        except PlaneError as error:
            log.warning("plane not told", operation=operation, bundle=bundle, reason=str(error))


def _links(bundle: BaseDagBundle) -> tuple[str | None, dict[str, str]]:
    """Return how the UI links to the bundle's files. Airflow's own processor, too, goes on without."""
    try:
        template = bundle.view_url_template()
        params = DagBundlesManager._extract_template_params(bundle)  # noqa: SLF001 - as sync_bundles_to_db
    except Exception:
        log.exception("bundle has no links", bundle=bundle.name)
        return None, {}
    return template, {name: str(value) for name, value in params.items()}
