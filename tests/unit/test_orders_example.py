"""The example Dag is what the demo says it is: parsed by Airflow, and right on a small file."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import sys
from pathlib import Path

import pytest

from jetbridge.devstack.home import workspace

DAGS = workspace() / "examples" / "dags"
MIB = 1024 * 1024


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", DAGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data():
    return load("orders_data")


@pytest.fixture(scope="module")
def dag_file():
    return load("orders")


def rows_of(data, count):
    rows = list(csv.DictReader(io.StringIO(data.orders_csv(count))))
    return [row | {"cents": int(row["cents"]), "quantity": int(row["quantity"])} for row in rows]


def test_the_same_orders_come_every_time(data):
    assert data.orders_csv(50) == data.orders_csv(50)
    assert data.orders_csv(100).startswith(data.orders_csv(50))


def test_the_rows_between_two_tasks_are_more_than_a_mebibyte(data, dag_file):
    assert len(json.dumps(rows_of(data, dag_file.DEFAULT_ROWS))) > MIB


def test_only_one_task_is_on_the_second_queue(dag_file):
    dag = dag_file.orders()
    assert {task.task_id for task in dag.tasks if task.queue == "gpu"} == {"find_fraud"}
    assert {task.task_id for task in dag.tasks if task.retries} == {"exchange_rates"}
    assert type(dag.get_task("rates_are_out")).__name__ == "DateTimeSensorAsync"


def test_fraud_is_found_by_the_usual_quantity_of_the_product(data, dag_file):
    rows = rows_of(data, 2000)
    suspects = dag_file.find_fraud.function(rows)
    assert suspects
    assert set(suspects) == {row["order_id"] for row in rows if row["quantity"] >= 100}


def test_regions_and_sums_add_up(data, dag_file):
    rows = rows_of(data, 200)
    regions = dag_file.regions.function(rows)
    summaries = [dag_file.summarize.function(region, rows) for region in regions]
    assert regions == sorted(data.CURRENCIES)
    assert sum(one["orders"] for one in summaries) == 200
    assert sum(one["cents"] for one in summaries) == sum(row["cents"] * row["quantity"] for row in rows)


def test_the_dag_file_needs_no_package_that_only_the_plane_has():
    # Agents have Airflow with its standard provider, and the object store's client: all the example may use.
    allowed = {"airflow", "minio", "orders_data", *sys.stdlib_module_names}
    for path in sorted(Path(DAGS).glob("*.py")):
        source = path.read_text()
        for line in source.splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]):
                assert words[1].split(".")[0] in allowed, f"{path.name}: {line}"
