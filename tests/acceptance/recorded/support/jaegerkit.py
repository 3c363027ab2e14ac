"""Jaeger 1 in one process, to read traces back from."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import contextmanager

import httpx

from jetbridge.devstack.ports import free_port
from jetbridge.devstack.probes import answers_http
from jetbridge.devstack.processes import Command, Supervisor

BINARY = shutil.which("jaeger-all-in-one")
PATIENCE_SECONDS = 30


class Jaeger:
    """Takes traces as they came by OTLP, and shows them as its own UI gets them."""

    def __init__(self, client, otlp, query):
        self.client, self.otlp, self.query = client, otlp, query

    def take(self, body):
        headers = {"content-type": "application/x-protobuf"}
        self.client.post(f"{self.otlp}/v1/traces", content=body, headers=headers).raise_for_status()

    def trace(self, trace_id, spans):
        """Return a trace when all its spans can be seen: what was taken is stored a moment later."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            answer = self.client.get(f"{self.query}/api/traces/{trace_id}")
            shown = answer.json()["data"][0] if answer.is_success else {"spans": []}
            if len(shown["spans"]) >= spans or time.monotonic() > end:
                return shown
            time.sleep(0.1)


@contextmanager
def running(directory):
    """Start it on ports of its own, every one that this version says it has."""
    told = subprocess.run([BINARY, "help"], check=True, capture_output=True, text=True).stdout
    flags = [word.removeprefix("--") for word in told.split() if word.endswith("host-port")]
    at = {flag: f"127.0.0.1:{free_port()}" for flag in flags if "zipkin.host-port" not in flag}
    words = [f"--{flag}={address}" for flag, address in at.items()]
    with Supervisor(directory) as supervisor:
        process = supervisor.add("jaeger", Command(argv=[BINARY, *words], env=dict(os.environ)))
        process.start()
        process.wait_ready(answers_http(f"http://{at['admin.http.host-port']}/"))
        with httpx.Client(timeout=60, trust_env=False) as client:
            addresses = (at["collector.otlp.http.host-port"], at["query.http-server.host-port"])
            yield Jaeger(client, *(f"http://{address}" for address in addresses))
