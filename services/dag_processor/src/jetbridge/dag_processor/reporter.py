"""Telling the plane what is in Dag files: all of it when it changed, only that it did not when not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import structlog
from airflow.dag_processing.processor import DagFileParsingResult

from jetbridge.contracts.boundary import DataClass, decision_of
from jetbridge.contracts.dag_processing import (
    MAX_RESULT_BYTES,
    FileParsedRequest,
    FileRecorded,
    HeldBundle,
    ParsingResult,
)
from jetbridge.contracts.masking import masked_traceback
from jetbridge.contracts.packing import Packed, pack
from jetbridge.dag_processor.plane import RESULT_SECONDS, Plane, PlaneRefusedError
from jetbridge.dag_processor.results import import_error, to_contract

log = structlog.get_logger(__name__)


class Reporter:
    """Remembers what the plane confirmed for each file, and how its clock differs."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._confirmed: dict[tuple[str, str], str] = {}
        self._plane_ahead = timedelta()

    def forget(self, bundle: str) -> None:
        """Forget what was confirmed for a bundle: somebody else tells the plane about it now."""
        self._confirmed = {key: one for key, one in self._confirmed.items() if key[0] != bundle}

    def plane_time(self, moment: datetime) -> datetime:
        """
        Return a moment of this machine's clock on the plane's.

        Never later than it really was there, because an answer takes some time to get here: a Dag must not
        be taken for missing from its file because two clocks differ.
        """
        return moment + self._plane_ahead

    def report(  # noqa: PLR0913 - what Airflow's hook is given
        self,
        held: HeldBundle,
        *,
        path: str,
        version: str | None,
        version_data: dict[str, Any] | None,
        run_seconds: float,
        result: DagFileParsingResult,
        source: str | None = None,
    ) -> None:
        """
        Tell the plane about one parse of a file, with its ``source`` if that may cross.

        A result that the plane will never take is replaced by an import error that says so: whoever wrote
        the Dag sees it in the UI. Raises :class:`PlaneError` when the plane could not be told.
        """
        decision = decision_of(self._plane.opened)

        def tell(said: ParsingResult) -> None:
            packed = pack(said)
            if len(packed.data) > MAX_RESULT_BYTES:
                raise PlaneRefusedError(
                    f"the parsing result has {len(packed.data) >> 20} MiB compressed, "
                    f"at most {MAX_RESULT_BYTES >> 20} MiB are taken"
                )
            self._tell(
                FileParsedRequest(
                    bundle=held.bundle,
                    epoch=held.epoch,
                    path=path,
                    version=version,
                    version_data=version_data,
                    run_seconds=run_seconds,
                    hash=packed.hash,
                ),
                packed,
            )

        try:
            tell(to_contract(result, decision, source))
        except PlaneRefusedError as error:
            log.error("the plane refuses a parsing result", path=path, reason=str(error))  # noqa: TRY400
            text = f"RefusedError: The plane does not take this file's Dags: {error}"
            if not decision.is_open(DataClass.EXCEPTION_TEXT):
                text = masked_traceback(text)
            tell(import_error(result.fileloc, path, text))

    def _tell(self, request: FileParsedRequest, packed: Packed) -> None:
        key = (request.bundle, request.path)
        known = self._confirmed.pop(key, None) == packed.hash
        answer = self._ask(request if known else _with_result(request, packed))
        if answer.hash is None:  # another bridge answered, or it was started anew
            answer = self._ask(_with_result(request, packed))
        if answer.hash is not None:
            self._confirmed[key] = answer.hash

    def _ask(self, request: FileParsedRequest) -> FileRecorded:
        answer = self._plane.ask("parsed", request, FileRecorded, RESULT_SECONDS)
        self._plane_ahead = answer.now - datetime.now(UTC)
        return answer


def _with_result(request: FileParsedRequest, packed: Packed) -> FileParsedRequest:
    return msgspec.structs.replace(request, result=packed.data)
