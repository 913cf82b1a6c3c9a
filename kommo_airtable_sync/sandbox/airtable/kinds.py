"""The field types: what each accepts, what it then holds, how it reads (reference section 3)."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, cast
from zoneinfo import ZoneInfo

from pydantic import TypeAdapter

from kommo_airtable_sync.sandbox.airtable.refusal import bad_value, refuse
from kommo_airtable_sync.sandbox.airtable.schema import LINK, Field, Ids, Record, Table, is_id

Json = Any
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_ISO: TypeAdapter[datetime] = TypeAdapter(datetime)
# Attachment addresses change with every answer and die after two hours (AT:field-model).
_ATTACHMENT_LIFE = timedelta(hours=2)
_FILES = "https://v5.airtableusercontent.example"


@dataclass(slots=True)
class Writer:
    """Turns values into cells, changing nothing: a request is all or nothing.

    ``new_choices`` collects the select options that ``typecast`` asks to create.
    """

    table: Table
    ids: Ids
    users: dict[str, dict[str, str]]
    typecast: bool = False
    new_choices: dict[tuple[str, str], Field] = field(default_factory=dict[tuple[str, str], Field])

    def cell(self, field: Field, value: Json) -> Json:
        """The cell for a value sent to a field; None if the cell becomes empty, 422 if unfit."""
        write = KINDS[field.type].write
        if write is None:
            raise bad_value(field.name, "a value because the field is computed")
        if value is None or value in ("", []) or (value is False and field.type == "checkbox"):
            # Recorded: a cleared richText reads back as a line break, not absent.
            return "\n" if field.type == "richText" else None
        found = write(self, field, value)
        if found is None:
            raise bad_value(field.name)
        return found


# Returns the cell, or None for a value that does not fit.
Write = Callable[[Writer, Field, Json], Json]
# The present is for addresses that expire.
Read = Callable[[Record, Field, datetime], Json]


def _stored(record: Record, field: Field, _: datetime) -> Json:
    return record.cells.get(field.id)


@dataclass(frozen=True, slots=True)
class Kind:
    """How one field type behaves.

    Args:
        write: from a value to a cell; None = computed.
        read: from a record to what is shown.
        options: whether creating such a field needs options.
        merges: whether upsert may merge on it (AT:update-multiple-records, reference 1.7).
    """

    write: Write | None
    read: Read = _stored
    options: bool = False
    merges: bool = False


def read_cell(record: Record, field: Field, now: datetime) -> Json:
    """One cell; None if empty, False for a box that is not ticked."""
    return KINDS[field.type].read(record, field, now)


def parse_instant(value: Json, zone: str = "utc") -> datetime | None:
    """Aware UTC from ISO text (without offset: in ``zone``) or epoch milliseconds, or None."""
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return _EPOCH + timedelta(milliseconds=value)
        if not isinstance(value, str) or not re.match(r"\d{4}-\d\d-\d\d", value):
            return None
        found = _ISO.validate_python(value)
        own = timezone.utc if zone in ("utc", "client") else ZoneInfo(zone)
        return (found if found.tzinfo else found.replace(tzinfo=own)).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def spell(instant: datetime) -> str:
    """``2022-09-05T07:00:00.000Z``, the only form in which the API returns instants."""
    utc = instant.astimezone(timezone.utc)
    return f"{utc:%Y-%m-%dT%H:%M:%S}.{utc.microsecond // 1000:03d}Z"


def as_text(value: Json) -> str:
    """A cell as text, as formulas see lists and objects."""
    if isinstance(value, list):
        return ", ".join(as_text(each) for each in cast("list[Json]", value))
    if isinstance(value, dict):
        shown = cast("dict[str, Json]", value)
        return str(shown.get("name") or shown.get("filename") or "")
    return "" if value is None else str(value)


def _text(_: Writer, __: Field, value: Json) -> Json:
    return value if isinstance(value, str) else None


def _rich_text(_: Writer, __: Field, value: Json) -> Json:
    if not isinstance(value, str):
        return None
    text = re.sub(r"(?m)^(\s*)[*+] ", r"\1- ", value)
    return text if text.endswith("\n") else text + "\n"


def _number(_: Writer, __: Field, value: Json) -> Json:
    """As it comes back: an IEEE double, without ``.0`` where it is whole."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not -sys.float_info.max <= value <= sys.float_info.max:
        return None
    double = float(value)
    return int(double) if double.is_integer() else double


def _rating(_: Writer, field: Field, value: Json) -> Json:
    allowed = range(1, int(field.options.get("max", 5)) + 1)
    return int(value) if type(value) in (int, float) and value in allowed else None


def _date(_: Writer, __: Field, value: Json) -> Json:
    found = parse_instant(value) if isinstance(value, str) else None
    return None if found is None else value[:10]


