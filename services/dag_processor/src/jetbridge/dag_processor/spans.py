"""The trace of one parse: from the parser's start until the plane has the result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from jetbridge.dag_processor.wire import Question
from jetbridge.telemetry.spans import span
from jetbridge.telemetry.tracing import is_tracing, tracer

_tracer = tracer(__name__)
_PARSED = "parsed"


class Parse(msgspec.Struct):
    """What trace and metrics say of a ``FileParsedRequest``, whose other fields are skipped unread."""

    bundle: str = ""
    path: str = ""
    run_seconds: float = 0.0


def parse_of(question: Question) -> Parse | None:
    """Return the parse whose result a question tells; None for other questions."""
    return msgspec.json.decode(question.body, type=Parse) if question.operation == _PARSED else None


@contextmanager
def asking(parse: Parse | None) -> Iterator[None]:
    """
    Begin the trace of a parse with the question that tells its result; other questions are part of none.

    Begun here, in the agent, because the manager forks parsers and so must have no exporter.
    """
    if parse is None or not is_tracing():
        yield
        return
    attributes = {"jetbridge.bundle": parse.bundle, "jetbridge.dag_file": parse.path}
    with span(
        _tracer, "dag_processor.parse", attributes=attributes, begun_seconds_ago=max(0.0, parse.run_seconds)
    ):
        yield
