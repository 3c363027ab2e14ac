"""What is sent when: all of a result when it changed, nothing but its hash when it did not."""

from datetime import UTC, datetime, timedelta

import pytest
from airflow.dag_processing.processor import DagFileParsingResult
from airflow.serialization.serialized_objects import LazyDeserializedDAG

from jetbridge.contracts.dag_processing import FileRecorded, HeldBundle
from jetbridge.contracts.packing import Packed, unpack
from jetbridge.dag_processor.plane import PlaneRefusedError, PlaneUnavailableError
from jetbridge.dag_processor.reporter import Reporter


class FakePlane:
    """Remembers what it was told; forgets when told to."""

    def __init__(self):
        self.known, self.asked, self.errors, self.ahead = set(), [], [], timedelta()
        self.opened = ("exception-text", "dag-docs")

    def ask(self, operation, request, answer, wait_seconds):
        assert (operation, answer) == ("parsed", FileRecorded)
        assert wait_seconds > 60
        self.asked.append(request)
        if self.errors:
            raise self.errors.pop(0)
        if request.result is not None:
            assert unpack(Packed(request.hash, request.result))
            self.known.add(request.hash)
        found = request.hash if request.hash in self.known else None
        return FileRecorded(hash=found, now=datetime.now(UTC) + self.ahead)

    def sent(self):
        return [request.result is not None for request in self.asked]


@pytest.fixture
def plane():
    return FakePlane()


@pytest.fixture
def reporter(plane):
    return Reporter(plane)


@pytest.fixture
def report(reporter):
    def say(dag_id="one", bundle="b", path="dag.py", **changes):
        data = {"__version": 3, "dag": {"dag_id": dag_id}}
        result = DagFileParsingResult(
            fileloc="/b/dag.py",
            serialized_dags=[LazyDeserializedDAG(data=data, last_loaded=datetime.now(UTC))],
            import_errors={},
            warnings=[{"dag_id": dag_id, "warning_type": "runtime varying value", "message": "m"}],
        )
        held = HeldBundle(bundle=bundle, epoch=3)
        more = {"version": None, "version_data": None, "run_seconds": 0.5} | changes
        reporter.report(held, path=path, result=result, **more)

    return say


def test_the_first_is_sent_and_the_same_again_is_not(plane, report):
    for _ in range(3):
        report()
    assert plane.sent() == [True, False, False]
    assert {request.epoch for request in plane.asked} == {3}


def test_a_change_is_sent_and_so_is_the_way_back(plane, report):
    for dag_id in ("one", "two", "one"):
        report(dag_id)
    assert plane.sent() == [True, True, True]


def test_a_new_version_of_the_bundle_alone_is_no_change(plane, report):
    report(version="first")
    report(version="second")
    assert plane.sent() == [True, False]
    assert plane.asked[1].version == "second"


def test_files_and_bundles_are_kept_apart(plane, report):
    report(path="a.py")
    report(path="b.py")
    report(path="a.py", bundle="c")
    assert plane.sent() == [True, True, True]


def test_a_plane_that_forgot_is_sent_it_at_once(plane, report):
    report()
    plane.known.clear()
    report()
    assert plane.sent() == [True, False, True]


def test_a_bundle_that_was_lost_is_told_anew(plane, reporter, report):
    report()
    reporter.forget("b")
    report()
    assert plane.sent() == [True, True]


def test_what_was_not_confirmed_is_sent_again(plane, report):
    plane.errors = [PlaneUnavailableError("away")]
    with pytest.raises(PlaneUnavailableError):
        report()
    report()
    assert plane.sent() == [True, True]


def test_what_will_never_be_taken_becomes_an_import_error(plane, report):
    plane.errors = [PlaneRefusedError("a NUL character")]
    report()
    said = unpack(Packed(plane.asked[1].hash, plane.asked[1].result)).decode()
    assert "The plane does not take this file's Dags: a NUL character" in said
    assert '"dags"' not in said


def test_when_not_even_that_is_taken_the_error_is_airflows_to_handle(plane, report):
    plane.errors = [PlaneRefusedError("no"), PlaneRefusedError("no")]
    with pytest.raises(PlaneRefusedError):
        report()


@pytest.mark.parametrize("hours", [-5, 0, 5])
def test_times_are_told_by_the_planes_clock_and_never_later_than_they_were(plane, reporter, report, hours):
    plane.ahead = timedelta(hours=hours)
    report()
    here = datetime.now(UTC)
    there = here + plane.ahead
    assert there - timedelta(minutes=1) < reporter.plane_time(here) <= there


def test_source_crosses_when_it_is_given_and_is_a_change_of_its_own(plane, report):
    for source in (None, None, "x = 1", "x = 1", None):
        report(source=source)
    assert plane.sent() == [True, False, True, False, True]
    texts = [unpack(Packed(request.hash, request.result)) for request in plane.asked if request.result]
    assert [b"x = 1" in text for text in texts] == [False, True, False]


def test_what_is_closed_is_not_in_what_is_sent(plane):
    def said(number):
        request = plane.asked[number]
        return unpack(Packed(request.hash, request.result)).decode()

    def parse(source=None):
        data = {
            "__version": 3,
            "dag": {
                "dag_id": "one",
                "doc_md": "private docs",
                "tasks": [{"__var": {"template_fields": ["sql"], "sql": "private argument"}}],
            },
        }
        result = DagFileParsingResult(
            fileloc="/b/dag.py",
            serialized_dags=[LazyDeserializedDAG(data=data, last_loaded=datetime.now(UTC))],
            import_errors={"broken.py": "ValueError: private text"},
            warnings=[],
        )
        report_of(plane, result, source)

    plane.opened = ()
    parse()
    assert "private" not in said(0)
    assert "ValueError: [text withheld" in said(0)
    plane.opened = ("dag-docs", "exception-text", "task-arguments")
    parse()
    assert said(1).count("private") == 3


def report_of(plane, result, source):
    held = HeldBundle(bundle="b", epoch=3)
    Reporter(plane).report(
        held, path="dag.py", version=None, version_data=None, run_seconds=0.5, result=result, source=source
    )
