"""
A gateway in memory, for the tests of agents. It keeps the protocol's promises and can break each of them.

Not a specification: what the real gateway does is tested with the real one.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec

from jetbridge.agent.http import Answer, Http, Limits, NoAnswerError
from jetbridge.contracts.api import (
    AcceptRequest,
    AcceptResponse,
    GoodbyeRequest,
    GoodbyeResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    Offer,
    Orders,
    PollRequest,
    PollResponse,
    Problem,
    RegisterRequest,
    RegisterResponse,
    ReportRequest,
    ReportResponse,
)
from jetbridge.contracts.ids import AgentToken
from jetbridge.contracts.messages import TaskCoordinates, WorkloadKind
from jetbridge.contracts.problems import ProblemType


class ProblemError(Exception):
    """What an operation raises to answer with a problem document."""

    def __init__(self, problem: ProblemType) -> None:
        super().__init__(problem.slug)
        self.problem = problem


@dataclass(frozen=True)
class Call:
    """One request the gateway received: ``operation`` is register, heartbeat, poll, accept, … or goodbye."""

    operation: str
    target: str
    body: Any


@dataclass
class FakeGateway:
    """
    One plane with one gateway and one agent.

    Times are short, so that tests wait for events and not for intervals.
    """

    token: AgentToken = field(default_factory=AgentToken.generate)
    heartbeat_interval_seconds: float = 0.02
    poll_wait_seconds: float = 0.05
    credential_seconds: float = 3600.0
    lease_seconds: float = 120.0
    wait_seconds: float | None = None
    """How long leases are good without contact that are given from now on; None is as all others."""

    calls: list[Call] = field(default_factory=list)
    offers: dict[str, Offer] = field(default_factory=dict)
    held: dict[str, Offer] = field(default_factory=dict)
    reports: dict[str, ReportRequest] = field(default_factory=dict)
    credential: str = ""
    replaced: bool = False
    orders: Orders | None = None
    """What every answer says; set it and ``notify`` to wake the poll."""
    down: bool = False
    records: bool = True
    """Whether heartbeats are recorded: without Redis they are answered, and prolong nothing."""
    answers_lost: Counter[str] = field(default_factory=Counter)
    """How many more answers of each operation are lost *after* the operation took effect."""
    problems: dict[str, list[ProblemType]] = field(default_factory=lambda: defaultdict(list))
    """What each operation is to answer next instead of doing anything."""

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._changed = asyncio.Condition()

    # -- what tests do

    def http(self) -> Http:
        """Return the way to this gateway for a ``GatewayClient``."""
        return _Wire(self)

    async def offer(self, spec: Mapping[str, Any] | None = None, workload_id: str = "") -> str:
        """Make an offer to whoever polls next and return its lease."""
        lease = f"{workload_id or uuid.uuid4()}.{next(self._numbers)}"
        self.offers[lease] = Offer(
            lease=lease,
            kind=WorkloadKind.TASK,
            queue="default",
            coordinates=TaskCoordinates(dag_id="dag", run_id="run", task_id="task"),
            expires_in_seconds=10.0,
            spec=msgspec.Raw(msgspec.json.encode(spec or {})),
        )
        await self.notify()
        return lease

    async def take_back(self, lease: str) -> None:
        """Make the agent lose a lease."""
        self.held.pop(lease, None)
        self.offers.pop(lease, None)
        await self.notify()

    async def until(self, condition: Callable[[], Any], seconds: float = 30.0) -> None:
        """Wait until ``condition`` holds, be it about this gateway or about the agent."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - what an agent remembers has no event to wait for
                await asyncio.sleep(0.001)

    async def notify(self) -> None:
        """Have open polls look again."""
        async with self._changed:
            self._changed.notify_all()

    def called(self, operation: str) -> list[Call]:
        """Return the requests for one operation, oldest first."""
        return [call for call in self.calls if call.operation == operation]

    # -- the Remote Execution API

    async def answer(self, path: str, bearer: str, body: bytes) -> tuple[int, bytes]:
        """Answer one request with status and body; raises :class:`ConnectionError` when none arrives."""
        operation, target = _route(path)
        if self.down:
            raise ConnectionError("connection refused")
        try:
            answer = await self._perform(operation, target, bearer, body)
        except ProblemError as error:
            status, answer = error.problem.status, _document(error.problem)
        except msgspec.DecodeError as error:
            status, answer = 400, _document(ProblemType.MALFORMED, str(error))
        else:
            status = 200
        await self.notify()
        if self.answers_lost[operation] > 0:
            self.answers_lost[operation] -= 1
            raise ConnectionError("connection reset")
        return status, msgspec.json.encode(answer)

    async def _perform(self, operation: str, target: str, bearer: str, body: bytes) -> Any:
        if self.problems[operation]:
            raise ProblemError(self.problems[operation].pop(0))
        return await getattr(self, f"_{operation}")(target, bearer, body)

    async def _register(self, _target: str, bearer: str, body: bytes) -> RegisterResponse:
        request = self._note("register", "", msgspec.json.decode(body, type=RegisterRequest))
        if bearer != str(self.token):
            raise ProblemError(ProblemType.UNAUTHENTICATED)
        self.credential = f"credential-{next(self._numbers)}"
        return RegisterResponse(
            agent=request.name,
            credential=self.credential,
            credential_expires_in_seconds=self.credential_seconds,
            heartbeat_interval_seconds=self.heartbeat_interval_seconds,
            poll_wait_seconds=self.poll_wait_seconds,
            lease_seconds=self.lease_seconds,
        )

    async def _heartbeat(self, target: str, bearer: str, body: bytes) -> HeartbeatResponse:
        self._authenticate(bearer)
        self._note("heartbeat", target, msgspec.json.decode(body, type=HeartbeatRequest))
        return HeartbeatResponse(leases=tuple(self.held), recorded=self.records, orders=self.orders)

    async def _goodbye(self, target: str, bearer: str, body: bytes) -> GoodbyeResponse:
        self._authenticate(bearer)
        self._note("goodbye", target, msgspec.json.decode(body, type=GoodbyeRequest))
        return GoodbyeResponse()

    async def _poll(self, target: str, bearer: str, body: bytes) -> PollResponse:
        self._authenticate(bearer)
        request = self._note("poll", target, msgspec.json.decode(body, type=PollRequest))

        def stop() -> tuple[str, ...]:
            return tuple(lease for lease in request.leases if lease not in self.held)

        before = self.orders
        async with self._changed:
            try:
                async with asyncio.timeout(request.wait_seconds):
                    await self._changed.wait_for(
                        lambda: stop() or (self.offers and request.free_slots) or self.orders != before
                    )
            except TimeoutError:
                return PollResponse(orders=self.orders)
            offers = tuple(self.offers.values())[: request.free_slots]
            return PollResponse(offers=offers, stop=stop(), orders=self.orders)

    async def _accept(self, lease: str, bearer: str, body: bytes) -> AcceptResponse:
        self._authenticate(bearer)
        self._note("accept", lease, msgspec.json.decode(body, type=AcceptRequest))
        if lease in self.offers:
            self.held[lease] = self.offers.pop(lease)
        if lease not in self.held:
            raise ProblemError(ProblemType.LEASE_LOST)
        return AcceptResponse(lease=lease, token=f"token-of-{lease}", lease_seconds=self.wait_seconds)

    async def _report(self, lease: str, bearer: str, body: bytes) -> ReportResponse:
        self._authenticate(bearer)
        request = self._note("report", lease, msgspec.json.decode(body, type=ReportRequest))
        if lease not in self.held and lease not in self.reports:
            raise ProblemError(ProblemType.LEASE_LOST)
        self.held.pop(lease, None)
        self.reports[lease] = request
        return ReportResponse(lease=lease)

    def _note(self, operation: str, target: str, body: Any) -> Any:
        self.calls.append(Call(operation, target, body))
        return body

    def _authenticate(self, bearer: str) -> None:
        if bearer != self.credential:
            raise ProblemError(ProblemType.UNAUTHENTICATED)
        if self.replaced:
            raise ProblemError(ProblemType.AGENT_REPLACED)


def _route(path: str) -> tuple[str, str]:
    match path.strip("/").split("/"):
        case ["v1", "agents"]:
            return "register", ""
        case ["v1", "agents", name, "heartbeat" | "poll" | "goodbye" as operation]:
            return operation, name
        case ["v1", "leases", lease, "accept" | "report" as operation]:
            return operation, lease
    raise ValueError(f"no such operation: {path}")


def _document(problem: ProblemType, detail: str = "as the test asked") -> Problem:
    return Problem(type=problem.uri, title=problem.title, status=problem.status, detail=detail)


@dataclass(frozen=True)
class _Wire:
    """Requests to a :class:`FakeGateway` and its answers."""

    gateway: FakeGateway

    async def send(
        self, _method: str, url: str, headers: Mapping[str, str], body: bytes, _within: Limits
    ) -> Answer:
        bearer = headers["authorization"].removeprefix("Bearer ")
        try:
            status, answer = await self.gateway.answer(urlsplit(url).path, bearer, body)
        except ConnectionError as error:
            raise NoAnswerError(str(error)) from error
        return Answer(status=status, body=answer)

    async def close(self) -> None:
        pass
