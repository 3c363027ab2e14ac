"""
The runner's supervisor: Airflow's ``TriggerRunnerSupervisor`` with the gateway in place of the database.

For Airflow 3.3, at the hooks made for this (AIP-92). Beyond them:

* ``handle_events`` is overridden whole, because Airflow confirms events to the runner as soon as
  ``on_trigger_event`` returns; here they are stored when the plane has acknowledged them.
* Requests of triggers are served in threads. Airflow serves them in the loop that does everything else, which
  costs little with a database at hand and seconds when a gateway is away.

``tests/unit/triggerer/test_supervisor_hooks.py`` fails when Airflow changes what this relies on.
"""

from __future__ import annotations

import selectors
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from socket import socket
from typing import Any

import attrs
import msgspec
import structlog
from airflow._shared.observability.metrics import stats
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.jobs.triggerer_job_runner import TriggerEventEntry, TriggerRunnerSupervisor, messages
from airflow.sdk.api.client import Client
from airflow.sdk.execution_time.comms import _RequestFrame
from airflow.triggers.base import BaseTaskEndEvent

from jetbridge.agent.child_selector import ChildAwareSelector
from jetbridge.contracts.triggering import MAX_EVENT_BYTES, TriggerPollResponse, TriggerStart
from jetbridge.sealing.keyring import SiteKeys
from jetbridge.triggerer import runner, site
from jetbridge.triggerer.end_events import store_xcoms
from jetbridge.triggerer.exchange import Exchange
from jetbridge.triggerer.execution_client import lease_token, make_client
from jetbridge.triggerer.trigger_logs import TriggerLog, is_safe
from jetbridge.triggerer.wire import AWAIT_NEWS, TRIGGER_FIELD
from jetbridge.triggerer.workloads import workload_of

log = structlog.get_logger(__name__)

_IN_THE_LOOP = frozenset({"TriggerStateChanges", "MaskSecret"})
"""Messages that need nothing from elsewhere."""


@attrs.define
class Held:
    """What the supervisor knows of a trigger it was given."""

    token: str
    task_instance: TaskInstanceDTO | None
    opened: tuple[str, ...] = ()
    fired: bool = False


