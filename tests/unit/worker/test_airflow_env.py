from __future__ import annotations

import socket
from pathlib import Path

import pytest

from jetbridge.worker.airflow_env import NO_DATABASE, airflow_env, execution_api, log_store
from jetbridge.xcom.errors import ObjectStoreSettingsError


def env(inherited=None, **changes):
    options = {"agent_name": "a1", "gateway": "https://gw/base", "ca_file": None, "data_dir": Path("/data")}
    return airflow_env(inherited or {}, **{**options, **changes})


def test_what_an_operator_set_wins_over_defaults():
    defaults = env()
    assert defaults["AIRFLOW__CORE__XCOM_BACKEND"] == "jetbridge.xcom.backend.ObjectStoreXComBackend"
    assert defaults["AIRFLOW__LOGGING__BASE_LOG_FOLDER"] == "/data/logs"
    chosen = env(
        {"AIRFLOW__CORE__XCOM_BACKEND": "my.Backend", "AIRFLOW_HOME": "/opt/airflow", "PATH": "/bin"}
    )
    assert chosen["AIRFLOW__CORE__XCOM_BACKEND"] == "my.Backend"
    assert chosen["AIRFLOW_HOME"] == "/opt/airflow"
    assert chosen["PATH"] == "/bin"


def test_clones_of_bundles_are_an_agents_own():
    storage = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH"
    assert env()[storage] == "/data/bundles"
    assert env({storage: "/fast/disk"})[storage] == "/fast/disk"


def test_what_the_worker_depends_on_cannot_be_changed():
    fixed = env({"AIRFLOW__CORE__HOSTNAME_CALLABLE": "other", "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "x"})
    assert fixed["AIRFLOW__CORE__HOSTNAME_CALLABLE"] == "jetbridge.worker.identity.agent_name"
    assert fixed["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "https://gw/base/execution/"
    assert execution_api("https://gw/base/") == "https://gw/base/execution/"


def test_no_spelling_of_a_metadata_database_is_inherited():
    spellings = [
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_SECRET",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC",
        "AIRFLOW__CORE__SQL_ALCHEMY_CONN",
        "AIRFLOW__CORE__SQL_ALCHEMY_CONN_CMD",
    ]
    result = env(dict.fromkeys(spellings, "postgresql://plane/airflow"))
    assert [value for name, value in result.items() if "SQL_ALCHEMY_CONN" in name] == [NO_DATABASE]
    assert not Path(NO_DATABASE.removeprefix("sqlite:///")).parent.exists()


def test_the_agents_own_settings_are_no_business_of_a_task():
    result = env({"JETBRIDGE_AGENT_TOKEN_FILE": "/t", "JETBRIDGE_AGENT_NAME": "x", "JETBRIDGE_OTHER": "kept"})
    assert {name for name in result if name.startswith("JETBRIDGE_")} == {
        "JETBRIDGE_AGENT_NAME",
        "JETBRIDGE_OTHER",
    }
    assert result["JETBRIDGE_AGENT_NAME"] == "a1"


def test_a_ca_file_is_trusted_alone_by_airflow_too():
    assert "AIRFLOW__API__SSL_CA_FILE" not in env()
    result = env(ca_file=Path("/ca.pem"))
    assert result["AIRFLOW__API__SSL_CA_FILE"] == "/ca.pem"
    assert result["AIRFLOW__API__CLIENT_USE_PUBLIC_CERTS"] == "False"


def test_retries_outlast_a_two_minute_outage():
    result = env()
    retries = int(result["AIRFLOW__WORKERS__EXECUTION_API_RETRIES"])
    shortest, longest = (
        float(result[f"AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_{end}"]) for end in ("MIN", "MAX")
    )
    assert (retries - 1) * shortest >= 59
    assert (retries - 4) * (shortest + longest) / 2 >= 120
    # 5 s is Airflow's interval between heartbeats.
    assert int(result["AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS"]) * 5 >= 120


OURS = {
    "JETBRIDGE_OBJECT_STORE_ENDPOINT_URL": "https://s3.site:9000",
    "JETBRIDGE_OBJECT_STORE_KEY_PREFIX": "a/",
}
PLAIN = {
    "AIRFLOW__CORE__XCOM_BACKEND": "airflow.sdk.execution_time.xcom.BaseXCom",
    "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "",
}


def test_where_logs_end_up(monkeypatch):
    for name, value in OURS.items():
        monkeypatch.setenv(name, value)
    assert log_store(env()) == "https://s3.site:9000/jetbridge-logs/a/"
    monkeypatch.setattr(socket, "gethostname", lambda: "host")
    assert log_store(env({"AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": ""})) == "host:/data/logs"
    assert log_store(env({**PLAIN, "AIRFLOW__LOGGING__BASE_LOG_FOLDER": "/logs"})) == "host:/logs"


def test_a_worker_without_its_object_store_says_so_before_any_task_does(monkeypatch):
    monkeypatch.delenv("JETBRIDGE_OBJECT_STORE_ENDPOINT_URL", raising=False)
    with pytest.raises(ObjectStoreSettingsError, match="JETBRIDGE_OBJECT_STORE_ENDPOINT_URL"):
        log_store(env())
    assert log_store(env(PLAIN))
