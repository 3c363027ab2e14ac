"""Parsing results: taken apart within limits, checked, and written by Airflow's own function."""

from __future__ import annotations

from collections import OrderedDict

import msgspec
from airflow.dag_processing.processor import DagFileParsingResult
from airflow.serialization.serialized_objects import BaseSerialization
from sqlalchemy.orm import Session

from jetbridge.contracts.dag_processing import RESULT_FORMAT, FileParsed, ParsedDag, ParsingResult
from jetbridge.contracts.packing import Packed, PackingError, TooLargeError, unpack
from jetbridge.contracts.rpc import RefusalCode
from jetbridge.scheduler.bridge.dag_processing.manager import PlaneManager
from jetbridge.scheduler.bridge.dag_processing.source_code import (
    NotedDag,
    note_text,
    noted,
    restore_filelocs,
)
from jetbridge.scheduler.bridge.errors import RefusedError, is_outage

_FIRST_SERIALIZATION = 1
_decoder = msgspec.json.Decoder(ParsingResult)


class ResultCache:
    """
    The last results by hash, so that an agent need not send one again; the least recently used go first.

    Not shared between bridges: one that does not have a result asks for it, once.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def get(self, result_hash: str) -> bytes | None:
        """Return the packed result."""
        if (data := self._kept.get(result_hash)) is not None:
            self._kept.move_to_end(result_hash)
        return data

    def put(self, result_hash: str, data: bytes) -> None:
        """Keep a packed result that was found good."""
        if result_hash in self._kept or len(data) > self._max_bytes:
            return
        self._kept[result_hash] = data
        self._bytes += len(data)
        while self._bytes > self._max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= len(dropped)


def unpacked(packed: Packed) -> ParsingResult:
    """Return what was packed; raises :class:`RefusedError` when it is not a result this plane can write."""
    try:
        result = _decoder.decode(unpack(packed))
    except TooLargeError as exc:
        raise RefusedError(RefusalCode.TOO_LARGE, f"the parsing result is too large: {exc}") from exc
    except (PackingError, msgspec.DecodeError, RecursionError) as exc:
        raise RefusedError(RefusalCode.MALFORMED, f"the parsing result cannot be read: {exc}") from exc
    if result.format != RESULT_FORMAT:
        raise RefusedError(
            RefusalCode.UNSUPPORTED,
            f"the parsing result has format {result.format}, this plane reads {RESULT_FORMAT}. "
            "Upgrade the plane first, then the agents",
        )
    for dag in result.dags:
        _check_serialization(dag)
    return result


def _check_serialization(dag: ParsedDag) -> None:
    version, newest = dag.data.get("__version"), BaseSerialization.SERIALIZER_VERSION
    if not isinstance(version, int) or not _FIRST_SERIALIZATION <= version <= newest:
        raise RefusedError(
            RefusalCode.UNSUPPORTED,
            f"a Dag was serialized with version {version!r}, this plane's Airflow reads "
            f"{_FIRST_SERIALIZATION} to {newest}. Upgrade the plane first, then the agents",
        )


def write(session: Session, request: FileParsed, result: ParsingResult) -> None:
    """
    Write a file's result, all of it or nothing.

    Raises :class:`RefusedError` when the database cannot take it, whatever the reason is that is not the
    database's own trouble: the same result would fail again.
    """
    try:
        text = result.source or note_text(request.bundle, request.version, request.path)
        with noted(text) as note:
            dags = [NotedDag(data=dag.data, note=note) for dag in result.dags]
            _persist(session, request, result, dags)
            restore_filelocs(session, dags)
            session.flush()
    except Exception as exc:
        if is_outage(exc):
            raise
        raise RefusedError(RefusalCode.UNUSABLE, _reason(request, exc)) from exc


def _persist(session: Session, request: FileParsed, result: ParsingResult, dags: list[NotedDag]) -> None:
    PlaneManager.of(request.bundle).persist_parsing_result(
        bundle_name=request.bundle,
        bundle_version=request.version,
        version_data=request.version_data,
        # Not validated: pydantic would make plain LazyDeserializedDAGs of ours.
        parsing_result=DagFileParsingResult.model_construct(
            fileloc=result.fileloc,
            serialized_dags=list(dags),
            import_errors=dict(result.import_errors),
            warnings=msgspec.to_builtins(result.warnings),
        ),
        run_duration=request.run_seconds,
        relative_fileloc=request.path,
        session=session,
    )


def _reason(request: FileParsed, error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return f"{request.path} in bundle {request.bundle!r} cannot be written: {type(cause).__name__}: {cause}"
