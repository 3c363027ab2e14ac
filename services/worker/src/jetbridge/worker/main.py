"""Run a worker: take tasks from the gateway, run them here, report. This is the composition root."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version

import structlog

from jetbridge.agent.data_dir import DataDirError, lock_data_dir
from jetbridge.agent.errors import ExitCode, TokenFileError
from jetbridge.agent.gateway_client import GatewayClient, tls_of
from jetbridge.agent.link import Link
from jetbridge.agent.mark import INSTANCE_VARIABLE, leave_mark
from jetbridge.agent.prctl import adopt_orphans, hide_memory
from jetbridge.agent.runtime import StopLimits, run_agent
from jetbridge.agent.session import Session, new_instance
from jetbridge.agent.settings import load_settings
from jetbridge.agent.side_tasks import SideTasks
from jetbridge.agent.start_checks import StartCheckError, run_start_checks
from jetbridge.agent.status import measuring, watched_agent
from jetbridge.agent.stop import StopRequests
from jetbridge.agent.token_file import read_token, warn_about_permissions
from jetbridge.contracts.api import RegisterRequest
from jetbridge.sealing.keyring import KeyFileError, read_keyring
from jetbridge.telemetry.logs import configure_logging
from jetbridge.telemetry.status import StatusPortError
from jetbridge.telemetry.tracing import TracingConfigurationError, traced
from jetbridge.worker.airflow_env import airflow_env, execution_api, log_store
from jetbridge.worker.delivery import Outboxes
from jetbridge.worker.forkserver_client import Launch
from jetbridge.worker.frames import LOG_UPLOAD_SECONDS
from jetbridge.worker.orphans import kill_orphans
from jetbridge.worker.settings import WorkerSettings
from jetbridge.worker.status import MeasuredKeeper, WorkerMetrics, WorkerPulse
from jetbridge.worker.worker import Worker
from jetbridge.xcom.errors import ObjectStoreSettingsError

log = structlog.get_logger(__name__)
PROGRAM = "jetbridge worker"
ROLE = "worker"
REPORT_SECONDS = 5.0
OUTBOX_DIRECTORY = "outbox"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker until it is told to stop; see :class:`ExitCode` for what is returned."""
    settings = load_settings(WorkerSettings, sys.argv[1:] if argv is None else argv, program=PROGRAM)
    configure_logging("worker")
    structlog.contextvars.bind_contextvars(agent=settings.name)
    try:
        with lock_data_dir(settings.data_dir):
            read_token(settings.token_file)
            warn_about_permissions(settings.token_file)
            hide_memory()
            adopt_orphans()
            launch = _launch(settings)
            check_site(settings, launch.env)
            instance = new_instance()
            with traced("worker"), leave_mark(settings, instance, ROLE) as mark:
                return asyncio.run(run(settings, marked(launch, instance, mark), instance))
    except (
        DataDirError,
        TokenFileError,
        ObjectStoreSettingsError,
        KeyFileError,
        StatusPortError,
        TracingConfigurationError,
    ) as error:
        log.error("the worker cannot start", reason=str(error))  # noqa: TRY400 - the reason is the message
        return ExitCode.USAGE
    except StartCheckError as error:
        log.error("the worker does not start", reason=str(error))  # noqa: TRY400 - the reason is the message
        return ExitCode.FAILED


def check_site(settings: WorkerSettings, env: Mapping[str, str]) -> None:
    """Raise ``KeyFileError`` or ``StartCheckError`` when what the site keeps for itself cannot be used."""
    if settings.site_key_file:
        read_keyring(settings.site_key_file)
    if settings.start_checks:
        log_store(env)  # what is missing in the settings is said in the settings' own words
        run_start_checks(env)


async def run(settings: WorkerSettings, launch: Launch, instance: str) -> ExitCode:
    """Wire the worker together and run it."""
    stop = StopRequests()
    stop.listen()
    tasks = SideTasks()
    tls = tls_of(settings)
    async with GatewayClient(settings.gateway, tls) as client:
        session = Session(client, Link(), _identity(settings, instance, launch), settings.token_file)
        metrics = WorkerMetrics()
        worker = Worker(
            session,
            MeasuredKeeper(launch, kill_orphans, metrics),
            Outboxes(session, settings.data_dir / OUTBOX_DIRECTORY),
            tasks,
            slots=settings.slots,
            stop_grace_seconds=settings.stop_grace_seconds,
            task_memory_bytes=settings.task_memory_mib << 20,
        )
        pulse = WorkerPulse(worker, metrics)
        tasks.run_forever("pulse", pulse.run())
        with watched_agent(settings, metrics, pulse.is_well):
            return await run_agent(session, worker, tasks, stop, _limits(settings))


def _limits(settings: WorkerSettings) -> StopLimits:
    # The time the fork server gives a task and its supervisor to end, and some for the last reports.
    return StopLimits(
        drain_seconds=settings.drain_seconds,
        terminate_seconds=settings.stop_grace_seconds + LOG_UPLOAD_SECONDS + REPORT_SECONDS,
    )


def _identity(settings: WorkerSettings, instance: str, launch: Launch) -> RegisterRequest:
    return RegisterRequest(
        name=settings.name,
        instance=instance,
        role="worker",
        queues=settings.queues,
        slots=settings.slots,
        labels=settings.labels,
        software_version=version("jetbridge-worker"),
        site=settings.site,
        log_store=log_store(launch.env),
    )


def marked(launch: Launch, instance: str, mark: int) -> Launch:
    """Return the launch with what tells others that its processes are this agent's."""
    # Whoever watches this agent from outside recognises by the instance what tasks started.
    return replace(launch, env={**launch.env, INSTANCE_VARIABLE: instance}, inherited=(mark,))


def _launch(settings: WorkerSettings) -> Launch:
    env = airflow_env(
        os.environ,
        agent_name=settings.name,
        gateway=settings.gateway,
        ca_file=settings.ca_file,
        data_dir=settings.data_dir,
        client_cert=settings.client_cert,
        site_key_file=settings.site_key_file,
    )
    env |= measuring(settings)
    return Launch(
        env=env,
        server=execution_api(settings.gateway),
        preload=settings.preload,
        tasks_per_supervisor=settings.tasks_per_supervisor,
    )
