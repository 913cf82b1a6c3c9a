"""What the ledger holds once a side has taken what we sent."""

from __future__ import annotations

from collections.abc import Mapping

from kommo_airtable_sync.core.merge import (
    Absent,
)
from kommo_airtable_sync.core.types import Json
from kommo_airtable_sync.engine.batch import Plan
from kommo_airtable_sync.engine.outgoing import STATUS
from kommo_airtable_sync.store.entries import AgreedField


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
