"""The parts of ``make compat``: what counts as a difference, and what is known of Airflow's examples."""

from __future__ import annotations

import importlib.util
import json
from contextlib import nullcontext

import pytest

from jetbridge.devstack.compat import command, corpus, side
from jetbridge.devstack.compat.comparison import (
    Observation,
    Outcome,
    differences_of_parsing,
    differences_of_runs,
    first_difference,
    without,
)


def seen(dags=None, errors=None, outcomes=None):
    return Observation(dags or {}, errors or {}, outcomes or {})


@pytest.mark.parametrize(
    ("one", "other", "where"),
    [
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}, ""),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, ".a[1].b: 2 and 3"),
        ({"a": 1}, {}, ".a: 1 and None"),
        ([1], [1, 2], ": [1] and [1, 2]"),
        (1, "1", ": 1 and 1"),
    ],
)
def test_the_first_difference_is_named_with_its_place(one, other, where):
    assert first_difference(one, other) == where


def test_fields_are_left_out_at_any_depth():
    value = {"keep": [{"target_time": 1, "id": 2}], "target_time": 3}
    assert without(value, frozenset({"target_time"})) == {"keep": [{"id": 2}]}


def test_dags_and_import_errors_of_one_side_alone_are_differences():
    local = seen({"a": {}, "both": {"v": 1}}, {"broken.py": "…"})
    remote = seen({"b": {}, "both": {"v": 2}})
    assert list(differences_of_parsing(local, remote, {})) == [
        "Dag a is missing remotely",
        "Dag b is there only remotely",
        "import error of broken.py is missing remotely",
        "Dag both is serialized differently at .v: 1 and 2",
    ]


def test_volatile_fields_are_volatile_in_their_dag_alone():
    local, remote = ({"x": {"t": n}, "y": {"t": n}} for n in (1, 2))
    found = list(differences_of_parsing(seen(local), seen(remote), {"x": frozenset({"t"})}))
    assert found == ["Dag y is serialized differently at .t: 1 and 2"]


def test_runs_are_compared_by_their_state_and_each_task_instances():
    def side(state, task):
        return seen(outcomes={"dag": Outcome(state, {"t": "success", "u": task})})

    assert list(differences_of_runs(side("success", "skipped"), side("success", "skipped"))) == []
    assert list(differences_of_runs(side("success", "skipped"), side("success", "success"))) == [
        "run of dag: u skipped with LocalExecutor, success remotely"
    ]
    assert list(differences_of_runs(side("success", "success"), side("running", "success"))) == [
        "run of dag: success with LocalExecutor, running remotely"
    ]
    assert list(differences_of_runs(side("success", "success"), seen())) == ["run of dag is missing remotely"]


def test_the_report_marks_differences_and_gives_each_reason_for_what_is_not_run():
    local, remote = seen({"dag": 1}, {"f.py": "x\nValueError: no"}), seen({"dag": 2}, {"f.py": "y"})
    lines = list(command.report(local, remote))
    assert [line for line in lines if line.startswith("DIFFERS")] == [
        "DIFFERS  Dag dag is serialized differently at : 1 and 2"
    ]
    assert "  f.py: ValueError: no (on both sides)" in lines
    assert all(f"  {dag_id}: {why}" in lines for dag_id, why in corpus.NOT_RUN.items())


def test_both_packages_of_examples_are_found():
    for bundle in json.loads(corpus.bundles()):
        assert list(corpus.Path(bundle["kwargs"]["path"]).glob("example_*.py"))


def test_what_is_known_of_examples_is_about_examples_that_exist():
    files = [path for package in corpus.PACKAGES.values() for path in corpus.folder_of(package).glob("*.py")]
    text = "\n".join(f"{path.stem}\n{path.read_text()}" for path in files)  # some are called like their file
    for dag_id in {*corpus.NOT_RUN, *corpus.VOLATILE_FIELDS, *corpus.LEFT_WAITING, *corpus.CONF}:
        assert dag_id in text, f"{dag_id} has left Airflow; take it from the list"


def test_the_examples_plugins_are_those_airflow_loads_with_them_but_the_listener():
    from airflow.plugins_manager import AirflowPlugin

    spec = importlib.util.spec_from_file_location(
        "plugins_of_examples", corpus.PLUGINS / "airflow_examples.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = {value for value in vars(module).values() if isinstance(value, type)} - {AirflowPlugin}
    assert all(issubclass(plugin, AirflowPlugin) for plugin in found)
    shipped = sorted(corpus.folder_of("airflow.example_dags.plugins").glob("*.py"))
    with_plugin = [path.stem for path in shipped if "(AirflowPlugin)" in path.read_text()]
    assert {plugin.__module__.rpartition(".")[2] for plugin in found} == {*with_plugin} - {"listener_plugin"}


@pytest.mark.parametrize(("remote", "code"), [({"dag": 1}, 0), ({"dag": 2}, 1)], ids=["same", "differs"])
def test_the_command_runs_both_sides_and_fails_when_they_differ(monkeypatch, capsys, remote, code):
    asked = []

    def observe(stack, chosen, _say):
        asked.append((stack, chosen("example_a"), chosen("other")))
        return seen({"dag": 1} if stack == "local" else remote)

    monkeypatch.setattr(side, "local", lambda _say: nullcontext("local"))
    monkeypatch.setattr(side, "parsed_files", lambda _stack: {"a.py"})
    monkeypatch.setattr(side, "remote", lambda _say, files: nullcontext(f"remote after {sorted(files)}"))
    monkeypatch.setattr(side, "observe", observe)
    assert command.main(["--only", "example_*"]) == code
    assert asked == [("local", True, False), ("remote after ['a.py']", True, False)]
    assert ("DIFFERS" in capsys.readouterr().out) == bool(code)


LEFT = corpus.LEFT_WAITING["example_sensors"][0]


@pytest.mark.parametrize(
    ("dag_id", "left", "is_waiting"),
    [
        ("example_sensors", [*LEFT.items()], True),
        ("example_sensors", [(task, "queued") for task in LEFT], False),
        ("example_sensors", [*LEFT.items(), ("another", None)], False),
        ("example_sensors", [("another", "running")], False),
        ("example_sensors", [], False),
        ("another", [*LEFT.items()], False),
    ],
)
def test_only_a_known_sensor_is_left_waiting_and_only_when_all_else_has_ended(
    monkeypatch, dag_id, left, is_waiting
):
    monkeypatch.setattr(side, "_rows", lambda *_: left)
    assert side._only_waits(None, dag_id) == is_waiting
