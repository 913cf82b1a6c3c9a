"""Merge every field of one lead (or contact) against the ledger: what is to be written, and why."""

from __future__ import annotations

from dataclasses import replace

from kommo_airtable_sync.core.field_mapping import FieldMapping
from kommo_airtable_sync.core.merge import (
    Absent,
    Decision,
    Sent,
    merge_field,
)
from kommo_airtable_sync.core.types import Canonical, Json
from kommo_airtable_sync.engine.batch import Batch, Plan
from kommo_airtable_sync.engine.outgoing import cells_of, patch_item
from kommo_airtable_sync.engine.overrides import (
    break_loop,
    directives_of,
    give_back,
    held_field,
    obey,
)
from kommo_airtable_sync.engine.subject import (
    Draft,
    Subject,
    agreed_so_far,
    bases,
    edited_at,
    shown,
)
from kommo_airtable_sync.store.entries import AgreedField, Intent


def plan_subject(subject: Subject, batch: Batch) -> Plan:
    """Decide every field; a plan without cells and item means that nothing is to be written.

    A record that was read and is in step with the lead is agreed on, written to or not; what the
    ledger only supposes of an unread one is not.

    Raises:
        UnknownReference: the lead names something that the schema does not know.
        LeadFailed: a value cannot be represented in Airtable.
    """
    draft, item, intents = _draft(subject, batch)
    cells, more, typecast = cells_of(subject, draft)
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
        problems=tuple(dict.fromkeys(draft.refused.values())),
        unsettled=frozenset({held.field for held in draft.held} | draft.refused.keys()),
        typecast=typecast,
    )


def _draft(subject: Subject, batch: Batch) -> tuple[Draft, dict[str, Json], list[Intent]]:
    """Decide every field, and what goes to Kommo; a choice that Kommo cannot hold is refused."""
    directives = directives_of(subject, batch)
    while True:
        draft = Draft(agreed=agreed_so_far(subject), directives=directives)
        for each in subject.fields:
            _decide(subject, each, draft, batch)
        item, intents = patch_item(subject, draft)
        impossible = directives.keys() & draft.refused.keys()
        if not impossible:
            return draft, item, intents
        # Else Airtable would get what Kommo does not.
        for name in impossible:
            batch.refuse(subject.key, {name}, draft.refused[name])
        directives = {name: directives[name] for name in directives.keys() - impossible}


def _decide(subject: Subject, each: FieldMapping, draft: Draft, batch: Batch) -> None:
    kommo = each.from_kommo(subject.lead, final=subject.final)
    airtable = shown(subject, each)
    draft.kommo[each.id], draft.airtable[each.id] = kommo, airtable
    decision = None
    directive = draft.directives.get(each.id)
    if directive is not None:
        decision = obey(directive, subject, each, kommo, airtable, batch)
    if decision is None:
        decision = give_back(subject, each, kommo, airtable, batch, draft)
        decision = decision or _merge(subject, each, kommo, airtable)
        decision = break_loop(subject, each, decision, kommo, airtable, batch, draft)
    if decision.held:
        if decision.rule == "conflict_held":
            draft.held.append(held_field(subject, each, "conflict", kommo, airtable))
        return
    draft.rules[each.id] = decision.rule
    if decision.write_kommo:
        draft.to_kommo[each.id] = decision.kommo_value
    if decision.write_airtable:
        draft.to_airtable[each.id] = decision.airtable_value
    if decision.agree and not isinstance(airtable, Absent):
        draft.agreed[each.id] = AgreedField(kommo, airtable, each.fingerprint)


def _merge(
    subject: Subject, each: FieldMapping, kommo: Canonical, airtable: Canonical | Absent
) -> Decision:
    kommo_at, airtable_at = edited_at(subject) if each.on_conflict == "newest" else (None, None)
    return merge_field(
        owner=each.owner,
        on_conflict=each.on_conflict,
        kommo=kommo,
        airtable=airtable,
        bases=bases(subject, each, kommo),
        intents=[
            Sent(
                intent.side,
                intent.before,
                (intent.after, intent.after),
                overtaken=intent.closed_at is not None,
            )
            for intent in subject.known.intents
            if intent.field == each.id
        ],
        kommo_at=kommo_at,
        airtable_at=airtable_at,
    )
