"""Two Dag processors of one bundle: one works, the other stands by and takes over; none fights."""

import signal

import psutil
import pytest

pytestmark = pytest.mark.long


@pytest.fixture
def two(start, folder, bundle, database, dag_source, local_bundle, eventually):
    """An active one and a standby."""
    (folder / "one.py").write_text(dag_source(f"{bundle}-one"))
    first = start([local_bundle(bundle, folder)])
    eventually(lambda: database.is_active(f"{bundle}-one"))
    second = start([local_bundle(bundle, folder)])
    eventually(lambda: f'"active_agent": "{first.name}"' in second.log())
    return first, second


@pytest.fixture
def changes(folder, bundle, database, dag_source, eventually):
    """Change the file and see it on the plane."""

    def change(name):
        (folder / "one.py").write_text(dag_source(f"{bundle}-{name}"))
        eventually(lambda: database.is_active(f"{bundle}-{name}"))

    return change


def test_one_works_and_the_other_parses_nothing(two, changes):
    first, second = two
    changes("two")
    assert "working on bundle" in first.log()
    assert "working on bundle" not in second.log()
    assert not list((second.data_dir / "data" / "logs" / "dag-processor").rglob("*.log"))


def test_the_standby_takes_over_when_the_active_one_is_lost_and_gives_no_dag_a_new_version(
    two, changes, bundle, database, eventually
):
    first, second = two

    def versions():
        return database.rows("SELECT id, last_updated FROM dag_version WHERE dag_id = %s", f"{bundle}-one")

    before = versions()
    first.process.kill()
    eventually(lambda: "working on bundle" in second.log())
    parsed = database.dag(f"{bundle}-one")["last_parsed_time"]
    eventually(lambda: database.dag(f"{bundle}-one")["last_parsed_time"] > parsed)
    assert versions() == before
    changes("two")


def test_the_standby_takes_over_at_once_when_the_active_one_is_stopped(two, changes):
    first, second = two
    first.process.stop()
    assert first.process.log_tail(50).count("agent stopped") == 1
    changes("two")
    assert "working on bundle" in second.log()


def test_one_that_was_frozen_finds_its_bundle_taken_and_writes_nothing_more(two, changes, eventually):
    first, second = two
    first.process.signal(signal.SIGSTOP)
    eventually(lambda: "working on bundle" in second.log())
    changes("by-the-second")
    first.process.signal(signal.SIGCONT)
    eventually(
        lambda: "not working on bundle any more" in first.log() or "bundle was lost meanwhile" in first.log()
    )
    eventually(lambda: f'"active_agent": "{second.name}"' in first.log())
    changes("by-the-second-again")
    assert first.log().count('"event":"working on bundle"') == 1


def test_with_none_the_plane_keeps_what_it_knows(two, bundle, database):
    for processor in two:
        processor.process.kill()
    assert database.is_active(f"{bundle}-one")
    assert database.bundle(bundle)["active"]


def test_the_standby_takes_over_when_airflows_manager_keeps_dying(two, changes, eventually):
    first, second = two

    def kill_the_manager():
        for child in psutil.Process(first.process.pid).children():
            child.kill()
        return "working on bundle" in second.log()

    eventually(kill_the_manager)
    changes("two")


def test_two_bundles_can_have_different_owners(
    start, tmp_path, bundle, database, dag_source, local_bundle, eventually
):
    bundles = []
    for name in ("one", "two", "both"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dag.py").write_text(dag_source(f"{bundle}-{name}"))
        bundles.append(local_bundle(f"{bundle}-{name}", tmp_path / name))
    one, two, both = bundles
    start([one, both])
    eventually(lambda: database.is_active(f"{bundle}-both"))
    start([two, both])
    eventually(lambda: database.is_active(f"{bundle}-one") and database.is_active(f"{bundle}-two"))