@attrs.define(kw_only=True)
class Supervisor(TriggerRunnerSupervisor):
    """Runs what the plane wants run, and tells the plane what became of it."""

    agent: str
    server: str
    exchange: Exchange = attrs.field(repr=False)
    requests: ThreadPoolExecutor = attrs.field(repr=False)
    uploads: ThreadPoolExecutor = attrs.field(repr=False)
    site_keys: SiteKeys | None = attrs.field(default=None, repr=False)
    selector: selectors.BaseSelector = attrs.field(factory=ChildAwareSelector, repr=False)

    silent_runner: bool = attrs.field(init=False, default=False)
    _held: dict[int, Held] = attrs.field(init=False, factory=dict, repr=False)
    _finished: list[int] = attrs.field(init=False, factory=list, repr=False)
    _releasing: set[int] = attrs.field(init=False, factory=set, repr=False)
    _has_news: bool = attrs.field(init=False, default=False)
    _waiting_for_news: int | None = attrs.field(init=False, default=None)
    _sending: threading.Lock = attrs.field(init=False, factory=threading.Lock, repr=False)

    # -- Airflow's hooks

    @classmethod
    def run_in_process(cls) -> None:
        """Be the runner; called in the forked process."""
        runner.run_in_process()

    def make_client(self) -> Client:
        """Return the client through which triggers reach Airflow."""
        return make_client(self.server)

    def should_stop(self) -> bool:
        """End the loop when the agent has to stop, or the runner does not answer any more."""
        return bool(super().should_stop() or self.exchange.stopping or self.silent_runner)

    def load_triggers(self) -> None:
        """Take over what the plane wants changed."""
        for news in self.exchange.news():
            self._begin(news)
            self._end(news)
        if persisted := self.exchange.newly_persisted():
            self.persisted_event_seqs.extend(persisted)
            self._has_news = True
        self._answer_waiting()

    def handle_events(self) -> None:
        """Pass on what triggers fired; the network's thread delivers it."""
        while self.events:
            entry = self.events.popleft()
            held = self._held.get(entry.trigger_id)
            if held is None:  # the runner fires nothing after it has said that a trigger finished
                log.error("event of an unknown trigger dropped", trigger_id=entry.trigger_id)
                continue
            held.fired = True
            if isinstance(entry.event, BaseTaskEndEvent) and entry.event.xcoms:
                self.exchange.outbox.reserve(entry.trigger_id)
                self.requests.submit(self._store_and_pass_on, entry, held)
            else:
                self._pass_on(entry, held)
            stats.incr("triggers.succeeded")

    def on_trigger_failure(self, trigger_id: int, exc: list[str] | None) -> None:
        """Pass on that a trigger failed."""
        held = self._held.get(trigger_id)
        ti, opened = (held.task_instance, held.opened) if held else (None, ())
        lines = site.failure_lines(self.site_keys, ti, opened, exc)
        self.exchange.outbox.put_failure(trigger_id, lines)

    def clean_unused(self) -> None:
        """Leave it to the plane."""

    def heartbeat(self) -> None:
        """Notice a runner that is stuck. The agent's sign of life is the network's thread's to give."""
        self.exchange.came_round()
        silent = time.monotonic() - self._last_runner_comms
        if 0 < self.runner_health_check_threshold < silent:
            log.error(
                "the runner does not answer; is a trigger blocking its loop?", silent_seconds=round(silent)
            )
            self.silent_runner = True

    def metric_tags(self) -> dict[str, str]:
        """Name the agent in Airflow's metrics."""
        return {"hostname": self.agent}

    def run_once(self) -> None:
        """Go round once. What has finished is forgotten last, when all it fired is in the outbox."""
        super().run_once()
        finished, self._finished = self._finished, []
        for trigger_id in finished:
            self._held.pop(trigger_id, None)
        self.exchange.finished(finished)

    # -- for the composition root

    def listen_to_exchange(self) -> None:
        """Have the loop wake up for what the network's thread leaves."""

        def awake(_socket: socket) -> bool:
            self.exchange.awake()
            return True

        self.selector.register(self.exchange.waker, selectors.EVENT_READ, (awake, lambda _socket: None))
        # A runner whose loop is blocked does not read; without a limit this loop would wait for it for ever.
        self.stdin.settimeout(self.runner_health_check_threshold or None)

    def pass_on_what_is_left(self) -> None:
        """Pass on what the runner said last, after it has ended."""
        self.handle_events()
        self.handle_failed_triggers()  # type: ignore[no-untyped-call]  # Airflow's

    def close_logs(self, seconds: float) -> None:
        """Upload the logs of triggers that were running, and wait for all uploads for at most ``seconds``."""
        while self.logger_cache:
            self.logger_cache.popitem()[1].close()  # type: ignore[no-untyped-call]  # Airflow's
        ended = threading.Thread(target=self.uploads.shutdown, name="end of uploads", daemon=True)
        ended.start()
        ended.join(seconds)
        if ended.is_alive():
            log.warning("not all logs of triggers were uploaded; they are still on this agent's disk")
        self.uploads.shutdown(wait=False, cancel_futures=True)

    # -- messages of the runner

    def handle_requests(self, log: Any) -> Generator[None, _RequestFrame, None]:
        """Serve each message where it belongs: here, in a thread, or later."""
        in_the_loop = super().handle_requests(log)
        next(in_the_loop)
        while True:
            request = yield
            body = request.body or {}
            trigger_id = body.pop(TRIGGER_FIELD, None)
            if body.get("type") == AWAIT_NEWS:
                self._last_runner_comms = time.monotonic()
                self._waiting_for_news = request.id
            elif body.get("type") in _IN_THE_LOOP:
                in_the_loop.send(request)
            else:
                self.requests.submit(self._serve, request, trigger_id, log)

    def send_msg(self, *args: Any, **kwargs: Any) -> None:
        """Send to the runner, one thread at a time."""
        try:
            with self._sending:
                super().send_msg(*args, **kwargs)
        except TimeoutError:  # half a message may be on its way: nothing more can be said to this runner
            log.error("the runner does not read; is a trigger blocking its loop?")  # noqa: TRY400 - see there
            self.silent_runner = True

    def _handle_request(self, msg: Any, log: Any, req_id: int) -> None:
        super()._handle_request(msg, log, req_id)
        if isinstance(msg, messages.TriggerStateChanges):
            self._finished.extend(msg.finished or ())

    def _serve(self, request: _RequestFrame, trigger_id: int | None, log: Any) -> None:
        """Serve one request of a trigger in this thread, with that trigger's lease."""
        held = self._held.get(trigger_id) if trigger_id is not None else None
        lease_token.set(held.token if held else "")
        one = super().handle_requests(log)
        next(one)
        one.send(request)

    # -- changes

    def _begin(self, news: TriggerPollResponse) -> None:
        for start in news.start:
            try:
                workload = workload_of(start, site.opened_arguments(self.site_keys, start))
            except Exception as error:  # of another Airflow, or an envelope of another site
                log.exception("trigger cannot be read", trigger_id=start.trigger_id)
                # The type in front: it is what a closed boundary leaves of it.
                why = f"{type(error).__name__}: this triggerer cannot read the trigger: {error}"
                self.on_trigger_failure(start.trigger_id, [why])
                self._finished.append(start.trigger_id)
                continue
            self._held[start.trigger_id] = Held(start.token, workload.ti, start.opened)
            self._open_log(start, workload.ti)
            self.creating_triggers.append(workload)
            self._has_news = True

    def _open_log(self, start: TriggerStart, ti: TaskInstanceDTO | None) -> None:
        if ti is not None and is_safe(start.log_path):
            self.logger_cache[start.trigger_id] = TriggerLog(
                log_path=start.log_path,
                ti=ti,  # type: ignore[arg-type]  # as Airflow does
                uploads=self.uploads,
            )

    def _end(self, news: TriggerPollResponse) -> None:
        """
        Have triggers end.

        One that has fired is over and not killed by anybody, so it is released rather than cancelled: Airflow
        calls ``on_kill`` of what is cancelled.
        """
        over = {trigger_id for trigger_id in news.cancel if self._has_fired(trigger_id)}
        release, cancel = set(news.release) | over, set(news.cancel) - over
        self._withdraw(release | cancel)
        self._has_news |= not cancel <= self.cancelling_triggers
        self.cancelling_triggers |= cancel & self.running_triggers
        self._releasing |= release & self.running_triggers
        self._has_news |= bool(self._releasing)

    def _has_fired(self, trigger_id: int) -> bool:
        held = self._held.get(trigger_id)
        return held is not None and held.fired

    def _withdraw(self, trigger_ids: set[int]) -> None:
        """Drop those that the runner was not told to begin yet."""
        never_began = [one for one in self.creating_triggers if one.id in trigger_ids]
        for workload in never_began:
            self.creating_triggers.remove(workload)
            self._finished.append(workload.id)

    def _answer_waiting(self) -> None:
        if not self._has_news or self._waiting_for_news is None:
            return
        request_id, self._waiting_for_news = self._waiting_for_news, None
        releasing, self._releasing, self._has_news = self._releasing, set(), False
        answer = messages.TriggerStateSync(to_create=[], to_cancel=releasing)
        self.send_msg(answer, request_id=request_id)

    # -- what triggers fired

    def _store_and_pass_on(self, entry: TriggerEventEntry, held: Held) -> None:
        """Store XCom values where the site keeps them; what the plane gets says only how the task ended."""
        try:
            lease_token.set(held.token)
            store_xcoms(self.client, held.task_instance, entry.event)
        except Exception as error:
            log.exception("XCom values of a trigger cannot be stored", trigger_id=entry.trigger_id)
            why = f"{type(error).__name__}: the XCom values of the trigger's event cannot be stored: {error}"
            self.on_trigger_failure(entry.trigger_id, [why])
        else:
            self._pass_on(entry, held)
        finally:
            self.exchange.outbox.unreserve(entry.trigger_id)

    def _pass_on(self, entry: TriggerEventEntry, held: Held) -> None:
        outbox = self.exchange.outbox
        try:
            event = msgspec.msgpack.encode(site.event_fields(self.site_keys, held.task_instance, entry.event))
        except Exception as error:  # of whatever somebody put into a payload
            log.exception("event cannot be sent", trigger_id=entry.trigger_id)
            self.on_trigger_failure(
                entry.trigger_id, [f"{type(error).__name__}: the trigger's event cannot be sent: {error}"]
            )
            return
        if len(event) > MAX_EVENT_BYTES:
            why = (
                f"ValueError: the trigger's event has {len(event)} bytes; "
                f"at most {MAX_EVENT_BYTES} can be delivered"
            )
            log.error("event too large", trigger_id=entry.trigger_id, bytes=len(event))
            self.on_trigger_failure(entry.trigger_id, [why])
        elif held.task_instance is None and not outbox.has_room():
            log.error("event dropped: too many wait for the plane", trigger_id=entry.trigger_id)
        else:
            outbox.put_event(entry.trigger_id, event, entry.persist_seq)
