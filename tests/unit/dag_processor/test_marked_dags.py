"""
The small marker test: of a Dag with markers in all of it, what a Dag processor sends has none that is closed.

``tests/acceptance/recorded/test_markers.py`` does the same with the whole system and the same Dag.
"""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization, LazyDeserializedDAG

from jetbridge.contracts.boundary import decision_of
from jetbridge.contracts.packing import pack
from jetbridge.dag_processor.results import to_contract
from jetbridge.devstack.markers import found_in, new_marker
from jetbridge.gateway.boundary import _closed_in

TEMPLATES = Path(__file__).parents[2] / "acceptance" / "recorded" / "marked_dags"
IN_SOURCE = {"dag-source", "connection", "variable", "environment", "log-lines", "operator-links"}
OPENED = (
    ("dag-docs", {"dag-docs"}),
    ("exception-text", {"exception-text"}),
    ("task-arguments", {"task-arguments"}),
    ("dag-source", IN_SOURCE),
)


@pytest.fixture
def marked(tmp_path, monkeypatch):
    """Write the Dags with new markers and parse them; returns markers, file and bag."""
    names = set()
    for template in TEMPLATES.glob("*.in"):
        names |= set(template.read_text().split("@@")[1::2])
    markers = {name: new_marker(name) for name in names}
    for template in TEMPLATES.glob("*.in"):
        text = template.read_text().replace("end_from_trigger=True,", "")  # needs a session without listeners
        for name, marker in markers.items():
            text = text.replace(f"@@{name}@@", marker)
        (tmp_path / template.stem).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    bag = DagBag(str(tmp_path))
    assert set(bag.dags) == {"marked"}
    assert [Path(path).name for path in bag.import_errors] == ["broken.py"]
    return markers, tmp_path / "marked.py", bag


def test_each_class_crosses_only_when_it_is_opened(marked):
    markers, file, bag = marked
    assert sent(markers, file, bag, ()) == set()
    opened, before = (), set()
    for data, expected in OPENED:
        opened = (*opened, data)
        after = sent(markers, file, bag, opened)
        assert after - before >= expected, data
        assert data == "dag-source" or after - before == expected, data
        before = after


def sent(markers, file, bag, opened):
    """Return the markers in what a Dag processor sends, which the gateway lets in."""
    decision = decision_of(opened)
    result = SimpleNamespace(
        fileloc=str(file),
        serialized_dags=[
            LazyDeserializedDAG(data=DagSerialization.to_dict(dag), last_loaded=datetime.now(UTC))
            for dag in bag.dags.values()
        ],
        import_errors=dict(bag.import_errors),
        warnings=[],
    )
    source = file.read_text() if "dag-source" in opened else None
    packed = pack(to_contract(result, decision, source))
    assert _closed_in(packed, decision) == []
    return {name for name, marker in markers.items() if found_in(packed.data, [marker])}
