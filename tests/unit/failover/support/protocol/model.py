"""
One task, from its hand-over to its end, with everything that may go wrong on the way.

What decides is the code itself: ``WorkloadStore`` on a bucket in memory, ``judge``, ``decide``, ``holds``,
``SilenceWatch.verdict``. What the model adds is who may do what when, and an adversary:

* Requests and answers between agent ``a`` and the plane are lost, late, repeated and overtake each other:
  whatever was sent once may arrive now, again, or never. Acknowledgements to JetStream get lost.
* Time passes whenever it likes. Agent ``a`` counts from the sending of its last recorded heartbeat, the
  plane from its arrival; the two share no clock.
* Agent ``a`` dies at any moment and may be started again. Router, gateway, executor and bridge may stop
  between any two steps: each step is one write, and nothing else is remembered.

Agent ``b`` has a perfect connection: it is where work goes. Bounds: one task with two TI ids, a few offers.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from functools import cache
from typing import Any, NamedTuple

import msgspec

from jetbridge.bus import workloads
from jetbridge.bus.errors import BusError, ConflictError
from jetbridge.bus.intake import Verdict, judge
from jetbridge.bus.kv import Versioned
from jetbridge.bus.workloads import NewWorkload, Terms, WorkloadStore
from jetbridge.contracts.api import FENCE_SHARE
from jetbridge.contracts.ids import LeaseKey
from jetbridge.contracts.messages import Outcome, TaskCoordinates, WorkloadKind, WorkloadSubmitted
from jetbridge.contracts.records import Health, HealthRecord, OnAgentLost, WorkloadRecord, WorkloadState
from jetbridge.router.decisions import Action, decide
from jetbridge.sentinel.silence import Limits, SilenceWatch

IDS = ("11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222")
"""TI ids of the task: the first, and the one a reroute gives it."""

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
COORDINATES = TaskCoordinates(dag_id="d", run_id="r")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the protocol says, so that a test can break one rule and see it noticed. Times are in ticks."""

    lease: int = 2
    fence: int = int(2 * FENCE_SHARE)
    count_from_sending: bool = True
    start_asks_plane: bool = True
    """Airflow's supervisor asks to start the task through the gateway, which checks the lease."""
    stale_confirmation_is_dropped: bool = True
    """A worker whose fence was reached while it waited for a confirmation does not believe it."""
    acknowledge_after_record: bool = True
    on_agent_lost: OnAgentLost = OnAgentLost.REROUTE
    offers: tuple[int, int] = (1, 0)
    """How often each TI id is offered to agent ``a`` at most."""


class Fact(IntEnum):
    """
    What is true of a lease that agent ``a`` tried to accept, besides what its record says.

    Bits, as plain numbers: operations on ``IntFlag`` took a fifth of the exploration.
    """

    SENT = 0
    CONFIRMED = 1
    LAPSED = 2
    """The fence was reached while the confirmation was on its way."""
    BEGUN = 4
    RUNNING = 8
    SUCCEEDED = 16
    """A report of that is on its way, for ever."""
    ABANDONED = 32


class Lease(NamedTuple):
    """One lease of agent ``a``; ``which`` TI id."""

    which: int
    epoch: int
    facts: int = 0

    @property
    def key(self) -> LeaseKey:
        """Return what the code calls it."""
        return LeaseKey(IDS[self.which], self.epoch)


Pair = tuple[int, int]


class State(NamedTuple):
    """Everything there is, in one value of small numbers, which are quick to compare."""

    records: Pair = (0, 0)  # numbers of records, see Model.record; 0 is none
    revision: int = 0
    messages: tuple[Pair, ...] = ()  # (which TI id, submission) in WORK
    offers: Pair = (0, 0)  # made to agent a
    # Airflow
    current: int = 0
    submitted: int = 0  # how many TI ids
    ended: tuple[str, ...] = ()
    # agent a
    alive: bool = True
    restarted: bool = False
    left: int = 0  # ticks until its fence
    request: int | None = None  # its heartbeat on the way to the plane: ticks since it was sent
    answer: int | None = None  # the answer on its way back, likewise
    leases: tuple[Lease, ...] = ()
    silence: int = 0  # of a, as the sentinel counts it
    # agent b
    running_b: tuple[Pair, ...] = ()


