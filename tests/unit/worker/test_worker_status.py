"""What a worker says of itself."""

import socket

import pytest

from jetbridge.contracts.messages import Outcome
from jetbridge.worker import status
from jetbridge.worker.forkserver_client import ForkServerKeeper
from jetbridge.worker.frames import Exited
from jetbridge.worker.status import MeasuredKeeper, Pulse, StatusPortError, WorkerMetrics, served


class Table:
    def free_slots(self):
        return 3

    def leases(self):
        return ("a", "b")


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(status.time, "monotonic", lambda: now[0])
    return now


def shown(metrics):
    return metrics.all.render()[0].decode()


def test_a_pulse_shows_slots_and_leases_and_a_loop_that_stopped_is_not_well(clock):
    metrics = WorkerMetrics()
    pulse = Pulse(Table(), metrics)
    pulse.beat()
    assert "jetbridge_worker_free_slots 3.0" in shown(metrics)
    assert "jetbridge_worker_held_leases 2.0" in shown(metrics)
    assert pulse.is_well()
    clock[0] += status.STUCK_SECONDS
    assert not pulse.is_well()
    pulse.beat()
    assert pulse.is_well()


async def test_what_ran_is_counted_by_how_it_ended(monkeypatch):
    async def ran(*_arguments):
        return Exited(lease="l", outcome=Outcome.FAILED)

    monkeypatch.setattr(ForkServerKeeper, "run", ran)
    metrics = WorkerMetrics()
    keeper = MeasuredKeeper(None, None, metrics)
    assert (await keeper.run(None, None)).lease == "l"
    assert 'jetbridge_worker_ended_workloads_total{outcome="failed"} 1.0' in shown(metrics)
    assert "jetbridge_worker_workload_seconds_count 1.0" in shown(metrics)


def test_a_port_that_is_taken_is_said():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(StatusPortError, match=f"port {port} .* in use"),
            served(port, WorkerMetrics(), Pulse(Table(), WorkerMetrics())),
        ):
            pass


def test_without_a_port_nothing_listens(monkeypatch):
    monkeypatch.setattr(status, "status_server", None)
    with served(0, WorkerMetrics(), Pulse(Table(), WorkerMetrics())):
        pass
