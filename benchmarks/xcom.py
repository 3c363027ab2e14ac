"""
XCom values of three sizes, through our backend and through Airflow's own for object storage.

Both on the same S3 server. Each case runs in a process of its own, so that its peak of memory is its own;
what was in memory before the value was made does not count. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from one_gateway import say

from jetbridge.devstack.processes import Supervisor
from jetbridge.devstack.servers import s3

SIZES = {"1 KiB": 1 << 10, "1 MiB": 1 << 20, "100 MiB": 100 << 20}
BACKENDS = {
    "jetbridge": "jetbridge.xcom.backend.ObjectStoreXComBackend",
    "airflow": "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend",
}
BUCKET = "bench"
REPEATS = {"1 KiB": 50, "1 MiB": 20, "100 MiB": 1}


def case(backend: str, size: str) -> dict[str, float]:
    """Write and read in this process; a first small value opens connections and is not counted."""
    module, _, name = BACKENDS[backend].rpartition(".")
    cls = getattr(import_module(module), name)
    _round_trip(cls, "warm-up", "warm-up")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    value = os.urandom(SIZES[size] // 2).hex()
    times = [_round_trip(cls, value, f"value-{number}") for number in range(REPEATS[size])]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "write_ms": round(1000 * statistics.median(write for write, _ in times), 1),
        "read_ms": round(1000 * statistics.median(read for _, read in times), 1),
        "peak_mib": round(peak / 1024, 1),
    }


def _round_trip(cls: Any, value: str, key: str) -> tuple[float, float]:
    begun = time.monotonic()
    kept = cls.serialize_value(value, key=key, task_id="t", dag_id="bench", run_id="r", map_index=-1)
    written = time.monotonic()
    back = cls.deserialize_value(_Row(kept))
    read = time.monotonic()
    if back != value:
        raise RuntimeError(f"{key} came back changed")
    return written - begun, read - written


class _Row:
    """An XCom as Airflow hands it to a backend."""

    def __init__(self, value: Any) -> None:
        self.value = value


def environment(store: s3.S3Server, home: Path) -> Mapping[str, str]:
    """Return what both backends need."""
    connection = {
        "conn_type": "aws",
        "login": store.access_key,
        "password": store.secret_key,
        "extra": {"endpoint_url": store.endpoint_url, "region_name": store.region},
    }
    return {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_BENCH_S3": json.dumps(connection),
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": f"s3://bench_s3@{BUCKET}/xcom",
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "0",
        "JETBRIDGE_OBJECT_STORE_ENDPOINT_URL": store.endpoint_url,
        "JETBRIDGE_OBJECT_STORE_ACCESS_KEY": store.access_key,
        "JETBRIDGE_OBJECT_STORE_SECRET_KEY": store.secret_key,
        "JETBRIDGE_OBJECT_STORE_XCOM_BUCKET": BUCKET,
    }


def measure(rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Return the medians of interleaved rounds, by size and backend."""
    seen: dict[str, dict[str, list[dict[str, float]]]] = {
        size: {name: [] for name in BACKENDS} for size in SIZES
    }
    with (
        tempfile.TemporaryDirectory(prefix="jetbridge-xcom-") as directory,
        Supervisor(Path(directory)) as up,
    ):
        settings = environment(s3.start(up), Path(directory))
        for number in range(rounds):
            for size in SIZES:
                for backend in BACKENDS:
                    seen[size][backend].append(_in_a_process(backend, size, settings))
            say(f"round {number + 1} of {rounds} is done")
    return {
        size: {name: _medians(figures) for name, figures in names.items()} for size, names in seen.items()
    }


def _in_a_process(backend: str, size: str, settings: Mapping[str, str]) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", backend, size]
    done = subprocess.run(command, env=settings, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _medians(figures: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in figures) for name in figures[0]}


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure XCom backends; prints JSON.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", nargs=2, metavar=("BACKEND", "SIZE"), help="one case, in this process")
    arguments = parser.parse_args()
    result = case(*arguments.case) if arguments.case else measure(arguments.rounds)
    print(json.dumps(result, indent=None if arguments.case else 2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
