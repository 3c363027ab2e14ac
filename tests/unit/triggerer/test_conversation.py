"""What a triggerer says, to a gateway that loses answers, takes it for lost and refuses."""

import asyncio

import msgspec
import pytest

from jetbridge.agent.errors import AgentReplacedError, LeaseLostError, RequestRefusedError
from jetbridge.contracts.triggering import (
    AttachResponse,
    SetAside,
    TriggerEventsResponse,
    TriggerPollResponse,
    TriggerStart,
)
from jetbridge.triggerer import conversation as module
from jetbridge.triggerer.conversation import Conversation
from jetbridge.triggerer.exchange import Exchange


class FakeSession:
    """The calls of ``TriggererSession``; numbers triggerers and keeps what was said."""

    def __init__(self):
        self.number = 0
        self.said = []
        self.answers = asyncio.Queue()
        self.events_answer = lambda body: TriggerEventsResponse(taken=body.events[-1].sequence)
        self.detached = []

    async def attach(self):
        self.number += 1
        return AttachResponse(triggerer=self.number, lost_after_seconds=6, poll_wait_seconds=1)

    async def poll_triggers(self, body):
        self.said.append(body)
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def post_events(self, body):
        self.said.append(body)
        return self.events_answer(body)

    async def detach(self, number):
        self.detached.append(number)


@pytest.fixture
def session():
    return FakeSession()


@pytest.fixture
def exchange():
    exchange = Exchange()
    yield exchange
    exchange.close()


@pytest.fixture
async def conversation(session, exchange):
    return Conversation(session, exchange)


async def run_until(work, condition):
    task = asyncio.create_task(work)
    async with asyncio.timeout(20):
        while not condition() and not task.done():
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()


def start(trigger_id):
    return TriggerStart(trigger_id=trigger_id, spec=msgspec.Raw(b"{}"), arguments="{}")


async def test_each_poll_says_what_runs_by_then(conversation, session):
    session.answers.put_nowait(TriggerPollResponse(start=(start(4),)))
    await run_until(conversation.poll(), lambda: len(session.said) == 2)
    assert [(one.triggerer, one.running) for one in session.said] == [(1, ()), (1, (4,))]
    assert session.said[0].wait_seconds == 1


async def test_who_was_taken_for_lost_begins_anew_and_keeps_what_runs(conversation, session):
    session.answers.put_nowait(TriggerPollResponse(start=(start(4),)))
    session.answers.put_nowait(LeaseLostError("410"))
    await run_until(conversation.poll(), lambda: len(session.said) == 3)
    assert [(one.triggerer, one.running) for one in session.said] == [(1, ()), (1, (4,)), (2, (4,))]


async def test_an_answer_without_anything_new_is_not_asked_for_again_at_once(
    conversation, session, monkeypatch
):
    pauses = []

    async def pause(seconds):
        pauses.append(seconds)

    monkeypatch.setattr(module.asyncio, "sleep", pause)
    session.answers.put_nowait(TriggerPollResponse(cancel=(9,)))
    task = asyncio.create_task(conversation.poll())
    async with asyncio.timeout(20):
        while len(session.said) < 2:
            await asyncio.wait({asyncio.create_task(asyncio.to_thread(int))})
    task.cancel()
    await asyncio.wait({task})
    assert pauses == [module.SHORTEST_POLL_SECONDS]


async def test_events_are_delivered_and_the_runner_hears_of_it(conversation, session, exchange):
    exchange.outbox.put_event(4, b"e", persist_seq=11)
    exchange.outbox.put_failure(5, ["why"])
    await run_until(conversation.deliver(), lambda: not len(exchange.outbox))
    (body,) = session.said
    assert [(one.sequence, one.trigger_id) for one in body.events] == [(1, 4), (2, 5)]
    assert exchange.newly_persisted() == [11]


async def test_events_of_a_lost_triggerer_are_delivered_under_its_new_number(conversation, session, exchange):
    def lost_once(body):
        if body.triggerer == 1:
            raise LeaseLostError("410")
        return TriggerEventsResponse(taken=body.events[-1].sequence)

    session.events_answer = lost_once
    exchange.outbox.put_event(4, b"e")
    await run_until(conversation.deliver(), lambda: not len(exchange.outbox))
    assert [(one.triggerer, one.events[0].sequence) for one in session.said] == [(1, 1), (2, 1)]


async def test_an_event_that_is_refused_is_dropped_alone(conversation, session, exchange):
    def refuse_two(body):
        if any(event.trigger_id == 2 for event in body.events):
            raise RequestRefusedError("malformed")
        return TriggerEventsResponse(taken=body.events[-1].sequence)

    session.events_answer = refuse_two
    for trigger in (1, 2, 3):
        exchange.outbox.put_event(trigger, b"e", persist_seq=trigger)
    await run_until(conversation.deliver(), lambda: not len(exchange.outbox))
    delivered = [[event.trigger_id for event in body.events] for body in session.said]
    assert delivered == [[1, 2, 3], [1], [2], [3]]
    assert exchange.newly_persisted() == [1, 3]  # a broker redelivers what was dropped


async def test_an_event_set_aside_is_done_with(conversation, session, exchange):
    session.events_answer = lambda _: TriggerEventsResponse(
        taken=1, set_aside=(SetAside(sequence=1, reason="gone"),)
    )
    exchange.outbox.put_event(1, b"e")
    await run_until(conversation.deliver(), lambda: not len(exchange.outbox))
    assert len(session.said) == 1


async def test_a_refusal_of_the_agent_itself_ends_it(conversation, session, exchange):
    def replaced(_):
        raise AgentReplacedError("409")

    session.events_answer = replaced
    exchange.outbox.put_event(1, b"e")
    with pytest.raises(AgentReplacedError):
        await run_until(conversation.deliver(), lambda: False)
    assert len(exchange.outbox) == 1


async def test_the_end_waits_for_events_and_then_says_goodbye(conversation, session, exchange):
    delivering = asyncio.create_task(conversation.deliver())
    exchange.outbox.put_event(1, b"e")
    async with asyncio.timeout(20):
        await conversation.end(10)
    assert (len(exchange.outbox), session.detached) == (0, [1])
    delivering.cancel()


async def test_who_never_began_has_nothing_to_end(conversation, session):
    await conversation.end(0)
    assert session.detached == []


async def test_a_stuck_supervisor_makes_its_agent_silent(conversation, session, exchange, monkeypatch):
    silent = [100.0, 100.0, 0.0]
    monkeypatch.setattr(exchange, "silent_seconds", lambda: silent.pop(0) if silent else 0.0)
    pauses = []

    async def pause(seconds):
        pauses.append((seconds, list(session.said)))

    monkeypatch.setattr(module.asyncio, "sleep", pause)
    task = asyncio.create_task(conversation.poll())
    async with asyncio.timeout(20):
        while not session.said:
            await asyncio.wait({asyncio.create_task(asyncio.to_thread(int))})
    task.cancel()
    await asyncio.wait({task})
    assert pauses == [(1.0, [])]
