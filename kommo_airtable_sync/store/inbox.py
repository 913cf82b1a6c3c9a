"""The durable inbox: events in, keys claimed under a lease, outcomes settled (design 3.4).

``due`` holds at most one row a key: when it may be worked on, how urgent it is, and who may do so
now (lease and fencing token = the batch id). ``events`` holds what we were told; all unsettled
events of a key travel with its claim. Claim and settle are single transactions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from kommo_airtable_sync.core.errors import LeaseLost
from kommo_airtable_sync.core.types import BULK, LIVE, IncomingEvent, Priority
from kommo_airtable_sync.store import counters, leases
from kommo_airtable_sync.store.database import Connection, Database, json_text, storable
from kommo_airtable_sync.store.documents import put_document
from kommo_airtable_sync.store.leases import UNSETTLED
from kommo_airtable_sync.store.schema import batches, due, events
from kommo_airtable_sync.store.settling import (
    ERROR_CHARACTERS_MAX,
    Outcome,
    free_keys,
    settle_events,
)


@dataclass(frozen=True, slots=True)
class ClaimedEvent:
    """An event as captured by a claim."""

    id: int
    key: str
    source: str
    kind: str
    occurred_at: float | None
    received_at: float
    always_read: bool
    attempts: int


@dataclass(frozen=True, slots=True)
class Claim:
    """Keys that this batch alone may act on, with every unsettled event of each."""

    batch_id: int
    lane: Priority
    events: Mapping[str, Sequence[ClaimedEvent]]

    @property
    def keys(self) -> list[str]:
        """The claimed keys, oldest due first."""
        return list(self.events)


class Inbox:
    """The queue between the receiver and the runs."""

    def __init__(self, database: Database, *, settle_seconds: float = 0.0) -> None:
        self._database = database
        self._settle_seconds = settle_seconds

    # ------------------------------------------------------------------ receive

    def receive(
        self, incoming: Sequence[IncomingEvent], *, remember: Mapping[str, str] | None = None
    ) -> None:
        """Store events and make their keys due, in one committed transaction.

        Args:
            incoming: those whose ``dedupe_key`` is known already are passed over.
            remember: documents to store with them, by name (a webhook's cursor).

        Raises:
            sqlalchemy.exc.SQLAlchemyError: if it could not be committed; then nothing is stored
                and the sender must not be told otherwise.
        """
        if not incoming and not remember:
            return
        with self._database.write() as connection:
            now = self._database.now(connection)
            for name, body in (remember or {}).items():
                put_document(self._database, connection, name, body)
            incoming = _unknown(connection, incoming)
            if not incoming:
                return
            connection.execute(sa.insert(events), [_event_row(event, now) for event in incoming])
            wanted: dict[str, Priority] = {}
            for event in incoming:
                if event.state == "pending":
                    known = wanted.get(event.key, event.priority)
                    wanted[event.key] = min(known, event.priority)
            leases.make_due(self._database, connection, wanted, now + self._settle_seconds)
            counters.add(
                self._database,
                connection,
                [("events_received", f"{event.source},{event.state}", 1) for event in incoming],
            )

    def writable(self) -> bool:
        """Whether an event could be stored now."""
        try:
            with self._database.write() as connection:
                connection.execute(sa.delete(events).where(events.c.id < 0))
        except SQLAlchemyError:
            return False
        return True

    # ------------------------------------------------------------------ claim

    def due_lanes(self) -> frozenset[Priority]:
        """Lanes with something to claim now; empty while a side is paused.

        Asked every 50 ms by the sensor: it looks at the first due row of each lane, not at all.
        """
        lanes: tuple[Priority, ...] = (LIVE, BULK)
        with self._database.read() as connection:
            now = self._database.now(connection)
            found = connection.execute(sa.select(*(_first_due(lane, now) for lane in lanes))).one()
        return frozenset(lane for lane, at in zip(lanes, found, strict=True) if at is not None)

    def claim(self, lane: Priority, limit: int, run_id: str, lease_seconds: float) -> Claim | None:
        """Take up to ``limit`` due keys of a lane, oldest first; None if there are none.

        One statement finds and locks the rows (on SQLite the transaction has the write lock
        already): two runs can never hold the same key. The batch is numbered after that, so for
        each key a later claim has the higher number, and an idle look writes nothing.
        """
        with self._database.write() as connection:
            now = self._database.now(connection)
            picked = _due(due.c.key, lane, now).limit(limit)
            return _take(connection, picked, lane, run_id, now, lease_seconds)

    def reclaim(self, batch_id: int, run_id: str, lease_seconds: float) -> Claim | None:
        """Claim again what an earlier batch had and lost, as far as it is still unsettled."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            lane: Any = connection.scalar(sa.select(batches.c.lane).where(batches.c.id == batch_id))
            if lane is None:
                return None
            theirs = sa.select(events.c.key).where(
                events.c.batch_id == batch_id, events.c.state.in_(UNSETTLED)
            )
            picked = (
                sa.select(due.c.key)
                .where(leases.unleased(now), due.c.key.in_(theirs))
                .order_by(due.c.due_at)
            )
            return _take(connection, picked, lane, run_id, now, lease_seconds)

    # ------------------------------------------------------------------ lease

    def renew(self, batch_id: int, lease_seconds: float) -> None:
        """Hold the batch's keys for longer.

        Raises:
            LeaseLost: if the batch holds none any more.
        """
        with self._database.write() as connection:
            rows = leases.lock(connection, due.c.token == batch_id)
            now = self._database.now(connection)
            held = [key for key, until in rows if until is not None and until > now]
            if not held:
                raise LeaseLost(f"batch {batch_id} holds no keys any more")
            connection.execute(
                sa.update(due).where(due.c.key.in_(held)).values(lease_until=now + lease_seconds)
            )

    def contended(self, batch_id: int) -> frozenset[str]:
        """Keys of a bulk batch for which a live event has come since."""
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(due.c.key).where(due.c.token == batch_id, due.c.priority == LIVE)
            ).scalars()
            return frozenset(rows.all())

    # ------------------------------------------------------------------ settle

    def settle(self, batch_id: int, outcomes: Mapping[str, Outcome], max_attempts: int) -> float:
        """Record how each key ended; only events captured by the claim are settled.

        A key with newer events stays due. The last unfinished key closes the batch.

        Returns:
            Database time of the settlement, seconds since the epoch.

        Raises:
            LeaseLost: if the batch no longer holds one of the keys; then nothing is settled.
        """
        with self._database.write() as connection:
            now = leases.require_lease(self._database, connection, batch_id, list(outcomes))
            settle_events(connection, batch_id, outcomes, max_attempts, now)
            free_keys(connection, batch_id, outcomes, now)
            held = sa.exists(sa.select(due.c.key).where(due.c.token == batch_id))
            connection.execute(
                sa.update(batches).where(batches.c.id == batch_id, ~held).values(settled_at=now)
            )
            return now

    def release_run(self, run_id: str, delay_seconds: float = 0.0) -> int:
        """Give back every key that a dead or terminated run still holds; returns how many."""
        theirs = sa.select(batches.c.id).where(
            batches.c.run_id == run_id, batches.c.settled_at.is_(None)
        )
        with self._database.write() as connection:
            keys = [key for key, _ in leases.lock(connection, due.c.token.in_(theirs))]
            now = self._database.now(connection)
            connection.execute(
                sa.update(events)
                .where(events.c.batch_id.in_(theirs), events.c.state == "claimed")
                .values(state="pending")
            )
            connection.execute(
                sa.update(due)
                .where(due.c.key.in_(keys))
                .values(token=None, lease_until=None, due_at=now + delay_seconds)
            )
            connection.execute(
                sa.update(batches)
                .where(batches.c.run_id == run_id, batches.c.settled_at.is_(None))
                .values(settled_at=now)
            )
        return len(keys)


