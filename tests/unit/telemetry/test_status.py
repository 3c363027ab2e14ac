"""What a process says of itself over HTTP."""

import os
import socket
import time

import httpx
import pytest

from jetbridge.telemetry import status
from jetbridge.telemetry.alive import PULSE_FILE, STUCK_SECONDS, main
from jetbridge.telemetry.metrics import Metrics
from jetbridge.telemetry.status import Pulse, StatusPortError, status_server, watched


def test_metrics_health_and_nothing_else():
    metrics = Metrics("worker")
    metrics.counter("ended", "workloads", "x", ["outcome"]).labels("succeeded").inc()
    well = [True]
    with (
        status_server(0, metrics, lambda: well[0]) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        assert (
            'jetbridge_worker_ended_workloads_total{outcome="succeeded"} 1.0' in client.get("/metrics").text
        )
        assert client.get("/healthz").status_code == 200
        well[0] = False
        assert client.get("/healthz").status_code == 503
        assert client.get("/").status_code == 404
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_a_port_that_is_taken_is_an_error():
    with (
        status_server(0, Metrics("worker"), lambda: True) as port,
        pytest.raises(OSError, match="in use"),
        status_server(port, Metrics("worker"), lambda: True),
    ):
        pass


def test_a_process_says_which_port_is_taken():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(StatusPortError, match=f"port {port} .* in use"),
            watched(Metrics("worker"), port, lambda: True),
        ):
            pass


def test_without_a_port_nothing_listens(monkeypatch):
    monkeypatch.setattr(status, "status_server", None)
    with watched(Metrics("worker"), 0, lambda: True):
        pass


def test_a_loop_that_stopped_is_not_well(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(status.time, "monotonic", lambda: now[0])
    pulse = Pulse()
    assert pulse.is_well()
    now[0] += STUCK_SECONDS
    assert not pulse.is_well()
    pulse.beat()
    assert pulse.is_well()


def test_a_probe_without_a_port_looks_at_a_file(monkeypatch, tmp_path, capsys):
    file = tmp_path / "pulse"
    monkeypatch.setenv(PULSE_FILE, str(file))
    assert main([]) == 1
    assert "No such file" in capsys.readouterr().err
    Pulse().beat()
    assert main([]) == 0
    long_ago = time.time() - 2 * STUCK_SECONDS
    os.utime(file, (long_ago, long_ago))
    assert main([]) == 1
    assert "has not turned for 60 s" in capsys.readouterr().err


def test_of_others_a_probe_asks_an_address(monkeypatch):
    monkeypatch.delenv(PULSE_FILE, raising=False)
    Pulse().beat()
    well = [True]
    with status_server(0, Metrics("worker"), lambda: well[0]) as port:
        urls = ["http://127.0.0.1:1/", f"http://127.0.0.1:{port}/healthz"]
        assert main(urls) == 0
        well[0] = False
        assert main(urls) == 1
