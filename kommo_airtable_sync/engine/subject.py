"""One lead or contact, all that is known of it, and what of that it is merged against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from kommo_airtable_sync.core.canonical import parse_instant
from kommo_airtable_sync.core.field_mapping import FieldMapping
from kommo_airtable_sync.core.mapping import Mapping as TableMapping
from kommo_airtable_sync.core.merge import (
    MISSING,
    UNREAD,
    Absent,
    Agreed,
)
from kommo_airtable_sync.core.sources import EPOCH
from kommo_airtable_sync.core.types import Canonical, Json
from kommo_airtable_sync.store.claiming import ClaimedEvent
from kommo_airtable_sync.store.entries import AgreedField, Held, Known, LedgerEntry

OWN_WRITE_SECONDS = 2.0
"""A modification time this close to a write of ours is taken for it."""


@dataclass
class Draft:
    """What has been decided so far, by field.

    Args:
        refused: why Kommo cannot hold a field's value.
        directives: what people chose, as far as it can be obeyed.
    """

    kommo: dict[str, Canonical] = field(default_factory=dict[str, Canonical])
    airtable: dict[str, Canonical | Absent] = field(default_factory=dict[str, Canonical | Absent])
    to_airtable: dict[str, Canonical] = field(default_factory=dict[str, Canonical])
    to_kommo: dict[str, Canonical] = field(default_factory=dict[str, Canonical])
    agreed: dict[str, AgreedField] = field(default_factory=dict[str, AgreedField])
    held: list[Held] = field(default_factory=list[Held])
    rules: dict[str, str] = field(default_factory=dict[str, str])
    refused: dict[str, str] = field(default_factory=dict[str, str])
    directives: Mapping[str, ClaimedEvent] = field(default_factory=dict[str, ClaimedEvent])


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


def shown(subject: Subject, each: FieldMapping) -> Canonical | Absent:
    """What Airtable shows of a field, as far as it was read."""
    if subject.record is not None:
        return each.from_cell(subject.record["fields"].get(each.id))
    if subject.read or (subject.creates and subject.entry.fields):
        return MISSING
    return UNREAD


def bases(subject: Subject, each: FieldMapping, kommo: Canonical) -> list[Agreed]:
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


def agreed_so_far(subject: Subject) -> dict[str, AgreedField]:
    """The ledger's fields; once others have written to the lead, none is merely expected any more.

    Else a later write of ours, to another field, would make their values look like ours.
    """
    if _is_untouched(subject):
        return dict(subject.entry.fields)
    return {
        name: replace(each, expected=False) if each.expected else each
        for name, each in subject.entry.fields.items()
    }


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


def edited_at(subject: Subject) -> tuple[datetime | None, datetime | None]:
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
