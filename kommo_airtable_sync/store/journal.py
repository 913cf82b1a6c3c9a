"""Write-ahead intents and the ledger that moves with their acknowledgement (design 3.3, 3.9).

A journal row is opened before the request is sent and closed, together with the ledger's move, in
one transaction after the answer. An open row of a dead batch tells a successor what may already
have landed. The ledger holds one row a lead; its fields are the two values last agreed on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from kommo_airtable_sync.core import canonical
from kommo_airtable_sync.core.errors import Side
from kommo_airtable_sync.core.types import LIVE, Canonical, Priority, lead_key
from kommo_airtable_sync.store import leases
from kommo_airtable_sync.store.database import Connection, Database, json_text
from kommo_airtable_sync.store.leases import require_lease
from kommo_airtable_sync.store.schema import due, events, journal, ledger


@dataclass(frozen=True, slots=True)
class AgreedField:
    """What each side showed when they last agreed, and under which mapping."""

    kommo: Canonical
    airtable: Canonical
    fingerprint: str


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """What we know of a lead: its record, the agreed fields, how fresh our last read was."""

    lead_id: int
    record_id: str | None = None
    fields: Mapping[str, AgreedField] = field(default_factory=dict[str, AgreedField])
    seen_updated_at: float | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """One field that is about to be written, or was (``state``)."""

    lead_id: int
    record_id: str | None
    side: Side
    operation: Literal["create", "update"]
    field: str
    field_name: str
    before: Canonical
    after: Canonical
    rule: str
    event_id: int | None = None
    batch_id: int = 0
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One lead after a write was confirmed, or found to need none.

    Args:
        entry: the ledger row as it now must read.
        written: whether intents of this batch are closed as done by it.
    """

    entry: LedgerEntry
    written: bool = True


