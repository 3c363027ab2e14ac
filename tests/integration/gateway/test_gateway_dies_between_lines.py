"""
Every row of the tables in ``jetbridge.gateway.leases``: stop there, go on through another gateway.

The process "dies" by an exception that nothing on the way catches, raised by a store that stops before or
after a chosen call; everything else is real.
"""

import pytest

from jetbridge.bus.errors import LeaseLostError
from jetbridge.bus.lanes import Lane
from jetbridge.bus.workloads import WorkloadStore
from jetbridge.contracts.api import ReportRequest
from jetbridge.contracts.messages import Outcome
from jetbridge.contracts.records import WorkloadState
from jetbridge.contracts.subjects import Band, work_consumer
from jetbridge.gateway import leases


class DiedError(BaseException):
    """The end of the process, as far as its code can tell."""


class Dying(WorkloadStore):
    """A store whose process ends before or after its n-th write to NATS."""

    def die(self, when: str, call: str) -> "Dying":
        real = getattr(super(), call)

        async def dying(*args, **kwargs):
            if when == "after":
                await real(*args, **kwargs)
            raise DiedError

        setattr(self, call, dying)
        return self


@pytest.fixture
async def dying(bus):
    return await Dying.open(bus)


@pytest.fixture
async def offered(bus, store, workload, queue):
    """Return the lease of an offer to agent ``a``."""
    new = workload()
    await store.submit(new)
    async with Lane(bus, queue) as lane:
        (message,) = await lane.take(1)
        yield await store.offer(await store.get(new.workload_id), "a", message.reply)


ACCEPT_ROWS = {
    "before the record": ("before", "accept", WorkloadState.OFFERED),
    "after the record, before the acknowledgement": ("before", "_acknowledge", WorkloadState.LEASED),
    "after the acknowledgement": ("before", "publish_event", WorkloadState.LEASED),
    "after the event": ("after", "publish_event", WorkloadState.LEASED),
}


@pytest.mark.parametrize("row", ACCEPT_ROWS)
async def test_accept(row, bus, queue, store, dying, offered, events_of, eventually):
    when, call, state = ACCEPT_ROWS[row]
    lease = offered
    with pytest.raises(DiedError):
        await leases.accept(dying.die(when, call), lease, "a")
    assert (await store.get(lease.workload_id)).record.state is state
    await leases.accept(store, lease, "a")
    assert (await store.get(lease.workload_id)).record.state is WorkloadState.LEASED
    assert await events_of(lease) == ["workload.leased"]

    async def acknowledged():
        consumer = await bus.js.consumer_info("WORK", work_consumer(queue, Band.NORMAL))
        return consumer.num_ack_pending == consumer.num_pending == 0

    await eventually(acknowledged)


REPORT_ROWS = {
    "before the record": ("before", "finish", WorkloadState.LEASED),
    "after the record": ("before", "publish_event", WorkloadState.FINISHED),
    "after the event": ("after", "publish_event", WorkloadState.FINISHED),
}


@pytest.mark.parametrize("row", REPORT_ROWS)
async def test_report(row, store, dying, offered, events_of):
    when, call, state = REPORT_ROWS[row]
    lease = offered
    await leases.accept(store, lease, "a")
    request = ReportRequest(outcome=Outcome.FAILED, exit_code=3)
    with pytest.raises(DiedError):
        await leases.report(dying.die(when, call), lease, "a", request)
    assert (await store.get(lease.workload_id)).record.state is state
    record = await leases.report(store, lease, "a", request)
    assert (record.outcome, record.exit_code) == (Outcome.FAILED, 3)
    assert await events_of(lease) == ["workload.leased", "workload.finished"]


async def test_after_the_executor_has_cleaned_up_a_late_retry_changes_nothing(store, offered):
    lease = offered
    await leases.accept(store, lease, "a")
    request = ReportRequest(outcome=Outcome.SUCCEEDED)
    await leases.report(store, lease, "a", request)
    await store.remove(lease.workload_id)
    with pytest.raises(LeaseLostError):
        await leases.report(store, lease, "a", request)
    assert await store.get(lease.workload_id) is None
