"""The Metadata API: whoami, bases, tables, fields (reference section 4)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kommo_airtable_sync.sandbox.airtable.access import Token
from kommo_airtable_sync.sandbox.airtable.refusal import bad_request, not_found, not_yours, typed
from kommo_airtable_sync.sandbox.airtable.schema import (
    Base,
    Field,
    Ids,
    Table,
    new_field,
    new_table,
)
from kommo_airtable_sync.sandbox.airtable.writing import body_object

Json = Any
_DESCRIPTION_LENGTH_MAX = 20_000


def whoami(token: Token, users: dict[str, dict[str, str]]) -> Json:
    """The token's user; the e-mail only with ``user.email:read``."""
    email = {"email": users[token.user]["email"]} if "user.email:read" in token.scopes else {}
    return {"id": token.user, **email}


def list_bases(token: Token, bases: Iterable[Base]) -> Json:
    """The bases on the token's access list."""
    token.require(None, "schema.bases:read")
    shown = [
        {"id": each.id, "name": each.name, "permissionLevel": token.role}
        for each in bases
        if token.sees(each.id)
    ]
    return {"bases": shown}


def on_schema(
    ids: Ids, base: Base, method: str, table: str, item: str, leaf: str, body: Json
) -> Json:
    """Answer a schema call below ``/tables``.

    Args:
        ids: source of ids.
        base: the base.
        method: HTTP method.
        table: table id, ``""`` for the collection.
        item: field id, ``""`` for none.
        leaf: last part of the route's name.
        body: the JSON body, None for GET.

    Raises:
        Refusal: 4xx.
    """
    if method == "POST" and not table:
        given = body_object(body)
        fields: list[Json] = given.get("fields") or []
        made = new_table(ids, base, str(given.get("name") or ""), fields, _description(given))
        return made.json()
    found = base.tables.get(table)
    if found is None:
        raise not_yours()
    match method, leaf:
        case "POST", "fields":
            return new_field(ids, base, found, body_object(body)).json()
        case "PATCH", "{table}":
            return _edit_table(base, found, body_object(body))
        case "PATCH", "{field}":
            return _edit_field(found, item, body_object(body))
        case _:
            raise not_found()


def _description(given: dict[str, Json]) -> str:
    text = str(given.get("description") or "")
    if len(text) > _DESCRIPTION_LENGTH_MAX:
        raise bad_request()
    return text


def _allow(given: dict[str, Json]) -> None:
    if not given or set(given) - {"name", "description"}:
        raise bad_request()


def _edit_table(base: Base, table: Table, given: dict[str, Json]) -> Json:
    _allow(given)
    name = str(given.get("name", table.name))
    if base.find_table(name) not in (None, table):
        raise typed(422, "DUPLICATE_TABLE_NAME", f'Duplicate table name: "{name}"')
    table.name, table.description = name, _description({"description": table.description, **given})
    return table.json()


def _edit_field(table: Table, field_id: str, given: dict[str, Json]) -> Json:
    """Name and description; choices, precision and the like cannot be changed by API."""
    if field_id not in table.fields:
        raise not_yours()
    _allow(given)
    field = table.fields[field_id]
    description = _description({"description": field.description, **given})
    rename_field(table, field, str(given.get("name", field.name)))
    field.description = description
    return field.json()


def rename_field(table: Table, field: Field, name: str) -> None:
    """Give a field another name.

    Raises:
        Refusal: 422 if it is empty or taken.
    """
    if not name or table.names.get(name, field) is not field:
        message = f'Duplicate or empty field name: "{name}"'
        raise typed(422, "DUPLICATE_OR_EMPTY_FIELD_NAME", message)
    field.name = name
    table.rename_fields()
