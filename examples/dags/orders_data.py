"""The orders file of the example: as many rows as asked for, the same ones every time."""

from __future__ import annotations

import csv
import io
import random

SEED = 20_260_101
CURRENCIES = {"europe": "EUR", "north-america": "USD", "united-kingdom": "GBP", "japan": "JPY"}
PRODUCTS = {"notebook": 450, "pencil": 120, "backpack": 5_900, "lamp": 3_450, "chair": 12_900}
FRAUD_PER_ORDER = 1 / 500
"""How often somebody orders far more than is usual."""

CUSTOMERS = 2_000
COLUMNS = ("order_id", "region", "currency", "customer", "product", "quantity", "cents")


def orders_csv(rows: int) -> str:
    """Return a CSV file with a header and ``rows`` orders. ``cents`` is the price of one piece."""
    random_source = random.Random(SEED)  # noqa: S311 - reproducible test data is the point
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number in range(rows):
        writer.writerow(_order(number, random_source))
    return text.getvalue()


def _order(number: int, random_source: random.Random) -> tuple[object, ...]:
    region = random_source.choice(sorted(CURRENCIES))
    product = random_source.choice(sorted(PRODUCTS))
    quantity = random_source.randint(1, 9)
    if random_source.random() < FRAUD_PER_ORDER:
        quantity *= 100
    customer = f"customer-{random_source.randint(1, CUSTOMERS):05d}"
    cents = PRODUCTS[product] + random_source.randint(-20, 20)
    return (f"order-{number:06d}", region, CURRENCIES[region], customer, product, quantity, cents)
