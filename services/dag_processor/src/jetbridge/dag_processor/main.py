"""``jetbridge dag-processor``: parse Dag bundles where they are and tell the plane what is in them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

import structlog

from jetbridge.agent.data_dir import DataDirError, lock_data_dir
from jetbridge.agent.errors import AgentError, ExitCode, TokenFileError
from jetbridge.agent.gateway_client import tls_of
from jetbridge.agent.link import Link
from jetbridge.agent.loops import heartbeat_loop
from jetbridge.agent.mark import INSTANCE_VARIABLE, leave_mark
from jetbridge.agent.no_work import NoWork
from jetbridge.agent.prctl import hide_memory
from jetbridge.agent.session import new_instance
from jetbridge.agent.settings import load_settings
from jetbridge.agent.side_tasks import SideTasks
from jetbridge.agent.start_checks import StartCheckError, run_start_checks
from jetbridge.agent.stop import StopRequests
from jetbridge.agent.token_file import read_token, warn_about_permissions
from jetbridge.agent.waiting import first
from jetbridge.contracts.api import RegisterRequest
from jetbridge.contracts.dag_processing import ROLE
from jetbridge.dag_processor.airflow_env import airflow_env
from jetbridge.dag_processor.calls import DagProcessorClient, DagProcessorSession
from jetbridge.dag_processor.keeper import Launch, ManagerKeeper
from jetbridge.dag_processor.leases import BundleLeases
from jetbridge.dag_processor.settings import DagProcessorSettings
from jetbridge.dag_processor.status import DagProcessorMetrics
from jetbridge.telemetry.logs import configure_logging
from jetbridge.telemetry.status import Pulse, StatusPortError, watched
from jetbridge.telemetry.tracing import TracingConfigurationError, traced

log = structlog.get_logger(__name__)
PROGRAM = "jetbridge dag-processor"
GIVE_BACK_SECONDS = 3.0
GOODBYE_SECONDS = 3.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a Dag processor until it is told to stop; see :class:`ExitCode` for what is returned."""
    settings = load_settings(DagProcessorSettings, sys.argv[1:] if argv is None else argv, program=PROGRAM)
    configure_logging("dag-processor")
    structlog.contextvars.bind_contextvars(agent=settings.name)
    try:
        with lock_data_dir(settings.data_dir):
            read_token(settings.token_file)
            warn_about_permissions(settings.token_file)
            hide_memory()
            if settings.start_checks:
                run_start_checks(airflow_env(os.environ, settings))
            instance = new_instance()
            with traced("dag-processor"), leave_mark(settings, instance, ROLE) as mark:
                return asyncio.run(run(settings, instance, mark))
    except (DataDirError, TokenFileError, StatusPortError, TracingConfigurationError) as error:
        log.error("the Dag processor cannot start", reason=str(error))  # noqa: TRY400 - the reason is the message
        return ExitCode.USAGE
    except StartCheckError as error:
        log.error("the Dag processor does not start", reason=str(error))  # noqa: TRY400 - likewise
        return ExitCode.FAILED


async def run(settings: DagProcessorSettings, instance: str, mark: int) -> ExitCode:
    """Wire the Dag processor together and run it; ``mark`` is what all its processes shall hold."""
    stop = StopRequests()
    stop.listen()
    tasks = SideTasks()
    tls = tls_of(settings)
    async with DagProcessorClient(settings.gateway, tls) as client:
        session = DagProcessorSession(client, Link(), _identity(settings, instance), settings)
        leases = BundleLeases(session)
        metrics, pulse = DagProcessorMetrics(leases), Pulse()
        launch = _launch(settings, instance, mark)
        keeper = ManagerKeeper(launch, leases, session, settings.stuck_seconds, metrics.parsed.observe)
        tasks.run_forever("pulse", pulse.run())
        with watched(metrics.all, settings.metrics_port, pulse.is_well):
            tasks.run("start of conversation", _converse(session, leases, keeper, tasks, stop))
            code = await _serve(tasks, stop)
            await keeper.stop(settings.stop_seconds, stop.hurry)
        await tasks.cancel()
        if code is ExitCode.OK:
            await leases.give_back(GIVE_BACK_SECONDS)
        await session.goodbye("drained" if code is ExitCode.OK else "it had to end", GOODBYE_SECONDS)
    log.info("agent stopped", exit_code=int(code))
    return code


async def _converse(
    session: DagProcessorSession,
    leases: BundleLeases,
    keeper: ManagerKeeper,
    tasks: SideTasks,
    stop: StopRequests,
) -> None:
    await session.register()
    tasks.run_forever("heartbeat", heartbeat_loop(session, NoWork(stop.drain), stop))
    tasks.run_forever("claim bundles", leases.run())
    tasks.run_forever("manager", keeper.run())


async def _serve(tasks: SideTasks, stop: StopRequests) -> ExitCode:
    try:
        await first(tasks.failure(), stop.drain.wait())
    except AgentError as error:
        log.error("the agent cannot go on", reason=str(error))  # noqa: TRY400 - the reason is the message
        return error.exit_code
    except Exception:  # noqa: BLE001 - logged by SideTasks; what runs has to be ended in order
        return ExitCode.FAILED
    log.info("stopping: parsers end, bundles are given back")
    return ExitCode.OK


def _identity(settings: DagProcessorSettings, instance: str) -> RegisterRequest:
    return RegisterRequest(
        name=settings.name,
        instance=instance,
        role="dag-processor",
        labels=settings.labels,
        software_version=version("jetbridge-dag-processor"),
        site=settings.site,
    )


def _launch(settings: DagProcessorSettings, instance: str, mark: int) -> Launch:
    arguments = [
        "--parser-memory-mib",
        str(settings.parser_memory_mib),
        "--parser-output-kib",
        str(settings.parser_output_kib),
    ]
    env = airflow_env(os.environ, settings) | {INSTANCE_VARIABLE: instance}
    return Launch(env=env, arguments=arguments, inherited=(mark,))
