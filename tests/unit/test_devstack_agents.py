"""An agent of the development stack is told about its execution plane and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jetbridge.devstack.agents import AgentSpec, ExecutionPlane, agent_command
from jetbridge.devstack.airflow import AirflowOptions, Secrets, plane_environment
from jetbridge.devstack.environment import PASSED_ON
from jetbridge.devstack.netns import Namespace
from jetbridge.devstack.servers.handle import ExternalLifecycle
from jetbridge.devstack.servers.s3 import S3Server

STORE = S3Server(ExternalLifecycle("TEST"), "test", "http://store:9000", "store-key", "store-secret")


@pytest.fixture
def plane(tmp_path):
    token_file = tmp_path / "east.token"
    token_file.write_text("jb_planted_token")
    return ExecutionPlane("https://gateway:8443", tmp_path / "ca.pem", token_file, STORE, Path("/dags"))


def command(plane, tmp_path, namespace=None, **options):
    return agent_command(AgentSpec(name="east", **options), plane, tmp_path, namespace)


def test_only_named_variables_reach_an_agent(plane, tmp_path, monkeypatch):
    for name in (
        "JETBRIDGE_NATS_URL",
        "JETBRIDGE_REDIS_URL",
        "AIRFLOW__CORE__FERNET_KEY",
        "AWS_SECRET_ACCESS_KEY",
    ):
        monkeypatch.setenv(name, "planted")
    env = command(plane, tmp_path, environment=lambda _: {"AIRFLOW_CONN_X": "mine"}).env
    assert "planted" not in json.dumps(env)
    own = {name for name in env if name not in {*PASSED_ON, "PYTHONUNBUFFERED"}}
    assert own == {
        "JETBRIDGE_OBJECT_STORE_ENDPOINT_URL",
        "JETBRIDGE_OBJECT_STORE_ACCESS_KEY",
        "JETBRIDGE_OBJECT_STORE_SECRET_KEY",
        "JETBRIDGE_OBJECT_STORE_REGION",
        "JETBRIDGE_OBJECT_STORE_XCOM_BUCKET",
        "JETBRIDGE_OBJECT_STORE_LOGS_BUCKET",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST",
        "AIRFLOW_HOME",
        "AIRFLOW_CONN_X",
    }


def test_no_secret_is_in_the_command_line(plane, tmp_path):
    words = " ".join(str(word) for word in command(plane, tmp_path).argv)
    assert "east.token" in words
    assert "jb_planted_token" not in words
    assert "store-secret" not in words


def test_an_agent_with_a_namespace_is_started_inside_it(plane, tmp_path):
    namespace = Namespace("jetbridge-1-1", "198.18.1.2", "198.18.1.1", "jb1-1")
    assert command(plane, tmp_path, namespace).argv[:4] == ["ip", "netns", "exec", "jetbridge-1-1"]
    assert str(command(plane, tmp_path).argv[0]).endswith("jetbridge")


def test_secrets_of_two_runs_differ_and_are_never_shown():
    first, second = Secrets(), Secrets()
    assert not set(first.values) & set(second.values)
    assert not [value for value in first.values if value in repr(first)]


def test_the_plane_s_own_environment_holds_its_secrets_and_says_where_it_listens(tmp_path):
    own = Secrets()
    options = AirflowOptions(
        executor="E",
        dags=Path("/dags"),
        url="http://127.0.0.1:4242",
        extra={"AIRFLOW__CORE__PARALLELISM": "7"},
    )
    env = plane_environment(tmp_path, options, "postgresql://database", own)
    assert all(secret in env.values() for secret in own.values)
    assert (env["AIRFLOW__API__HOST"], env["AIRFLOW__API__PORT"]) == ("127.0.0.1", "4242")
    assert env["AIRFLOW__CORE__PARALLELISM"] == "7"
    assert env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:4242/execution/"
