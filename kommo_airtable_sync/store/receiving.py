"""How what was told becomes rows of ``events``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from kommo_airtable_sync.core.types import IncomingEvent
from kommo_airtable_sync.store import leases
from kommo_airtable_sync.store.database import Connection, Database, json_text, storable
from kommo_airtable_sync.store.schema import events, ledger
from kommo_airtable_sync.store.settling import ERROR_CHARACTERS_MAX

RECORD = "record:"


def store_events(
    database: Database, connection: Connection, incoming: Sequence[IncomingEvent], now: float
) -> list[IncomingEvent]:
    """Insert events inside the caller's transaction.

    Returns:
        Those that were not there before (``dedupe_key``), under the key that they are due by.
    """
    incoming = _by_lead(connection, incoming)
    fresh = [event for event in incoming if event.dedupe_key is None]
    if fresh:
        connection.execute(sa.insert(events), [_event_row(event, now) for event in fresh])
    insert = (sqlite.insert if database.is_sqlite else postgresql.insert)(events)
    for event in incoming:
        if event.dedupe_key is not None:
            stored = connection.execute(
                insert.values(_event_row(event, now))
                .on_conflict_do_nothing(index_elements=[events.c.dedupe_key])
                .returning(events.c.id)
            )
            fresh += [event for _ in stored]
    return fresh


def _by_lead(connection: Connection, incoming: Sequence[IncomingEvent]) -> list[IncomingEvent]:
    """A record that the ledger knows goes by the key of its lead or contact."""
    records = {event.key[len(RECORD) :] for event in incoming if event.key.startswith(RECORD)}
    known = keys_of_records(connection, sorted(records))
    return [
        replace(event, key=known.get(event.key.removeprefix(RECORD), event.key))
        for event in incoming
    ]


def keys_of_records(connection: Connection, record_ids: Sequence[str]) -> dict[str, str]:
    """Record id -> the key whose record it is by the ledger; of strangers nothing."""
    known: dict[str, str] = {}
    for some in leases.in_portions(record_ids):
        rows = connection.execute(
            sa.select(ledger.c.record_id, ledger.c.key).where(ledger.c.record_id.in_(some))
        )
        known.update({row.record_id: row.key for row in rows})
    return known


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
        "directive": None if event.directive is None else json_text(event.directive),
        "dedupe_key": event.dedupe_key,
    }


def _why_quarantined(event: IncomingEvent) -> str | None:
    if event.state != "quarantined" or event.payload is None:
        return None
    return storable(str(event.payload.get("error", "")))[:ERROR_CHARACTERS_MAX] or None
