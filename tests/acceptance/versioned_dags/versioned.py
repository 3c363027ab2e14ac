"""Two tasks that say which release of the repository they run from, the second when it is let go."""

import time
from pathlib import Path

from airflow.sdk import DAG, task
from release import RELEASE

with DAG("versioned", schedule=None, params={"directory": "/nowhere"}, doc_md=f"Release {RELEASE}"):

    def say(which, params):
        directory = Path(params["directory"])
        (directory / which).write_text(f"{RELEASE} from {Path(__file__).parent}")
        return directory

    @task
    def begin(params):
        say("begin", params)

    @task
    def end(params):
        directory = Path(params["directory"])
        while not (directory / "go").exists():
            time.sleep(0.1)
        say("end", params)

    begin() >> end()
