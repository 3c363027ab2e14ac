"""
A day of orders, from a file to a report.

ingest → load → (one mapped task per region + a fraud check on the ``gpu`` queue + exchange rates, which
come out a moment after the run began and whose source fails once) → report. Nothing but Airflow and the
``minio`` client is used; where the object store is and with which keys is known to the workers alone,
through their own connection ``orders_store``.
"""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import Connection, dag, get_current_context, task
from minio import Minio

CONNECTION = "orders_store"
BUCKET = "orders"
DEFAULT_ROWS = 9000
RATES_COME_OUT_AT = "{{ (dag_run.run_after + macros.timedelta(seconds=4)).isoformat() }}"


def object_store() -> Minio:
    """Return a client for the store that the worker's connection ``orders_store`` describes."""
    connection = Connection.get(CONNECTION)
    address = urlsplit(connection.host)
    return Minio(
        address.netloc,
        access_key=connection.login,
        secret_key=connection.password,
        secure=address.scheme == "https",
        region=connection.extra_dejson["region"],
    )


@task
def ingest() -> dict[str, Any]:
    """Write the day's file into object storage and say where it lies."""
    from orders_data import orders_csv  # noqa: PLC0415 - lies beside this file, on the workers too

    context = get_current_context()
    text = orders_csv(int(context["params"]["rows"])).encode()
    store, key = object_store(), f"{context['run_id']}/orders.csv"
    if not store.bucket_exists(BUCKET):
        store.make_bucket(BUCKET)
    store.put_object(BUCKET, key, io.BytesIO(text), len(text), content_type="text/csv")
    return {"bucket": BUCKET, "key": key, "bytes": len(text)}


@task
def load(source: dict[str, Any]) -> list[dict[str, Any]]:
    """Read the file back and return its rows, typed: an XCom of more than 1 MiB."""
    answer = object_store().get_object(source["bucket"], source["key"])
    try:
        text = answer.read()
    finally:
        answer.close()
        answer.release_conn()
    if len(text) != source["bytes"]:
        msg = f"{source['key']} has {len(text)} bytes, but {source['bytes']} were written"
        raise ValueError(msg)
    rows = csv.DictReader(io.StringIO(text.decode()))
    return [row | {"cents": int(row["cents"]), "quantity": int(row["quantity"])} for row in rows]


@task
def regions(rows: list[dict[str, Any]]) -> list[str]:
    """Return the regions of the day; how many there are is known only now."""
    return sorted({row["region"] for row in rows})


@task
def summarize(region: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up one region in its own currency."""
    own = [row for row in rows if row["region"] == region]
    return {
        "region": region,
        "currency": own[0]["currency"],
        "orders": len(own),
        "cents": sum(row["cents"] * row["quantity"] for row in own),
    }


@task(retries=2, retry_delay=timedelta(seconds=1))
def exchange_rates() -> dict[str, int]:
    """Return what one unit of each currency is worth, in 1/10000 euro."""
    if get_current_context()["ti"].try_number == 1:
        msg = "the rates are not out yet (this example's source is always late once)"
        raise RuntimeError(msg)
    return {"EUR": 10_000, "USD": 9_200, "GBP": 11_700, "JPY": 60}


@task(queue="gpu")
def find_fraud(rows: list[dict[str, Any]]) -> list[str]:
    """Return the ids of orders far above what is usual for their product."""
    by_product: dict[str, list[int]] = {}
    for row in rows:
        by_product.setdefault(row["product"], []).append(row["quantity"])
    usual = {product: sorted(all_)[len(all_) // 2] for product, all_ in by_product.items()}
    return [row["order_id"] for row in rows if row["quantity"] > 10 * usual[row["product"]]]


@task
def report(
    summaries: list[dict[str, Any]], rates: dict[str, int], suspects: list[str], source: dict[str, Any]
) -> dict[str, Any]:
    """Reduce everything to one report, kept beside the orders file."""
    result = {
        "orders": sum(one["orders"] for one in summaries),
        "euro_cents": {one["region"]: one["cents"] * rates[one["currency"]] // 10_000 for one in summaries},
        "suspects": sorted(suspects),
    }
    text = json.dumps(result, indent=2, sort_keys=True).encode()
    key = source["key"].replace("orders.csv", "report.json")
    object_store().put_object(source["bucket"], key, io.BytesIO(text), len(text))
    return result


@dag(schedule=None, catchup=False, params={"rows": DEFAULT_ROWS}, tags=["example"], doc_md=__doc__)
def orders() -> None:
    """Turn a file of orders into a report per region."""

    source = ingest()
    rows = load(source)
    summaries = summarize.partial(rows=rows).expand(region=regions(rows))
    rates_are_out = DateTimeSensorAsync(task_id="rates_are_out", target_time=RATES_COME_OUT_AT)
    rates = exchange_rates()
    rates_are_out >> rates
    report(summaries, rates, find_fraud(rows), source)


orders()
