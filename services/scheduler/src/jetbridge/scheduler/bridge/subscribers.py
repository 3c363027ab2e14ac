"""How operations hang on the bus: a FastStream subscriber each, in one queue group. Imports no Airflow."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from typing import Any

import structlog
from faststream import AckPolicy
from faststream.nats import NatsMessage
from faststream.nats.subscriber.usecases.core_subscriber import CoreSubscriber

from jetbridge.bus.broker import BrokerBus
from jetbridge.bus.connection import Bus
from jetbridge.bus.kv import answered
from jetbridge.contracts.envelope import seal
from jetbridge.contracts.rpc import BRIDGE_QUEUE_GROUP, RequestSetAside
from jetbridge.contracts.subjects import event_subject
from jetbridge.scheduler.bridge.rpc import Dispatcher, Operation, Publish

log = structlog.get_logger(__name__)


def subscribe(
    bus: BrokerBus, dispatcher: Dispatcher, operations: Iterable[Operation[Any]], max_waiting: int
) -> None:
    """Subscribe each operation in the queue group of the bridges."""
    for operation in operations:
        subscriber = bus.broker.subscriber(
            operation.subject,
            queue=BRIDGE_QUEUE_GROUP,
            # Core NATS has nothing to acknowledge. Said aloud, because the default would try to reject.
            ack_policy=AckPolicy.MANUAL,
            max_workers=max_waiting,
            decoder=_undecoded,
            no_reply=True,  # see _handler
        )
        subscriber(_handler(dispatcher, operation))


def _handler(dispatcher: Dispatcher, operation: Operation[Any]) -> Any:
    async def handle(message: NatsMessage) -> None:
        raw = message.raw_message
        answer = await dispatcher.dispatch(operation, raw.data, raw.headers or {})
        # Sent from here and not returned: FastStream would answer a request that nobody waits for, too.
        if answer is not None and raw.reply:
            await raw.respond(answer)

    return handle


async def _undecoded(_message: NatsMessage) -> None:
    """Leave the body alone: FastStream would parse it as JSON and validate it, and then we would again."""


def publisher(bus: Bus) -> Publish:
    """Return the function that publishes events about requests."""

    async def publish(event: RequestSetAside) -> None:
        message_id = uuid.uuid4().hex
        await answered(
            bus.js.publish(
                event_subject(event.TYPE),
                seal(event, message_id=message_id),
                headers={"Nats-Msg-Id": message_id},
            )
        )

    return publish


async def drain(bus: BrokerBus, dispatcher: Dispatcher, limit_seconds: float) -> None:
    """Take no more requests and wait for those that have arrived."""
    for subscriber in bus.broker.subscribers:
        if isinstance(subscriber, CoreSubscriber) and subscriber.subscription is not None:
            subscription, subscriber.subscription = subscriber.subscription, None
            # FastStream's own stop() would cancel the handlers, and unsubscribe a second time.
            await subscription.drain()  # type: ignore[no-untyped-call]
    try:
        await asyncio.wait_for(dispatcher.idle(), limit_seconds)
    except TimeoutError:
        log.warning("requests left unanswered", limit_seconds=limit_seconds)
