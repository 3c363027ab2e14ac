"""
``jetbridge-alive``: says by its exit code whether the process of this container is well.

For probes of kubelets and container engines, which run it in the container; it needs no port. Processes of
ours touch a file each second, see ``status``. Of others, Airflow's, it asks the addresses that it is given.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

PULSE_FILE = "JETBRIDGE_PULSE_FILE"
"""Where the file is; the images set it. Unset, nothing is touched."""

STUCK_SECONDS = 30.0
"""An event loop that has not turned for this long does nothing any more, heartbeats included."""

_ANSWER_SECONDS = 5.0


def touch_pulse() -> None:
    """Note that this process' loop turned, where that is to be noted."""
    if path := os.environ.get(PULSE_FILE):
        try:
            Path(path).touch()
        except OSError:
            return  # a full or missing volume shows in what the probe says


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 when the pulse is fresh or an address in ``argv`` answers, else 1 with the reason."""
    reason = _pulse_problem()
    if not reason or any(_answers(url) for url in (sys.argv[1:] if argv is None else argv)):
        return 0
    sys.stderr.write(f"{reason}\n")
    return 1


def _pulse_problem() -> str:
    path = os.environ.get(PULSE_FILE, "")
    try:
        age = time.time() - Path(path).stat().st_mtime
    except OSError as error:
        return f"{path or PULSE_FILE}: {error.strerror}"
    return f"the loop has not turned for {age:.0f} s" if age > STUCK_SECONDS else ""


def _answers(url: str) -> bool:
    from urllib.request import urlopen  # noqa: PLC0415 - most probes need it not, and it takes longer than they do

    try:
        with urlopen(url, timeout=_ANSWER_SECONDS) as answer:  # noqa: S310 - addresses stand in the Dockerfile
            ok: bool = answer.status == 200
            return ok
    except OSError:
        return False
