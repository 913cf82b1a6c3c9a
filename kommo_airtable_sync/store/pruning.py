"""Forget what is over, by age, while others work (``core.retention`` has the ages).

Each table is walked from its oldest row, in portions: read what may go, delete it by id in a
transaction of its own, and leave the database to others for longer than that took. Whatever is
broken off half-way is simply found again by the next walk. SQLite reuses the pages that become
free, so its file keeps the size of its fullest day.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from kommo_airtable_sync.core.retention import (
    DAY,
    PORTION_ROWS_MAX,
    PORTION_SECONDS,
    Retention,
    next_portion,
)
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.schema import batches, due, events, journal

# Dead, quarantined and held ones wait for a person.
SETTLED = ("done", "ignored", "dropped")


def prune(
    database: Database,
    ages: Retention,
    should_end: Callable[[], bool] = lambda: False,
) -> dict[str, int]:
    """Delete what is older than its age; how many rows of each table.

    Args:
        database: the store, not the limiter's.
        ages: in days.
        should_end: asked before each portion.
    """
    with database.read() as connection:
        now = database.now(connection)
    walk = _Walk(database, should_end)
    settled_before = now - ages.settled_events * DAY
    settled_at = sa.func.coalesce(events.c.settled_at, events.c.received_at)
    return {
        "events": sum(
            walk.through(
                events,
                old=events.c.received_at < settled_before,
                goes=settled_at < settled_before,
                among=events.c.state == state,
            )
            for state in SETTLED
        ),
        "journal": walk.through(
            journal,
            old=journal.c.created_at < now - ages.journal * DAY,
            goes=sa.or_(journal.c.state.in_(("refused", "superseded")), _done_since()),
        ),
        "batches": walk.through(
            batches,
            old=batches.c.claimed_at < now - ages.batches * DAY,
            goes=~sa.exists(sa.select(due.c.key).where(due.c.token == batches.c.id)),
        ),
    }


def _done_since() -> sa.ColumnElement[bool]:
    """A done row that a newer one of the same cell follows, or a note.

    The newest says why the value that the ledger knows stands: ``explain`` names it for ever.
    """
    newer = journal.alias()
    followed = sa.exists(
        sa.select(newer.c.id).where(
            newer.c.key == journal.c.key,
            newer.c.field == journal.c.field,
            newer.c.side == journal.c.side,
            newer.c.id > journal.c.id,
            newer.c.state == "done",
            newer.c.operation != "note",
        )
    )
    return sa.and_(journal.c.state == "done", sa.or_(journal.c.operation == "note", followed))


class _Walk:
    """Goes through tables; portions are as large as this database bears."""

    def __init__(self, database: Database, should_end: Callable[[], bool]) -> None:
        self._database = database
        self._should_end = should_end
        self._rows = PORTION_ROWS_MAX // 5

    def through(
        self,
        table: sa.Table,
        *,
        old: sa.ColumnElement[bool],
        goes: sa.ColumnElement[bool],
        among: sa.ColumnElement[bool] | None = None,
    ) -> int:
        """Delete the old rows that may go, by id from the first one to the first that is young.

        Ids grow with time, so no index on a time is needed; a few that lie out of order are found
        another day.
        """
        deleted, after = 0, 0
        scope = sa.true() if among is None else among
        chosen = sa.select(table.c.id, old.label("old"), sa.and_(old, goes).label("goes"))
        while not self._should_end():
            portion = chosen.where(scope, table.c.id > after).order_by(table.c.id)
            with self._database.read() as connection:
                rows = connection.execute(portion.limit(self._rows)).all()
            deleted += self._delete(table, [row.id for row in rows if row.goes])
            if not rows or not rows[-1].old:
                break
            after = rows[-1].id
        return deleted

    def _delete(self, table: sa.Table, ids: list[int]) -> int:
        if not ids:
            return 0
        clock = self._database.clock
        began = clock.now()
        with self._database.write() as connection:
            connection.execute(sa.delete(table).where(table.c.id.in_(ids)))
        took = (clock.now() - began).total_seconds()
        self._rows = next_portion(self._rows, took)
        clock.sleep(max(PORTION_SECONDS, 2 * took))
        return len(ids)
