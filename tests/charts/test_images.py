"""
The `uv` commands of each image's build stage, run here as they stand, and what they install, started.

Not the images themselves; docs/kubernetes.md says how those are built without a Docker engine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from chartkit.rendering import ROOT

MIB = 1024 * 1024
PREFIX = "/opt/jetbridge"
FAMILIES = {"plane": 110, "airflow": 450, "agent": 450}
"""
Largest environment in MiB. The goals are for whole images: 150 MB for the plane, of which its root takes
some 45, and 600 MB for agents, of which Debian and Python take some 110.
"""
COMMANDS = {
    "plane": [
        "jetbridge gateway --help",
        "jetbridge router --help",
        "jetbridge sentinel plane --help",
        "jetbridge agents --help",
        "jetbridge bus --help",
        "jetbridge token --help",
    ],
    "airflow": ["jetbridge bridge --help", "airflow version"],
    "agent": [
        "jetbridge worker --help",
        "jetbridge triggerer --help",
        "jetbridge dag-processor --help",
        "jetbridge sentinel site --help",
        "pip --version",
    ],
}


@dataclass(frozen=True)
class Built:
    """An environment made as the image's build stage makes it."""

    role: str
    path: Path
    source: Path

    def run(self, command: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment as the image would: nothing else on PATH but the system."""
        name, *words = command.split()
        env = {"PATH": f"{self.path / 'bin'}:/usr/bin:/bin", "HOME": str(self.source), **extra}
        env |= {name: os.environ[name] for name in os.environ if name.startswith(("SSL_", "PIP_"))}
        argv = [str(self.path / "bin" / name), *words]
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=True, timeout=300)

    @property
    def mebibytes(self) -> float:
        """Return the size of all files."""
        return sum(file.lstat().st_size for file in self.path.rglob("*") if file.is_file()) / MIB


def build_stage(role: str) -> list[tuple[str, str]]:
    """Return the COPY and RUN uv instructions of the stage `build`, in order."""
    text = (ROOT / "k8s" / "images" / role / "Dockerfile").read_text()
    stage = text.partition(" AS build\n")[2].partition("\nFROM ")[0]
    lines = [line for line in stage.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [
        (word, rest)
        for word, _, rest in (line.partition(" ") for line in joined)
        if word == "COPY" or rest.startswith("uv ")
    ]


def build(role: str, directory: Path) -> Built:
    """Follow the build stage in a directory of its own."""
    source, target = directory / "src", directory / "environment"
    source.mkdir()
    env = os.environ | {
        "UV_PROJECT_ENVIRONMENT": str(target),
        "UV_PYTHON": sys.base_prefix + "/bin/python3",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_COMPILE_BYTECODE": "1",
    }
    env.pop("VIRTUAL_ENV", None)
    for word, rest in build_stage(role):
        if word == "COPY":
            *names, destination = rest.split()
            for name in names:
                _copy(ROOT / name, source / destination / ("" if len(names) == 1 else name))
        else:
            command = rest.replace(PREFIX, str(target))
            subprocess.run(["/bin/sh", "-euc", command], cwd=source, env=env, check=True, timeout=600)
    return Built(role, target, source)


def _copy(source: Path, destination: Path) -> None:
    if source.is_dir():
        ignore = shutil.ignore_patterns("__pycache__", ".venv")
        shutil.copytree(source, destination, ignore=ignore, dirs_exist_ok=True)
    else:
        target = destination / source.name if not destination.suffix else destination
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


@pytest.mark.parametrize("role", FAMILIES)
def test_an_image_says_how_it_is_well_and_what_it_is(role: str) -> None:
    text = (ROOT / "k8s" / "images" / role / "Dockerfile").read_text()
    final = text.rpartition("\nFROM ")[2]
    assert re.search(r'^HEALTHCHECK .*CMD \["jetbridge-alive"', final, re.MULTILINE)
    assert "JETBRIDGE_PULSE_FILE=/tmp/" in final
    assert "USER 50000:50000" in final
    for label in ("title", "description", "licenses", "version", "revision", "base.name"):
        assert f"org.opencontainers.image.{label}=" in final


@pytest.fixture(scope="module", params=FAMILIES)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """Return each image's environment in turn, and delete it afterwards: together they are a gigabyte."""
    directory = tmp_path_factory.mktemp(request.param)
    yield build(request.param, directory)
    shutil.rmtree(directory)


def test_it_starts_is_small_and_whole(built: Built, record_property: pytest.RecordProperty) -> None:
    for command in COMMANDS[built.role]:
        assert built.run(command).stdout
    record_property("size", f"{built.role}: {built.mebibytes:.0f} MiB")
    assert built.mebibytes < FAMILIES[built.role]
    _is_installed_not_linked(built)
    if built.role == "agent":
        _can_be_extended(built)


def _is_installed_not_linked(built: Built) -> None:
    # The build stage's sources are not in the image, so nothing may point to them.
    links = [str(path) for path in built.path.rglob("*.pth") if str(built.source) in path.read_text()]
    assert links == []
    packages = {path.name for path in (built.path / "lib").glob("python3.*/site-packages/jetbridge/*")}
    assert "devstack" not in packages
    assert ("worker" in packages) == (built.role == "agent")
    has_airflow = bool(list(built.path.glob("lib/python3.*/site-packages/airflow")))
    assert has_airflow == (built.role != "plane")


def _can_be_extended(built: Built) -> None:
    constraints = built.path / "constraints.txt"
    pinned = re.search(r"^apache-airflow-task-sdk==(\S+)", constraints.read_text(), re.MULTILINE)
    assert pinned is not None
    requirements = ROOT / "k8s" / "images" / "agent-extended" / "requirements.txt"
    built.run(f"pip install --quiet --requirement {requirements}", PIP_CONSTRAINT=str(constraints))
    listed = built.run("pip list --format freeze").stdout
    assert "apache-airflow-providers-http==" in listed
    assert f"apache-airflow-task-sdk=={pinned[1]}\n" in listed
    with pytest.raises(subprocess.CalledProcessError) as refused:
        built.run("pip install apache-airflow-core==3.2.0", PIP_CONSTRAINT=str(constraints))
    assert "conflict" in refused.value.stderr.lower()
