"""What can be known of the images without building them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
IMAGES = ROOT / "k8s" / "images"
PACKAGES = {
    "plane": {"jetbridge-gateway", "jetbridge-router", "jetbridge-sentinel"},
    "airflow": {"jetbridge-scheduler"},
    "agent": {"jetbridge-worker", "jetbridge-triggerer", "jetbridge-dag-processor", "jetbridge-sentinel"},
}
DOCKERFILES = sorted(IMAGES.glob("*/Dockerfile"))


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return (instruction, arguments), continued lines joined, comments dropped."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined if line)]


def stages(path: Path) -> list[list[tuple[str, str]]]:
    """Return the instructions of each stage, FROM first; what comes before the first FROM is left out."""
    found: list[list[tuple[str, str]]] = []
    for instruction in instructions(path):
        if instruction[0] == "FROM":
            found.append([])
        if found:
            found[-1].append(instruction)
    return found


def arguments(path: Path) -> dict[str, str]:
    """Return the defaults of ARG."""
    return dict(rest.split("=", 1) for word, rest in instructions(path) if word == "ARG" and "=" in rest)


def expand(text: str, values: dict[str, str]) -> str:
    """Replace ${NAME}."""
    return re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], text)


def copied(stage: list[tuple[str, str]]) -> Iterator[str]:
    """Return what a stage copies from the build context."""
    for word, rest in stage:
        words = [part for part in rest.split() if not part.startswith("--")]
        if word == "COPY" and "--from=" not in rest:
            yield from words[:-1]


def test_there_is_one_for_each_family() -> None:
    assert {path.parent.name for path in DOCKERFILES} == {*PACKAGES, "agent-extended"}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_what_is_copied_exists_and_reaches_the_builder(path: Path) -> None:
    context = path.parent if path.parent.name == "agent-extended" else ROOT
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for source in (source for stage in stages(path) for source in copied(stage)):
        assert (context / source).exists(), source
        assert context != ROOT or any(source == s or source.startswith(f"{s}/") for s in sent), source


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_bases_are_pinned_and_the_result_runs_as_nobody_special(path: Path) -> None:
    names: set[str] = set()
    for stage in stages(path):
        base, _, name = stage[0][1].partition(" AS ")
        base = expand(base, arguments(path))
        assert base in names | {"scratch"} or re.fullmatch(r"[a-z0-9./-]+:\d[\w.-]*", base), base
        names.add(name)
    users = [rest for word, rest in stages(path)[-1] if word == "USER"]
    assert users[-1] == "50000:50000"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_no_secret_and_no_download_but_of_packages(path: Path) -> None:
    for word, rest in instructions(path):
        assert word != "ADD"
        elsewhere = rest.replace("http://127.0.0.1:", "")  # a health check asks its own container
        assert not re.search(r"https?://|curl|wget|password|token=", elsewhere, re.IGNORECASE)


def _folder(package: str) -> str:
    name = package.removeprefix("jetbridge-").replace("-", "_")
    return f"services/{name}" if (ROOT / "services" / name).is_dir() else f"libs/{name}"


@pytest.mark.parametrize(("role", "packages"), PACKAGES.items())
def test_the_packages_are_members_and_the_sources_are_their_own(role: str, packages: set[str]) -> None:
    path = IMAGES / role / "Dockerfile"
    for command in (
        rest for word, rest in instructions(path) if word == "RUN" and rest.startswith("uv sync")
    ):
        assert set(re.findall(r"--package (\S+)", command)) == packages
    folders = {_folder(package) for package in packages}
    copies = {source for source in copied(stages(path)[-3]) if "/" in source}
    assert copies == {f for f in folders if f.startswith("services/")} | {
        f"{f}/pyproject.toml" for f in folders
    }
    for folder in folders:
        assert tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]["name"] in packages


@pytest.mark.parametrize("role", PACKAGES)
def test_the_result_comes_from_its_final_stage_alone(role: str) -> None:
    final = stages(IMAGES / role / "Dockerfile")[-1]
    labels = " ".join(rest for word, rest in final if word == "LABEL")
    for name in ("title", "description", "licenses", "version", "revision", "base.name"):
        assert f"org.opencontainers.image.{name}=" in labels
    assert final[0][1].endswith(f" AS {role}")
    assert not any(word == "RUN" for word, _ in final)


def test_pins_are_the_same_everywhere() -> None:
    uv = re.search(r"UV_VERSION := (\S+)", (ROOT / "Makefile").read_text())
    assert uv is not None
    for role in PACKAGES:
        given = arguments(IMAGES / role / "Dockerfile")
        assert given["UV_VERSION"] == uv[1]
        assert given["DEBIAN"] == arguments(IMAGES / "plane" / "Dockerfile")["DEBIAN"]


def test_the_python_of_the_images_is_the_one_tests_run_on() -> None:
    debian = arguments(IMAGES / "plane" / "Dockerfile")["DEBIAN"]
    assert debian.startswith("debian:12")  # whose Python is 3.11
    assert (ROOT / ".python-version").read_text().strip() == "3.11"
