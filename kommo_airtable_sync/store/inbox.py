"""The durable inbox: events in, keys claimed under a lease, outcomes settled (design 3.4).

``due`` holds at most one row a key: when it may be worked on, how urgent it is, and who may do so
now (lease and fencing token = the batch id). ``events`` holds what we were told; all unsettled
events of a key travel with its claim. Claim and settle are single transactions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from kommo_airtable_sync.core.errors import LeaseLost
from kommo_airtable_sync.core.types import LIVE, IncomingEvent, Priority
from kommo_airtable_sync.store import counters
from kommo_airtable_sync.store.database import Connection, Database
from kommo_airtable_sync.store.schema import batches, due, events, sides

UNSETTLED = ("pending", "claimed")
ERROR_CHARACTERS_MAX = 2_000


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


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the work on one key ended.

    Args:
        state: ``done``; ``dead`` (a person must look); ``retry`` (counts as an attempt);
            ``released`` (nobody's fault: back into the queue as it was).
        outcome: for done: ``created``, ``updated``, ``unchanged``, ``stale``, ``filtered``,
            ``absent``.
        error: one sentence for people.
        due_in_seconds: for retry and released.
    """

    state: Literal["done", "dead", "retry", "released"]
    outcome: str | None = None
    error: str | None = None
    due_in_seconds: float = 0.0


