"""How long live events took within a stretch of time, by the buckets of /metrics."""

from __future__ import annotations

import sqlalchemy as sa

from kommo_airtable_sync.core.types import LIVE
from kommo_airtable_sync.store.counters import LATENCY_BUCKETS
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.schema import events


def latency_histogram(database: Database, since: float) -> list[tuple[str, int]]:
    """How many live events done since then took at most so long, and longer than the one before.

    Args:
        database: the store.
        since: seconds since the epoch.

    Returns:
        (the bucket in words, how many), shortest first, from the first that is filled to the last.
    """
    took = events.c.settled_at - events.c.received_at
    steps = [(took <= edge, number) for number, edge in enumerate(LATENCY_BUCKETS)]
    bucket = sa.case(*steps, else_=len(LATENCY_BUCKETS)).label("bucket")
    with database.read() as connection:
        rows = connection.execute(
            sa.select(bucket, sa.func.count().label("events"))
            .where(
                events.c.priority == LIVE,
                events.c.settled_at >= since,
                events.c.state == "done",
                events.c.outcome.is_distinct_from("superseded"),
            )
            .group_by(bucket)
        )
        found: dict[int, int] = {row.bucket: row.events for row in rows}
    names = [f"{edge:g} s" for edge in LATENCY_BUCKETS] + ["longer"]
    shown = range(min(found, default=0), max(found, default=-1) + 1)
    return [(names[number], found.get(number, 0)) for number in shown]
