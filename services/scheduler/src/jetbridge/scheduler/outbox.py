"""Workloads that were given to the link and that the bus has not acknowledged yet."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime

import structlog
from airflow.executors.workloads import ExecuteCallback, ExecuteTask
from airflow.models.callback import CallbackKey
from airflow.models.taskinstancekey import TaskInstanceKey
from opentelemetry.trace import Span

from jetbridge.scheduler.ports import Link
from jetbridge.scheduler.spans import begin_submit, end_submit
from jetbridge.scheduler.translate import new_workload

Workload = ExecuteTask | ExecuteCallback
Key = TaskInstanceKey | CallbackKey

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Sent:
    """One workload on its way; the future is its submission."""

    key: Key
    workload: Workload
    workload_id: str
    answer: Future[int]
    span: Span

    @property
    def submission(self) -> int | None:
        """Return the submission once acknowledged; None when the workload could not be handed over."""
        return None if self.answer.exception() else self.answer.result()


class Outbox:
    """What is on its way, by key. A workload is in it once, however often the scheduler looks."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._sent: dict[Key, Sent] = {}
        self._resumed: dict[Key, datetime] = {}

    def __len__(self) -> int:
        return len(self._sent)

    def __contains__(self, key: object) -> bool:
        return key in self._sent

    def __iter__(self) -> Iterator[Key]:
        return iter(self._sent)

    def expect_resumed(self, key: Key, queued_at: datetime) -> None:
        """Note that a dead scheduler may have begun to hand this workload over, since ``queued_at``."""
        self._resumed[key] = queued_at

    def send(self, workload: Workload) -> None:
        """Give a workload to the link; raises :class:`~translate.RefusedWorkloadError`."""
        key, new = workload.key, new_workload(workload)
        span, traceparent = begin_submit(workload, new)
        answer = self._link.submit(new, traceparent, queued_at=self._resumed.pop(key, None))
        self._sent[key] = Sent(key, workload, new.workload_id, answer, span)

    def take_answered(self) -> Iterator[Sent]:
        """Remove and return what the bus has acknowledged, and what can never be."""
        for sent in [sent for sent in self._sent.values() if sent.answer.done()]:
            del self._sent[sent.key]
            if sent.answer.cancelled():  # the link ended; the workload is still queued
                continue
            error = sent.answer.exception()
            end_submit(sent.span, error)
            if error is not None:
                # Trouble with the bus is waited out in the link, so this is about the workload itself.
                log.error("executor.hand_over_failed", workload_id=sent.workload_id, exc_info=error)
            yield sent

    def give_up(self, key: Key) -> None:
        """Stop trying. The workload may be on the bus all the same."""
        self._resumed.pop(key, None)
        if sent := self._sent.pop(key, None):
            sent.answer.cancel()
            end_submit(sent.span)
