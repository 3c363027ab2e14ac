"""The socket a gateway listens on."""

import socket

import pytest

from jetbridge.devstack.tls import make_certificates
from jetbridge.gateway.server import ListenError, bind
from jetbridge.gateway.settings import GatewaySettings


@pytest.fixture
def settings(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x" * 64)
    certificates = make_certificates(tmp_path / "tls", "127.0.0.1")
    return GatewaySettings(
        host="127.0.0.1",
        port=0,
        tls_cert_file=certificates.certificate,
        tls_key_file=certificates.key,
        redis_url="redis://localhost",
        airflow_url="http://localhost",
        airflow_jwt_secret_file=secret,
    )


def test_no_answer_waits_for_an_acknowledgement_whatever_the_loop(settings):
    with bind(settings) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_that_is_taken_is_named(settings):
    with bind(settings) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ListenError, match=rf"127\.0\.0\.1 port {port}"):
            bind(settings, port)
