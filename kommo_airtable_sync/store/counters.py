"""Monotonic counters in SQL, shared by all processes; /metrics and ``status`` read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from kommo_airtable_sync.store.database import Connection, Database
from kommo_airtable_sync.store.schema import counters

# Seconds; an event's way from received to settled.
LATENCY_BUCKETS = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)


def add(
    database: Database, connection: Connection, increments: Iterable[tuple[str, str, float]]
) -> None:
    """Add to counters inside the caller's transaction; items are (name, label, amount)."""
    totals: Counter[tuple[str, str]] = Counter()
    for name, label, amount in increments:
        totals[name, label] += amount  # type: ignore[assignment]
    if not totals:
        return
    insert = (sqlite.insert if database.is_sqlite else postgresql.insert)(counters)
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=[counters.c.name, counters.c.label],
            set_={"value": counters.c.value + insert.excluded.value},
        ),
        [
            {"name": name, "label": label, "value": float(value)}
            for (name, label), value in sorted(totals.items())
        ],
    )


def latency_increments(latencies: Iterable[float]) -> list[tuple[str, str, float]]:
    """Histogram increments (one bucket, the sum and the count) for each latency in seconds."""
    increments: list[tuple[str, str, float]] = []
    for seconds in latencies:
        bucket = next((str(edge) for edge in LATENCY_BUCKETS if seconds <= edge), "+Inf")
        increments.append(("latency_bucket", bucket, 1))
        increments.append(("latency_sum", "", seconds))
    return increments


def read_all(database: Database) -> dict[tuple[str, str], float]:
    """Every counter by (name, label)."""
    with database.read() as connection:
        rows = connection.execute(sa.select(counters)).all()
    return {(row.name, row.label): row.value for row in rows}
