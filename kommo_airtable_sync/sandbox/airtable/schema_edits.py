"""New fields, in the Metadata API's form (reference section 4)."""

from __future__ import annotations

from typing import Any, cast

from kommo_airtable_sync.sandbox.airtable.kinds import KINDS
from kommo_airtable_sync.sandbox.airtable.refusal import bad_request, refuse
from kommo_airtable_sync.sandbox.airtable.schema import LINK, Base, Field, Ids, Table

Json = Any


def body_object(body: Json) -> dict[str, Json]:
    """What must be a JSON object, or 422."""
    if not isinstance(body, dict):
        raise bad_request()
    return cast("dict[str, Json]", body)


def new_table(ids: Ids, base: Base, name: str, fields: list[Json]) -> Table:
    """Add a table with these fields to the base."""
    view = {"id": ids.new("viw"), "name": "Grid view", "type": "grid"}
    table = Table(base, ids.new("tbl"), name, [view])
    base.tables[table.id] = table
    for each in fields:
        new_field(ids, table, each)
    return table


def new_field(ids: Ids, table: Table, definition: Json, *, by_person: bool = False) -> Field:
    """Add a field given as ``{name, type, options?}``; a link gets its inverse; or 422.

    ``by_person``: of computed types too, which the API refuses to create.
    """
    given = body_object(definition)
    name, kind = str(given.get("name") or ""), str(given.get("type") or "")
    if kind not in KINDS or (KINDS[kind].write is None and not by_person):
        raise refuse("UNSUPPORTED_FIELD_TYPE_FOR_CREATE", kind)
    check_name(table, name)
    made = Field(ids.new("fld"), name, kind)
    set_options(ids, made, given.get("options") or {})
    if kind == LINK:
        _add_inverse(ids, table, made)
    table.fields[made.id] = made
    return made


def drop_field(table: Table, field: Field) -> None:
    """Remove a field with its cells, and with the inverse of a link."""
    sides = [(table, field.id)]
    if field.type == LINK:
        sides.append((table.linked(field), field.options["inverseLinkFieldId"]))
    for each, field_id in sides:
        del each.fields[field_id]
        each.indexes.pop(field_id, None)
        for record in each.records.values():
            record.cells.pop(field_id, None)


def set_options(ids: Ids, field: Field, given: dict[str, Json]) -> None:
    """Give a field its options; select options get ids. 422 if it needs some and has none."""
    if KINDS[field.type].options and not given:
        raise refuse("INVALID_FIELD_TYPE_OPTIONS_FOR_CREATE", field.name)
    field.options = {name: value for name, value in given.items() if name != "choices"}
    for each in given.get("choices", ()):
        field.add_choice(ids, str(each["name"]))


def check_name(table: Table, name: str, field: Field | None = None) -> None:
    """Refuse (422) a name that is empty, or taken by a field other than this one."""
    if not name or table.find_field(name) not in (None, field):
        raise refuse("DUPLICATE_OR_EMPTY_FIELD_NAME", name)


def _add_inverse(ids: Ids, table: Table, made: Field) -> None:
    target = table.base.tables.get(str(made.options.get("linkedTableId")))
    if target is None:
        raise refuse("INVALID_FIELD_TYPE_OPTIONS_FOR_CREATE", made.name)
    names = (table.name, f"From {made.name}", made.id)
    name = next(each for each in names if target.find_field(each) is None)
    options = {"linkedTableId": table.id, "inverseLinkFieldId": made.id}
    inverse = Field(ids.new("fld"), name, LINK, {**options, "prefersSingleRecordLink": False})
    target.fields[inverse.id] = inverse
    made.options["inverseLinkFieldId"] = inverse.id
