"""
Logging for every process that is not Airflow's: gateway, agents, command line.

One JSON object per line on stderr (or a human console), for structlog and stdlib loggers alike.
Never call this in a process that runs Airflow's task runner or supervisor: Airflow configures
structlog for itself there.
"""

from __future__ import annotations

import logging
import logging.config
import sys
import threading
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, TextIO

import structlog
from opentelemetry import trace

from jetbridge.telemetry.redaction import redact_event
from jetbridge.telemetry.settings import TelemetrySettings

_CHATTY_LOGGERS = ("httpcore", "httpx", "urllib3", "asyncio", "nats", "faststream")
"""They log every request at INFO; an agent makes one each few seconds. Shown at DEBUG only."""


def configure_logging(
    service: str,
    settings: TelemetrySettings | None = None,
    *,
    stream: TextIO | None = None,
) -> None:
    """
    Set up structlog and stdlib logging for this process; calling it again replaces the set-up.

    Every line carries ``service``, ``timestamp`` (ISO 8601, UTC), ``level``, ``logger``, ``event``,
    what ``structlog.contextvars`` has bound, and ``trace_id`` and ``span_id`` inside a span.
    Secrets are masked (see ``redaction``). Uncaught exceptions of any thread are logged too.
    Handlers that libraries attached to their loggers before are removed; run uvicorn with
    ``log_config=None``, or it attaches its own afterwards.

    :param service: short name, for example ``gateway``
    :param settings: read from the environment when not given
    :param stream: where lines go; stderr when not given
    """
    settings = settings or TelemetrySettings()
    stream = stream or sys.stderr
    level = logging.getLevelNamesMapping()[settings.log_level]
    shared = _shared_processors(service)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    _route_stdlib(_formatter(shared, settings, stream), level, stream)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def _shared_processors(service: str) -> list[structlog.typing.Processor]:
    def add_service(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("service", service)
        return event

    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_service,
        add_trace_ids,
    ]


def add_trace_ids(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Structlog processor: the ids of the current span, as in W3C Trace Context (hex)."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event


def _formatter(
    shared: list[structlog.typing.Processor], settings: TelemetrySettings, stream: TextIO
) -> logging.Formatter:
    console = settings.log_format == "console" or (settings.log_format == "auto" and stream.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(
            colors=stream.isatty(),
            # The default shows local variables, which hold tokens.
            exception_formatter=structlog.dev.plain_traceback,
        )
        if console
        else structlog.processors.JSONRenderer()
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            redact_event,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            renderer,
        ],
    )


def _route_stdlib(formatter: logging.Formatter, level: int, stream: TextIO) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for existing in root.manager.loggerDict.values():
        # A library that brought its own handlers (uvicorn does) would write past the masking.
        if isinstance(existing, logging.Logger):
            existing.handlers.clear()
            existing.propagate = True
    for name in _CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(level if level <= logging.DEBUG else max(level, logging.WARNING))


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    structlog.get_logger("jetbridge").critical("uncaught exception", exc_info=(kind, error, traceback))


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is None or issubclass(args.exc_type, SystemExit):
        return
    structlog.get_logger("jetbridge").critical(
        "uncaught exception in a thread",
        thread=args.thread.name if args.thread else None,
        exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
    )