def _date_time(_: Writer, field: Field, value: Json) -> Json:
    found = parse_instant(value, str(field.options.get("timeZone") or "utc"))
    return None if found is None else spell(found)


def _checkbox(_: Writer, __: Field, value: Json) -> Json:
    return value if value is True else None


def _choice(writer: Writer, field: Field, value: Json) -> Json:
    if isinstance(value, str) and value not in field.choice_names():
        if not writer.typecast:
            raise refuse("INVALID_MULTIPLE_CHOICE_OPTIONS", value)
        writer.new_choices[field.id, value] = field
    return value if isinstance(value, str) else None


def _link(writer: Writer, field: Field, value: Json) -> Json:
    if is_id(value, "rec") and value not in writer.table.linked(field).records:
        raise refuse("ROW_DOES_NOT_EXIST", value)
    return value if is_id(value, "rec") else None


def _attachment(writer: Writer, _: Field, value: Json) -> Json:
    given = cast("dict[str, Json]", value) if isinstance(value, dict) else {}
    url, kept = str(given.get("url", "")), given.get("id")
    if not is_id(kept, "att") and not url.startswith(("http://", "https://")):
        return None
    name = given.get("filename") or url.rpartition("/")[2] or "file"
    return {"id": kept or writer.ids.new("att"), "filename": str(name), "size": 1, "type": ""}


def _collaborator(writer: Writer, _: Field, value: Json) -> Json:
    given = cast("dict[str, Json]", value) if isinstance(value, dict) else {}
    for user in writer.users.values():
        if given.get("id") == user["id"] or given.get("email") == user["email"]:
            return dict(user)
    return None


def _member(writer: Writer, field: Field, value: Json) -> Json:
    return _collaborator(writer, field, {"id": value} if isinstance(value, str) else value)


def _barcode(_: Writer, __: Field, value: Json) -> Json:
    given = cast("dict[str, Json]", value) if isinstance(value, dict) else {}
    return dict(given) if isinstance(given.get("text"), str) else None


def _each(write: Write) -> Write:
    """Of a list, which replaces the cell's; what is there twice counts once."""

    def write_all(writer: Writer, field: Field, value: Json) -> Json:
        if not isinstance(value, list):
            return None
        items = [write(writer, field, each) for each in cast("list[Json]", value)]
        return None if None in items else [e for n, e in enumerate(items) if e not in items[:n]]

    return write_all


def _files(record: Record, field: Field, now: datetime) -> Json:
    address = f"{_FILES}/{int((now + _ATTACHMENT_LIFE).timestamp())}"
    files: list[dict[str, Json]] = record.cells.get(field.id, [])
    return [{**each, "url": f"{address}/{each['id']}"} for each in files] or None


def _ticked(record: Record, field: Field, _: datetime) -> Json:
    return field.id in record.cells


def _computed(shown: Callable[[Record], Json]) -> Kind:
    return Kind(None, lambda record, _, __: shown(record))


_AMOUNT = Kind(_number, options=True)
KINDS: dict[str, Kind] = {
    "singleLineText": Kind(_text, merges=True),
    "multilineText": Kind(_text, merges=True),
    "richText": Kind(_rich_text),
    "email": Kind(_text),
    "url": Kind(_text),
    "phoneNumber": Kind(_text),
    "barcode": Kind(_barcode),
    "number": Kind(_number, options=True, merges=True),
    "currency": _AMOUNT,
    "percent": _AMOUNT,
    "duration": _AMOUNT,
    "rating": Kind(_rating, options=True),
    "date": Kind(_date, options=True, merges=True),
    "dateTime": Kind(_date_time, options=True),
    "checkbox": Kind(_checkbox, _ticked, options=True),
    "singleSelect": Kind(_choice, options=True, merges=True),
    "multipleSelects": Kind(_each(_choice), options=True, merges=True),
    LINK: Kind(_each(_link), options=True),
    "multipleAttachments": Kind(_each(_attachment), _files),
    "singleCollaborator": Kind(_collaborator),
    "multipleCollaborators": Kind(_each(_member)),
    "autoNumber": _computed(lambda record: record.number),
    "createdTime": _computed(lambda record: record.created),
    "lastModifiedTime": _computed(lambda record: record.modified),
    "createdBy": _computed(lambda record: {"id": record.created_by}),
    "lastModifiedBy": _computed(lambda record: {"id": record.modified_by}),
    # What is computed elsewhere always shows one of the forms that a reader has to bear.
    "formula": _computed(lambda _: {"error": "#ERROR!"}),
    "rollup": _computed(lambda _: {"specialValue": "NaN"}),
    "multipleLookupValues": _computed(lambda _: ["looked up"]),
    "count": _computed(lambda _: 0),
    "button": _computed(lambda _: {"label": "Open", "url": None}),
    "aiText": _computed(lambda _: {"state": "empty", "isStale": False, "value": None}),
}
