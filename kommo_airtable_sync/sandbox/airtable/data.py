"""The records: changing them, what follows from a change, and the log of all changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kommo_airtable_sync.sandbox.airtable.kinds import spell
from kommo_airtable_sync.sandbox.airtable.schema import LINK, Field, Ids, Record, Table

Json = Any
Differences = Mapping[str, tuple[Json, Json]]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes something: source as in webhook payloads (``publicApi``...), user id, when."""

    source: str
    user: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """One record created, updated or deleted: what webhooks and automations are made from.

    ``sequence`` counts without gaps from 1; ``kind`` is ``create``, ``update`` or ``delete``;
    ``key`` is what the table's key field holds after it (before it, for a deletion); ``cells``
    is field id -> (old, new) of what differs, None for empty.
    """

    sequence: int
    kind: str
    table: Table
    record: str
    key: Json
    actor: Actor
    cells: Differences

    def json(self) -> Json:
        """The change with fields by name, for ``/_control/writes``."""
        fields = self.table.fields
        return {
            "sequence": self.sequence,
            "kind": self.kind,
            "table": self.table.name,
            "record": self.record,
            "key": self.key,
            "source": self.actor.source,
            "user": self.actor.user,
            "applied_at": self.actor.at.timestamp(),
            "fields": {
                fields[each].name if each in fields else each: {"old": old, "new": new}
                for each, (old, new) in self.cells.items()
            },
        }


class Data:
    """All bases' records. Everything passed in is valid already; nothing here refuses."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self.changes: list[Change] = []
        self.sequence = 0

    def changes_since(self, sequence: int) -> list[Change]:
        """The changes after that sequence number, oldest first, without a scan."""
        kept_from = self.sequence - len(self.changes)
        return self.changes[max(0, sequence - kept_from) :]

    def create(self, table: Table, cells: Mapping[str, Json], actor: Actor) -> Record:
        """Add a record with these cells (by field id, in stored form)."""
        now = spell(actor.at)
        record = Record(
            id=self._ids.new("rec"),
            number=table.next_number,
            born=self.sequence + 1,
            created=f"{now[:19]}.000Z",
            created_by=actor.user,
            modified=now,
            modified_by=actor.user,
        )
        table.next_number += 1
        table.records[record.id] = record
        changed = self._put(table, record, cells, actor)
        self._note("create", table, record, actor, changed)
        self._follow_links(table, record, changed, actor)
        return record

    def update(self, table: Table, record: Record, cells: Mapping[str, Json], actor: Actor) -> None:
        """Set cells; values that are there already change nothing, not even the times."""
        changed = self._put(table, record, cells, actor)
        if changed:
            self._note("update", table, record, actor, changed)
            self._follow_links(table, record, changed, actor)

    def delete(self, table: Table, record: Record, actor: Actor) -> None:
        """Remove a record, and its id from every link cell."""
        changed = {each: (value, None) for each, value in record.cells.items()}
        self._note("delete", table, record, actor, changed)
        for field_id, value in record.cells.items():
            _unindex(table, field_id, value, record.id)
        del table.records[record.id]
        self._follow_links(table, record, changed, actor)

    def matching(self, table: Table, values: Mapping[str, Json]) -> list[str]:
        """Ids of the records with all these values (field id -> non-empty cell), oldest first."""
        found = [_index(table, each).get(_hashable(value), {}) for each, value in values.items()]
        return [each for each in min(found, key=len) if all(each in ids for ids in found)]

    def _put(
        self, table: Table, record: Record, cells: Mapping[str, Json], actor: Actor
    ) -> Differences:
        changed: dict[str, tuple[Json, Json]] = {}
        for field_id, new in cells.items():
            old = record.cells.pop(field_id, None)
            if new is not None:
                record.cells[field_id] = new
            if old == new:
                continue
            changed[field_id] = (old, new)
            _unindex(table, field_id, old, record.id)
            if new is not None and field_id in table.indexes:
                table.indexes[field_id].setdefault(_hashable(new), {})[record.id] = None
        if changed:
            record.modified, record.modified_by = spell(actor.at), actor.user
        return changed

    def _note(
        self, kind: str, table: Table, record: Record, actor: Actor, changed: Differences
    ) -> None:
        self.sequence += 1
        key = record.cells.get(table.key_field)
        self.changes.append(Change(self.sequence, kind, table, record.id, key, actor, changed))

    def _follow_links(
        self, table: Table, record: Record, changed: Differences, actor: Actor
    ) -> None:
        """Bring the other side of every changed link into step."""
        for link, (old, new) in ((table.fields[each], pair) for each, pair in changed.items()):
            if link.type != LINK:
                continue
            target = table.linked(link)
            inverse = target.fields[link.options["inverseLinkFieldId"]]
            before, after = list[str](old or []), list[str](new or [])
            for other_id in dict.fromkeys([*before, *after]):
                if other_id in target.records and (other_id in before) != (other_id in after):
                    other = target.records[other_id]
                    self._turn_link(target, other, inverse, record.id, actor)

    def _turn_link(
        self, table: Table, record: Record, field: Field, linked_id: str, actor: Actor
    ) -> None:
        """Put one id into a link cell, or take it out, without going back to the other side."""
        old: list[str] = record.cells.get(field.id, [])
        without = [each for each in old if each != linked_id]
        new = without if linked_id in old else [*old, linked_id]
        changed = self._put(table, record, {field.id: new or None}, actor)
        self._note("update", table, record, actor, changed)


def _index(table: Table, field_id: str) -> dict[Json, dict[str, None]]:
    if field_id not in table.indexes:
        index = table.indexes[field_id] = {}
        for record in table.records.values():
            if field_id in record.cells:
                index.setdefault(_hashable(record.cells[field_id]), {})[record.id] = None
    return table.indexes[field_id]


def _unindex(table: Table, field_id: str, value: Json, record_id: str) -> None:
    entry = table.indexes.get(field_id, {}).get(_hashable(value), {})
    entry.pop(record_id, None)
    if not entry:
        table.indexes.get(field_id, {}).pop(_hashable(value), None)


def _hashable(value: Json) -> Json:
    return value if isinstance(value, (str, int, float)) else repr(value)
