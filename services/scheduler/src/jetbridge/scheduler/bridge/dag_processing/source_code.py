"""
What the UI's Code tab shows for a Dag whose file is elsewhere: where it is, or its source if that came.

Airflow 3.3 reads a Dag's source from ``dag.fileloc`` while it writes the Dag (``DagCode.write_code`` and
``update_source_code``) and records an import error when it cannot. There is no hook. So the Dag is handed to
Airflow with the path of a note on this machine for its ``fileloc``: a sentence that says where the code
is, or the source where a policy let it cross. Airflow stores that as the source, and the note's path in
``dag.fileloc`` and ``dag_code.fileloc``; in the same transaction the two columns get the real path. The
serialized Dag itself always has the real one.

For Airflow 3.3. ``tests/unit/dag_processor/test_airflow_hooks.py`` fails when Airflow reads it otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from airflow.models.dag import DagModel
from airflow.models.dagcode import DagCode
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from sqlalchemy import select
from sqlalchemy.orm import Session


class NotedDag(LazyDeserializedDAG):
    """A Dag that says its source is in ``note``."""

    note: str

    @property
    def fileloc(self) -> str:
        """Return the path that Airflow is to read the source from."""
        return self.note


def note_text(bundle: str, version: str | None, path: str) -> str:
    """Return what the Code tab shows."""
    at = f" at version {version}" if version else ""
    return (
        "# The source of this Dag stays in its execution plane and was not sent to the orchestration plane.\n"
        f"# It is {path} in the Dag bundle {bundle!r}{at}.\n"
    )


@contextmanager
def noted(text: str) -> Iterator[str]:
    """Keep ``text`` in a file for as long as the block runs, and give its path."""
    with TemporaryDirectory(prefix="jetbridge-note-") as directory:
        note = Path(directory) / "note.py"
        note.write_text(text)
        yield str(note)


def restore_filelocs(session: Session, dags: Iterable[NotedDag]) -> None:
    """Replace the notes' paths by the real ones, before anybody else can see them."""
    session.flush()
    for dag in dags:
        fileloc = dag.data["dag"]["fileloc"]
        of_dag = select(DagModel).where(DagModel.dag_id == dag.dag_id, DagModel.fileloc == dag.note)
        of_code = select(DagCode).where(DagCode.dag_id == dag.dag_id, DagCode.fileloc == dag.note)
        for row in (*session.scalars(of_dag), *session.scalars(of_code)):
            row.fileloc = fileloc
