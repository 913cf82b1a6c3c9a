"""Merge every field of one lead (or contact) against the ledger: what is to be written, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from kommo_airtable_sync.core import canonical
from kommo_airtable_sync.core.canonical import parse_instant, same
from kommo_airtable_sync.core.errors import LeadFailed, Side
from kommo_airtable_sync.core.field_mapping import FieldMapping
from kommo_airtable_sync.core.loop_breaker import continues_loop
from kommo_airtable_sync.core.mapping import Mapping as TableMapping
from kommo_airtable_sync.core.merge import (
    MISSING,
    UNREAD,
    Absent,
    Agreed,
    Decision,
    Sent,
    merge_field,
)
from kommo_airtable_sync.core.overwritten import Told, find_lost, is_restored, told_values
from kommo_airtable_sync.core.sources import EPOCH
from kommo_airtable_sync.core.status import status_cell
from kommo_airtable_sync.core.types import Canonical, Json, key_id
from kommo_airtable_sync.engine.batch import Batch, Plan
from kommo_airtable_sync.store.claiming import ClaimedEvent
from kommo_airtable_sync.store.entries import AgreedField, Held, Intent, Known, LedgerEntry

STATUS = "status"
"""The fingerprint of the status field in the ledger."""
OWN_WRITE_SECONDS = 2.0
"""A modification time this close to a write of ours is taken for it."""
REASONS = frozenset({"stage", "loss_reason"})
"""Sources that Kommo takes together or not at all: a lost lead has a reason."""


@dataclass
class _Draft:
    """What has been decided so far."""

    kommo: dict[str, Canonical] = field(default_factory=dict[str, Canonical])
    airtable: dict[str, Canonical | Absent] = field(default_factory=dict[str, Canonical | Absent])
    to_airtable: dict[str, Canonical] = field(default_factory=dict[str, Canonical])
    to_kommo: dict[str, Canonical] = field(default_factory=dict[str, Canonical])
    agreed: dict[str, AgreedField] = field(default_factory=dict[str, AgreedField])
    held: list[Held] = field(default_factory=list[Held])
    rules: dict[str, str] = field(default_factory=dict[str, str])
    problems: list[str] = field(default_factory=list[str])
    refused: set[str] = field(default_factory=set[str])


@dataclass(frozen=True)
class Subject:
    """One lead or contact, and all that is known of it.

    Args:
        lead: as Kommo shows it.
        entry: of the ledger, with what was just read.
        record: as Airtable shows it; None if it was not read or is not there.
        read: whether Airtable was asked for the record.
        fields: those of the mapping and those that enrichment gave.
        final: the schemas were just read again.
        now: of the merge.
        own_user_id: the token's user in Kommo, None if unknown.
    """

    key: str
    table: TableMapping
    fields: Sequence[FieldMapping]
    lead: Mapping[str, Json]
    known: Known
    entry: LedgerEntry
    record: Mapping[str, Json] | None
    read: bool
    events: Sequence[ClaimedEvent]
    now: datetime
    final: bool
    own_user_id: int | None = None

    @property
    def event_id(self) -> int | None:
        """The event that made us look, for the journal."""
        return self.events[-1].id if self.events else None

    @property
    def creates(self) -> bool:
        """Whether no record is known."""
        return self.entry.record_id is None


def plan_subject(subject: Subject, batch: Batch) -> Plan:
    """Decide every field; a plan without cells and item means that nothing is to be written.

    A record that was read and is in step with the lead is agreed on, written to or not; what the
    ledger only supposes of an unread one is not.

    Raises:
        UnknownReference: the lead names something that the schema does not know.
        LeadFailed: a value cannot be represented in Airtable.
    """
    draft = _Draft(agreed=_agreed(subject))
    directives = _directives(subject, batch)
    for each in subject.fields:
        _decide(subject, each, draft, batch, directives)
    item, intents = _patch(subject, draft)
    cells, more, typecast = _cells(subject, draft)
    return Plan(
        key=subject.key,
        table=subject.table,
        fields=subject.fields,
        entry=replace(subject.entry, fields=draft.agreed, state="synced"),
        record_id=subject.entry.record_id,
        cells=cells,
        item=item,
        item_fields=frozenset(draft.to_kommo),
        kommo=draft.kommo,
        airtable=draft.airtable,
        intents=(*more, *intents),
        held=tuple({held.field: held for held in draft.held}.values()),
        problems=tuple(draft.problems),
        unsettled=frozenset({held.field for held in draft.held} | draft.refused),
        typecast=typecast,
    )


# ---------------------------------------------------------------------- one field


def _decide(
    subject: Subject,
    each: FieldMapping,
    draft: _Draft,
    batch: Batch,
    directives: Mapping[str, ClaimedEvent],
) -> None:
    kommo = each.from_kommo(subject.lead, final=subject.final)
    airtable = _shown(subject, each)
    draft.kommo[each.id], draft.airtable[each.id] = kommo, airtable
    decision = None
    directive = directives.get(each.id)
    if directive is not None:
        decision = _obey(directive, kommo, airtable, batch)
    if decision is None:
        decision = _give_back(subject, each, kommo, airtable, batch, draft)
        decision = decision or _merge(subject, each, kommo, airtable)
        decision = _break_loop(subject, each, decision, kommo, airtable, batch, draft)
    if decision.held:
        if decision.rule == "conflict_held":
            draft.held.append(_held(subject, each, "conflict", kommo, airtable))
        return
    draft.rules[each.id] = decision.rule
    if decision.write_kommo:
        draft.to_kommo[each.id] = decision.kommo_value
    if decision.write_airtable:
        draft.to_airtable[each.id] = decision.airtable_value
    if decision.agree and not isinstance(airtable, Absent):
        draft.agreed[each.id] = AgreedField(kommo, airtable, each.fingerprint)


def _shown(subject: Subject, each: FieldMapping) -> Canonical | Absent:
    """What Airtable shows of a field, as far as it was read."""
    if subject.record is not None:
        return each.from_cell(subject.record["fields"].get(each.id))
    if subject.read or (subject.creates and subject.entry.fields):
        return MISSING
    return UNREAD


def _merge(
    subject: Subject, each: FieldMapping, kommo: Canonical, airtable: Canonical | Absent
) -> Decision:
    kommo_at, airtable_at = _edited_at(subject) if each.on_conflict == "newest" else (None, None)
    return merge_field(
        owner=each.owner,
        on_conflict=each.on_conflict,
        kommo=kommo,
        airtable=airtable,
        bases=_bases(subject, each, kommo),
        intents=[
            Sent(intent.side, intent.before, (intent.after, intent.after))
            for intent in subject.known.intents
            if intent.field == each.id
        ],
        kommo_at=kommo_at,
        airtable_at=airtable_at,
    )


def _give_back(
    subject: Subject,
    each: FieldMapping,
    kommo: Canonical,
    airtable: Canonical | Absent,
    batch: Batch,
    draft: _Draft,
) -> Decision | None:
    """Journal an edit that we overwrote unseen; what follows of it, if the field's rule says so."""
    agreed = subject.entry.fields.get(each.id)
    if agreed is None or airtable is MISSING:
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
    kommo_at = _edited_at(subject)[0]
    at = kommo_at.timestamp() if kommo_at else None
    if not held and not is_restored(lost, each.owner, each.on_conflict, at):
        return None
    if held:
        # Both sides have moved since: so the next merge finds a conflict, until somebody decides.
        draft.agreed[each.id] = AgreedField(lost.before, lost.before, each.fingerprint)
        draft.held.append(_held(subject, each, "conflict", kommo, lost.value))
    write_kommo = not held and not same(lost.value, kommo)
    return Decision(
        "overwritten",
        write_airtable=True,
        airtable_value=lost.value,
        write_kommo=write_kommo,
        kommo_value=lost.value if write_kommo else None,
    )


