"""Each server starts for real, survives a restart with its data, and is gone afterwards."""

from __future__ import annotations

import io
import socket
from urllib.parse import urlsplit

import minio
import nats
import psutil
import psycopg
import pytest

from jetbridge.devstack.processes import Supervisor
from jetbridge.devstack.servers import nats as nats_servers
from jetbridge.devstack.servers import postgres as postgres_servers
from jetbridge.devstack.servers import redis as redis_servers
from jetbridge.devstack.servers import s3 as s3_servers


async def test_nats_keeps_its_streams_over_a_crash(nats_server):
    if not nats_server.restartable:
        pytest.skip(f"not ours to stop: {nats_server.origin}")
    await _jetstream(nats_server.url, lambda js: js.add_stream(name="DEVSTACK", subjects=["devstack.>"]))
    await _jetstream(nats_server.url, lambda js: js.publish("devstack.test", b"kept"))

    nats_server.kill()
    nats_server.start()

    message = await _jetstream(nats_server.url, lambda js: js.get_last_msg("DEVSTACK", "devstack.test"))
    assert message.data == b"kept"
    await _jetstream(nats_server.url, lambda js: js.delete_stream("DEVSTACK"))


async def _jetstream(url, action):
    connection = await nats.connect(url)
    try:
        return await action(connection.jetstream())
    finally:
        await connection.close()


def test_nats_refuses_clients_without_the_password(nats_server):
    if not nats_server.restartable:
        pytest.skip(f"not ours to judge: {nats_server.origin}")
    address = urlsplit(nats_server.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert b"Authorization Violation" in answer


def test_postgres_keeps_its_rows_over_a_restart(postgres_server):
    if not postgres_server.restartable:
        pytest.skip(f"not ours to stop: {postgres_server.origin}")
    url = postgres_server.create_database("devstack")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")

    postgres_server.stop()
    postgres_server.start()

    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_s3_takes_an_object_and_lists_it_at_once(s3):
    address = s3.endpoint_url.removeprefix("http://").removeprefix("https://")
    secure = s3.endpoint_url.startswith("https://")
    client = minio.Minio(
        address, access_key=s3.access_key, secret_key=s3.secret_key, region=s3.region, secure=secure
    )
    client.make_bucket("devstack-bucket")
    client.put_object("devstack-bucket", "a/b.txt", io.BytesIO(b"hello"), 5)
    assert [entry.object_name for entry in client.list_objects("devstack-bucket", recursive=True)] == [
        "a/b.txt"
    ]
    client.remove_object("devstack-bucket", "a/b.txt")
    client.remove_bucket("devstack-bucket")


def _command_line(process):
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):  # helpers of initdb come and go
        return []


@pytest.mark.parametrize("module", [nats_servers, postgres_servers, redis_servers, s3_servers])
def test_no_server_process_is_left_and_no_secret_is_in_a_command_line(module, tmp_path, monkeypatch):
    monkeypatch.delenv(module.VARIABLE, raising=False)
    with Supervisor(tmp_path) as supervisor:
        server = module.start(supervisor)
        children = psutil.Process().children(recursive=True)
        command_lines = " ".join(part for child in children for part in _command_line(child))
        for secret in _secrets(server):
            assert secret not in command_lines
        processes = [process.pid for process in supervisor.processes if process.alive]
        assert processes or "Docker" in server.origin
    assert not [pid for pid in processes if psutil.pid_exists(pid)]


def _secrets(server):
    if isinstance(server, s3_servers.S3Server):
        return [server.secret_key]
    return [server.url.split("@")[0].rpartition(":")[2]]
