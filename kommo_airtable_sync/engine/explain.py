"""Explain a lead: what both sides show now, what is agreed, who wrote what (design 3.9)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kommo_airtable_sync.core.codecs import CELL_KINDS, from_cell
from kommo_airtable_sync.core.destinations import is_writable, patched
from kommo_airtable_sync.core.errors import LeadFailed, Side, SyncError
from kommo_airtable_sync.core.explaining import JournalRow, cause_of
from kommo_airtable_sync.core.field_mapping import FieldMapping
from kommo_airtable_sync.core.mapping import Mapping as TableMapping
from kommo_airtable_sync.core.mapping import wanted_embeds
from kommo_airtable_sync.core.schemas import AirtableField, UnknownReference
from kommo_airtable_sync.core.sources import UnfitError
from kommo_airtable_sync.core.types import LIVE, Canonical, Json, key_id, lead_key
from kommo_airtable_sync.engine.batch import Batch
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.engine.links import tell_known_links
from kommo_airtable_sync.store.claiming import Claim
from kommo_airtable_sync.store.entries import AgreedField, Held, Known
from kommo_airtable_sync.store.history import History

SYNC = "sync"
"""Owner of a field that neither side fills: the status, and what `enrich` gives."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What one side shows of a field.

    Args:
        unread: why nothing is known of it; None if it was read.
        cause: the write of ours that put the value there; None: nobody of us did.
        last: our latest write to it, whatever has become of that.
    """

    value: Canonical = None
    unread: str | None = None
    cause: JournalRow | None = None
    last: JournalRow | None = None


@dataclass(frozen=True, slots=True)
class FieldView:
    """One field of the lead's record.

    Args:
        owner: ``kommo``, ``airtable``, ``both``, or ``sync``.
        agreed: the ledger's values.
    """

    id: str
    name: str
    owner: str
    kommo: Shown
    airtable: Shown
    agreed: AgreedField | None
    held: Held | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is known of a lead.

    Args:
        unreadable: why a side as a whole could not be read, or does not have it.
        state: of the ledger, None if the lead is not in it.
        rows: of the journal, oldest first.
    """

    key: str
    record_id: str | None
    state: str | None
    unreadable: Mapping[Side, str]
    fields: Sequence[FieldView]
    rows: Sequence[JournalRow]


def explain(engine: Engine, lead_id: int) -> Explanation:
    """Read both sides as they are now and put the store's knowledge beside it; writes nothing."""
    key = lead_key(lead_id)
    rows = History(engine.database).of_key(key)
    known = engine.journal.load([key])[key]
    unreadable: dict[Side, str] = {}
    try:
        mapping = engine.directory.mapping()
    except SyncError as error:
        # Without the schemas nothing that could be read could be understood.
        unreadable = {"kommo": str(error), "airtable": str(error)}
        return _explanation(known, unreadable, (), rows)
    lead = _read("kommo", unreadable, lambda: _lead(engine, known, mapping))
    record = _read("airtable", unreadable, lambda: _record(engine, known, mapping))
    look = _Look(lead, record, unreadable, known, rows)
    fields = [look.of_mapped(each) for each in mapping.fields]
    fields += [look.of_other(each) for each in _others(mapping, rows)]
    return _explanation(known, unreadable, fields, rows)


def _explanation(
    known: Known,
    unreadable: Mapping[Side, str],
    fields: Sequence[FieldView],
    rows: Sequence[JournalRow],
) -> Explanation:
    entry = known.entry
    state = entry.state if entry.fields else None
    return Explanation(entry.key, entry.record_id, state, unreadable, fields, rows)


def _read(side: Side, unreadable: dict[Side, str], read: Callable[[], Json]) -> Json:
    """What a side has of the lead; None if that cannot be said, and why is noted."""
    try:
        found = read()
    except SyncError as error:
        unreadable[side] = str(error)
        return None
    if found is None:
        what = "no such lead" if side == "kommo" else "no record of this lead"
        unreadable[side] = f"{side.capitalize()} shows {what}."
    return found


def _lead(engine: Engine, known: Known, mapping: TableMapping) -> Json:
    """The lead with the records and names behind its links, as a merge would see it."""
    key = known.entry.key
    found = engine.kommo.leads_by_id([key_id(key)], with_=wanted_embeds(mapping))
    batch = Batch(Claim(0, LIVE, {key: ()}), run_id="", known={key: known})
    batch.leads = {lead_key(number): lead for number, lead in found.items()}
    tell_known_links(engine, batch)
    return batch.leads.get(key)


def _record(engine: Engine, known: Known, mapping: TableMapping) -> Json:
    own, key = known.entry.record_id, mapping.key
    cell = mapping.key_cell(key_id(known.entry.key))
    found = engine.airtable.find_records(mapping.table_id, [own] if own else [], key.id, [cell])
    return next((each for each in found if each["id"] == own), next(iter(found), None))


def _others(mapping: TableMapping, rows: Sequence[JournalRow]) -> list[AirtableField]:
    """Fields of the table that we have written to and that are not mapped."""
    mapped = {each.id for each in mapping.fields} | {mapping.key.id}
    written = dict.fromkeys(row.field for row in rows if row.operation in ("create", "update"))
    found = [mapping.table.find_field(name) for name in written if name not in mapped]
    return [field for field in found if field is not None and field.type in CELL_KINDS]


@dataclass(frozen=True)
class _Look:
    """The lead, its record, and what the store knows of them."""

    lead: Json
    record: Json
    unreadable: Mapping[Side, str]
    known: Known
    rows: Sequence[JournalRow]

    def of_mapped(self, each: FieldMapping) -> FieldView:
        def kept(value: Canonical) -> Canonical:
            """What Kommo shows once it has been sent a value."""
            if not is_writable(each.source):
                return value
            try:
                fragment = each.to_kommo(value, self.lead, final=True)
                return each.from_kommo(patched(self.lead, fragment), final=True)
            except LeadFailed:
                return value

        kommo = self._shown("kommo", each.id, lambda: each.from_kommo(self.lead, final=True), kept)
        airtable = self._shown(
            "airtable", each.id, lambda: each.from_cell(self.record["fields"].get(each.id))
        )
        return self._view(each.id, each.name, each.owner, kommo, airtable)

    def of_other(self, field: AirtableField) -> FieldView:
        airtable = self._shown(
            "airtable", field.id, lambda: from_cell(self.record["fields"].get(field.id), field)
        )
        return self._view(
            field.id, field.name, SYNC, Shown(unread="not a field of Kommo"), airtable
        )

    def _view(self, id_: str, name: str, owner: str, kommo: Shown, airtable: Shown) -> FieldView:
        agreed, held = self.known.entry.fields.get(id_), self.known.held.get(id_)
        return FieldView(id_, name, owner, kommo, airtable, agreed, held)

    def _shown(
        self,
        side: Side,
        field: str,
        read: Callable[[], Canonical],
        kept: Callable[[Canonical], Canonical] = lambda value: value,
    ) -> Shown:
        done = [
            row
            for row in self.rows
            if row.side == side and row.field == field
            if row.state == "done" and row.operation != "note"
        ]
        last = done[-1] if done else None
        if side in self.unreadable:
            return Shown(unread=self.unreadable[side], last=last)
        try:
            value = read()
        except (LeadFailed, UnknownReference, UnfitError) as error:
            return Shown(unread=str(error), last=last)
        return Shown(value, None, cause_of(self.rows, side, field, value, kept), last)
