"""What each field type accepts, and what it then holds (reference sections 1.8 and 3)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, cast

from kommo_airtable_sync.sandbox.airtable.instants import day, field_zone, parse, spell
from kommo_airtable_sync.sandbox.airtable.refusal import (
    bad_value,
    computed,
    dead_row,
    unknown_choice,
)
from kommo_airtable_sync.sandbox.airtable.schema import (
    COMPUTED,
    Base,
    Field,
    Ids,
    Table,
    is_id,
)

Json = Any

TEXTS = frozenset(("singleLineText", "multilineText", "email", "url", "phoneNumber"))
_NUMBERS = frozenset(("number", "currency", "percent", "duration", "rating"))
_UNWANTED_IN_NUMBER = re.compile(r"[^0-9eE.+-]")


class Writer:
    """Turns the values of one request into cells, changing nothing: a batch is all or nothing.

    What ``typecast`` must create is collected, for the caller to create once all is valid.

    Args:
        base: for linked tables.
        ids: source of ids.
        users: by id, ``{"id", "email", "name"}``; collaborators must be among them.
        typecast: best-effort conversion from strings; new options and linked records.
    """

    def __init__(
        self, base: Base, ids: Ids, users: dict[str, dict[str, str]], *, typecast: bool
    ) -> None:
        self._base = base
        self._ids = ids
        self._users = users
        self._typecast = typecast
        self.new_choices: dict[tuple[str, str], Field] = {}
        self.new_linked: dict[tuple[str, str], str] = {}

    def cell(self, field: Field, value: Json) -> Json:
        """The cell for a value sent to a field; None if the cell becomes empty.

        Raises:
            Refusal: 422, the value does not fit the field.
        """
        if field.type in COMPUTED:
            raise computed(field.name)
        if field.type == "richText" and value in (None, ""):
            return "\n"  # recorded: a cleared richText reads back as a line break, not absent
        if value is None or value in ("", []):
            return None
        if field.type in TEXTS:
            return self._text(field, value)
        if field.type in _NUMBERS:
            return self._number(field, value)
        others: dict[str, Callable[[Field, Json], Json]] = {
            "richText": self._rich_text,
            "date": self._date,
            "dateTime": self._date_time,
            "checkbox": self._checkbox,
            "singleSelect": self._choice,
            "multipleSelects": self._choices,
            "multipleRecordLinks": self._links,
            "multipleAttachments": self._attachments,
            "singleCollaborator": self._collaborator,
            "multipleCollaborators": self._collaborators,
            "barcode": self._barcode,
        }
        return others[field.type](field, value)

    def _text(self, field: Field, value: Json) -> str:
        if isinstance(value, str):
            return value
        if self._typecast and isinstance(value, (int, float)):
            return str(value)
        raise bad_value(field.name)

    def _rich_text(self, field: Field, value: Json) -> str:
        text = re.sub(r"(?m)^(\s*)[*+] ", r"\1- ", self._text(field, value))
        return text if text.endswith("\n") else text + "\n"

    def _number(self, field: Field, value: Json) -> float | int:
        if isinstance(value, str) and self._typecast:
            value = _number_in(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise bad_value(field.name)
        number = as_javascript(value)
        if field.type == "rating":
            top = int(field.options.get("max", 5))
            if number not in range(1, top + 1):
                raise bad_value(field.name)
        if not math.isfinite(number):
            raise bad_value(field.name)
        return number

    def _date(self, field: Field, value: Json) -> str:
        found = day(value)
        if found is None:
            raise bad_value(field.name)
        return found

    def _date_time(self, field: Field, value: Json) -> str:
        found = parse(value, field_zone(field.options))
        if found is None:
            raise bad_value(field.name)
        return spell(found)

    def _checkbox(self, field: Field, value: Json) -> bool | None:
        if isinstance(value, str) and self._typecast:
            value = value.strip().lower() in ("true", "1", "yes", "checked")
        if not isinstance(value, bool):
            raise bad_value(field.name)
        return value or None

    def _choice(self, field: Field, value: Json) -> str:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and self._typecast:
            value = str(value)
        if not isinstance(value, str):
            raise bad_value(field.name)
        if value not in field.choice_names():
            if not self._typecast:
                raise unknown_choice(value)
            self.new_choices[field.id, value] = field
        return value

    def _choices(self, field: Field, value: Json) -> list[str]:
        names = _split(value) if self._typecast else value
        if not isinstance(names, list):
            raise bad_value(field.name)
        return list(dict.fromkeys(self._choice(field, name) for name in _items(names)))

    def _links(self, field: Field, value: Json) -> list[str]:
        names = _split(value) if self._typecast else value
        if not isinstance(names, list):
            raise bad_value(field.name)
        target = self._base.tables[field.options["linkedTableId"]]
        return list(dict.fromkeys(self._link(field, target, each) for each in _items(names)))

    def _link(self, field: Field, target: Table, value: Json) -> str:
        if not isinstance(value, str):
            raise bad_value(field.name)
        if value in target.records:
            return value
        if is_id(value, "rec"):
            raise dead_row(value)
        if not self._typecast:
            raise bad_value(field.name)
        primary = target.primary.id
        for record in target.records.values():
            if str(record.cells.get(primary)) == value:
                return record.id
        return self.new_linked.setdefault((target.id, value), self._ids.new("rec"))

    def _attachments(self, field: Field, value: Json) -> list[Json]:
        if not isinstance(value, list):
            raise bad_value(field.name)
        return [self._attachment(field, each) for each in _items(value)]

    def _attachment(self, field: Field, value: Json) -> Json:
        if not isinstance(value, dict):
            raise bad_value(field.name)
        asked = cast("dict[str, Json]", value)
        if is_id(str(asked.get("id", "")), "att"):
            return {"id": asked["id"], "filename": str(asked.get("filename", "file"))}
        url = str(asked.get("url", ""))
        if not url.startswith(("http://", "https://")):
            raise bad_value(field.name)
        name = asked.get("filename") or url.rpartition("/")[2] or "file"
        return {"id": self._ids.new("att"), "filename": str(name), "size": len(url), "type": ""}

    def _collaborator(self, field: Field, value: Json) -> Json:
        asked = cast("dict[str, Json]", value) if isinstance(value, dict) else {}
        if isinstance(value, str) and self._typecast:
            asked = {"email": value}
        for user in self._users.values():
            if user["id"] == asked.get("id") or user["email"] == asked.get("email"):
                return dict(user)
        raise bad_value(field.name)

    def _collaborators(self, field: Field, value: Json) -> list[Json]:
        if not isinstance(value, list):
            raise bad_value(field.name)
        asked = [{"id": each} if isinstance(each, str) else each for each in _items(value)]
        return [self._collaborator(field, each) for each in asked]

    def _barcode(self, field: Field, value: Json) -> Json:
        asked = cast("dict[str, Json]", value) if isinstance(value, dict) else {}
        if not isinstance(asked.get("text"), str) or set(asked) - {"text", "type"}:
            raise bad_value(field.name)
        return asked


def as_javascript(number: float) -> float | int:
    """A number as it comes back: an IEEE double, without ``.0`` where it is whole."""
    double = float(number)
    return int(double) if double.is_integer() else double


def as_text(value: Json) -> str:
    """A cell as text: ``cellFormat=string``, and lists inside formulas."""
    if isinstance(value, list):
        return ", ".join(as_text(each) for each in _items(value))
    if isinstance(value, dict):
        shown = cast("dict[str, Json]", value)
        parts = (shown.get(key) for key in ("name", "filename", "text", "email", "specialValue"))
        return str(next((part for part in parts if part), ""))
    if value is True:
        return "checked"
    return "" if value is None else str(value)


def _items(value: Json) -> list[Json]:
    return cast("list[Json]", value)


def _split(value: Json) -> Json:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _number_in(text: str) -> float | None:
    try:
        return float(_UNWANTED_IN_NUMBER.sub("", text))
    except ValueError:
        return None