def _unknown(connection: Connection, incoming: Sequence[IncomingEvent]) -> list[IncomingEvent]:
    keys = [event.dedupe_key for event in incoming if event.dedupe_key is not None]
    known: set[str] = set()
    for some in leases.in_portions(keys):
        found = sa.select(events.c.dedupe_key).where(events.c.dedupe_key.in_(some))
        known.update(connection.execute(found).scalars())
    return [event for event in incoming if event.dedupe_key not in known]


def _due(column: sa.Column[Any], lane: Priority, now: float) -> sa.Select[Any]:
    return (
        sa.select(column)
        .where(leases.claimable(now), due.c.priority == lane)
        .order_by(due.c.due_at)
    )


def _first_due(lane: Priority, now: float) -> sa.ScalarSelect[Any]:
    # Ordered, so that PostgreSQL takes it from the index's edge; an EXISTS may scan the table.
    return _due(due.c.due_at, lane, now).limit(1).scalar_subquery()


def _take(
    connection: Connection,
    picked: sa.Select[Any],
    lane: Priority,
    run_id: str,
    now: float,
    lease_seconds: float,
) -> Claim | None:
    """Lock the picked keys, skipping those that another transaction has, and lease them."""
    keys = connection.execute(picked.with_for_update(skip_locked=True)).scalars().all()
    if not keys:
        return None
    created = connection.execute(
        sa.insert(batches).values(run_id=run_id, lane=lane, claimed_at=now).returning(batches.c.id)
    )
    batch_id = int(created.scalar_one())
    connection.execute(
        sa.update(due)
        .where(due.c.key.in_(keys))
        .values(token=batch_id, lease_until=now + lease_seconds)
    )
    rows = connection.execute(
        sa.update(events)
        .where(events.c.key.in_(keys), events.c.state.in_(UNSETTLED))
        .values(state="claimed", batch_id=batch_id, run_id=run_id)
        .returning(
            events.c.id,
            events.c.key,
            events.c.source,
            events.c.kind,
            events.c.occurred_at,
            events.c.received_at,
            events.c.always_read,
            events.c.attempts,
        )
    ).all()
    by_key: dict[str, list[ClaimedEvent]] = {key: [] for key in keys}
    for row in sorted(rows, key=lambda row: row.id):
        by_key[row.key].append(ClaimedEvent(*row))
    return Claim(batch_id, lane, by_key)


def _why_quarantined(event: IncomingEvent) -> str | None:
    if event.state != "quarantined" or event.payload is None:
        return None
    return storable(str(event.payload.get("error", "")))[:ERROR_CHARACTERS_MAX] or None


def _event_row(event: IncomingEvent, now: float) -> dict[str, Any]:
    return {
        "key": event.key,
        "source": event.source,
        "kind": event.kind,
        "state": event.state,
        "error": _why_quarantined(event),
        "priority": event.priority,
        "occurred_at": event.occurred_at.timestamp() if event.occurred_at else None,
        "received_at": now,
        "always_read": event.always_read,
        "payload": None if event.payload is None else json_text(event.payload),
        "dedupe_key": event.dedupe_key,
    }
