"""How much there is to do, counted from records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

from jetbridge.bus.kv import Versioned
from jetbridge.contracts.messages import TaskCoordinates, WorkloadKind
from jetbridge.contracts.records import TokenRecord, WorkloadRecord, WorkloadState
from jetbridge.gateway.depth import Depth, Depths, count
from jetbridge.gateway.metrics import GatewayMetrics
from jetbridge.gateway.scrape import refresh

NOW = datetime.now(UTC)


def record(state, queue="q", age_seconds=0.0):
    return Versioned(
        WorkloadRecord(
            workload_id="w",
            kind=WorkloadKind.TASK,
            state=state,
            queue=queue,
            coordinates=TaskCoordinates(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1),
            changed_at=NOW - timedelta(seconds=age_seconds),
        ),
        1,
    )


class Records:
    """As much of a mirror as counting needs."""

    def __init__(self, *records):
        self.mirror = self
        self.records = list(records)

    def items(self):
        return iter(enumerate(self.records))


def test_whatever_somebody_has_to_run_counts_and_what_has_ended_does_not():
    depth = count(record(state) for state in WorkloadState)["q"]
    assert (depth.waiting, depth.running) == (3, 1)  # submitted, offered, released; leased


def test_queues_are_kept_apart_and_added_up_once_each():
    depths = Depths(Records(record(WorkloadState.SUBMITTED, "a"), record(WorkloadState.LEASED, "b", 99)))
    assert depths.of(["a", "b", "a", "none"]) == Depth(waiting=1, running=1, oldest=NOW)
    assert depths.of(["none"]) == Depth()


def test_the_oldest_is_of_those_that_wait():
    waiting = [record(WorkloadState.SUBMITTED, age_seconds=age) for age in (5, 60, 1)]
    depth = count([*waiting, record(WorkloadState.LEASED, age_seconds=3600)])["q"]
    assert depth.waited_seconds(NOW) == 60.0
    assert Depth().waited_seconds(NOW) == 0.0
    assert Depth(1, 0, NOW + timedelta(seconds=3)).waited_seconds(NOW) == 0.0  # another machine's clock


def test_records_are_counted_once_for_all_who_ask_within_a_second(monkeypatch):
    records = Records(record(WorkloadState.SUBMITTED))
    depths = Depths(records)
    clock = [100.0]
    monkeypatch.setattr("jetbridge.gateway.depth.time.monotonic", lambda: clock[0])
    assert depths.of(["q"]).waiting == 1
    records.records.clear()
    assert depths.of(["q"]).waiting == 1
    clock[0] += 1.0
    assert depths.of(["q"]).waiting == 0


def test_what_is_gone_is_shown_no_more(monkeypatch):
    records, metrics = Records(record(WorkloadState.SUBMITTED)), GatewayMetrics()
    token = TokenRecord(id="t1", name="n", secret_sha256="", created_at=NOW, expires_at=NOW)
    tokens = Records(Versioned(token, 1))
    clock = [100.0]
    monkeypatch.setattr("jetbridge.gateway.depth.time.monotonic", lambda: clock[0])
    gateway = SimpleNamespace(
        metrics=metrics, depths=Depths(records), gatekeeper=SimpleNamespace(tokens=tokens)
    )
    refresh(gateway)
    text = metrics.all.render()[0].decode()
    assert 'jetbridge_gateway_waiting_workloads{queue="q"} 1.0' in text
    assert 'jetbridge_gateway_token_expiry_timestamp_seconds{token="t1"}' in text
    records.records.clear()
    tokens.records.clear()
    clock[0] += 1.0
    refresh(gateway)
    text = metrics.all.render()[0].decode()
    assert 'queue="q"' not in text
    assert 'token="t1"' not in text
