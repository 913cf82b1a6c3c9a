"""Bases, tables, fields and records as plain data, with look-up by id or name."""

from __future__ import annotations

import random
import re
import string
from dataclasses import dataclass, field
from typing import Any

from kommo_airtable_sync.sandbox.airtable.refusal import refuse

Json = Any
LINK = "multipleRecordLinks"
_ID = re.compile(r"[a-z]{3}[0-9A-Za-z]{14}")


class Ids:
    """Airtable ids (a prefix and 14 letters or digits), the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - ids of a stand-in, not secrets

    def new(self, prefix: str) -> str:
        """A fresh id such as ``recA1...`` of 17 characters."""
        return prefix + "".join(self._random.choices(string.ascii_letters + string.digits, k=14))


def is_id(value: Json, prefix: str) -> bool:
    """Whether the value has the shape of an id with this prefix."""
    return isinstance(value, str) and value.startswith(prefix) and _ID.fullmatch(value) is not None


@dataclass(slots=True)
class Record:
    """One row; ``cells`` maps field id to the REST value and holds no empty cells.

    ``born`` is the sequence number of its creation in the change log; users are ids.
    """

    id: str
    number: int
    born: int
    created: str
    created_by: str
    modified: str
    modified_by: str
    cells: dict[str, Json] = field(default_factory=dict[str, Json])


@dataclass(slots=True)
class Field:
    """One column; ``options`` has the shape of the Metadata API."""

    id: str
    name: str
    type: str
    options: dict[str, Json] = field(default_factory=dict[str, Json])

    def choice_names(self) -> list[str]:
        """The exact names a select accepts, in order."""
        return [choice["name"] for choice in self.options.get("choices", ())]

    def add_choice(self, ids: Ids, name: str) -> None:
        """Append a select option."""
        choice = {"id": ids.new("sel"), "name": name, "color": "blueLight2"}
        self.options.setdefault("choices", []).append(choice)

    def json(self) -> Json:
        """The field as the Metadata API shows it."""
        shown = {"id": self.id, "name": self.name, "type": self.type}
        return {**shown, "options": self.options} if self.options else shown


@dataclass(slots=True)
class Table:
    """A table: its fields by id, its records by id in order of creation.

    ``key_field`` is the stand-in's own note: id of the field by which the logs name a record.
    ``indexes`` is field id -> cell -> record ids, so that upserts never scan.
    """

    base: Base = field(repr=False)
    id: str
    name: str
    views: list[dict[str, str]]
    fields: dict[str, Field] = field(default_factory=dict[str, Field])
    records: dict[str, Record] = field(default_factory=dict[str, Record])
    next_number: int = 1
    key_field: str = ""
    indexes: dict[str, dict[Json, dict[str, None]]] = field(
        default_factory=dict[str, dict[Json, dict[str, None]]]
    )

    @property
    def primary(self) -> Field:
        """The first field; Airtable's primary field never changes place."""
        return next(iter(self.fields.values()))

    def find_field(self, name_or_id: str) -> Field | None:
        """The field of that id, or of exactly that name."""
        named = (each for each in self.fields.values() if each.name == name_or_id)
        return self.fields.get(name_or_id) or next(named, None)

    def field_of(self, name_or_id: str) -> Field:
        """Like ``find_field``, or 422."""
        found = self.find_field(name_or_id)
        if found is None:
            raise refuse("UNKNOWN_FIELD_NAME", name_or_id)
        return found

    def linked(self, link: Field) -> Table:
        """The table that a link field points to."""
        return self.base.tables[link.options["linkedTableId"]]

    def json(self) -> Json:
        """The table as the Metadata API shows it."""
        return {
            "id": self.id,
            "name": self.name,
            "primaryFieldId": self.primary.id,
            "fields": [each.json() for each in self.fields.values()],
            "views": self.views,
        }


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
