"""What ledger, journal and held fields say, in objects; and how that is spelt in their rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kommo_airtable_sync.core import canonical
from kommo_airtable_sync.core.errors import Side
from kommo_airtable_sync.core.types import Canonical, IncomingEvent
from kommo_airtable_sync.store.database import json_text

LedgerState = Literal["synced", "excluded", "deleted", "ignored"]


@dataclass(frozen=True, slots=True)
class AgreedField:
    """What each side showed when they last agreed, and under which mapping.

    Args:
        expected: one of the two was sent and not yet seen in an answer.
    """

    kommo: Canonical
    airtable: Canonical
    fingerprint: str
    expected: bool = False


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """What we know of a lead, contact or company, and of its record.

    Args:
        key: ``lead:5``, ``contact:7``, ``company:9``; ``record:rec1`` of a copy that was removed.
        record_id: None while there is no record that we know of.
        fields: Airtable field id -> what was agreed.
        seen_updated_at: Kommo's ``updated_at`` in our last read of the whole entity.
        state: why it is no longer kept in step, if it is not.
        written_at: when we last wrote to either side, seconds since the epoch.
    """

    key: str
    record_id: str | None = None
    fields: Mapping[str, AgreedField] = field(default_factory=dict[str, AgreedField])
    seen_updated_at: float | None = None
    state: LedgerState = "synced"
    written_at: float | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """One field that is about to be written, or was.

    A ``note`` is for people: nothing sends it.

    Args:
        closed_at: seconds since the epoch. Of an open one: its answer came after a newer write
            had been settled (decisions/0006).
    """

    key: str
    record_id: str | None
    side: Side
    operation: Literal["create", "update", "delete", "note"]
    field: str
    field_name: str
    before: Canonical
    after: Canonical
    rule: str
    event_id: int | None = None
    batch_id: int = 0
    created_at: float = 0.0
    closed_at: float | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A field whose two values wait for a person (``conflicts``).

    Args:
        since: seconds since the epoch; for a field held already the store keeps the first.
    """

    field: str
    field_name: str
    reason: Literal["conflict", "loop"]
    kommo: Canonical
    airtable: Canonical
    since: float = 0.0


def resolve_event(
    key: str, seen: Held, use: Literal["kommo", "airtable"], actor: str
) -> IncomingEvent:
    """What enters the inbox when a person decides a held field.

    Args:
        key: the lead's.
        seen: the field with both values as the person saw them: if one has changed, it is refused.
        use: whose value shall stand.
        actor: who decides, for the journal.
    """
    directive = {
        "field": seen.field,
        "kommo": canonical.to_json(seen.kommo),
        "airtable": canonical.to_json(seen.airtable),
        "use": use,
        "actor": actor,
    }
    return IncomingEvent(key, "resolve", "resolve", always_read=True, directive=directive)


@dataclass(frozen=True, slots=True)
class Known:
    """All that the store knows of a key.

    Args:
        entry: its ledger row; an empty one if there is none.
        intents: open ones, oldest first: sent perhaps, and not acknowledged.
        recent: what was written of late (`RECENT_SECONDS`), oldest first.
        held: field id -> field that waits for a person.
    """

    entry: LedgerEntry
    intents: tuple[Intent, ...] = ()
    recent: tuple[Intent, ...] = ()
    held: Mapping[str, Held] = field(default_factory=dict[str, Held])


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One key after a write to one side was confirmed, or found to need none.

    Args:
        entry: the ledger row as it now must read.
        side: this batch's open intents of that side are closed as done; None: nothing was written.
        settled: the fields (ids) that are agreed on by now, so that what earlier batches left open
            of them is superseded; None: the key has been merged and written as a whole.
        held: the fields that now wait for a person; None leaves them as they are.
    """

    entry: LedgerEntry
    side: Side | None = "airtable"
    settled: frozenset[str] | None = None
    held: tuple[Held, ...] | None = None


def entry_row(entry: LedgerEntry, now: float) -> dict[str, Any]:
    """The ledger's row."""
    return {
        "key": entry.key,
        "record_id": entry.record_id,
        "state": entry.state,
        "fields": json_text({name: _spell(agreed) for name, agreed in entry.fields.items()}),
        "seen_updated_at": entry.seen_updated_at,
        "written_at": entry.written_at,
        "updated_at": now,
    }


def read_entry(row: Any) -> LedgerEntry:
    """What `entry_row` wrote."""
    return LedgerEntry(
        key=row.key,
        record_id=row.record_id,
        fields={name: _agreed(*spelt) for name, spelt in json.loads(row.fields).items()},
        seen_updated_at=row.seen_updated_at,
        state=row.state,
        written_at=row.written_at,
    )


def intent_row(intent: Intent, batch_id: int, run_id: str, now: float) -> dict[str, Any]:
    """The journal's row, open."""
    return {
        "batch_id": batch_id,
        "run_id": run_id,
        "event_id": intent.event_id,
        "key": intent.key,
        "record_id": intent.record_id,
        "side": intent.side,
        "operation": intent.operation,
        "field": intent.field,
        "field_name": intent.field_name,
        "before": dump(intent.before),
        "after": dump(intent.after),
        "rule": intent.rule,
        "state": "open",
        "created_at": now,
    }


def read_intent(row: Any) -> Intent:
    """What `intent_row` wrote."""
    return Intent(
        key=row.key,
        record_id=row.record_id,
        side=row.side,
        operation=row.operation,
        field=row.field,
        field_name=row.field_name,
        before=load(row.before),
        after=load(row.after),
        rule=row.rule,
        event_id=row.event_id,
        batch_id=row.batch_id,
        created_at=row.created_at,
        closed_at=row.closed_at,
    )


def held_row(key: str, held: Held, run_id: str, now: float) -> dict[str, Any]:
    """The row of a held field."""
    return {
        "key": key,
        "field": held.field,
        "field_name": held.field_name,
        "reason": held.reason,
        "kommo": dump(held.kommo),
        "airtable": dump(held.airtable),
        "since": held.since or now,
        "run_id": run_id,
    }


def read_held(row: Any) -> Held:
    """What `held_row` wrote."""
    return Held(
        field=row.field,
        field_name=row.field_name,
        reason=row.reason,
        kommo=load(row.kommo),
        airtable=load(row.airtable),
        since=row.since,
    )


def dump(value: Canonical) -> str:
    """A canonical value as JSON text; None is ``null``."""
    return json_text(canonical.to_json(value))


def load(text: str | None) -> Canonical:
    """What `dump` wrote; no text is empty as well."""
    return None if text is None else canonical.from_json(json.loads(text))


def _spell(agreed: AgreedField) -> list[Any]:
    spelt = [canonical.to_json(agreed.kommo), canonical.to_json(agreed.airtable)]
    return [*spelt, agreed.fingerprint, *([True] if agreed.expected else [])]


def _agreed(kommo: Any, airtable: Any, fingerprint: str, expected: bool = False) -> AgreedField:
    return AgreedField(
        canonical.from_json(kommo), canonical.from_json(airtable), fingerprint, expected
    )
