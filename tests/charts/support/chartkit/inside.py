"""
Becomes a container's first process: started as root in new mount and PID namespaces, with a JSON file.

Puts the mounts in place, makes the image's root read-only, changes into it, gives up root for good, and runs
the command. Standard library only: after the change of root there is no other.
"""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PR_SET_NO_NEW_PRIVS = 38


def mount(*arguments: str) -> None:
    """Call mount(8); raises subprocess.CalledProcessError."""
    subprocess.run(["mount", *arguments], check=True)


def prepare(root: Path, mounts: list[dict[str, Any]]) -> None:
    """Lay everything out below ``root`` as a kubelet and its runtime do."""
    mount("--bind", str(root), str(root))
    for entry in mounts:
        target, source = root / entry["target"].lstrip("/"), Path(entry["source"])
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        mount("--bind", str(source), str(target))
        if entry["read_only"]:
            mount("-o", "remount,bind,ro", str(target))
    (root / "proc").mkdir(exist_ok=True)
    mount("-t", "proc", "proc", str(root / "proc"))
    mount("--rbind", "/dev", str(root / "dev"))
    mount("-o", "remount,bind,ro", str(root))


def give_up_root(user: int, group: int) -> None:
    """Become an ordinary user, with no way back."""
    os.setgroups([group])
    os.setgid(group)
    os.setuid(user)
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")


def main(spec_file: str) -> None:
    """Do it; does not return."""
    spec = json.loads(Path(spec_file).read_text())
    prepare(Path(spec["root"]), spec["mounts"])
    os.chroot(spec["root"])
    os.chdir(spec["directory"])
    os.umask(0o022)
    give_up_root(spec["user"], spec["group"])
    os.execvpe(spec["argv"][0], spec["argv"], spec["env"])  # noqa: S606 - the container's own command


if __name__ == "__main__":
    main(sys.argv[1])
