"""Create, update, upsert and delete: validate all of a request, then apply all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from kommo_airtable_sync.sandbox.airtable.cells import Writer
from kommo_airtable_sync.sandbox.airtable.data import Actor, Data
from kommo_airtable_sync.sandbox.airtable.refusal import (
    bad_records,
    bad_request,
    bad_value,
    dead_row,
    typed,
)
from kommo_airtable_sync.sandbox.airtable.schema import (
    COMPUTED,
    MERGE_TYPES,
    Base,
    Field,
    Ids,
    Record,
    Table,
    is_id,
)
from kommo_airtable_sync.sandbox.airtable.settings import Settings

Json = Any
BATCH = 10


@dataclass(slots=True)
class _Row:
    """One record of a request: its cells by field id, and the record it updates, if any."""

    cells: dict[str, Json]
    record_id: str | None = None
    key: tuple[Json, ...] | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What a request wrote, in its own order; ``upsert`` asks for the two lists in the answer."""

    records: list[Record]
    created: list[str]
    upsert: bool = False


class Writing:
    """The write side of the API.

    Args:
        data: where records live.
        ids: source of ids.
        users: by id.
        settings: read at each call.
        refused: (field name or id, key as text) pairs that are refused as a bad value.
    """

    def __init__(
        self,
        data: Data,
        ids: Ids,
        users: dict[str, dict[str, str]],
        settings: Settings,
        refused: set[tuple[str, str]],
    ) -> None:
        self._data = data
        self._ids = ids
        self._users = users
        self._settings = settings
        self._refused = refused

    def create(self, base: Base, table: Table, body: Json, actor: Actor) -> Written:
        """POST: one record (``{fields}``) or up to ten (``{records}``)."""
        given = body_object(body)
        asked = [given] if "records" not in given else _records(given)
        writer = self._writer(base, given)
        rows = [_Row(self._cells(table, writer, _fields(each))) for each in asked]
        return self._apply(base, table, rows, writer, actor)

    def update(
        self,
        base: Base,
        table: Table,
        body: Json,
        actor: Actor,
        *,
        replace: bool,
        found: Mapping[int, Sequence[str]] | None = None,
    ) -> Written:
        """PATCH, or PUT with ``replace``: up to ten records, with or without performUpsert.

        Args:
            base: the base.
            table: the table.
            body: the request's JSON.
            actor: who writes.
            replace: clear the writable fields that are not given.
            found: matches by index as they were when the call arrived; None = match now.

        Raises:
            Refusal: 4xx; nothing was applied.
        """
        given = body_object(body)
        merge = _merge_fields(table, given, {*MERGE_TYPES, *self._settings.merge_types})
        writer = self._writer(base, given)
        rows: list[_Row] = []
        for index, each in enumerate(_records(given)):
            row = _Row(self._cells(table, writer, _fields(each)), _record_id(each))
            if row.record_id is None:
                self._match(table, row, merge, None if found is None else found.get(index, ()))
            if row.record_id is not None:
                self._aim(table, row, replace=replace)
            rows.append(row)
        self._refuse_twice(rows)
        return self._apply(base, table, rows, writer, actor, upsert=bool(merge))

    def update_one(
        self, base: Base, table: Table, record_id: str, body: Json, actor: Actor, *, replace: bool
    ) -> Written:
        """PATCH or PUT of ``/{table}/{record}``."""
        given = body_object(body)
        writer = self._writer(base, given)
        row = _Row(self._cells(table, writer, _fields(given)), record_id)
        self._aim(table, row, replace=replace)
        return self._apply(base, table, [row], writer, actor)

    def matches(self, base: Base, table: Table, body: Json) -> dict[int, list[str]]:
        """What each record of an upsert without id matches at this moment, by index."""
        given = body_object(body)
        merge = _merge_fields(table, given, {*MERGE_TYPES, *self._settings.merge_types})
        writer = self._writer(base, given)
        found: dict[int, list[str]] = {}
        for index, each in enumerate(_records(given) if merge else []):
            cells = self._cells(table, writer, _fields(each))
            found[index] = self._find(table, cells, merge)
        return found

    def delete(self, base: Base, table: Table, record_ids: Sequence[str], actor: Actor) -> Json:
        """DELETE of up to ten records.

        Raises:
            Refusal: 422; nothing was deleted.
        """
        if not 1 <= len(record_ids) <= BATCH or len(set(record_ids)) < len(record_ids):
            raise bad_records()
        for each in record_ids:
            if each not in table.records:
                raise dead_row(each)
        for each in record_ids:
            self._data.delete(base, table, table.records[each], actor)
        return {"records": [{"id": each, "deleted": True} for each in record_ids]}

    def _writer(self, base: Base, given: Mapping[str, Json]) -> Writer:
        return Writer(base, self._ids, self._users, typecast=given.get("typecast") is True)

    def _cells(self, table: Table, writer: Writer, given: Mapping[str, Json]) -> dict[str, Json]:
        fields = {name: table.field_of(name) for name in given}
        return {field.id: writer.cell(field, given[name]) for name, field in fields.items()}

    def _match(
        self, table: Table, row: _Row, merge: list[Field], found: Sequence[str] | None
    ) -> None:
        if not merge:
            raise bad_records()
        matches = self._find(table, row.cells, merge) if found is None else found
        if len(matches) > 1:
            key = ", ".join(str(row.cells[each.id]) for each in merge)
            message = f"Cannot update more than one record per upserted record ({key})"
            raise typed(422, self._settings.several_matches_type, message)
        row.record_id = matches[0] if matches else None
        row.key = tuple(repr(row.cells[each.id]) for each in merge)

    def _find(self, table: Table, cells: Mapping[str, Json], merge: list[Field]) -> list[str]:
        for field in merge:
            if field.id not in cells:
                message = f'Field "{field.name}" to merge on is missing from a record'
                raise bad_request(message)
        key = {field.id: cells[field.id] for field in merge}
        # Seen live: a null key creates; it does not match the rows without one (reference 1.7).
        return [] if None in key.values() else self._data.matching(table, key)

    def _aim(self, table: Table, row: _Row, *, replace: bool) -> None:
        record = table.records.get(row.record_id or "")
        if record is None:
            raise dead_row(str(row.record_id))
        if replace:
            gone = {each: None for each in record.cells if each not in row.cells}
            richtext = {each: "\n" for each in gone if table.fields[each].type == "richText"}
            row.cells = {**gone, **richtext, **row.cells}

    def _refuse_twice(self, rows: list[_Row]) -> None:
        aimed = [row.record_id for row in rows if row.record_id]
        if len(set(aimed)) < len(aimed):
            message = "You cannot update the same record multiple times in a single request."
            raise bad_records(message)
        new = [row.key for row in rows if row.record_id is None and "None" not in (row.key or ())]
        if self._settings.same_new_key == "refuse" and len(set(new)) < len(new):
            raise bad_records("Two records of the request have the same new key.")

    def _refuse_chosen(self, table: Table, row: _Row) -> None:
        record = table.records.get(row.record_id or "")
        held = record.cells.get(table.key_field) if record else None
        key = str(row.cells.get(table.key_field, held))
        for field in (table.fields[each] for each in row.cells):
            if {(field.name, key), (field.id, key)} & self._refused:
                raise bad_value(field.name)

    def _apply(
        self,
        base: Base,
        table: Table,
        rows: list[_Row],
        writer: Writer,
        actor: Actor,
        *,
        upsert: bool = False,
    ) -> Written:
        for row in rows if self._refused else []:
            self._refuse_chosen(table, row)
        self._data.create_missing(base, writer, actor)
        records: list[Record] = []
        created: list[str] = []
        for row in rows:
            if row.record_id is None:
                records.append(self._data.create(base, table, row.cells, actor))
                created.append(records[-1].id)
            else:
                records.append(table.records[row.record_id])
                self._data.update(base, table, records[-1], row.cells, actor)
        return Written(records, created, upsert)


