"""What a process says of itself over HTTP."""

import socket

import httpx
import pytest

from jetbridge.telemetry.metrics import Metrics
from jetbridge.telemetry.status import status_server


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
