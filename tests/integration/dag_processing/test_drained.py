"""A Dag processor that is to stop: by order of the plane, or in a hurry."""

import signal
import subprocess

import pytest

pytestmark = pytest.mark.long


@pytest.fixture
def working(start, folder, bundle, database, dag_source, local_bundle, eventually):
    (folder / "one.py").write_text(dag_source(f"{bundle}-one"))
    processor = start([local_bundle(bundle, folder)])
    eventually(lambda: database.is_active(f"{bundle}-one"))
    return processor


@pytest.fixture
def operate(plane):
    """Run ``jetbridge agents …`` as an operator on the plane does."""

    def operate(*arguments):
        command = plane.servers.plane.command("agents", *arguments)
        done = subprocess.run(
            [str(part) for part in command.argv],
            env=dict(command.env),
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout

    return operate


def test_a_drained_one_gives_its_bundle_to_the_standby_and_exits_with_0(
    working, start, folder, bundle, local_bundle, operate, eventually
):
    standby = start([local_bundle(bundle, folder)])
    eventually(lambda: f'"active_agent": "{working.name}"' in standby.log())
    operate("drain", working.name)
    assert working.process.wait(60) == 0
    eventually(lambda: "working on bundle" in standby.log())
    assert " gone " in operate("list", working.name)


def test_a_cordoned_one_keeps_its_bundle_and_its_successor_takes_none(
    working, bundle, database, folder, dag_source, operate, eventually
):
    operate("cordon", working.name)
    (folder / "one.py").write_text(dag_source(f"{bundle}-two"))
    eventually(lambda: database.is_active(f"{bundle}-two"))
    working.process.stop()  # gives the bundle back
    working.process.start()
    eventually(lambda: working.log().count("registered with the gateway") == 2)
    assert working.log().count("bundle is ours") == 1
    operate("uncordon", working.name)
    eventually(lambda: working.log().count("bundle is ours") == 2)


def test_a_second_signal_does_not_wait_for_parsers(working):
    for _ in range(2):
        working.process.signal(signal.SIGTERM)
    assert working.process.wait(30) == 0
