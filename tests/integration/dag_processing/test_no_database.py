"""
A Dag processor opens no metadata database, even where it is told of one.

Every process of the agent reports what it connects to and which SQLite files it opens, by Python's own audit
events, which are raised below every library.
"""

import json

SPY = """
import json, os, sys

def spy(event, arguments):
    if event in ("sqlite3.connect", "socket.connect", "socket.getaddrinfo"):
        address = arguments[0] if event == "sqlite3.connect" else arguments[1:]
        line = json.dumps({"event": event, "what": repr(address), "argv": sys.argv[:1], "pid": os.getpid()})
        descriptor = os.open(os.environ["SPY_REPORT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line.encode() + b"\\n")
        os.close(descriptor)

sys.addaudithook(spy)
"""

TRIES_THE_DATABASE = """
from airflow.sdk import Variable
import airflow.settings

nothing = Variable.get("of_the_plane", default="nothing")
own = Variable.get("of_the_site")
try:
    session = airflow.settings.Session()
    session.execute("SELECT 1")
    found = "a database"
except Exception:
    found = "no database"
description = f"{nothing}, {own}, {found}"
"""


def test_nothing_is_opened_but_connections_of_the_agent_to_its_gateway(
    start, plane, database, folder, tmp_path, bundle, dag_source, local_bundle, eventually
):
    (tmp_path / "spy").mkdir()
    (tmp_path / "spy" / "sitecustomize.py").write_text(SPY)
    report = tmp_path / "report"
    source = dag_source(f"{bundle}-one").replace("schedule=None", "schedule=None, description=description")
    (folder / "one.py").write_text(TRIES_THE_DATABASE + source)
    database.execute("INSERT INTO variable (key, val, is_encrypted) VALUES ('of_the_plane', 'secret', false)")
    processor = start(
        [local_bundle(bundle, folder)],
        env={
            "PYTHONPATH": str(tmp_path / "spy"),
            "SPY_REPORT": str(report),
            "AIRFLOW_VAR_OF_THE_SITE": "something",
            # The real one. It must not be used, however an operator's environment spells it.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.url,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD": f"echo {database.url}",
            "AIRFLOW__CORE__SQL_ALCHEMY_CONN": database.url,
        },
    )
    eventually(lambda: database.is_active(f"{bundle}-one"))
    assert database.dag(f"{bundle}-one")["description"] == "nothing, something, no database"
    parsed = database.dag(f"{bundle}-one")["last_parsed_time"]
    (folder / "two.py").write_text(dag_source(f"{bundle}-two"))
    eventually(lambda: database.is_active(f"{bundle}-two"))
    (folder / "two.py").unlink()
    eventually(lambda: not database.is_active(f"{bundle}-two"))
    eventually(lambda: database.dag(f"{bundle}-one")["last_parsed_time"] > parsed)
    processor.process.stop()

    port = plane.gateway_url.rpartition(":")[2]
    seen = [json.loads(line) for line in report.read_text().splitlines()]
    assert {one["pid"] for one in seen if port in one["what"]} == {processor.process.pid}
    assert [one for one in seen if port not in one["what"]] == []
