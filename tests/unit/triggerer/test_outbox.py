"""Events wait in order, under numbers that never change, until each is acknowledged."""

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from jetbridge.contracts.triggering import MAX_EVENTS, MAX_TRACEBACK_LINE, MAX_TRACEBACK_LINES
from jetbridge.triggerer import outbox as module
from jetbridge.triggerer.outbox import Outbox


def numbers(batch):
    return [one.body.sequence for one in batch]


def test_a_batch_is_the_same_until_it_is_acknowledged():
    outbox = Outbox()
    for trigger in (7, 8, 9):
        outbox.put_event(trigger, b"e", persist_seq=trigger * 10)
    assert numbers(outbox.batch()) == numbers(outbox.batch()) == [1, 2, 3]
    assert outbox.acknowledged(2) == [70, 80]
    assert numbers(outbox.batch()) == [3]
    assert outbox.triggers() == {9}
    outbox.put_event(7, b"e")
    assert numbers(outbox.batch()) == [3, 4]


def test_an_acknowledgement_that_comes_twice_or_late_changes_nothing():
    outbox = Outbox()
    outbox.put_event(1, b"e", persist_seq=5)
    assert outbox.acknowledged(1) == [5]
    assert outbox.acknowledged(1) == []
    outbox.put_event(1, b"e")
    assert outbox.acknowledged(1) == []
    assert len(outbox) == 1


def test_batches_are_limited_in_number_and_in_bytes():
    outbox = Outbox()
    for _ in range(module.BATCH_EVENTS + 1):
        outbox.put_event(1, b"e")
    assert len(outbox.batch()) == module.BATCH_EVENTS <= MAX_EVENTS
    outbox.acknowledged(module.BATCH_EVENTS + 1)
    for _ in range(3):
        outbox.put_event(1, b"x" * (module.BATCH_BYTES // 2))
    assert len(outbox.batch()) == 1


def test_one_event_larger_than_a_batch_goes_alone():
    outbox = Outbox()
    outbox.put_event(1, b"x" * (2 * module.BATCH_BYTES))
    outbox.put_event(1, b"e")
    assert numbers(outbox.batch()) == [1]


def test_of_a_long_traceback_the_end_is_kept():
    outbox = Outbox()
    outbox.put_failure(1, [*(f"line {number}" for number in range(1000)), "E" * 10_000])
    (one,) = outbox.batch()
    assert len(one.body.traceback) == MAX_TRACEBACK_LINES
    assert one.body.traceback[-1] == "E" * MAX_TRACEBACK_LINE


def test_a_failure_without_traceback_is_still_a_failure():
    outbox = Outbox()
    outbox.put_failure(1, None)
    assert outbox.batch()[0].body.traceback == ()


def test_a_reserved_trigger_is_named_until_it_is_unreserved():
    outbox = Outbox()
    outbox.reserve(4)
    outbox.put_event(4, b"e")
    outbox.unreserve(4)
    assert outbox.triggers() == {4}
    outbox.acknowledged(1)
    assert outbox.triggers() == set()


def test_it_has_no_room_for_what_nobody_waits_for_when_much_waits(monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    outbox = Outbox()
    assert outbox.has_room()
    outbox.put_event(1, b"x" * 1000)
    assert not outbox.has_room()
    outbox.acknowledged(1)
    assert outbox.has_room()


def test_whoever_empties_it_is_told_of_each_event():
    told = []
    outbox = Outbox()
    outbox.on_change = lambda: told.append(len(outbox))
    outbox.put_event(1, b"e")
    outbox.put_failure(2, None)
    assert told == [1, 2]


def test_numbers_ascend_whoever_puts():
    outbox = Outbox()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda trigger: outbox.put_event(trigger, b"e"), range(200)))
    assert numbers(outbox.batch(limit=200)) == list(range(1, 201))


@given(st.lists(st.one_of(st.integers(1, 5), st.none()), max_size=60))
def test_what_waits_is_what_was_put_and_not_acknowledged(steps):
    """``None`` acknowledges the first half of what waits; numbers put events of that trigger."""
    outbox, waiting, put = Outbox(), [], 0
    for step in steps:
        if step is None:
            half = waiting[: (len(waiting) + 1) // 2]
            outbox.acknowledged(half[-1][0] if half else 0)
            waiting = waiting[len(half) :]
        else:
            put += 1
            outbox.put_event(step, b"e")
            waiting.append((put, step))
    assert [(one.body.sequence, one.body.trigger_id) for one in outbox.batch()] == waiting
    assert outbox.triggers() == {trigger for _, trigger in waiting}