class Inbox:
    """The queue between the receiver and the runs."""

    def __init__(self, database: Database, *, settle_seconds: float = 0.0) -> None:
        self._database = database
        self._settle_seconds = settle_seconds

    # ------------------------------------------------------------------ receive

    def receive(self, incoming: Sequence[IncomingEvent]) -> None:
        """Store events and make their keys due, in one committed transaction."""
        if not incoming:
            return
        with self._database.write() as connection:
            now = self._database.now(connection)
            connection.execute(sa.insert(events), [_event_row(event, now) for event in incoming])
            wanted: dict[str, Priority] = {}
            for event in incoming:
                if event.state == "pending":
                    known = wanted.get(event.key, event.priority)
                    wanted[event.key] = min(known, event.priority)
            if wanted:
                _make_due(
                    self._database,
                    connection,
                    [
                        {"key": key, "due_at": now + self._settle_seconds, "priority": priority}
                        for key, priority in wanted.items()
                    ],
                )
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
        """Lanes with something to claim now; empty while a side is paused."""
        with self._database.read() as connection:
            now = self._database.now(connection)
            rows = connection.execute(
                sa.select(due.c.priority).where(_claimable(now)).distinct()
            ).scalars()
            return frozenset(rows.all())

    def claim(self, lane: Priority, limit: int, run_id: str, lease_seconds: float) -> Claim | None:
        """Take up to ``limit`` due keys of a lane, oldest first; None if there are none.

        The statement that takes them is one: two runs can never hold the same key.
        """
        with self._database.write() as connection:
            now = self._database.now(connection)
            picked = (
                sa.select(due.c.key)
                .where(_claimable(now), due.c.priority == lane)
                .order_by(due.c.due_at)
                .limit(limit)
                .with_for_update(skip_locked=True)
            )
            return self._take(connection, picked, lane, run_id, now, lease_seconds)

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
                .where(_unleased(now), due.c.key.in_(theirs))
                .order_by(due.c.due_at)
                .with_for_update(skip_locked=True)
            )
            return self._take(connection, picked, lane, run_id, now, lease_seconds)

    def _take(
        self,
        connection: Connection,
        picked: sa.Select[Any],
        lane: Priority,
        run_id: str,
        now: float,
        lease_seconds: float,
    ) -> Claim | None:
        created = connection.execute(
            sa.insert(batches).values(run_id=run_id, lane=lane, claimed_at=now)
        ).inserted_primary_key
        batch_id = int(created[0]) if created else 0
        keys = (
            connection.execute(
                sa.update(due)
                .where(due.c.key.in_(picked.scalar_subquery()))
                .values(token=batch_id, lease_until=now + lease_seconds)
                .returning(due.c.key)
            )
            .scalars()
            .all()
        )
        if not keys:
            connection.execute(sa.delete(batches).where(batches.c.id == batch_id))
            return None
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

    # ------------------------------------------------------------------ lease

    def renew(self, batch_id: int, lease_seconds: float) -> None:
        """Hold the batch's keys for longer.

        Raises:
            LeaseLost: if the batch holds none any more.
        """
        with self._database.write() as connection:
            now = self._database.now(connection)
            held = connection.execute(
                sa.update(due)
                .where(due.c.token == batch_id, due.c.lease_until > now)
                .values(lease_until=now + lease_seconds)
            ).rowcount
        if not held:
            raise LeaseLost(f"batch {batch_id} holds no keys any more")

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
            now = self._database.now(connection)
            require_lease(connection, batch_id, list(outcomes), now)
            for key, outcome in outcomes.items():
                self._settle_key(connection, batch_id, key, outcome, max_attempts, now)
            open_keys = connection.scalar(
                sa.select(sa.func.count()).select_from(due).where(due.c.token == batch_id)
            )
            if not open_keys:
                connection.execute(
                    sa.update(batches).where(batches.c.id == batch_id).values(settled_at=now)
                )
            return now

    def _settle_key(
        self,
        connection: Connection,
        batch_id: int,
        key: str,
        outcome: Outcome,
        max_attempts: int,
        now: float,
    ) -> None:
        mine = sa.and_(
            events.c.batch_id == batch_id, events.c.key == key, events.c.state == "claimed"
        )
        error = (outcome.error or "")[:ERROR_CHARACTERS_MAX] or None
        due_at = now + outcome.due_in_seconds
        finished: dict[str, Any] = {"settled_at": now, "outcome": outcome.outcome, "error": error}
        if outcome.state == "done":
            connection.execute(sa.update(events).where(mine).values(state="done", **finished))
            # What once failed has now been made good by the same one write path.
            connection.execute(
                sa.update(events)
                .where(events.c.key == key, events.c.state == "dead")
                .values(state="done", outcome="superseded", settled_at=now)
            )
        elif outcome.state == "dead":
            connection.execute(sa.update(events).where(mine).values(state="dead", **finished))
        elif outcome.state == "retry":
            attempts = events.c.attempts + 1
            spent = attempts >= max_attempts
            connection.execute(
                sa.update(events)
                .where(mine)
                .values(
                    attempts=attempts,
                    error=error,
                    state=sa.case((spent, "dead"), else_="pending"),
                    settled_at=sa.case((spent, now), else_=None),
                )
            )
        else:
            connection.execute(sa.update(events).where(mine).values(state="pending"))
        newer = connection.execute(
            sa.select(events.c.batch_id, events.c.attempts).where(
                events.c.key == key, events.c.state == "pending"
            )
        ).all()
        if not newer:
            connection.execute(sa.delete(due).where(due.c.key == key, due.c.token == batch_id))
            return
        if any(row.batch_id != batch_id for row in newer):
            due_at = min(due_at, now)
        connection.execute(
            sa.update(due)
            .where(due.c.key == key, due.c.token == batch_id)
            .values(token=None, lease_until=None, due_at=due_at)
        )

    def release_run(self, run_id: str) -> int:
        """Give back every key that a dead or terminated run still holds; returns how many."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            theirs = sa.select(batches.c.id).where(
                batches.c.run_id == run_id, batches.c.settled_at.is_(None)
            )
            connection.execute(
                sa.update(events)
                .where(events.c.batch_id.in_(theirs), events.c.state == "claimed")
                .values(state="pending")
            )
            freed = connection.execute(
                sa.update(due)
                .where(due.c.token.in_(theirs))
                .values(token=None, lease_until=None, due_at=now)
            ).rowcount
            connection.execute(
                sa.update(batches)
                .where(batches.c.run_id == run_id, batches.c.settled_at.is_(None))
                .values(settled_at=now)
            )
        return freed


def require_lease(connection: Connection, batch_id: int, keys: Sequence[str], until: float) -> None:
    """Check, inside the caller's transaction, that the batch holds all keys beyond ``until``.

    Raises:
        LeaseLost: if it does not.
    """
    statement = (
        sa.select(due.c.key)
        .where(due.c.key.in_(keys), due.c.token == batch_id, due.c.lease_until > until)
        .with_for_update()
    )
    held = connection.execute(statement).all()
    if len(held) != len(set(keys)):
        raise LeaseLost(f"batch {batch_id} holds {len(held)} of {len(set(keys))} keys")


def _unleased(now: float) -> sa.ColumnElement[bool]:
    return sa.or_(due.c.lease_until.is_(None), due.c.lease_until <= now)


def _claimable(now: float) -> sa.ColumnElement[bool]:
    paused = sa.exists(sa.select(sides.c.side).where(sides.c.paused_until > now))
    return sa.and_(due.c.due_at <= now, _unleased(now), ~paused)


def _event_row(event: IncomingEvent, now: float) -> dict[str, Any]:
    return {
        "key": event.key,
        "source": event.source,
        "kind": event.kind,
        "state": event.state,
        "priority": event.priority,
        "occurred_at": event.occurred_at.timestamp() if event.occurred_at else None,
        "received_at": now,
        "always_read": event.always_read,
        "payload": None
        if event.payload is None
        else json.dumps(event.payload, ensure_ascii=False, separators=(",", ":")),
    }


def _make_due(database: Database, connection: Connection, rows: list[dict[str, Any]]) -> None:
    """Insert keys or hasten those already there; a lease in force is left alone."""
    insert = (sqlite.insert if database.is_sqlite else postgresql.insert)(due)
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=[due.c.key],
            set_={
                "due_at": _least(due.c.due_at, insert.excluded.due_at),
                "priority": _least(due.c.priority, insert.excluded.priority),
            },
        ),
        # One order for all writers, so that two of them cannot deadlock on PostgreSQL.
        sorted(rows, key=lambda row: row["key"]),
    )


def _least(ours: sa.ColumnElement[Any], theirs: sa.ColumnElement[Any]) -> sa.Case[Any]:
    return sa.case((ours <= theirs, ours), else_=theirs)


def make_due(
    database: Database, connection: Connection, keys: Sequence[str], priority: Priority = LIVE
) -> None:
    """Make keys due now, inside the caller's transaction (a person's retry)."""
    now = database.now(connection)
    _make_due(
        database,
        connection,
        [{"key": key, "due_at": now, "priority": priority} for key in set(keys)],
    )