def start(rules: Rules) -> State:
    """Return the state in which agent ``a`` has just been heard of and nothing was handed over."""
    return State(left=rules.fence)


def forbidden(state: State) -> str | None:
    """Return the invariant that a state breaks (design section 8)."""
    running_a = sum(bool(lease.facts & Fact.RUNNING) for lease in state.leases)
    if running_a + len(state.running_b) > 1:
        return "twice at once"
    if len(state.ended) > 1:
        return "ended twice"
    return None


def costs_a_retry(state: State) -> str | None:
    """Return the invariant of work that is rerouted: it never fails for the loss of an agent."""
    return "cost a retry" if state.ended == ("failed",) else forbidden(state)


def is_done(state: State) -> bool:
    """Say whether Airflow has seen the end, or wants more TI ids than the model has."""
    return bool(state.ended) or state.current == len(IDS)


Entry = Versioned[WorkloadRecord] | None


class _Bucket:
    """A bucket in memory, with NATS' semantics of revisions."""

    def __init__(self, records: Iterable[Entry], revision: int) -> None:
        self.records = {ti: record for ti, record in zip(IDS, records, strict=True) if record}
        self.revision = revision

    async def get(self, key: str) -> Versioned[WorkloadRecord] | None:
        return self.records.get(key)

    async def create(self, key: str, record: WorkloadRecord) -> int:
        return self._write(key, record, None)

    async def update(self, key: str, record: WorkloadRecord, revision: int) -> int:
        return self._write(key, record, revision)

    async def delete(self, key: str, revision: int) -> None:
        self._check(key, revision)
        self.revision += 1
        del self.records[key]

    def _write(self, key: str, record: WorkloadRecord, revision: int | None) -> int:
        self._check(key, revision)
        self.revision += 1
        # Times are for people: without them, states that differ in nothing else are one.
        same = msgspec.structs.replace(record, changed_at=LONG_AGO, reason="")
        self.records[key] = Versioned(same, self.revision)
        return self.revision

    def _check(self, key: str, revision: int | None) -> None:
        found = self.records.get(key)
        if (found.revision if found else None) != revision:
            raise ConflictError(key)


class _Store(WorkloadStore):
    """The real store; what it publishes is the model's to decide about."""

    def __init__(self, bucket: _Bucket) -> None:
        super().__init__(None, bucket)  # type: ignore[arg-type]  # see the two methods below

    async def _acknowledge(self, record: WorkloadRecord) -> None: ...

    async def _publish(self, *_message: Any) -> None: ...


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run what never really waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("something waited")