def _bases(subject: Subject, each: FieldMapping, kommo: Canonical) -> list[Agreed]:
    """The ledger's pair, if it was agreed under this mapping and with this record."""
    agreed = subject.entry.fields.get(each.id)
    if agreed is None or agreed.fingerprint != each.fingerprint or _is_new_record(subject):
        return [(None, None)] if _may_be_made_blank(subject, each) else []
    is_set = isinstance(kommo, frozenset) or isinstance(agreed.kommo, frozenset)
    if agreed.expected and not is_set and _is_untouched(subject):
        # Nobody but us has written to the lead since: Kommo keeps our value in its own way. Of a
        # set we only send additions and removals, so what differs is what a person did before.
        return [(kommo, agreed.airtable)]
    return [(agreed.kommo, agreed.airtable)]


def _agreed(subject: Subject) -> dict[str, AgreedField]:
    """The ledger's fields; once others have written to the lead, none is merely expected any more.

    Else a later write of ours, to another field, would make their values look like ours.
    """
    if _is_untouched(subject):
        return dict(subject.entry.fields)
    return {name: replace(each, expected=False) for name, each in subject.entry.fields.items()}


def _may_be_made_blank(subject: Subject, each: FieldMapping) -> bool:
    """Whether a run that died may have made the record, with a blank where it noted no value.

    For a field that both own, this differs from a first meeting in one thing only: of sets that
    both sides have filled since, neither is chosen, all elements stay.
    """
    creates = (intent.operation == "create" for intent in subject.known.intents)
    return each.owner == "both" and any(creates)


