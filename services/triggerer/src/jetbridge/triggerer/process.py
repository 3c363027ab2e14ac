"""
One life of a triggerer's process: fork the runner, talk to the gateway, end in order.

The first module that imports Airflow, so its configuration must be in the environment by then.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any, NamedTuple

import structlog

from jetbridge.agent.errors import AgentError, ExitCode
from jetbridge.agent.status import watched_agent
from jetbridge.sealing.keyring import SiteKeys
from jetbridge.telemetry.tracing import preload_tracing, traced
from jetbridge.triggerer.airflow_env import execution_api
from jetbridge.triggerer.exchange import Exchange
from jetbridge.triggerer.network import Network
from jetbridge.triggerer.settings import TriggererSettings
from jetbridge.triggerer.status import TriggererMetrics
from jetbridge.triggerer.supervisor import Supervisor

log = structlog.get_logger(__name__)

UPLOAD_THREADS = 8


class Next(Enum):
    """What is to be done after a life."""

    END = auto()
    BEGIN_ANEW = auto()
    """The runner died or hung: a new process, since one with threads and credentials must not fork."""


class Ending(NamedTuple):
    """How a life ended."""

    next: Next
    code: ExitCode


def live(settings: TriggererSettings, instance: str) -> Ending:
    """Run triggers until told to stop, or until that is not possible any more."""
    exchange = Exchange()
    requests = ThreadPoolExecutor(settings.request_threads, thread_name_prefix="request")
    uploads = ThreadPoolExecutor(UPLOAD_THREADS, thread_name_prefix="upload")
    preload_tracing()
    # Executors have no threads yet, and this forks.
    supervisor = Supervisor.start(
        job=None,
        logger=structlog.get_logger("triggers"),
        agent=settings.name,
        capacity=settings.capacity,
        queues=set(settings.queues) or None,
        server=execution_api(settings.gateway),
        exchange=exchange,
        requests=requests,
        uploads=uploads,
        site_keys=SiteKeys(settings.site_key_file) if settings.site_key_file else None,
    )
    network = Network(settings, exchange, instance)
    metrics = TriggererMetrics(exchange)
    with (
        traced("triggerer"),  # after the fork: the runner has its own
        watched_agent(settings, metrics, metrics.is_well),
        _signals(exchange),
    ):
        supervisor.listen_to_exchange()
        _ = supervisor.client  # made before threads could make two
        network.start()
        supervisor.run()
        return _end(settings, supervisor, network)


def _end(settings: TriggererSettings, supervisor: Supervisor, network: Network) -> Ending:
    exchange, died = supervisor.exchange, not supervisor.is_alive()
    exchange.stop()
    # First the triggers, so that none runs here and elsewhere; then what they fired; then their logs.
    supervisor.kill(signal.SIGINT, escalation_delay=settings.stop_seconds, force=True)
    supervisor.pass_on_what_is_left()
    network.finish(settings.stop_seconds)
    supervisor.requests.shutdown(wait=False, cancel_futures=True)
    supervisor.close_logs(settings.stop_seconds)
    exchange.close()
    if exchange.error is not None:
        log.error("the triggerer cannot go on", reason=str(exchange.error))
        return Ending(Next.END, _code(exchange.error))
    if died or supervisor.silent_runner:
        return Ending(Next.BEGIN_ANEW, ExitCode.FAILED)
    log.info("agent stopped")
    return Ending(Next.END, ExitCode.OK)


def _code(error: Exception) -> ExitCode:
    return error.exit_code if isinstance(error, AgentError) else ExitCode.FAILED


@contextmanager
def _signals(exchange: Exchange) -> Iterator[None]:
    """
    Have SIGTERM and SIGINT stop the agent; a second one interrupts what the first began.

    An agent that stops because the plane says so has not had its first yet.
    """
    signalled = False

    def stop(_number: int, _frame: Any) -> None:
        nonlocal signalled
        if signalled:
            raise KeyboardInterrupt
        signalled = True
        exchange.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