class Model:
    """All steps that are possible in a state."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._entries: list[Entry] = [None]
        self._numbers: dict[Entry, int] = {None: 0}
        self._written: dict[Any, tuple[Any, Pair, int] | None] = {}
        self._watch = SilenceWatch(
            Limits(heartbeat_seconds=0.3, lease_seconds=rules.lease, forget_seconds=1e9), 1e9
        )

    def record(self, state: State, which: int) -> Entry:
        """Return the record of a TI id. States hold numbers, which are quick to compare."""
        return self._entries[state.records[which]]

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Yield each possible step and where it leads."""
        yield from self._time(state)
        yield from self._heartbeats(state)
        yield from self._executor(state)
        for which in range(len(IDS)):
            yield from self._gateway(state, which)
            yield from self._router(state, which)
        yield from self._agent(state)
        yield from self._agent_b(state)

    # -- time and heartbeats

    def _time(self, state: State) -> Iterator[tuple[str, State]]:
        left = max(0, state.left - 1)
        after = state._replace(
            left=left,
            silence=min(self.rules.lease, state.silence + 1),
            request=_older(state.request, self.rules.fence),
            answer=_older(state.answer, self.rules.fence),
        )
        if left == 0:
            after = _fenced(after)
        if after != state:
            yield "time passes", after

    def _heartbeats(self, state: State) -> Iterator[tuple[str, State]]:
        if state.alive and state.request is None and state.answer is None:
            yield "a sends a heartbeat", state._replace(request=0)
        if state.request is not None:
            heard = state._replace(silence=0)
            yield "heartbeat arrives", heard._replace(request=None, answer=state.request)
            yield "heartbeat arrives and will again", heard
            yield "heartbeat is lost", state._replace(request=None)
        if state.answer is not None:
            yield "answer is lost", state._replace(answer=None)
            if state.alive:
                age = state.answer if self.rules.count_from_sending else 0
                left = max(state.left, self.rules.fence - age)
                yield "answer arrives", state._replace(answer=None, left=left)

    # -- the plane

    def _executor(self, state: State) -> Iterator[tuple[str, State]]:
        current = state.current
        if not state.ended and state.submitted == current < len(IDS):
            submission, after = self._write(state, "submit", current, self.rules.on_agent_lost)
            messages = (*state.messages, (current, submission))
            yield "executor submits", after._replace(submitted=current + 1, messages=messages)
        for which in range(len(IDS)):
            finished = self.record(state, which)
            if finished is None or finished.record.state is not WorkloadState.FINISHED:
                continue
            if which == current and not state.ended:
                ended = "succeeded" if finished.record.outcome is Outcome.SUCCEEDED else "failed"
                yield f"executor sees the end of {which}", state._replace(ended=(ended,))
            else:
                yield f"executor clears {which}", self._write(state, "remove", which)[1]

    def _gateway(self, state: State, which: int) -> Iterator[tuple[str, State]]:
        for message in [one for one in state.messages if one[0] == which]:
            verdict = judge(self.record(state, which), _submitted(message))
            if verdict is Verdict.DONE:
                yield f"message of {which} is dropped", _acknowledged(state, message)
            if verdict is not Verdict.OFFER:
                continue
            if state.alive and state.left and state.offers[which] < self.rules.offers[which]:
                key, after = self._write(state, "offer", which, "a")
                if not self.rules.acknowledge_after_record:
                    after = _acknowledged(after, message)
                offers = tuple(n + (index == which) for index, n in enumerate(state.offers))
                after = after._replace(offers=offers, leases=(*state.leases, Lease(which, key.epoch)))
                yield f"a is offered {which} and accepts", after
            key, after = self._write(state, "take", which, "b")
            after = after._replace(running_b=(*state.running_b, (which, key.epoch)))
            yield f"b takes {which}", _acknowledged(after, message)
            yield f"b takes {which}, acknowledgement lost", after

    def _router(self, state: State, which: int) -> Iterator[tuple[str, State]]:
        entry = self.record(state, which)
        if entry is None:
            return
        lease = LeaseKey(IDS[which], entry.record.epoch)
        match decide(entry.record, self._health(state) if entry.record.agent == "a" else None):
            case Action.RELEASE:
                yield f"router releases {which}", self._write(state, "release", lease)[1]
            case Action.FAIL:
                yield f"router fails {which}", self._write(state, "report", lease, "a", Outcome.FAILED)[1]
            case Action.REQUEUE:
                if state.current == which:  # asked again, the bridge finds the attempt gone
                    yield f"bridge gives {which} a new id", state._replace(current=which + 1)
                if state.current != which:
                    yield f"router clears {which}", self._write(state, "remove released", lease)[1]

    def _health(self, state: State) -> HealthRecord:
        return _health(self._watch.verdict(state.silence))

    # -- agents

    def _agent(self, state: State) -> Iterator[tuple[str, State]]:
        for lease in state.leases:
            yield from self._accept(state, lease)
            yield from self._report(state, lease)
        if state.alive:
            dead = tuple(_without(lease, Fact.RUNNING) for lease in state.leases)
            yield "a dies", state._replace(alive=False, left=0, leases=dead)
        else:
            yield from self._lost_with_a(state)
        if not state.alive and not state.restarted:
            # Another process of that name: it meets the leases of the one before, and lets go of them.
            met = tuple(
                _with(lease, Fact.ABANDONED) if self._is_held(state, lease) else lease
                for lease in state.leases
            )
            yield "a is started again", state._replace(restarted=True, leases=met)

    def _lost_with_a(self, state: State) -> Iterator[tuple[str, State]]:
        """What a living agent repeats until it is answered is lost for good when the agent dies."""
        for lease in state.leases:
            if not lease.facts & Fact.CONFIRMED:
                rest = tuple(one for one in state.leases if one != lease)
                yield "accept is lost", state._replace(leases=rest)
            if lease.facts & (Fact.SUCCEEDED | Fact.ABANDONED) and not state.restarted:
                silent = _without(lease, Fact.SUCCEEDED | Fact.ABANDONED)
                yield "report is lost", _replaced(state, lease, silent)

    def _accept(self, state: State, lease: Lease) -> Iterator[tuple[str, State]]:
        if accepted := self._try(state, "accept", lease.key):
            after = _replaced(accepted[1], lease, _with(lease, Fact.CONFIRMED))
            yield "accept arrives", after
            for message in [one for one in state.messages if one[0] == lease.which]:
                yield "accept arrives, work acknowledged", _acknowledged(after, message)
        if state.alive and lease.facts & Fact.CONFIRMED and not lease.facts & Fact.BEGUN:
            yield "confirmation arrives", _replaced(state, lease, self._begin(state, lease))

    def _begin(self, state: State, lease: Lease) -> Lease:
        begun = _with(lease, Fact.BEGUN)
        if state.left == 0 or (lease.facts & Fact.LAPSED and self.rules.stale_confirmation_is_dropped):
            return _with(begun, Fact.ABANDONED)
        if self.rules.start_asks_plane and not self._is_held(state, lease):
            return begun
        return _with(begun, Fact.RUNNING)

    def _report(self, state: State, lease: Lease) -> Iterator[tuple[str, State]]:
        if lease.facts & Fact.RUNNING:
            ended = _with(_without(lease, Fact.RUNNING), Fact.SUCCEEDED)
            yield "a's process ends", _replaced(state, lease, ended)
        for fact, outcome in ((Fact.SUCCEEDED, Outcome.SUCCEEDED), (Fact.ABANDONED, Outcome.ABANDONED)):
            if lease.facts & fact and (reported := self._try(state, "report", lease.key, "a", outcome)):
                yield f"report arrives ({outcome.value})", reported[1]

    def _is_held(self, state: State, lease: Lease) -> bool:
        entry = self.record(state, lease.which)
        return entry is not None and workloads.holds(entry.record, lease.key, "a")

    def _agent_b(self, state: State) -> Iterator[tuple[str, State]]:
        for which, epoch in state.running_b:
            rest = tuple(one for one in state.running_b if one != (which, epoch))
            done = self._write(state, "report", LeaseKey(IDS[which], epoch), "b", Outcome.SUCCEEDED)[1]
            yield "b's process ends and is reported", done._replace(running_b=rest)

    # -- the store

    def _write(self, state: State, name: str, *arguments: Any) -> tuple[Any, State]:
        found = self._try(state, name, *arguments)
        assert found is not None, f"{name}{arguments} was refused"
        return found

    def _try(self, state: State, name: str, *arguments: Any) -> tuple[Any, State] | None:
        """Have the store do something; None when it refuses, upon which nothing changed."""
        key = (state.records, state.revision, name, arguments)
        if key not in self._written:
            self._written[key] = self._call(state, name, arguments)
        done = self._written[key]
        return done and (done[0], state._replace(records=done[1], revision=done[2]))

    def _call(self, state: State, name: str, arguments: Any) -> tuple[Any, Pair, int] | None:
        bucket = _Bucket((self.record(state, which) for which in range(len(IDS))), state.revision)
        try:
            answer = run(CALLS[name](_Store(bucket), *arguments))
        except BusError:
            return None
        first, second = (self._number(bucket.records.get(ti)) for ti in IDS)
        return answer, (first, second), bucket.revision

    def _number(self, entry: Entry) -> int:
        if entry not in self._numbers:
            self._numbers[entry] = len(self._entries)
            self._entries.append(entry)
        return self._numbers[entry]


