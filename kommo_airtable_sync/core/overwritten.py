"""Edits in Airtable that a write of ours replaced before anybody had read them (design 3.3).

Neither API has compare-and-set, so somebody may edit a cell between our read and our write. An
Airtable event that carries the cell's value tells of it afterwards, if it is stamped inside that
window. Values that we wrote or read ourselves of late prove nothing: they are echoes, or were seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from kommo_airtable_sync.core.canonical import same
from kommo_airtable_sync.core.config import OnConflict, Owner
from kommo_airtable_sync.core.errors import LeadFailed
from kommo_airtable_sync.core.field_mapping import FieldMapping
from kommo_airtable_sync.core.loop_breaker import Written
from kommo_airtable_sync.core.merge import TIE_SECONDS
from kommo_airtable_sync.core.types import Canonical, Json

READ_SECONDS_MAX = 3.0
"""What was read longer before it is sent is read again: no window is wider than this."""


class Write(Written, Protocol):
    """A confirmed write, with what stood there before and when it was announced."""

    @property
    def before(self) -> Canonical:
        """What we had read."""
        ...

    @property
    def created_at(self) -> float:
        """When it was announced, seconds since the epoch."""
        ...


@dataclass(frozen=True, slots=True)
class Told:
    """What an event of Airtable says of one field.

    Args:
        value: what somebody made of it.
        at: when, seconds since the epoch.
        event_id: of the event.
    """

    value: Canonical
    at: float
    event_id: int


@dataclass(frozen=True, slots=True)
class Lost:
    """An edit that was overwritten unseen.

    Args:
        edit: the last one within the window.
        value: what the cell would hold if we had not written; of a set, with what that edit added
            and without what it removed.
        before: what both had before the edit and our write.
        is_set: elements were lost, not a whole.
    """

    edit: Told
    value: Canonical
    before: Canonical
    is_set: bool


def told_values(field: FieldMapping, cells: Json) -> list[Canonical]:
    """The field's value among the cells of an event, in a list; an empty one if it is not told.

    Args:
        field: of the mapping.
        cells: by field id or name, as a webhook's payloads or the REST API spell them.
    """
    if not isinstance(cells, dict):
        return []
    named = cast("dict[str, Json]", cells)
    found = [named[name] for name in (field.id, field.name) if name in named]
    try:
        return [field.from_cell(_spelt(cell, field.type)) for cell in found[:1]]
    except LeadFailed:
        return []


def _spelt(cell: Json, kind: str) -> Json:
    """A webhook's cell in the words of the REST API: options by name, links by id."""
    if isinstance(cell, list):
        return [_spelt(each, kind) for each in cast("list[Json]", cell)]
    key = {"singleSelect": "name", "multipleSelects": "name", "multipleRecordLinks": "id"}.get(kind)
    return cast("Mapping[str, Json]", cell).get(key) if key and isinstance(cell, dict) else cell


def find_lost(
    field: str, told: Iterable[Told], recent: Sequence[Write], stands: Canonical, agreed: Canonical
) -> Lost | None:
    """The edit of this field that one of our writes to Airtable replaced unseen.

    Args:
        field: Airtable field id.
        told: what events say of it.
        recent: what was written to the record of late, oldest first, any field, either side.
        stands: what Airtable shows now.
        agreed: what it showed after our last write; once it shows something else, somebody has
            decided since.
    """
    writes = [write for write in recent if write.field == field and write.side == "airtable"]
    if not writes or not same(stands, agreed):
        return None
    known = [value for write in writes for value in (write.before, write.after)]
    for edit in sorted(told, key=lambda each: each.at, reverse=True):
        window = next((write for write in writes if _spans(write, edit.at)), None)
        if window is None:
            continue
        if any(same(edit.value, value) for value in (stands, *known)):
            # The last edit of the window was seen, so those before it were as well.
            return None
        return _lost(edit, window.before, stands)
    return None


def _spans(write: Write, at: float) -> bool:
    closed_at = write.closed_at
    return closed_at is not None and write.created_at - READ_SECONDS_MAX <= at <= closed_at


def _lost(edit: Told, before: Canonical, stands: Canonical) -> Lost | None:
    values = (edit.value, before, stands)
    if not any(isinstance(value, frozenset) for value in values):
        return Lost(edit, edit.value, before, is_set=False)
    new, old, now = (v if isinstance(v, frozenset) else frozenset[str]() for v in values)
    value = (now | (new - old)) - (old - new)
    return None if same(value, stands) else Lost(edit, value or None, before, is_set=True)


def is_restored(lost: Lost, owner: Owner, on_conflict: OnConflict, kommo_at: float | None) -> bool:
    """Whether the field's rule gives the edit back.

    Args:
        lost: the edit.
        owner: of the field.
        on_conflict: of the field.
        kommo_at: the latest human change in Kommo, seconds since the epoch, None if unknown.
    """
    if owner != "both":
        return owner == "airtable"
    if lost.is_set or on_conflict == "airtable":
        return True
    later = kommo_at is not None and lost.edit.at - kommo_at >= TIE_SECONDS
    return on_conflict == "newest" and later
