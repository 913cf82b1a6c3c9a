"""The records of a base: changing them, what follows from a change, and the log of all changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kommo_airtable_sync.sandbox.airtable.cells import Writer
from kommo_airtable_sync.sandbox.airtable.instants import spell
from kommo_airtable_sync.sandbox.airtable.schema import (
    Base,
    Field,
    Ids,
    Record,
    Table,
    new_choice,
)

Json = Any


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes something, and when.

    Args:
        source: as in webhook payloads: ``publicApi``, ``client``, ``automation``...
        user: user id.
        at: aware UTC.
    """

    source: str
    user: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """One record created, updated or deleted: what webhooks and automations are made from.

    Args:
        sequence: 1, 2, 3... without gaps.
        kind: ``create``, ``update`` or ``delete``.
        key: the value of the table's key field after the change (before it, for a deletion).
        cells: field id -> (old, new), None for empty; only what differs.
    """

    sequence: int
    kind: str
    table: Table
    record: str
    key: Json
    actor: Actor
    cells: Mapping[str, tuple[Json, Json]]

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
    """All bases' records. Everything passed in is valid already; nothing here refuses.

    Args:
        ids: source of ids.
    """

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self.changes: list[Change] = []
        self._sequence = 0

    def changes_since(self, sequence: int) -> list[Change]:
        """The changes after that sequence number, oldest first, without a scan."""
        kept_from = self._sequence - len(self.changes)
        return self.changes[max(0, sequence - kept_from) :]

    def create_missing(self, base: Base, writer: Writer, actor: Actor) -> None:
        """Create the select options and linked records that a typecast request asked for."""
        for (_, name), field in writer.new_choices.items():
            field.choices.append(new_choice(self._ids, name))
        for (table_id, text), record_id in writer.new_linked.items():
            target = base.tables[table_id]
            self.create(base, target, {target.primary.id: text}, actor, record_id)

    def create(
        self,
        base: Base,
        table: Table,
        cells: Mapping[str, Json],
        actor: Actor,
        record_id: str | None = None,
    ) -> Record:
        """Add a record with these cells (by field id, in stored form)."""
        now = spell(actor.at)
        record = Record(
            id=record_id or self._ids.new("rec"),
            number=table.next_number,
            created=f"{now[:19]}.000Z",
            created_by=actor.user,
            modified=now,
            modified_by=actor.user,
        )
        table.next_number += 1
        table.records[record.id] = record
        changed = self._put(table, record, cells, actor)
        self._note("create", table, record, actor, changed)
        self._follow_links(base, table, record, changed, actor)
        return record

    def update(
        self, base: Base, table: Table, record: Record, cells: Mapping[str, Json], actor: Actor
    ) -> None:
        """Set cells; values that are there already change nothing, not even the times."""
        changed = self._put(table, record, cells, actor)
        if changed:
            self._note("update", table, record, actor, changed)
            self._follow_links(base, table, record, changed, actor)

    def delete(self, base: Base, table: Table, record: Record, actor: Actor) -> None:
        """Remove a record, and its id from every link cell."""
        changed = {each: (value, None) for each, value in record.cells.items()}
        self._note("delete", table, record, actor, changed)
        for field_id, value in record.cells.items():
            self._unindex(table, field_id, value, record.id)
        del table.records[record.id]
        self._follow_links(base, table, record, changed, actor)
        for field in _one_sided_links(table):
            for other in list(table.records.values()):
                self._set_link(table, other, field, record.id, present=False, actor=actor)

    def matching(self, table: Table, values: Mapping[str, Json]) -> list[str]:
        """Ids of the records with all these values (field id -> non-empty cell), oldest first."""
        found = [
            self._index(table, each).get(_hashable(value), {}) for each, value in values.items()
        ]
        fewest = min(found, key=len)
        return [each for each in fewest if all(each in others for others in found)]

    def _put(
        self, table: Table, record: Record, cells: Mapping[str, Json], actor: Actor
    ) -> dict[str, tuple[Json, Json]]:
        changed: dict[str, tuple[Json, Json]] = {}
        for field_id, new in cells.items():
            old = record.cells.get(field_id)
            if old == new:
                continue
            changed[field_id] = (old, new)
            self._unindex(table, field_id, old, record.id)
            if new is None:
                del record.cells[field_id]
            else:
                record.cells[field_id] = new
                if field_id in table.indexes:
                    entry = table.indexes[field_id].setdefault(_hashable(new), {})
                    entry[record.id] = None
        if changed:
            record.modified, record.modified_by = spell(actor.at), actor.user
            watched = _watched(table)
            record.touched.update({each: record.modified for each in changed if each in watched})
        return changed

    def _note(
        self,
        kind: str,
        table: Table,
        record: Record,
        actor: Actor,
        changed: Mapping[str, tuple[Json, Json]],
    ) -> None:
        self._sequence += 1
        key = record.cells.get(table.key_field)
        self.changes.append(Change(self._sequence, kind, table, record.id, key, actor, changed))

    def _index(self, table: Table, field_id: str) -> dict[Json, dict[str, None]]:
        if field_id not in table.indexes:
            index = table.indexes[field_id] = {}
            for record in table.records.values():
                if field_id in record.cells:
                    index.setdefault(_hashable(record.cells[field_id]), {})[record.id] = None
        return table.indexes[field_id]

    def _unindex(self, table: Table, field_id: str, value: Json, record_id: str) -> None:
        if value is None or field_id not in table.indexes:
            return
        key = _hashable(value)
        entry = table.indexes[field_id].get(key, {})
        entry.pop(record_id, None)
        if not entry:
            table.indexes[field_id].pop(key, None)

    def _follow_links(
        self,
        base: Base,
        table: Table,
        record: Record,
        changed: Mapping[str, tuple[Json, Json]],
        actor: Actor,
    ) -> None:
        for field_id, (old, new) in changed.items():
            inverse_id = table.fields[field_id].options.get("inverseLinkFieldId")
            if table.fields[field_id].type != "multipleRecordLinks" or not inverse_id:
                continue
            target = base.tables[table.fields[field_id].options["linkedTableId"]]
            before, after = list[str](old or []), list[str](new or [])
            for other_id in dict.fromkeys(before + after):
                other, present = target.records.get(other_id), other_id in after
                if other is not None:
                    inverse = target.fields[inverse_id]
                    self._set_link(target, other, inverse, record.id, present=present, actor=actor)

    def _set_link(
        self,
        table: Table,
        record: Record,
        field: Field,
        linked_id: str,
        *,
        present: bool,
        actor: Actor,
    ) -> None:
        """Put one id into a link cell or take it out, without going back to the other side."""
        old: list[str] = record.cells.get(field.id) or []
        if present == (linked_id in old):
            return
        new = [*old, linked_id] if present else [each for each in old if each != linked_id]
        changed = self._put(table, record, {field.id: new or None}, actor)
        self._note("update", table, record, actor, changed)


def _watched(table: Table) -> set[str]:
    """Fields whose own last change some lastModifiedTime or -By field reports."""
    return {
        each
        for field in table.fields.values()
        if field.type in ("lastModifiedTime", "lastModifiedBy")
        for each in field.options.get("referencedFieldIds", ())
    }


def _one_sided_links(table: Table) -> Iterable[Field]:
    return [
        each
        for each in table.fields.values()
        if each.type == "multipleRecordLinks" and not each.options.get("inverseLinkFieldId")
    ]


def _hashable(value: Json) -> Json:
    return value if isinstance(value, (str, int, float)) else repr(value)
