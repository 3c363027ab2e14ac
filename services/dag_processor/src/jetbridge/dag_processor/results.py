"""Airflow's parsing results as the contract has them."""

from __future__ import annotations

from typing import Any

from airflow.dag_processing.processor import DagFileParsingResult

from jetbridge.contracts.dag_processing import ParsedDag, ParsedWarning, ParsingResult


def to_contract(result: DagFileParsingResult, source: str | None = None) -> ParsingResult:
    """Return a parsing result without what differs from one parse to the next of the same file."""
    return ParsingResult(
        fileloc=result.fileloc,
        dags=tuple(ParsedDag(data=dag.data) for dag in result.serialized_dags),
        import_errors=dict(result.import_errors or {}),
        warnings=tuple(_warning(warning) for warning in result.warnings or []),
        source=source,
    )


def import_error(fileloc: str, path: str, text: str) -> ParsingResult:
    """Return the result of a file that cannot be used, for the reason ``text``."""
    return ParsingResult(fileloc=fileloc, import_errors={path: text})


def _warning(warning: Any) -> ParsedWarning:
    fields = warning if isinstance(warning, dict) else vars(warning)
    return ParsedWarning(
        dag_id=fields["dag_id"],
        warning_type=str(getattr(fields["warning_type"], "value", fields["warning_type"])),
        message=fields["message"],
    )
