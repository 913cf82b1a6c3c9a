"""What a decided lead sends: the cells, the PATCH item, the intents that announce them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from kommo_airtable_sync.core.errors import LeadFailed, Side
from kommo_airtable_sync.core.explaining import told_by
from kommo_airtable_sync.core.field_mapping import FieldMapping
from kommo_airtable_sync.core.merge import (
    Absent,
)
from kommo_airtable_sync.core.status import status_cell
from kommo_airtable_sync.core.types import Canonical, Json, key_id
from kommo_airtable_sync.engine.batch import Plan
from kommo_airtable_sync.engine.subject import Draft, Subject
from kommo_airtable_sync.store.entries import Intent

STATUS = "status"
"""The fingerprint of the status field in the ledger."""
REASONS = frozenset({"stage", "loss_reason"})
"""Sources that Kommo takes together or not at all: a lost lead has a reason."""


def patch_item(subject: Subject, draft: Draft) -> tuple[dict[str, Json], list[Intent]]:
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
            event_id=_event_id(subject, draft, name, "kommo"),
        )
        for name, value in wanted.items()
    ]
    return item, intents


def _possible(
    subject: Subject, draft: Draft, by_id: Mapping[str, FieldMapping]
) -> dict[str, Canonical]:
    """What Kommo can take of the wanted values, field by field, the reasons for the rest noted."""

    def refuse(names: Iterable[str], failed: LeadFailed) -> None:
        draft.refused.update(dict.fromkeys(names, failed.reason))

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


def cells_of(subject: Subject, draft: Draft) -> tuple[dict[str, Json], list[Intent], bool]:
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


def _intent(subject: Subject, draft: Draft, each: FieldMapping) -> Intent:
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
        event_id=_event_id(subject, draft, each.id, "airtable"),
    )


def _event_id(subject: Subject, draft: Draft, name: str, side: Side) -> int | None:
    """The event that the field is written for."""
    rule = draft.rules[name]
    if rule == "directive":
        return draft.directives[name].id
    event = told_by(rule, side, subject.events)
    return event.id if event else None


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
