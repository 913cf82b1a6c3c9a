"""Write-ahead intents and the ledger that moves with their acknowledgement (design 3.3, 3.9).

A journal row is opened before the request is sent and closed, together with the ledger's move, in
one transaction after the answer. An open row of a dead batch tells a successor what may already
have landed. Ledger, journal and held fields go by the inbox's keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from kommo_airtable_sync.core.brake import Usage
from kommo_airtable_sync.core.errors import Side
from kommo_airtable_sync.core.types import LIVE, Priority
from kommo_airtable_sync.store import leases
from kommo_airtable_sync.store.database import Connection, Database
from kommo_airtable_sync.store.entries import (
    Acknowledged,
    Held,
    Intent,
    Known,
    LedgerEntry,
    entry_row,
    held_row,
    intent_row,
    read_entry,
    read_held,
    read_intent,
)
from kommo_airtable_sync.store.schema import batches, due, events, held_fields, journal, ledger

RECENT_SECONDS = 120.0
# Perhaps arrived, or surely.
SENT = ("open", "done")


class Journal:
    """Intents and ledger: what we send, have sent, and what both sides agreed on."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, keys: Sequence[str]) -> dict[str, Known]:
        """All that is known of each of these keys; one look at each table."""
        with self._database.read() as connection:
            now = self._database.now(connection)
            rows = connection.execute(sa.select(ledger).where(ledger.c.key.in_(keys)))
            entries = {row.key: read_entry(row) for row in rows}
            written = connection.execute(_open_and_recent(keys, now - RECENT_SECONDS)).all()
            waiting = connection.execute(
                sa.select(held_fields).where(held_fields.c.key.in_(keys))
            ).all()
        intents: dict[str, list[Intent]] = {key: [] for key in keys}
        recent: dict[str, list[Intent]] = {key: [] for key in keys}
        for row in written:
            (intents if row.state == "open" else recent)[row.key].append(read_intent(row))
        held: dict[str, dict[str, Held]] = {key: {} for key in keys}
        for row in waiting:
            held[row.key][row.field] = read_held(row)
        return {
            key: Known(
                entry=entries.get(key) or LedgerEntry(key),
                intents=tuple(intents[key]),
                recent=tuple(recent[key]),
                held=held[key],
            )
            for key in keys
        }

    def open(
        self,
        batch_id: int,
        run_id: str,
        keys: Sequence[str],
        intents: Sequence[Intent],
        *,
        lease_left_seconds: float,
    ) -> None:
        """Write down what is about to be sent, under a lease that outlives the time-out.

        Raises:
            LeaseLost: if the batch does not hold ``keys`` for ``lease_left_seconds`` more.
        """
        with self._database.write() as connection:
            now = leases.require_lease(
                self._database, connection, batch_id, keys, lease_left_seconds
            )
            if intents:
                connection.execute(
                    sa.insert(journal),
                    [intent_row(intent, batch_id, run_id, now) for intent in intents],
                )

    def acknowledge(self, batch_id: int, done: Sequence[Acknowledged]) -> None:
        """Close the intents of these keys and move their ledger, in one transaction.

        A key may come several times, once for each side that was written; the last entry stands.
        A key that this batch no longer holds keeps its ledger; if it was written to, nobody knows
        which of two writes came last, so the intents of that side stay open and an event asks for
        it to be read and written once more.
        """
        if not done:
            return
        with self._database.write() as connection:
            keys = [item.entry.key for item in done]
            rows = leases.lock(connection, due.c.key.in_(keys), due.c.token == batch_id)
            now = self._database.now(connection)
            ours = {key for key, _ in rows}
            self._ask_again(
                connection,
                batch_id,
                [item for item in done if item.entry.key not in ours and item.side is not None],
                now,
            )
            done = [item for item in done if item.entry.key in ours]
            if not done:
                return
            self._store(connection, [item.entry for item in done], now)
            for side, entries in _by_side(done).items():
                _close(connection, batch_id, [entry.key for entry in entries], side, "done", now)
            _learn_record_ids(connection, batch_id, done)
            _supersede(connection, batch_id, done, now)
            held = {item.entry.key: item.held for item in done if item.held is not None}
            self._replace_held(connection, batch_id, held, now)

    def refuse(self, batch_id: int, keys: Sequence[str], side: Side) -> None:
        """Close intents whose request that side's API refused: nothing of them was stored."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            _close(connection, batch_id, keys, side, "refused", now)

    def note(self, batch_id: int, run_id: str, notes: Sequence[Intent]) -> list[Intent]:
        """Write down what nothing is to be sent for: at once done, and once for each event.

        Returns:
            Those that were not there before.
        """
        with self._database.write() as connection:
            now = self._database.now(connection)
            there = {
                (row.event_id, row.field)
                for row in connection.execute(
                    sa.select(journal.c.event_id, journal.c.field).where(
                        journal.c.key.in_([each.key for each in notes]),
                        journal.c.operation == "note",
                    )
                )
            }
            fresh = [each for each in notes if (each.event_id, each.field) not in there]
            rows = [intent_row(each, batch_id, run_id, now) for each in fresh]
            if rows:
                done = [{**row, "state": "done", "closed_at": now} for row in rows]
                connection.execute(sa.insert(journal), done)
        return fresh

    def _ask_again(
        self, connection: Connection, batch_id: int, overtaken: Sequence[Acknowledged], now: float
    ) -> None:
        """Open again what a newer write had settled; ``closed_at`` tells that it is older."""
        if not overtaken:
            return
        for side, entries in _by_side(overtaken).items():
            connection.execute(
                sa.update(journal)
                .where(
                    journal.c.batch_id == batch_id,
                    journal.c.key.in_([entry.key for entry in entries]),
                    journal.c.side == side,
                    journal.c.state == "superseded",
                )
                .values(state="open")
            )
        wanted: dict[str, Priority] = {item.entry.key: LIVE for item in overtaken}
        leases.make_due(self._database, connection, wanted, now)
        event = {
            "source": "sync",
            "kind": "overtaken",
            "state": "pending",
            "priority": LIVE,
            "received_at": now,
            "always_read": True,
        }
        connection.execute(sa.insert(events), [{"key": key, **event} for key in wanted])

    def _store(self, connection: Connection, entries: Sequence[LedgerEntry], now: float) -> None:
        insert = (sqlite.insert if self._database.is_sqlite else postgresql.insert)(ledger)
        rows = {entry.key: entry_row(entry, now) for entry in entries}
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=[ledger.c.key],
                set_={
                    column.name: insert.excluded[column.name]
                    for column in ledger.c
                    if not column.primary_key
                },
            ),
            [rows[key] for key in sorted(rows)],
        )

    def _replace_held(
        self,
        connection: Connection,
        batch_id: int,
        held: Mapping[str, Sequence[Held]],
        now: float,
    ) -> None:
        """What is held still keeps its ``since``."""
        if not held:
            return
        still = sa.tuple_(held_fields.c.key, held_fields.c.field).in_(
            [(key, item.field) for key, items in held.items() for item in items]
        )
        connection.execute(sa.delete(held_fields).where(held_fields.c.key.in_(list(held)), ~still))
        if not any(held.values()):
            return
        run_id = connection.scalar(sa.select(batches.c.run_id).where(batches.c.id == batch_id))
        insert = (sqlite.insert if self._database.is_sqlite else postgresql.insert)(held_fields)
        changed = ("field_name", "reason", "kommo", "airtable", "run_id")
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=[held_fields.c.key, held_fields.c.field],
                set_={name: insert.excluded[name] for name in changed},
            ),
            [
                held_row(key, item, run_id or "", now)
                for key, items in sorted(held.items())
                for item in items
            ],
        )

    def changed_since(self, since: float, besides: Sequence[str] = ()) -> Usage:
        """What was changed since then on either side, sent or confirmed; for the brake.

        A key created since then does not count as changed by what follows: it is the same initial
        load.

        Args:
            since: seconds since the epoch.
            besides: keys to leave out, because the caller counts what it is about to do to them.
        """
        changes = sa.and_(
            journal.c.created_at >= since,
            journal.c.operation != "create",
            journal.c.state.in_(SENT),
            journal.c.key.not_in(besides),
        )
        update = journal.c.operation == "update"
        blanked = sa.and_(update, journal.c.before != "null", journal.c.after == "null")
        updated = sa.select(journal.c.key).where(changes, update).distinct().subquery()
        # A scalar subquery: PostgreSQL would read all creations to join them.
        made = (
            sa.select(sa.func.max(journal.c.created_at))
            .where(
                journal.c.key == updated.c.key,
                journal.c.operation == "create",
                journal.c.state.in_(SENT),
            )
            .correlate(updated)
            .scalar_subquery()
        )
        older = sa.or_(made.is_(None), made < since)
        keys = sa.func.count(journal.c.key.distinct())
        with self._database.read() as connection:
            changed = connection.scalar(
                sa.select(sa.func.count()).select_from(updated).where(older)
            )
            deleted = connection.scalar(
                sa.select(keys).where(changes, journal.c.operation == "delete")
            )
            by_field = connection.execute(
                sa.select(journal.c.field, keys).where(changes, blanked).group_by(journal.c.field)
            ).all()
        return Usage(int(changed or 0), int(deleted or 0), {name: n for name, n in by_field})

    def recently_written(self, record_ids: Sequence[str], since: float) -> set[str]:
        """Which of these records we have written to since then (seconds since the epoch)."""
        ours = sa.exists(
            sa.select(journal.c.id).where(
                journal.c.key == ledger.c.key,
                journal.c.closed_at >= since,
                journal.c.side == "airtable",
                journal.c.state == "done",
            )
        )
        found: set[str] = set()
        with self._database.read() as connection:
            for some in leases.in_portions(record_ids):
                statement = sa.select(ledger.c.record_id).where(ledger.c.record_id.in_(some), ours)
                found.update(connection.execute(statement).scalars())
        return found

    def ledger_size(self) -> int:
        """How many leads have a record that we know of."""
        with self._database.read() as connection:
            statement = sa.select(sa.func.count()).where(
                ledger.c.record_id.is_not(None), ledger.c.key.like("lead:%")
            )
            return int(connection.scalar(statement) or 0)


def _open_and_recent(keys: Sequence[str], since: float) -> sa.CompoundSelect[Any]:
    """Two looks in one statement, since one with OR would read the key's whole history."""
    chosen = sa.select(journal).where(journal.c.key.in_(keys))
    return sa.union_all(
        chosen.where(journal.c.state == "open"),
        chosen.where(
            journal.c.state == "done",
            journal.c.closed_at >= since,
            journal.c.operation != "note",
        ),
    ).order_by("id")


