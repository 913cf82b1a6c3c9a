"""Read the batch's leads from Kommo, and records only where the merge needs them."""

from __future__ import annotations

from collections import abc
from collections.abc import Sequence

from kommo_airtable_sync.core.mapping import Mapping
from kommo_airtable_sync.core.types import Json, key_id, lead_key
from kommo_airtable_sync.engine.batch import Batch
from kommo_airtable_sync.engine.context import CALL_SECONDS_MAX, Engine
from kommo_airtable_sync.engine.outage import pausing
from kommo_airtable_sync.store.inbox import ClaimedEvent
from kommo_airtable_sync.store.journal import Intent, LedgerEntry
from kommo_airtable_sync.store.settling import Outcome


def read_batch(engine: Engine, batch: Batch) -> None:
    """Fill in ledger, open intents, leads and records for every key not decided yet.

    Decides at once what needs no read: events older than what we have seen, and creates whose
    first sender may still be talking.
    """
    if batch.read_at is not None or batch.outage is not None:
        return
    with pausing(engine, batch):
        mapping = engine.directory.mapping()
        lead_ids = [key_id(key) for key in batch.open_keys]
        batch.entries, batch.intents = engine.journal.load(lead_ids)
        now = engine.seconds()
        for key in batch.open_keys:
            lead_id = key_id(key)
            intents = batch.intents.get(lead_id, [])
            wait = _seconds_until_sender_gave_up(intents, now)
            if wait > 0:
                batch.outcomes[key] = Outcome("released", due_in_seconds=wait)
            elif not intents and _is_stale(batch.claim.events[key], batch.entries.get(lead_id)):
                batch.outcomes[key] = Outcome("done", "stale")
                batch.counts["skipped_stale"] += 1
        wanted = [key_id(key) for key in batch.open_keys]
        batch.read_at = now
        if wanted:
            before = engine.kommo_budget.calls
            batch.leads = dict(engine.kommo.leads_by_id(wanted, with_=_embeds(mapping)))
            batch.counts["api_calls_kommo"] += engine.kommo_budget.calls - before
            batch.records = _read_uncertain_records(engine, batch, wanted)


def _embeds(mapping: Mapping) -> tuple[str, ...]:
    """What a lead answers only when asked (reference kommo 3.2)."""
    wanted = any(field.source.name == "source" for field in mapping.fields)
    return ("source_id",) if wanted else ()


def _is_stale(events: Sequence[ClaimedEvent], entry: LedgerEntry | None) -> bool:
    """Whether all events are older than our last full read (equal is not older: 1 s grains)."""
    seen = entry.seen_updated_at if entry else None
    if seen is None:
        return False
    return all(
        not event.always_read and event.occurred_at is not None and event.occurred_at < seen
        for event in events
    )


def _seconds_until_sender_gave_up(intents: list[Intent], now: float) -> float:
    """A create may have been sent by a run that died: wait until its time-out has passed."""
    creates = [intent.created_at for intent in intents if intent.operation == "create"]
    return max(creates) + CALL_SECONDS_MAX - now if creates else 0.0


def _read_uncertain_records(
    engine: Engine, batch: Batch, lead_ids: list[int]
) -> dict[int, abc.Mapping[str, Json]]:
    """Records that a dead run may have created: read by key before anything is created again."""
    uncertain = [
        lead_id
        for lead_id in lead_ids
        if any(intent.operation == "create" for intent in batch.intents.get(lead_id, []))
    ]
    if not uncertain:
        return {}
    mapping = engine.directory.mapping()
    cells = [mapping.key_cell(lead_id) for lead_id in uncertain]
    before = engine.airtable_budget.calls
    found = engine.airtable.records_by_key(mapping.table_id, mapping.key.id, cells)
    batch.counts["api_calls_airtable"] += engine.airtable_budget.calls - before
    records: dict[int, abc.Mapping[str, Json]] = {}
    for record in found:
        lead_id = mapping.lead_id_of(record["fields"].get(mapping.key.id))
        if lead_id in records:
            batch.outcomes[lead_key(lead_id)] = Outcome("dead", error=several_records(lead_id))
        elif lead_id is not None:
            records[lead_id] = record
    return records


def several_records(lead_id: int) -> str:
    """What a person is told of a key that Airtable has more than once."""
    return (
        f"Airtable has more than one record with the key {lead_id}; "
        "merge or delete the copies, then retry."
    )
