"""What a triggerer is told, and what of that its triggers may see."""

import resource

import pytest

from jetbridge.agent.settings import load_settings
from jetbridge.triggerer import main as module
from jetbridge.triggerer.airflow_env import NO_DATABASE, airflow_env
from jetbridge.triggerer.settings import TriggererSettings


def settings(tmp_path, *options):
    token = tmp_path / "token"
    token.touch()
    argv = ["--gateway", "https://gateway.example", "--token-file", str(token), *options]
    return load_settings(TriggererSettings, argv, program="jetbridge triggerer")


def test_airflows_defaults_are_ours(tmp_path):
    plain = settings(tmp_path)
    assert (plain.capacity, plain.queues) == (1000, ())


def test_queues_and_capacity_are_flags(tmp_path):
    told = settings(tmp_path, "--capacity", "5", "--queues", "gpu, tpu,gpu")
    assert (told.capacity, told.queues) == (5, ("gpu", "tpu"))


@pytest.mark.parametrize("options", [("--capacity", "0"), ("--capacity", "100000"), ("--slots", "x")])
def test_what_makes_no_sense_is_said(tmp_path, capsys, options):
    with pytest.raises(SystemExit) as caught:
        settings(tmp_path, *options)
    assert caught.value.code == 2
    assert options[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD",
        "AIRFLOW__CORE__SQL_ALCHEMY_CONN",
        "AIRFLOW__CORE__FERNET_KEY_SECRET",
        "JETBRIDGE_AGENT_TOKEN_FILE",
        "_AIRFLOW_PROCESS_CONTEXT",
    ],
)
def test_no_spelling_of_the_planes_secrets_reaches_airflow(tmp_path, name):
    env = env_of({name: "planted"}, tmp_path)
    assert name not in env
    assert "planted" not in env.values()


def env_of(inherited, tmp_path):
    return airflow_env(inherited, gateway="https://g.example/", ca_file=None, data_dir=tmp_path)


def test_airflow_has_a_database_that_cannot_be_opened_and_a_key_of_its_own(tmp_path):
    one, other = env_of({}, tmp_path), env_of({}, tmp_path)
    assert one["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == NO_DATABASE
    assert one["AIRFLOW__CORE__FERNET_KEY"] != other["AIRFLOW__CORE__FERNET_KEY"]
    assert one["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "https://g.example/execution/"


def test_what_the_operator_sets_wins_where_it_breaks_nothing(tmp_path):
    env = env_of({"AIRFLOW__CORE__XCOM_BACKEND": "site.Backend", "PATH": "/bin"}, tmp_path)
    assert (env["AIRFLOW__CORE__XCOM_BACKEND"], env["PATH"]) == ("site.Backend", "/bin")


def test_the_limit_of_open_files_is_raised_as_far_as_allowed(monkeypatch):
    raised = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))
    module.raise_file_limit(2000)
    module.raise_file_limit(100)
    module.raise_file_limit(9999)
    assert raised == [(2000, 4096), (4096, 4096)]
