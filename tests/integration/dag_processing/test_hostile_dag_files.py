"""Whatever one Dag file does, the agent lives on and the other files are parsed."""

import os
import signal

import psutil
import pytest

pytestmark = pytest.mark.long

IMPORTS = "# airflow DAG\nimport os, sys, time, ctypes, signal, threading, logging\n"

HOSTILE = {
    "hangs": "time.sleep(3600)",
    "spins": "while True: pass",
    "exits": "sys.exit(3)",
    "leaves": "os._exit(0)",
    "aborts": "os.abort()",
    "crashes": "ctypes.string_at(0)",
    "kills-itself": "os.kill(os.getpid(), signal.SIGKILL)",
    "shouts": "[sys.stdout.write('x' * 99 + chr(10)) for _ in range(1_000_000)]",
    "never-breathes": "[sys.stdout.write('x' * 1_000_000) for _ in range(100)]; sys.stdout.flush()",
    "logs-a-lot": "[logging.getLogger('a').warning('x' * 10_000) for _ in range(10_000)]",
    "closes-everything": "os.closerange(3, 256)",
    "deep": "exec('(' * 10_000 + ')' * 10_000)",
    "tampers": "[os.write(int(fd), b'rubbish' * 100) for fd in os.listdir('/proc/self/fd') if int(fd) > 2]",
}
EATS_MEMORY = "hoard = []\nwhile True: hoard.append(bytearray(16 << 20))"


@pytest.fixture(scope="module")
def processor(plane, tmp_path_factory, local_bundle):
    folder = tmp_path_factory.mktemp("hostile")
    settings = {
        "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "10",
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "5",
    }
    options = ["--parser-memory-mib", "512", "--parser-output-kib", "256"]
    processor = plane.start([local_bundle("hostile", folder)], *options, settings=settings)
    processor.folder = folder
    yield processor
    processor.process.kill()


@pytest.fixture
def manager(processor):
    """The process of Airflow's manager."""

    def find():
        children = psutil.Process(processor.process.pid).children()
        return next(child for child in children if "manager_process" in " ".join(child.cmdline()))

    return find


@pytest.fixture
def ordinary(processor, database, bundle, eventually, dag_source):
    """See that an ordinary file is parsed now."""

    def check(name):
        dag_id = f"{bundle}-{name}"
        (processor.folder / f"{dag_id}.py").write_text(dag_source(dag_id))
        eventually(lambda: database.is_active(dag_id))

    return check


@pytest.mark.parametrize("what", HOSTILE)
def test_the_manager_survives_and_the_next_file_is_parsed(processor, manager, ordinary, eventually, what):
    ordinary("before")
    pid = manager().pid
    path = processor.folder / f"{what}.py"
    path.write_text(IMPORTS + HOSTILE[what] + "\n")
    logs = processor.data_dir / "data" / "logs" / "dag-processor"
    eventually(lambda: list(logs.rglob(f"{what}.py.log*")), what="the file's parser to start")
    ordinary("after")
    assert manager().pid == pid
    path.unlink()


def test_a_file_that_needs_too_much_memory_is_an_import_error(
    processor, manager, ordinary, database, eventually
):
    ordinary("before")
    pid = manager().pid
    path = processor.folder / "eats_memory.py"
    path.write_text(IMPORTS + EATS_MEMORY + "\n")
    error = eventually(lambda: database.import_errors("hostile").get(path.name))
    assert "MemoryError" in error
    assert manager().pid == pid
    assert manager().memory_info().rss < 512 << 20
    path.unlink()


def test_a_timeout_is_an_import_error(processor, database, eventually):
    path = processor.folder / "slow.py"
    path.write_text(IMPORTS + "time.sleep(60)\n")
    assert "Timeout" in eventually(lambda: database.import_errors("hostile").get(path.name))
    path.unlink()


def test_output_beyond_the_limit_is_dropped_and_the_log_says_so(processor, eventually):
    path = processor.folder / "talks.py"
    path.write_text(IMPORTS + "for n in range(100_000): print('a line of output', n)\n")
    logs = processor.data_dir / "data" / "logs" / "dag-processor"

    def content():
        return "".join(found.read_text() for found in logs.rglob("talks.py.log*"))

    eventually(lambda: "output dropped from here on" in content())
    path.unlink()
    assert 'a line of output 1"' in content()
    assert all(found.stat().st_size < 8 << 20 for found in logs.rglob("talks.py.log*"))


def test_what_a_file_leaves_running_is_ended_and_its_dags_are_known(
    processor, database, bundle, eventually, dag_source
):
    path = processor.folder / f"{bundle}.py"
    path.write_text(
        "import subprocess, pathlib\n"
        "child = subprocess.Popen(['sleep', '3600'])\n"
        "pathlib.Path(__file__ + '.pid').write_text(str(child.pid))\n" + dag_source(f"{bundle}-one")
    )
    eventually(lambda: database.is_active(f"{bundle}-one"))
    left = int(path.with_name(f"{path.name}.pid").read_text())
    path.unlink()
    eventually(lambda: not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE)


@pytest.mark.usefixtures("processor")
def test_a_manager_that_dies_is_started_again(manager, ordinary, eventually):
    ordinary("before")
    first = manager()
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: not first.is_running())
    ordinary("after")
    assert manager().pid != first.pid


def test_parsers_end_with_their_manager(processor, manager, eventually):
    path = processor.folder / "sleeps.py"
    path.write_text(IMPORTS + "open(__file__ + '.pid', 'w').write(str(os.getpid()))\ntime.sleep(3600)\n")
    note = path.with_name("sleeps.py.pid")
    eventually(lambda: note.exists() and note.read_text())
    parser = psutil.Process(int(note.read_text()))
    path.unlink()
    os.kill(manager().pid, signal.SIGKILL)
    eventually(lambda: not parser.is_running() or parser.status() == psutil.STATUS_ZOMBIE)
