"""``jetbridge triggerer``: run triggers for deferred tasks, asset watchers and callbacks."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NoReturn

import structlog

from jetbridge.agent.data_dir import DataDirError, lock_data_dir
from jetbridge.agent.errors import ExitCode, TokenFileError
from jetbridge.agent.mark import INSTANCE_VARIABLE, leave_mark
from jetbridge.agent.prctl import hide_memory
from jetbridge.agent.session import new_instance
from jetbridge.agent.settings import load_settings
from jetbridge.agent.start_checks import StartCheckError, run_start_checks
from jetbridge.agent.status import measuring
from jetbridge.agent.token_file import read_token, warn_about_permissions
from jetbridge.sealing.keyring import KeyFileError, read_keyring
from jetbridge.telemetry.logs import configure_logging
from jetbridge.telemetry.status import StatusPortError
from jetbridge.telemetry.tracing import TracingConfigurationError
from jetbridge.triggerer.airflow_env import airflow_env
from jetbridge.triggerer.settings import TriggererSettings

log = structlog.get_logger(__name__)
PROGRAM = "jetbridge triggerer"

SHORTEST_LIFE_SECONDS = 10.0
"""A runner that dies sooner is not replaced before: one that a trigger kills at once must not spin."""

FILES_PER_TRIGGER = 2
"""A log, and a connection or so."""

OTHER_FILES = 256

ROLE = "triggerer"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a triggerer until it is told to stop. Ends the process; what cannot start returns its exit code."""
    settings = load_settings(TriggererSettings, sys.argv[1:] if argv is None else argv, program=PROGRAM)
    configure_logging("triggerer")
    structlog.contextvars.bind_contextvars(agent=settings.name)
    begun, inherited = time.monotonic(), dict(os.environ)
    try:
        with lock_data_dir(settings.data_dir):
            read_token(settings.token_file)
            warn_about_permissions(settings.token_file)
            hide_memory()
            raise_file_limit(settings.capacity * FILES_PER_TRIGGER + OTHER_FILES)
            instance = new_instance()
            # The runner is a fork, so it holds the mark's lock without being told.
            with leave_mark(settings, instance, ROLE):
                code, again = _live(settings, inherited, instance)
    except (
        DataDirError,
        TokenFileError,
        KeyFileError,
        StatusPortError,
        TracingConfigurationError,
    ) as error:
        log.error("the triggerer cannot start", reason=str(error))  # noqa: TRY400 - the reason is the message
        return ExitCode.USAGE
    except StartCheckError as error:
        log.error("the triggerer does not start", reason=str(error))  # noqa: TRY400 - likewise
        return ExitCode.FAILED
    except KeyboardInterrupt:
        # A second signal: what was not delivered is repeated by whoever gets the triggers, so all is well.
        log.info("agent stopped at once")
        code, again = ExitCode.OK, False
    sys.stdout.flush()
    sys.stderr.flush()
    if again:
        _begin_anew(inherited, begun)
    # Not a return: the interpreter would wait for threads that try to reach a gateway that is away.
    os._exit(code)


def _live(settings: TriggererSettings, inherited: Mapping[str, str], instance: str) -> tuple[int, bool]:
    env = airflow_env(
        inherited,
        gateway=settings.gateway,
        ca_file=settings.ca_file,
        data_dir=settings.data_dir,
        client_cert=settings.client_cert,
    )
    if settings.site_key_file:
        read_keyring(settings.site_key_file)
    if settings.start_checks:
        run_start_checks(env)
    os.environ.clear()
    os.environ.update(env | {INSTANCE_VARIABLE: instance} | measuring(settings))
    from jetbridge.triggerer.process import Next, live  # noqa: PLC0415 - imports Airflow, which reads env

    ending = live(settings, instance)
    return ending.code, ending.next is Next.BEGIN_ANEW


def _begin_anew(inherited: Mapping[str, str], begun: float) -> NoReturn:
    """Replace this process by a new one of the same command: same pid, no threads, no secrets in memory."""
    log.warning("the triggerer begins anew with another runner")
    time.sleep(max(0.0, SHORTEST_LIFE_SECONDS - (time.monotonic() - begun)))
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], dict(inherited))  # noqa: S606 - ourselves


def raise_file_limit(wanted: int) -> None:
    """Allow this process as many open files as it may need, within what the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    if limit < wanted:
        log.warning("open files are limited below what the capacity may need", limit=limit, wanted=wanted)
