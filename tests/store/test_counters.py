"""Counters are shared by all processes: no increment may be lost."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from kommo_airtable_sync.store import counters
from kommo_airtable_sync.store.database import Database


def test_increments_of_one_call_add_up(database: Database) -> None:
    with database.write() as connection:
        counters.add(database, connection, [("a", "x", 1), ("a", "y", 2.5), ("a", "x", 3)])
        counters.add(database, connection, [("a", "x", 1)])
        counters.add(database, connection, [])
    assert counters.read_all(database) == {("a", "x"): 5.0, ("a", "y"): 2.5}


def test_concurrent_increments_add_up(database: Database) -> None:
    together = threading.Barrier(4)

    def count(worker: int) -> None:
        together.wait()
        for _ in range(25):
            with database.write() as connection:
                labels = ["x", "y"] if worker % 2 else ["y", "x"]
                counters.add(database, connection, [("a", label, 1) for label in labels])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))
    assert counters.read_all(database) == {("a", "x"): 100.0, ("a", "y"): 100.0}


def test_each_latency_falls_into_one_bucket() -> None:
    found = counters.latency_increments([0.1, 0.11, 400.0])
    assert found == [
        ("latency_bucket", "0.1", 1),
        ("latency_sum", "", 0.1),
        ("latency_bucket", "0.25", 1),
        ("latency_sum", "", 0.11),
        ("latency_bucket", "+Inf", 1),
        ("latency_sum", "", 400.0),
    ]
