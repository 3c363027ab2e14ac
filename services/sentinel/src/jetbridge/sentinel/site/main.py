"""``jetbridge sentinel site``: the composition root of a site's sentinel."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from importlib.metadata import version

import structlog

from jetbridge.agent.data_dir import DataDirError, lock_data_dir
from jetbridge.agent.errors import AgentError, ExitCode, TokenFileError
from jetbridge.agent.gateway_client import tls_of
from jetbridge.agent.link import Link
from jetbridge.agent.loops import heartbeat_loop
from jetbridge.agent.mark import leave_mark
from jetbridge.agent.no_work import NoWork
from jetbridge.agent.prctl import hide_memory
from jetbridge.agent.session import new_instance
from jetbridge.agent.settings import load_settings
from jetbridge.agent.side_tasks import SideTasks
from jetbridge.agent.stop import StopRequests
from jetbridge.agent.token_file import read_token, warn_about_permissions
from jetbridge.agent.waiting import first
from jetbridge.contracts.api import RegisterRequest
from jetbridge.contracts.sites import ROLE
from jetbridge.sentinel.site.calls import SentinelClient, SentinelSession
from jetbridge.sentinel.site.checks import checks_of, keep_checking
from jetbridge.sentinel.site.kubernetes import Pods
from jetbridge.sentinel.site.metrics import SiteMetrics
from jetbridge.sentinel.site.pages import Pages
from jetbridge.sentinel.site.pods import watch_pods
from jetbridge.sentinel.site.processes import ProcessWatcher
from jetbridge.sentinel.site.settings import SiteSentinelSettings
from jetbridge.sentinel.site.telling import report_site, tell_ends
from jetbridge.sentinel.site.view import SiteView
from jetbridge.telemetry.alive import touch_pulse
from jetbridge.telemetry.logs import configure_logging
from jetbridge.telemetry.otlp_metrics import pushing
from jetbridge.telemetry.status import serving
from jetbridge.telemetry.tracing import TracingConfigurationError, traced

log = structlog.get_logger(__name__)
PROGRAM = "jetbridge sentinel site"
GOODBYE_SECONDS = 3.0
TURN_SECONDS = 1.0


def main(argv: Sequence[str]) -> int:
    """Run the sentinel of a site until it is told to stop; see :class:`ExitCode` for what is returned."""
    settings = load_settings(SiteSentinelSettings, argv, program=PROGRAM)
    configure_logging("sentinel")
    structlog.contextvars.bind_contextvars(agent=settings.name)
    try:
        with lock_data_dir(settings.data_dir):
            read_token(settings.token_file)
            warn_about_permissions(settings.token_file)
            hide_memory()
            instance = new_instance()
            with leave_mark(settings, instance, ROLE), traced("site-sentinel"):
                return asyncio.run(run(settings, instance))
    except (DataDirError, TokenFileError, TracingConfigurationError) as error:
        log.error("the sentinel cannot start", reason=str(error))  # noqa: TRY400 - the reason is the message
    except OSError as error:
        log.error(  # noqa: TRY400 - likewise
            "the sentinel cannot listen; see --listen-host and --listen-port", reason=error.strerror
        )
    return ExitCode.USAGE


async def run(settings: SiteSentinelSettings, instance: str) -> ExitCode:
    """Wire the sentinel together and run it."""
    stop, tasks, view, metrics = StopRequests(), SideTasks(), SiteView(), SiteMetrics()
    stop.listen()
    pages = Pages(settings.site, settings.name, view, metrics)
    tls = tls_of(settings)
    async with SentinelClient(settings.gateway, tls) as client:
        session = SentinelSession(client, Link(), _identity(settings, instance), settings.token_file)
        with (
            serving(pages, settings.listen_host, settings.listen_port) as port,
            pushing("site-sentinel", metrics.metrics.registry.collect),
        ):
            log.info("sentinel.watching", what=settings.watch, site=settings.site, port=port)
            _watch(settings, view, tasks, pages)
            tasks.run("start of conversation", _converse(session, view, tasks, metrics, stop))
            code = await _serve(tasks, stop)
        await tasks.cancel()
        if not stop.hurry.is_set():
            await first(session.goodbye("stopped", GOODBYE_SECONDS), stop.hurry.wait())
    log.info("agent stopped", exit_code=int(code))
    return code


def _watch(settings: SiteSentinelSettings, view: SiteView, tasks: SideTasks, pages: Pages) -> None:
    """Begin to look, with or without a gateway: the site's owner wants to know in any case."""
    tasks.run_forever("turn", _turn(pages))
    if settings.watch == "pods":
        pods = Pods(settings.namespace, settings.pod_selector)
        tasks.run_forever("watch pods", watch_pods(pods, view))
    else:
        watcher = ProcessWatcher(
            settings.watch_dirs, settings.site, view, tasks, settings.look_interval_seconds
        )
        tasks.run_forever("watch processes", watcher.run())
    timeout = settings.check_timeout_seconds
    checks = checks_of(os.environ, settings.data_dir, timeout)
    for name, check in checks.items():
        work = keep_checking(name, check, view, settings.check_interval_seconds, timeout)
        tasks.run_forever(f"check {name}", work)


async def _turn(pages: Pages) -> None:
    while True:
        pages.turned()
        touch_pulse()
        await asyncio.sleep(TURN_SECONDS)


async def _converse(
    session: SentinelSession, view: SiteView, tasks: SideTasks, metrics: SiteMetrics, stop: StopRequests
) -> None:
    await session.register()
    tasks.run_forever("heartbeat", heartbeat_loop(session, NoWork(stop.drain), stop))
    tasks.run_forever("tell ends", tell_ends(session, view, tasks, metrics))
    tasks.run_forever("report site", report_site(session, view))


async def _serve(tasks: SideTasks, stop: StopRequests) -> ExitCode:
    try:
        await first(tasks.failure(), stop.drain.wait())
    except AgentError as error:
        log.error("the agent cannot go on", reason=str(error))  # noqa: TRY400 - the reason is the message
        return error.exit_code
    except Exception:  # noqa: BLE001 - logged by SideTasks
        return ExitCode.FAILED
    return ExitCode.OK


def _identity(settings: SiteSentinelSettings, instance: str) -> RegisterRequest:
    return RegisterRequest(
        name=settings.name,
        instance=instance,
        role=ROLE,
        labels=settings.labels,
        software_version=version("jetbridge-sentinel"),
        site=settings.site,
    )
