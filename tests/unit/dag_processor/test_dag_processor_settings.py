"""What an operator can set, and what Airflow's manager is given of it."""

import json

import pytest

from jetbridge.agent.settings import load_settings
from jetbridge.dag_processor.airflow_env import NO_DATABASE, airflow_env
from jetbridge.dag_processor.settings import DagProcessorSettings

BUNDLES = [{"name": "a", "classpath": "x.Y", "kwargs": {"path": "/dags"}}]


@pytest.fixture
def load(tmp_path):
    def load(*arguments, bundles=BUNDLES):
        path = tmp_path / "bundles.json"
        path.write_text(bundles if isinstance(bundles, str) else json.dumps(bundles))
        required = ["--gateway", "https://g.example", "--token-file", str(tmp_path / "token")]
        return load_settings(
            DagProcessorSettings,
            [*required, "--bundles", str(path), *arguments],
            program="jetbridge dag-processor",
        )

    return load


@pytest.mark.parametrize("bundles", ["", "not json", "{}", "[]", '["a"]', '[{"name": 1, "classpath": "x"}]'])
def test_bundles_that_are_none_are_refused_with_a_sentence(load, capsys, bundles):
    with pytest.raises(SystemExit):
        load(bundles=bundles)
    assert "bundles" in capsys.readouterr().err


def test_the_help_is_about_a_dag_processor(load, capsys):
    with pytest.raises(SystemExit):
        load("--help")
    text = capsys.readouterr().out
    assert "--parsing-processes" in text
    assert "--queues" not in text
    assert "--slots" not in text


def test_the_manager_gets_the_bundles_and_no_database_however_it_is_spelt(load):
    inherited = {
        "PATH": "/bin",
        "JETBRIDGE_AGENT_TOKEN_FILE": "/secret/token",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://plane",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD": "echo postgresql://plane",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": "postgresql://plane",
        "AIRFLOW__CORE__SQL_ALCHEMY_CONN": "postgresql://plane",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST_CMD": "echo []",
        "_AIRFLOW_PROCESS_CONTEXT": "server",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "7",
    }
    env = airflow_env(inherited, load("--parsing-processes", "5"))
    assert json.loads(env["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"]) == BUNDLES
    assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == NO_DATABASE
    assert env["AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES"] == "5"
    assert env["AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL"] == "7"
    assert not any("postgresql" in value for value in env.values())
    assert not [
        name for name in env if name.startswith("JETBRIDGE_AGENT_") or name == "_AIRFLOW_PROCESS_CONTEXT"
    ]


def test_two_agents_serialize_a_dag_alike(load, tmp_path):
    one = airflow_env({}, load("--data-dir", str(tmp_path / "one")))
    two = airflow_env({}, load("--data-dir", str(tmp_path / "two")))
    assert one["AIRFLOW__CORE__DAGS_FOLDER"] == two["AIRFLOW__CORE__DAGS_FOLDER"]
    assert one["PYTHONHASHSEED"] == two["PYTHONHASHSEED"] == "0"


def test_two_agents_keep_their_clones_of_bundles_apart(load, tmp_path):
    storage = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH"
    one, two = (airflow_env({}, load("--data-dir", str(tmp_path / name)))[storage] for name in ("a", "b"))
    assert one != two
