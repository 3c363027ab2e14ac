from __future__ import annotations

import socket

import pytest

from jetbridge.agent.settings import AgentSettings, default_name, load_settings

GOOD = ["--gateway", "https://gw.example.com", "--token-file", "/etc/token"]


def load(*argv):
    return load_settings(AgentSettings, [*GOOD, *argv], program="jetbridge agent")


def test_flags_and_defaults():
    settings = load("--queues", "a, b,a", "--labels", "gpu=yes,zone=eu 1", "--slots", "3", "--name", "w-1")
    assert settings.queues == ("a", "b")
    assert settings.labels == {"gpu": "yes", "zone": "eu 1"}
    assert settings.slots == 3
    assert settings.data_dir.name == "w-1"
    assert load().queues == ("default",)


def test_environment_and_a_flag_that_wins(monkeypatch):
    monkeypatch.setenv("JETBRIDGE_AGENT_QUEUES", "x,y")
    monkeypatch.setenv("JETBRIDGE_AGENT_SLOTS", "7")
    settings = load("--slots", "8")
    assert settings.queues == ("x", "y")
    assert settings.slots == 8


@pytest.mark.parametrize(
    ("host", "name"),
    [("Build_07.example.com", "build-07"), ("-x-", "x"), ("y" * 80, "y" * 63), ("???", "agent")],
)
def test_the_host_name_becomes_a_dns_label(monkeypatch, host, name):
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    assert default_name() == name
    assert load().name == name


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--gateway", "http://gw.example.com"], "must begin with https://"),
        (["--gateway", "http://10.0.0.1", "--allow-http"], "must begin with https://"),
        (["--gateway", "http://127.0.0.1:8080"], "must begin with https://"),
        (["--gateway", "https://user:pw@gw"], "and nothing else"),
        (["--gateway", "gw.example.com"], "and nothing else"),
        (["--slots", "0"], "--slots (or JETBRIDGE_AGENT_SLOTS)"),
        (["--slots", "many"], "--slots (or JETBRIDGE_AGENT_SLOTS)"),
        (["--name", "Not_A_Label"], "--name (or JETBRIDGE_AGENT_NAME)"),
        (["--queues", " , "], "--queues (or JETBRIDGE_AGENT_QUEUES)"),
        (["--labels", "novalue"], "key=value"),
        (["--ca-file", "/does/not/exist"], "cannot be read"),
        (["--bogus"], "unrecognized arguments: --bogus"),
    ],
)
def test_wrong_settings_are_explained_and_exit_2(capsys, argv, said):
    with pytest.raises(SystemExit) as stopped:
        load(*argv)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert "pw" not in error


def test_missing_settings_are_named(capsys):
    with pytest.raises(SystemExit) as stopped:
        load_settings(AgentSettings, [], program="jetbridge agent")
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "--gateway (or JETBRIDGE_AGENT_GATEWAY): Field required" in error
    assert "--token-file (or JETBRIDGE_AGENT_TOKEN_FILE): Field required" in error


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "127.9.9.9"])
def test_http_is_possible_on_loopback_when_asked_for(host):
    assert load("--gateway", f"http://{host}:1", "--allow-http").gateway == f"http://{host}:1"