def _is_new_record(subject: Subject) -> bool:
    before = subject.known.entry.record_id
    return before is not None and subject.record is not None and subject.record["id"] != before


def _is_untouched(subject: Subject) -> bool:
    lead, entry = subject.lead, subject.entry
    return (
        entry.written_at is not None
        and lead.get("updated_at") == entry.written_at
        and subject.own_user_id is not None
        and lead.get("updated_by") == subject.own_user_id
    )


def _edited_at(subject: Subject) -> tuple[datetime | None, datetime | None]:
    """The latest human change on each side, as far as it can be known (design 3.2)."""
    told = {
        source: max(
            (e.occurred_at for e in subject.events if e.source == source and e.occurred_at),
            default=None,
        )
        for source in ("kommo", "airtable")
    }
    kommo, airtable = told["kommo"], told["airtable"]
    at = subject.lead.get("updated_at")
    if isinstance(at, (int, float)) and at != subject.entry.written_at:
        kommo = float(at)
    if airtable is None and subject.record is not None:
        airtable = _modified_at(subject, subject.record)
    return _instant(kommo), _instant(airtable)


def _modified_at(subject: Subject, record: Mapping[str, Json]) -> float | None:
    """The record's own modification time, unless it is that of a write of ours."""
    cell: Json = record["fields"].get(subject.table.modified_field_id or "")
    if not isinstance(cell, str):
        return None
    at = parse_instant(cell).timestamp()
    ours = [w.closed_at for w in subject.known.recent if w.side == "airtable" and w.closed_at]
    return None if any(abs(at - own) <= OWN_WRITE_SECONDS for own in ours) else at


def _instant(seconds: float | None) -> datetime | None:
    return None if seconds is None else EPOCH + timedelta(seconds=seconds)


# ---------------------------------------------------------------------- what overrides the merge


def _directives(subject: Subject, batch: Batch) -> dict[str, ClaimedEvent]:
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


