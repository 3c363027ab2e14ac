"""
What the runner changes in Airflow 3.3, each beside what Airflow does.

When the Airflow half of a test fails, Airflow has changed: perhaps the runner needs one trick less.
"""

import asyncio
import inspect
from collections import deque
from types import SimpleNamespace

import msgspec
import pytest
import structlog
from airflow.executors.workloads.trigger import RunTrigger
from airflow.jobs.triggerer_job_runner import (
    TriggerCommsDecoder,
    TriggerEventEntry,
    TriggerRunner,
    messages,
)
from airflow.models.trigger import Trigger
from airflow.sdk.execution_time.comms import GetVariable, _RequestFrame
from airflow.triggers.base import BaseTrigger, TriggerEvent

from jetbridge.triggerer.runner import ContextualExecutor, LabellingComms, Remembering, Runner
from jetbridge.triggerer.wire import TRIGGER_FIELD, Labelled


class Waiting(BaseTrigger):
    """Waits for ever; remembers how it was ended."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def serialize(self):
        return "t.Waiting", {}

    async def run(self):
        await asyncio.Event().wait()
        yield TriggerEvent(None)

    async def on_kill(self):
        self.heard.append("on_kill began")
        await asyncio.sleep(0.05)
        self.heard.append("on_kill ended")

    async def cleanup(self):
        self.heard.append("cleanup")


class Impossible(BaseTrigger):
    def __init__(self):
        raise RuntimeError("no")

    def serialize(self):
        return "t.Impossible", {}

    async def run(self):
        yield


def workload(trigger_id, classpath="t.Waiting"):
    return RunTrigger(id=trigger_id, classpath=classpath, encrypted_kwargs=Trigger.encrypt_kwargs({}))


@pytest.fixture(params=[TriggerRunner, Runner], ids=["airflow", "ours"])
def runner(request):
    runner = request.param()
    runner.trigger_cache = {"t.Impossible": Impossible, "t.Waiting": Waiting}
    return runner


def is_ours(runner):
    return isinstance(runner, Runner)


async def started(runner, *trigger_ids):
    instances = {}
    original = runner.run_trigger

    async def remember(trigger_id, trigger, *args):
        instances[trigger_id] = trigger
        return await original(trigger_id, trigger, *args)

    runner.run_trigger = remember
    runner.to_create.extend(map(workload, trigger_ids))
    await runner.create_triggers()
    async with asyncio.timeout(20):
        while len(instances) < len(trigger_ids):
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)  # into their wait
    return instances


async def ended(runner, trigger_id):
    await asyncio.wait({runner.triggers[trigger_id]["task"]}, timeout=20)


async def test_a_trigger_that_cannot_be_made(runner):
    runner.to_create.extend([workload(1, "t.Impossible"), workload(2)])
    if not is_ours(runner):
        with pytest.raises(RuntimeError):
            await runner.create_triggers()
        return
    await runner.create_triggers()
    assert [(trigger_id, str(error)) for trigger_id, error in runner.failed_triggers] == [(1, "no")]
    assert list(runner.triggers) == [2]
    assert runner.process_trigger_events([]).finished == [1]
    runner.triggers[2]["task"].cancel()


async def test_a_trigger_that_is_cancelled_again_before_it_has_ended(runner):
    (trigger,) = (await started(runner, 1)).values()
    for _ in range(3):  # each state sync of the supervisor says it again
        runner.to_cancel.append(1)
        await runner.cancel_triggers()
        await asyncio.sleep(0.01)
    await ended(runner, 1)
    whole = ["on_kill began", "on_kill ended", "cleanup"]
    assert trigger.heard == (whole if is_ours(runner) else ["on_kill began", "cleanup"])


async def test_a_released_trigger_is_cleaned_up_and_not_killed():
    runner = Runner()
    runner.trigger_cache = {"t.Waiting": Waiting}
    (trigger,) = (await started(runner, 1)).values()
    runner.release([1, 99])
    runner.release([1])
    await ended(runner, 1)
    assert trigger.heard == ["cleanup"]


async def test_an_event_is_announced_when_it_is_fired():
    runner = Runner()
    assert not runner._something.is_set()
    runner.events.append(TriggerEventEntry(1, TriggerEvent("e"), None))
    assert runner._something.is_set()
    assert len(runner.events) == 1


class Odd:
    """Nothing that can be sent."""


@pytest.mark.parametrize("payload", [2**70, "\udc80", Odd()], ids=["integer", "surrogate", "object"])
async def test_an_event_that_cannot_be_sent(runner, payload):
    sent = []

    async def send(message):
        sent.append(message)
        _RequestFrame(id=1, body=message.model_dump()).as_bytes()
        return messages.TriggerStateSync(to_create=[], to_cancel=set())

    runner.comms_decoder = SimpleNamespace(asend=send)
    runner.events.append(TriggerEventEntry(1, TriggerEvent(payload), None))
    runner.events.append(TriggerEventEntry(2, TriggerEvent("fine"), None))
    if not is_ours(runner) and not isinstance(payload, Odd):
        with pytest.raises((OverflowError, UnicodeEncodeError)):
            await runner.sync_state_to_supervisor([])
        return
    await runner.sync_state_to_supervisor([])
    assert [entry.trigger_id for entry in sent[-1].events] == [2]
    if is_ours(runner):
        assert [trigger_id for trigger_id, _ in sent[-1].failures] == [1]


async def test_a_traceback_can_always_be_sent():
    runner = Runner()
    runner.failed_triggers.append((1, ValueError("\udc80")))
    message = runner.process_trigger_events([])
    assert "\\udc80" in "".join(message.failures[0][1])
    assert _RequestFrame(id=1, body=message.model_dump()).as_bytes()


def test_airflows_loop_still_waits_a_second_between_two_reports():
    # If this fails, the side task that reports at once may not be needed any more.
    source = inspect.getsource(TriggerRunner.arun)
    assert "move_on_after(1)" in source
    assert "await self.init_comms()" in source


def test_a_remembering_queue_knows_what_was_taken_last():
    queue = Remembering([1, 2])
    queue.popleft()
    assert (queue.last, list(queue)) == (1, [2])


class Socketless:
    """Collects what comms would write."""

    def __init__(self):
        self.written = []

    def write(self, data):
        self.written.append(msgspec.msgpack.decode(bytes(data)[4:]))


@pytest.fixture
def comms():
    return lambda kind: kind(async_writer=Socketless(), async_reader=SimpleNamespace(), socket=None)


async def send(comms, from_trigger=None):
    """Send a request in the task of a trigger, and from a thread that it starts; return the bodies."""
    comms._loop, comms._loop_thread_id = asyncio.get_running_loop(), 0
    comms._loop.set_default_executor(ContextualExecutor(2))

    async def in_trigger():
        if from_trigger:
            structlog.contextvars.bind_contextvars(trigger_id=from_trigger)
        asking = [
            asyncio.ensure_future(comms.asend(GetVariable(key="a"))),
            asyncio.ensure_future(asyncio.to_thread(comms.send, GetVariable(key="b"))),
            comms._loop.run_in_executor(None, comms.send, GetVariable(key="c")),
        ]
        async with asyncio.timeout(20):
            while len(comms._pending) < 3:
                await asyncio.sleep(0.001)
        for future in list(comms._pending.values()):
            future.set_result(SimpleNamespace(error=None, body=None))
        await asyncio.gather(*asking)

    await asyncio.create_task(in_trigger())
    return {body["key"]: body.get(TRIGGER_FIELD, "no label") for _, body, *_ in comms._async_writer.written}


async def test_requests_say_which_trigger_they_are_from_wherever_they_are_made(comms):
    assert await send(comms(LabellingComms), from_trigger=7) == {"a": 7, "b": 7, "c": 7}
    assert await send(comms(LabellingComms)) == {"a": None, "b": None, "c": None}
    assert set((await send(comms(TriggerCommsDecoder), from_trigger=7)).values()) == {"no label"}


def test_a_labelled_message_is_read_by_airflow_as_if_it_were_not():
    body = Labelled(messages.TriggerStateChanges(finished=[1])).model_dump()
    assert messages.TriggerStateChanges.model_validate(body).finished == [1]


def test_the_queues_of_airflow_are_still_what_ours_replace():
    stock = TriggerRunner()
    assert type(stock.events) is type(stock.to_create) is deque
