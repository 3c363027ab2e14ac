"""
Traces in a supervisor and its task: two processes, each with an exporter of its own, made after the fork.

An exporter has a thread and a connection, and neither may cross a fork. So the supervisor goes without until
Airflow has forked the task; then both make their own, and the task's spans and the supervisor's requests
continue the trace that the agent began. Airflow flushes what either of them recorded before it ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog

from jetbridge.telemetry.exporters import exporter_names
from jetbridge.telemetry.tracing import (
    StopTracing,
    TracingConfigurationError,
    configure_tracing,
    continuing,
    preload_tracing,
)

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 5.0
"""As long as Airflow gives the supervisor's spans. The slot is taken meanwhile, so not more."""


def preload() -> None:
    """Import in the fork server what its forks will need for tracing; says why if they cannot trace."""
    try:
        preload_tracing()
    except TracingConfigurationError as error:
        log.error("tasks are not traced", reason=str(error))  # noqa: TRY400 - the reason is the message


def is_on() -> bool:
    """Whether spans are exported here: then a supervisor has a thread and a connection after its task."""
    return bool(exporter_names("traces"))


@contextmanager
def supervised(traceparent: str) -> Iterator[None]:
    """
    Have this supervisor and its task continue a trace; for a process that has not forked yet.

    Without a trace nothing happens. Without an exporter here the trace is passed on all the same.
    """
    if not traceparent:
        yield
        return
    stops = _begin_after_next_fork() if is_on() else []
    try:
        with continuing(traceparent):
            yield
    finally:
        for stop in stops:
            stop(FLUSH_SECONDS)


def continue_in(ti: dict[str, Any], traceparent: str) -> None:
    """Have Airflow's task runner continue the trace from here; what else its carrier holds stays."""
    if traceparent:
        ti["context_carrier"] = {**(ti.get("context_carrier") or {}), "traceparent": traceparent}


def _begin_after_next_fork() -> Sequence[StopTracing]:
    """
    Have both sides of this process' next fork, which makes the task, set up tracing.

    Returns what stops it, once there is something to stop.
    """
    stops: list[StopTracing] = []
    forked = False

    def begin(service: str) -> None:
        nonlocal forked
        if forked:  # what a task forks is its own affair; the SDK begins anew there by itself
            return
        forked = True
        try:
            stops.append(configure_tracing(service))
        except TracingConfigurationError:
            return  # the fork server's log says so

    os.register_at_fork(after_in_parent=lambda: begin("worker"), after_in_child=lambda: begin("task"))
    return stops
