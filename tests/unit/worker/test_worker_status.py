"""What a worker says of itself."""

import pytest

from jetbridge.contracts.messages import Outcome
from jetbridge.telemetry import status
from jetbridge.telemetry.alive import STUCK_SECONDS
from jetbridge.telemetry.measures import LOG_UPLOADED_BYTES, TASK_STARTUP_SECONDS, XCOM_WRITTEN_BYTES
from jetbridge.worker import startup
from jetbridge.worker.forkserver_client import ForkServerKeeper
from jetbridge.worker.frames import Exited
from jetbridge.worker.status import MeasuredKeeper, WorkerMetrics, WorkerPulse


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
    pulse = WorkerPulse(Table(), metrics)
    pulse.beat()
    assert "jetbridge_worker_free_slots 3.0" in shown(metrics)
    assert "jetbridge_worker_held_leases 2.0" in shown(metrics)
    assert pulse.is_well()
    clock[0] += STUCK_SECONDS
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


def test_what_the_workers_processes_measure_is_shown():
    metrics = WorkerMetrics()
    for measure, value in ((TASK_STARTUP_SECONDS, 0.3), (XCOM_WRITTEN_BYTES, 12), (LOG_UPLOADED_BYTES, 34)):
        metrics.takers[measure](value)
    text = shown(metrics)
    assert "jetbridge_worker_task_startup_seconds_sum 0.3" in text
    assert 'jetbridge_worker_xcom_bytes_total{direction="written"} 12.0' in text
    assert 'jetbridge_worker_xcom_bytes_total{direction="read"} 0.0' in text
    assert "jetbridge_worker_uploaded_log_bytes_total 34.0" in text


def test_only_a_tasks_first_word_counts(monkeypatch):
    told = []
    monkeypatch.setattr(startup, "tell", lambda *measure: told.append(measure))
    monkeypatch.setattr(startup.time, "monotonic", lambda: 1000.25)
    clock = startup.Clock()
    clock.spoken()  # nothing began
    clock.begin(1000.0)
    clock.spoken()
    clock.spoken()
    assert told == [(TASK_STARTUP_SECONDS, 0.25)]
