"""A Git server with the Dags in it, as an execution plane has one."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from jetbridge.devstack.environment import base_environment
from jetbridge.devstack.errors import DevStackError
from jetbridge.devstack.ports import free_port
from jetbridge.devstack.probes import accepts_connections
from jetbridge.devstack.processes import Command, ManagedProcess, Supervisor

_BRANCH = "main"
_REPOSITORY = "dags.git"
_IDENTITY = ("-c", "user.name=devstack", "-c", "user.email=devstack@localhost", "-c", "commit.gpgsign=false")


@dataclass(frozen=True)
class GitServer:
    """``git daemon`` with one repository. ``clone`` is where somebody works; :meth:`push` publishes it."""

    process: ManagedProcess
    url: str
    clone: Path

    def push(self, message: str = "change") -> str:
        """Commit everything in ``clone``, push it, and return the commit."""
        _git(self.clone, "add", "--all")
        _git(self.clone, "commit", "--quiet", "--message", message)
        _git(self.clone, "push", "--quiet", "origin", _BRANCH)
        return _git(self.clone, "rev-parse", "HEAD")

    def bundle_config(self, name: str, refresh_seconds: int = 3) -> str:
        """
        Return the value of ``dag_bundle_config_list`` for this repository.

        Airflow looks every 5 s whether a bundle is due, so 3 s means that it is each time.
        """
        bundle = {
            "name": name,
            "classpath": "airflow.providers.git.bundles.git.GitDagBundle",
            "kwargs": {
                "repo_url": self.url,
                "tracking_ref": _BRANCH,
                "refresh_interval": refresh_seconds,
            },
        }
        return json.dumps([bundle])


def start(supervisor: Supervisor, directory: Path, dags: Path, host: str) -> GitServer:
    """Put ``dags`` into a new repository and serve it; raises :class:`DevStackError` without git."""
    if shutil.which("git") is None:
        msg = "Dags from a Git server need git; install it, or leave them in their folder"
        raise DevStackError(msg)
    root, clone, port = directory / "server", directory / "clone", free_port(host)
    root.mkdir(parents=True)
    _git(root, "init", "--quiet", "--bare", f"--initial-branch={_BRANCH}", _REPOSITORY)
    shutil.copytree(dags, clone, ignore=shutil.ignore_patterns("__pycache__"))
    _git(clone, "init", "--quiet", f"--initial-branch={_BRANCH}")
    _git(clone, "remote", "add", "origin", str(root / _REPOSITORY))
    argv = ["git", "daemon", "--reuseaddr", "--export-all", f"--listen={host}", f"--port={port}"]
    process = supervisor.start(
        "git-daemon",
        Command(argv=[*argv, f"--base-path={root}", str(root)], env=base_environment({})),
        ready=accepts_connections(host, port),
    )
    server = GitServer(process, f"git://{host}:{port}/{_REPOSITORY}", clone)
    server.push("first")
    return server


def _git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 - our own words
        ["git", "-C", str(directory), *_IDENTITY, *arguments],  # noqa: S607 - found on PATH, as for everybody
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        msg = f"git {' '.join(arguments)} failed: {done.stderr.strip()}"
        raise DevStackError(msg)
    return done.stdout.strip()
