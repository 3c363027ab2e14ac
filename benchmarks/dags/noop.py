"""Tasks that do nothing, many at once and one after another: what is left is the executor's own time."""

from __future__ import annotations

from itertools import pairwise

from airflow.sdk import dag, task

BURST = 200
CHAIN = 30


@dag(schedule=None, catchup=False, max_active_tasks=BURST)
def burst() -> None:
    """Run ``BURST`` mapped tasks at once."""

    @task
    def nothing(number: int) -> None:
        """Do nothing."""

    nothing.expand(number=list(range(BURST)))


@dag(schedule=None, catchup=False)
def chain() -> None:
    """Run ``CHAIN`` tasks one after another."""

    @task
    def link() -> None:
        """Do nothing."""

    links = [link.override(task_id=f"link_{number}")() for number in range(CHAIN)]
    for before, after in pairwise(links):
        before >> after


burst()
chain()
