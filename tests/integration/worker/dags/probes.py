"""Tasks that show, or misuse, what a task process has. Plain Airflow."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

from airflow.sdk import Variable, dag, task

SHOWN = Path(os.environ.get("PROBE_DIR", "/nonexistent"))


def show(name, **facts):
    """Leave facts for the test; the rename makes them appear whole."""
    part = SHOWN / f"{name}.part"
    part.write_text(json.dumps({"pid": os.getpid(), "ppid": os.getppid(), **facts}))
    part.rename(SHOWN / f"{name}.json")


@dag(schedule=None)
def probes():  # noqa: C901, PLR0915 - many small tasks, not one complex one
    @task
    def succeeds():
        return "value"

    @task
    def fails():
        raise LookupError("password=hunter2")

    @task
    def exits():
        os._exit(3)

    @task
    def is_killed():
        os.kill(os.getpid(), signal.SIGKILL)

    @task
    def looks_around():
        descriptors = {}
        for descriptor in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the listing's own
                descriptors[descriptor.name] = str(descriptor.readlink())
        show(
            f"around-{os.getpid()}",
            random=random.random(),  # noqa: S311
            uuid=str(uuid.uuid4()),
            environ=dict(os.environ),
            descriptors=descriptors,
            database=_open_database(),
        )

    @task
    def reads_its_memory():
        show("memory", tokens=sorted(_tokens_in_memory()))

    @task
    def lingers():
        children = [
            subprocess.Popen(["sleep", "1001"]),
            subprocess.Popen(["sleep", "1002"], start_new_session=True),
        ]
        subprocess.run(["sh", "-c", "setsid sleep 1003 & echo $! > $PROBE_DIR/daemon"], check=True)
        daemon = int((SHOWN / "daemon").read_text())
        show("lingers", children=[child.pid for child in children] + [daemon])
        time.sleep(1000)

    @task
    def leaves_a_child_behind():
        # Holding one of the task's sockets would keep Airflow reading from it for another minute.
        null = subprocess.DEVNULL
        command = ["sleep", "1004"]
        child = subprocess.Popen(command, stdin=null, stdout=null, stderr=null, start_new_session=True)
        show("left", child=child.pid)

    @task
    def will_not_go():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        show("stubborn")
        while True:
            time.sleep(1)

    @task
    def waits_for_the_test():
        show("waiting")
        while not (SHOWN / "go on").exists():
            time.sleep(0.01)

    @task
    def pushes(ti):
        show("waiting")
        while not (SHOWN / "go on").exists():
            time.sleep(0.01)
        ti.xcom_push("first", 1)
        ti.xcom_push("second", 2)
        show("pushed")
        return "done"

    @task
    def asks():
        show("waiting")
        while not (SHOWN / "go on").exists():
            time.sleep(0.01)
        show("answered", answer=Variable.get("a variable nobody has", default="the default"))

    @task
    def asks_for_a_variable():
        Variable.get("a variable nobody has", default="the default")

    @task
    def beats():
        # Both say without a pause that they run: in memory that is a file, so that the last moment is kept.
        loop = (
            "import mmap, struct, sys, time\n"
            "file = open(sys.argv[1], 'r+b')\n"
            "page = mmap.mmap(file.fileno(), 8)\n"
            "while True: struct.pack_into('d', page, 0, time.monotonic())\n"
        )
        for who in ("task", "child"):
            (SHOWN / who).write_bytes(bytes(8))
        child = subprocess.Popen([sys.executable, "-c", loop, SHOWN / "child"])
        show("waiting", child=child.pid)
        sys.argv[1:] = [str(SHOWN / "task")]
        exec(loop)  # noqa: S102

    @task
    def eats_memory():
        eaten = []
        while True:
            eaten.append(bytearray(os.urandom(1 << 20)) * 16)
            time.sleep(0.01)

    pushes()
    asks()
    asks_for_a_variable()
    beats()
    eats_memory()
    succeeds()
    fails()
    exits()
    is_killed()
    looks_around()
    reads_its_memory()
    lingers()
    leaves_a_child_behind()
    will_not_go()
    waits_for_the_test()


def _open_database():
    """Return how an attempt to open the metadata database ends."""
    try:
        from airflow.utils.session import create_session
        from sqlalchemy import text

        with create_session() as session:
            session.execute(text("SELECT 1"))
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    return "opened"


def _tokens_in_memory():
    found = set()
    with Path("/proc/self/maps").open() as maps, Path("/proc/self/mem").open("rb", 0) as memory:
        for line in maps:
            span, mode = line.split()[:2]
            if "w" not in mode:
                continue
            begin, end = (int(part, 16) for part in span.split("-"))
            memory.seek(begin)
            found |= set(re.findall(rb"token-of-[0-9a-f-]{36}", memory.read(end - begin)))
    return [token.decode() for token in found]


def told(**facts):
    """A deadline callback."""
    show("callback", facts={name: str(fact) for name, fact in facts.items()})


def told_and_fails(**_facts):
    """A deadline callback that fails."""
    sys.exit(5)


probes()
