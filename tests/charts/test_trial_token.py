"""The trial's token script against a stand-in for Kubernetes; test_api_server.py has the real one."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from chartkit.rendering import CHARTS

from jetbridge.devstack.tls import make_certificates

SCRIPT = CHARTS / "jetbridge-plane" / "files" / "trial_token.py"
TOKEN = "jb_0123456789ab_" + "s" * 43


class Api:
    """One Secret, and what was asked of it."""

    def __init__(self, directory: Path) -> None:
        self.data: dict[str, str] = {}
        self.status = 200
        self.asked: list[tuple[str, str, str, Any]] = []
        self.directory = directory
        tls = make_certificates(directory, "127.0.0.1")
        tls.ca.rename(directory / "ca.crt")
        (directory / "token").write_text("the account's\n")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(None)

            def do_PATCH(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, body: Any) -> None:
                api.asked.append((self.command, self.path, self.headers["Authorization"], body))
                if body and api.status == 200:
                    api.data.update(body["stringData"])
                self.send_response(api.status)
                self.end_headers()
                self.wfile.write(json.dumps({"data": api.data} if api.data else {}).encode())

            def log_message(self, *_arguments: Any) -> None:
                pass

        return Handler

    def run_script(self, jetbridge: str) -> subprocess.CompletedProcess[str]:
        """Run the script with a stand-in for the command `jetbridge`."""
        command = self.directory / "jetbridge"
        command.write_text(f"#!/bin/sh\n{jetbridge}\n")
        command.chmod(0o755)
        env = {
            "PATH": f"{self.directory}:/usr/bin:/bin",
            "SERVICE_ACCOUNT_DIR": str(self.directory),
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.server.server_address[1]),
        }
        argv = [sys.executable, str(SCRIPT), "here", "the-secret"]
        return subprocess.run(argv, env=env, check=False, capture_output=True, text=True, timeout=60)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """Return a stand-in that serves until the test ends."""
    found = Api(tmp_path)
    thread = threading.Thread(target=found.server.serve_forever)
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


def test_an_empty_secret_is_filled_with_a_token_that_no_log_shows(api: Api) -> None:
    done = api.run_script(f'[ "$*" = "token create --name the-secret" ] && echo noise >&2 && echo {TOKEN}')
    assert done.returncode == 0, done.stderr
    assert api.data == {"token": TOKEN}
    path = "/api/v1/namespaces/here/secrets/the-secret"
    assert [entry[:3] for entry in api.asked] == [
        ("GET", path, "Bearer the account's"),
        ("PATCH", path, "Bearer the account's"),
    ]
    assert TOKEN not in done.stdout + done.stderr


def test_a_token_that_is_there_stays(api: Api) -> None:
    api.data["token"] = "old"
    assert api.run_script("exit 9").returncode == 0
    assert api.data == {"token": "old"}
    assert len(api.asked) == 1


def test_without_a_token_the_job_fails_and_is_tried_again(api: Api) -> None:
    assert api.run_script("exit 9").returncode != 0
    assert api.data == {}


def test_when_the_api_refuses_the_job_fails(api: Api) -> None:
    api.status = 403
    done = api.run_script(f"echo {TOKEN}")
    assert done.returncode != 0
    assert "403" in done.stderr
    assert TOKEN not in done.stderr