class Journal:
    """Intents and ledger: what we send, have sent, and what both sides agreed on."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(
        self, lead_ids: Sequence[int]
    ) -> tuple[dict[int, LedgerEntry], dict[int, list[Intent]]]:
        """Ledger entries and open intents of these leads, in one read."""
        with self._database.read() as connection:
            rows = connection.execute(sa.select(ledger).where(ledger.c.lead_id.in_(lead_ids)))
            entries = {row.lead_id: _entry(row) for row in rows}
            found = connection.execute(
                sa.select(journal)
                .where(journal.c.lead_id.in_(lead_ids), journal.c.state == "open")
                .order_by(journal.c.id)
            )
            intents: dict[int, list[Intent]] = {}
            for row in found:
                intents.setdefault(row.lead_id, []).append(_intent(row))
        return entries, intents

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
            now = require_lease(self._database, connection, batch_id, keys, lease_left_seconds)
            if intents:
                connection.execute(
                    sa.insert(journal),
                    [_intent_row(intent, batch_id, run_id, now) for intent in intents],
                )

    def acknowledge(self, batch_id: int, done: Sequence[Acknowledged]) -> None:
        """Close the intents of these leads and move the ledger, in one transaction.

        Intents left open by earlier batches are superseded: the state they spoke of has been
        read and merged since. A lead that this batch no longer holds keeps its ledger; if it was
        written to, nobody knows which of two writes came last, so its intents stay open and an
        event asks for it to be read and written once more.
        """
        if not done:
            return
        with self._database.write() as connection:
            keys = [lead_key(item.entry.lead_id) for item in done]
            rows = leases.lock(connection, due.c.key.in_(keys), due.c.token == batch_id)
            now = self._database.now(connection)
            held = {key for key, _ in rows}
            overtaken = [item for item in done if lead_key(item.entry.lead_id) not in held]
            self._ask_again(
                connection,
                batch_id,
                [item.entry.lead_id for item in overtaken if item.written],
                now,
            )
            done = [item for item in done if item not in overtaken]
            if not done:
                return
            self._store(connection, [item.entry for item in done], now)
            written = [item.entry for item in done if item.written]
            if written:
                _close(connection, batch_id, [entry.lead_id for entry in written], "done", now)
                # A create learns its record id only from the answer.
                connection.execute(
                    sa.update(journal)
                    .where(
                        journal.c.batch_id == batch_id,
                        journal.c.lead_id == sa.bindparam("for_lead"),
                        journal.c.record_id.is_(None),
                    )
                    .values(record_id=sa.bindparam("its_record")),
                    [
                        {"for_lead": entry.lead_id, "its_record": entry.record_id}
                        for entry in written
                    ],
                )
            connection.execute(
                sa.update(journal)
                .where(
                    journal.c.lead_id.in_([item.entry.lead_id for item in done]),
                    journal.c.state == "open",
                    journal.c.batch_id < batch_id,
                )
                .values(state="superseded", closed_at=now)
            )

    def refuse(self, batch_id: int, lead_ids: Sequence[int]) -> None:
        """Close intents whose request the API refused: nothing of them was stored."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            _close(connection, batch_id, lead_ids, "refused", now)

    def _ask_again(
        self, connection: Connection, batch_id: int, lead_ids: Sequence[int], now: float
    ) -> None:
        if not lead_ids:
            return
        connection.execute(
            sa.update(journal)
            .where(
                journal.c.batch_id == batch_id,
                journal.c.lead_id.in_(lead_ids),
                journal.c.state == "superseded",
            )
            .values(state="open", closed_at=None)
        )
        wanted: dict[str, Priority] = {lead_key(lead_id): LIVE for lead_id in lead_ids}
        event = {
            "source": "sync",
            "kind": "overtaken",
            "state": "pending",
            "priority": LIVE,
            "received_at": now,
            "always_read": True,
        }
        connection.execute(sa.insert(events), [{"key": key, **event} for key in wanted])
        leases.make_due(self._database, connection, wanted, now)

    def _store(self, connection: Connection, entries: Sequence[LedgerEntry], now: float) -> None:
        insert = (sqlite.insert if self._database.is_sqlite else postgresql.insert)(ledger)
        columns = ("record_id", "fields", "seen_updated_at", "updated_at")
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=[ledger.c.lead_id],
                set_={name: insert.excluded[name] for name in columns},
            ),
            [
                {
                    "lead_id": entry.lead_id,
                    "record_id": entry.record_id,
                    "fields": _dump_fields(entry.fields),
                    "seen_updated_at": entry.seen_updated_at,
                    "updated_at": now,
                }
                for entry in sorted(entries, key=lambda entry: entry.lead_id)
            ],
        )

    def ledger_size(self) -> int:
        """How many leads have a record that we know of."""
        with self._database.read() as connection:
            statement = sa.select(sa.func.count()).where(ledger.c.record_id.is_not(None))
            return int(connection.scalar(statement) or 0)

    def history(self, lead_id: int) -> list[dict[str, Any]]:
        """Every journal row of a lead, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(journal).where(journal.c.lead_id == lead_id).order_by(journal.c.id)
            )
            return [dict(row) for row in rows.mappings()]


def _close(
    connection: Connection, batch_id: int, lead_ids: Sequence[int], state: str, now: float
) -> None:
    connection.execute(
        sa.update(journal)
        .where(
            journal.c.batch_id == batch_id,
            journal.c.lead_id.in_(lead_ids),
            journal.c.state == "open",
        )
        .values(state=state, closed_at=now)
    )


def _dump(value: Canonical) -> str:
    return json_text(canonical.to_json(value))


def _load(text: str | None) -> Canonical:
    return None if text is None else canonical.from_json(json.loads(text))


def _dump_fields(fields: Mapping[str, AgreedField]) -> str:
    return json_text(
        {
            name: [
                canonical.to_json(agreed.kommo),
                canonical.to_json(agreed.airtable),
                agreed.fingerprint,
            ]
            for name, agreed in fields.items()
        }
    )


def _entry(row: Any) -> LedgerEntry:
    fields = {
        name: AgreedField(canonical.from_json(kommo), canonical.from_json(airtable), fingerprint)
        for name, (kommo, airtable, fingerprint) in json.loads(row.fields).items()
    }
    return LedgerEntry(row.lead_id, row.record_id, fields, row.seen_updated_at)


def _intent_row(intent: Intent, batch_id: int, run_id: str, now: float) -> dict[str, Any]:
    return {
        "batch_id": batch_id,
        "run_id": run_id,
        "event_id": intent.event_id,
        "lead_id": intent.lead_id,
        "record_id": intent.record_id,
        "side": intent.side,
        "operation": intent.operation,
        "field": intent.field,
        "field_name": intent.field_name,
        "before": _dump(intent.before),
        "after": _dump(intent.after),
        "rule": intent.rule,
        "state": "open",
        "created_at": now,
    }


def _intent(row: Any) -> Intent:
    return Intent(
        lead_id=row.lead_id,
        record_id=row.record_id,
        side=row.side,
        operation=row.operation,
        field=row.field,
        field_name=row.field_name,
        before=_load(row.before),
        after=_load(row.after),
        rule=row.rule,
        event_id=row.event_id,
        batch_id=row.batch_id,
        created_at=row.created_at,
    )