async def _submit(store: WorkloadStore, which: int, wish: OnAgentLost) -> int:
    new = NewWorkload(
        workload_id=IDS[which],
        kind=WorkloadKind.TASK,
        queue="q",
        priority_weight=1,
        coordinates=COORDINATES,
        spec=b"{}",
        on_agent_lost=wish,
    )
    return await store.write_submitted(new)


async def _offer(store: WorkloadStore, which: int, agent: str) -> LeaseKey:
    entry = await store.get(IDS[which])
    assert entry is not None
    return await store.offer(entry, agent, "ack", "i")


async def _take(store: WorkloadStore, which: int, agent: str) -> LeaseKey:
    lease = await _offer(store, which, agent)
    await store.accept(lease, agent)
    return lease


async def _report(store: WorkloadStore, lease: LeaseKey, agent: str, outcome: Outcome) -> None:
    if outcome is Outcome.ABANDONED:
        await store.abandon(lease, agent, "")
    else:
        await store.finish(lease, agent, outcome, 0, "")


CALLS: dict[str, Callable[..., Coroutine[Any, Any, Any]]] = {
    "submit": _submit,
    "offer": _offer,
    "take": _take,
    "report": _report,
    "accept": lambda store, lease: store.accept(lease, "a", None, _terms),
    "release": lambda store, lease: store.release(lease, ""),
    "remove": lambda store, which: store.remove(IDS[which]),
    "remove released": lambda store, lease: store.remove_released(lease),
}


