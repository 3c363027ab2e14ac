"""Airflow's parsing results as the contract has them."""

from __future__ import annotations

from typing import Any

from airflow.dag_processing.processor import DagFileParsingResult

from jetbridge.contracts.boundary import DataClass, Decision
from jetbridge.contracts.dag_processing import ParsedDag, ParsedWarning, ParsingResult
from jetbridge.contracts.masking import mask_dag, masked_traceback


def to_contract(result: DagFileParsingResult, decision: Decision, source: str | None = None) -> ParsingResult:
    """
    Return a parsing result without what differs from one parse to the next of the same file.

    What is closed is taken out, in ``result`` as well. The log of the file's parser has it.
    """
    for dag in result.serialized_dags:
        mask_dag(dag.data, decision)
    import_errors = dict(result.import_errors or {})
    if not decision.is_open(DataClass.EXCEPTION_TEXT):
        import_errors = {path: masked_traceback(text) for path, text in import_errors.items()}
    return ParsingResult(
        fileloc=result.fileloc,
        dags=tuple(ParsedDag(data=dag.data) for dag in result.serialized_dags),
        import_errors=import_errors,
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
