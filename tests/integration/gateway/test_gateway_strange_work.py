"""Messages on WORK that are no work, no more, or not yet: set aside, dropped or kept, each for its reason."""

import uuid

import msgspec

from jetbridge.contracts.envelope import Envelope, seal
from jetbridge.contracts.messages import TaskCoordinates, WorkloadKind, WorkloadSubmitted
from jetbridge.contracts.records import WorkloadState
from jetbridge.contracts.subjects import Band, work_consumer, work_subject


def submitted(queue: str, submission: int = 1) -> WorkloadSubmitted:
    return WorkloadSubmitted(
        workload_id=str(uuid.uuid4()),
        submission=submission,
        kind=WorkloadKind.TASK,
        queue=queue,
        coordinates=TaskCoordinates(dag_id="d", run_id="r"),
        spec=msgspec.Raw(b"{}"),
    )


async def rejections(bus, queue: str) -> list[str]:
    """Return the reasons of what was set aside in a lane."""
    found = []
    subscription = await bus.js.subscribe("event.workload.rejected", ordered_consumer=True)
    try:
        while True:
            message = await subscription.next_msg(timeout=0.5)
            body = msgspec.json.decode(message.data)["body"]
            if body["subject"] == work_subject(queue, Band.NORMAL):
                found.append(body["reason"])
    except TimeoutError:
        return found
    finally:
        await subscription.unsubscribe()


async def test_what_cannot_be_used_is_set_aside_with_its_reason_and_delays_nobody(
    agent, bus, store, queue, workload, eventually
):
    subject = work_subject(queue, Band.NORMAL)
    newer = msgspec.json.decode(seal(submitted(queue)), type=Envelope)
    await bus.js.publish(subject, b"\xff not a message")
    await bus.js.publish(subject, msgspec.json.encode(msgspec.structs.replace(newer, version=9)))
    await bus.js.publish(subject, seal(submitted("another-queue")))
    good = workload()
    await store.submit(good)
    (offer,) = (await agent.poll()).json()["offers"]
    assert offer["lease"].startswith(good.workload_id)
    await agent.accept(offer["lease"])

    async def all_done():
        consumer = await bus.js.consumer_info("WORK", work_consumer(queue, Band.NORMAL))
        return consumer.num_pending == consumer.num_ack_pending == 0

    await eventually(all_done)
    reasons = await rejections(bus, queue)
    assert len(reasons) == 3
    assert any("workload.submitted.v9" in reason for reason in reasons)
    assert any("another-queue" in reason for reason in reasons)


async def test_messages_of_workloads_that_are_over_are_dropped(
    agent, bus, queue, workload, store, eventually
):
    subject = work_subject(queue, Band.NORMAL)
    await bus.js.publish(subject, seal(submitted(queue)))  # nobody ever wrote its record
    finished = workload()
    submission = await store.submit(finished)
    lease, _ = await agent.lease()
    await agent.report(lease)
    again = msgspec.structs.replace(submitted(queue, submission), workload_id=finished.workload_id)
    await bus.js.publish(subject, seal(again))  # a duplicate that came too late for deduplication
    assert (await agent.poll(wait_seconds=1)).json() == {}

    async def all_done():
        consumer = await bus.js.consumer_info("WORK", work_consumer(queue, Band.NORMAL))
        return consumer.num_pending == consumer.num_ack_pending == 0

    await eventually(all_done)
    assert (await store.get(finished.workload_id)).record.state is WorkloadState.FINISHED
    assert await rejections(bus, queue) == []


async def test_work_of_a_trace_stays_in_it(agent, bus, store, workload, auth):
    trace = "0af7651916cd43dd8448eb211c80319c"
    new = workload()
    await store.submit(new, f"00-{trace}-b7ad6b7169203331-01")
    (offer,) = (await agent.poll()).json()["offers"]
    headers = auth(agent.credential) | {"traceparent": offer["traceparent"]}
    await agent.client.post(f"/v1/leases/{offer['lease']}/accept", json={}, headers=headers)
    await agent.client.post(
        f"/v1/leases/{offer['lease']}/report", json={"outcome": "succeeded"}, headers=headers
    )
    subscription = await bus.js.subscribe("event.workload.*", ordered_consumer=True)
    traces = []
    while len(traces) < 2:
        message = await subscription.next_msg(timeout=10)
        if new.workload_id.encode() in message.data:
            traces.append(message.headers["traceparent"].split("-")[1])
    await subscription.unsubscribe()
    assert traces == [trace, trace]


async def test_what_happened_is_counted(agent, gateway, store, workload):
    await store.submit(workload())
    lease, _ = await agent.lease()
    await agent.report(lease)
    metrics = (await gateway.client.get("/metrics")).text
    for line in (
        "jetbridge_gateway_made_offers_total 1.0",
        'jetbridge_gateway_work_messages_total{outcome="offered"} 1.0',
        "jetbridge_gateway_accepted_leases_total 1.0",
        'jetbridge_gateway_taken_reports_total{outcome="succeeded"} 1.0',
        "jetbridge_gateway_handover_delay_seconds_count 1.0",
        'http_requests_total{method="POST",route="/v1/agents/{name}/poll",status="200"} 1.0',
    ):
        assert line in metrics, line
