"""What the status page shows of the past: latencies by time, the last runs."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from kommo_airtable_sync.core.types import LIVE
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.schema import batches, events, journal

SETTLED_MAX = 5_000


@dataclass(frozen=True, slots=True)
class RunSeen:
    """One run of late, by the store.

    Args:
        began_at: its first claim, epoch seconds.
        ended_at: when its last batch was settled; None while one is under way.
        batches: how many it took.
        written: fields that it wrote, on either side.
    """

    run_id: str
    lane: int
    began_at: float
    ended_at: float | None
    batches: int
    written: int


def settled_since(database: Database, seconds: float) -> tuple[float, list[tuple[float, float]]]:
    """(now, (settled at, seconds it took) of live changes of late, newest first, bounded)."""
    took = events.c.settled_at - events.c.received_at
    with database.read() as connection:
        now = database.now(connection)
        rows = connection.execute(
            sa.select(events.c.settled_at, took.label("took"))
            .where(
                events.c.priority == LIVE,
                events.c.settled_at.is_not(None),
                events.c.settled_at > now - seconds,
                events.c.state == "done",
                events.c.outcome.is_distinct_from("superseded"),
            )
            .order_by(events.c.settled_at.desc())
            .limit(SETTLED_MAX)
        ).all()
    return now, [(float(row.settled_at), float(row.took)) for row in rows]


def last_runs(database: Database, limit: int) -> list[RunSeen]:
    """The runs that claimed something last, newest first."""
    newest = sa.func.max(batches.c.id).label("newest")
    open_ones = sa.func.sum(sa.case((batches.c.settled_at.is_(None), 1), else_=0))
    with database.read() as connection:
        rows = connection.execute(
            sa.select(
                batches.c.run_id,
                newest,
                sa.func.max(batches.c.lane).label("lane"),
                sa.func.min(batches.c.claimed_at).label("began_at"),
                sa.func.max(batches.c.settled_at).label("ended_at"),
                open_ones.label("open"),
                sa.func.count().label("batches"),
            )
            .group_by(batches.c.run_id)
            .order_by(newest.desc())
            .limit(limit)
        ).all()
        written = {
            row.run_id: row.fields
            for row in connection.execute(
                sa.select(journal.c.run_id, sa.func.count().label("fields"))
                .where(
                    journal.c.run_id.in_([row.run_id for row in rows]), journal.c.state == "done"
                )
                .group_by(journal.c.run_id)
            )
        }
    return [
        RunSeen(
            row.run_id,
            row.lane,
            float(row.began_at),
            None if row.open else float(row.ended_at),
            row.batches,
            written.get(row.run_id, 0),
        )
        for row in rows
    ]
