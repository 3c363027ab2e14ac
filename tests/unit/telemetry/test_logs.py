"""Log lines as a process really writes them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
import structlog
from opentelemetry import trace

from jetbridge.telemetry.logs import configure_logging
from jetbridge.telemetry.settings import TelemetrySettings

TOKEN = "jb_0123456789ab_" + "s" * 43
MASKED = "jb_0123456789ab_***"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    loggers = [root, *(one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger))]
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    hooks = (sys.excepthook, threading.excepthook)
    configured, configuration = structlog.is_configured(), structlog.get_config()
    yield
    logging.captureWarnings(capture=False)
    sys.excepthook, threading.excepthook = hooks
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)
    structlog.reset_defaults()
    if configured:
        structlog.configure(**configuration)
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def lines() -> Callable[[], list[dict[str, Any]]]:
    stream = StringIO()
    configure_logging("gateway", TelemetrySettings(log_level="INFO", log_format="auto"), stream=stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_event_fields_service_time_and_level(lines: Callable[[], list[dict[str, Any]]]) -> None:
    structlog.get_logger("jetbridge.gateway").info("lease accepted", lease="w.1", slots=3)
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "lease accepted",
        "lease": "w.1",
        "level": "info",
        "logger": "jetbridge.gateway",
        "service": "gateway",
        "slots": 3,
    }


def test_ids_bound_once_are_on_every_line_of_the_context(lines: Callable[[], list[dict[str, Any]]]) -> None:
    with structlog.contextvars.bound_contextvars(agent="a1"):
        structlog.get_logger().info("one")
        logging.getLogger("library").warning("two")
    structlog.get_logger().info("three")
    assert [line.get("agent") for line in lines()] == ["a1", "a1", None]


def test_stdlib_records_are_routed_with_their_extra_fields(lines: Callable[[], list[dict[str, Any]]]) -> None:
    logging.getLogger("uvicorn.error").error("port %d is taken", 80, extra={"port": 80})
    (line,) = lines()
    assert (line["event"], line["port"], line["logger"]) == ("port 80 is taken", 80, "uvicorn.error")


def test_a_library_with_handlers_of_its_own_cannot_write_past_the_masking() -> None:
    logger, own, stream = logging.getLogger("stubborn.library"), StringIO(), StringIO()
    logger.addHandler(logging.StreamHandler(own))
    logger.propagate = False
    configure_logging("gateway", TelemetrySettings(), stream=stream)
    logger.error("refused %s", TOKEN)
    assert own.getvalue() == ""
    assert json.loads(stream.getvalue())["event"] == "refused " + MASKED


def test_levels_and_chatty_libraries_are_filtered(lines: Callable[[], list[dict[str, Any]]]) -> None:
    structlog.get_logger().debug("no")
    logging.getLogger("httpx").info("HTTP Request: POST …")
    logging.getLogger("httpx").warning("yes")
    assert [line["event"] for line in lines()] == ["yes"]


def test_secrets_are_masked_in_fields_text_arguments_and_tracebacks(
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    structlog.get_logger().info("got " + TOKEN, headers={"authorization": "Bearer x"})
    logging.getLogger("library").error("refused %s", TOKEN)
    _fail_and_log()
    first, second, third = lines()
    assert (first["event"], first["headers"]) == ("got " + MASKED, {"authorization": "***"})
    assert second["event"] == "refused " + MASKED
    assert f"invalid literal for int() with base 10: '{MASKED}'" in third["exception"]


def test_a_line_inside_a_span_carries_its_ids(lines: Callable[[], list[dict[str, Any]]]) -> None:
    context = trace.SpanContext(0xA1, 0xB2, is_remote=True)
    with trace.use_span(trace.NonRecordingSpan(context)):
        structlog.get_logger().info("inside")
    structlog.get_logger().info("outside")
    inside, outside = lines()
    assert (inside["trace_id"], inside["span_id"]) == (f"{0xA1:032x}", f"{0xB2:016x}")
    assert "trace_id" not in outside


def test_a_line_break_in_a_value_cannot_forge_a_line(lines: Callable[[], list[dict[str, Any]]]) -> None:
    structlog.get_logger().info("a\n{}", field="b\nc")
    assert len(lines()) == 1


def test_warnings_become_lines(lines: Callable[[], list[dict[str, Any]]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "old" in lines()[0]["event"]


def test_console_format_is_for_people_and_shows_no_local_variables() -> None:
    stream = StringIO()
    configure_logging("cli", TelemetrySettings(log_format="console"), stream=stream)
    _fail_and_log(lease="w.1")
    text = stream.getvalue()
    assert "lease=w.1" in text
    assert MASKED in text
    assert "s" * 43 not in text
    assert "ONLY IN A LOCAL VARIABLE" not in text


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JETBRIDGE_LOG_LEVEL", "debug")
    monkeypatch.setenv("JETBRIDGE_LOG_FORMAT", "JSON")
    settings = TelemetrySettings()
    assert (settings.log_level, settings.log_format) == ("DEBUG", "json")


def _fail_and_log(**fields: str) -> None:
    hidden = "only in a local variable".upper()
    try:
        _ = len(hidden) + int(TOKEN)
    except ValueError:
        structlog.get_logger().exception("failed", **fields)


CRASHING = """
import threading
from jetbridge.telemetry.logs import configure_logging
configure_logging("agent")
def fail(): raise RuntimeError("in a thread %(token)s")
thread = threading.Thread(target=fail, name="side"); thread.start(); thread.join()
raise RuntimeError("in main %(token)s")
"""


def test_uncaught_exceptions_of_a_real_process_are_masked_json_lines() -> None:
    script = CRASHING % {"token": TOKEN}
    environment = {**os.environ, "JETBRIDGE_LOG_LEVEL": "INFO", "JETBRIDGE_LOG_FORMAT": "auto"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 1
    assert done.stdout == ""
    assert [event["event"] for event in events] == ["uncaught exception in a thread", "uncaught exception"]
    assert events[0]["thread"] == "side"
    assert "s" * 43 not in done.stderr
