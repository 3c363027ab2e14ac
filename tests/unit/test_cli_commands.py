"""The ``jetbridge`` command finds, explains and runs what is installed, and imports nothing else."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from jetbridge.cli.main import GROUP, installed_commands, run


def _commands(tmp_path, monkeypatch, **sources):
    monkeypatch.syspath_prepend(tmp_path)
    found = {}
    for name, source in sources.items():
        module = f"cli_test_{tmp_path.name.replace('-', '_')}_{name}"
        (tmp_path / f"{module}.py").write_text(source)
        found[name] = EntryPoint(name=name, value=f"{module}:main", group=GROUP)
    return found


def test_the_help_lists_each_command_with_the_first_line_of_its_module(tmp_path, monkeypatch, capsys):
    commands = _commands(
        tmp_path,
        monkeypatch,
        bus='"""``jetbridge bus``: streams and buckets.\n\nMore."""\nraise RuntimeError("imported")\n',
        worker='"""Run the worker."""\nraise RuntimeError("imported")\n',
    )
    assert run(["--help"], commands) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  bus     streams and buckets." in lines
    assert "  worker  Run the worker." in lines


def test_no_arguments_show_the_help(tmp_path, monkeypatch, capsys):
    assert run([], _commands(tmp_path, monkeypatch, bus='"""Bus."""')) == 0
    assert "usage: jetbridge COMMAND" in capsys.readouterr().out


def test_the_rest_of_the_line_goes_to_the_command_and_its_code_comes_back(tmp_path, monkeypatch, capsys):
    commands = _commands(tmp_path, monkeypatch, token="def main(argv):\n    print(argv)\n    return 7\n")
    assert run(["token", "create", "--name", "x"], commands) == 7
    assert capsys.readouterr().out == "['create', '--name', 'x']\n"


@pytest.mark.parametrize(("typed", "meant"), [("wroker", "worker"), ("tokens", "token")])
def test_a_mistyped_command_names_the_nearest_and_exits_2(typed, meant, tmp_path, monkeypatch, capsys):
    commands = _commands(tmp_path, monkeypatch, worker="", token="")
    assert run([typed], commands) == 2
    error = capsys.readouterr().err
    assert f"there is no command {typed!r}" in error
    assert meant in error


def test_something_quite_else_lists_what_there_is(tmp_path, monkeypatch, capsys):
    assert run(["zzz"], _commands(tmp_path, monkeypatch, worker="", bus="")) == 2
    assert "installed here: worker, bus" in capsys.readouterr().err


def test_a_module_that_cannot_be_parsed_is_listed_all_the_same(tmp_path, monkeypatch, capsys):
    assert run([], _commands(tmp_path, monkeypatch, broken="def (:")) == 0
    assert "  broken" in capsys.readouterr().out


def test_an_interrupt_is_an_exit_code_and_no_stack_trace(tmp_path, monkeypatch):
    commands = _commands(tmp_path, monkeypatch, demo="def main(argv):\n    raise KeyboardInterrupt\n")
    assert run(["demo"], commands) == 130


def test_the_installed_command_starts_without_importing_any_command():
    script = (
        "import sys\n"
        "from jetbridge.cli.main import main\n"
        "assert main(['--help']) == 0\n"
        "heavy = {'airflow', 'fastapi', 'nats', 'faststream', 'httpx', 'minio', 'structlog', 'pydantic'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in installed_commands():
        assert f"  {name}" in done.stdout


def test_every_installed_command_can_be_loaded():
    for name, entry in installed_commands().items():
        assert callable(entry.load()), name
