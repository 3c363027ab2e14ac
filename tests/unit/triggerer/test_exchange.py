"""What two threads leave for each other."""

import select

import msgspec
import pytest

from jetbridge.contracts.triggering import TriggerPollResponse, TriggerStart
from jetbridge.triggerer.exchange import Exchange


def start(trigger_id):
    return TriggerStart(trigger_id=trigger_id, spec=msgspec.Raw(b"{}"), arguments="{}")


def is_awake(exchange):
    return bool(select.select([exchange.waker], [], [], 0)[0])


@pytest.fixture
def exchange():
    exchange = Exchange()
    yield exchange
    exchange.close()


def test_a_trigger_is_started_once_however_often_it_is_offered(exchange):
    assert exchange.tell(TriggerPollResponse(start=(start(1), start(2))))
    assert not exchange.tell(TriggerPollResponse(start=(start(2),)))
    (news,) = exchange.news()
    assert [one.trigger_id for one in news.start] == [1, 2]
    assert exchange.news() == []


def test_a_trigger_runs_from_its_arrival_until_it_finished_and_its_events_were_taken(exchange):
    exchange.tell(TriggerPollResponse(start=(start(1), start(2))))
    assert exchange.running() == (1, 2)
    exchange.outbox.put_event(1, b"e")
    exchange.finished([1])
    assert exchange.running() == (1, 2)
    exchange.outbox.acknowledged(1)
    assert exchange.running() == (2,)
    assert exchange.tell(TriggerPollResponse(start=(start(1),)))


def test_only_news_about_its_own_triggers_is_news(exchange):
    assert not exchange.tell(TriggerPollResponse(cancel=(5,), release=(6,)))
    assert exchange.news() == []
    exchange.tell(TriggerPollResponse(start=(start(5),)))
    exchange.tell(TriggerPollResponse(cancel=(5,)))
    assert [news.cancel for news in exchange.news()] == [(), (5,)]


def test_news_wakes_the_supervisor_and_can_be_slept_on_again(exchange):
    assert not is_awake(exchange)
    exchange.tell(TriggerPollResponse(start=(start(1),)))
    assert is_awake(exchange)
    exchange.awake()
    assert not is_awake(exchange)
    exchange.persisted([])
    assert not is_awake(exchange)
    exchange.persisted([3])
    assert is_awake(exchange)
    assert exchange.newly_persisted() == [3]


def test_waking_never_blocks(exchange):
    for _ in range(100_000):
        exchange.wake()
    assert is_awake(exchange)


def test_the_first_error_is_the_reason_to_stop(exchange):
    exchange.stop(ValueError("first"))
    exchange.stop(ValueError("second"))
    exchange.stop()
    assert exchange.stopping
    assert str(exchange.error) == "first"
