"""Read the batch's leads from Kommo and, where the merge needs them, its records: side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import replace
from datetime import datetime

from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.core.mapping import Mapping, wanted_embeds
from kommo_airtable_sync.core.merge import needs_record
from kommo_airtable_sync.core.types import FRESH_SOURCES, Json, key_id, key_kind, lead_key
from kommo_airtable_sync.engine.batch import Batch
from kommo_airtable_sync.engine.context import CALL_SECONDS_MAX, Engine
from kommo_airtable_sync.engine.copies import asked_of
from kommo_airtable_sync.engine.outage import pausing
from kommo_airtable_sync.engine.pull import pull_webhook
from kommo_airtable_sync.store.claiming import ClaimedEvent
from kommo_airtable_sync.store.entries import Known, LedgerEntry
from kommo_airtable_sync.store.settling import Outcome
from kommo_airtable_sync.store.standing import database_now


def read_batch(engine: Engine, batch: Batch) -> None:
    """Fill in ledger, open intents, leads and records for every key not decided yet.

    Decides at once what needs no read: events older than what we have seen, and leads to which
    an earlier request may still be on its way.
    """
    if batch.read_at is not None or batch.outage is not None:
        return
    with pausing(engine, batch):
        engine.directory.mapping()  # what is wrong with sync.yaml is not a webhook's fault
        for key in batch.open_of("webhook"):
            batch.outcomes[key] = _pull(engine, key.partition(":")[2])
        batch.known = engine.journal.load(batch.open_of("lead", "contact", "company", "record"))
        batch.read_at = engine.seconds()
        _decide_unread(engine, batch)
        leads, records = batch.open_of("lead"), batch.open_of("record")
        strangers = [key for key in records if not asked_of(batch, key)]
        if leads or strangers:
            _read_both(engine, batch, leads, strangers)
            _name_strangers(engine, batch, strangers)


def _pull(engine: Engine, webhook_id: str) -> Outcome:
    def recently_written(record_ids: Sequence[str], since: datetime) -> Set[str]:
        return engine.journal.recently_written(record_ids, since.timestamp())

    try:
        pull_webhook(engine, webhook_id, recently_written)
    except ConfigurationError as error:
        if error.side is not None:
            raise
        # This webhook is of no use any more; the rest of Airtable is.
        return Outcome("dead", error=str(error))
    return Outcome("done", "pulled")


def _decide_unread(engine: Engine, batch: Batch) -> None:
    wait_for_senders(engine, batch, batch.open_of("lead", "contact", "company"))
    for key in batch.open_of("lead", "contact", "company"):
        known = batch.known[key]
        if not known.intents and _is_stale(batch.events_of(key), known.entry):
            batch.outcomes[key] = Outcome("done", "stale")
            batch.counts["skipped_stale"] += 1


def wait_for_senders(engine: Engine, batch: Batch, keys: Iterable[str]) -> None:
    """Let go of those to which a request of ours without an answer may still be on its way.

    It is given up after a time-out or a crash, but may be carried out later: a creation beside
    ours, an update after ours. Whichever it is, it is through before we read.
    """
    begun: dict[str, float] = {}
    for key in keys:
        for intent in batch.known[key].intents:
            if intent.closed_at is None:
                begun[key] = max(intent.created_at, begun.get(key, 0.0))
    # By the clock that stamped them: this machine's may be another.
    now = database_now(engine.database) if begun else 0.0
    for key, created_at in begun.items():
        wait = created_at + CALL_SECONDS_MAX - now
        if wait > 0:
            batch.outcomes[key] = Outcome("released", due_in_seconds=wait)


def _is_stale(events: Sequence[ClaimedEvent], entry: LedgerEntry) -> bool:
    """Whether all events are older than our last full read (equal is not older: 1 s grains)."""
    seen = entry.seen_updated_at
    if seen is None:
        return False
    return all(
        not event.always_read and event.occurred_at is not None and event.occurred_at < seen
        for event in events
    )


def _read_both(
    engine: Engine, batch: Batch, leads: Sequence[str], strangers: Sequence[str]
) -> None:
    mapping = engine.directory.mapping()
    wanted = [key for key in leads if _wants_record(batch, key, mapping)]
    ids = [key_id(key) for key in leads]
    reading = (
        engine.executor.submit(engine.kommo.leads_by_id, ids, with_=wanted_embeds(mapping))
        if ids
        else None
    )
    try:
        if wanted or strangers:
            read_records(engine, batch, mapping, wanted, strangers)
    finally:
        # Both sides' answers are waited for: a call left behind would outlive its batch.
        found = reading.result() if reading else {}
    batch.leads = {lead_key(lead_id): lead for lead_id, lead in found.items()}


def _wants_record(batch: Batch, key: str, mapping: Mapping) -> bool:
    """Where Airtable has a say, a person has spoken, or a dead run may have created the record."""
    known: Known = batch.known[key]
    return (
        needs_record(mapping)
        or known.entry.state != "synced"
        or any(intent.operation == "create" for intent in known.intents)
        or any(event.directive or looks_fresh(event) for event in batch.events_of(key))
    )


def looks_fresh(event: ClaimedEvent) -> bool:
    """Where there is no record yet, as an initial load finds it, there is none to be read."""
    return event.source in FRESH_SOURCES and event.kind != "create"


def read_records(
    engine: Engine,
    batch: Batch,
    mapping: Mapping,
    leads: Sequence[str],
    strangers: Sequence[str] = (),
) -> None:
    """One request: records by their ids and, known or not, by the leads' (or contacts') keys."""
    ids = {key: batch.known[key].entry.record_id for key in leads}
    by_id = [*(id_ for id_ in ids.values() if id_), *(key.partition(":")[2] for key in strangers)]
    cells = [mapping.key_cell(key_id(key)) for key in leads]
    found = engine.airtable.find_records(mapping.table_id, by_id, mapping.key.id, cells)
    by_record_id = {str(record["id"]): record for record in found}
    by_number: dict[int | None, list[Json]] = {}
    for record in found:
        number = mapping.lead_id_of(record["fields"].get(mapping.key.id))
        by_number.setdefault(number, []).append(record)
    batch.records_read.update(leads)
    for key in leads:
        own = by_record_id.get(ids[key] or "")
        copies = by_number.get(key_id(key), [])
        if own is not None and own not in copies:
            batch.outcomes[key] = Outcome("held", error=key_changed(mapping, key, str(own["id"])))
        elif own is not None:
            batch.records[key] = own
        elif len(copies) > 1:
            batch.outcomes[key] = Outcome("dead", error=several_records(key_id(key)))
        elif copies:
            batch.records[key] = copies[0]
    for key in strangers:
        record = by_record_id.get(key.partition(":")[2])
        if record is not None:
            batch.records[key] = record


def _name_strangers(engine: Engine, batch: Batch, strangers: Sequence[str]) -> None:
    """A record whose lead we did not know goes on under the lead's key, with a lease of its own."""
    mapping = engine.directory.mapping()
    moves: dict[str, str] = {}
    for key in strangers:
        record = batch.records.get(key)
        lead_id = mapping.lead_id_of(record["fields"].get(mapping.key.id)) if record else None
        if record is None:
            batch.outcomes[key] = Outcome("done", "absent")
        elif lead_id is None:
            batch.outcomes[key] = Outcome("done", "unlinked")
            batch.counts["unlinked"] += 1
        else:
            moves[key] = lead_key(lead_id)
    if moves:
        engine.inbox.rekey(batch.id, moves)
        left = {key: told for key, told in batch.claim.events.items() if key not in moves}
        batch.claim = replace(batch.claim, events=left)


def several_records(lead_id: int) -> str:
    """What a person is told of a key that Airtable has more than once."""
    return (
        f"Airtable has more than one record with the key {lead_id}; merge or delete the copies "
        "(kommo-airtable-sync duplicates), then retry."
    )


def key_changed(mapping: Mapping, key: str, record_id: str) -> str:
    """What a person is told of a record that no longer names its lead."""
    kind, number = key_kind(key), key_id(key)
    return (
        f"Record {record_id} of {kind} {number} no longer has its key: somebody changed "
        f"{mapping.key.name}. Put {number} back, or delete the record, then retry."
    )
