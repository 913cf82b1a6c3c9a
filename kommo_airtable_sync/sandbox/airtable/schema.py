"""Bases, tables, fields and records as plain data, with look-up by id or name."""

from __future__ import annotations

import random
import re
import string
from dataclasses import dataclass, field
from typing import Any

from kommo_airtable_sync.sandbox.airtable.refusal import Refusal, not_yours, typed, unknown_field

Json = Any

_ALPHABET = string.ascii_letters + string.digits
_ID = re.compile(r"(app|tbl|fld|viw|rec|usr|sel|att|itr)[0-9A-Za-z]{14}")

COMPUTED = frozenset((
    "autoNumber", "count", "createdTime", "lastModifiedTime", "createdBy", "lastModifiedBy",
    "formula", "rollup", "multipleLookupValues", "button", "aiText", "externalSyncSource"
))  # fmt: skip
_PLAIN = frozenset((
    "singleLineText", "multilineText", "richText", "email", "url", "phoneNumber",
    "multipleAttachments", "singleCollaborator", "multipleCollaborators", "barcode"
))  # fmt: skip
_WITH_OPTIONS = frozenset((
    "number", "currency", "percent", "rating", "duration", "date", "dateTime", "checkbox",
    "singleSelect", "multipleSelects", "multipleRecordLinks"
))  # fmt: skip
# Upsert may merge on these (AT:update-multiple-records, reference 1.7); more by a setting.
MERGE_TYPES = frozenset(
    ("number", "singleLineText", "multilineText", "singleSelect", "multipleSelects", "date")
)


class Ids:
    """Airtable ids (a prefix and 14 letters or digits), the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - ids of a stand-in, not secrets

    def new(self, prefix: str) -> str:
        """A fresh id such as ``recA1...`` of 17 characters."""
        return prefix + "".join(self._random.choices(_ALPHABET, k=14))


def is_id(text: str, prefix: str) -> bool:
    """Whether the text has the shape of an id with this prefix."""
    return text.startswith(prefix) and _ID.fullmatch(text) is not None


@dataclass(slots=True)
class Record:
    """One row; ``cells`` maps field id to the REST value and holds no empty cells."""

    id: str
    number: int
    created: str
    created_by: str
    modified: str
    modified_by: str
    cells: dict[str, Json] = field(default_factory=dict[str, Json])
    touched: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class Field:
    """One column; ``options`` has the shape of the Metadata API."""

    id: str
    name: str
    type: str
    options: dict[str, Json] = field(default_factory=dict[str, Json])
    description: str = ""

    @property
    def choices(self) -> list[dict[str, Json]]:
        """The options of a select field, in order."""
        return self.options.setdefault("choices", [])

    def choice_names(self) -> set[str]:
        """The exact names a select accepts."""
        return {choice["name"] for choice in self.choices}

    def json(self) -> Json:
        """The field as the Metadata API shows it."""
        shown: dict[str, Json] = {"id": self.id, "name": self.name, "type": self.type}
        if self.description:
            shown["description"] = self.description
        return {**shown, "options": self.options} if self.options else shown


@dataclass(slots=True)
class Table:
    """A table: its fields by id, its records by id in order of creation.

    ``key_field`` is the stand-in's own note: the field by which the logs name a record.
    """

    id: str
    name: str
    description: str = ""
    fields: dict[str, Field] = field(default_factory=dict[str, Field])
    views: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    records: dict[str, Record] = field(default_factory=dict[str, Record])
    next_number: int = 1
    key_field: str = ""
    # field id -> cell value -> record ids in order: so that upserts never scan the table
    indexes: dict[str, dict[Json, dict[str, None]]] = field(
        default_factory=dict[str, dict[Json, dict[str, None]]]
    )
    names: dict[str, Field] = field(default_factory=dict[str, Field])

    @property
    def primary(self) -> Field:
        """The first field; Airtable's primary field never changes place."""
        return next(iter(self.fields.values()))

    def find_field(self, name_or_id: str) -> Field | None:
        """The field of that id, or of exactly that name."""
        return self.fields.get(name_or_id) or self.names.get(name_or_id)

    def field_of(self, name_or_id: str) -> Field:
        """Like ``find_field``.

        Raises:
            Refusal: 422 ``UNKNOWN_FIELD_NAME``.
        """
        found = self.find_field(name_or_id)
        if found is None:
            raise unknown_field(name_or_id)
        return found

    def rename_fields(self) -> None:
        """Bring the look-up by name up to date after fields came, went or were renamed."""
        self.names = {each.name: each for each in self.fields.values()}

    def add_field(self, new: Field) -> Field:
        """Append a field.

        Raises:
            Refusal: 422 if the name is empty or taken.
        """
        if not new.name or new.name in self.names:
            message = f'Duplicate or empty field name: "{new.name}"'
            raise typed(422, "DUPLICATE_OR_EMPTY_FIELD_NAME", message)
        self.fields[new.id] = new
        self.names[new.name] = new
        return new

    def json(self, *, visible_field_ids: bool = False) -> Json:
        """The table as the Metadata API shows it."""
        views: list[Json] = [dict(view) for view in self.views]
        for view in views if visible_field_ids else []:
            view["visibleFieldIds"] = list(self.fields)
        shown: dict[str, Json] = {
            "id": self.id,
            "name": self.name,
            "primaryFieldId": self.primary.id,
            "fields": [each.json() for each in self.fields.values()],
            "views": views,
        }
        return {**shown, "description": self.description} if self.description else shown


