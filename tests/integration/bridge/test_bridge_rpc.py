"""Request and reply with a bridge over a real NATS server: each request is answered, none harms the next."""

import asyncio
from typing import ClassVar

import pytest
from sqlalchemy.exc import OperationalError

from jetbridge.bus.errors import BusUnavailableError
from jetbridge.bus.rpc import RpcRefusedError
from jetbridge.contracts.envelope import Body, open_envelope, read_body, seal
from jetbridge.contracts.rpc import (
    AGENT_HEADER,
    MAX_INLINE_BYTES,
    MAX_RPC_BYTES,
    RPC_OBJECTS_BUCKET,
    TIMEOUT_HEADER,
    ByReference,
    RefusalCode,
    Refused,
    RequestSetAside,
)
from jetbridge.scheduler.bridge.errors import RefusedError
from jetbridge.scheduler.bridge.rpc import Operation


class Question(Body, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "test.question"

    text: str


class Answer(Body, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "test.answer"

    text: str
    by: str = ""


ASK = {"agent": "site-a", "timeout_seconds": 20}


def echo(subject, by=""):
    async def handle(question):
        return Answer(text=question.text, by=by)

    return Operation(subject, Question, handle)


def failing(subject, error):
    async def handle(question):
        if question.text == "bad":
            raise error
        return Answer(text=question.text)

    return Operation(subject, Question, handle)


def counted(metrics, subject, outcome):
    return metrics.registry.get_sample_value(
        "jetbridge_bridge_handled_requests_total", {"operation": subject, "outcome": outcome}
    )


async def objects_left(bus):
    info = await bus.js.stream_info(
        f"OBJ_{RPC_OBJECTS_BUCKET}", subjects_filter=f"$O.{RPC_OBJECTS_BUCKET}.C.>"
    )
    return dict(info.state.subjects or {})


async def test_an_answer_comes_back(client, serving, subject):
    async with serving(echo(subject)) as metrics:
        answer = await client.ask(subject, Question(text="hello"), Answer, **ASK)
    assert answer.text == "hello"
    assert counted(metrics, subject, "done") == 1


async def test_what_is_too_large_for_a_message_goes_both_ways_by_reference(client, serving, subject, bus):
    text = "x" * (5 * MAX_INLINE_BYTES)
    async with serving(echo(subject)):
        answer = await client.ask(subject, Question(text=text), Answer, **ASK)
    assert answer.text == text
    assert await objects_left(bus) == {}


async def test_what_is_larger_than_anything_is_refused_before_it_is_sent(client, serving, subject):
    async with serving(echo(subject)):
        with pytest.raises(RpcRefusedError) as caught:
            await client.ask(subject, Question(text="x" * MAX_RPC_BYTES), Answer, **ASK)
    assert caught.value.code is RefusalCode.TOO_LARGE


async def test_without_a_bridge_the_requester_knows_at_once(client, subject):
    with pytest.raises(BusUnavailableError, match="no bridge runs"):
        await client.ask(subject, Question(text="hello"), Answer, agent="site-a", timeout_seconds=3600)


async def test_each_request_goes_to_one_of_several_bridges(client, serving, subject):
    async with serving(echo(subject, by="one")), serving(echo(subject, by="two")):
        answers = [await client.ask(subject, Question(text="?"), Answer, **ASK) for _ in range(60)]
    assert {answer.by for answer in answers} == {"one", "two"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RefusedError(RefusalCode.UNUSABLE, "cannot be written"), RefusalCode.UNUSABLE),
        (RefusedError(RefusalCode.NOT_FOUND, "no such bundle"), RefusalCode.NOT_FOUND),
        (OperationalError("select 1", {}, Exception("refused")), RefusalCode.UNAVAILABLE),
        (KeyError("a mistake of ours"), RefusalCode.INTERNAL),
    ],
    ids=lambda value: getattr(value, "value", type(value).__name__),
)
async def test_a_request_that_fails_is_answered_and_the_next_one_handled(
    client, serving, subject, error, code
):
    async with serving(failing(subject, error)) as metrics:
        with pytest.raises(RpcRefusedError) as caught:
            await client.ask(subject, Question(text="bad"), Answer, **ASK)
        assert (await client.ask(subject, Question(text="good"), Answer, **ASK)).text == "good"
    assert caught.value.code is code
    assert counted(metrics, subject, code.value) == 1
    assert counted(metrics, subject, "done") == 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff\xfe no envelope", RefusalCode.MALFORMED),
        (b"", RefusalCode.MALFORMED),
        (seal(Question(text="?")).replace(b'"text"', b'"toast"'), RefusalCode.MALFORMED),
        (seal(Question(text="?")).replace(b'"version":1', b'"version":9'), RefusalCode.UNKNOWN_MESSAGE),
        (seal(ByReference(object="gone", size=9)), RefusalCode.MALFORMED),
    ],
    ids=["bytes", "nothing", "body", "version", "reference"],
)
async def test_what_cannot_be_read_is_answered_with_the_reason_counted_and_published(
    bus, serving, subject, data, code
):
    events = await bus.js.subscribe("event.bridge.request-set-aside", ordered_consumer=True)
    async with serving(echo(subject)) as metrics:
        message = await bus.client.request(subject, data, timeout=20, headers={AGENT_HEADER: "site-a"})
    refused = read_body(open_envelope(message.data), Refused)
    assert refused.code == code.value
    assert counted(metrics, subject, code.value) == 1
    async with asyncio.timeout(20):
        event = None
        while event is None or event.subject != subject:
            event = read_body(open_envelope((await events.next_msg(20)).data), RequestSetAside)
    assert (event.agent, event.code) == ("site-a", code.value)
    await events.unsubscribe()


async def test_a_request_nobody_waits_for_any_more_is_dropped(bus, serving, subject):
    release, begun = asyncio.Event(), asyncio.Event()
    handled = []

    async def handle(question):
        handled.append(question.text)
        begun.set()
        await release.wait()
        return Answer(text=question.text)

    async with serving(Operation(subject, Question, handle), threads=1) as metrics:
        first = asyncio.create_task(bus.client.request(subject, seal(Question(text="first")), timeout=20))
        await begun.wait()
        inbox = bus.client.new_inbox()
        answers = await bus.client.subscribe(inbox)
        late = {TIMEOUT_HEADER: "0.000001"}  # less than a turn of the loop
        await bus.client.publish(subject, seal(Question(text="late")), reply=inbox, headers=late)
        async with asyncio.timeout(20):
            while metrics.registry.get_sample_value("jetbridge_bridge_waiting_requests") != 2:
                await asyncio.sleep(0.01)
        release.set()
        await first
    assert handled == ["first"]
    assert counted(metrics, subject, "late") == 1
    assert answers.pending_msgs == 0


async def test_stopping_answers_what_has_arrived(bus, serving, subject):
    begun = asyncio.Event()

    async def handle(question):
        begun.set()
        await asyncio.sleep(0.2)
        return Answer(text=question.text)

    async with serving(Operation(subject, Question, handle)):
        request = asyncio.create_task(bus.client.request(subject, seal(Question(text="?")), timeout=20))
        await begun.wait()
    assert read_body(open_envelope((await request).data), Answer).text == "?"
