"""The Tiltfile, evaluated: what it names exists, and it keeps away from clusters that are not local."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import starlark
from chartkit.policies import POLICIES
from chartkit.rendering import CHARTS, NAMESPACE, ROOT, Manifest, PodTemplate, pods, title
from chartkit.tiltfile import Recording, applied, evaluate, settings_example
from chartkit.wiring import WIRINGS

from jetbridge.bus import agents_cli

WRITABLE_ON_PURPOSE = "containers_are_locked_down"
PATIENCE_SECONDS = 60


@pytest.fixture(scope="module", params=[{}, {"grafana": True}, {"jaeger": False}], ids=str)
def tilt(request: pytest.FixtureRequest) -> Recording:
    """Return the recording of the Tiltfile as it is, and with settings that add or take something."""
    return evaluate(Recording(own_settings=request.param))


@pytest.fixture(scope="module")
def objects(tilt: Recording) -> tuple[Manifest, ...]:
    """Return everything that Tilt would apply."""
    return applied(tilt)


@pytest.mark.parametrize("context", ["kind-jetbridge", "k3d-dev"])
def test_local_clusters_are_allowed(context: str) -> None:
    assert evaluate(Recording(context=context)).of("allow_k8s_contexts") == [((context,), {})]


@pytest.mark.parametrize("context", ["production", "gke_project_kind-1", "minikube", ""])
def test_other_clusters_are_not(context: str) -> None:
    with pytest.raises(starlark.StarlarkError, match="neither kind nor k3d"):
        evaluate(Recording(context=context))


def test_personal_settings_are_out_of_git_and_checked(tilt: Recording) -> None:
    ((path,), _) = tilt.of("read_json")[0]
    ignored = subprocess.run(["git", "check-ignore", path], cwd=ROOT, check=False, capture_output=True)
    assert ignored.returncode == 0
    evaluate(Recording(own_settings=settings_example()))
    with pytest.raises(starlark.StarlarkError, match="there is no setting worker;"):
        evaluate(Recording(own_settings={"worker": 1}))


def test_every_path_exists(tilt: Recording) -> None:
    paths = {"tilt/settings.example.json"}
    for _, arguments in tilt.of("docker_build"):
        paths |= {arguments["dockerfile"], *arguments["only"]}
    paths |= {path for args, _ in tilt.of("fall_back_on") for path in args[0]}
    paths |= {args[0] for args, _ in tilt.of("sync")} | {args[0] for args, _ in tilt.of("helm")}
    paths |= {path for _, arguments in tilt.of("helm") for path in arguments["values"]}
    paths |= {args[0][1] for args, _ in tilt.of("local")} | {args[0] for args, _ in tilt.of("watch_file")}
    paths |= {args[0] for args, _ in tilt.of("k8s_yaml") if isinstance(args[0], str)}
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_images_are_those_of_the_charts_and_carry_what_is_synced(
    tilt: Recording, objects: tuple[Manifest, ...]
) -> None:
    used = {container["image"].partition(":")[0] for pod in pods(objects) for container in pod.containers}
    built = {args[0]: arguments for args, arguments in tilt.of("docker_build")}
    assert built.keys() == {name for name in used if name.startswith("jetbridge-")}
    for arguments in built.values():
        text = (ROOT / arguments["dockerfile"]).read_text()
        stage = text.partition(f" AS {arguments['target']}\n")[2].partition("\nFROM ")[0]
        assert stage
        copies = [line.split()[-2:] for line in text.splitlines() if line.startswith("COPY ")]
        for step in arguments["live_update"]:
            if step["call"] == "sync":
                source, target = step["args"]
                in_image = [t if t.startswith("/") else f"/src/{t}" for s, t in copies if s == source]
                assert target in in_image, (source, target)
                assert source in arguments["only"]
        assert arguments["live_update"][0]["call"] == "fall_back_on"  # Tilt wants it first


def test_services_are_workloads_with_those_ports(tilt: Recording, objects: tuple[Manifest, ...]) -> None:
    workloads = {pod.owner["metadata"]["name"]: pod for pod in pods(objects) if pod.is_long_running}
    rows = {args[0]: arguments for args, arguments in tilt.of("k8s_resource")}
    assert rows.keys() == workloads.keys()
    taken: list[int] = []
    for name, arguments in rows.items():
        have = {p["containerPort"] for c in workloads[name].containers for p in c.get("ports", [])}
        forwards = [forward["args"] for forward in arguments["port_forwards"]]
        assert {port for _, port in forwards} <= have
        taken += [local for local, _ in forwards]
        assert set(arguments["resource_deps"]) <= workloads.keys()
        assert len(arguments["labels"]) == 1
    assert len(taken) == len(set(taken))


def test_what_is_applied_fits_together(objects: tuple[Manifest, ...]) -> None:
    without_tests = tuple(item for item in objects if item["kind"] != "Pod")
    for wiring in WIRINGS:
        # A namespace has no labels of ours, and Jaeger, an outsider, no policy.
        outsiders = ("Deployment/jaeger is under 0 network policies",)
        assert [text for text in wiring(without_tests, frozenset()) if text not in outsiders] == []
    for policy in POLICIES:
        if policy.__name__ != WRITABLE_ON_PURPOSE:
            assert list(policy(objects)) == []


def test_nothing_random_is_rendered(tilt: Recording, objects: tuple[Manifest, ...]) -> None:
    assert applied(tilt) == objects


def test_buttons_act_on_what_is_there(tilt: Recording, objects: tuple[Manifest, ...]) -> None:
    have = {title(item).lower() for item in objects}
    labels = {f"{key}={value}" for pod in pods(objects) for key, value in pod.labels.items()}
    for _, arguments in tilt.of("local_resource"):
        command = arguments["cmd"]
        assert command[:5] == ["kubectl", "--context", "kind-jetbridge", "--namespace", NAMESPACE]
        assert (arguments["auto_init"], arguments["trigger_mode"]) == (False, "manual")
        for word, following in itertools.pairwise(command):
            if word == "--selector":
                assert following in labels
            if word == "networkpolicy":
                assert f"networkpolicy/{following}" in have
            if following.startswith("deployment/"):
                assert following in have
        if "agents" in command:
            _check_agents(command, objects)
        if "dags" in command:
            source = (ROOT / "examples" / "dags" / f"{command[-1]}.py").read_text()
            assert f"def {command[-1]}" in source or f'dag_id="{command[-1]}"' in source


def _check_agents(command: list[str], objects: tuple[Manifest, ...]) -> None:
    """`jetbridge agents` is in that pod's image, understands the words, and means the workers."""
    (gateway,) = (pod for pod in pods(objects) if pod.title.lower() == command[command.index("exec") + 1])
    program, *words = command[command.index("--") + 1 :]
    assert (gateway.containers[0]["image"].partition(":")[0], program) == ("jetbridge-plane", "jetbridge")
    arguments = agents_cli.parser().parse_args(words[1:])
    if arguments.command != "list":
        served = [pod.title for pod in pods(objects) if arguments.queue in _queues(pod)]
        assert served == ["Deployment/jetbridge-agents-worker-default"]


