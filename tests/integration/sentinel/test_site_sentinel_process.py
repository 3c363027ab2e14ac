"""``jetbridge sentinel site`` as a process: useful to its owner without a gateway, and quick to end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from jetbridge.agent.errors import ExitCode
from jetbridge.agent.mark import leave_mark, read_mark
from jetbridge.agent.settings import AgentSettings
from jetbridge.contracts.ids import AgentToken

JETBRIDGE = [sys.executable, "-m", "jetbridge.cli"]


class Sentinel:
    """The process, with what it says."""

    def __init__(self, directory, *words):
        token = directory / "token"
        token.touch(mode=0o600)
        token.write_text(str(AgentToken.generate()))
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            gateway = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        self.data_dir = directory / "agents" / "sentinel"
        options = {
            "--gateway": gateway,
            "--token-file": str(token),
            "--name": "s1",
            "--site": "here",
            "--data-dir": str(self.data_dir),
            "--watch-dirs": str(directory / "agents" / "*"),
            "--look-interval-seconds": "0.1",
            "--listen-port": "0",
        }
        arguments = [*(word for option in options.items() for word in option), "--allow-http", *words]
        env = {name: value for name, value in os.environ.items() if not name.startswith("JETBRIDGE_")}
        self.log = directory / "sentinel.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*JETBRIDGE, "sentinel", "site", *arguments],
                env={**env, "JETBRIDGE_LOG_FORMAT": "json"},
                stdout=log,
                stderr=log,
            )

    def until(self, condition):
        deadline = time.monotonic() + 60
        while not (found := condition()):
            assert time.monotonic() < deadline, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        return found

    @property
    def url(self):
        found = self.until(lambda: re.search(r'"port": (\d+)', self.log.read_text()))
        return f"http://127.0.0.1:{found[1]}"

    def status(self):
        done = subprocess.run(
            [*JETBRIDGE, "sentinel", "status", "--url", self.url, "--json"],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, json.loads(done.stdout or "{}")


@pytest.fixture
def start(tmp_path):
    (tmp_path / "agents").mkdir()
    started = []

    def start(*words):
        started.append(Sentinel(tmp_path, *words))
        return started[-1]

    yield start
    for one in started:
        with contextlib.suppress(ProcessLookupError):
            one.process.kill()
        one.process.wait()


def test_the_owner_sees_agents_while_no_gateway_answers(start, tmp_path):
    sentinel = start()
    directory = tmp_path / "agents" / "w1"
    directory.mkdir()
    settings = AgentSettings(gateway="https://g", token_file="t", name="w1", site="here", data_dir=directory)
    with leave_mark(settings, "0" * 32, "worker"):
        sentinel.until(lambda: sentinel.status()[1].get("agents"))
        code, status = sentinel.status()
        assert code == 0
        assert [(one["agent"], one["state"]) for one in status["agents"]] == [("w1", "running")]


@pytest.mark.parametrize("signals", [1, 2])
def test_it_ends_with_0_at_once_also_without_a_gateway(start, signals):
    sentinel = start()
    assert sentinel.url
    for _ in range(signals):
        sentinel.process.send_signal(signal.SIGTERM)
    assert sentinel.process.wait(60) == ExitCode.OK
    assert read_mark(sentinel.data_dir).stopped


def test_without_a_site_it_says_what_is_missing(start):
    sentinel = start("--site", "")
    assert sentinel.process.wait(60) == ExitCode.USAGE
    assert "--site" in sentinel.log.read_text()


def test_a_port_that_is_taken_is_a_sentence(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        sentinel = start("--listen-port", str(taken.getsockname()[1]))
        assert sentinel.process.wait(60) == ExitCode.USAGE
    assert "cannot listen" in sentinel.log.read_text()