def _terms(record: WorkloadRecord) -> Terms:
    return Terms(on_agent_lost=record.on_agent_lost or OnAgentLost.REROUTE)


@cache
def _health(verdict: Health) -> HealthRecord:
    return HealthRecord(agent="a", instance="i", health=verdict, since=LONG_AGO)


@cache
def _submitted(message: Pair) -> WorkloadSubmitted:
    which, submission = message
    return WorkloadSubmitted(
        workload_id=IDS[which],
        submission=submission,
        kind=WorkloadKind.TASK,
        queue="q",
        coordinates=COORDINATES,
        spec=msgspec.Raw(b"{}"),
    )


def _older(age: int | None, limit: int) -> int | None:
    return None if age is None else min(limit, age + 1)  # older makes no difference any more


def _fenced(state: State) -> State:
    """The fork server kills everything, by itself; the agent reports that it let go, when it can."""

    def killed(lease: Lease) -> Lease:
        if lease.facts & Fact.RUNNING:
            return _with(_without(lease, Fact.RUNNING), Fact.ABANDONED)
        return lease if lease.facts & Fact.BEGUN else _with(lease, Fact.LAPSED)

    return state._replace(leases=tuple(map(killed, state.leases)))


def _acknowledged(state: State, message: Pair) -> State:
    return state._replace(messages=tuple(one for one in state.messages if one != message))


def _replaced(state: State, before: Lease, after: Lease) -> State:
    return state._replace(leases=tuple(after if one == before else one for one in state.leases))


def _with(lease: Lease, fact: int) -> Lease:
    return lease._replace(facts=lease.facts | fact)


def _without(lease: Lease, fact: int) -> Lease:
    return lease._replace(facts=lease.facts & ~fact)