def _queues(pod: PodTemplate) -> list[str]:
    values = [
        entry.get("value", "")
        for container in pod.containers
        for entry in container.get("env", [])
        if entry["name"] == "JETBRIDGE_AGENT_QUEUES"
    ]
    return [queue for value in values for queue in value.split(",")]


def test_a_button_drains_and_another_brings_back(tilt: Recording) -> None:
    commands = {args[0]: arguments["cmd"] for args, arguments in tilt.of("local_resource")}
    words = {
        name: command[command.index("agents") + 1]
        for name, command in commands.items()
        if "agents" in command
    }
    assert words["drain the workers"] == "drain"
    assert words["let the workers work again"] == "uncordon"
    assert "restart" in commands["restart the workers"]


def test_ci_runs_the_example_when_everything_is_ready(tilt: Recording) -> None:
    ci = evaluate(Recording(subcommand="ci", own_settings=tilt.own_settings))
    (added,) = ci.of("local_resource")[len(tilt.of("local_resource")) :]
    assert added[0] == ("the example runs",)
    assert set(added[1]["resource_deps"]) == {args[0] for args, _ in ci.of("k8s_resource")}
    assert added[1]["cmd"][:3] == ["python3", "tilt/example.py", "kubectl"]
    assert "trigger_mode" not in added[1]  # so Tilt runs it and waits for it


@pytest.mark.parametrize(("state", "code"), [("success", 0), ("failed", 1)])
def test_the_example_is_run_to_its_end(tmp_path: Path, state: str, code: int) -> None:
    """With a stand-in for kubectl: the Dag is not known at first, and the run takes a while."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        f"""#!/bin/sh
cd {tmp_path}
echo "$*" >> asked
case "$*" in
  *unpause*) [ "$(grep -c unpause asked)" -gt 1 ] ;;
  *trigger*) echo "$*" | sed 's/.*--run-id //' > run_id ;;
  *) [ "$(grep -c list-runs asked)" -gt 1 ] && now={state} || now=running
     echo "[a warning] of a provider"
     printf '[{{"run_id": "%s", "state": "%s"}}]' "$(cat run_id)" "$now" ;;
esac
"""
    )
    kubectl.chmod(0o755)
    lines = [f"import sys; sys.path.insert(0, {str(ROOT / 'tilt')!r}); import example"]
    lines += [
        "example.PAUSE_SECONDS = 0.05",
        f"sys.exit(example.main([{str(kubectl)!r}, '--namespace', 'x']))",
    ]
    program = "\n".join(lines)
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert (done.returncode, done.stdout) == (code, f"orders: {state}\n")
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0] == "--namespace x exec deployment/jetbridge-scheduler -- airflow dags unpause orders"
    assert [line.split()[7] for line in asked] == ["unpause", "unpause", "trigger", "list-runs", "list-runs"]


def test_every_service_of_the_charts_is_reloaded(objects: tuple[Manifest, ...]) -> None:
    text = (ROOT / "k8s" / "images" / "dev" / "reload.py").read_text()
    for pod in pods(objects):
        for container in pod.spec["containers"]:
            if pod.is_long_running and container["image"].startswith("jetbridge-"):
                words = container["args"]
                in_full = words[0] in {"airflow", "jetbridge"}
                command = (words[0], words[1]) if in_full else ("jetbridge", words[0])
                assert str(command).replace("'", '"') in text


def test_charts_are_the_ones_of_the_repository(tilt: Recording) -> None:
    assert {ROOT / args[0] for args, _ in tilt.of("helm")} == {
        CHARTS / "jetbridge-plane",
        CHARTS / "jetbridge-agents",
    }
