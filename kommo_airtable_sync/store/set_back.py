"""After the clock was set back: nothing may wait for a time that will not come for hours.

A clock that was fast and is put right leaves stamps and deadlines of its own behind. What is
stamped later than now cannot be: it happened before. A clock that is set forward needs no care:
leases and pauses end early, and whoever held one finds out by its token.
"""

from __future__ import annotations

import sqlalchemy as sa

from kommo_airtable_sync.store import consents as oauth
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.schema import (
    consents,
    documents,
    due,
    events,
    journal,
    ledger,
    nudges,
    runners,
    sides,
)

# A clock that is merely slewed never steps so far.
STEP_SECONDS = 2.0
# While we run, one of these is written every 15 s at least (receiver and runs beat).
TELLING = (documents.c.stored_at, runners.c.heartbeat_at, nudges.c.requested_at)
STAMPS = (
    *TELLING,
    sides.c.paused_since,
    events.c.received_at,
    journal.c.created_at,
    journal.c.closed_at,
    ledger.c.updated_at,
)


def mend_times(database: Database, lease_seconds: float) -> bool:
    """Bring what the fast clock has left behind to now; whether there was anything.

    Leases go on for ``lease_seconds``: who lives renews them, and who is dead is found out.
    """
    with database.read() as connection:
        future = database.now(connection) + STEP_SECONDS
        told = connection.execute(
            sa.select(*(sa.select(sa.func.max(column)).scalar_subquery() for column in TELLING))
        ).one()
    if all(latest is None or latest <= future for latest in told):
        return False
    with database.write() as connection:
        now = database.now(connection)
        deadlines = (
            (due.c.due_at, now),
            (due.c.lease_until, now + lease_seconds),
            (sides.c.paused_until, now),
            (consents.c.lease_until, now + oauth.LEASE_SECONDS),
        )
        stamps = ((column, now) for column in STAMPS)
        for column, latest in (*deadlines, *stamps):
            connection.execute(
                sa.update(column.table)
                .where(column > latest + STEP_SECONDS)
                .values({column.name: latest})
            )
    return True
