"""
The boundary as one gateway enforces it: policies applied to requests, and every crossing counted.

A policy is looked up by queue and site. The queue of a trigger is that of the task that waits for it, so that
both halves of a deferred task are under one policy. A Dag file has tasks of many queues, and the trigger of
an asset or a callback has none: for them the site decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog

from jetbridge.bus.policies import Policies
from jetbridge.contracts import dag_processing, triggering
from jetbridge.contracts.boundary import (
    CLASSES,
    DataClass,
    Decision,
    Handling,
    advice_for,
    decide,
    opened_beyond_default,
)
from jetbridge.contracts.crossings import CROSSINGS
from jetbridge.contracts.dag_processing import ParsingResult
from jetbridge.contracts.masking import SEALED, is_sealed, mask_dag, masked_traceback
from jetbridge.contracts.messages import TaskCoordinates
from jetbridge.contracts.packing import Packed, PackingError, unpack
from jetbridge.contracts.problems import ProblemType
from jetbridge.gateway.audit import Audit
from jetbridge.gateway.problems import ProblemError
from jetbridge.gateway.screening import GATES, BodyError, Look, Outcome, RefusedError, gate, screened
from jetbridge.sealing import carried
from jetbridge.sealing.carried import Carried, Task
from jetbridge.sealing.keyring import Keyring, SealingError

log = structlog.get_logger(__name__)

_results = msgspec.json.Decoder(ParsingResult)


def _main_classes() -> dict[str, DataClass]:
    """Return what a request to each operation mainly is: the class that always crosses with it."""
    found: dict[str, DataClass] = {}
    for crossing in CROSSINGS:
        if CLASSES[crossing.data].closed is Handling.ALWAYS:
            found.setdefault(crossing.operation, crossing.data)
    return found


_MAIN = _main_classes()

_EVENTS = "POST /v1/agents/{name}/triggers/events"
_PARSED = "POST /v1/agents/{name}/bundles/parsed"
_IN_RESULTS = (
    DataClass.TASK_ARGUMENTS,
    DataClass.DAG_DOCS,
    DataClass.DAG_SOURCE,
    DataClass.EXCEPTION_TEXT,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossing:
    """One request as the boundary sees it: what it is, whose it is, and for which task."""

    operation: str
    agent: str
    site: str
    queue: str = ""
    task: TaskCoordinates | None = None
    named: Mapping[str, str] = field(default_factory=dict)


class Boundary:
    """Decides, screens and counts."""

    def __init__(
        self, policies: Policies, audit: Audit, at_rest: Keyring, reference_prefixes: Sequence[str] = ()
    ) -> None:
        self._policies = policies
        self._audit = audit
        self._at_rest = at_rest
        self._prefixes = tuple(reference_prefixes)
        self._decisions: dict[tuple[str, str], Decision] = {}
        policies.mirror.on_change(lambda _key, _record: self._decisions.clear())

    def decision(self, site: str, queue: str = "") -> Decision:
        """Return what is open for a site and a queue, now."""
        key = (queue, site)
        if (known := self._decisions.get(key)) is None:
            known = decide(lambda data: self._policies.boundary_rule(data, queue, site))
            if len(self._decisions) > 10_000:
                self._decisions.clear()
            self._decisions[key] = known
        return known

    def opened(self, site: str, queue: str = "") -> tuple[str, ...]:
        """Return the classes that policies opened, as agents are told."""
        return opened_beyond_default(self.decision(site, queue))

    def count(self, operation: str, *, agent: str, site: str, size: int, refused: bool) -> None:
        """Count one request by what it mainly is."""
        outcome = Outcome.REFUSED if refused else Outcome.CROSSED
        data = _MAIN.get(operation, DataClass.STATES)
        self._audit.note(data, outcome, agent=agent, site=site, operation=operation, size=size)

    def check_operation(self, crossing: Crossing, decision: Decision) -> None:
        """Raise :class:`RefusedError` when an operation exists for a class alone that is closed."""
        if data := gate(crossing.operation, decision):
            self._note(crossing, data, Outcome.REFUSED)
            raise RefusedError(data, "This plane does not hand it out or take it")
        if data := GATES.get(crossing.operation):
            self._note(crossing, data, Outcome.CROSSED)

    def screen(self, crossing: Crossing, decision: Decision, body: bytes) -> bytes:
        """Return the body to pass on; raises :class:`RefusedError` or the problem to answer with."""
        look = Look(
            decision=decision,
            task=_task(crossing.task),
            named=crossing.named,
            at_rest=self._at_rest,
            reference_prefixes=self._prefixes,
        )
        try:
            return screened(crossing.operation, body, look)
        except RefusedError as exc:
            look.found.append((exc.data, Outcome.REFUSED, len(body)))
            raise
        except BodyError as exc:
            raise ProblemError(ProblemType.MALFORMED, f"The request is not passed on: {exc}.") from exc
        finally:
            for data, outcome, size in look.found:
                self._note(crossing, data, outcome, size)

    def opened_start(self, answer: bytes, task: TaskCoordinates | None) -> bytes:
        """Return the answer to a task's start with what this plane sealed opened; the site's stays sealed."""
        whose = _task(task)
        if whose is None or SEALED.encode() not in answer:
            return answer
        context: dict[str, Any] = msgspec.json.decode(answer)
        if isinstance(kwargs := context.get("next_kwargs"), dict):
            try:
                context["next_kwargs"] = carried.open_next(self._at_rest, whose, kwargs)
            except SealingError as exc:
                raise ProblemError(
                    ProblemType.UNUSABLE, f"What the task carried over cannot be opened: {exc}."
                ) from exc
        return msgspec.json.encode(context)

    def opened_trigger(self, start: triggering.TriggerStart, site: str) -> triggering.TriggerStart:
        """Return a trigger with arguments this plane sealed opened, and what its agent may send."""
        queue = carried.queue_of_trigger(start.spec)
        start = msgspec.structs.replace(start, opened=self.opened(site, queue))
        if SEALED not in start.arguments:
            return start
        document = msgspec.json.decode(start.arguments)
        task = carried.task_of_trigger(start.spec)
        if task is None or not is_sealed(document) or not self._at_rest.opens(document[SEALED]):
            return start
        try:
            arguments = carried.open_(self._at_rest, task, Carried.TRIGGER_ARGUMENTS, document)
        except SealingError as exc:
            log.warning("trigger.unopened", trigger_id=start.trigger_id, reason=str(exc))
            return start
        text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
        return msgspec.structs.replace(start, arguments=text)

    def screened_events(
        self,
        events: Sequence[triggering.TriggerEvent],
        *,
        agent: str,
        site: str,
        queues: Mapping[int, str],
    ) -> tuple[triggering.TriggerEvent, ...]:
        """Return events without texts of exceptions, unless sealed or open; ``queues`` by trigger."""
        crossing = Crossing(operation=_EVENTS, agent=agent, site=site)

        def one(event: triggering.TriggerEvent) -> triggering.TriggerEvent:
            if event.event is not None:
                outcome = Outcome.SEALED if SEALED.encode() in event.event else Outcome.CROSSED
                self._note(crossing, DataClass.TRIGGER_DATA, outcome, len(event.event))
            if not event.traceback or carried.is_sealed_traceback(event.traceback):
                return event
            text = "".join(event.traceback)
            decision = self.decision(site, queues.get(event.trigger_id, ""))
            is_open = decision.is_open(DataClass.EXCEPTION_TEXT)
            masked = text if is_open else masked_traceback(text)
            if is_open:
                self._note(crossing, DataClass.EXCEPTION_TEXT, Outcome.CROSSED, len(text))
            elif masked != text:
                self._note(crossing, DataClass.EXCEPTION_TEXT, Outcome.MASKED, len(text))
            return event if masked == text else msgspec.structs.replace(event, traceback=(masked,))

        return tuple(map(one, events))

    def _note(self, crossing: Crossing, data: DataClass, outcome: Outcome, size: int = 0) -> None:
        self._audit.note(
            data, outcome, agent=crossing.agent, site=crossing.site, operation=crossing.operation, size=size
        )

    async def check_parsed(self, body: dag_processing.FileParsed, *, agent: str, site: str) -> None:
        """Raise the problem to answer with when a parsing result carries what is closed."""
        if body.result is None:
            return
        decision = self.decision(site)
        closed = await asyncio.to_thread(_closed_in, Packed(body.hash, body.result), decision)
        crossing = Crossing(operation=_PARSED, agent=agent, site=site)
        for data in closed:
            self._note(crossing, data, Outcome.REFUSED, len(body.result))
        for data in _IN_RESULTS:
            if decision.is_open(data):
                self._note(crossing, data, Outcome.CROSSED, len(body.result))
        if closed:
            raise ProblemError(
                ProblemType.BOUNDARY,
                f"The Dags of {body.path!r} carry {', '.join(closed)}. {advice_for(closed[0])}",
            )


def _task(coordinates: TaskCoordinates | None) -> Task | None:
    if coordinates is None or not coordinates.task_id:
        return None
    return Task(coordinates.dag_id, coordinates.run_id, coordinates.task_id, coordinates.map_index)


def _closed_in(packed: Packed, decision: Decision) -> list[DataClass]:
    """Return the classes that a parsing result carries and must not; one nobody can read carries none."""
    try:
        text = unpack(packed)
        result = _results.decode(text)
    except (PackingError, msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return []  # the bridge refuses it, and says why
    found = [
        data
        for data in (DataClass.TASK_ARGUMENTS, DataClass.DAG_DOCS)
        if not decision.is_open(data) and _is_changed_by_masking(text, result, data)
    ]
    errors = result.import_errors.values()
    if not decision.is_open(DataClass.EXCEPTION_TEXT) and any(masked_traceback(one) != one for one in errors):
        found.append(DataClass.EXCEPTION_TEXT)
    if not decision.is_open(DataClass.DAG_SOURCE) and result.source is not None:
        found.append(DataClass.DAG_SOURCE)
    return found


def _is_changed_by_masking(text: bytes, result: ParsingResult, data: DataClass) -> bool:
    masked = _results.decode(text)
    try:
        for dag in masked.dags:
            mask_dag(dag.data, Decision(open=frozenset(DataClass) - {data}))
    except RecursionError:  # nested as no Dag is; what cannot be looked through does not cross
        return True
    return [dag.data for dag in masked.dags] != [dag.data for dag in result.dags]
