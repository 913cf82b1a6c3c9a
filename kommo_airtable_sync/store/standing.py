"""What a comparison of both sides asks the store: whom it knows, and whom the live sync is at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import sqlalchemy as sa

from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.schema import due, events, ledger

PAGE = 1_000


def synced_keys(database: Database, kind: str) -> Iterator[list[str]]:
    """The keys of a kind that the ledger keeps in step, in portions, in order."""
    last = f"{kind}:"
    while True:
        statement = (
            sa.select(ledger.c.key)
            # ";" follows ":" and thus every key of the kind.
            .where(ledger.c.key > last, ledger.c.key < f"{kind};", ledger.c.state == "synced")
            .order_by(ledger.c.key)
            .limit(PAGE)
        )
        with database.read() as connection:
            some = list(connection.execute(statement).scalars())
        if not some:
            return
        last = some[-1]
        yield some


def database_now(database: Database) -> float:
    """The store's time, seconds since the epoch: what its rows are stamped with."""
    with database.read() as connection:
        return database.now(connection)


def in_motion(database: Database, keys: Sequence[str], since: float) -> set[str]:
    """Those of these that are due, or that were agreed on since then (database time)."""
    waiting = sa.select(due.c.key).where(due.c.key.in_(keys))
    touched = sa.select(ledger.c.key).where(ledger.c.key.in_(keys), ledger.c.updated_at >= since)
    with database.read() as connection:
        return {*connection.execute(waiting).scalars(), *connection.execute(touched).scalars()}


def held(database: Database, keys: Sequence[str]) -> set[str]:
    """Those of these that wait for a person already."""
    statement = sa.select(events.c.key).where(events.c.key.in_(keys), events.c.state == "held")
    with database.read() as connection:
        return set(connection.execute(statement).scalars())
