"""What the ledger holds once a side has taken what we sent."""

from __future__ import annotations

from collections.abc import Mapping

from kommo_airtable_sync.core.canonical import normalise
from kommo_airtable_sync.core.field_mapping import FieldMapping
from kommo_airtable_sync.core.merge import Absent, as_set
from kommo_airtable_sync.core.types import Canonical, Json
from kommo_airtable_sync.engine.batch import Plan
from kommo_airtable_sync.engine.outgoing import STATUS
from kommo_airtable_sync.store.entries import AgreedField


def agreed_after_airtable(plan: Plan, record: Mapping[str, Json]) -> dict[str, AgreedField]:
    """What both sides show after the write: Kommo as read, Airtable as it answered.

    A field that goes to Kommo as well has not been agreed on yet: it moves with that answer. Of a
    set, what Airtable got of Kommo is agreed on already: else it would look added in Airtable, and
    go back to Kommo, should somebody there remove it before Kommo has got its half.
    """
    fields = dict(plan.entry.fields)
    for each in plan.fields:
        if each.id in plan.item_fields and each.id in plan.cells:
            half = _half(plan, each, each.from_cell(record["fields"].get(each.id)))
            fields |= {each.id: half} if half else {}
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


def _half(plan: Plan, each: FieldMapping, after: Canonical) -> AgreedField | None:
    """The ledger of a set of which Airtable has its half; None if it is none."""
    before, kommo = plan.airtable.get(each.id), plan.kommo[each.id]
    if isinstance(before, Absent) or not any(isinstance(v, frozenset) for v in (before, after)):
        return None
    agreed = plan.entry.fields.get(each.id)
    known = agreed if agreed and agreed.fingerprint == each.fingerprint else None
    ours = as_set(after) ^ as_set(before)
    added, removed = ours & as_set(after) & as_set(kommo), ours - as_set(after) - as_set(kommo)
    pair = (known.kommo, known.airtable) if known else (None, None)
    moved = [normalise((as_set(value) | added) - removed) for value in pair]
    return AgreedField(moved[0], moved[1], each.fingerprint)


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
