"""Settings: TLS always, one signing key, nothing secret shown."""

import os

import pytest
from pydantic import ValidationError

from jetbridge.gateway import cli
from jetbridge.gateway.airflow_tokens import AirflowTokens, SigningKeyError
from jetbridge.gateway.settings import GatewaySettings

TLS = {"tls_cert_file": "c", "tls_key_file": "k"}
SECRET = {"airflow_jwt_secret_file": "s"}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("JETBRIDGE_"):
            monkeypatch.delenv(name)


def test_tls_is_needed():
    with pytest.raises(ValidationError, match="TLS only"):
        GatewaySettings(**SECRET)
    with pytest.raises(ValidationError, match="both"):
        GatewaySettings(**SECRET, tls_cert_file="c")


def test_plaintext_is_taken_on_loopback_only():
    with pytest.raises(ValidationError, match="loopback"):
        GatewaySettings(**SECRET, allow_plaintext=True)
    for host in ("127.0.0.1", "::1", "localhost"):
        assert GatewaySettings(**SECRET, allow_plaintext=True, host=host).host == host


def test_exactly_one_signing_key():
    for keys in ({}, {**SECRET, "airflow_jwt_private_key_file": "p"}):
        with pytest.raises(ValidationError, match="exactly one"):
            GatewaySettings(**TLS, **keys)


def test_environment_and_its_names(monkeypatch):
    monkeypatch.setenv("JETBRIDGE_REDIS_URL", "redis://:secret@redis:6379/1")
    monkeypatch.setenv("JETBRIDGE_GATEWAY_PORT", "9000")
    monkeypatch.setenv("JETBRIDGE_GATEWAY_AIRFLOW_URL", "https://airflow.example/base/")
    settings = GatewaySettings(**TLS, **SECRET)
    assert settings.port == 9000
    assert settings.airflow_base == "https://airflow.example/base"
    assert settings.redis_url.get_secret_value().endswith("/1")
    assert "secret@" not in repr(settings)


def test_wrong_settings_are_told_in_words_and_end_with_2(capsys):
    assert cli.main(["--port", "70000", "--tls-cert-file", "c"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("jetbridge gateway: port: ")
    assert "Traceback" not in error


def test_the_help_names_every_setting(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    for name in GatewaySettings.model_fields:
        variable = "JETBRIDGE_REDIS_URL" if name == "redis_url" else f"JETBRIDGE_GATEWAY_{name.upper()}"
        assert variable in text


def test_a_signing_key_that_cannot_be_used_is_told(tmp_path):
    empty, nonsense = tmp_path / "empty", tmp_path / "nonsense"
    empty.write_text("\n")
    nonsense.write_text("no key")
    for changes, message in (
        ({"airflow_jwt_secret_file": tmp_path / "missing"}, "cannot be read"),
        ({"airflow_jwt_secret_file": empty}, "is empty"),
        ({"airflow_jwt_private_key_file": nonsense}, "no unencrypted private key"),
    ):
        with pytest.raises(SigningKeyError, match=message) as caught:
            AirflowTokens(GatewaySettings(**TLS, **changes))
        assert "no key" not in str(caught.value)