def body_object(body: Json) -> dict[str, Json]:
    """The body, which must be a JSON object.

    Raises:
        Refusal: 422.
    """
    if not isinstance(body, dict):
        raise bad_request()
    return cast("dict[str, Json]", body)


def _records(given: Mapping[str, Json]) -> list[dict[str, Json]]:
    asked = given.get("records")
    if not isinstance(asked, list):
        raise bad_records()
    records = cast("list[Json]", asked)
    if not 1 <= len(records) <= BATCH or not all(isinstance(each, dict) for each in records):
        raise bad_records()
    return records


def _fields(given: Mapping[str, Json]) -> dict[str, Json]:
    fields = given.get("fields")
    if not isinstance(fields, dict):
        raise bad_records()
    return cast("dict[str, Json]", fields)


def _record_id(given: Mapping[str, Json]) -> str | None:
    found = given.get("id")
    if found is not None and not is_id(str(found), "rec"):
        raise bad_records()
    return found


def _merge_fields(table: Table, given: Mapping[str, Json], allowed: set[str]) -> list[Field]:
    asked = given.get("performUpsert")
    if asked is None:
        return []
    names: Json = body_object(asked).get("fieldsToMergeOn")
    if not isinstance(names, list):
        raise bad_request()
    fields = [table.field_of(str(each)) for each in cast("list[Json]", names)]
    if not 1 <= len(fields) <= 3:
        raise bad_request("fieldsToMergeOn takes one to three fields")
    for field in fields:
        if field.type in COMPUTED or field.type not in allowed:
            raise bad_request(f'Field "{field.name}" cannot be merged on')
    return fields
