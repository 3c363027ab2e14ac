"""The composition root: everything one gateway process is made of, wired once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import aiohttp
import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from jetbridge.bus.agents import AgentStore
from jetbridge.bus.beats import open_beats
from jetbridge.bus.bundles import BundleStore
from jetbridge.bus.connection import Bus, open_bus
from jetbridge.bus.errors import BusUnavailableError
from jetbridge.bus.health import HealthStore
from jetbridge.bus.keys import TRIGGER_DATA_KEY, shared_key
from jetbridge.bus.mirror import BucketMirror
from jetbridge.bus.nudges import nudge
from jetbridge.bus.orders import OrderStore
from jetbridge.bus.policies import Policies, PolicyStore
from jetbridge.bus.rpc import RpcClient
from jetbridge.bus.settings import BusSettings
from jetbridge.bus.sites import open_sites
from jetbridge.bus.token_uses import TokenUseStore
from jetbridge.bus.tokens import TokenStore
from jetbridge.bus.workloads import Terms, WorkloadStore
from jetbridge.contracts.records import (
    AgentRecord,
    HealthRecord,
    OrderRecord,
    TokenRecord,
    WorkloadRecord,
)
from jetbridge.gateway.agents import AgentDesk
from jetbridge.gateway.airflow_calls import AirflowCalls, airflow_session
from jetbridge.gateway.airflow_tokens import AirflowTokens
from jetbridge.gateway.assets import AssetDesk
from jetbridge.gateway.audit import Audit
from jetbridge.gateway.auth import Gatekeeper
from jetbridge.gateway.background import Background
from jetbridge.gateway.board import Board
from jetbridge.gateway.boundary import Boundary
from jetbridge.gateway.bundles import BundleDesk
from jetbridge.gateway.contact import Contact
from jetbridge.gateway.credentials import Credentials
from jetbridge.gateway.deaths import DeathDesk
from jetbridge.gateway.depth import Depths
from jetbridge.gateway.health import CheckFailedError, Health, ReadinessProbe
from jetbridge.gateway.holdings import Holdings
from jetbridge.gateway.known import Known
from jetbridge.gateway.limits import Limits
from jetbridge.gateway.matchmaker import Matchmaker
from jetbridge.gateway.metrics import GatewayMetrics
from jetbridge.gateway.orders import Orders
from jetbridge.gateway.outstanding import Outstanding
from jetbridge.gateway.polls import Polls
from jetbridge.gateway.presence import Presence
from jetbridge.gateway.proxy import Proxy
from jetbridge.gateway.settings import GatewaySettings
from jetbridge.gateway.sites import SiteDesk
from jetbridge.gateway.terms import decide_terms
from jetbridge.gateway.token_use import TokenUse
from jetbridge.gateway.triggers import TriggerDesk
from jetbridge.sealing.keyring import KEY_BYTES, Keyring
from jetbridge.telemetry.status import Pulse

_FIRST_READ_SECONDS = 30.0
"""100,000 records are read in a few seconds."""


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """What the routes need."""

    settings: GatewaySettings
    metrics: GatewayMetrics
    workloads: WorkloadStore
    policies: Policies
    gatekeeper: Gatekeeper
    limits: Limits
    depths: Depths
    holdings: Holdings
    agents: AgentDesk
    polls: Polls
    bundles: BundleDesk
    triggers: TriggerDesk
    deaths: DeathDesk
    sites: SiteDesk
    boundary: Boundary
    proxy: Proxy
    readiness: ReadinessProbe
    health: Health = field(default_factory=Health)

    def terms_at(self, site: str) -> Callable[[WorkloadRecord], Terms]:
        """Return the terms on which an agent at ``site`` gets a lease of a workload."""

        def terms(record: WorkloadRecord) -> Terms:
            policy = self.policies.failover(record.queue, site)
            return decide_terms(record, policy, self.settings.lease_seconds)

        return terms

    def drain(self) -> None:
        """Begin to stop: /readyz says no, held polls are answered, new ones are refused."""
        self.readiness.drain()
        self.polls.drain()
        self.triggers.drain()


@asynccontextmanager
async def open_gateway(
    settings: GatewaySettings, bus_settings: BusSettings, on_failure: Callable[[], None]
) -> AsyncIterator[Gateway]:
    """
    Connect to everything and start the side tasks; ``on_failure`` is called when one of them dies.

    Raises ``BusError`` when NATS cannot be reached or was not set up, ``SigningKeyError`` for Airflow's key.
    """
    airflow_tokens = AirflowTokens(settings)
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(open_bus(bus_settings, "jetbridge-gateway"))
        session = await stack.enter_async_context(airflow_session(settings))
        presence_store = await stack.enter_async_context(_redis(settings))
        background = await stack.enter_async_context(Background(on_failure))
        connections = _Connections(bus=bus, airflow=session, redis=presence_store)
        yield await _wire(settings, connections, airflow_tokens, background, stack)


@dataclass(frozen=True, kw_only=True)
class _Connections:
    bus: Bus
    airflow: aiohttp.ClientSession
    redis: redis.Redis


async def _wire(
    settings: GatewaySettings,
    to: _Connections,
    airflow_tokens: AirflowTokens,
    background: Background,
    stack: AsyncExitStack,
) -> Gateway:
    """Wire everything; what has to be ended in order is left on ``stack``, last wired first."""
    metrics = GatewayMetrics()
    store, agents = await WorkloadStore.open(to.bus), await AgentStore.open(to.bus)
    health = await HealthStore.open(to.bus)
    known = _Knowledge(
        workloads=Known(to.bus, store.bucket),
        agents=Known(to.bus, agents.bucket),
        tokens=Known(to.bus, (await TokenStore.open(to.bus)).bucket),
        policies=Policies(to.bus, await PolicyStore.open(to.bus)),
        health=Known(to.bus, health.bucket),
        orders=Known(to.bus, (await OrderStore.open(to.bus)).bucket),
    )
    credentials = Credentials(await shared_key(to.bus, "credentials"))
    orders = Orders(known.orders)
    uses = TokenUse(await TokenUseStore.open(to.bus))
    gatekeeper = Gatekeeper(credentials, known.tokens, known.agents, known.health, uses)
    rpc = await RpcClient.open(to.bus)
    bundles = BundleDesk(await BundleStore.open(to.bus), orders, rpc)
    audit = Audit(to.bus, metrics)
    stack.push_async_callback(audit.close)
    at_rest = Keyring([(await shared_key(to.bus, TRIGGER_DATA_KEY))[:KEY_BYTES]])
    boundary = Boundary(known.policies, audit, at_rest, settings.xcom_reference_prefixes)
    triggers = TriggerDesk(rpc, gatekeeper, orders, boundary, metrics)
    holdings = Holdings(known.workloads)
    depths = Depths(known.workloads)
    contact = Contact(to.bus.js.account_info)
    presence = Presence(to.redis, await open_beats(to.bus), contact, metrics)
    board = Board(Outstanding())
    matchmaker = Matchmaker(
        bus=to.bus,
        store=store,
        workloads=known.workloads,
        board=board,
        background=background,
        metrics=metrics,
    )
    for name, task in {
        **{f"mirror of {name}": mirror.run() for name, mirror in known.all.items()},
        "contact": contact.run(),
        "presence": presence.run(),
        "expiry of offers": matchmaker.run_expiry(),
        "use of tokens": uses.run(),
        "audit": audit.run(),
        "pulse": Pulse().run(),
    }.items():
        background.start(name, task)
    await known.read()
    return Gateway(
        settings=settings,
        metrics=metrics,
        workloads=store,
        policies=known.policies,
        gatekeeper=gatekeeper,
        limits=Limits(to.redis),
        depths=depths,
        holdings=holdings,
        agents=AgentDesk(
            store=agents,
            tokens=known.tokens,
            events=store,
            holdings=holdings,
            contact=contact,
            presence=presence,
            credentials=credentials,
            gatekeeper=gatekeeper,
            orders=orders,
            settings=settings,
        ),
        polls=Polls(
            board=board,
            matchmaker=matchmaker,
            holdings=holdings,
            gatekeeper=gatekeeper,
            workloads=known.workloads,
            orders=orders,
            background=background,
            metrics=metrics,
        ),
        deaths=DeathDesk(agents=known.agents, health=health, events=store, metrics=metrics),
        sites=SiteDesk(await open_sites(to.bus)),
        bundles=bundles,
        triggers=triggers,
        boundary=boundary,
        proxy=Proxy(
            airflow=AirflowCalls(
                session=to.airflow,
                turns=asyncio.Semaphore(settings.airflow_calls_at_once),
                settings=settings,
                tokens=airflow_tokens,
                metrics=metrics,
            ),
            settings=settings,
            gatekeeper=gatekeeper,
            holdings=holdings,
            contact=contact,
            triggers=triggers,
            bundles=bundles,
            assets=AssetDesk(rpc),
            boundary=boundary,
            metrics=metrics,
            nudge=partial(nudge, to.bus),
        ),
        readiness=ReadinessProbe(
            required={"nats": contact.require, "mirrors": known.require},
            reported={"redis": presence.ping, "airflow": partial(_check_airflow, to.airflow, settings)},
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _Knowledge:
    """The mirrors."""

    workloads: Known[WorkloadRecord]
    agents: Known[AgentRecord]
    tokens: Known[TokenRecord]
    policies: Policies
    health: Known[HealthRecord]
    orders: Known[OrderRecord]

    @property
    def all(self) -> dict[str, BucketMirror[Any]]:
        """Return the mirrors by what they hold."""
        return {
            "workloads": self.workloads.mirror,
            "agents": self.agents.mirror,
            "tokens": self.tokens.mirror,
            "policies": self.policies.mirror,
            "health": self.health.mirror,
            "orders": self.orders.mirror,
        }

    async def read(self) -> None:
        """Wait for the first full read: an agent should not be told to come back by a gateway that starts."""
        try:
            async with asyncio.timeout(_FIRST_READ_SECONDS):
                for mirror in self.all.values():
                    await mirror.ready.wait()
        except TimeoutError as exc:
            raise BusUnavailableError("NATS does not deliver the records of workloads and agents") from exc

    async def require(self) -> None:
        if missing := [name for name, mirror in self.all.items() if not mirror.ready.is_set()]:
            raise CheckFailedError(f"not all records are read yet: {', '.join(missing)}")


async def _check_airflow(session: aiohttp.ClientSession, settings: GatewaySettings) -> None:
    async with session.get(f"{settings.airflow_base}/execution/health") as answer:
        if answer.status != 200:
            raise CheckFailedError(f"the Execution API's health answers {answer.status}")


@asynccontextmanager
async def _redis(settings: GatewaySettings) -> AsyncIterator[redis.Redis]:
    client = redis.Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=settings.redis_timeout_seconds,
        socket_connect_timeout=settings.redis_timeout_seconds,
        retry=Retry(NoBackoff(), 0),  # Presence decides about trying again
        decode_responses=True,
    )
    try:
        yield client
    finally:
        await client.aclose()
