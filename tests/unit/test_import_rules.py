"""
Who may import whom, read from the source (design section 2).

Each image installs only what its members declare, and gateway, router and plane sentinel start
without Airflow. Both hold only as long as nobody imports across the lines drawn here.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT_AIRFLOW = {"dag-processor", "scheduler", "triggerer", "worker", "xcom"}


@dataclass(frozen=True)
class Member:
    """One member of the uv workspace."""

    directory: Path

    @property
    def name(self) -> str:
        return self.directory.name.replace("_", "-")

    @property
    def is_service(self) -> bool:
        return self.directory.parent.name == "services"

    @property
    def sources(self) -> list[Path]:
        return sorted((self.directory / "src").rglob("*.py"))

    @property
    def imports(self) -> dict[str, Path]:
        """Every module imported anywhere in the member, with one file that does it."""
        return {module: path for path in self.sources for module in imports_of(path)}

    @property
    def declared(self) -> set[str]:
        project = tomllib.loads((self.directory / "pyproject.toml").read_text())["project"]
        optional = [one for group in project.get("optional-dependencies", {}).values() for one in group]
        return {distribution_name(one) for one in [*project.get("dependencies", []), *optional]}


def distribution_name(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None, requirement
    return normal(name[0])


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imports_of(path: Path) -> Iterator[str]:
    """Yield imported modules in dotted form; ``from a import b`` yields ``a.b``, as b may be a module."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative imports hide who imports whom"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def members() -> list[Member]:
    return [Member(path.parent) for path in sorted(ROOT.glob("*/*/pyproject.toml")) if path.parent != ROOT]


MEMBERS = members()
every_member = pytest.mark.parametrize("member", MEMBERS, ids=[member.name for member in MEMBERS])


def ours(module: str) -> str | None:
    """Return the member that a module of ours belongs to, else None."""
    first, _, rest = module.partition(".")
    return rest.split(".")[0].replace("_", "-") if first == "jetbridge" else None


def test_the_rules_are_about_something():
    names = {member.name for member in MEMBERS}
    assert {"contracts", "bus", "gateway", "scheduler", "worker"} <= names
    assert all(member.sources for member in MEMBERS)


def test_contracts_import_nothing_of_ours():
    (contracts,) = [member for member in MEMBERS if member.name == "contracts"]
    assert {ours(module) for module in contracts.imports} <= {None, "contracts"}
    assert contracts.declared == {"msgspec"}


@every_member
def test_airflow_is_imported_only_where_it_is_installed(member):
    importing = {m: path for m, path in member.imports.items() if m.split(".")[0] == "airflow"}
    assert not importing or member.name in MAY_IMPORT_AIRFLOW, importing


@every_member
def test_services_never_import_each_other_and_libraries_no_service(member):
    services = {other.name for other in MEMBERS if other.is_service} - {member.name}
    wrong = {module: path for module, path in member.imports.items() if ours(module) in services}
    assert not wrong


@every_member
def test_each_member_declares_what_it_imports(member):
    undeclared = {
        module: str(path.relative_to(ROOT))
        for module, path in member.imports.items()
        if not is_provided(module, member)
    }
    assert not undeclared


def is_provided(module: str, member: Member) -> bool:
    top = module.split(".", maxsplit=1)[0]
    if top in sys.stdlib_module_names or top == "__future__":
        return True
    if (owner := ours(module)) is not None:
        return owner == member.name or f"jetbridge-{owner}" in member.declared
    return bool(distributions_of(module) & member.declared)


@cache
def distributions_of(module: str) -> frozenset[str]:
    """Return the distributions of which one must be declared for ``module``."""
    if module == "airflow" or module.startswith("airflow."):
        return airflow_distributions(module)
    top = module.split(".", maxsplit=1)[0]
    return frozenset(normal(name) for name in _distributions_by_package().get(top, []))


@cache
def _distributions_by_package() -> Mapping[str, list[str]]:
    return packages_distributions()  # reads what every installed distribution has


def airflow_distributions(module: str) -> frozenset[str]:
    # Several distributions share the package `airflow`, so the package alone does not tell which.
    parts = module.split(".")
    if parts[1:2] == ["sdk"]:
        return frozenset({"apache-airflow-task-sdk"})
    if parts[1:2] == ["providers"]:
        return frozenset({f"apache-airflow-providers-{parts[2]}"})
    return frozenset({"apache-airflow-core", "apache-airflow"})


@every_member
def test_jetbridge_stays_a_namespace_package(member):
    # One __init__.py here would hide every other member's modules from an importer.
    assert not (member.directory / "src" / "jetbridge" / "__init__.py").exists()


def test_dag_files_are_plain_airflow():
    dag_files = sorted((ROOT / "examples" / "dags").rglob("*.py"))
    assert dag_files
    wrong = {path.name: module for path in dag_files for module in imports_of(path) if ours(module)}
    assert not wrong


def test_a_forbidden_import_would_be_noticed(tmp_path):
    source = tmp_path / "libs" / "sly" / "src" / "jetbridge" / "sly" / "late.py"
    source.parent.mkdir(parents=True)
    source.write_text("def f():\n    from airflow.models import DagRun\n    import nats\n")
    (tmp_path / "libs" / "sly" / "pyproject.toml").write_text("[project]\nname = 'jetbridge-sly'\n")
    sly = Member(tmp_path / "libs" / "sly")
    assert set(sly.imports) == {"airflow.models.DagRun", "nats"}
    assert not is_provided("nats", sly)
    assert not is_provided("airflow.models.DagRun", sly)


MAY_IMPORT_FASTSTREAM = {
    "libs/bus/src/jetbridge/bus/broker.py",
    "services/scheduler/src/jetbridge/scheduler/bridge/app.py",
    "services/scheduler/src/jetbridge/scheduler/bridge/subscribers.py",
    "services/scheduler/src/jetbridge/scheduler/history.py",
    "services/scheduler/src/jetbridge/scheduler/session.py",
}


def test_faststream_is_imported_only_where_it_subscribes():
    """Half a second of a processor at each start, and memory of each process; see decision 133."""
    importing = {
        str(path.relative_to(ROOT))
        for member in MEMBERS
        for path in member.sources
        if any(module.startswith(("faststream", "jetbridge.bus.broker")) for module in imports_of(path))
    }
    assert importing == MAY_IMPORT_FASTSTREAM
