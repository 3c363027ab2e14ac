"""Checks the example's report against a computation that shares nothing with the Dag's."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from statistics import median_high
from typing import Any
from urllib.parse import urlsplit

from minio import Minio

from jetbridge.devstack.servers.s3 import S3Server

DAG_ID = "orders"
BUCKET = "orders"
CONNECTION_VARIABLE = "AIRFLOW_CONN_ORDERS_STORE"
_RATES = {"EUR": 1.0, "USD": 0.92, "GBP": 1.17, "JPY": 0.006}
_ROUNDING_CENTS = 1


def agent_environment(store: S3Server) -> dict[str, str]:
    """Return the connection ``orders_store`` as an agent's operator gives it to the agent's tasks."""
    connection = {
        "conn_type": "generic",
        "host": store.endpoint_url,
        "login": store.access_key,
        "password": store.secret_key,
        "extra": {"region": store.region},
    }
    return {CONNECTION_VARIABLE: json.dumps(connection)}


def client_of(store: S3Server) -> Minio:
    """Return a client of our own, as the store's one user."""
    address = urlsplit(store.endpoint_url)
    return Minio(
        address.netloc,
        access_key=store.access_key,
        secret_key=store.secret_key,
        secure=address.scheme == "https",
        region=store.region,
    )


def read_object(store: S3Server, key: str, bucket: str = BUCKET) -> bytes:
    """Fetch one object."""
    answer = client_of(store).get_object(bucket, key)
    try:
        return answer.read()
    finally:
        answer.close()
        answer.release_conn()


def differences(store: S3Server, run_id: str) -> list[str]:
    """Compare the report that the run left in object storage with one computed here; empty is good."""
    report = json.loads(read_object(store, f"{run_id}/report.json"))
    rows = list(csv.DictReader(io.StringIO(read_object(store, f"{run_id}/orders.csv").decode())))
    found = []
    if report["orders"] != len(rows):
        found.append(f"{report['orders']} orders reported, the file has {len(rows)}")
    expected = _euro_cents(rows)
    if report["euro_cents"].keys() != expected.keys():
        found.append(f"regions {sorted(report['euro_cents'])} reported, the file has {sorted(expected)}")
    for region, cents in expected.items():
        reported = report["euro_cents"].get(region, 0)
        if abs(reported - cents) > _ROUNDING_CENTS:
            found.append(f"{region}: {reported} euro cents reported, computed {cents:.2f}")
    if set(report["suspects"]) != _suspects(rows):
        found.append("the suspicious orders differ")
    return found


def _euro_cents(rows: list[dict[str, Any]]) -> dict[str, float]:
    sums: Counter[tuple[str, str]] = Counter()
    for row in rows:
        sums[row["region"], row["currency"]] += int(row["quantity"]) * int(row["cents"])
    return {region: cents * _RATES[currency] for (region, currency), cents in sums.items()}


def _suspects(rows: list[dict[str, Any]]) -> set[str]:
    products = {row["product"] for row in rows}
    usual = {p: median_high(int(row["quantity"]) for row in rows if row["product"] == p) for p in products}
    return {row["order_id"] for row in rows if int(row["quantity"]) > 10 * usual[row["product"]]}