@dataclass(slots=True)
class Base:
    """A base and its tables by id."""

    id: str
    name: str
    tables: dict[str, Table] = field(default_factory=dict[str, Table])

    def find_table(self, name_or_id: str) -> Table | None:
        """The table of that id or name; names match whatever their case (reference 1.1)."""
        wanted = name_or_id.lower()
        named = (each for each in self.tables.values() if each.name.lower() == wanted)
        return self.tables.get(name_or_id) or next(named, None)

    def table_of(self, name_or_id: str, *, legacy: bool = False) -> Table:
        """Like ``find_table``.

        Raises:
            Refusal: 403 as documented, or the 404 recorded in 2022 if ``legacy``.
        """
        found = self.find_table(name_or_id)
        if found is None and legacy:
            message = f"Could not find table {name_or_id} in application {self.id}"
            raise typed(404, "TABLE_NOT_FOUND", message)
        if found is None:
            raise not_yours()
        return found


def new_table(ids: Ids, base: Base, name: str, fields: list[Json], description: str = "") -> Table:
    """Add a table with its fields (Metadata API form) to the base.

    Raises:
        Refusal: 422 for a taken name, no fields, or a field that cannot be created.
    """
    if not name or base.find_table(name) is not None:
        raise typed(422, "DUPLICATE_TABLE_NAME", f'Duplicate or empty table name: "{name}"')
    table = Table(ids.new("tbl"), name, description)
    table.views.append({"id": ids.new("viw"), "name": "Grid view", "type": "grid"})
    base.tables[table.id] = table
    try:
        if not fields:
            raise typed(422, "INVALID_REQUEST_MISSING_FIELDS", "A table needs fields")
        for each in fields:
            new_field(ids, base, table, each)
    except Refusal:
        del base.tables[table.id]
        raise
    return table


def new_field(
    ids: Ids, base: Base, table: Table, definition: Json, *, any_type: bool = False
) -> Field:
    """Add a field given as ``{name, type, description?, options?}``; links get their inverse.

    Args:
        ids: source of ids.
        base: the base of the table.
        table: where the field goes.
        definition: the Metadata API's form.
        any_type: computed types too, as a person can make them; the API refuses them.

    Raises:
        Refusal: 422 for a bad type, missing options, or a taken name.
    """
    if not isinstance(definition, dict):
        raise typed(422, "INVALID_REQUEST_UNKNOWN", "A field must be an object")
    asked: dict[str, Json] = dict(definition)  # pyright: ignore[reportUnknownArgumentType]
    name, kind = str(asked.get("name") or ""), str(asked.get("type") or "")
    if kind not in _PLAIN | _WITH_OPTIONS and not (any_type and kind in COMPUTED):
        message = f'Creating fields of type "{kind}" is not supported at this time'
        raise typed(422, "UNSUPPORTED_FIELD_TYPE_FOR_CREATE", message)
    given: dict[str, Json] = dict(asked.get("options") or {})
    if kind in _WITH_OPTIONS and not given:
        message = f"Invalid options for {name}: missing"
        raise typed(422, "INVALID_FIELD_TYPE_OPTIONS_FOR_CREATE", message)
    if "choices" in given:
        given["choices"] = [new_choice(ids, str(each["name"])) for each in given["choices"]]
    made = Field(ids.new("fld"), name, kind, given, str(asked.get("description") or ""))
    if kind != "multipleRecordLinks":
        return table.add_field(made)
    return _new_link(ids, base, table, made)


def _new_link(ids: Ids, base: Base, table: Table, made: Field) -> Field:
    """Links are two-sided; a link of a table to itself has no inverse field."""
    target = base.tables.get(str(made.options.get("linkedTableId")))
    if target is None:
        message = f"Invalid options for {made.name}: linkedTableId"
        raise typed(422, "INVALID_FIELD_TYPE_OPTIONS_FOR_CREATE", message)
    common = {"isReversed": False, "prefersSingleRecordLink": False}
    made.options = {**common, **made.options}
    table.add_field(made)
    if target is not table:
        name = next(n for n in (table.name, f"From {made.name}", made.id) if n not in target.names)
        options = {**common, "linkedTableId": table.id, "inverseLinkFieldId": made.id}
        inverse = target.add_field(Field(ids.new("fld"), name, "multipleRecordLinks", options))
        made.options["inverseLinkFieldId"] = inverse.id
    return made


def new_choice(ids: Ids, name: str) -> dict[str, Json]:
    """A select option as the Metadata API shows it."""
    return {"id": ids.new("sel"), "name": name, "color": "blueLight2"}
