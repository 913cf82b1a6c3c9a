"""Create, update, upsert and delete: validate all of a request, then apply all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from kommo_airtable_sync.sandbox.airtable.data import Actor
from kommo_airtable_sync.sandbox.airtable.kinds import KINDS, Writer
from kommo_airtable_sync.sandbox.airtable.refusal import bad_request, bad_value, refuse
from kommo_airtable_sync.sandbox.airtable.schema import Field, Record, Table, is_id
from kommo_airtable_sync.sandbox.airtable.schema_edits import body_object
from kommo_airtable_sync.sandbox.airtable.state import State

Json = Any
BATCH = 10
_TWICE = "You cannot update the same record multiple times in a single request."


@dataclass(slots=True)
class Written:
    """What a request wrote, in its own order, and the ids of what is new among it."""

    records: list[Record] = field(default_factory=list[Record])
    created: list[str] = field(default_factory=list[str])


def write_records(
    state: State,
    table: Table,
    given: Mapping[str, Json],
    actor: Actor,
    *,
    creates: bool = False,
    replace: bool = False,
    seen: int | None = None,
) -> Written:
    """POST, PATCH and PUT of up to ten records; 422 and nothing applied if one is wrong.

    Args:
        state: of the stand-in.
        table: where to.
        given: ``{records, typecast?, performUpsert?}``.
        actor: who writes.
        creates: every record is new.
        replace: clear the writable fields that are not given.
        seen: rows created after this point of the change log match no upsert; None = all do.
    """
    writer = Writer(table, state.ids, state.users, given.get("typecast") is True)
    merge = [] if creates else _merge_fields(table, given.get("performUpsert"))
    rows: list[tuple[Record | None, dict[str, Json]]] = []
    for each in _records(given):
        cells = _cells(writer, each)
        found = None if creates else _find(state, table, each, cells, merge, seen)
        if found and replace:
            cells = {**_cleared(table, found), **cells}
        cells |= kept_cells(state, table, cells, robot=False)
        if actor.source == "publicApi":
            _refuse_chosen(state, table, found, cells)
        rows.append((found, cells))
    ids = [found.id for found, _ in rows if found]
    if len(set(ids)) < len(ids):
        raise refuse("INVALID_RECORDS", message=_TWICE)
    return _apply(state, table, rows, writer, actor)


def delete_records(state: State, table: Table, ids: Sequence[str], actor: Actor) -> None:
    """DELETE of up to ten records; 422 and nothing deleted if one is wrong."""
    if not 1 <= len(ids) <= BATCH or len(set(ids)) < len(ids):
        raise refuse("INVALID_RECORDS")
    for record in [_living(table, each) for each in ids]:
        state.data.delete(table, record, actor)


def _apply(
    state: State,
    table: Table,
    rows: list[tuple[Record | None, dict[str, Json]]],
    writer: Writer,
    actor: Actor,
) -> Written:
    for (_, name), select in writer.new_choices.items():
        select.add_choice(state.ids, name)
    written = Written()
    for found, cells in rows:
        record = found or state.data.create(table, cells, actor)
        if found:
            state.data.update(table, found, cells, actor)
        else:
            written.created.append(record.id)
        written.records.append(record)
    return written


def _records(given: Mapping[str, Json]) -> list[dict[str, Json]]:
    asked = given.get("records")
    records = cast("list[Json]", asked) if isinstance(asked, list) else []
    if not 1 <= len(records) <= BATCH or not all(isinstance(each, dict) for each in records):
        raise refuse("INVALID_RECORDS")
    return records


def _cells(writer: Writer, given: Mapping[str, Json]) -> dict[str, Json]:
    fields = given.get("fields")
    if not isinstance(fields, dict):
        raise refuse("INVALID_RECORDS")
    named = [(writer.table.field_of(n), v) for n, v in cast("dict[str, Json]", fields).items()]
    return {field.id: writer.cell(field, value) for field, value in named}


def _merge_fields(table: Table, asked: Json) -> list[Field]:
    if asked is None:
        return []
    names: Json = body_object(asked).get("fieldsToMergeOn")
    if not isinstance(names, list):
        raise bad_request()
    fields = [table.field_of(str(each)) for each in cast("list[Json]", names)]
    if not 1 <= len(fields) <= 3:
        raise bad_request("fieldsToMergeOn takes one to three fields")
    for each in fields:
        if not KINDS[each.type].merges:
            raise bad_request(f'Field "{each.name}" cannot be merged on')
    return fields


def _find(
    state: State,
    table: Table,
    given: Mapping[str, Json],
    cells: Mapping[str, Json],
    merge: list[Field],
    seen: int | None,
) -> Record | None:
    """The record to update: by id, which bypasses matching, or by the merge fields."""
    record_id = given.get("id")
    if record_id is not None and is_id(record_id, "rec"):
        return _living(table, record_id)
    if record_id is not None or not merge:
        raise refuse("INVALID_RECORDS")
    for each in merge:
        if each.id not in cells:
            raise bad_request(f'Field "{each.name}" to merge on is missing from a record')
    key = {each.id: cells[each.id] for each in merge}
    # Seen live: a null key creates; it does not match the rows without one (reference 1.7).
    ids = [] if None in key.values() else state.data.matching(table, key)
    matches = [table.records[each] for each in ids]
    matches = [each for each in matches if seen is None or each.born <= seen]
    if len(matches) > 1:
        shown = ", ".join(str(value) for value in key.values())
        message = f"Cannot update more than one record per upserted record ({shown})"
        raise refuse("INVALID_RECORDS", message=message)
    return matches[0] if matches else None


def kept_cells(
    state: State, table: Table, cells: Mapping[str, Json], *, robot: bool
) -> dict[str, Json]:
    """What the setting ``rounding`` makes of the numbers among these cells (by field id)."""
    fields = [(table.find_field(name), how) for name, how in state.settings.rounding.items()]
    return {
        field.id: how.kept(cells[field.id])
        for field, how in fields
        if field and how.robot == robot and isinstance(cells.get(field.id), (int, float))
    }


def _living(table: Table, record_id: str) -> Record:
    if record_id not in table.records:
        raise refuse("ROW_DOES_NOT_EXIST", record_id)
    return table.records[record_id]


def _cleared(table: Table, record: Record) -> dict[str, Json]:
    rich = {each.id for each in table.fields.values() if each.type == "richText"}
    return {each: "\n" if each in rich else None for each in record.cells}


def _refuse_chosen(
    state: State, table: Table, record: Record | None, cells: Mapping[str, Json]
) -> None:
    """What ``/_control/refusals`` asks for: a field of the record with some key is refused."""
    held = record.cells.get(table.key_field) if record else None
    key = str(cells.get(table.key_field, held))
    for name, refused_key in state.refused:
        field = table.find_field(name)
        if field and field.id in cells and key == refused_key:
            raise bad_value(field.name)
