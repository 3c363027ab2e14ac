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


class _Parse(msgspec.Struct):
    """What the trace says of a ``FileParsedRequest``, whose other fields are skipped unread."""

    bundle: str
    path: str
    run_seconds: float


@contextmanager
def asking(question: Question) -> Iterator[None]:
    """
    Begin the trace of a parse with the question that tells its result; other questions are part of none.

    Begun here, in the agent, because the manager forks parsers and so must have no exporter.
    """
    if question.operation != _PARSED or not is_tracing():
        yield
        return
    parse = msgspec.json.decode(question.body, type=_Parse)
    attributes = {"jetbridge.bundle": parse.bundle, "jetbridge.dag_file": parse.path}
    with span(
        _tracer, "dag_processor.parse", attributes=attributes, begun_seconds_ago=max(0.0, parse.run_seconds)
    ):
        yield
