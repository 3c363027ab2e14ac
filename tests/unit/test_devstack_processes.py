"""No process outlives the supervisor: on success, failure, Ctrl-C and ``kill -9`` of the supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from jetbridge.devstack.environment import base_environment
from jetbridge.devstack.guard import marked_processes
from jetbridge.devstack.processes import Command, NotReadyError, ProcessDiedError, Supervisor

PATIENCE_SECONDS = 30

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER
# A child that leaves its parent's session and process group, as daemons do, and outlives it.
RUNAWAY = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("up", flush=True)
time.sleep(600)
"""


def python(source, **options):
    return Command(argv=[sys.executable, "-c", source], env=base_environment(), **options)


def says(process, word):
    return lambda: word in process.log_tail()


def start(supervisor, name, command):
    process = supervisor.add(name, command)
    process.start()
    process.wait_ready(says(process, "up"))
    return process


def eventually(condition, what):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s: {what}"
        time.sleep(0.02)


def test_leaving_the_block_ends_every_process_last_started_first(run_directory):
    ended = []
    with Supervisor(run_directory) as supervisor:
        processes = [start(supervisor, name, python(SLEEPER)) for name in ("first", "second")]
        for process in processes:
            original = process.stop
            process.stop = lambda p=process, stop=original: (ended.append(p.name), stop())
    assert ended == ["second", "first"]
    assert not any(psutil.pid_exists(process.pid) for process in processes)


def test_a_failure_in_the_block_ends_every_process(run_directory):
    started = []

    def fail_inside():
        with Supervisor(run_directory) as supervisor:
            started.append(start(supervisor, "sleeper", python(SLEEPER)))
            raise LookupError

    with pytest.raises(LookupError):
        fail_inside()
    assert not psutil.pid_exists(started[0].pid)


def test_a_tier_is_asked_to_stop_before_any_of_it_is_waited_for(run_directory):
    events = []
    with Supervisor(run_directory) as supervisor:
        for name in ("one", "two"):
            process = supervisor.add(name, python(SLEEPER), tier="pair")
            process.start()
            for method in ("ask_to_stop", "stop"):
                original = getattr(process, method)

                def spy(original=original, event=(method, name)):
                    events.append(event)
                    original()

                setattr(process, method, spy)
    asked = [event for event in events if event[0] == "ask_to_stop"][:2]
    assert events[:2] == asked


def test_a_process_is_asked_to_stop_only_once(run_directory):
    source = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('asked', flush=True))\n"
        "print('up', flush=True)\n"
        "time.sleep(600)\n"
    )
    with Supervisor(run_directory) as supervisor:
        process = start(supervisor, "counting", python(source, stop_seconds=0.5))
        process.ask_to_stop()
        process.wait_ready(says(process, "asked"))
        process.stop()
    assert process.log_tail().count("asked") == 1


def test_a_process_that_ignores_sigterm_is_killed(run_directory):
    with Supervisor(run_directory) as supervisor:
        process = start(supervisor, "stubborn", python(STUBBORN, stop_seconds=0.2))
        process.stop()
        assert process.exit_code == -signal.SIGKILL


def test_what_ran_away_from_its_process_group_is_found_and_killed(run_directory):
    lines = []
    with Supervisor(run_directory, say=lines.append) as supervisor:
        start(supervisor, "runaway", python(RUNAWAY))
        mark = supervisor.mark
        eventually(lambda: len(marked_processes(mark)) == 2, "the runaway child")
    assert marked_processes(mark) == []
    assert any(line.startswith("killed what outlived its parent") for line in lines)


def test_an_early_death_shows_the_last_words(run_directory):
    with Supervisor(run_directory) as supervisor:
        command = python("import sys; print('the port is taken'); sys.exit(3)")
        with pytest.raises(ProcessDiedError, match=r"(?s)server ended with exit code 3.*the port is taken"):
            supervisor.start("server", command, ready=lambda: False)


def test_a_process_that_never_gets_ready_shows_its_last_words(run_directory):
    with Supervisor(run_directory) as supervisor:
        process = start(supervisor, "slow", python(SLEEPER))
        with pytest.raises(NotReadyError, match=r"(?s)slow was not ready after 0 s.*up"):
            process.wait_ready(lambda: False, timeout_seconds=0.1)


def test_run_waits_for_the_end_and_refuses_a_failure(run_directory):
    with Supervisor(run_directory) as supervisor:
        assert supervisor.run("good", python("print('done')"), timeout_seconds=30).exit_code == 0
        with pytest.raises(ProcessDiedError, match="exit code 5"):
            supervisor.run("bad", python("raise SystemExit(5)"), timeout_seconds=30)


def test_a_killed_process_starts_again_and_keeps_its_log(run_directory):
    with Supervisor(run_directory) as supervisor:
        process = start(supervisor, "server", python(SLEEPER))
        first = process.pid
        process.kill()
        assert not process.alive
        process.start()
        process.wait_ready(lambda: process.log_tail().count("up") == 2)
        assert process.alive
        assert process.pid != first


def test_check_alive_names_the_one_that_died(run_directory):
    with Supervisor(run_directory) as supervisor:
        start(supervisor, "good", python(SLEEPER))
        bad = start(supervisor, "bad", python(SLEEPER))
        supervisor.check_alive()
        bad.signal(signal.SIGSEGV)
        bad.wait(PATIENCE_SECONDS)
        with pytest.raises(ProcessDiedError, match="bad ended with exit code -11"):
            supervisor.check_alive()


def test_clean_up_actions_run_after_the_processes_ended(run_directory):
    seen = []
    with Supervisor(run_directory) as supervisor:
        process = start(supervisor, "sleeper", python(SLEEPER))
        supervisor.on_exit(lambda: seen.append(process.alive))
    assert seen == [False]


SUPERVISING = textwrap.dedent(
    """
    import signal, sys, time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    from pathlib import Path
    from jetbridge.devstack.environment import base_environment
    from jetbridge.devstack.processes import Command, Supervisor

    with Supervisor(Path(sys.argv[1])) as supervisor:
        command = Command(argv=[sys.executable, "-c", sys.argv[2]], env=base_environment())
        process = supervisor.add("child", command)
        process.start()
        process.wait_ready(lambda: "up" in process.log_tail())
        print(supervisor.mark, flush=True)
        time.sleep(600)
    """
)


@pytest.fixture
def supervising(run_directory):
    """Another process that supervises; yields it and the mark of its children."""
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISING, run_directory, RUNAWAY],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_survives_the_supervisor(supervising, number):
    process, mark = supervising
    assert len(marked_processes(mark)) == 2
    process.send_signal(number)
    process.wait(PATIENCE_SECONDS)
    eventually(lambda: not marked_processes(mark), "the end of every process of the run")


def test_ctrl_c_of_the_terminal_does_not_reach_the_children(run_directory):
    with Supervisor(run_directory) as supervisor:
        process = start(supervisor, "sleeper", python(SLEEPER))
        assert os.getpgid(process.pid) != os.getpgid(0)
