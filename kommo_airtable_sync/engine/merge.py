"""Merge each lead of the batch against the ledger: what is to be written, and why."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from kommo_airtable_sync.core import mapping as core_mapping
from kommo_airtable_sync.core.errors import LeadFailed
from kommo_airtable_sync.core.field_mapping import FieldMapping, OptionMissing
from kommo_airtable_sync.core.filters import qualifies
from kommo_airtable_sync.core.merge import MISSING, UNREAD, Absent, Decision, merge_field
from kommo_airtable_sync.core.schemas import UnknownReference
from kommo_airtable_sync.core.types import Canonical, Json, key_id
from kommo_airtable_sync.engine.batch import Batch, PlannedRow
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.engine.outage import pausing
from kommo_airtable_sync.store.entries import AgreedField, Intent, LedgerEntry
from kommo_airtable_sync.store.settling import Outcome

log = logging.getLogger(__name__)

DELETED = "delete"


def merge_batch(engine: Engine, batch: Batch) -> None:
    """Plan the rows to write; decide every lead that needs none."""
    if batch.outage is not None:
        return
    with pausing(engine, batch):
        planned = {row.key for row in batch.rows}
        refreshed = False
        for key in batch.open_keys:
            if key in planned:
                continue
            try:
                try:
                    merge_lead(engine, batch, key, final=refreshed)
                except (UnknownReference, OptionMissing):
                    if refreshed:
                        raise
                    # Somebody added a stage, a user or an option since we last looked.
                    engine.directory.refresh()
                    refreshed = True
                    merge_lead(engine, batch, key, final=True)
            except UnknownReference as unknown:
                batch.outcomes[key] = Outcome("dead", error=str(unknown))
            except LeadFailed as failed:
                batch.outcomes[key] = Outcome("dead", error=failed.reason)
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                # Not of the shape that the reference promises. Its neighbours are.
                log.exception("lead %s cannot be read", key)
                reason = f"The lead is not as expected: {type(error).__name__}: {error}"
                batch.outcomes[key] = Outcome("dead", error=reason)


def merge_lead(engine: Engine, batch: Batch, key: str, *, final: bool) -> None:
    """Decide one lead.

    Raises:
        UnknownReference: the lead names something that the schema does not know.
        LeadFailed: a value cannot be represented in Airtable.
    """
    lead_id = key_id(key)
    lead = batch.leads.get(lead_id)
    if lead is None:
        batch.outcomes[key] = _absent(batch, key)
        return
    mapping = engine.directory.mapping()
    entry = batch.entries.get(lead_id) or LedgerEntry(lead_id)
    entry = replace(entry, seen_updated_at=_updated_at(lead))
    record = batch.records.get(lead_id)
    if record is not None:
        entry = replace(entry, record_id=str(record["id"]))
    verdict = qualifies(lead, mapping.filters, already_synced=entry.record_id is not None)
    if not verdict.ok:
        batch.counts["filtered"] += 1
        batch.outcomes[key] = Outcome("done", "filtered", verdict.reason)
        return
    planned = plan_row(batch, mapping, key, lead, entry, record, final=final)
    if isinstance(planned, LedgerEntry):
        batch.unchanged.append(planned)
        batch.counts["unchanged"] += 1
        batch.outcomes[key] = Outcome("done", "unchanged")
    else:
        batch.rows.append(planned)


def plan_row(
    batch: Batch,
    mapping: core_mapping.Mapping,
    key: str,
    lead: Mapping[str, Json],
    entry: LedgerEntry,
    record: Mapping[str, Json] | None,
    *,
    final: bool,
) -> PlannedRow | LedgerEntry:
    """Merge every field of a lead; if nothing is to be written, the ledger entry as it now reads.

    A record that was read and is in step with the lead is agreed on, written to or not; what the
    ledger only supposes of an unread one is not.
    """
    creates = entry.record_id is None
    open_intents = batch.intents.get(entry.lead_id, [])
    event_id = batch.claim.events[key][-1].id if batch.claim.events[key] else None
    kommo_values: dict[str, Canonical] = {}
    changes: dict[str, Canonical] = {}
    intents: list[Intent] = []
    agreed = dict(entry.fields)
    for field in mapping.fields:
        value = field.from_kommo(lead, final=final)
        kommo_values[field.id] = value
        airtable = _shown(field, entry, record, creates=creates)
        decision = _decide(field, value, entry, open_intents, airtable)
        if decision.write_airtable:
            changes[field.id] = decision.airtable_value
            intents.append(_intent(field, entry, decision, airtable, event_id, creates=creates))
        elif decision.agree and not isinstance(airtable, Absent):
            agreed[field.id] = AgreedField(value, airtable, field.fingerprint)
    entry = replace(entry, fields=agreed)
    if not changes and not creates:
        return entry
    cells = {
        field.id: field.to_cell(changes[field.id])
        for field in mapping.fields
        if field.id in changes
    }
    if creates:
        cells[mapping.key.id] = mapping.key_cell(entry.lead_id)
        intents.append(_key_intent(mapping, entry, event_id))
    return PlannedRow(
        lead_id=entry.lead_id,
        key=key,
        record_id=entry.record_id,
        cells=cells,
        kommo_values=kommo_values,
        intents=tuple(intents),
        entry=entry,
        creates=creates,
        typecast=mapping.needs_typecast(changes),
    )


def _shown(
    field: FieldMapping,
    entry: LedgerEntry,
    record: Mapping[str, Json] | None,
    *,
    creates: bool,
) -> Canonical | Absent:
    """What Airtable shows of a field, as far as it was read."""
    if record is not None:
        return field.from_cell(record["fields"].get(field.id))
    return MISSING if creates and entry.fields else UNREAD


def _decide(
    field: FieldMapping,
    value: Canonical,
    entry: LedgerEntry,
    open_intents: list[Intent],
    airtable: Canonical | Absent,
) -> Decision:
    agreed = entry.fields.get(field.id)
    known = agreed is not None and agreed.fingerprint == field.fingerprint
    return merge_field(
        owner=field.owner,
        on_conflict=field.on_conflict,
        kommo=value,
        airtable=airtable,
        bases=[(agreed.kommo, agreed.airtable)] if agreed is not None and known else [],
        intents=[
            (intent.after, intent.after) for intent in open_intents if intent.field == field.id
        ],
    )


def _intent(
    field: FieldMapping,
    entry: LedgerEntry,
    decision: Decision,
    airtable: Canonical | Absent,
    event_id: int | None,
    *,
    creates: bool,
) -> Intent:
    agreed = entry.fields.get(field.id)
    before = agreed.airtable if agreed and not creates else None
    return Intent(
        lead_id=entry.lead_id,
        record_id=entry.record_id,
        side="airtable",
        operation="create" if creates else "update",
        field=field.id,
        field_name=field.name,
        before=before if isinstance(airtable, Absent) else airtable,
        after=decision.airtable_value,
        rule=decision.rule,
        event_id=event_id,
    )


def _key_intent(mapping: core_mapping.Mapping, entry: LedgerEntry, event_id: int | None) -> Intent:
    """Every create has an open intent, even one that writes nothing but its key."""
    return Intent(
        lead_id=entry.lead_id,
        record_id=None,
        side="airtable",
        operation="create",
        field=mapping.key.id,
        field_name=mapping.key.name,
        before=None,
        after=str(entry.lead_id),
        rule="created",
        event_id=event_id,
    )


def _absent(batch: Batch, key: str) -> Outcome:
    """Kommo showed no such lead. Only a delete hook makes that certain (design 3.8)."""
    if any(event.kind == DELETED for event in batch.claim.events[key]):
        return Outcome("done", "absent")
    return Outcome(
        "retry",
        error=f"Kommo shows no lead {key_id(key)}: deleted, or not visible to the token. "
        "Nothing was changed in Airtable.",
    )


def _updated_at(lead: Mapping[str, Json]) -> float | None:
    at = lead.get("updated_at")
    return float(at) if isinstance(at, (int, float)) else None


def agreed_fields(
    mapping: core_mapping.Mapping, row: PlannedRow, record: Mapping[str, Json]
) -> dict[str, AgreedField]:
    """What both sides show after the write: Kommo as read, Airtable as it answered."""
    fields = dict(row.entry.fields)
    for field in mapping.fields:
        written = field.id in row.cells
        if row.creates or written or field.id not in fields:
            fields[field.id] = AgreedField(
                row.kommo_values[field.id],
                field.from_cell(record["fields"].get(field.id)),
                field.fingerprint,
            )
    return fields