def _by_side(items: Sequence[Acknowledged]) -> dict[Side, list[LedgerEntry]]:
    found: dict[Side, list[LedgerEntry]] = {}
    for item in items:
        if item.side is not None:
            found.setdefault(item.side, []).append(item.entry)
    return found


def _learn_record_ids(connection: Connection, batch_id: int, done: Sequence[Acknowledged]) -> None:
    """A create learns its record id only from the answer."""
    learnt = [
        {"of_key": item.entry.key, "its_record": item.entry.record_id}
        for item in done
        if item.side is not None and item.entry.record_id is not None
    ]
    if learnt:
        connection.execute(
            sa.update(journal)
            .where(
                journal.c.batch_id == batch_id,
                journal.c.key == sa.bindparam("of_key"),
                journal.c.record_id.is_(None),
            )
            .values(record_id=sa.bindparam("its_record")),
            learnt,
        )


def _supersede(
    connection: Connection, batch_id: int, done: Sequence[Acknowledged], now: float
) -> None:
    """Close what earlier batches left open of that on which both sides agree by now."""
    whole = journal.c.key.in_([item.entry.key for item in done if item.settled is None])
    parts = [
        sa.and_(journal.c.key == item.entry.key, journal.c.field.in_(item.settled))
        for item in done
        if item.settled
    ]
    connection.execute(
        sa.update(journal)
        .where(sa.or_(whole, *parts), journal.c.state == "open", journal.c.batch_id < batch_id)
        .values(state="superseded", closed_at=now)
    )


def _close(
    connection: Connection, batch_id: int, keys: Sequence[str], side: Side, state: str, now: float
) -> None:
    connection.execute(
        sa.update(journal)
        .where(
            journal.c.batch_id == batch_id,
            journal.c.key.in_(keys),
            journal.c.side == side,
            journal.c.state == "open",
        )
        .values(state=state, closed_at=now)
    )
