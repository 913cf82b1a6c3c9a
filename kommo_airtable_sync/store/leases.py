"""The ``due`` table: when a key may be worked on, and who holds it now (design 3.4).

Rows of several keys are always locked in the order of the key, and ``due`` before ``events`` and
``batches``; so no two transactions of ours can deadlock on PostgreSQL. SQLite has one writer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from kommo_airtable_sync.core.errors import LeaseLost
from kommo_airtable_sync.core.types import Priority
from kommo_airtable_sync.store.database import Connection, Database
from kommo_airtable_sync.store.schema import due, events, sides

UNSETTLED = ("pending", "claimed")
Value = TypeVar("Value")
# A statement takes a limited number of parameters (32,766 on SQLite).
VALUES_PER_STATEMENT = 500


def unleased(now: float) -> sa.ColumnElement[bool]:
    """Nobody holds the key."""
    return sa.or_(due.c.lease_until.is_(None), due.c.lease_until <= now)


def claimable(now: float) -> sa.ColumnElement[bool]:
    """The key is due, nobody holds it and no side is paused."""
    paused = sa.exists(sa.select(sides.c.side).where(sides.c.paused_until > now))
    return sa.and_(due.c.due_at <= now, unleased(now), ~paused)


def make_due(
    database: Database, connection: Connection, keys: Mapping[str, Priority], due_at: float
) -> None:
    """Insert keys or hasten those already there; a lease in force is left alone.

    Args:
        database: tells the dialect.
        connection: the caller's transaction.
        keys: how urgent each key is.
        due_at: seconds since the epoch.
    """
    if not keys:
        return
    insert = (sqlite.insert if database.is_sqlite else postgresql.insert)(due)
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=[due.c.key],
            set_={
                "due_at": _least(due.c.due_at, insert.excluded.due_at),
                "priority": _least(due.c.priority, insert.excluded.priority),
            },
        ),
        [
            {"key": key, "due_at": due_at, "priority": priority}
            for key, priority in sorted(keys.items())
        ],
    )


def make_known(
    database: Database, connection: Connection, keys: Mapping[str, Priority], due_at: float
) -> None:
    """Insert keys that are not listed yet; those that are stay as they are, locked."""
    insert = (sqlite.insert if database.is_sqlite else postgresql.insert)(due)
    connection.execute(
        insert.on_conflict_do_update(index_elements=[due.c.key], set_={"due_at": due.c.due_at}),
        [
            {"key": key, "due_at": due_at, "priority": priority}
            for key, priority in sorted(keys.items())
        ],
    )


def lock(
    connection: Connection, *conditions: sa.ColumnElement[bool]
) -> list[tuple[str, float | None]]:
    """Lock the matching rows of ``due`` in the order of their keys; (key, lease_until) of each."""
    rows = connection.execute(
        sa.select(due.c.key, due.c.lease_until)
        .where(*conditions)
        .order_by(due.c.key)
        .with_for_update()
    )
    return [(row.key, row.lease_until) for row in rows]


def require_lease(
    database: Database,
    connection: Connection,
    batch_id: int,
    keys: Sequence[str],
    seconds_left: float = 0.0,
) -> float:
    """Check, inside the caller's transaction, that the batch holds all keys for so much longer.

    The time is taken after the rows are locked: waiting for a lock must not stretch a lease.

    Returns:
        Database time, seconds since the epoch.

    Raises:
        LeaseLost: if it does not hold them.
    """
    rows = lock(connection, due.c.key.in_(keys), due.c.token == batch_id)
    now = database.now(connection)
    held = sum(until is not None and until > now + seconds_left for _, until in rows)
    if held != len(set(keys)):
        raise LeaseLost(f"batch {batch_id} holds {held} of {len(set(keys))} keys")
    return now


def forget_idle(connection: Connection, keys: Sequence[str], now: float) -> None:
    """Take keys off the list that nobody holds and that have nothing left to do."""
    busy = sa.exists(
        sa.select(events.c.id).where(events.c.key == due.c.key, events.c.state.in_(UNSETTLED))
    )
    for some in in_portions(keys):
        connection.execute(sa.delete(due).where(due.c.key.in_(some), unleased(now), ~busy))


def in_portions(values: Sequence[Value]) -> Iterator[Sequence[Value]]:
    """Cut a list of any length into lists that one statement can take."""
    for start in range(0, len(values), VALUES_PER_STATEMENT):
        yield values[start : start + VALUES_PER_STATEMENT]


def _least(ours: sa.ColumnElement[Any], theirs: sa.ColumnElement[Any]) -> sa.Case[Any]:
    return sa.case((ours <= theirs, ours), else_=theirs)
