"""The durable inbox: events in, keys claimed under a lease, outcomes settled (design 3.4).

``due`` holds at most one row a key: when it may be worked on, how urgent it is, and who may do so
now (lease and fencing token = the batch id). ``events`` holds what we were told; all unsettled
events of a key travel with its claim. Claim and settle are single transactions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from kommo_airtable_sync.core.errors import LeaseLost
from kommo_airtable_sync.core.types import BULK, LIVE, IncomingEvent, Priority
from kommo_airtable_sync.store import counters, leases
from kommo_airtable_sync.store.claiming import Claim, ClaimedEvent, lease, take
from kommo_airtable_sync.store.database import Connection, Database
from kommo_airtable_sync.store.documents import store_document
from kommo_airtable_sync.store.leases import UNSETTLED
from kommo_airtable_sync.store.receiving import store_events
from kommo_airtable_sync.store.schema import batches, due, events
from kommo_airtable_sync.store.settling import (
    Outcome,
    answer_directives,
    free_keys,
    settle_events,
)

NONE: Mapping[Any, str] = MappingProxyType({})


class Inbox:
    """The queue between the receiver and the runs."""

    def __init__(self, database: Database, *, settle_seconds: float = 0.0) -> None:
        self._database = database
        self._settle_seconds = settle_seconds

    # ------------------------------------------------------------------ receive

    def receive(
        self, incoming: Sequence[IncomingEvent], *, remember: Mapping[str, str] = NONE
    ) -> None:
        """Store events and make their keys due, in one committed transaction.

        An event about an Airtable record that the ledger knows gets the key of its lead or
        contact. One whose ``dedupe_key`` has come before is left out. A directive waits for
        nothing to gather.

        Args:
            incoming: what was told.
            remember: documents to store with them (name -> body): how far a webhook was pulled.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: if it could not be committed; then nothing is stored
                and the sender must not be told otherwise.
        """
        if not incoming and not remember:
            return
        with self._database.write() as connection:
            now = self._database.now(connection)
            fresh = store_events(self._database, connection, incoming, now)
            wanted: dict[str, Priority] = {}
            for event in fresh:
                if event.state == "pending":
                    known = wanted.get(event.key, event.priority)
                    wanted[event.key] = min(known, event.priority)
            hurry = any(event.directive is not None for event in fresh)
            due_at = now if hurry else now + self._settle_seconds
            leases.make_due(self._database, connection, wanted, due_at)
            counters.add(
                self._database,
                connection,
                [("events_received", f"{event.source},{event.state}", 1) for event in fresh],
            )
            for name, body in remember.items():
                store_document(self._database, connection, name, body)

    def writable(self) -> bool:
        """Whether an event could be stored now: something is, since a full disk shows only so."""
        try:
            with self._database.write() as connection:
                store_document(self._database, connection, "written to be sure", "")
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
            return take(connection, picked, lane, run_id, now, lease_seconds)

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
            return take(connection, picked, lane, run_id, now, lease_seconds)

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

    def extend(
        self, batch_id: int, keys: Sequence[str], lease_seconds: float
    ) -> Mapping[str, Sequence[ClaimedEvent]]:
        """Take further keys under the batch's token: those that nobody else holds.

        They are freed like the claimed ones, so they too must be settled.

        Returns:
            Each key that was got (or was the batch's already), with its unsettled events, perhaps
            none: a contact is needed for its lead's link, whether or not it has changed.

        Raises:
            LeaseLost: if the batch is over.
        """
        if not keys:
            return {}
        with self._database.write() as connection:
            batch = connection.execute(
                sa.select(batches).where(batches.c.id == batch_id, batches.c.settled_at.is_(None))
            ).first()
            if batch is None:
                raise LeaseLost(f"batch {batch_id} is over")
            wanted: dict[str, Priority] = {key: batch.lane for key in keys}
            now = self._database.now(connection)
            leases.make_known(self._database, connection, wanted, now)
            rows = leases.lock(
                connection,
                due.c.key.in_(keys),
                sa.or_(leases.unleased(now), due.c.token == batch_id),
            )
            until = self._database.now(connection) + lease_seconds
            return lease(connection, [key for key, _ in rows], batch_id, batch.run_id, until)

    def rekey(self, batch_id: int, new_keys: Mapping[str, str]) -> None:
        """Hand the events of held keys over to other keys, due now; the held ones are gone.

        Args:
            batch_id: holds the old keys. It must not settle them any more.
            new_keys: old key -> new, ``{"record:rec1": "lead:5"}``.

        Raises:
            LeaseLost: if the batch no longer holds one of the old keys; then nothing is changed.
        """
        if not new_keys:
            return
        old_keys = list(new_keys)
        with self._database.write() as connection:
            urgent = connection.execute(
                sa.select(due.c.key, due.c.priority).where(due.c.key.in_(old_keys))
            )
            wanted: dict[str, Priority] = {}
            for row in urgent:
                new = new_keys[row.key]
                wanted[new] = min(wanted.get(new, row.priority), row.priority)
            # The new keys' rows first: "lead:" and "contact:" sort before "record:".
            leases.make_due(self._database, connection, wanted, self._database.now(connection))
            now = leases.require_lease(self._database, connection, batch_id, old_keys)
            for old, new in new_keys.items():
                back = sa.case((events.c.state == "claimed", "pending"), else_=events.c.state)
                connection.execute(
                    sa.update(events)
                    .where(events.c.key == old, events.c.state.in_((*UNSETTLED, "dead", "held")))
                    .values(key=new, batch_id=None, state=back)
                )
            connection.execute(sa.delete(due).where(due.c.key.in_(old_keys)))
            _close_if_empty(connection, batch_id, now)

    # ------------------------------------------------------------------ settle

    def settle(
        self,
        batch_id: int,
        outcomes: Mapping[str, Outcome],
        max_attempts: int,
        directives: Mapping[int, str] = NONE,
    ) -> float:
        """Record how each key ended; only events captured by the claim are settled.

        A key with newer events stays due. The last unfinished key closes the batch.

        Args:
            batch_id: holds the keys.
            outcomes: by key.
            max_attempts: a key that was tried so often is dead.
            directives: event id -> what came of this directive (``applied``, ``refused: ...``),
                kept on the event unless it goes back to the queue.

        Returns:
            Database time of the settlement, seconds since the epoch.

        Raises:
            LeaseLost: if the batch no longer holds one of the keys; then nothing is settled.
        """
        with self._database.write() as connection:
            now = leases.require_lease(self._database, connection, batch_id, list(outcomes))
            settle_events(connection, batch_id, outcomes, max_attempts, now)
            answer_directives(connection, batch_id, directives)
            free_keys(connection, batch_id, outcomes, now)
            _close_if_empty(connection, batch_id, now)
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
            # Keys that a batch took besides those that were due.
            leases.forget_idle(connection, keys, now)
        return len(keys)


def _close_if_empty(connection: Connection, batch_id: int, now: float) -> None:
    held = sa.exists(sa.select(due.c.key).where(due.c.token == batch_id))
    connection.execute(
        sa.update(batches).where(batches.c.id == batch_id, ~held).values(settled_at=now)
    )


def _due(column: sa.Column[Any], lane: Priority, now: float) -> sa.Select[Any]:
    return (
        sa.select(column)
        .where(leases.claimable(now), due.c.priority == lane)
        .order_by(due.c.due_at)
    )


def _first_due(lane: Priority, now: float) -> sa.ScalarSelect[Any]:
    # Ordered, so that PostgreSQL takes it from the index's edge; an EXISTS may scan the table.
    return _due(due.c.due_at, lane, now).limit(1).scalar_subquery()