def _obey(
    event: ClaimedEvent, kommo: Canonical, airtable: Canonical | Absent, batch: Batch
) -> Decision | None:
    """Both sides become what a person chose, if they still are what the person saw."""
    wanted = event.directive or {}
    shown = None if isinstance(airtable, Absent) else airtable
    expected_kommo = canonical.from_json(wanted.get("kommo"))
    expected_airtable = canonical.from_json(wanted.get("airtable"))
    if not same(kommo, expected_kommo) or not same(shown, expected_airtable):
        batch.directives[event.id] = "refused: it has changed since; decide again"
        return None
    batch.directives[event.id] = "applied"
    use = wanted.get("use")
    chosen = kommo if use == "kommo" else shown
    if use is None:
        chosen = canonical.from_json(wanted.get("value"))
    write_kommo, write_airtable = not same(chosen, kommo), not same(chosen, shown)
    return Decision(
        "directive",
        write_kommo=write_kommo,
        kommo_value=chosen if write_kommo else None,
        write_airtable=write_airtable,
        airtable_value=chosen if write_airtable else None,
        agree=not write_kommo and not write_airtable,
    )


def _break_loop(
    subject: Subject,
    each: FieldMapping,
    decision: Decision,
    kommo: Canonical,
    airtable: Canonical | Absent,
    batch: Batch,
    draft: _Draft,
) -> Decision:
    """Hold a field that the two sides bounce; held until either shows something else."""
    if not decision.write_kommo and not decision.write_airtable:
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
    draft.held.append(_held(subject, each, "loop", kommo, airtable))
    return Decision("loop_broken", held=True)


def _held(
    subject: Subject,
    each: FieldMapping,
    reason: Literal["conflict", "loop"],
    kommo: Canonical,
    airtable: Canonical | Absent,
) -> Held:
    shown = None if isinstance(airtable, Absent) else airtable
    before = subject.known.held.get(each.id)
    since = before.since if before else subject.now.timestamp()
    return Held(each.id, each.name, reason, kommo, shown, since)


# ---------------------------------------------------------------------- towards Kommo


def _patch(subject: Subject, draft: _Draft) -> tuple[dict[str, Json], list[Intent]]:
    """The lead's PATCH item; a field that Kommo cannot hold is left out and said to be."""
    by_id = {each.id: each for each in subject.fields}
    wanted = dict(draft.to_kommo)
    item: dict[str, Json] = {}
    try:
        item = subject.table.to_kommo(wanted, subject.lead, final=subject.final)
    except LeadFailed:
        wanted = _possible(subject, draft, by_id)
        item = subject.table.to_kommo(wanted, subject.lead, final=subject.final)
    draft.to_kommo = wanted
    intents = [
        Intent(
            key=subject.key,
            record_id=subject.entry.record_id,
            side="kommo",
            operation="update",
            field=name,
            field_name=by_id[name].name,
            before=draft.kommo[name],
            after=value,
            rule=draft.rules[name],
            event_id=subject.event_id,
        )
        for name, value in wanted.items()
    ]
    return item, intents


def _possible(
    subject: Subject, draft: _Draft, by_id: Mapping[str, FieldMapping]
) -> dict[str, Canonical]:
    """What Kommo can take of the wanted values, field by field, the reasons for the rest noted."""

    def refuse(names: Iterable[str], failed: LeadFailed) -> None:
        draft.problems.append(failed.reason)
        draft.refused.update(names)

    possible: dict[str, Canonical] = {}
    for name, value in draft.to_kommo.items():
        try:
            by_id[name].to_kommo(value, subject.lead, final=subject.final)
        except LeadFailed as failed:
            refuse([name], failed)
        else:
            possible[name] = value
    try:
        subject.table.to_kommo(possible, subject.lead, final=subject.final)
    except LeadFailed as failed:
        together = [name for name in possible if by_id[name].source.name in REASONS]
        refuse(together, failed)
        possible = {name: value for name, value in possible.items() if name not in together}
    return possible


# ---------------------------------------------------------------------- towards Airtable


def _cells(subject: Subject, draft: _Draft) -> tuple[dict[str, Json], list[Intent], bool]:
    """The cells to send, their intents, and whether Airtable has to make options."""
    wanted = draft.to_airtable
    written = [each for each in subject.fields if each.id in wanted]
    cells = {each.id: each.to_cell(wanted[each.id]) for each in written}
    typecast = any(each.needs_typecast(wanted[each.id]) for each in written)
    intents = [_intent(subject, draft, each) for each in written]
    if subject.creates:
        cells[subject.table.key.id] = subject.table.key.cell(key_id(subject.key))
        intents.append(_key_intent(subject))
    return cells, intents, typecast


