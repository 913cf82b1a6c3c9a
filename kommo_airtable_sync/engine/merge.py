"""Merge each lead of the batch: what is to be written on either side, and what needs nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace

from kommo_airtable_sync.core.enrichment import enriched_fields
from kommo_airtable_sync.core.errors import LeadFailed, Side
from kommo_airtable_sync.core.field_mapping import OptionMissing
from kommo_airtable_sync.core.filters import qualifies
from kommo_airtable_sync.core.schemas import UnknownReference
from kommo_airtable_sync.core.status import status_text
from kommo_airtable_sync.core.types import Json
from kommo_airtable_sync.engine import leaving
from kommo_airtable_sync.engine.applying import refuse_changed
from kommo_airtable_sync.engine.batch import Batch, Plan
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.engine.outage import pausing
from kommo_airtable_sync.engine.outgoing import with_status
from kommo_airtable_sync.engine.plan import plan_subject
from kommo_airtable_sync.engine.subject import Subject
from kommo_airtable_sync.store.entries import Held
from kommo_airtable_sync.store.settling import Outcome

log = logging.getLogger(__name__)


def merge_batch(engine: Engine, batch: Batch) -> None:
    """Plan what is to be written; decide every lead that needs nothing."""
    if batch.outage is not None:
        return
    with pausing(engine, batch):
        leaving.look_in_the_trash(engine, batch)
        planned = {plan.key for plan in (*batch.plans, *batch.patches)}
        for key in batch.open_of("lead"):
            if key not in planned:
                merge_one(engine, batch, key)
        refuse_changed(engine, batch)


def merge_one(engine: Engine, batch: Batch, key: str) -> None:
    """Merge one lead, with the schemas read again if it names what they lack."""
    try:
        try:
            _merge(engine, batch, key, final=batch.schemas_read)
        except (UnknownReference, OptionMissing):
            if batch.schemas_read:
                raise
            # Somebody added a stage, a user or an option since we last looked.
            engine.directory.refresh()
            batch.schemas_read = True
            _merge(engine, batch, key, final=True)
    except UnknownReference as unknown:
        batch.outcomes[key] = Outcome("dead", error=str(unknown))
    except LeadFailed as failed:
        state = "dead" if failed.permanent else "retry"
        batch.outcomes[key] = Outcome(state, error=failed.reason)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # Not of the shape that the reference promises. Its neighbours are.
        log.exception("%s cannot be read", key)
        reason = f"{key} is not as expected: {type(error).__name__}: {error}"
        batch.outcomes[key] = Outcome("dead", error=reason)


def _merge(engine: Engine, batch: Batch, key: str, *, final: bool) -> None:
    lead = batch.leads.get(key)
    if lead is None:
        leaving.lead_is_absent(engine, batch, key)
        return
    mapping = engine.directory.mapping()
    known = batch.known[key]
    record = batch.records.get(key)
    entry = replace(known.entry, seen_updated_at=updated_at(lead))
    if record is not None:
        entry = replace(entry, record_id=str(record["id"]))
    verdict = qualifies(lead, mapping.filters, already_synced=bool(entry.fields))
    if not verdict.ok:
        leaving.lead_left(engine, batch, key, entry, verdict.reason)
        return
    if key in batch.records_read and record is None and entry.record_id is not None:
        if not leaving.record_may_return(engine, batch, key, entry):
            return
        entry = replace(entry, record_id=None)
    given = enriched_fields(_enrich(engine, batch, key, lead), mapping)
    fields = (*mapping.fields, *(field for field, _ in given))
    subject = Subject(
        key=key,
        table=mapping,
        fields=fields,
        lead=lead,
        known=known,
        entry=entry,
        record=record,
        read=key in batch.records_read,
        events=batch.events_of(key),
        now=engine.clock.now(),
        final=final,
        own_user_id=mapping.own_user_id,
    )
    plan = plan_subject(subject, batch)
    remarks = batch.remarks.get(key, {})
    plan = replace(
        plan,
        problems=(*plan.problems, *remarks.values()),
        unsettled=plan.unsettled | remarks.keys(),
    )
    if plan.item or plan.problems:
        # Not seen to the end: what we were told must not look old when it is tried again.
        unseen = replace(plan.entry, seen_updated_at=known.entry.seen_updated_at)
        plan = replace(plan, entry=unseen)
    held = {each.field_name: each.reason for each in plan.held}
    refused = [each.name for each in fields if each.id in plan.unsettled - _ids(plan.held)]
    text = status_text(held=held, problems=refused)
    accept(batch, with_status(plan, subject, text))


def _enrich(
    engine: Engine, batch: Batch, key: str, lead: Mapping[str, Json]
) -> Mapping[str, object]:
    """Slow functions make what was read old: a lead read again as it was is not given to them."""
    before = batch.given.get(key)
    if before is None or before[0] != lead:
        before = batch.given[key] = (lead, engine.enricher.enrich(lead))
    return before[1]


def accept(batch: Batch, plan: Plan) -> None:
    """Put a plan where it belongs: to be written to Airtable, to Kommo, or in step already."""
    if plan.held:
        batch.counts["conflicts"] += 1
    if plan.to_airtable:
        batch.plans.append(plan)
    elif plan.item:
        batch.patches.append(plan)
    else:
        batch.unchanged.append(plan)
        batch.counts["unchanged"] += 1
        _count_echoes(batch, plan.key)
        batch.outcomes[plan.key] = ended(plan, "unchanged")


def _count_echoes(batch: Batch, key: str) -> None:
    """News that change nothing, from a side that we have just written to ourselves."""
    events = batch.events_of(key)
    sides: set[Side] = {write.side for write in batch.known[key].recent}
    for side in sides:
        batch.count("echoes", side, sum(event.source == side for event in events))


def ended(plan: Plan, outcome: str) -> Outcome:
    """How a lead ends once its writes are through: a field that could not be written is told."""
    if plan.problems:
        return Outcome("dead", error=" ".join(plan.problems))
    return Outcome("done", outcome)


def _ids(held: Iterable[Held]) -> set[str]:
    return {each.field for each in held}


def updated_at(lead: Mapping[str, Json]) -> float | None:
    """When Kommo says the lead was changed last, seconds since the epoch."""
    at = lead.get("updated_at")
    return float(at) if isinstance(at, (int, float)) else None
