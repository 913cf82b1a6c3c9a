"""What goes before the merge of a field: a choice, an edit we overwrote, a loop."""

from __future__ import annotations

from typing import Literal

from kommo_airtable_sync.core import canonical
from kommo_airtable_sync.core.canonical import same
from kommo_airtable_sync.core.destinations import is_writable
from kommo_airtable_sync.core.errors import LeadFailed, Side
from kommo_airtable_sync.core.field_mapping import FieldMapping
from kommo_airtable_sync.core.loop_breaker import continues_loop
from kommo_airtable_sync.core.merge import (
    MISSING,
    Absent,
    Decision,
)
from kommo_airtable_sync.core.overwritten import Told, find_lost, is_restored, told_values
from kommo_airtable_sync.core.types import Canonical
from kommo_airtable_sync.engine.batch import APPLIED, Batch
from kommo_airtable_sync.engine.subject import Draft, Subject, edited_at
from kommo_airtable_sync.store.claiming import ClaimedEvent
from kommo_airtable_sync.store.entries import AgreedField, Held, Intent

NOT_WRITABLE = "Kommo does not let anybody write this field"


def directives_of(subject: Subject, batch: Batch) -> dict[str, ClaimedEvent]:
    """A person's choice by field; of several for one field the latest counts."""
    found: dict[str, ClaimedEvent] = {}
    for event in subject.events:
        name = (event.directive or {}).get("field")
        if not isinstance(name, str):
            continue
        if name in found:
            batch.directives[found[name].id] = "refused: a later choice for the field replaced it"
        found[name] = event
    for name in found.keys() - {each.id for each in subject.fields}:
        batch.directives[found.pop(name).id] = "refused: the field is not mapped any more"
    return found


def obey(
    event: ClaimedEvent,
    subject: Subject,
    each: FieldMapping,
    kommo: Canonical,
    airtable: Canonical | Absent,
    batch: Batch,
) -> Decision | None:
    """Both sides become what a person chose, if they still are what the person saw.

    A side that shows a chosen value already is right, too: half of it was written before.
    """
    wanted = event.directive or {}
    shown = None if isinstance(airtable, Absent) else airtable
    use = wanted.get("use")
    chosen = kommo if use == "kommo" else shown
    if use is None:
        chosen = canonical.from_json(wanted.get("value"))
    write_kommo, write_airtable = not same(chosen, kommo), not same(chosen, shown)
    kommo_seen = same(kommo, canonical.from_json(wanted.get("kommo")))
    airtable_seen = same(shown, canonical.from_json(wanted.get("airtable")))
    if use is None:
        kommo_seen, airtable_seen = (
            kommo_seen or not write_kommo,
            airtable_seen or not write_airtable,
        )
    if not (kommo_seen and airtable_seen):
        return batch.refuse(subject.key, {each.id}, "it has changed since; decide again")
    if write_kommo and not is_writable(each.source):
        return batch.refuse(subject.key, {each.id}, NOT_WRITABLE)
    if write_airtable and subject.final:
        try:
            each.to_cell(chosen)
        except LeadFailed as failed:
            return batch.refuse(subject.key, {each.id}, failed.reason)
    batch.directives[event.id] = APPLIED
    return Decision(
        "directive",
        write_kommo=write_kommo,
        kommo_value=chosen if write_kommo else None,
        write_airtable=write_airtable,
        airtable_value=chosen if write_airtable else None,
        agree=not write_kommo and not write_airtable,
    )


def give_back(
    subject: Subject,
    each: FieldMapping,
    kommo: Canonical,
    airtable: Canonical | Absent,
    batch: Batch,
    draft: Draft,
) -> Decision | None:
    """Journal an edit that we overwrote unseen; what follows of it, if the field's rule says so."""
    agreed = subject.entry.fields.get(each.id)
    if agreed is None or airtable is MISSING or not subject.events:
        return None
    stands = agreed.airtable if isinstance(airtable, Absent) else airtable
    told = [
        Told(value, event.occurred_at, event.id)
        for event in subject.events
        if event.source == "airtable" and event.occurred_at is not None
        for value in told_values(each, (event.payload or {}).get("fields"))
    ]
    lost = find_lost(each.id, told, subject.known.recent, stands, agreed.airtable)
    if lost is None:
        return None
    batch.notes[subject.key, each.id] = Intent(
        key=subject.key,
        record_id=subject.entry.record_id,
        side="airtable",
        operation="note",
        field=each.id,
        field_name=each.name,
        before=lost.edit.value,
        after=stands,
        rule="overwritten",
        event_id=lost.edit.event_id,
    )
    held = each.owner == "both" and each.on_conflict == "hold" and not lost.is_set
    kommo_at = edited_at(subject)[0]
    at = kommo_at.timestamp() if kommo_at else None
    if not held and not is_restored(lost, each.owner, each.on_conflict, at):
        return None
    if held:
        # Both sides have moved since: so the next merge finds a conflict, until somebody decides.
        draft.agreed[each.id] = AgreedField(lost.before, lost.before, each.fingerprint)
        draft.held.append(held_field(subject, each, "conflict", kommo, lost.value))
    write_kommo = not held and not same(lost.value, kommo)
    return Decision(
        "overwritten",
        write_airtable=True,
        airtable_value=lost.value,
        write_kommo=write_kommo,
        kommo_value=lost.value if write_kommo else None,
    )


def break_loop(
    subject: Subject,
    each: FieldMapping,
    decision: Decision,
    kommo: Canonical,
    airtable: Canonical | Absent,
    batch: Batch,
    draft: Draft,
) -> Decision:
    """Hold a field that the two sides bounce; held until either shows something else.

    A record that is made again gets all of its fields: it bounces as a whole, if at all.
    """
    if subject.creates or not (decision.write_kommo or decision.write_airtable):
        return decision
    stopped = subject.known.held.get(each.id)
    shown = None if isinstance(airtable, Absent) else airtable
    still = (
        stopped is not None
        and stopped.reason == "loop"
        and same(stopped.kommo, kommo)
        and same(stopped.airtable, shown)
    )
    wanted: list[tuple[Side, Canonical]] = []
    if decision.write_kommo:
        wanted.append(("kommo", decision.kommo_value))
    if decision.write_airtable:
        wanted.append(("airtable", decision.airtable_value))
    recent, now = subject.known.recent, subject.now.timestamp()
    if not still and not any(
        continues_loop(recent, side, each.id, value, now) for side, value in wanted
    ):
        return decision
    if not still:
        for side, _ in wanted:
            batch.count("loop_breaks", side)
    draft.held.append(held_field(subject, each, "loop", kommo, airtable))
    return Decision("loop_broken", held=True)


def held_field(
    subject: Subject,
    each: FieldMapping,
    reason: Literal["conflict", "loop"],
    kommo: Canonical,
    airtable: Canonical | Absent,
) -> Held:
    """The field as it waits for a person; one that waits already keeps its first time."""
    shown = None if isinstance(airtable, Absent) else airtable
    before = subject.known.held.get(each.id)
    since = before.since if before else subject.now.timestamp()
    return Held(each.id, each.name, reason, kommo, shown, since)