def _intent(subject: Subject, draft: _Draft, each: FieldMapping) -> Intent:
    agreed, shown = subject.entry.fields.get(each.id), draft.airtable[each.id]
    before = agreed.airtable if agreed and not subject.creates else None
    return Intent(
        key=subject.key,
        record_id=subject.entry.record_id,
        side="airtable",
        operation="create" if subject.creates else "update",
        field=each.id,
        field_name=each.name,
        before=before if isinstance(shown, Absent) else shown,
        after=draft.to_airtable[each.id],
        rule=draft.rules[each.id],
        event_id=subject.event_id,
    )


def _key_intent(subject: Subject) -> Intent:
    """Every create has an open intent, even one that writes nothing but its key."""
    return Intent(
        key=subject.key,
        record_id=None,
        side="airtable",
        operation="create",
        field=subject.table.key.id,
        field_name=subject.table.key.name,
        before=None,
        after=str(key_id(subject.key)),
        rule="created",
        event_id=subject.event_id,
    )


# ---------------------------------------------------------------------- what people read


def with_status(plan: Plan, subject: Subject, text: str) -> Plan:
    """The plan with the status cell saying ``text``, if the record does not say so already."""
    status = plan.table.status
    if status is None:
        return plan
    text = status_cell(text, status)
    known = subject.known.entry.fields.get(status.id)
    shown: Canonical = known.airtable if known else None
    if subject.record is not None:
        cell: Json = subject.record["fields"].get(status.id)
        shown = cell if isinstance(cell, str) else None
    if shown == text and not subject.creates:
        return plan
    intent = Intent(
        key=subject.key,
        record_id=subject.entry.record_id,
        side="airtable",
        operation="create" if subject.creates else "update",
        field=status.id,
        field_name=status.name,
        before=shown,
        after=text,
        rule=STATUS,
        event_id=subject.event_id,
    )
    missing = status.type == "singleSelect" and text not in status.choices
    return replace(
        plan,
        cells={**plan.cells, status.id: text},
        kommo={**plan.kommo, status.id: text},
        intents=(*plan.intents, intent),
        typecast=plan.typecast or missing,
    )


def agreed_after_airtable(plan: Plan, record: Mapping[str, Json]) -> dict[str, AgreedField]:
    """What both sides show after the write: Kommo as read, Airtable as it answered.

    A field that goes to Kommo as well has not been agreed on yet: it moves with that answer.
    """
    fields = dict(plan.entry.fields)
    for each in plan.fields:
        written = each.id in plan.cells or plan.creates
        pending = each.id in plan.item_fields or each.id in plan.unsettled
        if pending or not (written or each.id not in fields):
            continue
        shown = each.from_cell(record["fields"].get(each.id))
        fields[each.id] = AgreedField(plan.kommo[each.id], shown, each.fingerprint)
    status = plan.table.status
    if status is not None and status.id in plan.cells:
        text = str(plan.cells[status.id])
        fields[status.id] = AgreedField(text, text, STATUS)
    return fields


def agreed_after_kommo(plan: Plan, lead_after: Mapping[str, Json]) -> dict[str, AgreedField]:
    """What both sides show once Kommo has taken the item; its own column is what we expect.

    Args:
        plan: with what Airtable showed last.
        lead_after: the lead as it must look now.
    """
    fields = dict(plan.entry.fields)
    for each in plan.fields:
        shown = plan.airtable.get(each.id)
        if each.id in plan.item_fields and not isinstance(shown, Absent):
            kommo = each.from_kommo(lead_after, final=True)
            fields[each.id] = AgreedField(kommo, shown, each.fingerprint, expected=True)
    return fields
